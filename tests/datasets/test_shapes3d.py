"""shapes3d: the published grid, rays against marching along signed distances, layers, files of the official form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from distk import DistkError, UsageError
from distk.data import open_dataset
from distk.nn import shapes
from distk.plugins.datasets import shapes3d
from distk.plugins.datasets.shapes3d import EYE, GRID, RISE, ROOM, Shapes3D, factor_values, rgb


@pytest.fixture(scope="module")
def data() -> Shapes3D:
    made = open_dataset("shapes3d", {"size": 32})
    assert isinstance(made, Shapes3D)
    return made


def test_the_published_grid(data: Shapes3D) -> None:
    assert len(data) == 480_000
    assert data.factor_sizes == (10, 10, 10, 8, 4, 15)
    assert data.factor_names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    assert data.is_grid
    values = [v.tolist() for v in factor_values()]
    assert values[0] == pytest.approx([k / 10 for k in range(10)])
    assert (values[3][0], values[3][-1], values[5][0], values[5][-1]) == (0.75, 1.25, -30, 30)
    assert data.factors(torch.tensor([1, 15, 60, 480, 4800])).tolist() == [
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]


def marched(kind: int, half: float, origin: torch.Tensor, ray: torch.Tensor) -> torch.Tensor:
    """Distance along rays `[3, n]` to the object, by steps of its signed distance; float64, infinite without a hit."""
    t = torch.zeros(ray.shape[1], dtype=torch.float64)
    for _ in range(400):
        p = origin[:, None] + ray * t
        flat = torch.hypot(p[0], p[1])
        if kind == 0:
            d = shapes.box(tuple(p), (0, 0, half), (half, half, half))
        elif kind == 1:
            d = shapes.box((flat, p[2]), (0, half), (half, half))
        elif kind == 2:
            d = shapes.ball(tuple(p), (0, 0, half), half)
        else:
            d = shapes.capsule(tuple(p), (0, 0, 0.7 * half), (0, 0, 1.3 * half), 0.7 * half)
        t = t + d.clamp(max=1)
    return torch.where(t < 2 * EYE, t, torch.inf)


@pytest.mark.parametrize("kind", range(4))
def test_rays_against_marching(kind: int, generator: torch.Generator) -> None:
    origin = torch.tensor([0.4, -EYE, RISE], dtype=torch.float64)
    target = torch.randn(3, 3000, generator=generator, dtype=torch.float64) * 0.6
    target[2] += 0.6
    ray = torch.nn.functional.normalize(target - origin[:, None], dim=0)
    half = torch.rand(1, generator=generator, dtype=torch.float64).item() * 0.4 + 0.4
    eye = tuple(origin.view(3, 1, 1))
    hit = shapes3d._object(
        eye, tuple(r[None] for r in ray), torch.tensor([[half]], dtype=torch.float64), torch.tensor([[kind]])
    )
    expected = marched(kind, half, origin, ray)
    found = hit.distance[0]
    both = torch.isfinite(found) & torch.isfinite(expected)
    # Marching stops short at grazing rays and at the edges, where it converges slowly; hits agree elsewhere.
    assert float((torch.isfinite(found) != torch.isfinite(expected)).double().mean()) < 0.01
    assert both.sum() > 300
    assert float((found - expected)[both].abs().quantile(0.98)) < 1e-6
    normal = torch.stack([n.expand_as(hit.distance)[0] for n in hit.normal])[:, both]
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(int(both.sum()), dtype=torch.float64), rtol=0, atol=1e-6)
    assert bool(((normal * ray[:, both]).sum(0) < 1e-9).all()), "a surface that is seen faces the eye"


def test_hues(generator: torch.Generator) -> None:
    import colorsys

    hue = torch.rand(50, generator=generator)
    expected = [colorsys.hsv_to_rgb(float(h), 1.0, 1.0) for h in hue]
    torch.testing.assert_close(rgb(hue), torch.tensor(expected), rtol=0, atol=1e-5)


def test_each_factor_moves_what_it_says(data: Shapes3D, generator: torch.Generator) -> None:
    start = data.factors(data.sample_rows(1, generator))
    layers = data.layers
    assert layers is not None
    for k, size in enumerate(GRID):
        levels = start.repeat(size, 1)
        levels[:, k] = torch.arange(size)
        x = data.observe(levels)
        assert len({picture.numpy().tobytes() for picture in x}) == size, data.factor_names[k]
        if k < 3:
            scale, shape, orientation = start[0, 3:].tolist()
            layer = layers[(scale * 4 + shape) * 15 + orientation]
            moved = (x - x[:1]).abs().amax((0, 1)) > 0
            assert bool((moved <= (layer[k] > 0)).all()), "a hue touches its own surface only"
            assert bool(moved.any())
    wider = data.observe(torch.tensor([[0, 5, 3, s, 2, 7] for s in range(8)]))
    area = ((wider - data.observe(torch.tensor([[0, 5, 4, s, 2, 7] for s in range(8)]))).abs().amax(1) > 0).sum((1, 2))
    assert bool((area.diff() > 0).all()), "a ball of a larger size covers more pixels"
    mirrored = data.observe(torch.tensor([[2, 5, 3, 4, 2, 0], [2, 5, 3, 4, 2, 14]]))
    ball = (mirrored - data.observe(torch.tensor([[2, 5, 4, 4, 2, 0], [2, 5, 4, 4, 2, 14]]))).abs().amax(1) > 0
    assert torch.equal(ball[0], ball[1]), "the camera walks around the middle of the object"


def test_batches_are_whole_numbers_of_255(data: Shapes3D, generator: torch.Generator) -> None:
    batch = data.sample(64, generator)
    assert batch["x"].shape == (64, 3, 32, 32)
    assert 0 <= float(batch["x"].min()) < float(batch["x"].max()) <= 1
    assert torch.equal(batch["x"], (batch["x"] * 255).round() / 255)
    assert torch.equal(batch["label"], data.factors(data.index(batch["factors"]))[:, 4])
    assert 2 * EYE * math.tan(math.radians(30)) < 2 * ROOM, "the camera stands in the room"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    """The official form with fewer levels."""
    grid = (2, 2, 2, 2, 4, 3)
    full = factor_values()
    values = tuple(v[:: len(v) // s][:s] for v, s in zip(full, grid, strict=True))
    monkeypatch.setattr(shapes3d, "GRID", grid)
    monkeypatch.setattr(shapes3d, "factor_values", lambda: values)
    monkeypatch.setattr(Shapes3D, "factor_sizes", grid)
    return grid, torch.cartesian_prod(*values).double().numpy()


def written(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, compression="gzip")
        file.create_dataset("labels", data=labels)
    return path


def test_a_file_of_the_official_form(small, tmp_path: Path, seed: int) -> None:
    grid, labels = small
    images = np.random.default_rng(seed).integers(0, 256, (math.prod(grid), 64, 64, 3), dtype=np.uint8)
    path = written(tmp_path / "3dshapes.h5", images, labels)
    for where in (tmp_path, path):
        found = open_dataset("shapes3d", folder=where)
        rows = torch.tensor([0, 7, len(images) - 1])
        assert np.array_equal((found.batch(rows)["x"] * 255).round().numpy(), images[rows].transpose(0, 3, 1, 2))
        assert str(path) in found.origin
    with pytest.raises(DistkError, match="leave size out"):
        open_dataset("shapes3d", {"size": 32}, folder=path)


def test_files_of_another_form(small, tmp_path: Path, seed: int) -> None:
    grid, labels = small
    count = math.prod(grid)
    images = np.zeros((count, 64, 64, 3), dtype=np.uint8)
    path = tmp_path / "3dshapes.h5"
    for pictures, told, said in (
        (images[:5], labels, "expected images"),
        (images, labels[:, :5], "expected labels"),
        (images.astype(np.int16), labels, "must be uint8"),
        (images, labels[::-1], "first in row 0"),
    ):
        written(path, pictures, told)
        with pytest.raises(DistkError, match=said):
            open_dataset("shapes3d", folder=path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(DistkError, match=r"cannot be read|is not an HDF5 file"):
        open_dataset("shapes3d", folder=path)
    with pytest.raises(UsageError, match=r"3dshapes\.h5"):
        open_dataset("shapes3d", folder=tmp_path.parent / "nowhere")
