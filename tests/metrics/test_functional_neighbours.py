"""KSG, recall@k, InfoMEC, AUC per dimension, cluster accuracy and reconstruction errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.special import digamma
from scipy.stats import entropy
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import roc_auc_score

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional import neighbours


@pytest.mark.parametrize("variant", [1, 2])
def test_ksg_brute_force(rng: np.random.Generator, variant: int, monkeypatch: pytest.MonkeyPatch) -> None:
    n, k = 120, 4
    x = rng.normal(size=(n, 2))
    y = x[:, :1] + rng.normal(size=(n, 1))
    monkeypatch.setattr(neighbours, "MOST", 1000)
    ours = fn.ksg(x, y, k=k, variant=variant)
    x, y = ((a - a.mean(0)) / a.std(0) for a in (x, y))
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        dx = np.array([np.abs(x[i] - x[j]).max() for j in others])
        dy = np.array([np.abs(y[i] - y[j]).max() for j in others])
        near = np.argsort(np.maximum(dx, dy))[:k]
        if variant == 1:
            eps = np.maximum(dx, dy)[near[-1]]
            total += digamma((dx < eps).sum() + 1) + digamma((dy < eps).sum() + 1)
        else:
            total += digamma((dx <= dx[near].max()).sum()) + digamma((dy <= dy[near].max()).sum())
    expected = digamma(k) + digamma(n) - total / n - (1 / k if variant == 2 else 0)
    assert ours == pytest.approx(expected, abs=1e-9)


def test_ksg_of_a_gaussian_pair(rng: np.random.Generator) -> None:
    rho = rng.uniform(0.5, 0.9)
    values = []
    for variant in (1, 2):
        x = rng.normal(size=3000)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=3000)
        values.append(fn.ksg(x, 100 * y + 7, variant=variant))
    # 4 sd of the estimator at n = 3000
    np.testing.assert_allclose(values, -0.5 * np.log(1 - rho**2), atol=0.09)


def test_ksg_with_duplicates_and_constants(rng: np.random.Generator) -> None:
    x = rng.integers(0, 3, (400, 1)).astype(float)
    assert np.isfinite(fn.ksg(x, x))
    assert fn.ksg(x, x) == fn.ksg(x, x)
    assert fn.ksg(rng.normal(size=(400, 2)), np.zeros((400, 1))) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_recall_brute_force(rng: np.random.Generator, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 90
    emb = rng.normal(size=(n, 3))
    labels = rng.integers(0, 12, n)
    labels[5] = 99  # an item without a match
    monkeypatch.setattr(neighbours, "MOST", 1000)
    ours = fn.recall_at_k(emb, labels, ks=(1, 3, 10), metric=metric)
    e = emb / np.linalg.norm(emb, axis=1, keepdims=True) if metric == "cosine" else emb
    hits = dict.fromkeys((1, 3, 10), 0)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        order = sorted(others, key=lambda j: float(((e[i] - e[j]) ** 2).sum()))
        for k in hits:
            hits[k] += any(labels[j] == labels[i] for j in order[:k])
    for k, hit in hits.items():
        assert ours[f"recall@{k}"] == pytest.approx(hit / n)
    assert ours["items_without_match"] >= 1


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_of_equal_distances_the_lower_index_comes_first(rng: np.random.Generator, far: float) -> None:
    """Twenty rows stand at one place, and each has many at the same distance: no search by a tree knows their order."""
    emb = rng.integers(0, 4, (320, 2)) + far
    labels = rng.integers(0, 40, 320)
    distance = np.square(emb[:, None] - emb).sum(2)
    np.fill_diagonal(distance, np.inf)
    order = distance.argsort(1, kind="stable")
    ours = fn.recall_at_k(emb, labels, ks=(1, 3, 9))
    for k in (1, 3, 9):
        hit = (labels[order[:, :k]] == labels[:, None]).any(1)
        assert ours[f"recall@{k}"] == pytest.approx(hit.mean(), abs=1e-12), k


def test_recall_ties_and_self(rng: np.random.Generator) -> None:
    """Equal embeddings: the item itself is left out by index, and the lower index comes first."""
    emb = np.tile(rng.normal(size=(1, 40)), (7, 1))
    labels = [0, 1, 0, 1, 2, 2, 2]
    result = fn.recall_at_k(emb, labels, ks=(1, 2, 4))
    for k in (1, 2, 4):
        hits = [any(labels[j] == labels[i] for j in [j for j in range(7) if j != i][:k]) for i in range(7)]
        assert result[f"recall@{k}"] == pytest.approx(np.mean(hits))


def test_knn_information_matches_scikit_learn(rng: np.random.Generator) -> None:
    y = rng.integers(0, 4, 600)
    y[0] = 9  # a class of one row is left out
    x = y + rng.normal(size=600)
    label = torch.from_numpy(y).unique(return_inverse=True)[1]
    for k in (3, 10):
        ours = float(neighbours.knn_information(torch.from_numpy(x), label, 5, k).clamp_min(0))
        theirs = mutual_info_classif(x[:, None], y, discrete_features=False, n_neighbors=k, random_state=0)[0]
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_info_mec(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 4, 1500), rng.integers(0, 6, 1500)], 1)
    noise = 0.01 * rng.random((1500, 2))
    aligned = np.concatenate([factors + noise, 0.01 * rng.normal(size=(1500, 1))], 1)
    result = fn.info_mec(aligned, factors)
    assert result["codes_used"] == 2  # the narrow third code is pruned
    assert np.isnan(result["nmi"][2]).all()
    assert result["infom"] > 0.9
    assert result["infoc"] > 0.9
    assert result["nmi"][0, 0] == pytest.approx(1, abs=0.02)
    assert 0.3 < result["infoe"] <= 1
    mixed = fn.info_mec((factors + noise) @ np.array([[1.0, 1.0], [1.0, -1.0]]), factors)
    assert mixed["infom"] < 0.5
    nmi = result["nmi"][:2]
    expected = (np.mean(nmi.max(1) / nmi.sum(1)) - 1 / 2) / (1 - 1 / 2)
    assert result["infom"] == pytest.approx(expected)
    theirs = mutual_info_classif(aligned[:, :1], factors[:, 1], n_neighbors=10, random_state=0)[0]
    assert result["nmi"][0, 1] == pytest.approx(theirs / entropy(np.bincount(factors[:, 1])), abs=1e-3)


def test_info_mec_quantised_and_single(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 4, 800), rng.integers(0, 3, 800)], 1)
    exact = fn.info_mec(factors, factors)  # many equal values
    assert exact["infom"] > 0.9
    single = fn.info_mec(factors[:, :1], factors[:, :1])
    assert np.isnan(single["infom"])
    assert np.isnan(single["infoc"])
    assert {"infom", "infoc"} <= set(single["reasons"])
    dead = fn.info_mec(np.ones((800, 2)), factors)
    assert np.isnan(dead["infoe"])


def test_best_dimension_auc(rng: np.random.Generator) -> None:
    attributes = np.stack([rng.integers(0, 2, 300), rng.integers(0, 3, 300), np.zeros(300, int)], 1)
    emb = rng.normal(size=(300, 4))
    emb[:, 2] -= 2 * attributes[:, 0]
    ours = fn.best_dimension_auc(emb, attributes)
    expected = []
    for a, v in ((0, 1), (1, 0), (1, 1), (1, 2)):
        areas = [roc_auc_score(attributes[:, a] == v, emb[:, d]) for d in range(4)]
        expected.append(max(max(x, 1 - x) for x in areas))
    np.testing.assert_allclose(ours["auc"], expected, atol=1e-12)
    assert ours["best_dimension"][0] == 2
    np.testing.assert_array_equal(ours["attribute"], [0, 1, 1, 1])
    assert ours["mean"] == pytest.approx(np.mean(expected))
    np.testing.assert_allclose(ours["quartiles"], np.percentile(expected, [25, 50, 75]))


@pytest.mark.parametrize("codes", [3, 5, 2])
def test_unsupervised_accuracy_tries_every_map(rng: np.random.Generator, codes: int) -> None:
    label = np.concatenate([np.arange(3), rng.integers(0, 3, 200)])
    code = np.concatenate([np.arange(codes), rng.integers(0, codes, 203 - codes)])
    code = np.where(rng.random(203) < 0.4, label % codes, code)
    ours = fn.unsupervised_accuracy(code, label)
    values = list(range(3)) + [-1] * codes
    best = max(np.mean(np.array(m)[code] == label) for m in set(itertools.permutations(values, codes)))
    assert ours["hungarian"] == pytest.approx(best)
    majority = sum(np.bincount(label[code == c]).max() for c in np.unique(code)) / 203
    assert ours["majority"] == pytest.approx(majority)
    assert fn.unsupervised_accuracy((label + 1) % 3, label)["hungarian"] == 1.0


def test_reconstruction_errors(rng: np.random.Generator) -> None:
    x = (rng.random((7, 3, 4, 4)) < 0.4).astype(np.float32)
    r = rng.random((7, 3, 4, 4)).astype(np.float32)
    ours = fn.reconstruction(x, r, chunk=3)
    bce = torch.nn.functional.binary_cross_entropy(torch.from_numpy(r).double(), torch.from_numpy(x).double())
    assert ours["bce_pixel"] == pytest.approx(float(bce), rel=1e-9)
    assert ours["nll_image"] == pytest.approx(float(bce) * 48, rel=1e-9)
    assert ours["mse_pixel"] == pytest.approx(np.square(x - r).mean(), rel=1e-5)
    assert fn.reconstruction(x, x)["nll_image"] == 0
    wide = fn.reconstruction(2 * x - 1, r)
    assert np.isnan(wide["bce_pixel"])
    assert np.isfinite(wide["mse_pixel"])
