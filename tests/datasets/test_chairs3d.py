"""chairs3d from an archive and a folder of the published form, which the test writes, smaller."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, UsageError
from distk.data import open_dataset
from distk.plugins.datasets import chairs3d
from distk.testing import check_dataset


def test_the_published_numbers() -> None:
    """1,393 chairs in 62 views are 86,366 pictures; sides are whole multiples of 360/31 degrees, rounded down, as in
    the names of the files."""
    assert chairs3d.WHOLE * len(chairs3d.ELEVATIONS) * len(chairs3d.AZIMUTHS) == 86_366
    assert chairs3d.AZIMUTHS[:6] == (0, 11, 23, 34, 46, 58)
    assert chairs3d.AZIMUTHS[-2:] == (336, 348)


def view(chair: int, elevation: int, azimuth: int) -> bytes:
    """A picture of one colour, which says what it shows."""
    content = io.BytesIO()
    Image.new("RGB", (30, 30), (60 * chair, elevation, 8 * azimuth)).save(content, "PNG")
    return content.getvalue()


def names(chair: str) -> list[tuple[str, int, int]]:
    """Numbers in the names go on from 30 to 32 between the two heights, as in the archive."""
    return [
        (f"rendered_chairs/{chair}/renders/image_{e * 32 + a:03}_p{p:03}_t{t:03}_r096.png", e, a)
        for e, p in enumerate(chairs3d.ELEVATIONS)
        for a, t in enumerate(chairs3d.AZIMUTHS)
    ]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Three whole chairs, and one that lacks a view, in an order that is none."""
    files = {name: view(k, e, a) for k, chair in enumerate(("a1", "b2", "c3")) for name, e, a in names(chair)}
    files |= {name: view(3, e, a) for name, e, a in names("d4")[:-1]}
    path = tmp_path / "rendered_chairs.tar"
    with tarfile.open(path, "w") as archive:
        for name in [*np.random.default_rng(0).permutation(list(files)), "rendered_chairs/all_chair_names.mat"]:
            member = tarfile.TarInfo(name)
            content = files.get(str(name), b"MATLAB 5.0")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_views_stand_in_order(packed: Path) -> None:
    found = open_dataset("chairs3d", {"size": 8}, folder=packed.parent)
    assert found.factor_sizes == (3, 2, 31)
    batch = found.batch(torch.arange(len(found)))
    colours = (batch["x"][:, :, 4, 4] * 255).round().long()
    expected = batch["factors"] * torch.tensor([60, 1, 8])
    assert torch.equal(colours, expected), "a row is the view that its factors say"
    assert "186 pictures of 3 chairs" in found.origin
    assert any(told.startswith("1 chair left out") for told in found.told)
    check_dataset("chairs3d", packed.parent, size=8, holdout=0.3)


def test_a_folder_and_whole_chairs_held_out(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        archive.extractall(packed.parent / "out", filter="data")
    rows = torch.arange(186)
    here = open_dataset("chairs3d", {"size": 8}, folder=packed)
    for place in (packed.parent / "out", packed.parent / "out" / "rendered_chairs"):
        there = open_dataset("3dchairs", {"size": 8, "holdout": 0.34}, folder=place)
        assert torch.equal(there.batch(rows)["x"], here.batch(rows)["x"])
        seen, held = (set(there.factors(there.rows_of(split))[:, 0].tolist()) for split in ("train", "test"))
        assert (len(seen), len(held)) == (2, 1)
        assert not seen & held


def test_pictures_are_cut_and_grey(packed: Path) -> None:
    found = open_dataset("chairs3d", {"size": 8, "crop": 20, "channels": 1}, folder=packed)
    assert found.spec.shape == (1, 8, 8)
    with pytest.raises(DistkError, match="no 40 can be cut"):
        open_dataset("chairs3d", {"size": 8, "crop": 40}, folder=packed)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no chair in all its views"):
        open_dataset("chairs3d", folder=tmp_path)
    with pytest.raises(UsageError, match="--data-dir FOLDER"):
        open_dataset("chairs3d")
    bad = tmp_path / "rendered_chairs.tar"
    bad.write_bytes(b"no archive at all")
    with pytest.raises(DistkError, match="not a valid tar archive"):
        open_dataset("chairs3d", folder=tmp_path)
