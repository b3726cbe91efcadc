"""The shared solvers against scikit-learn, scipy and brute force, on fresh random inputs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.svm import LinearSVC

from distk.plugins.metrics.functional import blocks, hinge, solvers
from distk.plugins.metrics.functional.boosting import gradient_boosting


def _labelled(rng: np.random.Generator, n: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Informative codes [n, d] and labels [n] with every class present and unequal frequencies."""
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, (2, n - classes)).min(0)])
    x = rng.normal(size=(n, d)) * rng.uniform(0.3, 3, d) + rng.normal(size=(classes, d))[y]
    return x, y


def test_contingency_and_information(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rng.integers(0, 7, (500, 3)), rng.integers(0, 4, 500)
    monkeypatch.setattr(blocks, "MOST", 100)  # several parts
    table = solvers.contingency(torch.from_numpy(a), torch.from_numpy(b), (7, 4)).numpy()
    expected = np.zeros((3, 7, 4))
    for i in range(500):
        for d in range(3):
            expected[d, a[i, d], b[i]] += 1
    np.testing.assert_array_equal(table, expected)
    information = solvers.mutual_information(torch.from_numpy(expected)).numpy()
    np.testing.assert_allclose(information, [mutual_info_score(a[:, d], b) for d in range(3)], atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_logistic_regression_is_scikit_learns(rng: np.random.Generator, classes: int) -> None:
    x, y = _labelled(rng, 600, 5, classes)
    weight = rng.uniform(0.5, 2, 600)
    for kwargs in ({}, {"sample_weight": weight}):
        theirs = LogisticRegression(C=0.7, tol=1e-8, max_iter=5000).fit(x, y, **kwargs).predict_proba(x)
        tensors = {k: torch.from_numpy(v) for k, v in kwargs.items()}
        model = solvers.logistic_regression(
            torch.from_numpy(x), torch.from_numpy(y), classes, c=0.7, tol=1e-8, max_iter=5000, **tensors
        )
        ours = model.logits(torch.from_numpy(x)).softmax(1).numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_svm_is_liblinears(rng: np.random.Generator, classes: int) -> None:
    x, y = _labelled(rng, 400, 4, classes)
    w, b = hinge.squared_hinge_1d(torch.from_numpy(x), torch.from_numpy(y), classes)
    for d in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = LinearSVC(C=0.01, class_weight="balanced", dual=False, tol=1e-10, max_iter=10**6)
            theirs.fit(x[:, d : d + 1], y)
        np.testing.assert_allclose(w[d], theirs.coef_[:, 0], atol=1e-5)
        np.testing.assert_allclose(b[d], theirs.intercept_, atol=1e-5)


def test_svm_chunks_and_constant_codes(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (torch.from_numpy(a) for a in _labelled(rng, 300, 3, 5))
    x = torch.cat([x, torch.zeros(300, 1), torch.full((300, 1), 2.5)], 1)
    whole = hinge.squared_hinge_1d(x, y, 5)
    monkeypatch.setattr(hinge, "MOST", 700)
    for a, b in zip(whole, hinge.squared_hinge_1d(x, y, 5), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
    assert torch.isfinite(whole[0]).all()
    assert float(whole[0][3].abs().max()) == 0.0


@pytest.mark.parametrize("alpha", [0.02, 0.3])
def test_lasso_is_scikit_learns(rng: np.random.Generator, alpha: float) -> None:
    x = rng.normal(size=(2, 200, 6)) @ rng.normal(size=(6, 6))
    x[:, :, 2] = 0.0
    x -= x.mean(1, keepdims=True)
    y = x @ rng.normal(size=(6, 3)) + rng.normal(size=(2, 200, 3))
    y -= y.mean(1, keepdims=True)
    xt, yt = torch.from_numpy(x), torch.from_numpy(y)
    w = solvers.lasso_gram(xt.mT @ xt / 200, xt.mT @ yt / 200, alpha, tol=1e-12).numpy()
    for batch in range(2):
        theirs = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=10**6).fit(x[batch], y[batch])
        np.testing.assert_allclose(w[batch], theirs.coef_.T, atol=1e-5)
    assert (w[:, 2] == 0).all()


def test_ranks_and_auc(rng: np.random.Generator) -> None:
    x = rng.integers(0, 12, (150, 4)).astype(float)  # many ties
    np.testing.assert_array_equal(solvers.average_ranks(torch.from_numpy(x)).numpy(), rankdata(x, axis=0))
    positive = rng.random((150, 4)) < 0.3
    positive[0], positive[1] = True, False
    ours = solvers.auc(torch.from_numpy(x), torch.from_numpy(positive)).numpy()
    np.testing.assert_allclose(ours, [roc_auc_score(positive[:, j], x[:, j]) for j in range(4)], atol=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_booster_agrees_with_scikit_learn(rng: np.random.Generator, classes: int) -> None:
    n = 1500
    y = rng.integers(0, classes, 2 * n)
    x = rng.normal(size=(2 * n, 4)) + np.stack([2.0 * y, 0.5 * y, 0 * y, 0 * y], 1)
    ours = gradient_boosting(
        torch.from_numpy(x[:n]), torch.from_numpy(y[:n]), classes, torch.from_numpy(x[n:]), stages=40
    )
    theirs = GradientBoostingClassifier(n_estimators=40, random_state=0).fit(x[:n], y[:n])
    np.testing.assert_allclose(ours.importance, theirs.feature_importances_, atol=0.03)
    for scores, rows in ((ours.scores, slice(0, n)), (ours.scores_test, slice(n, 2 * n))):
        accuracy = float((scores.argmax(1).numpy() == y[rows]).mean())
        assert accuracy == pytest.approx(theirs.score(x[rows], y[rows]), abs=0.025)


def test_booster_equals_scikit_learn_on_coarse_codes(rng: np.random.Generator) -> None:
    """Few distinct values: every threshold is its own bin, so the trees are scikit-learn's (also for unseen
    values). Of two splits that are equally good it takes the lower one, and so other trees of codes turned round; such
    draws, one of some thirty, are left out.
    """
    direction_matters = True
    while direction_matters:
        y = rng.integers(0, 3, 900)
        x = np.round(rng.normal(size=(900, 1)) + y[:, None], 1).astype(np.float32).astype(np.float64)
        theirs, turned = (GradientBoostingClassifier(n_estimators=15, random_state=0).fit(s * x, y) for s in (1, -1))
        direction_matters = not np.allclose(theirs.predict_proba(x), turned.predict_proba(-x), atol=1e-6)
    test = np.linspace(-3, 6, 97, dtype=np.float32).astype(np.float64)[:, None]
    ours = gradient_boosting(torch.from_numpy(x), torch.from_numpy(y), 3, torch.from_numpy(test), stages=15)
    np.testing.assert_allclose(ours.scores.softmax(1), theirs.predict_proba(x), atol=2e-3)
    different = np.abs(ours.scores_test.softmax(1).numpy() - theirs.predict_proba(test)) > 2e-3
    assert different.mean() < 0.05  # a midpoint that meets a test value to the last bit may fall either way


def test_booster_shares_importance_among_equal_codes(rng: np.random.Generator) -> None:
    y = torch.from_numpy(rng.integers(0, 4, 800))
    x = (y[:, None].double() + torch.from_numpy(rng.normal(size=(800, 1)))).repeat(1, 4) * torch.tensor([1, -1, 3, 0.5])
    model = gradient_boosting(x, y, 4, x[:10])
    assert float(model.importance.min()) > 0.1
    again = gradient_boosting(x, y, 4, x[:10])
    assert torch.equal(model.importance, again.importance)
