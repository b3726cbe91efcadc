"""MIG, its variants and modularity against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import entropy, norm
from sklearn.metrics import mutual_info_score

from distk.plugins.metrics import functional as fn


def _arrays(rng: np.random.Generator, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    factors = np.stack([rng.integers(0, s, n) for s in (3, 6, 2)], 1)
    codes = factors @ rng.normal(size=(3, 5)) + rng.normal(size=(n, 5))
    codes[:, 0] = factors[:, 1] + 0.1 * codes[:, 0]
    return codes, factors


def _reference_information(codes: np.ndarray, factors: np.ndarray, bins: int) -> np.ndarray:
    table = np.zeros((codes.shape[1], factors.shape[1]))
    for d in range(codes.shape[1]):
        index = np.digitize(codes[:, d], np.histogram(codes[:, d], bins)[1][:-1])
        table[d] = [mutual_info_score(index, factors[:, k]) for k in range(factors.shape[1])]
    return table


@pytest.mark.parametrize("bins", [20, 10])
def test_mig_and_modularity_match_numpy(rng: np.random.Generator, bins: int) -> None:
    codes, factors = _arrays(rng)
    table = _reference_information(codes, factors, bins)
    h = np.array([entropy(np.bincount(f)) for f in factors.T])
    ordered = np.sort(table, 0)
    result = fn.mig(torch.from_numpy(codes), factors, bins=bins)
    np.testing.assert_allclose(result["mutual_information"], table, atol=1e-9)
    np.testing.assert_allclose(result["factor_entropy"], h, atol=1e-12)
    np.testing.assert_allclose(result["mig_per_factor"], (ordered[-1] - ordered[-2]) / h, atol=1e-9)
    assert result["mig"] == pytest.approx(((ordered[-1] - ordered[-2]) / h).mean(), abs=1e-9)
    by_factor = np.sort(table / h, 1)
    assert result["mig_sup"] == pytest.approx((by_factor[:, -1] - by_factor[:, -2]).mean(), abs=1e-9)

    scores = []
    for row in table:
        best = row.max() ** 2
        scores.append(1 - (np.square(row).sum() - best) / (best * 2))
    ours = fn.modularity(codes, factors, bins=bins)
    assert ours["modularity"] == pytest.approx(np.mean(scores), abs=1e-9)
    np.testing.assert_allclose(ours["modularity_per_code"], scores, atol=1e-9)


def test_perfect_and_independent_codes(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, s, 5000) for s in (4, 7, 15)], 1)
    perfect = factors * [2.0, -1.0, 0.1]
    assert fn.mig(perfect, factors)["mig"] > 0.99
    assert fn.modularity(perfect, factors)["modularity"] > 0.99
    assert fn.mig(rng.normal(size=(5000, 6)), factors)["mig"] < 0.02
    one = fn.mig(perfect[:, :1], factors)  # a lone code: the second-best information is 0
    assert one["mig_per_factor"][0] == pytest.approx(1.0)


def test_duplicated_codes_are_modular_without_a_gap(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 5, 4000) for _ in range(3)], 1)
    codes = np.repeat(factors, 3, 1).astype(float)
    assert fn.modularity(codes, factors)["modularity"] > 0.99
    assert fn.mig(codes, factors)["mig"] == pytest.approx(0.0, abs=1e-12)


def test_invariances(rng: np.random.Generator) -> None:
    codes, factors = _arrays(rng)
    base = fn.mig(codes, factors)["mig"]
    order = rng.permutation(5)
    assert fn.mig(codes[:, order], factors)["mig"] == base
    scale = 2.0 ** rng.integers(-3, 4, 5)  # powers of two: bin edges scale without rounding
    assert fn.mig(codes * scale, factors)["mig"] == base
    modular = fn.modularity(codes, factors)["modularity"]
    assert fn.modularity(codes[:, order] * scale, factors)["modularity"] == pytest.approx(modular, abs=1e-12)
    dead = np.concatenate([codes, np.full((len(codes), 1), 0.3)], 1)
    assert fn.mig(dead, factors)["mig"] == base
    result = fn.modularity(dead, factors)
    assert result["modularity"] == pytest.approx(modular * 5 / 6, abs=1e-12)
    assert result["modularity_informative"] == pytest.approx(modular, abs=1e-12)
    assert result["codes_used"] == 5
    # A sign flip moves values that sit on a bin edge (the extremes), nothing else.
    assert fn.mig(-codes, factors)["mig"] == pytest.approx(base, abs=0.01)


def test_constant_factor_is_dropped(rng: np.random.Generator) -> None:
    codes, factors = _arrays(rng)
    wide = np.insert(factors, 1, 4, axis=1)
    result, base = fn.mig(codes, wide), fn.mig(codes, factors)
    assert result["mig"] == base["mig"]
    assert result["mutual_information"].shape == (5, 4)
    assert np.isnan(result["mutual_information"][:, 1]).all()
    assert "factor 1 is constant" in result["reasons"]["mig"]
    assert "reasons" not in base
    single = fn.modularity(codes, factors[:, :1])
    assert np.isnan(single["modularity"])
    assert "single factor" in single["reasons"]["modularity"]


def test_quantile_bins_withstand_an_outlier(rng: np.random.Generator) -> None:
    factors = rng.integers(0, 5, (2000, 1))
    codes = factors + 0.1 * rng.normal(size=(2000, 1))
    codes[0] = 1e6
    assert fn.mig(codes, factors)["mig"] < 0.01
    assert fn.mig(codes, factors, binning="quantile")["mig"] > 0.9
    x = rng.permutation(1000).astype(float)[:, None]
    from distk.plugins.metrics.functional.information import discretise

    index = discretise(torch.from_numpy(x), 10, "quantile")[:, 0].numpy()
    np.testing.assert_array_equal(index, x[:, 0] // 100)


def test_rmig_cuts_the_factors_too(rng: np.random.Generator) -> None:
    position = rng.random((3000, 2))
    codes = np.concatenate([position, rng.normal(size=(3000, 1))], 1)
    with pytest.raises(ValueError, match="continuous"):
        fn.mig(codes, position)
    assert fn.mig(codes, position, bins=10, factor_bins=10)["mig"] > 0.95
    index = np.digitize(position[:, 0], np.histogram(position[:, 0], 10)[1][:-1])
    result = fn.mig(codes, position, bins=10, factor_bins=10)
    assert result["factor_entropy"][0] == pytest.approx(entropy(np.bincount(index)), abs=1e-9)


def test_aggregate_estimator_against_adaptive_quadrature(rng: np.random.Generator) -> None:
    factors = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 5, 0)
    mean = np.stack([3.0 * factors[:, 0], 1.5 * factors[:, 1]], 1) + 0.3 * rng.normal(size=(20, 2))
    logvar = rng.uniform(-2, 0, (20, 2))

    def mixture_entropy(rows: np.ndarray, d: int) -> float:
        def integrand(z: float) -> float:
            p = norm.pdf(z, mean[rows, d], np.exp(logvar[rows, d] / 2)).mean()
            return -p * np.log(p) if p > 0 else 0.0

        return quad(integrand, -12, 15, limit=400)[0]

    expected = np.empty((2, 2))
    for d in range(2):
        for k in range(2):
            parts = [mixture_entropy(factors[:, k] == v, d) for v in (0, 1)]
            expected[d, k] = mixture_entropy(np.ones(20, bool), d) - np.mean(parts)
    result = fn.mig_aggregate(mean, logvar, factors)
    np.testing.assert_allclose(result["mutual_information"], expected, atol=1e-6)
    gap = np.sort(expected, 0)[-1] - np.sort(expected, 0)[-2]
    assert result["mig"] == pytest.approx((gap / np.log(2)).mean(), abs=1e-6)


def test_aggregate_limits(rng: np.random.Generator) -> None:
    factors = np.stack(np.meshgrid(range(3), range(4), indexing="ij"), -1).reshape(-1, 2)
    sharp = fn.mig_aggregate(factors.astype(float), np.full((12, 2), -8.0), factors)
    assert sharp["mig"] == pytest.approx(1.0, abs=1e-6)
    blind = fn.mig_aggregate(np.zeros((12, 2)), np.zeros((12, 2)), factors)
    assert blind["mig"] == pytest.approx(0.0, abs=1e-9)
    assert blind["entropy"][0] == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=1e-9)
