"""SAP, explicitness, downstream accuracy and DCI against scikit-learn, and what each must and must not
see.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Lasso, LogisticRegression, LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional import importance, predictors, solvers

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _split(rng: np.random.Generator, n: int = 900, sizes: tuple[int, ...] = (3, 2, 5)) -> Split:
    factors = np.stack([rng.integers(0, s, n) for s in sizes], 1)
    codes = factors @ rng.normal(size=(len(sizes), 4)) + rng.normal(size=(n, 4))
    cut = 2 * n // 3
    return codes[:cut], factors[:cut], codes[cut:], factors[cut:]


def test_sap_matches_linear_svc(rng: np.random.Generator) -> None:
    c, f, ct, ft = _split(rng)
    matrix = np.empty((4, 3))
    for d in range(4):
        for k in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                machine = LinearSVC(C=0.01, class_weight="balanced", dual=False, tol=1e-9, max_iter=10**6)
                matrix[d, k] = machine.fit(c[:, d : d + 1], f[:, k]).score(ct[:, d : d + 1], ft[:, k])
    ours = fn.sap(c, f, ct, ft)
    np.testing.assert_allclose(ours["score_matrix"], matrix, atol=0.004)
    ordered = np.sort(ours["score_matrix"], 0)
    assert ours["sap"] == pytest.approx((ordered[-1] - ordered[-2]).mean())
    same = fn.sap(np.concatenate([c, ct]), np.concatenate([f, ft]))  # the default split is 2/3 : 1/3 in order
    np.testing.assert_array_equal(same["score_matrix"], ours["score_matrix"])


def test_sap_ignores_dead_codes_and_unknown_test_values(rng: np.random.Generator) -> None:
    c, f, ct, ft = _split(rng, sizes=(2, 2, 2))
    base = fn.sap(c, f, ct, ft)["sap"]
    dead = [np.concatenate([x, np.zeros((len(x), 1))], 1) for x in (c, ct)]
    result = fn.sap(dead[0], f, dead[1], ft)
    assert np.isfinite(result["score_matrix"]).all()
    assert result["sap"] == pytest.approx(base, abs=0.1)  # a constant code guesses one class
    ft = ft.copy()
    ft[:, 0] = 7
    assert (fn.sap(c, f, ct, ft)["score_matrix"][:, 0] == 0).all()


def test_sap_continuous_is_squared_correlation(rng: np.random.Generator) -> None:
    c, f, _, _ = _split(rng)
    targets = f + rng.random(f.shape)
    c[:, 3] = 1e-8 * c[:, 3]  # variance below 1e-12
    ours = fn.sap(c, targets, continuous=True)["score_matrix"]
    expected = np.corrcoef(c.T, targets.T)[:4, 4:] ** 2
    np.testing.assert_allclose(ours[:3], expected[:3], atol=1e-10)
    assert (ours[3] == 0).all()


def test_explicitness_matches_scikit_learn(rng: np.random.Generator) -> None:
    c, f, ct, ft = _split(rng)
    scaler = StandardScaler().fit(c)
    per_factor = []
    for k in range(3):
        p = LogisticRegression().fit(scaler.transform(c), f[:, k]).predict_proba(scaler.transform(ct))
        values = np.unique(f[:, k])
        per_factor.append(np.mean([roc_auc_score(ft[:, k] == v, p[:, i]) for i, v in enumerate(values)]))
    ours = fn.explicitness(c, f, ct, ft)
    np.testing.assert_allclose(ours["explicitness_per_factor"], per_factor, atol=1e-3)
    assert ours["explicitness_test"] == pytest.approx(np.mean(per_factor), abs=1e-3)
    dead = [np.concatenate([x, np.ones((len(x), 1))], 1) for x in (c, ct)]
    assert fn.explicitness(dead[0], f, dead[1], ft)["explicitness_test"] == pytest.approx(
        ours["explicitness_test"], abs=1e-4
    )


def test_explicitness_needs_standardised_codes(rng: np.random.Generator) -> None:
    """Tiny codes would vanish under the penalty without the standardisation."""
    c, f, ct, ft = _split(rng)
    ours = fn.explicitness(c, f, ct, ft)["explicitness_test"]
    assert fn.explicitness(c * 1e-6 + 3, f, ct * 1e-6 + 3, ft)["explicitness_test"] == pytest.approx(ours, abs=1e-3)


def test_downstream_lr_matches_cross_validated_regression(rng: np.random.Generator) -> None:
    c, f, ct, ft = _split(rng, n=750, sizes=(3, 2))
    ours = fn.downstream(c, f, ct, ft, sizes=(10, 200, 10**6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(2):
            machine = LogisticRegressionCV(Cs=10, cv=KFold(5)).fit(c[:200], f[:200, k])
            # Strengths whose accuracy over the folds differs by one of 200 rows at most are a tie, which the rounding
            # of either solver decides; of the chosen one a row near the border may change sides, no more.
            over_folds = np.mean(next(iter(machine.scores_.values())), 0)
            tied = machine.Cs_[over_folds >= over_folds.max() - 1 / 200 - 1e-9]
            scores = [LogisticRegression(C=strength).fit(c[:200], f[:200, k]).score(ct, ft[:, k]) for strength in tied]
            assert min(abs(ours["accuracy"][1, k] - score) for score in scores) < 1.5 / len(ct)
    assert ours["mean_200"] == pytest.approx(ours["accuracy"][1].mean())
    assert ours["min_200"] == ours["accuracy"][1].min()
    assert np.isnan(ours["mean_1e+06"])
    assert "available" in ours["reasons"]["mean_1e+06"]


def test_downstream_survives_missing_classes(rng: np.random.Generator) -> None:
    c, f, ct, ft = _split(rng, sizes=(5, 4))
    f[:10, 0] = 2  # a single value among the first 10 labels
    f[:10, 1] = [0] * 9 + [1]  # a fold that lacks one of two classes
    ours = fn.downstream(c, f, ct, ft, sizes=(10,))
    assert ours["accuracy"][0, 0] == pytest.approx((ft[:, 0] == 2).mean())
    assert 0 <= ours["accuracy"][0, 1] <= np.isin(ft[:, 1], [0, 1]).mean()


def test_downstream_svm_and_trees(rng: np.random.Generator) -> None:
    c, f, ct, ft = _split(rng, n=600, sizes=(2, 3))
    ours = fn.downstream(c, f, ct, ft, sizes=(0.5, 1.0), model="svm")
    scaler = StandardScaler().fit(c[:200])
    theirs = SVC().fit(scaler.transform(c[:200]), f[:200, 0]).score(scaler.transform(ct), ft[:, 0])
    assert ours["accuracy"][0, 0] == pytest.approx(theirs)
    fast = fn.downstream(c, f, ct, ft, sizes=(400,), model="gbt")["mean_400"]
    exact = fn.downstream(c, f, ct, ft, sizes=(400,), model="gbt", exact=True)["mean_400"]
    assert fast == pytest.approx(exact, abs=0.05)


def _paper_scores(r: np.ndarray) -> tuple[float, float]:
    """D and C of papers/14 by loops over R [D, K]."""
    d, k = r.shape
    disentanglement = 0.0
    for i in range(d):
        if r[i].sum() > 0:
            p = r[i] / r[i].sum()
            disentanglement += r[i].sum() / r.sum() * (1 + sum(x * np.log(x) / np.log(k) for x in p if x > 0))
    completeness = []
    for j in range(k):
        p = r[:, j] / r[:, j].sum()
        completeness.append(1 + sum(x * np.log(x) / np.log(d) for x in p if x > 0))
    return disentanglement, float(np.mean(completeness))


def test_dci_lasso_matches_scikit_learn(rng: np.random.Generator) -> None:
    y = rng.normal(size=(600, 3))
    x = y @ rng.normal(size=(3, 5)) * rng.uniform(0.1, 10, 5) + 0.3 * rng.normal(size=(600, 5))
    x[:, 4] = 1.0
    sx, sy = StandardScaler().fit(x[:400]), StandardScaler().fit(y[:400])
    model = Lasso(alpha=0.02, tol=1e-10, max_iter=10**6).fit(sx.transform(x[:400]), sy.transform(y[:400]))
    r = np.abs(model.coef_).T
    error = model.predict(sx.transform(x[400:])) - sy.transform(y[400:])
    nrmse = np.sqrt((error**2).mean(0)) / sy.transform(y[400:]).std(0)
    ours = fn.dci(x, y, predictor="lasso")
    np.testing.assert_allclose(ours["importance"], r, atol=1e-5)
    np.testing.assert_allclose(np.abs(ours["weights"]), ours["importance"])
    expected = _paper_scores(r)
    assert ours["disentanglement"] == pytest.approx(expected[0], abs=1e-5)
    assert ours["completeness"] == pytest.approx(expected[1], abs=1e-5)
    np.testing.assert_allclose(ours["nrmse_per_factor"], nrmse, atol=1e-5)
    assert ours["nrmse_test"] == pytest.approx(nrmse.mean(), abs=1e-5)
    assert np.isnan(ours["disentanglement_per_code"][4])  # the dead code
    assert ours["code_weight"][4] == 0


def test_dci_scores_on_given_importances(rng: np.random.Generator) -> None:
    # Rows of unequal weight: an unweighted mean differs
    r = rng.random((6, 4)) ** 3 * rng.uniform(0.1, 5, (6, 1))
    for smooth in (False, True):
        scores, _ = importance.concentration(r, smooth=smooth)
        expected = _paper_scores(r)
        assert scores["disentanglement"] == pytest.approx(expected[0], abs=1e-7)
        if not smooth:
            assert scores["completeness"] == pytest.approx(expected[1], abs=1e-7)
    assert abs(np.mean(scores["disentanglement_per_code"]) - expected[0]) > 1e-6
    r[2] = 0
    r[:, 1] = 0
    paper, _ = importance.concentration(r, smooth=False)
    assert paper["completeness_per_factor"][1] == 0
    assert np.isnan(paper["disentanglement_per_code"][2])
    assert np.isfinite(paper["disentanglement"])
    boosted, _ = importance.concentration(r, smooth=True)
    assert boosted["disentanglement_per_code"][2] == pytest.approx(0, abs=1e-9)


def test_dci_forest_matches_scikit_learn(rng: np.random.Generator) -> None:
    y = rng.normal(size=(540, 2))
    x = np.tanh(y @ rng.normal(size=(2, 3))) + 0.1 * rng.normal(size=(540, 3))
    ours = fn.dci(x[:360], y[:360], x[360:], y[360:], predictor="rf", depths=(4,), seed=3)
    sx, sy = StandardScaler().fit(x[:360]), StandardScaler().fit(y[:360])
    for k in range(2):
        model = RandomForestRegressor(10, max_depth=4, random_state=3)
        model.fit(sx.transform(x[:320]), sy.transform(y[:360])[:320, k])
        np.testing.assert_allclose(ours["importance"][:, k], model.feature_importances_, atol=0.02)
    deeper = fn.dci(x, y, predictor="rf", seed=3)
    assert deeper["nrmse_test"] < 1


@pytest.mark.parametrize("predictor", ["lasso", "rf"])
def test_dci_scores_further_rows_by_the_same_predictors(rng: np.random.Generator, predictor: str) -> None:
    y = rng.normal(size=(500, 3)) * [1, 5, 0.2] + [0, 3, -1]
    x = np.tanh(y @ rng.normal(size=(3, 4))) + 0.1 * rng.normal(size=(500, 4))
    parts = x[:300], y[:300], x[300:400], y[300:400]
    other = x[400:], 0.5 * y[400:]  # other deviations than those of the training rows
    ours = fn.dci(*parts, predictor=predictor, seed=1, further={"gap": other, "test2": parts[2:]})
    alone = fn.dci(*parts[:2], *other, predictor=predictor, seed=1)
    assert ours["nrmse_gap"] == pytest.approx(alone["nrmse_test"], abs=1e-9)
    np.testing.assert_allclose(ours["nrmse_gap_per_factor"], alone["nrmse_per_factor"], atol=1e-9)
    np.testing.assert_allclose(ours["nrmse_test2_per_factor"], ours["nrmse_per_factor"], atol=1e-9)
    scale = other[1].std(0) / y[:300].std(0)
    np.testing.assert_allclose(ours["rmse_gap_per_factor"], ours["nrmse_gap_per_factor"] * scale, rtol=1e-7)
    with pytest.raises(ValueError, match="lasso, rf and mlp alone"):
        fn.dci(np.round(x * 3), np.round(np.tanh(y) * 2), predictor="gbt", further={"gap": other})


def test_dci_forest_counts_splits(rng: np.random.Generator) -> None:
    y = rng.normal(size=(400, 2))
    x = np.concatenate([y + 0.1 * rng.normal(size=(400, 2)), rng.normal(size=(400, 1))], 1)
    ours = fn.dci(x[:300], y[:300], x[300:], y[300:], predictor="rf", depths=(12,), seed=2, importances="splits")
    cut = 300 - 300 // 9
    for k in range(2):
        model = RandomForestRegressor(10, max_depth=12, random_state=2)
        model.fit(
            StandardScaler().fit(x[:300]).transform(x[:cut]), StandardScaler().fit(y[:300]).transform(y[:cut])[:, k]
        )
        counted = np.zeros(3)
        for tree in model.estimators_:
            for node in range(tree.tree_.node_count):
                if tree.tree_.children_left[node] != -1:
                    counted[tree.tree_.feature[node]] += 1
        np.testing.assert_allclose(ours["importance"][:, k], counted / counted.sum(), atol=0.02)
    impurity = fn.dci(x[:300], y[:300], x[300:], y[300:], predictor="rf", depths=(12,), seed=2)
    assert np.abs(impurity["importance"] - ours["importance"]).max() > 0.05


def test_dci_gbt_sees_rotation_where_total_correlation_does_not(rng: np.random.Generator) -> None:
    factors = np.stack(np.meshgrid(*[range(5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    factors = np.concatenate([rng.permutation(factors) for _ in range(15)])  # the grid, equally often
    centred = factors - 2.0
    perfect = fn.dci(centred, factors)
    assert perfect["disentanglement"] > 0.99
    assert perfect["completeness"] > 0.99
    assert perfect["informativeness_test"] == 1.0
    rotated = centred @ (np.array([[2, 2, -1], [-1, 2, 2], [2, -1, 2]]) / 3)
    result = fn.dci(rotated, factors)
    assert result["disentanglement"] < 0.2
    assert result["informativeness_test"] > 0.95
    assert fn.unsupervised(rotated)["gaussian_total_correlation"] == pytest.approx(0, abs=1e-9)


def _hard(kind: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes that are hard to boost: noisy, more codes than factors, of noise alone."""
    f = np.stack([rng.integers(0, s, n) for s in (2, 4)], 1)
    if kind == "noisy":
        return f + 0.6 * rng.normal(size=f.shape), f
    if kind == "overcomplete":
        return f @ rng.normal(size=(2, 6)) + 0.6 * rng.normal(size=(n, 6)), f
    return rng.normal(size=(n, 3)), f


@pytest.mark.parametrize("kind", ["noisy", "overcomplete", "noise"])
def test_dci_gbt_agrees_with_scikit_learn(kind: str, rng: np.random.Generator) -> None:
    c, f = _hard(kind, rng, 900)
    fast, exact = fn.dci(c, f), fn.dci(c, f, exact=True)
    # Both try the same splits; where two are equally good for training, which is common among 600 rows of two classes,
    # they may go different ways. Over 49 seeds of three kinds the accuracies, of 300 test rows and 2 factors, differed
    # by 1.8 of 600 (root of the mean square, of noise), D and C by 0.003: six and five times that.
    for key in ("disentanglement", "completeness"):
        assert fast[key] == pytest.approx(exact[key], abs=0.015)
    assert fast["informativeness_test"] == pytest.approx(exact["informativeness_test"], abs=12 / 600)
    np.testing.assert_allclose(exact["importance"].sum(0), 1)


def test_dci_gbt_regresses_what_is_a_number(rng: np.random.Generator) -> None:
    codes = rng.normal(size=(90, 2))
    factors = np.stack([rng.integers(0, 2, 90), codes[:, 1] + rng.normal(size=90)], 1)
    found = fn.dci(codes[:60], factors[:60], codes[60:], factors[60:], regress=(1,))
    theirs = GradientBoostingRegressor(random_state=0).fit(codes[:60], factors[:60, 1])
    np.testing.assert_allclose(found["importance"][:, 1], theirs.feature_importances_, rtol=1e-9)
    classes = fn.dci(codes[:60], factors[:60, :1], codes[60:], factors[60:, :1])
    for rows, split in ((slice(60), "train"), (slice(60, None), "test")):
        both = (classes[f"informativeness_{split}"] + theirs.score(codes[rows], factors[rows, 1])) / 2
        assert found[f"informativeness_{split}"] == pytest.approx(both, rel=1e-9)


def test_a_grid_of_bins_would_not_agree() -> None:
    """What the tolerance is worth: the same codes in 10 bins of equal count are further off. Fixed seeds, of which one
    may agree by chance."""
    off = []
    for seed in range(3):
        c, f = _hard("noisy", np.random.default_rng(seed), 900)
        ranks = c.argsort(0).argsort(0)
        coarse = fn.dci(np.sort(c, 0)[ranks // 90 * 90, [0, 1]], f)
        off.append(abs(coarse["disentanglement"] - fn.dci(c, f)["disentanglement"]))
    assert max(off) > 0.01, off


@pytest.mark.parametrize("whole", [False, True], ids=["real codes", "whole numbers"])
def test_dci_gbt_invariances(rng: np.random.Generator, whole: bool) -> None:
    """Exact, as powers of two are: among 400 rows many splits are equally good, and which is taken may not hang on the
    order, the direction, or the number of dead codes."""
    c, f, ct, ft = _split(rng, n=600, sizes=(3, 2))
    if whole:  # ties between the values of a code, too
        c, ct = np.round(c), np.round(ct)
    base = fn.dci(c, f, ct, ft)
    order = rng.permutation(4)
    scale = rng.choice([-1.0, 1.0], 4) * 2.0 ** rng.integers(-3, 4, 4)
    moved = fn.dci((c * scale)[:, order], f, (ct * scale)[:, order], ft)
    np.testing.assert_allclose(moved["importance"], base["importance"][order], atol=1e-12)
    assert moved["informativeness_test"] == base["informativeness_test"]
    dead = [np.concatenate([np.full((len(x), 1), 2.0), x], 1) for x in (c, ct)]
    with_dead = fn.dci(dead[0], f, dead[1], ft)
    np.testing.assert_allclose(with_dead["importance"][1:], base["importance"], atol=1e-12)
    assert with_dead["disentanglement"] == pytest.approx(base["disentanglement"], abs=1e-9)
    assert (with_dead["importance"][0] == 0).all()
    assert with_dead["completeness"] > base["completeness"]  # the base of the logarithm counts the dead code


def test_dci_gbt_of_dead_codes_alone() -> None:
    found = fn.dci(np.ones((90, 2)), np.arange(90)[:, None] % [2, 3])
    assert (found["importance"] == 0).all()


def test_codes_that_order_rows_alike_share_their_importance(rng: np.random.Generator) -> None:
    c, f, ct, ft = _split(rng, n=300, sizes=(3, 2))
    thrice = [np.concatenate([x, x[:, 1:2] ** 3, -x[:, 1:2]], 1) for x in (c, ct)]
    found = fn.dci(thrice[0], f, thrice[1], ft)["importance"]
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-12)
    assert found[1].sum() > 0.01  # it is read, if only little: it carries half of one of two factors
    np.testing.assert_allclose(found[[4, 5]], found[[1, 1]], atol=1e-12)


def test_dci_completeness_of_duplicated_codes(rng: np.random.Generator) -> None:
    factors = np.stack([rng.integers(0, 4, 1200) for _ in range(3)], 1)
    codes = np.repeat(factors, 3, 1) * rng.uniform(0.5, 2, 9) * rng.choice([-1, 1], 9)
    result = fn.dci(codes, factors)
    assert result["disentanglement"] > 0.99
    assert result["completeness"] < 0.6


@pytest.mark.slow
def test_dci_gbt_agrees_with_scikit_learn_at_full_size(rng: np.random.Generator) -> None:
    """More rows than quantile bins, 100 stages, mixed and duplicated codes: the tolerances of metrics.md
    section 18.
    """
    n = 6000
    factors = np.stack([rng.integers(0, s, n) for s in (3, 6, 4)], 1)
    codes = factors @ (rng.normal(size=(3, 6)) * (rng.random((3, 6)) < 0.6)) + 0.4 * rng.normal(size=(n, 6))
    fast = fn.dci(codes, factors)
    exact = fn.dci(codes, factors, exact=True)
    assert fast["disentanglement"] == pytest.approx(exact["disentanglement"], abs=0.02)
    assert fast["completeness"] == pytest.approx(exact["completeness"], abs=0.03)
    for key in ("informativeness_train", "informativeness_test"):
        assert fast[key] == pytest.approx(exact[key], abs=0.02)


def test_strengths_are_the_ten_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """LogisticRegressionCV, which disentanglement_lib takes, tries ten from 1e-4 to 1e4."""
    tried: set[float] = set()

    def recorded(*arrays: torch.Tensor, c: float = 1.0, **settings: object) -> solvers.LinearClassifier:
        tried.add(c)
        return solvers.logistic_regression(*arrays, c=c, **settings)

    monkeypatch.setattr(predictors, "logistic_regression", recorded)
    fn.downstream(rng.normal(size=(90, 2)), rng.integers(0, 2, (90, 1)), sizes=(50,))
    expected = LogisticRegressionCV(cv=2).fit(rng.normal(size=(20, 1)), np.arange(20) % 2).Cs_
    np.testing.assert_allclose(sorted(tried), expected)
