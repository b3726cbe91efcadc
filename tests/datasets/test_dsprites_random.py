"""dsprites-rgb, dsprites-noisy, dsprites-scream: by what Locatello et al. 2019 say of them, computed another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest

from distk import UsageError
from distk.data import open_dataset
from distk.errors import DistkError
from distk.stored import uniform_at
from distk.testing import check_dataset

SMALL = {"scales": (0, 5), "orientations": 4, "positions": 4}
EVERY = ("dsprites-rgb", "dsprites-noisy", "dsprites-scream")


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider than high, larger than what it is shrunk to, of random blocks."""
    path = tmp_path_factory.mktemp("painting") / "scream.png"
    blocks = np.random.default_rng(0).integers(0, 256, (20, 25, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(30, 0).repeat(30, 1)).save(path)
    return path


def options(name: str, painting: Path, **more) -> dict:
    return {**SMALL, **more, **({"picture": str(painting)} if name == "dsprites-scream" else {})}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [64, 32])
def test_they_conform(name: str, size: int, painting: Path) -> None:
    check_dataset(name, **options(name, painting, size=size, holdout=0.2))


@pytest.mark.parametrize("name", EVERY)
def test_training_draws_anew_and_scores_see_the_same(name: str, painting: Path, generator: torch.Generator) -> None:
    data, plain = open_dataset(name, options(name, painting)), open_dataset("dsprites", SMALL)
    rows = torch.arange(len(data))
    first, again = data.batch(rows), data.batch(rows.flip(0))
    assert torch.equal(first["x"], again["x"].flip(0)), "a row is the same picture, whatever comes before it"
    assert torch.equal(first["factors"], plain.batch(rows)["factors"])
    drawn = data.sample(len(data) * 4, generator)
    place = data.index(drawn["factors"])
    assert not torch.equal(drawn["x"], first["x"][place])
    different = (drawn["x"] != first["x"][place]).flatten(1).any(1).double().mean()
    assert float(different) > 0.99
    assert (data.factor_names, data.factor_sizes, data.factor_kinds) == (
        plain.factor_names,
        plain.factor_sizes,
        plain.factor_kinds,
    )


def test_rgb(generator: torch.Generator) -> None:
    """Black stays black; the sprite is of one colour, whose channels are uniform on [0.5, 1] and independent."""
    data, plain = open_dataset("dsprites-rgb", SMALL), open_dataset("dsprites", SMALL)
    batch = data.sample(4000, generator)
    mask = plain.observe(batch["factors"])
    assert not bool((batch["x"] * (1 - mask)).any())
    colour = (batch["x"] * mask).flatten(2).amax(2)
    assert torch.allclose(batch["x"], mask * colour[:, :, None, None])
    for channel in range(3):
        assert kstest(colour[:, channel].numpy(), "uniform", (0.5, 0.5)).pvalue > 1e-4
    assert float(torch.corrcoef(colour.T).triu(1).abs().max()) < 5 / 4000**0.5


def test_noisy(generator: torch.Generator) -> None:
    """Inside the sprite all is white, outside every channel of every pixel is uniform on [0, 1]."""
    data, plain = open_dataset("dsprites-noisy", SMALL), open_dataset("dsprites", SMALL)
    batch = data.sample(40, generator)
    mask = plain.observe(batch["factors"]).expand_as(batch["x"]).bool()
    assert bool((batch["x"][mask] == 1).all())
    assert kstest(batch["x"][~mask].numpy()[:20_000], "uniform").pvalue > 1e-4
    fixed = data.batch(torch.arange(40))["x"]
    assert (
        kstest(fixed[~plain.batch(torch.arange(40))["x"].expand_as(fixed).bool()].numpy()[:20_000], "uniform").pvalue
        > 1e-4
    )


def test_scream(painting: Path, generator: torch.Generator) -> None:
    """Every picture is found again in the painting: twice what is behind the sprite, less the painting's piece, is one
    colour; inside the sprite it is turned round."""
    data, plain = open_dataset("dsprites-scream", options("dsprites-scream", painting)), open_dataset("dsprites", SMALL)
    with Image.open(painting) as image:
        image.thumbnail((350, 274))
        whole = np.asarray(image.convert("RGB")).transpose(2, 0, 1) / 255
    assert whole.shape == (3, 274, 342)
    batch = data.sample(6, generator)
    mask = plain.observe(batch["factors"])
    behind = torch.where(mask > 0, 1 - batch["x"], batch["x"]).double().numpy()
    corners = set()
    for picture in behind:
        places = [
            (y, x)
            for y in range(274 - 64)
            for x in range(342 - 64)
            if np.ptp((2 * picture - whole[:, y : y + 64, x : x + 64])[:, ::9, ::9], axis=(1, 2)).max() < 1e-5
        ]
        assert len(places) >= 1
        y, x = places[0]
        rest = 2 * picture - whole[:, y : y + 64, x : x + 64]
        assert np.ptp(rest, axis=(1, 2)).max() < 1e-5
        assert (rest > -1e-6).all()
        assert (rest < 1 + 1e-6).all()
        corners.add((y, x))
    assert len(corners) > 1


def test_the_painting_is_found_and_refused(painting: Path, tmp_path: Path) -> None:
    for place in (painting, painting.parent):
        assert str(painting) in open_dataset("dsprites-scream", SMALL, folder=place).origin
    with pytest.raises(UsageError, match="--picture FILE"):
        open_dataset("dsprites-scream", SMALL)
    with pytest.raises(UsageError, match="is no file"):
        open_dataset("dsprites-scream", {**SMALL, "picture": str(tmp_path / "none.png")})
    small, broken = tmp_path / "small.png", tmp_path / "broken.png"
    Image.new("RGB", (80, 60)).save(small)
    broken.write_bytes(painting.read_bytes()[:999])
    for path, said in ((small, "80x60 pixels; more than 64"), (broken, "cannot be read as an image")):
        with pytest.raises(DistkError, match=said):
            open_dataset("dsprites-scream", {**SMALL, "picture": str(path)})


def test_numbers_of_rows_are_uniform_and_apart(seed: int) -> None:
    rows = torch.randperm(1 << 20, generator=torch.Generator().manual_seed(seed))[:3000]
    found = uniform_at(rows, 7)
    assert kstest(found.flatten().numpy(), "uniform").pvalue > 1e-4
    assert float(torch.corrcoef(found.T).triu(1).abs().max()) < 5 / 3000**0.5
    next_row = uniform_at(rows + 1, 7)
    assert abs(float(torch.corrcoef(torch.stack([found.flatten(), next_row.flatten()]))[0, 1])) < 5 / 21_000**0.5
    assert torch.equal(uniform_at(rows[5:6], 7), found[5:6])
    assert torch.equal(uniform_at(rows, 9)[:, :7], found)
