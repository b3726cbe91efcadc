"""change-one-factor accuracy: higgins-change under the protocol of Peychev et al."""

from __future__ import annotations

import math

import pytest
import torch

from distk import CodeTable, open_dataset
from distk.evaluation import evaluate
from distk.plugins.metrics import functional
from distk.plugins.vae_family.peychev.method import PeychevConfig, PeychevFC
from distk.plugins.vae_family.peychev.study_data import code_table
from distk.registry import registry

SIZES = (3, 8, 8, 6, 10)


def grid(sizes: tuple[int, ...] = SIZES) -> torch.Tensor:
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes))


def test_perfect_and_random_codes(generator: torch.Generator, seed: int) -> None:
    factors = grid().float() / torch.tensor(SIZES)
    perfect = functional.change_one_factor(factors, SIZES, seed, fixed=[0], pairs=4000, epochs=1500)
    assert perfect["eval"] > 0.99
    assert perfect["codes_used"] == 5
    noise = torch.randn(len(factors), 10, generator=generator)
    # Chance is one in four; 4500 test pairs have a standard deviation of 0.0065.
    drawn = functional.change_one_factor(noise, SIZES, seed, fixed=[0], pairs=30_000, epochs=60)
    assert abs(drawn["eval"] - 0.25) < 0.04


def test_five_factors_where_nothing_is_fixed(seed: int) -> None:
    codes = grid().float() / torch.tensor(SIZES)
    assert functional.change_one_factor(codes, SIZES, seed, pairs=3000, epochs=1500)["eval"] > 0.99


def test_what_changes_and_what_stays(seed: int) -> None:
    """The pairs as the score sees them: through `same`, which it asks about every pair of constant codes."""
    seen: list[torch.Tensor] = []

    def same(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        seen.append(torch.stack([grid()[first], grid()[second]]))
        return torch.zeros(len(first), dtype=torch.bool)

    codes = torch.ones(len(grid()), 2)
    result = functional.change_one_factor(codes, SIZES, seed, fixed=[0], pairs=2400, epochs=1, same=same)
    assert result["collisions"] == 2400
    assert result["codes_used"] == 0
    pairs = seen[0]
    changed = pairs[0] != pairs[1]
    assert torch.equal(changed.sum(1), torch.ones(2400, dtype=torch.long))
    assert changed.sum(0).tolist() == [0, 600, 600, 600, 600]
    assert torch.bincount(pairs[0, :, 0]).tolist() == [800, 800, 800]


def test_identical_items_are_drawn_again_for_every_model_alike(generator: torch.Generator, seed: int) -> None:
    """The last factor does nothing in half of its range, where pairs show the same item."""
    table = grid()
    item = table.clone()
    item[:, 4] = item[:, 4].clamp(max=4)
    asked: list[list[int]] = []

    def same(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        found = (item[first] == item[second]).all(1)
        asked.append(first[found].sort().values.tolist())
        return found

    def codes(weight: torch.Tensor) -> torch.Tensor:
        return item.float() @ weight

    for _ in range(2):
        weight = torch.randn(5, 4, generator=generator)
        result = functional.change_one_factor(codes(weight), SIZES, seed, fixed=[0], pairs=2000, epochs=2, same=same)
        assert result["collisions"] == 0
    rounds = len(asked) // 2
    assert asked[0]
    assert asked[:rounds] == asked[rounds:]


def test_a_single_factor_and_wrong_arguments() -> None:
    codes = torch.arange(12.0)[:, None]
    assert math.isnan(functional.change_one_factor(codes, (3, 4), fixed=[0], pairs=100)["eval"]), "one is always right"
    with pytest.raises(ValueError, match="no factor is left"):
        functional.change_one_factor(codes, (3, 4), fixed=[0, 1])
    with pytest.raises(ValueError, match="20 pairs"):
        functional.change_one_factor(codes, (3, 4), pairs=10)


def test_the_metric_is_higgins_change_with_another_protocol(seed: int) -> None:
    data = open_dataset("shapes2d", {"size": 16, "scales": (0, 3, 5), "positions": 4, "rotations": 20})
    model = PeychevFC(PeychevConfig(hidden=16), data.spec).eval()
    one, other = (registry().find("metric", name).load() for name in ("change-one-factor", "higgins-change"))
    table = code_table(model, data)
    assert issubclass(one, other)
    short = {"pairs": 400, "epochs": 50}
    found = one(one.Config(**short)).compute(table, seed)
    again = other(other.Config(protocol="peychev", **short)).compute(table, seed)
    assert {k: v for k, v in found.items() if isinstance(v, float)} == {
        k: v for k, v in again.items() if isinstance(v, float)
    }
    settings = {"pairs": 400, "epochs": 50}
    command = evaluate(model, ["change-one-factor"], data=data, seed=seed, **settings)["metrics"]["change-one-factor"]
    assert command["eval"] == pytest.approx(found["eval"], abs=0.02)
    # A square and its quarter turn are one image: those pairs are drawn again, so none is left.
    assert found["collisions"] == 0


def test_a_table_that_is_no_grid(generator: torch.Generator, seed: int) -> None:
    factors = grid((2, 8, 8))[torch.randperm(128, generator=generator)]
    table = CodeTable(
        factors.float(),
        ["a", "b", "c"],
        ["continuous"] * 3,
        factors,
        ("s", "x", "y"),
        (2, 8, 8),
        ("categorical", "ordinal", "ordinal"),
    )
    metric = registry().find("metric", "change-one-factor").load()
    assert metric(metric.Config(pairs=2000, epochs=1500)).compute(table, seed)["eval"] > 0.99
