"""mpi3d, smallnorb, cars3d from files of the official form, written by the published description, smaller."""

from __future__ import annotations

import gzip
import importlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from distk import DistkError, UsageError
from distk.data import open_dataset
from distk.plugins.datasets import cars3d, mpi3d, smallnorb

# MPI3D


@pytest.mark.parametrize(("variant", "count"), [("toy", 1_036_800), ("real", 1_036_800), ("complex", 460_800)])
def test_the_published_numbers_of_mpi3d(variant: str, count: int) -> None:
    assert math.prod(mpi3d.GRIDS[variant]) == count


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    grid = (2, 6, 2, 1, 3, 2, 2)
    monkeypatch.setitem(mpi3d.GRIDS, "realistic", grid)
    images = rng.integers(0, 256, (math.prod(grid), 64, 64, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "mpi3d_realistic.npz", images=images)
    return tmp_path, images


def test_mpi3d_from_its_file(arm: tuple[Path, np.ndarray]) -> None:
    folder, images = arm
    found = open_dataset("mpi3d:realistic", {"holdout": 0.25}, folder=folder)
    rows = torch.tensor([0, 5, len(images) - 1])
    batch = found.batch(rows)
    assert np.array_equal((batch["x"] * 255).round().numpy(), images[rows].transpose(0, 3, 1, 2))
    assert batch["factors"][1].tolist() == [0, 0, 0, 0, 1, 0, 1], "the vertical axis is the fastest"
    assert batch["label"].tolist() == [0, 0, 5]
    assert len(found.rows_of("test")) == len(images) // 4
    np.save(folder / "mpi3d_realistic.npy", images)
    (folder / "mpi3d_realistic.npz").unlink()
    assert torch.equal(open_dataset("mpi3d:realistic", folder=folder).batch(rows)["x"], batch["x"])


def test_mpi3d_refuses(arm: tuple[Path, np.ndarray]) -> None:
    folder, images = arm
    path = folder / "mpi3d_realistic.npz"
    for arrays in ({"images": images[:-1]}, {"pictures": images}, {"images": images.astype(np.float32)}):
        np.savez(path, **arrays)
        with pytest.raises(DistkError, match="expected images uint8"):
            open_dataset("mpi3d:realistic", folder=folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DistkError, match="realistic"):
        open_dataset("mpi3d:realistic", folder=folder)
    with pytest.raises(UsageError, match=r"mpi3d_toy\.npz"):
        open_dataset("mpi3d", folder=folder)
    with pytest.raises(UsageError, match="--data-dir FOLDER"):
        open_dataset("mpi3d")


# Small NORB


def test_the_published_numbers_of_smallnorb() -> None:
    assert math.prod(smallnorb.GRID) == 48_600 == 2 * smallnorb.EACH


def written(path: Path, array: np.ndarray, magic: int, packed: bool) -> None:
    sizes = [*array.shape, *[1] * (3 - array.ndim)]
    raw = struct.pack(f"<Ii{len(sizes)}i", magic, array.ndim, *sizes) + array.tobytes()
    (path.with_name(path.name + ".gz") if packed else path).write_bytes(gzip.compress(raw) if packed else raw)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator):
    """Files of two instances a set, in random order; the picture of a combination is its row in grey."""
    grid = (5, 4, 2, 3, 2)
    monkeypatch.setattr(smallnorb, "GRID", grid)
    monkeypatch.setattr(smallnorb.SmallNorb, "factor_sizes", grid)
    monkeypatch.setattr(smallnorb, "EACH", math.prod(grid) // 2)
    every = np.array(list(np.ndindex(*grid)))

    def write(packed: bool = False, **wrong: np.ndarray) -> Path:
        for split, instances in (("train", (0, 3)), ("test", (1, 2))):
            mine = rng.permutation(every[np.isin(every[:, 1], instances)])
            row = np.ravel_multi_index(tuple(mine.T), grid)
            pictures = np.zeros((len(mine), 2, 96, 96), np.uint8)
            pictures[:, 0] = (row % 251)[:, None, None]
            pictures[:, 1] = 255  # the right camera has no part in it
            info = np.column_stack([mine[:, 1], mine[:, 2], 2 * mine[:, 3], mine[:, 4]]).astype("<i4")
            stem = smallnorb.STEMS[split]
            for part, array, magic in (
                ("dat", pictures, 0x1E3D4C55),
                ("cat", mine[:, 0].astype("<i4"), 0x1E3D4C54),
                ("info", info, 0x1E3D4C54),
            ):
                written(tmp_path / f"{stem}-{part}.mat", wrong.get(part, array), magic, packed)
        return tmp_path

    return grid, write


@pytest.mark.parametrize("packed", [False, True])
def test_smallnorb_from_its_files(toys, packed: bool) -> None:
    grid, write = toys
    found = open_dataset("smallnorb", {"size": 48}, folder=write(packed))
    rows = torch.arange(math.prod(grid))
    batch = found.batch(rows)
    assert batch["x"].shape == (len(rows), 1, 48, 48)
    assert torch.equal((batch["x"][:, 0, 5, 7] * 255).round().long(), rows % 251), "items stand in the factors' order"
    assert torch.equal(batch["label"], batch["factors"][:, 0])
    for split, instances in (("train", {0, 3}), ("test", {1, 2})):
        assert set(found.factors(found.rows_of(split))[:, 1].tolist()) == instances
    assert set(found.rows_of("train").tolist()).isdisjoint(found.rows_of("test").tolist())


def test_smallnorb_refuses(toys) -> None:
    grid, write = toys
    half = math.prod(grid) // 2
    for wrong, said in (
        ({"cat": np.zeros(half, "<i4")}, "every combination"),
        ({"cat": np.full(half, 7, "<i4")}, "beyond"),
        ({"info": np.zeros((half, 3), "<i4")}, "expected the shape"),
    ):
        with pytest.raises(DistkError, match=said):
            open_dataset("smallnorb", folder=write(**wrong))
    folder = write()
    path = folder / f"{smallnorb.STEMS['test']}-dat.mat"
    raw = path.read_bytes()
    for damaged, said in (
        (raw[:-1], "less"),
        (raw + b"0", "more"),
        (raw[:6], "cannot be read"),
        (b"x" * 99, "no matrix"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DistkError, match=said):
            open_dataset("smallnorb", folder=folder)
    path.write_bytes(raw)
    path.with_name(path.name.replace("dat", "info")).unlink()
    with pytest.raises(UsageError, match="is missing beside"):
        open_dataset("smallnorb", folder=folder)
    with pytest.raises(UsageError, match="put smallnorb"):
        open_dataset("smallnorb")


# Cars3D


def test_the_published_numbers_of_cars3d() -> None:
    assert math.prod(cars3d.GRID) == 17_568


@pytest.fixture
def cars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator) -> tuple[Path, list[np.ndarray]]:
    """Three cars, as scipy writes them, compressed and not."""
    monkeypatch.setattr(cars3d, "GRID", (4, 24, 3))
    monkeypatch.setattr(cars3d.Cars3D, "factor_sizes", (4, 24, 3))
    folder = tmp_path / "data" / "cars"
    folder.mkdir(parents=True)
    made = []
    for k in range(3):
        small = rng.integers(0, 256, (8, 8, 3, 24, 4), dtype=np.uint8)
        made.append(small.repeat(16, 0).repeat(16, 1))
        savemat(folder / f"car_{k}_mesh.mat", {"im": made[-1]}, do_compression=k == 1)
    return tmp_path, made


def test_cars3d_from_its_files(cars: tuple[Path, list[np.ndarray]]) -> None:
    folder, made = cars
    found = open_dataset("cars3d", {"size": 64}, folder=folder)
    factors = torch.tensor([[0, 0, 0], [3, 23, 2], [1, 5, 1]])
    x = (found.observe(factors) * 255).round().byte().numpy()
    for picture, (height, side, which) in zip(x, factors.tolist(), strict=True):
        own = Image.fromarray(np.ascontiguousarray(made[which][:, :, :, side, height])).resize((64, 64), Image.LANCZOS)
        assert np.array_equal(picture, np.asarray(own).transpose(2, 0, 1))
    whole = open_dataset("cars3d", {"size": 128}, folder=folder / "data")
    assert np.array_equal(
        (whole.observe(factors[1:2])[0] * 255).round().numpy(), made[2][:, :, :, 23, 3].transpose(2, 0, 1)
    )


def test_cars3d_in_the_order_of_its_list(cars: tuple[Path, list[np.ndarray]]) -> None:
    folder, made = cars
    factors = torch.tensor([[0, 0, k] for k in range(3)])
    names = ["car_2_mesh", "car_0_mesh", "car_1_mesh"]
    listed = folder / "data" / "cars" / "list.txt"
    for text, order in (("\n".join(names), [2, 0, 1]), ("car_2_mesh\n", [0, 1, 2]), ("", [0, 1, 2])):
        listed.write_text(text)
        x = (open_dataset("cars3d", {"size": 128}, folder=folder).observe(factors) * 255).round().numpy()
        assert np.array_equal(x, np.stack([made[k][:, :, :, 0, 0].transpose(2, 0, 1) for k in order]))


def test_cars3d_refuses(cars: tuple[Path, list[np.ndarray]]) -> None:
    folder, made = cars
    path = folder / "data" / "cars" / "car_1_mesh.mat"
    for content, said in (
        ({"im": made[1][..., :3]}, "expected im uint8"),
        ({"images": made[1]}, "nothing of that name"),
    ):
        savemat(path, content)
        with pytest.raises(DistkError, match=said):
            open_dataset("cars3d", folder=folder)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DistkError, match="car_1"):
        open_dataset("cars3d", folder=folder)
    path.unlink()
    with pytest.raises(UsageError, match="holds 2 "):
        open_dataset("cars3d", folder=folder)
    with pytest.raises(UsageError, match="--data-dir FOLDER"):
        open_dataset("cars3d")


def test_the_table_of_the_docs_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    field = importlib.import_module("field")
    rows = json.loads((root / "results" / "field-cpu.json").read_text())["rows"]
    shown = (root / "docs" / "data" / "field.md").read_text()
    assert "\n".join(field.table(rows)) in shown
    assert set(field.SETS) >= {row["data"] for row in rows}
