"""FactorVAE, beta-VAE and Higgins scores, and the index samplers behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional import voting
from distk.plugins.metrics.functional.sampling import GridSampler, TableSampler

SIZES = (4, 1, 5, 6)


def _grid(sizes: tuple[int, ...] = SIZES) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(s) for s in sizes], indexing="ij"), -1).reshape(-1, len(sizes))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


@pytest.mark.parametrize("table", [False, True])
def test_samplers_keep_their_promises(rng: np.random.Generator, table: bool) -> None:
    grid = _grid()
    order = rng.permutation(len(grid)) if table else np.arange(len(grid))
    rows = torch.from_numpy(grid[order])
    sampler = TableSampler(rows) if table else GridSampler(SIZES)
    assert sampler.kept == [0, 2, 3]
    assert sampler.rows == len(grid)
    generator = torch.Generator().manual_seed(_seed(rng))
    factor = torch.tensor([0, 2, 3]).repeat(2000)
    own = factor[:, None, None]
    for uniform_value in (False, True):
        drawn = rows[sampler.fixed(factor, 8, generator, uniform_value)]
        fixed = drawn.gather(2, own.expand(-1, 8, 1))[..., 0]
        assert bool((fixed == fixed[:, :1]).all())
        assert torch.bincount(fixed[factor == 3][:, 0]).min() > 200  # 2000 votes over 6 values
        free = drawn[factor == 0][:, :, 3].float()  # another factor stays uniform inside a vote
        assert float(free.mean()) == pytest.approx(2.5, abs=0.1)
    first, second = (rows[r] for r in sampler.sharing(factor, 8, generator))
    assert bool((first.gather(2, own.expand(-1, 8, 1)) == second.gather(2, own.expand(-1, 8, 1))).all())
    assert float((first != second)[factor == 0][..., 2].double().mean()) == pytest.approx(0.8, abs=0.05)
    first, second = (rows[r] for r in sampler.changing(factor, generator))
    changed = first != second
    assert bool((changed.sum(1) == 1).all())
    assert bool(changed.gather(1, factor[:, None]).all())
    pairs = torch.stack([first, second], 1)[factor == 0][:, :, 0]
    counts = torch.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16).view(4, 4)
    assert int(counts.diagonal().sum()) == 0
    assert int(counts[~torch.eye(4, dtype=torch.bool)].min()) > 80  # 2000 / 12 = 167 expected


def test_perfect_codes_score_one(rng: np.random.Generator) -> None:
    codes = _grid() * [2.0, 1.0, -0.3, 5.0]
    for score in (fn.factor_vae, fn.beta_vae, fn.higgins_change):
        for where in ({"sizes": SIZES}, {"factors": _grid()}):
            result = score(codes, seed=_seed(rng), **where)
            assert result["train"] > 0.999
            assert result["eval"] > 0.999
            assert result["codes_used"] == 3
            assert "factor 1 is constant" in str(result["reasons"])


def test_missing_factor_and_noise(rng: np.random.Generator) -> None:
    """Two codes for three factors: FactorVAE 2/3, beta-VAE 1.0; the vote table shows who voted."""
    sizes = (6, 6, 6)
    codes = _grid(sizes)[:, :2].astype(np.float32)
    result = fn.factor_vae(codes, sizes, _seed(rng))
    assert result["eval"] == pytest.approx(2 / 3, abs=0.03)
    assert result["votes"].sum() == 10_000
    np.testing.assert_allclose(result["votes"][0, 0], 3333, atol=300)
    assert result["votes"][0, 1] == 0
    assert fn.beta_vae(codes, sizes, _seed(rng))["eval"] > 0.98
    noise = np.concatenate([codes, rng.normal(size=(216, 1))], 1)
    # Active noise takes the missing factor's votes
    assert fn.factor_vae(noise, sizes, _seed(rng))["eval"] > 0.75


def test_rotation_scores_one_in_the_change_score(rng: np.random.Generator) -> None:
    sizes = (6, 6, 6)
    rotated = _grid(sizes) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert fn.higgins_change(rotated, sizes, _seed(rng))["eval"] > 0.97


def test_change_score_normalises_each_pair(rng: np.random.Generator) -> None:
    """Codes of 1e-6: without division by the largest coordinate the regularised classifier sees nothing."""
    codes = _grid((5, 5)) * 1e-6
    assert fn.higgins_change(codes, (5, 5), _seed(rng))["eval"] > 0.99
    assert fn.beta_vae(codes, (5, 5), _seed(rng))["eval"] < 0.75  # raw features: the known scale dependence
    dead = fn.higgins_change(np.ones((25, 2)), (5, 5), _seed(rng))
    assert dead["eval"] == pytest.approx(0.5, abs=0.05)


def test_scale_and_order_do_not_matter(rng: np.random.Generator) -> None:
    codes = _grid() @ rng.normal(size=(4, 5)) + 0.5 * rng.normal(size=(len(_grid()), 5))
    seed = _seed(rng)
    base = fn.factor_vae(codes, SIZES, seed, prune="none")
    scale = rng.choice([-1.0, 1.0], 5) * 2.0 ** rng.integers(-3, 4, 5)
    order = rng.permutation(5)
    moved = fn.factor_vae((codes * scale)[:, order], SIZES, seed, prune="none")
    np.testing.assert_array_equal(moved["votes"], base["votes"][order])
    assert moved["eval"] == base["eval"]
    dead = fn.factor_vae(np.concatenate([np.full((len(codes), 1), 0.7), codes], 1), SIZES, seed, prune="none")
    assert dead["eval"] == base["eval"]
    assert dead["votes"][0].sum() == 0
    assert dead["codes_used"] == 5
    assert fn.factor_vae(torch.from_numpy(codes), SIZES, seed, prune="none")["eval"] == base["eval"]


def _gini(x: np.ndarray) -> float:
    n = len(x)
    return sum(float(a != b) for a in x for b in x) / (2 * n * (n - 1))


def test_cascadevae_protocol_by_loops(rng: np.random.Generator) -> None:
    """All votes again by plain loops over the same rows: unbiased variances, Gini column, KL pruning."""
    sizes = (3, 4, 5)
    codes = _grid(sizes) @ rng.normal(size=(3, 4)) + rng.normal(size=(60, 4))
    cluster = np.where(rng.random(60) < 0.8, _grid(sizes)[:, 0], rng.integers(0, 3, 60))
    kl = np.array([1.0, 0.1, 0.5, 3.0])  # 0.1 itself is pruned
    seed = _seed(rng)
    result = fn.factor_vae(codes, sizes, seed, protocol="cascadevae", discrete=cluster, kl=kl, samples=12)
    generator = torch.Generator().manual_seed(seed)
    factor = voting._factors_of_votes(GridSampler(sizes), 800, True, generator)
    assert torch.bincount(factor).tolist() == [266, 266, 266]
    index = GridSampler(sizes).fixed(factor, 12, generator, True).numpy()
    votes = np.zeros((5, 3))
    everything = [*codes.var(0, ddof=1), _gini(cluster)]
    for rows, k in zip(index, factor.tolist(), strict=True):
        local = [*(codes[rows] - codes[rows[0]]).var(0, ddof=1), _gini(cluster[rows])]
        ratio = [a / b for a, b in zip(local, everything, strict=True)]
        ratio[1] = np.inf
        votes[int(np.argmin(ratio)), k] += 1
    np.testing.assert_array_equal(result["votes"], votes)
    assert result["eval"] == result["train"] == pytest.approx(votes.max(1).sum() / 798)
    assert result["codes_used"] == 4
    np.testing.assert_array_equal(result["used"], [1, 0, 1, 1, 1])


def test_dlib_protocol_by_loops(rng: np.random.Generator) -> None:
    """The training votes' classifier is applied to fresh votes; codes below the threshold never vote."""
    sizes = (4, 5)
    codes = _grid(sizes) @ rng.normal(size=(2, 3)) + rng.normal(size=(20, 3))
    codes[:, 0] *= 0.04 / codes[:, 0].std()
    seed = _seed(rng)
    result = fn.factor_vae(codes, sizes, seed, samples=5, train_votes=300, eval_votes=200)
    generator = torch.Generator().manual_seed(seed)
    sampler = GridSampler(sizes)
    variance = codes[sampler.uniform(10_000, generator).numpy()].var(0, ddof=1)
    tables = []
    for count in (300, 200):
        factor = voting._factors_of_votes(sampler, count, False, generator)
        index = sampler.fixed(factor, 5, generator).numpy()
        votes = np.zeros((3, 2))
        for rows, k in zip(index, factor.tolist(), strict=True):
            ratio = (codes[rows] - codes[rows[0]]).var(0, ddof=1) / variance
            ratio[0] = np.inf
            votes[int(np.argmin(ratio)), k] += 1
        tables.append(votes)
    np.testing.assert_array_equal(result["votes"], tables[0])
    assert result["train"] == pytest.approx(tables[0].max(1).sum() / 300)
    guess = tables[0].argmax(1)
    assert result["eval"] == pytest.approx(sum(tables[1][d, guess[d]] for d in range(3)) / 200)


def test_global_variance_divides(rng: np.random.Generator) -> None:
    """A narrow code that ignores every factor must not win by being narrow."""
    codes = np.concatenate([_grid(SIZES)[:, [0, 2, 3]] * 100.0, 0.1 * rng.normal(size=(120, 1))], 1)
    result = fn.factor_vae(codes, SIZES, _seed(rng))
    assert result["eval"] > 0.999
    assert result["votes"][3].sum() == 0


def test_no_active_code(rng: np.random.Generator) -> None:
    dead = np.ones((120, 2))
    assert fn.factor_vae(dead, SIZES, 0)["eval"] == 0
    cascade = fn.factor_vae(dead, SIZES, 0, protocol="cascadevae", kl=[0.0, 0.0], discrete=np.zeros(120, int))
    assert cascade["eval"] == pytest.approx(1 / 3)  # the constant discrete code is masked, too
    assert cascade["codes_used"] == 0
    assert "no active code" in cascade["reasons"]["eval"]
    alone = fn.factor_vae(dead, SIZES, 0, protocol="cascadevae", kl=[0.0, 0.0], discrete=_grid()[:, 0])
    assert alone["votes"][2].sum() == alone["votes"].sum()  # the discrete code is never pruned by its KL


def test_beta_vae_features_and_classifier(rng: np.random.Generator) -> None:
    sizes = (4, 5)
    codes = _grid(sizes) @ rng.normal(size=(2, 3)) + 0.3 * rng.normal(size=(20, 3))
    seed = _seed(rng)
    result = fn.beta_vae(codes, sizes, seed, pairs=3, train_points=600, eval_points=400)
    generator = torch.Generator().manual_seed(seed)
    sampler = GridSampler(sizes)
    factor = voting._factors_of_votes(sampler, 1000, False, generator)
    first, second = (r.numpy() for r in sampler.sharing(factor, 3, generator))
    features = np.abs(codes[first] - codes[second]).mean(1)
    model = LogisticRegression().fit(features[:600], factor[:600])
    assert result["train"] == pytest.approx(model.score(features[:600], factor[:600]), abs=0.003)
    assert result["eval"] == pytest.approx(model.score(features[600:], factor[600:]), abs=0.004)


def test_seed_and_global_state(rng: np.random.Generator) -> None:
    codes = rng.normal(size=(120, 3))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = fn.factor_vae(codes, SIZES, 7)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(fn.factor_vae(codes, SIZES, 7)["votes"], first["votes"])
    assert not np.array_equal(fn.factor_vae(codes, SIZES, 8)["votes"], first["votes"])


def test_rows_without_a_grid(rng: np.random.Generator) -> None:
    factors = np.concatenate([rng.integers(0, 4, (2000, 2)), rng.random((2000, 1))], 1)
    codes = factors + 0.05 * rng.normal(size=(2000, 3))
    result = fn.factor_vae(codes, factors=factors, seed=_seed(rng))
    assert result["eval"] > 0.99
    assert "10 bins" in result["reasons"]["factor 2"]
    assert fn.beta_vae(codes, factors=factors, seed=_seed(rng))["eval"] > 0.98
    diagonal = np.stack([np.arange(40), np.arange(40)], 1)
    with pytest.raises(ValueError, match=r"differ only in factor 'pose'"):
        fn.higgins_change(diagonal, factors=diagonal, factor_names=["pose", "light"], train_points=50)
    with pytest.raises(ValueError, match=r"factor 0 has 40 values: needs at least 400 rows"):
        fn.beta_vae(diagonal, factors=diagonal)
