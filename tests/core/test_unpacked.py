"""Archives as folders: unpacked once, made anew when they change, bounded, and swept."""

from __future__ import annotations

import io
import os
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from distk import unpacked
from distk.data import open_dataset
from distk.errors import DistkError
from distk.kept import cache_folder
from distk.unpacked import on_disk
from distk.video import Fit, read_clips


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))


def packed(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_unpacked_once_and_anew(tmp_path: Path, ending: str) -> None:
    path = packed(tmp_path / f"a.{ending}", {"top/x/1.txt": b"one", "top/2.txt": b"two", "__MACOSX/3.txt": b"no"})
    with on_disk(path, {".txt"}) as folder:
        assert folder.name == "top"
        assert (folder / "x" / "1.txt").read_bytes() == b"one"
        before = (folder / "2.txt").stat().st_mtime_ns
    assert not (cache_folder() / "3.txt").exists()
    with on_disk(path, {".txt"}) as again:
        assert again == folder
        assert (again / "2.txt").stat().st_mtime_ns == before
        (again / "2.txt").write_bytes(b"owt")
    with on_disk(path, {".txt"}) as mended:
        assert (mended / "2.txt").read_bytes() == b"two"
    packed(path, {"top/2.txt": b"new", "top/4.txt": b"four"})
    with on_disk(path) as other:
        assert sorted(p.name for p in other.iterdir()) == ["2.txt", "4.txt"]
    with on_disk(path, {".txt"}) as same:
        assert sorted(p.name for p in same.iterdir()) == ["2.txt", "4.txt"]


def test_what_is_no_archive_stays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    for place in (tmp_path, tmp_path / "a.txt", tmp_path / "none.zip"):
        with on_disk(place) as found:
            assert found == place
    (tmp_path / "folder.zip").mkdir()
    with on_disk(tmp_path / "folder.zip") as found:
        assert found == tmp_path / "folder.zip"


def test_members_that_lead_out_are_left_out(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "in" / "a.tar.gz",
        {"../../out.txt": b"no", "/tmp/out.txt": b"no", "a/in.txt": b"yes", "b/x.txt": b"y"},
    )
    with on_disk(path) as folder:
        assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.txt")) == ["a/in.txt", "b/x.txt"]
    assert not list(tmp_path.glob("**/out.txt"))


def test_bombs_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {f"{i}.txt": bytes(1 << 20) for i in range(8)})
    monkeypatch.setattr(unpacked, "SMALL", 1 << 20)
    with pytest.raises(DistkError, match=r"unpacks to 8,388,608; unpack it yourself"), on_disk(path):
        pass
    monkeypatch.undo()
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(unpacked.shutil, "disk_usage", lambda place: SimpleNamespace(free=5))
    with pytest.raises(DistkError, match="set DISTK_CACHE"), on_disk(path):
        pass
    monkeypatch.undo()
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "cache"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DistkError, match="not a valid zip"), on_disk(path):
        pass
    assert not [p for p in cache_folder().glob("*") if p.name != "places"]
    clash = packed(tmp_path / "b.tar.gz", {"a": b"file", "a/b": b"below it"})
    with pytest.raises(DistkError, match="cannot be unpacked"), on_disk(clash):
        pass
    assert not list(cache_folder().glob("*.unpack*"))


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {"x.txt": b"1"})
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DISTK_CACHE", str(tmp_path / "file"))
    with pytest.raises(DistkError, match="set DISTK_CACHE to another folder"), on_disk(path):
        pass


def test_errors_name_the_archive(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"top/x.txt": b"1"})
    with pytest.raises(DistkError, match=rf"'{path}/x\.txt' is wrong"), on_disk(path) as folder:
        raise DistkError(f"'{folder / 'x.txt'}' is wrong.")


def test_what_was_killed_is_swept(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"x.txt": b"1"})
    old, young = (cache_folder() / f"{c * 24}.{c * 16}.unpacking" for c in "ab")
    for part in (old, young):
        part.mkdir(parents=True)
        (part / "half.txt").write_text("x")
    past = time.time() - 2 * unpacked.OLD
    os.utime(old, (past, past))
    with on_disk(path):
        pass
    assert not old.exists()
    assert young.exists()


def test_clips_and_arrays_out_of_archives(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    frames = draw.integers(0, 256, (2, 3, 5, 8, 8, 3), dtype=np.uint8)
    files = {}
    for c, clips in enumerate(frames):
        for k, clip in enumerate(clips):
            for t, frame in enumerate(clip):
                content = io.BytesIO()
                Image.fromarray(frame).save(content, "PNG")
                files[f"all/class{c}/clip{k}/{t}.png"] = content.getvalue()
    path = packed(tmp_path / "clips.tar.gz", files)
    found = read_clips(path, Fit(8))
    assert np.array_equal(found.frames, frames.reshape(-1, 8, 8, 3).transpose(0, 3, 1, 2))
    assert (found.classes, found.lengths) == (("class0", "class1"), [5] * 6)
    assert str(path) in found.told
    data = open_dataset("clips", {"frames": 4}, folder=path)
    assert data.spec.shape == (4, 3, 8, 8)
    content = io.BytesIO()
    np.savez(content, images=frames[0, 0], label=np.arange(5) % 2)
    arrays = open_dataset(
        "arrays", folder=packed(tmp_path / "arrays.zip", {"sub/mine.npz": content.getvalue(), "sub/readme.md": b"x"})
    )
    assert np.array_equal(
        (arrays.batch(torch.arange(5))["x"] * 255).round().numpy(), frames[0, 0].transpose(0, 3, 1, 2)
    )
    assert "arrays.zip" in arrays.origin
