"""Pictures of a folder or an archive in a known order, decoded side by side and kept."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distk.data import Files
from distk.errors import DistkError
from distk.pictures import Form
from distk.plugins.datasets import decoded as module
from distk.plugins.datasets.decoded import decoded, place
from distk.tree import opened

N = 3 * module.WINDOW * (os.cpu_count() or 1) + 5
"""More than are open at the same time."""


def coded(shade: int, size: tuple[int, int] = (6, 10), mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    colour = shade if mode == "L" else (shade, 255 - shade, 7)
    Image.new(mode, size, colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def packed(tmp_path: Path, seed: int) -> Path:
    """Pictures of a shade each in an order that is none; every tenth in grey."""
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for i in np.random.default_rng(seed).permutation(N).tolist():
            member, content = tarfile.TarInfo(f"{i:04}.png"), coded(i % 250, mode="RGB" if i % 10 else "L")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_pictures_stand_in_the_order_that_was_asked_for(packed: Path, seed: int) -> None:
    order = np.random.default_rng(seed + 1).permutation(N)
    with opened(packed, {".png"}) as tree:
        images, seen = decoded("test", tree, [tree.entries[i] for i in order], Form((10, 6)))
    assert images.shape == (N, 3, 10, 6)
    assert np.array_equal(images[:, 0, 3, 3], order % 250)
    assert seen["coloured"] == sum(i % 10 == 0 for i in range(N))


def test_many_are_kept_with_what_is_to_be_said(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distk.kept.SMALL", 1)
    form = Form((8, 8), 1)

    def read() -> tuple[np.ndarray, list[str]]:
        with opened(packed, {".png"}) as tree:
            images, seen = decoded("test", tree, tree.entries, form)
            return np.array(images), seen.told(form)

    first, told = read()
    assert any("cut to the middle and resized" in sentence for sentence in told)
    monkeypatch.setattr(module, "_read_all", lambda *_: pytest.fail("read again"))
    again, same = read()
    assert np.array_equal(first, again)
    assert same == told


def test_a_square_is_cut_and_averages_are_means(tmp_path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with opened(tmp_path, {".png"}) as tree:
        images, _ = decoded("test", tree, tree.entries, Form((8, 8), average=True, crop=32))
        middle = pixels[4:36, 14:46].reshape(8, 4, 8, 4, 3).mean((1, 3)).transpose(2, 0, 1)
        assert np.abs(images[0] - middle).max() <= 1, "each of two passes rounds"
        with pytest.raises(DistkError, match="60x40 pixels, from which no 50 can be cut"):
            decoded("test", tree, tree.entries, Form((8, 8), crop=50))


def test_a_damaged_picture_is_named(packed: Path, tmp_path: Path) -> None:
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    (tmp_path / "out" / "0100.png").write_bytes(coded(9)[:40])
    with opened(tmp_path / "out", {".png"}) as tree, pytest.raises(DistkError, match=r"0100\.png' cannot be read"):
        decoded("test", tree, tree.entries, Form((8, 8)))


def test_where_a_set_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "set.zip").write_bytes(b"")
    (tmp_path / "set.png").write_bytes(b"")
    assert place(Files("name", None, "x"), "set.zip") is None
    assert place(Files("name", tmp_path, "x"), "set.zip", "*/set.zip") == tmp_path / "deep" / "set.zip"
    assert place(Files("name", tmp_path / "deep" / "set.zip", "x"), "set.zip") == tmp_path / "deep" / "set.zip"
    assert place(Files("name", tmp_path, "x"), "other") == tmp_path, "what the user named is the set itself"
    assert place(Files("name", tmp_path / "set.png", "x"), "other") is None
    monkeypatch.setenv("DISTK_DATA", str(tmp_path))
    assert place(Files("deep", None, "x"), "set.zip") == tmp_path / "deep" / "set.zip"
    assert place(Files("name", None, "x"), "other") is None
