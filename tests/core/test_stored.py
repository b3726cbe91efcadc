"""Items on the host or the device: the same batches in both, gathered ahead; and what is kept for the next start."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

import distk
from distk import UsageError, checkpoint
from distk.data import open_dataset
from distk.device import Ranks
from distk.settings import resolve
from distk.source import Source
from distk.stored import SHARE, Clock, Stored, free_memory, rows_at
from distk.training.beginning import build
from distk.training.loop import resume

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def by_hand(seed: int, step: int, call: int, lane: int, size: int) -> int:
    """`rows_at` in whole numbers without end, cut to 64 bits."""
    mask = (1 << 64) - 1

    def mixed(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    start = mixed((mixed((seed * golden) & mask) + (call + 1) * golden) & mask)
    state = mixed(((step + 1) * golden + start) & mask)
    return (mixed((state + (lane + 1) * golden) & mask) >> 1) % size


@pytest.mark.parametrize("device", DEVICES)
def test_rows_are_what_whole_numbers_give(device: str, seed: int) -> None:
    lanes = torch.arange(40, device=device)
    for step, call, size in ((0, 0, 7), (123_456, 2, 1_000_000), (3, 1, 1)):
        expected = [by_hand(seed << 31, step, call, lane, size) for lane in range(40)]
        assert rows_at(seed << 31, step, call, lanes, size).tolist() == expected
        counter = torch.tensor(step, device=device)
        assert rows_at(seed << 31, counter, call, lanes, size).tolist() == expected


def test_rows_are_uniform_over_items_and_independent_from_step_to_step(seed: int) -> None:
    size, batch, steps = 50, 64, 1000
    drawn = torch.stack([rows_at(seed, step, 0, torch.arange(batch), size) for step in range(steps)])
    counts = torch.bincount(drawn.flatten(), minlength=size).numpy()
    assert stats.chisquare(counts).pvalue > 1e-6
    pairs = torch.bincount((drawn[:-1] * size + drawn[1:]).flatten(), minlength=size * size).numpy()
    assert stats.chisquare(pairs).pvalue > 1e-6
    neighbours = torch.bincount((drawn[:, :-1] * size + drawn[:, 1:]).flatten(), minlength=size * size).numpy()
    assert stats.chisquare(neighbours).pvalue > 1e-6
    again = rows_at(seed, 0, 1, torch.arange(batch), size)
    assert not torch.equal(again, drawn[0]), "another draw of one step"
    for other in (seed + 1, seed + 2, seed + 7):
        theirs = rows_at(other, torch.arange(steps)[:, None], 0, torch.arange(batch), size)
        every = {tuple(rows) for rows in torch.cat([drawn, theirs]).tolist()}
        assert len(every) == 2 * steps, "another seed takes no batch of this one, at no step"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for i in range(60):
        target = folder / ("b" if i % 3 else "a") / f"{i:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(target)
    return folder


def batches(folder: Path, where: Any, device: str, steps: int = 5, **source: int) -> list[dict[str, Tensor]]:
    data = open_dataset("folder", {"size": 8}, device=device, folder=folder, where=where)
    counter, drawn = torch.zeros((), dtype=torch.long, device=device), []
    assert data.images.on_host == (where == "host")
    for step in range(steps):
        clock = Clock(11, counter, step)
        one = Source(data, 6, torch.Generator(device).manual_seed(0), clock=clock, **source)
        drawn += [one.sample(), one.sample(3)]
        counter += 1
    return drawn


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_batches_wherever_the_items_lie(pictures: Path, device: str) -> None:
    resident, host = batches(pictures, "device", device), batches(pictures, "host", device)
    for a, b in zip(resident, host, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("x", "label"))
    assert len({tuple(batch["x"].flatten().tolist()) for batch in host}) == len(host)
    halves = [batches(pictures, "host", device, rank=rank, world=2) for rank in (0, 1)]
    whole = batches_of_twelve(pictures, device)
    for i, batch in enumerate(whole):
        assert torch.equal(batch["x"], torch.cat([halves[0][2 * i]["x"], halves[1][2 * i]["x"]]))


def batches_of_twelve(folder: Path, device: str) -> list[dict[str, Tensor]]:
    data = open_dataset("folder", {"size": 8}, device=device, folder=folder)
    zero = torch.zeros((), dtype=torch.long, device=device)
    made = torch.Generator(device)
    return [Source(data, 12, made, clock=Clock(11, zero + step, step)).sample() for step in range(5)]


def test_the_next_batch_is_gathered_while_the_step_runs(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[list[int]] = []
    inner = Stored._gathered

    def slow(self: Stored, rows: Tensor) -> Tensor:
        time.sleep(0.2)
        gathered.append(rows.tolist())
        return inner(self, rows)

    monkeypatch.setattr(Stored, "_gathered", slow)
    data = open_dataset("folder", {"size": 8}, folder=pictures, where="host")
    made, counter = torch.Generator(), torch.zeros((), dtype=torch.long)
    waits = []
    for step in range(4):
        before = time.perf_counter()
        Source(data, 6, made, clock=Clock(11, counter, step)).sample()
        waits.append(time.perf_counter() - before)
        counter += 1
        time.sleep(0.3)  # the step
    assert waits[0] > 0.2, "nothing was there for the first one"
    assert max(waits[1:]) < 0.15, "gathered while the step ran"
    train = data.rows("train")
    expected = [train[rows_at(11, step, 0, torch.arange(6), len(train))].tolist() for step in range(5)]
    assert gathered[:4] == expected[:4]


def test_a_foreseen_batch_that_is_not_asked_for_is_not_given(pictures: Path) -> None:
    """After step 0 the batch of step 1 waits; a run that goes on at step 7 gets that of step 7."""
    data = open_dataset("folder", {"size": 8}, folder=pictures, where="host")
    resident = open_dataset("folder", {"size": 8}, folder=pictures, where="device")
    made = torch.Generator()
    for step, n in ((0, 6), (7, 6), (8, 4), (9, 4)):
        clock = Clock(3, torch.tensor(step), step)
        a = Source(data, n, made, clock=clock).sample()
        b = Source(resident, n, made, clock=Clock(3, torch.tensor(step), step)).sample()
        assert torch.equal(a["x"], b["x"]), step
        rows = torch.tensor([5, 1, 1])
        assert torch.equal(data.batch(rows)["x"], resident.batch(rows)["x"]), "a lookup between two batches"


@pytest.mark.parametrize("device", DEVICES)
def test_training_is_bit_for_bit_the_same_and_is_taken_up_again(pictures: Path, tmp_path: Path, device: str) -> None:
    common: dict[str, Any] = {"data": "folder", "data_dir": pictures, "z": 3, "batch": 8, "device": device}
    common |= {"size": 64, "quiet": True, "capture": "off", "deterministic": True}
    runs = {}
    for where in ("device", "host"):
        run = distk.train("betavae", out=tmp_path / where, steps=4, data_on=where, **common)
        runs[where] = checkpoint.tensors(run.checkpoint)
    stopped = distk.train("betavae", out=tmp_path / "stopped", steps=2, data_on="host", **common)
    resume(stopped.path, steps=4, quiet=True)
    runs["resumed"] = checkpoint.tensors(stopped.checkpoint)
    for name, value in runs["device"].items():
        assert torch.equal(value, runs["host"][name]), name
        assert torch.equal(value, runs["resumed"][name]), name


def test_data_that_changed_are_told_when_a_run_is_taken_up(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((40, 64, 64), np.uint8))
    run = distk.train("betavae", out=tmp_path / "run", data="arrays", data_dir=str(path), steps=1, batch=4, quiet=True)
    resume(run.path, steps=2, quiet=True)
    assert "the data changed" not in capsys.readouterr().err
    np.save(path, np.zeros((50, 64, 64), np.uint8))
    resume(run.path, steps=3, quiet=True)
    assert "the data changed since this run began: they were 40 images" in capsys.readouterr().err


def test_where_is_chosen_by_room_and_refused_where_it_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    items = np.zeros((100, 10), np.uint8)
    assert free_memory(device) > 1 << 20
    monkeypatch.setattr("distk.stored.free_memory", lambda device: int(1000 / SHARE))
    assert not Stored(items, device).on_host
    monkeypatch.setattr("distk.stored.free_memory", lambda device: int(999 / SHARE))
    assert Stored(items, device).on_host
    assert not Stored(items, device, "device").on_host
    with pytest.raises(UsageError, match="leave --data-on host out"):
        open_dataset("blobs", where="host")


def test_replicas_in_one_process_share_the_thread_and_not_the_batches(pictures: Path) -> None:
    data = open_dataset("folder", {"size": 8}, folder=pictures, where="host")
    made, seen = torch.Generator(), {0: [], 1: []}
    for step in range(3):
        for seed, drawn in seen.items():
            drawn.append(Source(data, 6, made, clock=Clock(seed, torch.tensor(step), step)).sample()["x"])
    for seed, drawn in seen.items():
        alone = open_dataset("folder", {"size": 8}, folder=pictures, where="device")
        for step in range(3):
            assert torch.equal(
                drawn[step], Source(alone, 6, made, clock=Clock(seed, torch.tensor(step), step)).sample()["x"]
            )


def test_the_step_reads_nothing_back_in_either_place(pictures: Path) -> None:
    from distk.device import no_host_reads
    from distk.testing import NoHostReads

    for where in ("device", "host"):
        options = {
            "data": {"name": "folder", "dir": str(pictures), "size": 64},
            "train": {"batch": 4, "device": "cpu", "data_on": where},
        }
        trainer = build(resolve("betavae", options=options), torch.device("cpu"), Ranks())
        trainer.step()
        source = Source(trainer.dataset, 4, trainer.generator, clock=Clock(0, trainer.counter, 1))
        with no_host_reads(), NoHostReads():
            source.sample()


@pytest.mark.slow
def test_a_million_images_train_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12.3 GB of images in a file: less than 4 GB of memory of its own, and no more at the end than after 20 steps."""
    import importlib.util
    import sys

    where = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(where))
    spec = importlib.util.spec_from_file_location("host", where / "host.py")
    assert spec is not None
    host = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    monkeypatch.setitem(sys.modules, "host", host)
    spec.loader.exec_module(host)
    if os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize < 14e9:
        pytest.skip("13 GB of disk are needed")
    found = host.memory_of(host.write(tmp_path / "many.npy", 1_000_000), torch.device("cpu"), 200)
    (tmp_path / "many.npy").unlink()
    assert found["peak"] < 4e9
    assert found["at_the_end"] - found["after_20_steps"] < 50e6


def test_a_subclass_that_draws_its_batches_itself_is_not_counted() -> None:
    from distk.plugins.datasets.folder import Folder

    class Paired(Folder):
        def sample(self, *arguments: Any) -> dict[str, Tensor]:
            return {}

    class Plain(Folder):
        pass

    assert (Folder.counted, Plain.counted, Paired.counted) == (True, True, False)
