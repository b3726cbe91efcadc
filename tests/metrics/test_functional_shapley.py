"""Shapley values of a reader's loss, and DCI by networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional.probes import _stacked, networks
from distk.plugins.metrics.functional.shapley import sage


def _game(generator: torch.Generator, d: int, rows: int = 40):
    x = torch.randn(rows, d, generator=generator, dtype=torch.float64)
    w = torch.randn(d, 2, generator=generator, dtype=torch.float64)

    def predict(other: torch.Tensor) -> torch.Tensor:
        return ((other @ w).sin() + other[:, :1] * other[:, 1:2])[:, :, None]

    return x, predict(x) + 0.1 * torch.randn(rows, 2, 1, generator=generator, dtype=torch.float64), predict


def test_sage_is_the_mean_over_all_orders(generator: torch.Generator) -> None:
    x, y, predict = _game(generator, 3)
    ours = sage(predict, x, y, seed=1, rows=40, others=40)  # all rows, in another order
    total = torch.zeros(3, 2, dtype=torch.float64)
    for order in itertools.permutations(range(3)):
        known: list[int] = []
        for code in order:
            errors = []
            for columns in (known, [*known, code]):
                foretold = []
                for row in x:
                    mixed = x.clone()
                    mixed[:, columns] = row[columns]
                    foretold.append(predict(mixed).mean(0))
                errors.append((torch.stack(foretold) - y).square().sum(2).mean(0))
            total[code] += errors[0] - errors[1]
            known = [*known, code]
    torch.testing.assert_close(ours, total / 6, rtol=0, atol=1e-12)


def test_random_orders_come_to_the_same(generator: torch.Generator) -> None:
    x, y, predict = _game(generator, 4)
    exact = sage(predict, x, y, seed=0, orderings=4)
    drawn = sage(predict, x, y, seed=0, orderings=3)  # 16 subsets cost more than 3 orders of 4
    many = torch.stack([sage(predict, x, y, seed=0, orderings=3) for _ in range(2)])
    torch.testing.assert_close(many[0], many[1])
    # Both are efficient: they share out the same whole.
    torch.testing.assert_close(exact.sum(0), drawn.sum(0), rtol=0, atol=1e-12)


def test_random_orders_find_the_exact_values(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from distk.plugins.metrics.functional import shapley

    x, y, predict = _game(generator, 4)
    exact = sage(predict, x, y, seed=0, orderings=400)
    monkeypatch.setattr(shapley, "_exact", None)
    monkeypatch.setattr(shapley, "math", None)
    runs = []
    for d in (4,):
        values = torch.zeros(d, 2, dtype=torch.float64)
        game = shapley._Game(predict, *_rows_of(x, y), [[i] for i in range(d)])
        gains = []
        for _ in range(400):
            order = torch.randperm(d, generator=generator).tolist()
            path = [game.error(order[:i]) for i in range(d + 1)]
            step = torch.zeros_like(values)
            for place, code in enumerate(order):
                step[code] = path[place] - path[place + 1]
            gains.append(step)
        runs = torch.stack(gains)
    error = runs.std(0) / 400**0.5
    assert bool(((runs.mean(0) - exact).abs() <= 5 * error + 1e-9).all())


def _rows_of(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows that `sage` takes for seed 0."""
    generator = torch.Generator().manual_seed(0)
    picked = torch.randperm(len(x), generator=generator)[:256]
    beside = torch.randperm(len(x), generator=generator)[:32]
    return x[picked], y[picked], x[beside]


def test_a_linear_reader_of_independent_codes(generator: torch.Generator) -> None:
    """v(S) of an exact linear reader is the sum of w_i^2 var_i over S, so that these are the Shapley values."""
    n, w = 4000, torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = (x @ w)[:, None, None]
    ours = sage(lambda other: (other @ w)[:, None, None], x, y, rows=n, others=400)[:, 0]
    # A mean over 400 others is off by sd/20, its square by 1/400 of each variance; sample variances by sqrt(2/4000).
    torch.testing.assert_close(ours, w.square(), rtol=0, atol=6 * 4 * (1 / 400 + (2 / 4000) ** 0.5))
    assert float(ours[2].abs()) < 1e-12


def test_networks_side_by_side_are_those_alone(generator: torch.Generator, seed: int) -> None:
    weights = [torch.randn(s, generator=generator) for s in ((3, 2, 5), (3, 1, 5), (3, 5, 1), (3, 1, 1))]
    x = torch.randn(7, 2, generator=generator)
    together = _stacked(weights, x)
    for k in range(3):
        alone = (x @ weights[0][k] + weights[1][k]).relu() @ weights[2][k] + weights[3][k]
        torch.testing.assert_close(together[:, k], alone)
    before = torch.get_rng_state()
    a, b = torch.randn(300, 2, dtype=torch.float64, generator=generator), torch.zeros(300, 1, 1, dtype=torch.float64)
    b[:, 0, 0] = a[:, 0].sin()
    first, second, other = (networks(a, b, seed=s, passes=3)(a) for s in (seed, seed, seed + 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_dci_by_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.uniform(-1, 1, (3000, 3))
    perfect = fn.dci(factors**3, factors, predictor="mlp", seed=seed)
    assert perfect["disentanglement"] > 0.95
    assert perfect["completeness"] > 0.95
    assert perfect["nrmse_test"] < 0.15
    third = (np.ones((3, 3)) * 2 / 3 - np.eye(3)) * [1, 1, 1]  # every factor is in every code, by 4/9, 4/9, 1/9
    rotated = fn.dci(factors @ third, factors, predictor="mlp", seed=seed)
    # An exact linear reader's Shapley values are w^2: shares 4/9, 4/9, 1/9 in every line.
    shares = np.array([4, 4, 1]) / 9
    expected = 1 + (shares * np.log(shares)).sum() / np.log(3)
    # The values are of 256 rows and 32 others: over 40 seeds the score is 0.123 with a deviation of 0.021.
    assert rotated["disentanglement"] == pytest.approx(expected, abs=5 * 0.021)
    assert rotated["nrmse_test"] < 0.1
    noise = fn.dci(rng.normal(size=(3000, 3)), factors, predictor="mlp", seed=seed)
    assert noise["nrmse_test"] > 0.95
    rows = {"shifted": (factors[:500] ** 3, factors[:500])}
    further = fn.dci(factors**3, factors, predictor="mlp", seed=seed, further=rows)
    assert further["nrmse_shifted"] < 0.2
