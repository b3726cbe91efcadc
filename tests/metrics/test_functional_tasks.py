"""Fairness, abstract reasoning and unseen combinations against plain loops and on codes whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional.matrices import PANELS, Relations, draw
from distk.plugins.metrics.functional.sensitive import variation
from distk.plugins.metrics.functional.unseen import withheld


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _grid(sizes: tuple[int, ...]) -> np.ndarray:
    return np.array(list(itertools.product(*map(range, sizes))))


# Fairness


def test_variation_of_a_loop(rng: np.random.Generator) -> None:
    counts = rng.integers(1, 20, (4, 3)).astype(float)
    overall = counts.sum(0) / counts.sum()
    each = [np.abs(row / row.sum() - overall).sum() / 2 for row in counts]
    mean, worst = variation(torch.from_numpy(counts))
    assert mean == pytest.approx(np.average(each, weights=counts.sum(1)))
    assert worst == pytest.approx(max(each))
    assert variation(torch.tensor([[5.0, 0.0], [0.0, 5.0]])) == (0.5, 0.5)
    assert variation(torch.tensor([[5.0, 0.0], [0.0, 0.0]])) == (0.0, 0.0)


def test_fairness_of_groups_by_scikit_learn(rng: np.random.Generator) -> None:
    factors = rng.integers(0, 3, (900, 2))
    codes = factors @ rng.normal(size=(2, 2)) + rng.normal(size=(900, 2))
    ours = fn.fairness(codes, factors, predictor="lr")
    mean, sd = codes[:600].mean(0), codes[:600].std(0)
    x, xt = (codes[:600] - mean) / sd, (codes[600:] - mean) / sd
    for i, j in ((0, 1), (1, 0)):
        guess = LogisticRegression(tol=1e-6).fit(x, factors[:600, i]).predict(xt)
        overall = np.bincount(guess, minlength=3) / 300
        distance = [
            np.abs(
                np.bincount(guess[factors[600:, j] == v], minlength=3) / (factors[600:, j] == v).sum() - overall
            ).sum()
            / 2
            for v in range(3)
        ]
        expected = np.average(distance, weights=np.bincount(factors[600:, j], minlength=3))
        # A guess on the border may differ: one of 300 moves a distance by at most 1/100 for the smallest group.
        assert ours["unfairness_matrix"][i, j] == pytest.approx(expected, abs=0.02)
    assert np.isnan(np.diag(ours["unfairness_matrix"])).all()


def test_an_intervention_holds_everything_else_still() -> None:
    """A perfect code is fair, exactly: the same items but for the sensitive factor. The sum of two factors is not."""
    sizes = (4, 3, 5)
    grid = _grid(sizes)
    fair = fn.fairness(grid.astype(float), sizes=sizes, predictor="lr", points=40)
    assert fair["unfairness"] == 0
    assert fair["worst"] == 0
    assert fair["accuracy"] > 0.95
    mixed = np.concatenate([grid[:, :1] + grid[:, 1:2], grid[:, 2:]], 1).astype(float)
    unfair = fn.fairness(mixed, sizes=sizes, predictor="gbt", points=40)
    assert unfair["unfairness_matrix"][0, 1] > 0.1
    assert unfair["unfairness_matrix"][2, 1] == 0
    with pytest.raises(ValueError, match="one alone varies"):
        fn.fairness(grid[:, :1].astype(float), grid[:, :1])
    with pytest.raises(ValueError, match="60 rows"):
        fn.fairness(np.ones((7, 2)), sizes=sizes)


def test_interventions_by_a_loop(rng: np.random.Generator, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With predictors that are looked up in a table, the distances are those of the whole grid."""
    sizes = (3, 4, 2)
    grid, code = _grid(sizes), np.arange(24.0)[:, None]
    told = rng.integers(0, [3, 4, 2], (24, 3))

    def looked_up(predictor: str, x: torch.Tensor, y: torch.Tensor, classes: int, other: torch.Tensor, seed: int):
        return torch.from_numpy(told[other[:, 0].long().numpy(), {3: 0, 4: 1, 2: 2}[classes]])

    monkeypatch.setattr("distk.plugins.metrics.functional.sensitive._predicted", looked_up)
    points = 6000
    ours = fn.fairness(code, sizes=sizes, points=points, seed=seed)["unfairness_matrix"]
    for i, j in itertools.permutations(range(3), 2):
        groups = [np.bincount(told[grid[:, j] == v, i], minlength=sizes[i]) for v in range(sizes[j])]
        counts = np.stack(groups) / len(grid)
        overall = counts.sum(0)
        expected = np.mean([np.abs(row / row.sum() - overall).sum() / 2 for row in counts])
        # A share of 6000 bases has a deviation of at most 1/2 / sqrt(6000); a distance sums at most 4 of them, halved.
        assert ours[i, j] == pytest.approx(expected, abs=5 * 2 * 0.5 / points**0.5)


# Abstract reasoning


@pytest.mark.parametrize("kind", ["easy", "hard"])
def test_problems_keep_their_rule(kind: str, generator: torch.Generator) -> None:
    sizes = (2, 3, 6, 4)
    problems = draw(sizes, 500, kind, generator)
    matrix = torch.cat([problems.context, problems.answers[torch.arange(500), problems.right][:, None]], 1)
    rows = matrix.view(500, 3, 3, 4)
    assert bool((matrix < torch.tensor(sizes)).all())
    assert bool((matrix >= 0).all())
    for problem, active, answers, right in zip(rows, problems.active, problems.answers, problems.right, strict=True):
        assert 1 <= int(active.sum()) <= 3
        for k in range(4):
            steady = all(len(set(row[:, k].tolist())) == 1 for row in problem[:2])
            if active[k]:
                assert all(len(set(row[:, k].tolist())) == 1 for row in problem)
            else:
                assert not steady
                assert not all(len(set(row[:, k].tolist())) == 3 for row in problem[:2])
        wanted = problem[2, 0]
        fits = [bool((answer == wanted)[active].all()) for answer in answers]
        assert fits == [n == int(right) for n in range(6)], "one answer keeps the rule"
        if kind == "hard":
            wrong = [(answer != wanted)[active].sum().item() for n, answer in enumerate(answers) if n != int(right)]
            assert wrong == [1] * 5
    assert set(problems.right.tolist()) == set(range(6))
    assert set(problems.active.sum(1).tolist()) == {1, 2, 3}


def test_rows_differ_in_what_they_keep(generator: torch.Generator) -> None:
    """The value that a row keeps is the row's own: two rows agree about once in five values."""
    problems = draw((5, 5), 2000, "easy", generator)
    first, second = problems.context[:, 0], problems.context[:, 3]
    agree = (first == second)[problems.active].double()
    # A share of 1/5 has a deviation of 0.4 / sqrt(n).
    assert abs(float(agree.mean()) - 0.2) < 5 * 0.4 / len(agree) ** 0.5


def test_the_network_is_a_sum_over_all_pairs(generator: torch.Generator) -> None:
    network = Relations(3, 5, generator).double()
    context = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    answers = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    ours = network(context, answers)
    place = torch.eye(9, dtype=torch.float64)
    for b, a in itertools.product(range(2), range(6)):
        panels = [torch.cat([p, place[i]]) for i, p in enumerate([*context[b], answers[b, a]])]
        total = sum(network.edge((network.first(p) + network.second(q)).relu()).relu() for p in panels for q in panels)
        expected = network.out(network.graph(total / 81).relu())
        assert ours[b, a].item() == pytest.approx(expected.item(), abs=1e-10)
    assert PANELS == 8


def test_reasoning_learns_from_codes_and_not_from_noise(rng: np.random.Generator, seed: int) -> None:
    sizes = (3, 3, 4)
    grid = _grid(sizes).astype(float)
    before = torch.get_rng_state()
    perfect = fn.reasoning(grid, sizes, seed=seed, steps=300, tests=600)
    assert torch.equal(torch.get_rng_state(), before)
    # 600 problems: a chance of 1/6 has a deviation of .015
    assert perfect["accuracy"] > 1 / 6 + 10 * 0.015
    assert perfect["curve"][-1] == perfect["accuracy"]
    assert perfect["accuracy_mean"] == pytest.approx(perfect["curve"].mean())
    nothing = fn.reasoning(rng.normal(size=(36, 1)) * 0, sizes, seed=seed, steps=50, tests=600)
    assert abs(nothing["accuracy"] - 1 / 6) < 5 * 0.015
    again = fn.reasoning(grid, sizes, seed=seed, steps=20, tests=100)
    assert again["curve"].tolist() == fn.reasoning(grid, sizes, seed=seed, steps=20, tests=100)["curve"].tolist()


def test_rows_in_any_order_and_values_that_are_coarsened(rng: np.random.Generator, seed: int) -> None:
    sizes = (9, 3)
    grid = _grid(sizes).astype(float)
    order = rng.permutation(27)
    a = fn.reasoning(grid, sizes, seed=seed, steps=20, tests=200, values=3)
    b = fn.reasoning(grid[order], factors=grid[order], seed=seed, steps=20, tests=200, values=3)
    assert a["curve"].tolist() == b["curve"].tolist()
    with pytest.raises(ValueError, match="occur in no row"):
        fn.reasoning(grid[1:], factors=grid[1:], values=3, steps=10)
    with pytest.raises(ValueError, match="combinations of values"):
        fn.reasoning(np.ones((4, 1)), factors=rng.permuted(np.tile(np.arange(4), (6, 1)), axis=1).T, steps=10)


# Combinations


@pytest.mark.parametrize("sizes", [(3, 3), (3, 9), (6, 6), (3, 40)])
def test_what_is_kept_back(sizes: tuple[int, int], generator: torch.Generator) -> None:
    mask = withheld(*sizes, 0.2, generator)
    assert mask.shape == sizes
    assert bool(mask.any())
    assert int((~mask).sum(0).min()) >= 2, "every value is seen beside two others"
    assert int((~mask).sum(1).min()) >= 2
    assert float(mask.double().mean()) <= max(0.2, 1 / max(sizes)) + 1e-9


def test_combinations_of_a_perfect_and_of_an_entangled_code(rng: np.random.Generator, seed: int) -> None:
    factors = rng.integers(0, 4, (4000, 2))
    perfect = fn.combinations(factors.astype(float), factors, seed=seed)
    assert perfect["seen"] > 0.99
    assert perfect["unseen"] > 0.99
    names = rng.permutation(16)[factors[:, 0] * 4 + factors[:, 1]]
    entangled = np.eye(16)[names]  # a code of its own for every combination: nothing is foretold of a new one
    found = fn.combinations(entangled, factors, seed=seed)
    assert found["seen"] > 0.99
    assert found["unseen"] < 0.6
    assert found["gap"] == pytest.approx(found["seen"] - found["unseen"])
    noise = fn.combinations(rng.normal(size=(4000, 2)), factors, seed=seed)
    # About 1000 rows each: a share of 1/4 has a deviation of .014
    assert abs(noise["unseen"] - 0.25) < 0.08
    with pytest.raises(ValueError, match="3 values or more"):
        fn.combinations(factors % 2, factors % 2)
    three = np.concatenate([factors, rng.integers(0, 2, (4000, 1))], 1)
    partly = fn.combinations(three.astype(float), three, seed=seed)
    assert partly["unseen"] > 0.99
    assert np.isnan(partly["unseen_per_factor"][2])
    with pytest.raises(ValueError, match="single factor"):
        fn.combinations(factors[:, :1], factors[:, :1])


def test_given_test_rows_by_scikit_learn(rng: np.random.Generator, seed: int) -> None:
    factors = rng.integers(0, 3, (1500, 2))
    codes = factors + 0.5 * rng.normal(size=(1500, 2))
    hidden = (factors == [2, 0]).all(1)
    test = (
        np.concatenate([codes[hidden], codes[~hidden][:50]]),
        np.concatenate([factors[hidden], factors[~hidden][:50]]),
    )
    ours = fn.combinations(codes[~hidden], factors[~hidden], *test, seed=seed)
    assert ours["unseen_combinations"] == 1
    assert ours["test_rows"] == hidden.sum()
    x, f = codes[~hidden], factors[~hidden]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).numpy()
    fitted = order[: 2 * len(x) // 3]  # the rows that ours fits
    centre, spread = x[fitted].mean(0), x[fitted].std(0)
    for k, value in enumerate((2, 0)):
        model = LogisticRegression(tol=1e-10).fit((x[fitted] - centre) / spread, f[fitted, k])
        guess = model.predict((codes[hidden] - centre) / spread)
        # a row on the border may fall on either side: one of about 160
        assert abs(ours["unseen_per_factor"][k] - (guess == value).mean()) <= 1.01 / hidden.sum()
    with pytest.raises(ValueError, match="none is unseen"):
        fn.combinations(codes, factors, codes[:20], factors[:20])


def test_unseen_is_what_training_saw_nowhere(rng: np.random.Generator, seed: int) -> None:
    """A few rows of training stand for all of them: what the others saw is not unseen."""
    grid = _grid((9, 9, 9))
    hidden = (grid[:, 0] == 2) & (grid[:, 1] >= 5)
    codes = grid + 0.1 * rng.normal(size=grid.shape)
    few = rng.permutation(np.flatnonzero(~hidden))[:200]
    test = np.concatenate([np.flatnonzero(hidden), rng.permutation(np.flatnonzero(~hidden))[:100]])
    given = (codes[few], grid[few], codes[test], grid[test])
    alone = fn.combinations(*given, seed=seed)
    strange = {tuple(row) for row in grid[test]} - {tuple(row) for row in grid[few]}
    assert alone["unseen_combinations"] == len(strange) > hidden.sum()
    known = fn.combinations(*given, known=grid[~hidden], seed=seed)
    assert known["unseen_combinations"] == known["test_rows"] == hidden.sum()
    with pytest.raises(ValueError, match="none is unseen"):
        fn.combinations(*given, known=grid, seed=seed)


def test_a_value_that_training_never_saw_is_not_asked(rng: np.random.Generator, seed: int) -> None:
    grid = np.tile(_grid((6, 4, 4)), (5, 1))
    codes = grid + 0.01 * rng.normal(size=grid.shape)
    early, late = grid[:, 0] < 3, grid[:, 0] >= 3
    found = fn.combinations(codes[early], grid[early], codes[late], grid[late], seed=seed)
    assert np.isnan(found["unseen_per_factor"][0])
    assert found["unseen"] == pytest.approx(np.nanmean(found["unseen_per_factor"]))
    assert found["unseen"] > 0.5  # at random a quarter; the first code lies where the reader has seen nothing
    assert any("no training row has its values" in str(why) for why in found["reasons"].values())
