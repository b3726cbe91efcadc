"""The IDX loader on files written here, and on the real ones where they are."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError, open_dataset
from distk.plugins.datasets.mnist_like import read_idx
from distk.testing.data import check_dataset


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write(folder: Path, stem: str, images: np.ndarray, labels: np.ndarray, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for what, values in (("images", images), ("labels", labels)):
        name = folder / f"{stem}-{what}-idx{values.ndim}-ubyte"
        if zipped:
            name.with_name(name.name + ".gz").write_bytes(gzip.compress(idx(values)))
        else:
            name.write_bytes(idx(values))


@pytest.fixture
def images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (37, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "notmnist"])
def test_reads_what_was_written(name: str, zipped: bool, tmp_path: Path, images: np.ndarray) -> None:
    labels = (np.arange(37) % 10).astype(np.uint8)
    write(tmp_path, "train", images[:30], labels[:30], zipped)
    write(tmp_path, "t10k", images[30:], labels[30:], zipped)
    data = open_dataset(name, folder=tmp_path)
    assert len(data) == 37
    batch = data.batch(torch.arange(37))
    assert np.array_equal((batch["x"][:, 0] * 255).round().byte().numpy(), images)
    assert batch["label"].tolist() == labels.tolist()
    assert data.rows("train").tolist() == list(range(30))
    assert data.rows("test").tolist() == list(range(30, 37))
    assert str(tmp_path) in data.origin
    padded = open_dataset(name, {"size": 32}, folder=tmp_path).batch(torch.arange(37))["x"]
    assert torch.equal(padded[:, :, 2:30, 2:30], batch["x"])
    assert float(padded.sum()) == pytest.approx(float(batch["x"].sum()))


def test_without_a_test_pair_a_tenth_is_held_back(tmp_path: Path, images: np.ndarray) -> None:
    write(tmp_path / "raw", "train", images, np.zeros(37, np.uint8), False)
    data = open_dataset("mnist", folder=tmp_path)
    train, test = data.rows("train"), data.rows("test")
    assert len(test) == 4
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(37))


@pytest.mark.parametrize(("variant", "first", "classes"), [("letters", 1, 26), ("balanced", 0, 47), ("byclass", 0, 62)])
def test_emnist_is_turned_and_its_letters_count_from_one(
    variant: str, first: int, classes: int, tmp_path: Path, images: np.ndarray
) -> None:
    labels = (np.arange(37) % classes + first).astype(np.uint8)
    write(tmp_path, f"emnist-{variant}-train", images, labels, True)
    data = open_dataset(f"emnist:{variant}", folder=tmp_path)
    batch = data.batch(torch.arange(37))
    assert np.array_equal((batch["x"][:, 0] * 255).round().byte().numpy(), images.transpose(0, 2, 1))
    assert batch["label"].tolist() == (labels - first).tolist()
    assert len(data.spec.classes) == classes


def damaged(images: np.ndarray) -> dict[str, tuple[bytes, str]]:
    good = idx(images)
    promise = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60_000, 28, 28)
    huge = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**16, 2**16)
    return {
        "empty": (b"", "not an IDX file"),
        "short header": (good[:9], "not an IDX file"),
        "floats": (bytes([0, 0, 13, 3]) + good[4:], "not an IDX file"),
        "labels instead": (idx(np.zeros(9, np.uint8)), "not an IDX file"),
        "cut off": (good[:-1], "does not fit"),
        "too long": (good + b"x", "does not fit"),
        "promises more": (promise + good[16:], "does not fit"),
        "promises the moon": (huge, "does not fit"),
        "no images": (bytes([0, 0, 8, 3]) + struct.pack(">3I", 0, 28, 28), "does not fit"),
        "gzip of the moon": (gzip.compress(huge), "does not fit"),
        "gzip cut off": (gzip.compress(good)[:-30], "cannot read"),
        "gzip too long": (gzip.compress(good + b"x"), "more values"),
        "gzip too short": (gzip.compress(good[:-1]), "fewer values"),
        "gzip damaged": (gzip.compress(good)[:40] + b"\0" * 40 + gzip.compress(good)[80:], "cannot read"),
    }


@pytest.mark.parametrize("what", list(damaged(np.zeros((1, 2, 2), np.uint8))))
def test_damaged_files_give_one_sentence(what: str, tmp_path: Path, images: np.ndarray) -> None:
    content, said = damaged(images)[what]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DistkError, match=said) as raised:
        read_idx(path, 3)
    assert str(path) in str(raised.value)


def test_files_that_do_not_belong_together(tmp_path: Path, images: np.ndarray) -> None:
    write(tmp_path / "a", "train", images, np.zeros(36, np.uint8), False)
    with pytest.raises(DistkError, match="36 labels for the 37 images"):
        open_dataset("mnist", folder=tmp_path / "a")
    write(tmp_path / "b", "train", images, np.full(37, 10, np.uint8), False)
    with pytest.raises(DistkError, match="labels run from 10 to 10"):
        open_dataset("mnist", folder=tmp_path / "b")
    write(tmp_path / "c", "train", np.zeros((3, 40, 40), np.uint8), np.zeros(3, np.uint8), False)
    with pytest.raises(DistkError, match="more than size 28"):
        open_dataset("mnist", folder=tmp_path / "c")
    write(tmp_path / "d", "train", images, np.zeros(37, np.uint8), False)
    (tmp_path / "d" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match="train-labels"):
        open_dataset("mnist", folder=tmp_path / "d")
    (tmp_path / "e").mkdir()
    with pytest.raises(UsageError, match="train-images"):
        open_dataset("mnist", folder=tmp_path / "e")


def test_without_files_mnist_is_a_stand_in_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    data = open_dataset("mnist")
    assert "stand-in digits28" in data.origin
    assert data.spec.shape == (1, 28, 28)
    assert open_dataset("mnist", {"size": 32}).batch(torch.arange(2))["x"].shape == (2, 1, 32, 32)
    check_dataset("mnist")
    for name in ("fashion-mnist", "kmnist", "emnist", "notmnist"):
        with pytest.raises(UsageError, match="--data-dir"):
            open_dataset(name)


def test_a_shared_folder_is_not_taken_for_another_set(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "train", images, np.zeros(37, np.uint8), False)
    monkeypatch.setenv("DISTK_DATA", str(tmp_path))
    assert len(open_dataset("mnist")) == 37
    with pytest.raises(UsageError, match="needs its files"):
        open_dataset("fashion-mnist")
    write(tmp_path / "fashion_mnist", "train", images[:5], np.zeros(5, np.uint8), True)
    assert len(open_dataset("fashion-mnist")) == 5


def test_the_real_mnist(real) -> None:
    data = open_dataset("mnist", folder=real("mnist/train-images-idx3-ubyte.gz").parent)
    assert len(data.rows("train")) == 60_000
    assert len(data) == 61_000  # the test pair at hand holds 1,000
    batch = data.batch(torch.arange(8))
    assert batch["label"].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert float(data.images[:60_000].float().mean() / 255) == pytest.approx(0.1307, abs=1e-4)


def test_the_real_notmnist(real) -> None:
    data = open_dataset("notmnist", folder=real("notmnist/notmnist-images-idx3-ubyte.gz").parent)
    assert len(data) == 7000
    assert len(data.rows("test")) == 700
    counts = torch.bincount(data.label)
    assert (int(counts.min()), int(counts.max())) == (666, 721)
