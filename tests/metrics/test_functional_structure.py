"""IRS, unsupervised dependence, linear correlation, active units and UDR against loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso
from sklearn.metrics import mutual_info_score
from sklearn.preprocessing import StandardScaler

from distk.plugins.metrics import functional as fn


def _bin(x: np.ndarray, bins: int = 20) -> np.ndarray:
    return np.digitize(x, np.histogram(x, bins)[1][:-1])


@pytest.mark.parametrize("quantile", [0.99, 0.5, 1.0])
def test_irs_by_loops(rng: np.random.Generator, quantile: float) -> None:
    n = 1500
    factors = np.stack([rng.integers(0, 4, n), rng.integers(0, 33, n)], 1)
    codes = np.concatenate([factors @ rng.normal(size=(2, 3)) + rng.normal(size=(n, 3)), np.ones((n, 1))], 1)
    binned = np.stack([factors[:, 0], _bin(factors[:, 1])], 1)
    matrix, largest = np.empty((3, 2)), np.empty(3)
    for d in range(3):
        c = codes[:, d]
        largest[d] = np.abs(c - c.mean()).max()
        for k in range(2):
            groups = [c[binned[:, k] == v] for v in np.unique(binned[:, k])]
            matrix[d, k] = 1 - np.mean([np.quantile(np.abs(g - g.mean()), quantile) for g in groups]) / largest[d]
    ours = fn.irs(codes, factors, quantile=quantile)
    np.testing.assert_allclose(ours["irs_matrix"][:3], matrix, atol=1e-9)
    assert ours["irs"] == pytest.approx((largest * matrix.max(1)).sum() / largest.sum(), abs=1e-9)
    np.testing.assert_array_equal(ours["parents"][:3], matrix.argmax(1))
    assert np.isnan(ours["irs_per_code"][3])
    assert ours["codes_used"] == 3
    assert ours["irs"] == fn.irs(codes[:, :3], factors, quantile=quantile)["irs"]


def test_irs_of_perfect_codes(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 5, 600), rng.integers(0, 3, 600)], 1)
    ours = fn.irs(factors[:, ::-1] * [3.0, -1.0], factors)
    assert ours["irs"] == pytest.approx(1.0)
    np.testing.assert_array_equal(ours["parents"], [1, 0])


def test_unsupervised_scores(rng: np.random.Generator) -> None:
    codes = rng.normal(size=(800, 4)) @ rng.normal(size=(4, 4))
    ours = fn.unsupervised(codes)
    sigma = np.cov(codes.T)
    s = np.diag(np.sqrt(np.diag(sigma)))
    tc = 0.5 * (np.log(np.diag(sigma)).sum() - np.log(np.linalg.det(sigma)))
    w = 2 * np.trace(sigma) - 2 * np.trace(sqrtm(s @ sigma @ s).real)
    assert ours["gaussian_total_correlation"] == pytest.approx(tc, abs=1e-8)
    assert ours["gaussian_wasserstein_correlation"] == pytest.approx(w, rel=1e-7)
    assert ours["gaussian_wasserstein_correlation_norm"] == pytest.approx(w / np.trace(sigma), rel=1e-7)
    pairs = [mutual_info_score(_bin(codes[:, i]), _bin(codes[:, j])) for i in range(4) for j in range(4) if i != j]
    assert ours["mutual_info_score"] == pytest.approx(np.mean(pairs), abs=1e-9)
    dead = fn.unsupervised(np.concatenate([codes, np.zeros((800, 1))], 1))
    for key in ("gaussian_total_correlation", "gaussian_wasserstein_correlation", "mutual_info_score"):
        assert dead[key] == pytest.approx(ours[key], rel=1e-12)
    assert dead["codes_used"] == 4
    assert "[4]" in dead["reasons"]["codes_used"]


def test_total_correlation_closed_form(rng: np.random.Generator) -> None:
    """Codes whose sample covariance is exactly [[1, rho], [rho, 1]]: -1/2 log(1 - rho^2)."""
    rho = rng.uniform(-0.95, 0.95)
    white = rng.normal(size=(500, 2))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    codes = white @ np.linalg.cholesky(np.array([[1, rho], [rho, 1]])).T
    ours = fn.unsupervised(codes)
    assert ours["gaussian_total_correlation"] == pytest.approx(-0.5 * np.log(1 - rho**2), abs=1e-9)
    # ddof=1: the trace of the sample covariance is exactly 2
    w = 4 - 2 * (np.sqrt(1 + rho) + np.sqrt(1 - rho))
    assert ours["gaussian_wasserstein_correlation"] == pytest.approx(w, abs=1e-9)
    linear = fn.linear_correlation(codes * 3, d=1)
    assert linear["mapc"] == pytest.approx(abs(rho), abs=1e-9)
    assert linear["cvr"] == pytest.approx(1 + abs(rho), abs=1e-9)
    assert linear["l_sigma"] == pytest.approx(9 * (2 + 2 * abs(rho)) / 4, abs=1e-8)
    copies = fn.unsupervised(np.repeat(codes[:, :1], 2, 1))
    assert copies["gaussian_total_correlation"] > 15  # singular up to rounding


def test_linear_correlation_by_loops(rng: np.random.Generator) -> None:
    codes = rng.normal(size=(300, 7)) @ rng.normal(size=(7, 7)) * rng.uniform(0.1, 4, 7)
    codes[:, 2] = 5.0
    cov = np.cov(codes.T)
    live = [0, 1, 3, 4, 5, 6]
    pairs = [abs(cov[i, j]) / np.sqrt(cov[i, i] * cov[j, j]) for i in live for j in live if i < j]
    ours = fn.linear_correlation(codes, d=2)
    assert ours["mapc"] == pytest.approx(np.mean(pairs), abs=1e-9)
    assert ours["cvr"] == pytest.approx(np.abs(cov).sum() / np.trace(cov), rel=1e-9)
    assert ours["cvr_over_p2"] == pytest.approx(ours["cvr"] / 49)
    variances = np.sort(np.diag(cov))[::-1]
    assert ours["tdv"] == pytest.approx(variances[:2].sum() / variances.sum())
    count = next(i for i in range(1, 8) if variances[:i].sum() >= 0.9 * variances.sum())
    assert ours["ud90"] == count
    assert np.isnan(fn.linear_correlation(codes)["tdv"])


def test_active_units_use_the_population_variance(rng: np.random.Generator) -> None:
    mean = np.stack([np.tile([-1.0, 1.0], 4) * s for s in (0.5, 0.099, 0.101)], 1)
    ours = fn.active_units(mean)
    np.testing.assert_allclose(ours["variance"], [0.25, 0.099**2, 0.101**2])
    assert ours["active_units"] == 2  # with ddof=1 the second, 0.0098 * 8 / 7, would pass, too


def _relative_strength(r: np.ndarray) -> float:
    parts = []
    for m in (r, r.T):
        ratios = [col.max() ** 2 / col.sum() if col.sum() > 0 else 0.0 for col in m.T]
        parts.append(np.mean(ratios))
    return float(np.mean(parts))


@pytest.mark.parametrize("matrix", ["lasso", "spearman"])
def test_udr_by_loops(rng: np.random.Generator, matrix: str) -> None:
    source = rng.normal(size=(400, 4))
    models = [source @ rng.normal(size=(4, d)) + 0.3 * rng.normal(size=(400, d)) for d in (4, 5, 3, 4)]
    kls = [rng.uniform(0.02, 2, m.shape[1]) for m in models]
    kls[1][2] = 0.001
    pairwise = np.full((4, 4), np.nan)
    for i in range(4):
        for j in range(4):
            if i == j:
                continue
            a, b = (StandardScaler().fit_transform(models[m])[:, kls[m] > 0.01] for m in (i, j))
            if matrix == "lasso":
                r = np.abs(Lasso(alpha=0.1, tol=1e-10, max_iter=10**6).fit(a, b).coef_).T
            else:
                r = np.abs(spearmanr(a, b).statistic[: a.shape[1], a.shape[1] :])
            pairwise[i, j] = _relative_strength(r)
    ours = fn.udr(models, kls, matrix=matrix)
    np.testing.assert_allclose(ours["pairwise"], pairwise, atol=1e-5 if matrix == "lasso" else 1e-9)
    expected = [np.median(np.delete(pairwise[:, i], i)) for i in range(4)]
    np.testing.assert_allclose(ours["model_scores"], expected, atol=1e-5)
    np.testing.assert_array_equal(ours["informative_codes"], [4, 4, 3, 4])


def test_udr_ranks_axis_aligned_models_first(rng: np.random.Generator) -> None:
    source = rng.normal(size=(1000, 4))
    aligned = [source[:, rng.permutation(4)] * rng.choice([-2.0, 1.0], 4) for _ in range(4)]
    rotated = source @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    kl = [np.ones(4)] * 5
    scores = fn.udr([*aligned, rotated], kl)["model_scores"]
    assert scores[:4].min() > 0.85
    assert scores[4] < scores[:4].min()
    empty = fn.udr([*aligned, rotated], [*kl[:4], np.zeros(4)])
    assert empty["model_scores"][4] == 0
    assert "model 4" in empty["reasons"]
