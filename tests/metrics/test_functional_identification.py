"""mcc and r2 against scipy and scikit-learn, on codes whose score is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional.probes import mlp
from distk.plugins.metrics.functional.solvers import average_ranks


def _split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x[: 2 * len(x) // 3], x[2 * len(x) // 3 :]


@pytest.mark.parametrize("width", [3, 5, 2])
def test_mcc_against_scipy(rng: np.random.Generator, width: int) -> None:
    factors = rng.normal(size=(900, 3)) ** 3
    codes = factors @ rng.normal(size=(3, width)) + rng.normal(size=(900, width))
    train, test = zip(_split(codes), _split(factors), strict=True)
    result = fn.mcc(torch.from_numpy(codes), factors)
    for name, of in (
        ("pearson", lambda c, f: np.corrcoef(c.T, f.T)[:width, width:]),
        ("spearman", lambda c, f: spearmanr(np.hstack([c, f])).statistic[:width, width:]),
    ):
        rows, columns = linear_sum_assignment(-np.abs(of(*train)))
        assert result[name] == pytest.approx(np.abs(of(*test))[rows, columns].sum() / 3, abs=1e-9)
        assert result[f"{name}_train"] == pytest.approx(np.abs(of(*train))[rows, columns].sum() / 3, abs=1e-9)
    np.testing.assert_allclose(result["correlation"], np.abs(np.corrcoef(test[0].T, test[1].T)[:width, width:]))


def test_ranks_share_ties(rng: np.random.Generator) -> None:
    from scipy.stats import rankdata

    x = rng.integers(0, 7, (50, 3)).astype(float)
    np.testing.assert_array_equal(average_ranks(torch.from_numpy(x)).numpy(), rankdata(x, axis=0))


def test_the_weak_form_is_the_canonical_correlation(rng: np.random.Generator) -> None:
    factors = rng.normal(size=(600, 3))
    codes = factors @ rng.normal(size=(3, 4)) + rng.normal(size=(600, 4))
    (x, _), (y, _) = _split(codes), _split(factors)
    x, y = x - x.mean(0), y - y.mean(0)
    a, b, c = x.T @ x, y.T @ y, x.T @ y
    squares = eigh(c.T @ np.linalg.solve(a, c), b, eigvals_only=True)  # the generalised eigenvalues are r^2
    assert fn.mcc(codes, factors)["weak_train"] == pytest.approx(np.sqrt(squares).mean(), abs=1e-9)


def test_what_mcc_forgives_and_what_not(rng: np.random.Generator) -> None:
    factors = rng.uniform(-1, 1, size=(3000, 3))
    permuted = np.exp(-2 * factors[:, [2, 0, 1]])
    found = fn.mcc(permuted, factors)
    assert found["spearman"] == pytest.approx(1, abs=1e-9)
    assert found["pearson"] < 0.99
    assert found["matched"].tolist() == [1, 2, 0]
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotated = fn.mcc(factors @ rotation, factors)
    assert rotated["weak"] == pytest.approx(1, abs=1e-9)
    assert rotated["pearson"] < 0.999
    # Noise: a test correlation has a deviation of 1/sqrt(1000), its absolute value a mean of .025 and a deviation of
    # .019 each, of three .011.
    noise = fn.mcc(rng.normal(size=(3000, 6)), factors)
    assert noise["pearson"] < 0.025 + 6 * 0.011
    assert noise["pearson_train"] > noise["pearson"] - 6 * 0.011
    missing = fn.mcc(factors[:, :2], factors)
    assert missing["pearson"] == pytest.approx(2 / 3, abs=1e-12), "a factor without a partner counts 0"
    assert np.isnan(missing["matched"][2])


def test_constant_columns(rng: np.random.Generator) -> None:
    factors = rng.normal(size=(300, 3))
    factors[:, 1] = 4.0
    codes = np.hstack([factors[:, [2, 0]], np.ones((300, 1))])
    result = fn.mcc(codes, factors)
    assert result["pearson"] == pytest.approx(1, abs=1e-12)
    assert np.isnan(result["correlation"][:, 1]).all()
    assert (result["correlation"][2, [0, 2]] == 0).all()
    assert len(result["reasons"]) == 1
    assert fn.r2(codes, factors)["r2"] == pytest.approx(1, abs=1e-9)


def test_a_factor_that_is_constant_among_the_test_rows_is_left_out(rng: np.random.Generator) -> None:
    """Its deviations from its mean are rounding noise, over which any error would be huge."""
    factors = rng.normal(size=(300, 2))
    factors[200:, 0] = 0.1
    found = fn.r2(factors + 0.1 * rng.normal(size=(300, 2)), factors)
    assert np.isnan(found["r2_per_factor"][0])
    assert found["r2"] == found["r2_per_factor"][1] > 0.9
    assert "constant among the test rows" in found["reasons"]["r2"]


def test_linear_r2_against_scikit_learn(rng: np.random.Generator) -> None:
    factors = rng.normal(size=(700, 3)) * [1, 20, 0.1] + 3
    codes = factors @ rng.normal(size=(3, 5)) + rng.normal(size=(700, 5))
    (x, xt), (y, yt) = _split(codes), _split(factors)
    model = LinearRegression().fit(x, y)
    result = fn.r2(codes, factors)
    np.testing.assert_allclose(result["r2_per_factor"], r2_score(yt, model.predict(xt), multioutput="raw_values"))
    assert result["r2_train"] == pytest.approx(r2_score(y, model.predict(x)), abs=1e-9)
    doubled = fn.r2(np.hstack([codes, codes]), factors)
    assert doubled["r2"] == pytest.approx(result["r2"], abs=1e-6), "a copy of every code changes nothing"


def test_the_network_finds_a_smooth_map_and_nothing_in_noise(rng: np.random.Generator, seed: int) -> None:
    factors = rng.uniform(-1, 1, size=(3000, 2))
    mixed = np.stack([factors[:, 0] * factors[:, 1], factors[:, 0] ** 2 - factors[:, 1], factors.sum(1) ** 3], 1)
    smooth = fn.r2(mixed, factors, predictor="mlp", seed=seed)
    assert smooth["r2"] > fn.r2(mixed, factors)["r2"] + 0.1
    assert smooth["r2"] > 0.8
    noise = fn.r2(rng.normal(size=(3000, 4)), factors, predictor="mlp", seed=seed, passes=20)
    # Early stopping keeps nearly the mean: 1000 test rows determine an R^2 of 0 to about 1/sqrt(1000).
    assert abs(noise["r2"]) < 0.2


def test_the_network_is_the_same_for_a_seed_and_leaves_the_global_generator_alone(seed: int) -> None:
    x, y = torch.randn(200, 3, dtype=torch.float64), torch.randn(200, 2, dtype=torch.float64)
    before = torch.get_rng_state()
    first, second, other = (mlp(x, y, seed=s, passes=3)(x) for s in (seed, seed, seed + 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_test_rows_choose_nothing(rng: np.random.Generator, seed: int) -> None:
    """Other test rows, and the numbers of the training rows stay as they were."""
    factors, codes = rng.normal(size=(300, 2)), rng.normal(size=(300, 3))
    other = rng.normal(size=(90, 3)), rng.normal(size=(90, 2))
    poison = other[0] * 100, other[1] ** 3
    for of, keys in (
        (lambda *test: fn.mcc(codes, factors, *test), ("pearson_train", "spearman_train", "weak_train", "matched")),
        (lambda *test: fn.r2(codes, factors, *test, predictor="mlp", seed=seed, passes=5), ("r2_train",)),
    ):
        a, b = of(*other), of(*poison)
        assert all(np.array_equal(a[key], b[key], equal_nan=True) for key in keys)
