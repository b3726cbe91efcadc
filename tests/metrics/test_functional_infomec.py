"""InfoMEC as its authors compute it, with scikit-learn alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from distk.plugins.metrics import functional as fn


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _expected(factors: np.ndarray, codes: np.ndarray, discrete: bool) -> dict[str, float]:
    """NMI, pruning, InfoM, InfoC and InfoE over all codes, by scikit-learn."""
    nmi = np.empty((codes.shape[1], factors.shape[1]))
    for d, c in enumerate(codes.T):
        for k, f in enumerate(factors.T):
            told = mutual_info_score(f, c) if discrete else mutual_info_classif(c[:, None], f, n_neighbors=10)[0]
            nmi[d, k] = told / mutual_info_score(f, f)
    span = np.ptp(codes, axis=0)
    live = nmi[span > 0 if discrete else span > span.max() / 20]
    x = OneHotEncoder().fit_transform(codes) if discrete else StandardScaler().fit_transform(codes)
    gains = []
    for f in factors.T:
        model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100).fit(x, f)
        gains.append(1 - log_loss(f, model.predict_proba(x)) / np.log(len(np.unique(f))))
    d, k = live.shape
    return {
        "infom": ((live.max(1) / live.sum(1)).mean() - 1 / k) / (1 - 1 / k),
        "infoc": ((live.max(0) / live.sum(0)).mean() - 1 / d) / (1 - 1 / d),
        "infoe": float(np.mean(gains)),
    }


@pytest.mark.filterwarnings("ignore")
def test_continuous_codes(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 3, 900), (rng.random(900) < 0.3).astype(int)], 1)
    codes = factors @ rng.normal(size=(2, 3)) + 0.7 * rng.normal(size=(900, 3))
    ours = fn.info_mec(codes, factors)
    for key, value in _expected(factors, codes, False).items():
        assert ours[key] == pytest.approx(value, abs=3e-3), key


@pytest.mark.filterwarnings("ignore")
def test_discrete_latents(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 3, 900), rng.integers(0, 4, 900)], 1)
    noise = rng.integers(0, 2, (900, 2))
    codes = np.stack([2 * factors[:, 0] + noise[:, 0], (factors[:, 1] + noise[:, 1]) % 4, np.full(900, 7)], 1)
    ours = fn.info_mec(codes, factors, discrete_latents=True)
    for key, value in _expected(factors, codes, True).items():
        # A factor that is read without error has no best weights: its loss goes on towards 0.
        assert ours[key] == pytest.approx(value, abs=5e-3), key
    assert ours["codes_used"] == 2
    assert np.isnan(ours["nmi"][2]).all()


def test_renaming_the_values_changes_nothing_where_they_are_indices(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 6, 800), rng.integers(0, 3, 800)], 1)
    codes = (factors + (rng.random((800, 2)) < 0.2)) % [6, 3]
    renamed = np.stack([rng.permutation(6)[codes[:, 0]], rng.permutation(3)[codes[:, 1]]], 1)
    first, second = (fn.info_mec(c, factors, discrete_latents=True) for c in (codes, renamed))
    assert first["infom"] == pytest.approx(second["infom"], abs=1e-12)
    assert first["infoe"] == pytest.approx(second["infoe"], abs=2e-3)
    # Read as numbers, the renamed values are no longer a line along the factor.
    assert fn.info_mec(renamed, factors)["infoe"] < second["infoe"] - 0.05 or np.all(np.diff(renamed[:, 0]) >= 0)


def test_a_narrow_code_is_read_by_infoe_and_not_by_the_pruned_one(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 3, 600), rng.integers(0, 3, 600)], 1)
    codes = np.stack(
        [factors[:, 0] + 0.3 * rng.normal(size=600), 0.01 * factors[:, 1] + 0.003 * rng.normal(size=600)], 1
    )
    ours = fn.info_mec(codes, factors)
    alone = fn.info_mec(codes[:, :1], factors)
    assert ours["codes_used"] == 1
    assert ours["infoe_pruned"] == pytest.approx(alone["infoe"], abs=1e-6)
    assert ours["infoe"] > ours["infoe_pruned"] + 0.2


def test_columns_by_number_and_what_is_refused(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 3, 500), rng.integers(0, 4, 500)], 1)
    codes = np.stack([factors[:, 0], factors[:, 1] + 0.1 * rng.normal(size=500)], 1)
    mixed = fn.info_mec(codes, factors, discrete_latents=[0])
    assert mixed["nmi"][0, 0] == pytest.approx(1, abs=1e-9)
    with pytest.raises(ValueError, match="code 1 is said to be discrete"):
        fn.info_mec(codes, factors, discrete_latents=True)


def test_noise_tells_nothing(rng: np.random.Generator) -> None:
    factors = rng.integers(0, 4, (3000, 3))
    noise = fn.info_mec(rng.normal(size=(3000, 5)), factors)
    # 5 codes, 3 parameters a code: 2n times the gain is about chi-square of 15, so the share about 15 / (2n log 4).
    assert 0 <= noise["infoe"] < 4 * 15 / (2 * 3000 * np.log(4))
