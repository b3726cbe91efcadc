"""covreg's mathematics: the penalty and the figures of covstats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distk import CodeTable, DataSpec, Latent, LatentSpace, Source, UsageError, open_dataset
from distk.plugins.vae_family.covreg.method import ConvConfig, CovregConv, CovregLinear, LinearConfig, to_signed
from distk.plugins.vae_family.covreg.metrics import Config as StatsConfig
from distk.plugins.vae_family.covreg.metrics import CovStats, correlation, statistics
from distk.plugins.vae_family.covreg.penalty import (
    ActivationPenalty,
    Config,
    CovariancePenalty,
    as_units,
    covariance,
    l_sigma,
    off_diagonal,
)


def codes(generator: torch.Generator, n: int = 30, p: int = 5) -> torch.Tensor:
    """Correlated codes in float64 with a mean."""
    mix = torch.randn(p, p, generator=generator, dtype=torch.float64)
    return torch.randn(n, p, generator=generator, dtype=torch.float64) @ mix + 3


def by_loops(h: np.ndarray, drop: bool = False) -> float:
    """L_Sigma as it is written, element by element."""
    n, p = h.shape
    mean = h.mean(0)
    total = 0.0
    for i in range(p):
        for j in range(p):
            if not (drop and i == j):
                total += abs(sum((h[k, i] - mean[i]) * (h[k, j] - mean[j]) for k in range(n)) / (n - 1))
    return total / p**2


def penalty(**options) -> CovariancePenalty:
    return CovariancePenalty(Config(**options))


def test_the_value_is_the_sum_as_it_is_written(generator) -> None:
    h = codes(generator)
    assert float(penalty().value({"code": h})) == pytest.approx(by_loops(h.numpy()), rel=1e-10)
    assert float(penalty(diag="drop").value({"code": h})) == pytest.approx(by_loops(h.numpy(), drop=True), rel=1e-10)
    assert float(penalty(norm="none").value({"code": h})) == pytest.approx(25 * by_loops(h.numpy()), rel=1e-10)
    assert float(penalty().value({"a": h, "b": h})) == pytest.approx(2 * by_loops(h.numpy()), rel=1e-10)
    assert np.allclose(covariance(h).numpy(), np.cov(h.numpy(), rowvar=False), atol=1e-12)


def test_the_gradient_is_that_of_finite_differences(generator) -> None:
    h = codes(generator, n=7, p=3)
    # |C_ij| has a kink at 0: stay away from it.
    assert float(covariance(h).abs().min()) > 0
    for options in ({}, {"diag": "drop"}, {"norm": "none"}, {"scale": "trace"}):
        given = h.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(penalty(**options).value({"code": given}), given)
        for i, j in ((0, 0), (3, 1), (6, 2)):
            values = []
            for sign in (1, -1):
                moved = h.clone()
                moved[i, j] += sign * 1e-6
                values.append(float(penalty(**options).value({"code": moved})))
            assert float(gradient[i, j]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_gradcheck_away_from_zeros() -> None:
    h = codes(torch.Generator().manual_seed(1), n=6, p=3)
    assert float(covariance(h).abs().min()) > 0.1
    assert torch.autograd.gradcheck(lambda x: penalty().value({"code": x}), h.requires_grad_())


def test_a_constant_unit_has_no_gradient_of_its_own() -> None:
    """|C_ij| has the subgradient 0 at 0, so that a unit that is switched off stays so and nothing becomes NaN."""
    h = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    h[:, 1] = 2.0
    for options in ({}, {"scale": "trace"}):
        given = h.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(penalty(**options).value({"code": given}), given)
        assert bool(gradient.isfinite().all())
        assert torch.equal(gradient[:, 1], torch.zeros(8))
    still = torch.ones(8, 3, requires_grad=True)
    assert torch.autograd.grad(penalty(scale="trace").value({"code": still}), still)[0].isfinite().all()


def test_the_penalty_leaks_scale_and_trace_stops_it(generator) -> None:
    h = codes(generator)
    assert float(penalty().value({"c": h / 3})) == pytest.approx(float(penalty().value({"c": h})) / 9, rel=1e-9)
    closed = penalty(scale="trace")
    assert float(closed.value({"c": h / 3})) == pytest.approx(float(closed.value({"c": h})), rel=1e-9)
    p = h.shape[1]
    expected = by_loops(h.numpy()) * p / float(covariance(h).diagonal().sum())
    assert float(closed.value({"c": h})) == pytest.approx(expected, rel=1e-9)


def test_maps_are_flattened_or_their_positions_are_examples(generator) -> None:
    maps = torch.randn(6, 3, 2, 4, generator=generator)
    assert torch.equal(as_units(maps), maps.flatten(1))
    by_hand = torch.stack([maps[n, :, y, x] for n in range(6) for y in range(2) for x in range(4)])
    assert torch.equal(as_units(maps, channels=True), by_hand)
    steps = torch.randn(6, 5, 3, generator=generator)
    assert torch.equal(as_units(steps, channels=True), steps.reshape(30, 3))
    assert float(penalty(channels=True).value({"m": maps})) == pytest.approx(by_loops(by_hand.numpy()), rel=1e-4)


def test_l1act_is_the_mean_of_absolute_values(generator) -> None:
    h = codes(generator)
    assert float(ActivationPenalty(None).value({"a": h, "b": 2 * h})) == pytest.approx(
        3 * np.abs(h.numpy()).mean(), rel=1e-12
    )


def test_batched_l_sigma_is_that_of_each_member(generator) -> None:
    h = torch.stack([codes(generator) for _ in range(3)])
    for drop in (False, True):
        expected = [by_loops(one.numpy(), drop) for one in h]
        assert l_sigma(h, drop).tolist() == pytest.approx(expected, rel=1e-10)
    assert torch.equal(off_diagonal(torch.ones(2, 2)), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


# Figures


def by_definition(c: np.ndarray, d: int) -> dict[str, float]:
    """The figures in loops."""
    p = len(c)
    variance = np.diag(c)
    total = variance.sum()
    pairs = [(i, j) for i in range(p) for j in range(i + 1, p)]
    corr = {(i, j): abs(c[i, j]) / math.sqrt(variance[i] * variance[j]) for i, j in pairs}
    alive = [i for i in range(p) if variance[i] > 1e-3 * variance.max()]
    ordered = sorted(variance, reverse=True)
    return {
        "mapc": 2 / (p * p - p) * sum(corr.values()),
        "mapc_varying": float(np.mean([v for (i, j), v in corr.items() if i in alive and j in alive])),
        "units_varying": float(len(alive)),
        "cvr": np.abs(c).sum() / total,
        "tdv": sum(ordered[:d]) / total,
        "ud90": float(next(k for k in range(1, p + 1) if sum(ordered[:k]) >= (0.9 - 1e-12) * total)),
        "trace": total,
    }


def test_the_figures_are_their_definitions(generator) -> None:
    scale = torch.tensor([3.0, 1.0, 0.5, 1e-3, 1e-4], dtype=torch.float64)
    for h in (codes(generator), codes(generator) * scale):
        c = covariance(h)
        found = {k: float(v) for k, v in statistics(c, 2).items()}
        assert found == pytest.approx(by_definition(c.numpy(), 2), rel=1e-9)
    many = torch.stack([covariance(codes(generator)) for _ in range(4)])
    for key, value in statistics(many, 3).items():
        assert value.tolist() == pytest.approx([float(statistics(c, 3)[key]) for c in many], rel=1e-12), key


def test_extremes_of_cvr(generator) -> None:
    """1 for a diagonal covariance, p for one of rank one with equal variances, between them always."""
    p = 6
    diagonal = torch.diag(torch.rand(p, generator=generator, dtype=torch.float64) + 0.1)
    assert float(statistics(diagonal)["cvr"]) == pytest.approx(1, abs=1e-12)
    assert float(statistics(diagonal)["mapc"]) == pytest.approx(0, abs=1e-12)
    sign = torch.randint(2, (p,), generator=generator).double() * 2 - 1
    one = statistics(torch.outer(sign, sign), 2)
    assert float(one["cvr"]) == pytest.approx(p, abs=1e-12)
    assert float(one["mapc"]) == pytest.approx(1, abs=1e-12)
    assert float(one["tdv"]) == pytest.approx(2 / p, abs=1e-12)
    assert 1 <= float(statistics(covariance(codes(generator)))["cvr"]) <= 5


def test_figures_do_not_depend_on_order_sign_and_scale(generator) -> None:
    h = codes(generator)
    order = torch.randperm(5, generator=generator)
    sign = torch.randint(2, (5,), generator=generator).double() * 2 - 1
    moved = 7 * h[:, order] * sign
    a, b = statistics(covariance(h), 2), statistics(covariance(moved), 2)
    for key in a:
        factor = 49 if key == "trace" else 1
        assert float(b[key]) == pytest.approx(factor * float(a[key]), rel=1e-9), key


def test_ud90_counts_a_share_of_exactly_nine_tenths() -> None:
    assert float(statistics(torch.diag(torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)))["ud90"]) == 2
    assert float(statistics(torch.eye(10, dtype=torch.float64))["ud90"]) == 9


def table(values: torch.Tensor, kinds: list[str] | None = None) -> CodeTable:
    return CodeTable(values, [f"z{i}" for i in range(values.shape[1])], kinds or ["continuous"] * values.shape[1])


def test_undefined_figures_are_nan_with_a_reason(capsys, generator) -> None:
    collapsed = CovStats(StatsConfig(d=2)).compute(table(torch.ones(9, 3)), 0)
    assert "the coding layer is constant (collapsed)" in capsys.readouterr().err
    assert collapsed["trace"] == collapsed["units_varying"] == 0
    for key in ("mapc", "mapc_varying", "cvr", "tdv", "ud90"):
        assert math.isnan(collapsed[key])
        assert collapsed["reasons"][key] == "the coding layer is constant (collapsed)"
    single = CovStats(StatsConfig()).compute(table(torch.randn(9, 1, generator=generator)), 0)
    assert math.isnan(single["mapc"])
    assert single["reasons"]["mapc"] == "one unit has no pairs"
    assert single["cvr"] == pytest.approx(1)
    dead = torch.randn(9, 3, generator=generator)
    dead[:, 0] = 4
    found = CovStats(StatsConfig()).compute(table(dead), 0)
    assert math.isnan(found["mapc"])
    assert not math.isnan(found["mapc_varying"])
    assert found["units_varying"] == 2
    with pytest.raises(UsageError, match="d = 4 is more than the 3 units"):
        CovStats(StatsConfig(d=4)).compute(table(dead), 0)


def test_categorical_columns_are_left_out_and_groups_can_be_chosen(generator) -> None:
    values = torch.randn(20, 4, generator=generator)
    mixed = table(values, ["continuous", "continuous", "categorical", "continuous"])
    assert CovStats(StatsConfig()).compute(mixed, 0)["covariance"].shape == (3, 3)
    with pytest.raises(UsageError, match="no layer 'w'; there is code"):
        CovStats(StatsConfig(layer="w")).compute(mixed, 0)

    class Model:
        latents = LatentSpace.of(Latent("a", "continuous", 1), Latent("b", "continuous", 3))

    grouped = CodeTable(values, Model.latents.columns, ["continuous"] * 4, model=Model())
    found = CovStats(StatsConfig(layer="b")).compute(grouped, 0)
    assert np.allclose(found["covariance"], np.cov(values[:, 1:].double().numpy(), rowvar=False))
    assert np.allclose(found["correlation"], np.corrcoef(values[:, 1:].double().numpy(), rowvar=False))
    with pytest.raises(UsageError, match="no continuous code"):
        CovStats(StatsConfig()).compute(table(values[:, :1], ["categorical"]), 0)
    assert bool(correlation(torch.zeros(2, 2)).isnan().all())


def test_pixels_go_to_both_ends_of_tanh_and_back(generator) -> None:
    assert to_signed(torch.tensor([0.0, 0.25, 1.0]), (0.0, 1.0)).tolist() == [-1.0, -0.5, 1.0]
    assert to_signed(torch.tensor([0.0, 255.0]), (0.0, 255.0)).tolist() == [-1.0, 1.0]
    model = CovregConv(ConvConfig(code=5), DataSpec("image", (1, 16, 16), range=(-3.0, 5.0)))
    code = torch.randn(4, 5, generator=generator)
    made = model.decode({"code": code})
    assert torch.allclose(to_signed(made, (-3.0, 5.0)), model.net.decoder(code), atol=1e-6)


def test_a_batch_of_all_items_is_the_training_split_once_in_order() -> None:
    data = open_dataset("dimred", {"items": 12, "test": 7})
    model = CovregLinear(LinearConfig(code=2), data.spec)
    for batch in (12, 50):
        source = Source(data, batch, torch.Generator().manual_seed(0))
        assert torch.equal(model.collect(source)["x"], data.batch(data.rows_of("train"))["x"])
    assert model.collect(Source(data, 11, torch.Generator().manual_seed(0)))["x"].shape == (11, 10)
