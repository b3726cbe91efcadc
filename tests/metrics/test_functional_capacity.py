"""DCI-ES: explicitness from loss-capacity curves whose area is known, and what its readers find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional.capacity import PROBES, explicitness, targets


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _e(capacity: list[float], loss: list[float]) -> tuple[float, float]:
    both = explicitness(torch.tensor(capacity).double(), torch.tensor(loss).double()[:, None])
    return float(both[0][0]), float(both[1][0])


def test_curves_of_known_area() -> None:
    """What the paper says of them: 1 for the smallest reader being the best, 0 for a straight line from the guess down
    to 0, -1 where only the largest reads anything (in the limit)."""
    assert _e([0, 1, 2], [0.3, 0.3, 0.3])[0] == 1
    assert _e([0, 1, 2, 4], [1, 0.75, 0.5, 0])[0] == pytest.approx(0)
    assert _e([0, 1 - 1e-9, 1], [1, 1, 0])[0] == pytest.approx(-1, abs=1e-6)
    # A line that ends at 0.5: half the area, so 1/2 of the way for the authors' program, 0 for the fall itself.
    assert _e([0, 2], [1, 0.5]) == pytest.approx((0.5, 0))
    assert np.isnan(_e([0, 1], [1, 1])[1])


def test_explicitness_by_scipy(rng: np.random.Generator) -> None:
    capacity, loss = np.sort(rng.random(6)) * 9, np.sort(rng.random((6, 3)), 0)[::-1].copy()
    first, second = explicitness(torch.from_numpy(capacity), torch.from_numpy(loss))
    area = trapezoid(loss - loss[-1], capacity, axis=0)
    length = capacity[-1] - capacity[0]
    np.testing.assert_allclose(first, 1 - 2 * area / length)
    np.testing.assert_allclose(second, 1 - 2 * area / length / (1 - loss[-1]))


def test_a_constant_guess_costs_one(rng: np.random.Generator) -> None:
    train = torch.from_numpy(np.stack([rng.normal(3, 7, 400), rng.integers(0, 5, 400)], 1))
    made = targets(train, train[:90], [1])
    assert made.train.shape == (400, 2, 5)
    np.testing.assert_allclose(made.train.square().sum(2).mean(0), [1, 1])
    np.testing.assert_allclose(made.train.mean(0), np.zeros((2, 5)), atol=1e-12)
    assert bool((made.train[:, 0, 1:] == 0).all())
    a, b = made.test[:, 1], torch.nn.functional.one_hot(train[:90, 1].long(), 5).double()
    # Indicators up to one shift and one scale
    shift = a[0] * 0 + (a - b * (a.max() - a.min()) / 1)[0]
    assert a.shape == b.shape
    assert torch.equal(a.argmax(1), b.argmax(1))
    assert shift.isfinite().all()


@pytest.mark.parametrize("probe", PROBES)
def test_easy_codes_are_explicit_and_hard_ones_less(probe: str, rng: np.random.Generator, seed: int) -> None:
    factors = rng.uniform(-1, 1, (1500, 2))
    easy = fn.dci_es(factors + 0.01 * rng.normal(size=(1500, 2)), factors, probe=probe, seed=seed)
    bent = np.stack([np.cos(2.5 * factors[:, 0]), np.sin(2.5 * factors[:, 0]), np.cos(3 * factors[:, 1]),
                     np.sin(3 * factors[:, 1])], 1)  # fmt: skip
    hard = fn.dci_es(bent, factors, probe=probe, seed=seed)
    assert easy["informativeness"] > 0.95
    assert hard["informativeness"] > 0.8
    assert (easy["size"], hard["size"]) == (1, 0.5)
    if probe != "rf":  # a forest cuts codes into steps: it needs depth for a line, too
        assert easy["explicitness"] > 0.95 > hard["explicitness"]
    assert easy["disentanglement"] > 0.9
    assert easy["importance"].shape == (2, 2)


def test_a_code_that_tells_nothing_is_explicit(rng: np.random.Generator, seed: int) -> None:
    """The paper's E is about ease alone: nothing is quickly read from noise, so that 1 is its value at chance."""
    found = fn.dci_es(rng.normal(size=(1500, 3)), rng.uniform(-1, 1, (1500, 2)), seed=seed)
    # 500 test rows: R^2 of nothing is off 0 by a few times 1/500 for each of the features of the smallest reader.
    assert abs(found["informativeness"]) < 20 * 4 / 500
    assert found["explicitness"] > 0.95


def test_constant_factors_and_categorical_ones(rng: np.random.Generator, seed: int) -> None:
    factors = np.stack([rng.integers(0, 3, 900), np.ones(900), rng.integers(0, 4, 900)], 1)
    codes = np.stack([np.array([5, -1, 2])[factors[:, 0].astype(int)], factors[:, 2]], 1) + 0.01 * rng.normal(
        size=(900, 2)
    )
    found = fn.dci_es(codes, factors, categorical=[0], seed=seed)
    assert np.isnan(found["explicitness_per_factor"][1])
    assert found["size"] == 1
    assert len(found["reasons"]) >= 1
    with pytest.raises(ValueError, match="probe"):
        fn.dci_es(codes, factors, probe="lasso")
