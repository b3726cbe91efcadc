"""Coloured sprites: colours against colorsys, silhouettes against dsprites."""

from __future__ import annotations

import colorsys

import pytest
import torch

from distk import UsageError, open_dataset
from distk.plugins.datasets.dsprites_color import hsv_to_rgb
from distk.testing import check_dataset

SMALL = {"size": 32, "scales": (0, 5), "orientations": 3, "positions": 4}


def test_hsv_against_the_standard_library(seed) -> None:
    hsv = torch.rand(300, 3, generator=torch.Generator().manual_seed(seed))
    hsv[:7, 0] = torch.arange(7) / 6
    found = hsv_to_rgb(*hsv.T)
    expected = torch.tensor([colorsys.hsv_to_rgb(*v) for v in hsv.tolist()])
    assert torch.allclose(found, expected, atol=1e-5)


def test_images_are_silhouettes_in_the_colour_of_their_bin() -> None:
    data = open_dataset("dsprites-color", {**SMALL, "copies": 3})
    grey = open_dataset("dsprites", SMALL)
    rows = torch.arange(len(data))
    assert len(data) == 3 * len(grey)
    batch = data.batch(rows)
    assert torch.equal((batch["x"].amax(1, keepdim=True) > 0).float(), grey.batch(rows // 3)["x"])
    assert torch.equal(batch["factors"][:, :5], grey.factors(rows // 3))
    assert torch.equal(batch["label"], batch["factors"][:, 0])
    # A sprite is of one colour: its maximum over the pixels. Its HSV lies in the bins that the factors name.
    colour = batch["x"].flatten(2).amax(2)
    for rgb, factors in zip(colour.tolist(), batch["factors"].tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        for place, bins, k in ((hue, 10, 5), (2 * saturation - 1, 3, 6), (2 * value - 1, 3, 7)):
            assert factors[k] - 1e-3 <= place * bins <= factors[k] + 1 + 1e-3


def test_colours_are_spread_evenly_and_independent_of_the_sprite() -> None:
    """The colours are drawn once with a fixed seed, so this cannot fail by chance."""
    data = open_dataset("dsprites-color", {"size": 32, "orientations": 10, "positions": 8})
    factors = data.grid()
    for k, bins in ((5, 10), (6, 3), (7, 3)):
        share = torch.bincount(factors[:, k], minlength=bins) / len(factors)
        assert float((share * bins - 1).abs().max()) < 0.1
        for other in range(5):
            r = torch.corrcoef(factors[:, [k, other]].T.double())[0, 1]
            assert abs(float(r)) < 0.04


def test_observe_draws_combinations_that_no_row_has() -> None:
    data = open_dataset("dsprites-color", SMALL)
    factors = torch.tensor([[1, 1, 0, 2, 2, hue, 1, 2] for hue in range(10)])
    images = data.observe(factors)
    for hue, rgb in enumerate(images.flatten(2).amax(2).tolist()):
        assert colorsys.rgb_to_hsv(*rgb) == pytest.approx(((hue + 0.5) / 10, 0.75, 0.5 + 2.5 / 6), abs=1e-5)
    with pytest.raises(UsageError, match=r"hue 0\.\.9"):
        data.observe(torch.tensor([[1, 1, 0, 2, 2, 10, 1, 2]]))
    with pytest.raises(UsageError, match=r"\[n, 8\]"):
        data.observe(torch.tensor([[1, 1, 0]]))


def test_conformance_and_no_grid() -> None:
    check_dataset("dsprites-color", **SMALL)
    data = open_dataset("dsprites-color", SMALL)
    with pytest.raises(UsageError, match="not a full grid"):
        data.index(data.grid()[:3])
