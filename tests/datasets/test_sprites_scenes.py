"""sprites-scenes: the renderer against exact shapes, blending, what is fixed and what never repeats, and its files."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import DistkError, UsageError, open_dataset
from distk.plugins.datasets.dsprites import NPZ, pack
from distk.plugins.datasets.sprites_scenes import SpritesScenes, coverage


def scenes(**options) -> SpritesScenes:
    made = open_dataset("sprites-scenes", {"size": 32, "fixed": 40, "test": 20, **options})
    assert isinstance(made, SpritesScenes)
    return made


def sprite(shape: int, **values: float) -> dict[str, Tensor]:
    """A scene of one white sprite."""
    given = {"scale": 1.0, "orientation": 0.0, "px": 0.5, "py": 0.5, "exists": 1.0, **values}
    made = {key: torch.tensor([[value]]) for key, value in given.items()}
    return {**made, "shape": torch.tensor([[shape]]), "rgb": torch.ones(1, 1, 3), "count": torch.ones(1).long()}


def supersampled(scene: dict[str, Tensor], size: int) -> Tensor:
    """Coverage `[n, M, size, size]` by 8 x 8 points per pixel, each inside the shape or not; float64."""
    centre = (torch.arange(8 * size, dtype=torch.float64) + 0.5) / (8 * size)
    x, y, angle, scale = (scene[key].double()[..., None, None] for key in ("px", "py", "orientation", "scale"))
    towards = torch.polar(torch.ones_like(angle), -angle)
    wide = (*x.shape[:2], 8 * size, 8 * size)
    place = torch.complex((centre - x).expand(wide), (y - centre[:, None]).expand(wide))
    local = place * towards / (0.19 * scale)
    u, v = local.real, local.imag
    a, b = 1.25 * u, 1.25 * v
    heart = (a**2 + b**2 - 1) ** 3 - a**2 * b**3 <= 0
    inside = [torch.maximum(u.abs(), v.abs()) <= 0.7, (u / 0.55) ** 2 + (v / 0.95) ** 2 <= 1, heart]
    kind = scene["shape"][..., None, None]
    chosen = torch.where(kind == 0, inside[0], torch.where(kind == 1, inside[1], inside[2]))
    return chosen.double().unflatten(-1, (size, 8)).unflatten(-3, (size, 8)).mean((-1, -3))


@pytest.mark.parametrize("size", [32, 64])
def test_coverage_is_that_of_the_exact_shapes(size: int, generator: torch.Generator) -> None:
    data = scenes(size=size)
    drawn = data.draw(8, generator)
    error = (coverage(drawn, size).double() - supersampled(drawn, size)).abs()
    for k in range(3):
        of_shape = error[drawn["shape"] == k]
        # Measured over 300 scenes: at most 0.0011 at 32x32 and 0.0004 at 64x64 for any shape.
        assert len(of_shape) == 0 or float(of_shape.mean()) < 0.004
    assert float(error.mean()) < 0.002


def test_directions_of_places_and_angles() -> None:
    """x grows to the right, y downwards, the orientation turns counter-clockwise; the heart's tip points down."""
    data = scenes(max_sprites=1)
    corner = data.masks(sprite(0, px=0.25, py=0.75))[0, 0]
    assert float(corner[16:, :16].sum()) > 0.99 * float(corner.sum()) > 0
    tilted = data.masks(sprite(1, orientation=math.pi / 4))[0, 0]
    assert float(tilted[:16, :16].sum()) > 1.5 * float(tilted[:16, 16:].sum())
    heart = data.masks(sprite(2))[0, 0]
    rows = heart.sum(1).nonzero()[:, 0]
    assert float(heart[rows[0] : rows[0] + 3].sum()) > float(heart[rows[-1] - 2 : rows[-1] + 1].sum())


def test_area_of_a_square() -> None:
    # Side 2 * 0.7 * 0.19 of the image, wherever it lies and however it is turned.
    for angle in (0.0, 0.3):
        area = float(scenes(size=64).masks(sprite(0, orientation=angle)).sum()) / 64**2
        assert area == pytest.approx(0.266**2, rel=0.02)


def test_colours_add_and_are_clipped(generator: torch.Generator) -> None:
    data = scenes()
    drawn = data.draw(30, generator)
    masks = data.masks(drawn)
    expected = torch.zeros(30, 3, 32, 32)
    for i in range(30):
        for m in range(3):
            if drawn["exists"][i, m]:
                cover = coverage({k: v[i : i + 1, m : m + 1] for k, v in drawn.items() if k != "count"}, 32)[0, 0]
                assert torch.allclose(masks[i, m], cover)
                expected[i] += cover * drawn["rgb"][i, m, :, None, None]
            else:
                assert not masks[i, m].any()
    assert torch.allclose(data.render(drawn), expected.clamp(max=1), atol=1e-6)
    twice = {**sprite(0), "rgb": torch.tensor([[[0.6, 0.3, 1.0]]])}
    both = {k: torch.cat([v, v], 1) for k, v in twice.items() if k != "count"}
    assert torch.allclose(data.render(both)[0, :, 16, 16], torch.tensor([1.0, 0.6, 1.0]))


def test_factors_have_the_declared_ranges_and_counts_are_binomial() -> None:
    data = scenes(max_sprites=3, fixed=6000, test=10)
    all_of = data.scenes
    lowest = {"scale": 0.5, "orientation": 0, "px": 0.2, "py": 0.2, "rgb": 0.2}
    highest = {"scale": 1, "orientation": 2 * math.pi, "px": 0.8, "py": 0.8, "rgb": 1}
    for key, low in lowest.items():
        values = all_of[key]
        span = highest[key] - low
        assert low <= float(values.min()) < low + 0.01 * span
        assert highest[key] - 0.01 * span < float(values.max()) <= highest[key]
    n = len(all_of["count"])
    assert torch.equal(all_of["count"], all_of["exists"].sum(1).long())
    for k in range(4):
        p = math.comb(3, k) / 8
        found = float((all_of["count"] == k).double().mean())
        assert abs(found - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert all(abs(float((all_of["shape"] == k).double().mean()) - 1 / 3) < 0.02 for k in range(3))


def test_rows_are_fixed_and_training_scenes_never_repeat(generator: torch.Generator) -> None:
    data, again = scenes(), scenes()
    rows = torch.tensor([0, 59, 7])
    assert torch.equal(data.batch(rows)["x"], again.batch(rows)["x"])
    first, second = data.sample(8, generator)["x"], data.sample(8, generator)["x"]
    assert not torch.equal(first, second)
    test = data.sample(8, generator, "test")["x"]
    held = data.batch(torch.arange(40, 60))["x"]
    assert all(any(torch.equal(x, other) for other in held) for x in test)
    train, held_out = data.rows("train"), data.rows("test")
    assert train is not None
    assert held_out is not None
    assert (len(data), len(train), len(held_out)) == (60, 40, 20)
    assert torch.equal(data.factors(rows)[:, 0], data.batch(rows)["count"])
    assert data.factor_sizes == (4,)


def test_every_sprite_exists_with_probability_one(generator: torch.Generator) -> None:
    assert bool((scenes(exists=1.0, max_sprites=5).sample(20, generator)["count"] == 5).all())


def test_pictures_of_the_official_file_as_sprites(generator: torch.Generator) -> None:
    """The row of a picture is named by its factors, and its pixels are those of the file."""
    data = scenes(size=64)
    # Pixel (row number in binary) is lit: 20 bits tell which row was shown.
    numbers = torch.arange(4096)
    pictures = torch.zeros(4096, 64 * 64)
    pictures[:, :12] = ((numbers[:, None] >> torch.arange(12)) & 1).float()
    data.sprites = pack(pictures.view(-1, 1, 64, 64))
    drawn = data._describe(torch.rand(50, 3, 9, generator=generator))
    sizes = (3, 6, 40, 32, 32)
    assert int(drawn["image"].max()) < math.prod(sizes)
    expected = np.ravel_multi_index(
        (
            drawn["shape"].numpy(),
            (10 * drawn["scale"] - 5).round().long().numpy(),
            (drawn["orientation"] * 39 / (2 * math.pi)).round().long().numpy(),
            ((drawn["px"] - 0.25) * 62).round().long().numpy(),
            ((drawn["py"] - 0.25) * 62).round().long().numpy(),
        ),
        sizes,
    )
    assert (drawn["image"].numpy() == expected).all()
    drawn["image"] %= 4096
    lit = data.masks(drawn).flatten(2)[..., :12].long()
    read = (lit << torch.arange(12)).sum(2)
    assert torch.equal(read, drawn["image"] * drawn["exists"].long())


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found none of"):
        open_dataset("sprites-scenes", folder=tmp_path)
    (tmp_path / NPZ).write_bytes(b"nothing of the kind")
    with pytest.raises(DistkError, match="not a valid npz"):
        open_dataset("sprites-scenes", folder=tmp_path)
    with pytest.raises(UsageError, match="64x64"):
        open_dataset("sprites-scenes", {"size": 32}, folder=tmp_path)
    with zipfile.ZipFile(tmp_path / NPZ, "w") as archive, archive.open("imgs.npy", "w") as member:
        np.lib.format.write_array(member, np.zeros((3, 64, 64), np.uint8))
    with pytest.raises(DistkError, match="expected imgs uint8"):
        open_dataset("sprites-scenes", folder=tmp_path / NPZ)


@pytest.mark.parametrize("options", [{"exists": 0}, {"exists": 1.5}, {"size": 48}, {"max_sprites": 0}, {"fixed": 0}])
def test_settings_out_of_range(options: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(options)).replace("_", "-")):
        open_dataset("sprites-scenes", options)
