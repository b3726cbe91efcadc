"""Blobs against the formula, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from distk import UsageError, open_dataset
from distk.testing import check_dataset


@pytest.mark.parametrize(("size", "sigma", "positions"), [(64, 4.0, 32), (32, 4.0, 5), (10, 7.5, 3)])
def test_pixels_against_the_formula(size, sigma, positions, seed) -> None:
    data = open_dataset("blobs", {"size": size, "sigma": sigma, "positions": positions})
    assert data.spec.shape == (1, size, size)
    assert len(data) == positions**2
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randint(positions, (3, 2), generator=generator)
    for (i, j), image in zip(factors.tolist(), data.observe(factors), strict=True):
        cx, cy = 16 + 32 * i / (positions - 1), 16 + 32 * j / (positions - 1)
        for row, column in torch.randint(size, (20, 2), generator=generator).tolist():
            x, y = (column + 0.5) * 64 / size, (row + 0.5) * 64 / size
            expected = math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
            assert float(image[0, row, column]) == pytest.approx(expected, abs=1e-5)


def test_position_is_where_the_mass_is() -> None:
    data = open_dataset("blobs", {"sigma": 2.0})
    image = data.observe(torch.tensor([[31, 0]]))[0, 0]
    pixel = torch.arange(64) + 0.5
    assert float((image.sum(0) * pixel).sum() / image.sum()) == pytest.approx(48, abs=0.01)
    assert float((image.sum(1) * pixel).sum() / image.sum()) == pytest.approx(16, abs=0.01)
    assert 0.95 < float(data.batch(torch.arange(1024))["x"].amax()) <= 1


@pytest.mark.parametrize(("sigma", "highest"), [(8.0, 278), (4.0, 92)])
def test_up_to_which_beta_a_code_of_the_position_pays(sigma, highest) -> None:
    """z = a t + sqrt(1 - a^2) noise costs a^2 / 2 nats, and logits linear in it gain a^2 / 2 times this sum."""
    data = open_dataset("blobs", {"sigma": sigma})
    x = data.batch(torch.arange(1024))["x"].flatten(1).double()
    t = data.grid()[:, 0].double()
    t = (t - t.mean()) / t.std(unbiased=False)
    mean = x.mean(0)
    covariance = (t[:, None] * (x - mean)).mean(0)
    assert float((covariance**2 / (mean * (1 - mean))).sum()) == pytest.approx(highest, rel=0.01)


def test_conformance_and_settings_out_of_range() -> None:
    check_dataset("blobs")
    with pytest.raises(UsageError, match="sigma"):
        open_dataset("blobs", {"sigma": 0})
