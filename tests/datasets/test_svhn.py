"""SVHN's MATLAB files: axis order, the digit 0, and what strangers may put into them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import io

from distk import DistkError, UsageError, open_dataset
from distk.data import Files
from distk.plugins.datasets.matfile import arrays
from distk.plugins.datasets.svhn import Svhn, read_mat


def made(folder: Path, name: str = "train_32x32.mat", n: int = 11, **changed) -> tuple[np.ndarray, np.ndarray]:
    """A file as the authors write it: X [32, 32, 3, n], y [n, 1] in 1..10."""
    draw = np.random.default_rng(random.getrandbits(64))
    x = draw.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    y = (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None]
    io.savemat(folder / name, {"X": x, "y": y, **changed}, do_compression=bool(draw.integers(2)))
    return x, y


def test_axes_and_labels(tmp_path: Path) -> None:
    x, y = made(tmp_path, n=23)
    x[5, 20, 2, 7] = 255 - x[5, 20, 2, 7]  # one marked pixel: row 5, column 20, blue, digit 7
    io.savemat(tmp_path / "train_32x32.mat", {"X": x, "y": y})
    data = open_dataset("svhn", folder=tmp_path.as_posix()) if made(tmp_path, "test_32x32.mat", 4) else None
    assert data is not None
    batch = data.batch(torch.arange(23))
    assert batch["x"].shape == (23, 3, 32, 32)
    assert float(batch["x"][7, 2, 5, 20] * 255) == pytest.approx(int(x[5, 20, 2, 7]))
    np.testing.assert_array_equal((batch["x"] * 255).round().byte().numpy(), np.moveaxis(x, (3, 2), (0, 1)))
    assert batch["label"].tolist() == [int(v) % 10 for v in y[:, 0]]
    assert batch["label"][9] == 0  # written as 10
    assert data.rows("train").tolist() == list(range(23))
    assert data.rows("test").tolist() == list(range(23, 27))


def test_without_a_test_file_a_tenth_is_kept_back(tmp_path: Path) -> None:
    made(tmp_path, n=40)
    data = open_dataset("svhn", folder=tmp_path)
    assert len(data.rows("train")) == 36
    assert len(data.rows("test")) == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"X": np.zeros((11, 3, 32, 32), np.uint8)},
            r"expected X uint8 \[32, 32, 3, N\].*found X uint8 \[11, 3, 32, 32\]",
        ),
        ({"X": np.zeros((32, 32, 3, 11))}, "found X double"),
        ({"y": np.ones((12, 1), np.uint8)}, r"y uint8 \[12, 1\]"),
        ({"y": np.zeros((11, 1), np.uint8)}, "labels are 1 to 10"),
        ({"y": np.full((11, 1), 11, np.uint8)}, "labels are 1 to 10"),
        ({"y": np.full((11, 1), np.nan)}, "labels are 1 to 10"),
    ],
)
def test_wrong_contents(tmp_path: Path, changed: dict, said: str) -> None:
    made(tmp_path, **changed)
    with pytest.raises(DistkError, match=said):
        read_mat(tmp_path / "train_32x32.mat")


def test_missing_variables_and_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    io.savemat(path, {"Z": np.ones((2, 2))})
    with pytest.raises(DistkError, match=r"found Z double \[2, 2\]"):
        read_mat(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DistkError, match=r"expected a MATLAB v5 file, and this is of MATLAB v7\.3"):
        read_mat(path)
    path.write_bytes(b"something else")
    with pytest.raises(DistkError, match="expected a MATLAB v5 file"):
        read_mat(path)


def test_damaged_files_give_one_sentence(tmp_path: Path) -> None:
    made(tmp_path, n=3)
    path = tmp_path / "train_32x32.mat"
    whole = path.read_bytes()
    seed = random.getrandbits(64)
    draw = np.random.default_rng(seed)
    said = []
    for _ in range(60):
        broken = bytearray(whole[: draw.integers(10, len(whole))] if draw.integers(2) else whole)
        for place in draw.integers(0, min(len(broken), 600), 4):
            broken[place] = draw.integers(256)
        path.write_bytes(bytes(broken))
        try:
            pixels, labels = read_mat(path)
            assert (pixels.shape, labels.shape) == ((3, 3, 32, 32), (3,))  # damage in pixel values cannot be told
        except DistkError as error:
            said.append(str(error))
    assert not [text for text in said if "\n" in text]


def test_missing_files_name_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"none of train_32x32\.mat"):
        open_dataset("svhn", folder=tmp_path)
    monkeypatch.setenv("DISTK_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=rf"{tmp_path}.*--primary styled-digits --secondary digits28"):
        open_dataset("svhn")
    monkeypatch.delenv("DISTK_DATA")
    with pytest.raises(UsageError, match="DISTK_DATA is not set"):
        Svhn(None, torch.device("cpu"), Files("svhn", None, Svhn.reads))


def test_real_digits(real) -> None:
    data = open_dataset("svhn", folder=real("svhn/train_32x32.mat").parent)
    labels = data.batch(torch.arange(len(data)))["label"]
    train = torch.bincount(labels[data.rows("train")], minlength=10).tolist()
    assert train == [32, 112, 79, 72, 55, 53, 34, 36, 43, 38]  # counts of the labels 10, 1, 2, ..., 9
    assert labels[:10].tolist() == [1, 9, 2, 3, 2, 5, 9, 3, 3, 1]
    assert len(data.rows("test")) == 99
    # Neighbouring pixels of a photograph are alike; with any two axes exchanged they would not be.
    x = data.batch(torch.arange(200))["x"]
    assert float((x[..., 1:] - x[..., :-1]).abs().mean()) < 0.05
    assert float((x[..., 1:, :] - x[..., :-1, :]).abs().mean()) < 0.05


@pytest.mark.parametrize("packed", [True, False])
def test_arrays_are_those_of_scipy(tmp_path: Path, packed: bool) -> None:
    draw = np.random.default_rng(5)
    held = {
        "X": draw.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8),
        "y": np.array([[1.0], [10.0], [3.0]]),
        "few": np.array([[7]], np.int32),
        "far": draw.normal(size=(4, 3)).astype(np.float32),
    }
    io.savemat(tmp_path / "a.mat", held, do_compression=packed)
    found = arrays((tmp_path / "a.mat").read_bytes())
    expected = io.loadmat(tmp_path / "a.mat")
    assert set(found) == set(held)
    for name, array in found.items():
        assert array.shape == expected[name].shape
        np.testing.assert_array_equal(array.read(), expected[name])


def test_compressed_damage_is_noticed(tmp_path: Path) -> None:
    """A compressed file ends in a checksum: another pixel value cannot pass."""
    x = np.zeros((32, 32, 3, 4), np.uint8)
    io.savemat(tmp_path / "train_32x32.mat", {"X": x, "y": np.ones((4, 1), np.uint8)}, do_compression=True)
    whole = (tmp_path / "train_32x32.mat").read_bytes()
    size = int.from_bytes(whole[132:136], "little")
    broken = bytearray(whole)
    broken[136 + size - 1] ^= 1
    (tmp_path / "train_32x32.mat").write_bytes(bytes(broken))
    with pytest.raises(DistkError, match="cannot read"):
        read_mat(tmp_path / "train_32x32.mat")
