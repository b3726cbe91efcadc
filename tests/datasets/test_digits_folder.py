"""Digits, and folders of anybody's images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, UsageError, open_dataset


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    data = open_dataset("digits", {"size": 8})
    assert np.array_equal((data.x * 16).squeeze(1).numpy(), raw.images.astype(np.float32))
    assert np.array_equal(data.label.numpy(), raw.target)
    assert (len(data.rows("train")), len(data.rows("test"))) == (1197, 600)
    large = open_dataset("digits")
    assert large.x.shape == (1797, 1, 32, 32)


def write(path, colour, size=(40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_folder_reads_crops_and_labels(tmp_path) -> None:
    write(tmp_path / "red" / "1.png", (255, 0, 0))
    write(tmp_path / "red" / "2.jpg", (255, 0, 0), (10, 90))
    write(tmp_path / "blue" / "a b.bmp", (0, 0, 255))
    (tmp_path / "blue" / "notes.txt").write_text("no image")
    data = open_dataset("folder", {"size": 8}, folder=tmp_path)
    assert data.spec.classes == ("blue", "red")
    batch = data.batch(torch.arange(3))
    assert batch["label"].tolist() == [0, 1, 1]
    assert batch["x"].shape == (3, 3, 8, 8)
    assert torch.allclose(batch["x"][0].mean((1, 2)), torch.tensor([0.0, 0.0, 1.0]))
    grey = open_dataset("folder", {"size": 8, "channels": 1}, folder=tmp_path / "red")
    assert grey.spec.shape == (1, 8, 8)
    assert grey.spec.classes == ()


def test_folder_refuses_what_is_no_image(tmp_path) -> None:
    with pytest.raises(UsageError, match="--data-dir"):
        open_dataset("folder")
    with pytest.raises(UsageError, match="holds no images"):
        open_dataset("folder", folder=tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    with pytest.raises(DistkError, match=r"broken\.png"):
        open_dataset("folder", folder=tmp_path)


def test_an_enormous_image_is_refused_before_it_is_decoded(tmp_path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(DistkError, match="enormous"):
        open_dataset("folder", folder=tmp_path)
