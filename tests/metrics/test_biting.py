"""Every formula once more, by a plain loop or in closed form, so that a wrong one is noticed: see mutants.py."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional import importance, neighbours, voting
from distk.plugins.metrics.functional.boosting import gradient_boosting


def grid(*sizes: int) -> np.ndarray:
    return np.stack(np.meshgrid(*map(range, sizes), indexing="ij"), -1).reshape(-1, len(sizes))


def information(a: np.ndarray, b: np.ndarray) -> float:
    """Of two columns of classes, nats, by a loop."""
    total = 0.0
    for u, v in itertools.product(np.unique(a), np.unique(b)):
        joint, one, other = np.mean((a == u) & (b == v)), np.mean(a == u), np.mean(b == v)
        total += joint * np.log(joint / (one * other)) if joint else 0.0
    return total


def entropy(a: np.ndarray) -> float:
    return information(a, a)


# Votes and pairs


def test_pruning() -> None:
    f = grid(5, 4)
    turn = (-1.0) ** np.arange(20)
    codes = np.stack([f[:, 0], f[:, 1], 0.1 * turn, 0.04 * turn], 1)
    assert fn.factor_vae(codes, (5, 4))["used"].tolist() == [1, 1, 1, 0]
    by_kl = fn.factor_vae(codes, (5, 4), prune="kl", threshold=0.1, kl=[1.0, 0.5, 0.05, 0.02])
    assert by_kl["used"].tolist() == [1, 1, 0, 0]


def test_noise_does_not_win() -> None:
    votes = fn.factor_vae(grid(5, 4).astype(float), (5, 4))["votes"]
    assert votes[0, 0] > 0
    assert votes[1, 1] > 0
    assert votes[0, 1] == votes[1, 0] == 0


def test_the_spread_of_a_code_does_not_count(rng: np.random.Generator) -> None:
    f = np.tile(grid(5, 4), (20, 1))
    codes = np.stack([100 * (f[:, 0] + 0.05 * rng.normal(size=400)), 0.1 * f[:, 1]], 1)
    assert fn.factor_vae(codes, factors=f, prune="none")["eval"] > 0.99


def test_fresh_votes_are_scored() -> None:
    rng = np.random.default_rng(0)  # a seed for which 20 votes are luckier than chance
    f, codes = rng.integers(0, 2, (4000, 2)), rng.normal(size=(4000, 6))
    result = fn.factor_vae(codes, factors=f, train_votes=20, eval_votes=2000)
    assert result["train"] > 0.6
    assert abs(result["eval"] - 0.5) < 5 * 0.5 / np.sqrt(2000) + 0.02


def test_absolute_differences_are_averaged(rng: np.random.Generator) -> None:
    f = np.tile(grid(5, 4), (20, 1))
    codes = f + 0.5 * rng.normal(size=f.shape)
    assert fn.beta_vae(codes, factors=f, train_points=1000, eval_points=500)["eval"] > 0.95


def test_fresh_points_are_scored(rng: np.random.Generator) -> None:
    f, codes = rng.integers(0, 2, (2000, 2)), rng.normal(size=(2000, 40))
    result = fn.beta_vae(codes, factors=f, pairs=1, train_points=20, eval_points=1000)
    assert result["train"] > 0.85
    assert result["eval"] < 0.7


def test_gini() -> None:
    items = [0, 0, 1, 2]
    pairs = [a != b for i, a in enumerate(items) for j, b in enumerate(items) if i != j]
    assert float(voting._gini(torch.tensor([2.0, 1.0, 1.0]))) == pytest.approx(np.mean(pairs) / 2)


def test_one_factor_is_undefined(rng: np.random.Generator) -> None:
    assert np.isnan(fn.factor_vae(rng.normal(size=(40, 2)), (40,))["eval"])


def test_every_draw_has_noise_of_its_own() -> None:
    codes = voting._Codes(torch.zeros(5, 2), torch.ones(5, 2), 0)
    assert not torch.equal(codes(torch.arange(5)), codes(torch.arange(5)))


# Information


def test_mig_of_a_loop(rng: np.random.Generator) -> None:
    f = rng.integers(0, 3, (500, 3))
    codes = np.stack([f[:, 0], np.where(rng.random(500) < 0.5, f[:, 0], f[:, 1]), f[:, 2], np.zeros(500)], 1)
    table = np.array([[information(c, k) for k in f.T] for c in codes.T])
    entropies = np.array([entropy(k) for k in f.T])
    ordered = np.sort(table, 0)
    result = fn.mig(codes, f)
    assert result["mig"] == pytest.approx(((ordered[-1] - ordered[-2]) / entropies).mean(), abs=1e-12)
    relative = np.sort(table[:3] / entropies, 1)
    assert result["mig_sup"] == pytest.approx((relative[:, -1] - relative[:, -2]).mean(), abs=1e-12)


def test_mig_sup_leaves_dead_codes_out(rng: np.random.Generator) -> None:
    f = rng.integers(0, 3, (500, 2))
    with_dead = fn.mig(np.concatenate([f, np.zeros((500, 2))], 1), f)
    assert with_dead["mig_sup"] == pytest.approx(fn.mig(f, f)["mig_sup"], abs=1e-12)


def test_modularity_of_a_loop_and_dead_codes_count(rng: np.random.Generator) -> None:
    f = rng.integers(0, 3, (500, 3))
    codes = np.stack([f[:, 0], np.where(rng.random(500) < 0.5, f[:, 0], f[:, 1]), np.zeros(500)], 1)
    scores = []
    for c in codes.T[:2]:
        square = np.array([information(c, k) for k in f.T]) ** 2
        scores.append(1 - (square.sum() - square.max()) / (square.max() * 2))
    result = fn.modularity(codes, f)
    assert result["modularity"] == pytest.approx(sum(scores) / 3, abs=1e-12)
    assert result["modularity_informative"] == pytest.approx(sum(scores) / 2, abs=1e-12)


# DCI


def test_dci_is_weighted_and_has_the_base_of_its_lines() -> None:
    r = np.array([[4.0, 1.0], [0.5, 0.5], [0.1, 2.9]])
    scores, _ = importance.concentration(r, smooth=True)

    def concentration(line: np.ndarray) -> float:
        p = line / line.sum()
        return float(1 + (p * np.log(p)).sum() / np.log(len(p)))

    rows, columns = r.sum(1) / r.sum(), r.sum(0) / r.sum()
    assert scores["disentanglement"] == pytest.approx(rows @ [concentration(x) for x in r], abs=1e-8)
    assert scores["completeness"] == pytest.approx(columns @ [concentration(x) for x in r.T], abs=1e-8)


def test_a_depth_is_chosen_on_validation_rows(rng: np.random.Generator) -> None:
    x = rng.normal(size=(900, 2))
    y = np.sign(x[:, :1] * x[:, 1:])  # nothing for a tree of depth 1
    x_test = rng.normal(size=(200, 2))
    y_test = -np.sign(x_test[:, :1] * x_test[:, 1:])  # here a tree that knows nothing would do better
    both = fn.dci(x, y, x_test, y_test, "rf", depths=(1, 8))
    deep = fn.dci(x, y, x_test, y_test, "rf", depths=(8,))
    assert both["nrmse_test"] == deep["nrmse_test"] > 1.2


def test_nrmse_has_no_scale(rng: np.random.Generator) -> None:
    target = 3 * rng.normal(size=(50, 1))
    found = importance._nrmse(torch.ones(1, dtype=torch.float64), torch.from_numpy(target.var(0)))
    assert found[0] == pytest.approx(1 / target.std(), abs=1e-12)
    assert bool(importance._nrmse(torch.ones(1), torch.zeros(1)).isnan())


@pytest.mark.parametrize("classes", [2, 3])
def test_boosting_is_scikit_learns(classes: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(300, 3))
    y = np.digitize(x[:, 0] + 0.3 * rng.normal(size=300), [-0.4, 0.4])[:, None].clip(0, classes - 1)[:, 0]
    ours = gradient_boosting(torch.from_numpy(x), torch.from_numpy(y), classes, torch.from_numpy(x), stages=10)
    theirs = GradientBoostingClassifier(n_estimators=10).fit(x, y)
    assert ours.importance.numpy() == pytest.approx(theirs.feature_importances_, abs=0.01)
    decided = theirs.decision_function(x)
    scores = (ours.scores[:, 1] if classes == 2 else ours.scores).numpy()
    # Residuals of the first trees take few values, so that two splits may be equally good and rounding decides: then a
    # few rows get another score, and the fit is as good.
    assert np.median(np.abs(scores - decided)) < 0.02
    full = [np.stack([0 * s, s], 1) if classes == 2 else s for s in (scores, decided)]
    losses = [log_loss(y, np.exp(s - np.logaddexp.reduce(s, 1)[:, None])) for s in full]
    assert losses[0] == pytest.approx(losses[1], abs=0.01)


def test_a_threshold_lies_midway() -> None:
    x = torch.tensor([[0.0], [1.0]]).double().repeat(50, 1)
    between = gradient_boosting(x, x[:, 0].long(), 2, torch.tensor([[0.4], [0.6]]).double())
    assert between.scores_test.argmax(1).tolist() == [0, 1]


# Predictors


def test_sap_takes_the_two_best_squares(rng: np.random.Generator) -> None:
    f = rng.normal(size=(400, 2))
    codes = np.concatenate([f + 0.5 * rng.normal(size=f.shape), f[:, :1] + 2 * rng.normal(size=(400, 1))], 1)
    square = np.corrcoef(codes.T, f.T)[:3, 3:] ** 2
    ordered = np.sort(square, 0)
    assert fn.sap(codes, f, continuous=True)["sap"] == pytest.approx((ordered[-1] - ordered[-2]).mean(), abs=1e-9)


def test_a_strength_is_chosen_that_fits_and_the_worst_factor_told(rng: np.random.Generator) -> None:
    f = (rng.random((600, 2)) < 0.3).astype(int)
    codes = np.stack([f[:, 0] + 0.1 * rng.normal(size=600), rng.normal(size=600)], 1)
    result = fn.downstream(codes, f, sizes=(100,))
    assert result["accuracy"][0, 0] > 0.95
    assert result["min_100"] < 0.85 < result["mean_100"] + 0.1


# Neighbours


def test_recall_counts_others(rng: np.random.Generator) -> None:
    x, label = rng.normal(size=(40, 2)), rng.integers(0, 3, 40)
    result = fn.recall_at_k(x, label, (1, 3))
    for k in (1, 3):
        hits = []
        for i in range(40):
            near = np.argsort(np.linalg.norm(x - x[i], axis=1) + 1e9 * (np.arange(40) == i))[:k]
            hits.append(bool((label[near] == label[i]).any()))
        assert result[f"recall@{k}"] == pytest.approx(np.mean(hits))


def test_classes_count_alike(rng: np.random.Generator) -> None:
    y = (rng.random(600) < 0.1).astype(int)
    x = (y + rng.normal(size=600))[:, None]
    model = LogisticRegression(C=1e8, class_weight="balanced").fit(x, y)
    nll = -model.predict_log_proba(x)[np.arange(600), y]
    expected = 1 - nll.mean() / np.log(2)  # balance is in the fit; the loss is that of the rows as they are
    assert neighbours._probe_gain(torch.from_numpy(x), torch.from_numpy(y), 2) == pytest.approx(expected, abs=1e-3)


def test_narrow_codes_are_pruned_below_a_twentieth(rng: np.random.Generator) -> None:
    f = rng.integers(0, 4, (300, 2))
    codes = np.stack([f[:, 0], 0.1 * f[:, 1], f[:, 1] / 30], 1)
    assert fn.info_mec(codes, f)["codes_used"] == 2


def test_uniform_is_zero_and_infom_goes_along_the_factors(rng: np.random.Generator) -> None:
    nmi = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert neighbours._concentration(nmi, 1) == pytest.approx(2 / 3)
    assert neighbours._concentration(torch.ones(3, 2), 1) == 0
    f = rng.integers(0, 4, (400, 2))
    codes = np.concatenate([f, f[:, :1]], 1) + 0.01 * rng.normal(size=(400, 3))
    result = fn.info_mec(codes, f)
    assert result["infom"] > 0.9 > result["infoc"]


# Structure


def test_irs_of_a_loop(rng: np.random.Generator) -> None:
    f = rng.integers(0, 3, (200, 2))
    codes = np.stack([f[:, 0] + 0.2 * rng.normal(size=200), 5 * rng.normal(size=200)], 1)
    largest = np.abs(codes - codes.mean(0)).max(0)
    best = []
    for c, most in zip(codes.T, largest, strict=True):
        spread = []
        for k in f.T:
            groups = [c[k == v] for v in np.unique(k)]
            spread.append(np.mean([np.quantile(np.abs(g - g.mean()), 0.9) for g in groups]))
        best.append(1 - min(spread) / most)
    assert fn.irs(codes, f, 0.9)["irs"] == pytest.approx((largest @ best) / largest.sum(), abs=1e-10)


def test_mapc_of_a_loop_and_the_largest_variances(rng: np.random.Generator) -> None:
    codes = rng.normal(size=(300, 3)) * [1, 2, 3] + rng.normal(size=(300, 1))
    r, variance = np.corrcoef(codes.T), codes.var(0)
    pairs = [abs(r[i, j]) for i in range(3) for j in range(3) if i != j]
    result = fn.linear_correlation(codes, 1)
    assert result["mapc"] == pytest.approx(np.mean(pairs), abs=1e-10)
    assert result["tdv"] == pytest.approx(variance.max() / variance.sum(), abs=1e-10)


def test_pairs_of_different_codes_alone(rng: np.random.Generator) -> None:
    codes = rng.integers(0, 3, (300, 2))
    expected = information(codes[:, 0], codes[:, 1])
    assert fn.unsupervised(codes)["mutual_info_score"] == pytest.approx(expected, abs=1e-12)


# Classes


def test_hungarian_of_all_permutations(rng: np.random.Generator) -> None:
    label = rng.integers(0, 3, 200)
    code = np.where(rng.random(200) < 0.6, (label + 1) % 3, rng.integers(0, 4, 200))
    maps = itertools.permutations(range(4), 3)
    best = max(np.mean([code[i] == m[label[i]] for i in range(200)]) for m in maps)
    result = fn.unsupervised_accuracy(code, label)
    assert result["hungarian"] == pytest.approx(best)
    shares = [np.bincount(label[code == v]).max() for v in np.unique(code)]
    assert result["majority"] == pytest.approx(sum(shares) / 200)


def test_either_direction_of_a_code(rng: np.random.Generator) -> None:
    label = rng.integers(0, 2, 100)
    assert fn.best_dimension_auc(-label[:, None].astype(float), label[:, None])["mean"] == 1.0
