"""What is kept for the next start: made once, anew when its files change or it is damaged."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, kept
from distk.data import open_dataset


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for i in range(60):
        target = folder / ("b" if i % 3 else "a") / f"{i:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(target)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Filling:
    """Counts how often an array is made."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, array: np.ndarray) -> None:
        self.times += 1
        array[...] = np.arange(array.size, dtype=array.dtype).reshape(array.shape)


def test_it_is_made_once_until_what_it_is_of_changes(cache: Path) -> None:
    fill = Filling()
    first = kept.kept("a", {"files": "1"}, (40, 3), np.uint8, fill)
    again = kept.kept("a", {"files": "1"}, (40, 3), np.uint8, fill)
    assert fill.times == 1
    assert isinstance(again, np.memmap)
    assert np.array_equal(first, again)
    kept.kept("a", {"files": "2"}, (40, 3), np.uint8, fill)
    assert fill.times == 2
    kept.kept("a", {"files": "2"}, (40, 4), np.uint8, fill)
    kept.kept("b", {"files": "2"}, (40, 4), np.uint8, fill)
    assert fill.times == 4
    assert len(list(cache.iterdir())) == 4, "two arrays; the old ones were replaced"


@pytest.mark.parametrize("harm", ["cut", "flipped", "emptied", "described otherwise", "no description"])
def test_a_damaged_one_is_made_anew(cache: Path, harm: str) -> None:
    fill = Filling()
    kept.kept("a", {}, (40, 3), np.uint8, fill)
    (array,), (about,) = cache.glob("*.npy"), cache.glob("*.json")
    content = bytearray(array.read_bytes())
    if harm == "cut":
        array.write_bytes(content[:-7])
    elif harm == "flipped":
        content[-5] ^= 4
        array.write_bytes(content)
    elif harm == "emptied":
        array.write_bytes(b"")
    elif harm == "described otherwise":
        about.write_text("[1, 2]")
    else:
        about.unlink()
    found = kept.kept("a", {}, (40, 3), np.uint8, fill)
    assert fill.times == 2
    assert found[39, 2] == 119


def test_a_start_that_was_killed_leaves_nothing_that_counts(cache: Path) -> None:
    class Killed(BaseException):
        pass

    def dies(array: np.ndarray) -> None:
        array[:] = 1
        raise Killed

    with pytest.raises(Killed):
        kept.kept("a", {}, (40, 3), np.uint8, dies)
    assert not list(cache.iterdir())
    fill = Filling()
    kept.kept("a", {}, (40, 3), np.uint8, fill)
    assert fill.times == 1


def test_what_a_killed_start_had_begun_is_removed(cache: Path) -> None:
    kept.kept("a", {}, (40, 3), np.uint8, Filling())
    left, running, strange = cache / f"{'0a' * 12}.x.part", cache / f"{'1b' * 12}.x.part", cache / "film.part"
    for path in (left, running, strange):
        path.write_bytes(b"begun")
        os.utime(path, (1, 1))
    with running.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        kept.kept("b", {}, (40, 3), np.uint8, Filling())
    assert not left.exists()
    assert running.exists(), "another process fills it"
    assert strange.exists(), "not ours"


def test_an_error_of_the_users_file_is_not_said_of_the_cache(cache: Path, capsys: pytest.CaptureFixture) -> None:
    times = []

    def unreadable(array: np.ndarray) -> None:
        times.append(1)
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        kept.kept("a", {}, (40, 3), np.uint8, unreadable)
    assert len(times) == 1
    assert "DISTK_CACHE" not in capsys.readouterr().err


def test_a_description_that_cannot_be_written_leaves_the_array(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise DistkError("cannot write")

    monkeypatch.setattr(kept, "write_atomic", full)
    assert kept.kept("a", {}, (40, 3), np.uint8, Filling())[39, 2] == 119


def test_without_room_it_is_made_in_memory_and_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fill = Filling()
    cache.parent.joinpath("cache").write_text("a file where the folder should be")
    found = kept.kept("a", {}, (40, 3), np.uint8, fill)
    assert found[39, 2] == 119
    assert "DISTK_CACHE" in capsys.readouterr().err
    cache.unlink()
    size = os.statvfs(cache.parent)
    full = os.statvfs_result((size.f_bsize, size.f_frsize, size.f_blocks, 0, 0, *tuple(size)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert kept.kept("a", {}, (40, 3), np.uint8, fill)[39, 2] == 119
    assert not list(cache.glob("*.npy"))


def test_a_folder_of_images_is_decoded_once(
    pictures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, in_folder: Path
) -> None:
    from distk.plugins.datasets import folder as module

    monkeypatch.setattr(kept, "SMALL", 1)
    decoded: list[int] = []
    inner = module.read_many

    def counted(*given: Any) -> Iterator[tuple[int, np.ndarray]]:
        for k, picture in inner(*given):
            decoded.append(k)
            yield k, picture

    monkeypatch.setattr(module, "read_many", counted)
    first = open_dataset("folder", {"size": 8}, folder=pictures)
    second = open_dataset("folder", {"size": 8}, folder=pictures, where="host")
    assert len(decoded) == 60
    everything = torch.arange(60)
    assert torch.equal(first.batch(everything)["x"], second.batch(everything)["x"])
    victim = sorted(pictures.rglob("*.png"))[7]
    Image.new("RGB", (8, 8), (255, 0, 0)).save(victim)
    third = open_dataset("folder", {"size": 8}, folder=pictures)
    assert len(decoded) == 120
    assert not torch.equal(third.batch(everything)["x"], first.batch(everything)["x"])
    os.utime(victim, ns=(1, 1))
    open_dataset("folder", {"size": 8}, folder=pictures)
    assert len(decoded) == 180, "the time of change counts"
    assert [60, 3, 8, 8] in [json.loads(path.read_text())["shape"] for path in cache.glob("*.json")]
