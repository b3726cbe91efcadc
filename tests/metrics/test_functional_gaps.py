"""JEMMIG, DCIMIG, MIG-sup, DMIG/XMIG/DLIG, TAD, SEPIN, Z-max, ARI: loops, scikit-learn, quadrature, known codes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy, norm
from sklearn.metrics import adjusted_rand_score, mutual_info_score, roc_auc_score

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional.sampling import GridSampler, TableSampler
from distk.plugins.metrics.functional.varying import varied


def _arrays(rng: np.random.Generator, n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    factors = np.stack([rng.integers(0, s, n) for s in (3, 6, 2)], 1)
    factors[:, 2] ^= factors[:, 0] == 1  # the third depends on the first
    codes = factors @ rng.normal(size=(3, 5)) + rng.normal(size=(n, 5))
    codes[:, 0] = factors[:, 1] + 0.1 * codes[:, 0]
    return codes, factors


def _binned(codes: np.ndarray) -> np.ndarray:
    edges = [np.histogram(c, 20)[1][:-1] for c in codes.T]
    return np.stack([np.digitize(c, e) - 1 for c, e in zip(codes.T, edges, strict=True)], 1)


def _h(*columns: np.ndarray) -> float:
    return float(entropy(np.unique(np.stack(columns, 1), axis=0, return_counts=True)[1]))


def test_gaps_against_loops(rng: np.random.Generator) -> None:
    codes, factors = _arrays(rng)
    z, n_codes, n_factors = _binned(codes), 5, 3
    info = np.array([[mutual_info_score(z[:, d], factors[:, k]) for k in range(n_factors)] for d in range(n_codes)])
    h = [_h(factors[:, k]) for k in range(n_factors)]

    nats, normalised = [], []
    for k in range(n_factors):
        i, j = np.argsort(-info[:, k])[:2]
        nats.append(_h(z[:, i], factors[:, k]) - info[i, k] + info[j, k])
        normalised.append(1 - nats[-1] / (h[k] + math.log(20)))
    found = fn.jemmig(codes, factors)
    assert found["jemmig_nats"] == pytest.approx(np.mean(nats), abs=1e-9)
    assert found["jemmig"] == pytest.approx(np.mean(normalised), abs=1e-9)

    kept = [0.0] * n_factors
    for d in range(n_codes):
        first, second = np.argsort(-info[d])[:2]
        kept[first] = max(kept[first], info[d, first] - info[d, second])
    assert fn.dcimig(codes, factors)["dcimig"] == pytest.approx(sum(kept) / sum(h), abs=1e-9)

    relative = np.sort(info / h, 1)
    assert fn.mig_sup(codes, factors)["mig_sup"] == pytest.approx((relative[:, -1] - relative[:, -2]).mean(), abs=1e-9)

    rows, columns = linear_sum_assignment(-info / h)
    code = dict(zip(columns, rows, strict=True))
    dmig, xmig, dlig = [], [], []
    for k in range(n_factors):
        d = code[k]
        e = max((e for e in range(n_codes) if e != d), key=lambda e: info[e, k])
        owner = [j for j in range(n_factors) if code[j] == e]
        left = _h(factors[:, k], factors[:, owner[0]]) - h[owner[0]] if owner else h[k]
        dmig.append((info[d, k] - info[e, k]) / left)
        xmig.append((info[d, k] - max(info[e, k] for e in range(n_codes) if e not in rows)) / h[k])
        j = max((j for j in range(n_factors) if j != k), key=lambda j: info[d, j])
        dlig.append((info[d, k] - info[d, j]) / (_h(factors[:, k], factors[:, j]) - h[j]))
    found = fn.dependent_gaps(codes, factors)
    np.testing.assert_allclose(found["dmig_per_factor"], dmig, atol=1e-9)
    np.testing.assert_allclose(found["xmig_per_factor"], xmig, atol=1e-9)
    np.testing.assert_allclose(found["dlig_per_factor"], dlig, atol=1e-9)
    between = mutual_info_score(factors[:, 0], factors[:, 2])
    assert found["dependence"] == pytest.approx(
        max(mutual_info_score(*factors[:, [a, b]].T) / min(h[a], h[b]) for a, b in ((0, 1), (0, 2), (1, 2))), abs=1e-9
    )
    assert found["factor_information"][0, 2] == pytest.approx(between, abs=1e-9)
    np.testing.assert_allclose(np.diag(found["factor_information"]), h, atol=1e-9)


def test_perfect_and_dependent_codes(rng: np.random.Generator) -> None:
    """A perfect code of dependent factors: MIG falls short, DMIG does not."""
    a = rng.integers(0, 8, 4000)
    b = np.where(rng.random(4000) < 0.8, a, rng.integers(0, 8, 4000))
    factors = np.stack([a, b], 1)
    codes = factors.astype(float)
    found = fn.dependent_gaps(codes, factors)
    assert found["dmig"] == pytest.approx(1, abs=1e-9)
    assert found["dlig"] == pytest.approx(1, abs=1e-9)
    assert math.isnan(found["xmig"])
    assert fn.mig(codes, factors)["mig"] < 0.6
    assert found["dependence"] > 0.4
    assert fn.jemmig(codes[:, :1], factors[:, :1])["jemmig_nats"] == pytest.approx(0, abs=1e-9)
    finer = fn.jemmig(codes + 0.4 * rng.random(codes.shape), factors)["jemmig_nats"]
    assert finer > fn.jemmig(codes, factors)["jemmig_nats"] + 0.2, "a code that knows more than its factor costs"
    same = fn.dependent_gaps(codes, factors[:, [0, 0]])
    assert math.isnan(same["dmig"]), "a factor that another determines has no gap"


def test_rand_index_against_scikit_learn(rng: np.random.Generator) -> None:
    code, label = rng.integers(0, 5, 300), rng.integers(0, 3, 300)
    code[:150] = label[:150]
    assert fn.rand_index(code, label)["ari"] == pytest.approx(adjusted_rand_score(label, code), abs=1e-12)
    assert fn.rand_index(np.arange(30), np.arange(30))["ari"] == 1.0
    assert fn.rand_index(np.zeros(30), np.arange(30) // 10)["ari"] == pytest.approx(0, abs=1e-12)


def test_slots_against_scikit_learn(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 4, (6, 8, 8))
    masks = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 5, truth.shape))
    truth[5] = 0  # no foreground at all
    found = fn.slots(masks, truth)
    whole = [adjusted_rand_score(t.ravel(), m.ravel()) for t, m in zip(truth, masks, strict=True)]
    front = [adjusted_rand_score(t[t > 0], m[t > 0]) for t, m in zip(truth[:5], masks[:5], strict=True)]
    np.testing.assert_allclose(found["ari_per_image"], whole, atol=1e-12)
    assert found["fg_ari"] == pytest.approx(np.mean(front), abs=1e-12)
    assert np.isnan(found["fg_ari_per_image"][5])
    weights = rng.random((6, 5, 8, 8)) * 0.5 + (masks[:, None] == np.arange(5)[None, :, None, None])
    assert fn.slots(weights, truth)["fg_ari"] == pytest.approx(found["fg_ari"], abs=1e-12)
    assert fn.slots(masks, truth, background=None)["fg_ari"] == pytest.approx(np.mean(whole), abs=1e-12)
    with pytest.raises(ValueError, match="shape"):
        fn.slots(masks[:, :4], truth)


def test_tad_against_scikit_learn(rng: np.random.Generator) -> None:
    attributes = rng.integers(0, 2, (800, 4))
    codes = rng.normal(size=(800, 5))
    codes[:, 0] += 3 * attributes[:, 0]
    codes[:, 1] -= 2 * attributes[:, 1]
    codes[:, 2] -= 1.5 * attributes[:, 1]
    codes[:, 3] += 0.5 * attributes[:, 2]
    area = np.array([[roc_auc_score(a, c) for a in attributes.T] for c in codes.T])
    area = np.maximum(area, 1 - area)
    top = np.sort(area, 0)[::-1]
    found = fn.tad(codes, attributes)
    expected = (top[0] - top[1])[top[0] > 0.75]
    assert found["tad"] == pytest.approx(expected.sum(), abs=1e-9)
    assert found["captured"] == (top[0] > 0.75).sum() == 2
    np.testing.assert_allclose(found["auc"], area, atol=1e-9)
    copied = np.hstack([attributes, 1 - attributes[:, :1], rng.integers(0, 3, (800, 1))])
    left = fn.tad(codes, copied)
    assert left["tad"] == pytest.approx(found["tad"], abs=1e-12), "a copy is not counted twice"
    assert left["considered"] == 4
    assert len(left["reasons"]) == 2


def test_separability_by_quadrature(rng: np.random.Generator, seed: int) -> None:
    """Three posteriors in two dimensions: every term is an integral over the plane."""
    mean, std = rng.normal(size=(3, 2)) * 1.5, rng.uniform(0.4, 0.9, (3, 2))
    grid = np.linspace(-9, 9, 1201)
    step = grid[1] - grid[0]
    one = [np.stack([norm.pdf(grid, m, s) for m, s in zip(mean[:, d], std[:, d], strict=True)]) for d in (0, 1)]
    joint = np.einsum("na,nb->nab", one[0], one[1])

    def nats(p: np.ndarray, cell: float) -> float:
        return -float((p * np.log(np.maximum(p, 1e-300))).sum() * cell)

    whole = nats(joint.mean(0), step**2) - np.mean([nats(p, step**2) for p in joint])
    alone = [nats(one[d].mean(0), step) - np.mean([nats(p, step) for p in one[d]]) for d in (0, 1)]
    separable = np.array([whole - alone[1], whole - alone[0]])  # I(x; z_i | z_j) = I(x; z) - I(x; z_j)
    found = fn.sepin(mean, std, samples=40_000, seed=seed)
    # Each term is at most about log 3 wide: five deviations of a mean of 40,000 draws.
    within = 5 * 1.5 / 200
    np.testing.assert_allclose(found["separability"], separable, atol=within)
    np.testing.assert_allclose(found["informativeness"], alone, atol=within)
    expected = float((separable * np.array(alone) / sum(alone)).sum())
    assert found["wsepin"] == pytest.approx(expected, abs=within)
    assert found["sepin"] == pytest.approx(separable.mean(), abs=within)


def test_a_copied_latent_is_not_separable(rng: np.random.Generator, seed: int) -> None:
    mean, other = (rng.permutation(200)[:, None] / 10.0 for _ in range(2))  # neighbours are 100 deviations apart
    small = np.full((200, 3), 1e-3)
    copy = np.hstack([mean, mean, other])
    found = fn.sepin(copy, small, samples=500, seed=seed)["separability"]
    assert np.abs(found).max() < 1e-6, "each of the three tells the row alone"
    single = fn.sepin(mean, small[:, :1], samples=500, seed=seed)
    assert single["separability"][0] == pytest.approx(single["informativeness"][0], abs=1e-9)
    assert single["informativeness"][0] <= math.log(200) + 1e-9
    with pytest.raises(ValueError, match="above 0"):
        fn.sepin(copy, small * 0)


def test_rows_that_vary_in_one_factor(generator: torch.Generator) -> None:
    sizes = (3, 4, 2)
    grid = torch.tensor(list(itertools.product(*map(range, sizes))))
    some = grid[torch.randperm(24, generator=generator)[:15]].repeat(20, 1)
    factor = torch.arange(3).repeat(200)
    for table, sampler in ((grid, GridSampler(sizes)), (some, TableSampler(some))):
        rows = varied(sampler, factor, 16, generator)
        drawn = table[rows]
        for k in range(3):
            mine = drawn[factor == k]
            others = [j for j in range(3) if j != k]
            assert bool((mine[:, :, others] == mine[:, :1, others]).all())
            assert bool((mine[:, :, k] != mine[:, :1, k]).any(1).float().mean() > 0.9)
    uniform = varied(GridSampler(sizes), torch.ones(4000, dtype=torch.int64), 4, generator)
    counts = torch.bincount(grid[uniform][:, :, 1].flatten(), minlength=4).double()
    # Rows of one vote are independent given the vote; 16,000 draws of a quarter each.
    assert float((counts - 4000).abs().max()) < 5 * (16_000 * 0.25 * 0.75) ** 0.5


def test_z_max_of_known_codes(rng: np.random.Generator, seed: int) -> None:
    sizes = (4, 5, 3)
    grid = np.array(list(itertools.product(*map(range, sizes))), dtype=float)
    perfect = fn.z_max(grid[:, [2, 0, 1]], sizes, seed, train_votes=600, eval_votes=600)
    assert perfect["eval"] == perfect["train"] == 1.0
    assert (perfect["votes"] > 0).sum() == 3
    twice = np.tile(grid, (2, 1))
    table = fn.z_max(twice, factors=twice, seed=seed, train_votes=600, eval_votes=600)
    assert table["eval"] == 1.0
    with pytest.raises(ValueError, match="60 rows differ from another one in factor 0 alone"):
        fn.z_max(grid, factors=grid, seed=seed)
    sum_of_two = np.stack([grid[:, 0] + grid[:, 1], grid[:, 2]], 1)
    shared = fn.z_max(sum_of_two, sizes, seed, train_votes=3000, eval_votes=3000)
    # One code for two factors: right for one of the two. 2/3, five deviations of 3000 votes.
    assert shared["eval"] == pytest.approx(2 / 3, abs=5 * (2 / 9 / 3000) ** 0.5 + 0.02)
    dead = fn.z_max(np.zeros((60, 2)) + 1e-4 * rng.normal(size=(60, 2)), sizes, seed, train_votes=30, eval_votes=30)
    assert dead["eval"] == 0.0
    assert "eval" in dead["reasons"]
