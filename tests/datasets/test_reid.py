"""Person pictures from the user's npz file."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError, open_dataset


def write(folder: Path, **change: np.ndarray) -> np.ndarray:
    images = np.random.default_rng(random.getrandbits(64)).integers(0, 256, (40, 12, 6, 3), dtype=np.uint8)
    identity = np.repeat(np.array([-1, 0, 3, 7, 7, 9, 12, 15, 20, 21]), 4)
    held = {"imagedata": images, "identity": identity, **change}
    np.savez_compressed(folder / "reid.npz", **{k: v for k, v in held.items() if v is not None})
    return images


def test_pictures_and_identities_are_read(tmp_path: Path) -> None:
    images = write(tmp_path)
    data = open_dataset("reid", {}, folder=tmp_path)
    assert data.spec.shape == (3, 12, 6)
    assert len(data) == 36  # without identity -1
    batch = data.batch(torch.arange(36))
    assert np.array_equal((batch["x"] * 255).round().numpy(), images[4:].transpose(0, 3, 1, 2))
    assert batch["label"].tolist() == [k for k, n in enumerate([4, 4, 8, 4, 4, 4, 4, 4]) for _ in range(n)]
    held = []
    for fold in range(5):
        data = open_dataset("reid", {"fold": fold, "drop": (-1, 0)}, folder=tmp_path)
        train, test = (set(data.batch(data.rows(s))["label"].tolist()) for s in ("train", "test"))
        assert not train & test
        held += test
    assert sorted(held) == list(range(7))


def test_a_split_in_the_file_is_taken(tmp_path: Path) -> None:
    marks = np.arange(40) % 10
    split = {"train_indices_bool": marks < 5, "valid_indices_bool": marks == 5, "test_indices_bool": marks > 6}
    write(tmp_path, **split)
    data = open_dataset("reid", {"drop": ()}, folder=tmp_path)
    assert data.rows("train").tolist() == [i for i in range(40) if i % 10 < 6]
    assert data.rows("test").tolist() == [i for i in range(40) if i % 10 > 6]
    write(tmp_path, **{**split, "test_indices_bool": marks > 3})
    with pytest.raises(DistkError, match="overlap"):
        open_dataset("reid", {}, folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"identity": None}, "expected imagedata uint8 .* found imagedata"),
        ({"identity": np.zeros(3, dtype=int)}, "found imagedata uint8"),
        ({"imagedata": np.zeros((40, 12, 6, 3))}, "found imagedata float64"),
        ({"imagedata": np.array([{}] * 40)}, "is object .*which cannot be in this file or is not read"),
        ({"test_indices_bool": np.zeros(40)}, "must be 40 booleans each"),
        ({"identity": np.full(40, -1)}, "holds no picture"),
    ],
)
def test_other_contents_are_refused(change: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    write(tmp_path, **change)
    with pytest.raises(DistkError, match=words):
        open_dataset("reid", {}, folder=tmp_path)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    with pytest.raises(UsageError, match="'reid' needs its file: add --data-dir DIR"):
        open_dataset("reid", {})
    write(tmp_path)
    path = tmp_path / "reid.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DistkError, match="is not a valid npz file"):
        open_dataset("reid", {}, folder=tmp_path)
