"""Digits, and folders of anybody's images."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def split_folder(root: Path) -> Path:
    for part, count in (("train", 4), ("val", 2), ("testing", 3)):
        for name in ("cat", "dog"):
            for i in range(count):
                write(root / part / name / f"{i}.png", (40 * i, 0, 0))
    return root


def test_folders_above_the_classes_are_splits(tmp_path: Path) -> None:
    root = split_folder(tmp_path / "pets")
    data = open_dataset("folder", {"size": 8}, folder=root)
    assert {name: len(rows) for name, rows in data.parts.items()} == {"train": 8, "val": 4, "test": 6}
    assert data.spec.classes == ("cat", "dog")
    assert data.batch(data.rows("test"))["label"].tolist() == [0, 0, 0, 1, 1, 1]
    write(root / "cover.png", (9, 9, 9))
    data = open_dataset("folder", {"size": 8}, folder=root)
    assert set(data.parts) == {"train", "test"}, "not all pictures lie in a split"
    assert data.spec.classes == ()
    assert any("1 of 19 files outside any sub-folder" in sentence for sentence in data.told)


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_an_archive_is_what_the_folder_is(tmp_path: Path, form: str) -> None:
    root = split_folder(tmp_path / "pets")
    archive = shutil.make_archive(str(tmp_path / "packed"), form, tmp_path, "pets")
    plain, packed = (open_dataset("folder", {"size": 8}, folder=place) for place in (root, archive))
    everything = torch.arange(len(plain))
    assert torch.equal(plain.batch(everything)["x"], packed.batch(everything)["x"])
    assert torch.equal(plain.label, packed.label)
    assert all(torch.equal(plain.parts[name], packed.parts[name]) for name in ("train", "val", "test"))


def test_a_file_is_what_its_folder_is(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.png", (1, 2, 3))
    single, alone = (open_dataset("folder", folder=place) for place in (tmp_path / "one" / "a.png", tmp_path / "one"))
    assert torch.equal(single.batch(torch.arange(1))["x"], alone.batch(torch.arange(1))["x"])


def test_damaged_files_stop_or_are_left_out(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", (80 * i, 0, 0))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(DistkError, match=r"1\.png' cannot be read .* --on-bad skip"):
        open_dataset("folder", folder=tmp_path)
    data = open_dataset("folder", {"on_bad": "skip"}, folder=tmp_path)
    assert (data.batch(torch.arange(2))["x"][:, 0, 0, 0] * 255).tolist() == [0, 160]
    assert "1 damaged file left out: 1.png" in data.told
    for i in (0, 2):
        (tmp_path / f"{i}.png").write_bytes(b"nothing")
    with pytest.raises(DistkError, match="no file below"):
        open_dataset("folder", {"on_bad": "skip"}, folder=tmp_path)


def test_frames_of_one_file_are_pictures_of_one_split(tmp_path: Path) -> None:
    for k in range(5):
        frames = [Image.new("L", (8, 8), 50 * i + k) for i in range(4)]
        frames[0].save(tmp_path / f"{k}.tif", save_all=True, append_images=frames[1:])
    data = open_dataset("folder", {"size": 8, "channels": 1, "test": 0.4}, folder=tmp_path)
    values = (data.batch(torch.arange(20))["x"][:, 0, 0, 0] * 255).round().long()
    assert values.tolist() == [50 * i + k for k in range(5) for i in range(4)]
    of_file = [set((values[data.rows(part)] % 50).tolist()) for part in ("train", "test")]
    assert not of_file[0] & of_file[1]
    assert [len(data.rows(part)) for part in ("train", "test")] == [12, 8]
    assert data.told == ("5 files of several frames read as 20 pictures",)
    first = open_dataset("folder", {"size": 8, "channels": 1, "frames": "first"}, folder=tmp_path)
    assert len(first) == 5
    assert first.told == ("5 pictures read as the first of several frames of a file",)


def test_what_was_changed_is_said_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distk import kept

    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "SMALL", 1)
    write(tmp_path / "in" / "1.png", (1, 2, 3))
    told = [open_dataset("folder", {"size": 8}, folder=tmp_path / "in").told for _ in range(2)]
    assert told[0] == told[1] == ("1 picture cut to the middle and resized to 8x8",)


def test_other_shapes_and_channels(tmp_path: Path) -> None:
    write(tmp_path / "a.png", (255, 0, 0))
    options = {"size": 16, "width": 24, "channels": 4, "fit": "pad"}
    data = open_dataset("folder", options, folder=tmp_path)
    assert data.spec.shape == (4, 16, 24)
    assert data.batch(torch.arange(1))["x"][0, :, 8, 12].tolist() == [1, 0, 0, 1]
    assert data.batch(torch.arange(1))["x"][0, 3, 8, 0] == 0, "transparent beside the picture"
