"""Drawn items are drawn once, where they fit, and are bit for bit what drawing them anew gives."""

from __future__ import annotations

import pytest
import torch

from distk import memory, open_dataset
from distk.device import no_host_reads
from distk.remembered import Remembered
from distk.testing import NoHostReads

CPU = torch.device("cpu")


class Counting:
    """Draws rows as numbers, and keeps which ones it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.asked += rows.tolist()
        return rows[:, None].float() + torch.tensor([0.0, 0.5])


def test_each_row_is_drawn_once_whatever_the_batches(generator: torch.Generator) -> None:
    draw = Counting()
    kept = Remembered(draw, 100, (2,), CPU)
    for _ in range(50):
        rows = torch.randint(100, (16,), generator=generator)
        assert torch.equal(kept(rows), rows[:, None].float() + torch.tensor([0.0, 0.5]))
    assert len(draw.asked) == len(set(draw.asked)) > 90


def test_no_rows_are_no_items() -> None:
    assert Remembered(Counting(), 100, (2,), CPU)(torch.zeros(0, dtype=torch.long)).shape == (0, 2)


@pytest.mark.parametrize("free", [4 * 100 * 2 * 4 - 1, 1 << 40])
def test_what_does_not_fit_is_drawn_each_time(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(memory, "available", lambda: free)
    draw = Counting()
    kept = Remembered(draw, 100, (2,), CPU)
    kept(torch.arange(5)), kept(torch.arange(5))
    assert len(draw.asked) == (5 if kept.fits else 10)
    assert kept.fits == (free == 1 << 40)
    assert not Remembered(draw, 1 << 40, (1000,), CPU).fits


def test_where_the_host_may_not_be_read_it_is_drawn() -> None:
    kept = Remembered(lambda rows: rows[:, None].float(), 10, (1,), CPU)
    with no_host_reads(), NoHostReads():
        drawn = kept(torch.arange(3))
    assert torch.equal(drawn, torch.arange(3)[:, None].float())


@pytest.mark.parametrize(
    ("name", "options"),
    [("deadleaves", {"train": 300, "test": 100}), ("idfaces", {"identities": 20})],
)
def test_a_remembered_picture_is_the_drawn_one(name: str, options: dict[str, int], generator: torch.Generator) -> None:
    data = open_dataset(name, options)
    for n in (1, 7, 64):
        rows = torch.randint(len(data), (n,), generator=generator)
        remembered = [data.batch(rows)["x"] for _ in range(2)]
        with no_host_reads():
            drawn = data.batch(rows)["x"]
        assert all(torch.equal(x, drawn) for x in remembered)
