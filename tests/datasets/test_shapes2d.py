"""shapes2d: the unique counts of both renderers, the splits, and images as the geometry says."""

from __future__ import annotations

import contextlib
import io
import json
import math

import pytest
import torch

from distk import UsageError, open_dataset
from distk.cli import build
from distk.plugins.datasets.shapes2d import SHAPES

COUNTS = {
    # Pillow 13.0.0. The squares are the paper's: it kept 3 x 89,007 = 267,021 images.
    "pillow": {"square": 89_007, "ellipse": 89_693, "triangle": 92_160, "kept": 89_007},
    "analytic": {"square": 256 * 174, "ellipse": 256 * 356, "triangle": 256 * 240, "kept": 44_544},
}


@pytest.mark.parametrize("renderer", ["analytic", "pillow"])
def test_unique_images_and_splits(renderer: str) -> None:
    data = open_dataset("shapes2d", {"renderer": renderer})
    assert len(data) == 276_480
    *shapes, total = data.stats()
    wanted = COUNTS[renderer]
    for row in shapes:
        assert row["combinations"] == 92_160
        assert row["unique"] == wanted[row["shape"]]
        assert row["kept"] == wanted["kept"]
        for part, share in (("train", 0.7), ("test", 0.15), ("validation", 0.15)):
            assert abs(row[part] - share * wanted["kept"]) <= 1
    assert total["kept"] == 3 * wanted["kept"]
    rows = torch.cat([data.rows(part) for part in ("train", "test", "validation")])
    assert len(rows.unique()) == len(rows) == total["kept"]
    assert torch.equal(data.surviving(rows), rows)


def test_duplicates_by_brute_force(generator: torch.Generator) -> None:
    """On a small grid, against a comparison of the images themselves."""
    options = {"scales": (1, 4), "positions": 3, "rotations": 60, "truncate": False}
    for renderer in ("analytic", "pillow"):
        data = open_dataset("shapes2d", {**options, "renderer": renderer})
        rows = torch.arange(len(data))
        images = data.batch(rows)["x"].flatten(1).to(torch.uint8)
        first: dict[tuple[int, bytes], int] = {}
        shape = data.factors(rows)[:, 0].tolist()
        expected = [
            first.setdefault((k, image.numpy().tobytes()), i)
            for i, (k, image) in enumerate(zip(shape, images, strict=True))
        ]
        assert data.surviving(rows).tolist() == expected
        assert sum(len(data.rows(part)) for part in ("train", "test", "validation")) == len(first)


def test_an_image_is_what_the_geometry_says(generator: torch.Generator) -> None:
    """Pixel by pixel in Python's floats, for random factors."""
    data = open_dataset("shapes2d")
    rows = data.sample_rows(6, generator)
    for image, (shape, x, y, scale, turn) in zip(data.batch(rows)["x"][:, 0], data.factors(rows).tolist(), strict=True):
        r, angle = 8 + scale, math.radians(3 * turn)
        for i in range(64):
            for j in range(64):
                dx, dy = j + 0.5 - 24 - x, i + 0.5 - 24 - y
                u, v = dx * math.cos(angle) - dy * math.sin(angle), dx * math.sin(angle) + dy * math.cos(angle)
                distance = {
                    "square": max(abs(u), abs(v)) - r,
                    "ellipse": (2 * u / r) ** 2 + (v / r) ** 2 - 1,
                    "triangle": max(v, math.sqrt(3) / 2 * abs(u) - v / 2) - r / 2,
                }[SHAPES[shape]]
                if abs(distance) > 1e-6:
                    assert bool(image[i, j]) == (distance < 0)


def test_pixels_stay_inside_and_shapes_turn(generator: torch.Generator) -> None:
    data = open_dataset("shapes2d")
    sizes = torch.tensor(data.factor_sizes)
    corners = torch.cartesian_prod(
        torch.arange(3), torch.tensor([0, 15]), torch.tensor([0, 15]), torch.tensor([5]), torch.arange(60)
    )
    x = data.observe(corners)
    assert float(x[..., 0].sum() + x[..., -1].sum() + x[..., 0, :].sum() + x[..., -1, :].sum()) == 0
    assert bool((corners < sizes).all())
    area = x.flatten(1).sum(1).view(3, -1)
    expected = torch.tensor([4 * 13.0**2, math.pi * 13**2 / 2, 3 * math.sqrt(3) / 4 * 13**2])
    assert bool(((area - expected[:, None]).abs() < 12).all())  # a digitised outline of some 80 pixels


def test_smaller_images_are_means(generator: torch.Generator) -> None:
    whole, half, quarter = (open_dataset("shapes2d", {"size": size}) for size in (64, 32, 16))
    rows = whole.sample_rows(20, generator)
    x = whole.batch(rows)["x"]
    assert torch.equal(half.batch(rows)["x"], x.unflatten(2, (32, 2)).unflatten(4, (32, 2)).mean((3, 5)))
    assert torch.equal(quarter.batch(rows)["x"], x.unflatten(2, (16, 4)).unflatten(4, (16, 4)).mean((3, 5)))


def test_parts_of_the_grid_and_wrong_settings() -> None:
    data = open_dataset("shapes2d", {"shapes": "triangle,square", "scales": "5,0", "positions": 2, "rotations": 4})
    assert data.factor_sizes == (2, 2, 2, 2, 4)
    assert data.spec.classes == ("triangle", "square")
    assert data.spec.extra["factors"]["rotation"] == 4
    whole = open_dataset("shapes2d")
    assert torch.equal(data.observe([[1, 1, 0, 0, 3]]), whole.observe([[0, 15, 0, 5, 3]]))
    kept = open_dataset("shapes2d", {"duplicates": "keep", "rotations": 60, "scales": (0,)})
    assert kept.stats()[-1]["kept"] == len(kept)
    for wrong in ({"shapes": "circle"}, {"shapes": "square,square"}, {"scales": "6"}, {"renderer": "opengl"}):
        with pytest.raises(UsageError):
            open_dataset("shapes2d", wrong)


def distk(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        build().main(args=list(arguments), prog_name="distk", standalone_mode=False)
    return out.getvalue()


def test_stats_on_the_command_line() -> None:
    found = json.loads(distk("data", "shapes2d", "--renderer", "analytic", "--stats", "--json"))
    assert found["stats"][-1]["unique"] == 197_120
    assert "133,632" in distk("data", "shapes2d", "--stats")
    with pytest.raises(UsageError, match="has no --stats"):
        distk("data", "digits", "--stats")


def test_the_label_is_the_shape(generator: torch.Generator) -> None:
    data = open_dataset("shapes2d", device=torch.device("cpu"))
    rows = torch.randint(len(data), (64,), generator=generator)
    batch = data.batch(rows)
    assert torch.equal(batch["label"], batch["factors"][:, data.factor_names.index("shape")])
    assert len(set(batch["label"].tolist())) > 1
