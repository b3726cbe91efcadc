"""falcor3d and isaac3d from folders and archives of the published form, which the test writes, smaller."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distk import DistkError, UsageError
from distk.data import open_dataset
from distk.plugins.datasets import nvidia3d
from distk.testing import check_dataset

GRIDS = {"falcor3d": (2, 3, 1, 2, 2, 3, 2), "isaac3d": (3, 2, 2, 1, 2, 1, 2, 2, 2)}
SETS = {"falcor3d": nvidia3d.Falcor3D, "isaac3d": nvidia3d.Isaac3D}
FILES = {"falcor3d": ("Falcor3D_down128", "train-rec.labels"), "isaac3d": ("Isaac3D_down128", "labels.npy")}


@pytest.mark.parametrize(
    ("name", "count", "strides"),
    [
        ("falcor3d", 233_280, (46_656, 7_776, 1_296, 216, 36, 6, 1)),
        ("isaac3d", 737_280, (245_760, 30_720, 6_144, 1_536, 384, 96, 16, 4, 1)),
    ],
)
def test_the_published_numbers(name: str, count: int, strides: tuple[int, ...]) -> None:
    """The numbers by which the published text multiplies the factors to get the number of a picture."""
    sizes = SETS[name].factor_sizes
    assert math.prod(sizes) == count
    assert tuple(math.prod(sizes[k + 1 :]) for k in range(len(sizes))) == strides
    assert len(SETS[name].factor_names) == len(SETS[name].factor_kinds) == len(sizes)


def picture(i: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 64), (i % 256, 40, 200)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(params=GRIDS)
def made(request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, Path, np.ndarray]:
    """The set's name, its folder, and the labels beside the pictures."""
    name, grid = request.param, GRIDS[request.param]
    monkeypatch.setattr(SETS[name], "factor_sizes", grid)
    title, labels = FILES[name]
    folder = tmp_path / title
    (folder / "images").mkdir(parents=True)
    for i in range(math.prod(grid)):
        (folder / "images" / f"{i:06}.png").write_bytes(picture(i))
    every = np.array(list(np.ndindex(*grid))) / np.maximum(np.array(grid) - 1, 1)
    with (folder / labels).open("wb") as file:
        np.save(file, every)
    return name, folder, every


def test_a_picture_is_its_number(made) -> None:
    name, folder, _ = made
    for place in (folder.parent, folder):
        found = open_dataset(name, {"size": 32}, folder=place)
        rows = torch.arange(len(found))
        batch = found.batch(rows)
        assert torch.equal((batch["x"][:, 0, 3, 5] * 255).round().long(), rows % 256)
        assert batch["factors"].tolist() == [list(t) for t in np.ndindex(*GRIDS[name])]
        assert not found.told
    check_dataset(name, folder, size=32, holdout=0.2)


def test_the_zip_is_read_where_it_lies(made) -> None:
    name, folder, _ = made
    path = folder.parent / "packed" / f"{folder.name}.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, str(file.relative_to(folder.parent)))
    rows = torch.arange(20)
    for place in (path, path.parent):
        x = open_dataset(name, {"size": 32}, folder=place).batch(rows)["x"]
        assert torch.equal(x, open_dataset(name, {"size": 32}, folder=folder).batch(rows)["x"])


def test_labels_that_say_otherwise_are_told(made) -> None:
    name, folder, every = made
    path = folder / FILES[name][1]
    for labels, said in ((every[::-1], "gives other factors than the published order"), (every[:, 1:], "left out")):
        with path.open("wb") as file:
            np.save(file, labels)
        assert any(said in told for told in open_dataset(name, {"size": 32}, folder=folder).told)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DistkError, match="does not have"):
        open_dataset(name, {"size": 32}, folder=folder)
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DistkError, match="not read"):
        open_dataset(name, {"size": 32}, folder=folder)
    path.write_bytes(b"nothing")
    with pytest.raises(DistkError, match="not a valid npy"):
        open_dataset(name, {"size": 32}, folder=folder)


def test_refusals(made) -> None:
    name, folder, _ = made
    (folder / "again").mkdir()
    (folder / "again" / "000001.png").write_bytes(picture(1))
    with pytest.raises(DistkError, match="two pictures of the number 000001"):
        open_dataset(name, folder=folder)
    (folder / "again" / "000001.png").unlink()
    (folder / "images" / "000003.png").unlink()
    with pytest.raises(DistkError, match=r"the first that is missing is 000003\.png"):
        open_dataset(name, folder=folder)
    with pytest.raises(UsageError, match="--data-dir FOLDER"):
        open_dataset(name)
