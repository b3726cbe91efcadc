"""Splits by their names. Those of the registered data sets are held by `distk.testing.check_dataset`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, NoConfig, UsageError, permuted_split


class Numbers(Dataset):
    """Ten vectors, three of them in a split `gap`."""

    def __init__(self, config: Any, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.name, self.origin = "numbers", "ten vectors"
        self.spec = DataSpec("vector", (1,))
        every = torch.arange(10, device=device)
        self.parts = {"train": every[:5], "test": every[5:7], "gap": every[7:]}

    def __len__(self) -> int:
        return 10

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": rows[:, None].float()}


@pytest.fixture
def numbers() -> Numbers:
    return Numbers(NoConfig(), torch.device("cpu"), Files("numbers", None, ""))


def test_a_split_has_its_rows(numbers: Numbers, generator: torch.Generator) -> None:
    assert numbers.splits == ("train", "test", "gap")
    assert numbers.rows("all") is None
    for name, rows in numbers.parts.items():
        assert torch.equal(numbers.rows(name), rows)
        drawn = numbers.sample_rows(200, generator, name)
        assert set(drawn.tolist()) == set(rows.tolist())


def test_an_unknown_split_is_refused_with_the_names_that_there_are(numbers: Numbers) -> None:
    with pytest.raises(UsageError, match=r"unknown split 'gaps' of data set 'numbers'\. Did you mean 'gap'"):
        numbers.rows("gaps")


@pytest.mark.parametrize(("n", "share", "kept"), [(100, 0.1, 10), (101, 0.1, 10), (7, 0.01, 1), (64, 0.25, 16)])
def test_a_permuted_split_has_each_row_once(n: int, share: float, kept: int, seed: int) -> None:
    parts = permuted_split(n, share, seed, torch.device("cpu"))
    assert len(parts["test"]) == kept
    assert torch.equal(torch.cat([parts["train"], parts["test"]]).sort().values, torch.arange(n))
    assert all(bool((rows.diff() > 0).all()) for rows in parts.values())
    assert torch.equal(permuted_split(n, share, seed, torch.device("cpu"))["test"], parts["test"])


def test_rows_that_are_kept_back_are_training_rows_and_no_longer_trained_on(numbers: Numbers) -> None:
    before = set(numbers.parts["train"].tolist())
    numbers.keep_back(0.4)
    parts = {name: set(rows.tolist()) for name, rows in numbers.parts.items()}
    assert parts["train"] | parts["validation"] == before
    assert not parts["train"] & parts["validation"]
    assert len(parts["validation"]) == 2
    assert (parts["test"], parts["gap"]) == ({5, 6}, {7, 8, 9})


def test_whole_identities_are_kept_back(numbers: Numbers) -> None:
    numbers.parts = {"train": torch.arange(10)}
    numbers.identity = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    numbers.keep_back(0.4)
    parts = {name: set((rows // 2).tolist()) for name, rows in numbers.parts.items()}
    assert len(parts["validation"]) == 2
    assert not parts["train"] & parts["validation"]
