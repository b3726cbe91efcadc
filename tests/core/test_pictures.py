"""Pictures of every kind, and what is said of them; what lies below a folder or in an archive."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distk.errors import DistkError, UsageError
from distk.pictures import Form, Seen, colour, frames_of, read_frames
from distk.tree import opened

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
OPACITY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
AS_IT_IS = {1: Form((6, 9), 1), 2: Form((6, 9), 2), 3: Form((6, 9), 3), 4: Form((6, 9), 4)}


def made(image: Image.Image, kind: str = "PNG", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def read(file: io.BytesIO, form: Form) -> tuple[np.ndarray, Seen]:
    seen = Seen()
    return next(read_frames(file, "it", form, seen)), Seen(+seen)


def test_what_fits_is_not_touched_and_nothing_is_said() -> None:
    for array, channels in ((GREY, 1), (RGB, 3)):
        for kind in ("PNG", "BMP", "TIFF", "PPM"):
            found, seen = read(made(Image.fromarray(array), kind), AS_IT_IS[channels])
            assert np.array_equal(found, array[None] if channels == 1 else array.transpose(2, 0, 1))
            assert not seen
    both = np.dstack([RGB, OPACITY])
    assert np.array_equal(read(made(Image.fromarray(both)), AS_IT_IS[4])[0], both.transpose(2, 0, 1))
    two = np.dstack([GREY, OPACITY])
    assert np.array_equal(read(made(Image.fromarray(two)), AS_IT_IS[2])[0], two.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_by_their_range(kind: str) -> None:
    values = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
    values[0, :2] = 0, 65535
    found, seen = read(made(Image.fromarray(values), kind), AS_IT_IS[1])
    assert np.array_equal(found[0], np.rint(values / 257).astype(np.uint8))
    assert seen == {"deep": 1}
    assert seen.told(AS_IT_IS[1]) == ["1 picture with more than 8 bits a channel scaled to 8 by their range"]


def test_floats_from_0_to_1_are_scaled_and_others_refused_by_name() -> None:
    values = RNG.random((6, 9), dtype=np.float32)
    found, seen = read(made(Image.fromarray(values), "TIFF"), AS_IT_IS[1])
    assert np.array_equal(found[0], np.rint(values * 255).astype(np.uint8))
    assert seen == {"deep": 1}
    for wrong in (values * 300, np.full((6, 9), np.nan, np.float32), values - 1):
        with pytest.raises(DistkError, match="'it' holds floats"):
            read(made(Image.fromarray(wrong), "TIFF"), AS_IT_IS[1])
    with pytest.raises(DistkError, match="'it' holds whole numbers from 0 to 5300000"):
        read(made(Image.fromarray(np.arange(54, dtype=np.int32).reshape(6, 9) * 100_000), "TIFF"), AS_IT_IS[1])


@pytest.mark.parametrize("background", ["white", "#102030"])
def test_transparency_is_laid_over_the_background(background: str) -> None:
    form = Form((6, 9), 3, background=colour(background))
    found, seen = read(made(Image.fromarray(np.dstack([RGB, OPACITY]))), form)
    share = OPACITY[..., None] / 255
    expected = RGB * share + np.array(form.background) * (1 - share)
    assert np.abs(found.transpose(1, 2, 0) - expected).max() <= 1, "Pillow rounds each of two products"
    assert seen == {"transparent": 1}
    opaque = np.dstack([RGB, np.full_like(OPACITY, 255)])
    assert read(made(Image.fromarray(opaque)), form)[1] == {}, "nothing was changed"
    grey = np.dstack([GREY, OPACITY])
    assert read(made(Image.fromarray(grey)), Form((6, 9), 1))[1] == {"transparent": 1}
    with pytest.raises(UsageError, match="is no colour"):
        colour("whitish")


def test_palettes_keep_their_colours_and_their_transparency() -> None:
    image = Image.fromarray(GREY % 4, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])
    found, seen = read(made(image), AS_IT_IS[3])
    assert np.array_equal(found.transpose(1, 2, 0), colours[GREY % 4])
    assert not seen
    found, seen = read(made(image, transparency=2), AS_IT_IS[3])
    colours[2] = 255
    assert np.array_equal(found.transpose(1, 2, 0), colours[GREY % 4])
    assert seen == {"transparent": 1}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures_as_pillow_does(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    file = made(Image.fromarray(RGB), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    found, seen = read(file, Form(expected.shape[:2]))
    assert np.array_equal(found, expected.transpose(2, 0, 1))
    assert seen == ({} if orientation == 1 else {"turned": 1})


def test_colour_spaces_grey_and_colour_are_said() -> None:
    assert read(made(Image.fromarray(RGB).convert("CMYK"), "TIFF"), AS_IT_IS[3])[1] == {"space": 1}
    assert read(made(Image.fromarray(RGB)), AS_IT_IS[1])[1] == {"greyed": 1}
    found, seen = read(made(Image.fromarray(GREY)), AS_IT_IS[3])
    assert np.array_equal(found, np.stack([GREY] * 3))
    assert seen == {"coloured": 1}
    deep = made(Image.fromarray(RGB))
    assert read(deep, AS_IT_IS[4])[1] == {"opaque": 1}


def test_three_ways_to_another_shape() -> None:
    tall = np.zeros((20, 10, 3), np.uint8)
    tall[:5], tall[15:] = (255, 0, 0), (0, 0, 255)
    file = made(Image.fromarray(tall))
    crop, pad, stretch = (read(file, Form((10, 10), 3, fit, (0, 255, 0)))[0] for fit in ("crop", "pad", "stretch"))
    assert not crop.any(), "ends are cut off"
    assert (pad[:, :, 0] == [[0], [255], [0]]).all(), "background beside it"
    assert stretch[0, 0, 5] > 200 > 50 > stretch[2, 0, 5], "red above, near the full 255 that the filter rings about"
    assert stretch[2, 9, 5] > 200 > 50 > stretch[0, 9, 5]
    assert read(file, Form((10, 10)))[1] == {"sized": 1}
    wide, _ = read(made(Image.fromarray(RGB)), Form((12, 7)))
    assert wide.shape == (3, 12, 7)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_all_frames_are_read_or_it_is_said(kind: str) -> None:
    frames = [Image.fromarray(np.full((6, 9), 40 * i, np.uint8)) for i in range(4)]
    file = made(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert frames_of(file, "it") == 4
    seen = Seen()
    found = list(read_frames(file, "it", AS_IT_IS[1], seen, 4))
    assert [int(frame[0, 0, 0]) for frame in found] == [0, 40, 80, 120]
    assert not seen["several"]
    assert read(file, AS_IT_IS[1])[1]["several"] == 1


# Folders and archives


def tree(root: Path) -> Path:
    for name in ("a/1.png", "a/2.PNG", "b/3.png", "b/notes.txt", ".git/4.png", "a/.5.png", "__MACOSX/6.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


NAMES = ["a/1.png", "a/2.PNG", "b/3.png"]


def test_hidden_and_other_files_are_left_out_and_counted(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    with opened(root, {".png"}) as found:
        assert [entry.name for entry in found.entries] == NAMES
        assert found.left_out() == ["3 hidden files left out", "1 file of another kind left out"]
        assert found.entries[2].open().read() == b"b/3.png"
    with opened(root / "b" / "3.png", {".png"}) as found:
        assert [entry.name for entry in found.entries] == ["3.png"]


def test_links_are_followed_inside_the_root_only(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "b" / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "b" / "in.png").symlink_to(root / "a" / "1.png")
    (root / "up").symlink_to(root)
    (root / "again").symlink_to(root / "a")
    (root / "away").symlink_to(tmp_path)
    with opened(root, {".png"}) as found:
        names = [entry.name for entry in found.entries]
        assert names == ["a/1.png", "a/2.PNG", "again/1.png", "again/2.PNG", "b/3.png", "b/in.png"]
        assert found.outside == 2
        assert f"2 links out of '{root}' left out" in found.left_out()


def packed(root: Path, form: str, names: list[str]) -> Path:
    path = root.parent / f"data.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(root / name, name)
    else:
        with tarfile.open(path, "w:" + form.partition(".")[2]) as archive:
            for name in names:
                archive.add(root / name, name)
    return path


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.xz"])
def test_archives_are_read_in_place(tmp_path: Path, form: str) -> None:
    root = tree(tmp_path / "root")
    names = ["b/3.png", "a/1.png", ".git/4.png", "a/2.PNG", "b/notes.txt"]
    with opened(packed(root, form, names), {".png"}) as found:
        assert [entry.name for entry in found.entries] == NAMES
        for entry in sorted(found.entries, key=lambda entry: entry.place):
            assert entry.open().read() == entry.name.encode()
        assert sorted(found.entries, key=lambda entry: entry.place)[0].name == "b/3.png"
        assert (found.hidden, found.others) == (1, 1)
        before = found.stamp
    os.utime(tmp_path / f"data.{form}", ns=(1, 1))
    with opened(tmp_path / f"data.{form}", {".png"}) as found:
        assert found.stamp != before


def test_archives_that_lead_elsewhere_or_lie(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../1.png", b"x")
        archive.writestr("/2.png", b"x")
        archive.writestr("3.png", b"abc")
    with opened(tmp_path / "a.zip", {".png"}) as found:
        assert [entry.name for entry in found.entries] == ["3.png"]
        assert found.outside == 2
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(content.replace(b"abc", b"abd"))
    with opened(tmp_path / "b.zip", {".png"}) as found, pytest.raises(DistkError, match="cannot be unpacked"):
        found.entries[0].open()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with opened(tmp_path / "a.tar", {".png"}) as found:
        assert (found.entries, found.outside) == ([], 1)
    for name in ("c.zip", "c.tar.gz"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(DistkError, match="is not a valid"), opened(tmp_path / name, {".png"}):
            pass
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"), opened(tmp_path / "pipe", {".png"}):
        pass
