"""The KLs that factorgen keeps as its capacity grows, and the metric that reads them."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from distk import CodeTable, DistkError, UsageError, evaluate
from distk.device import Ranks
from distk.plugins.vae_family.betavae.factorgen import POINTS, FactorGen
from distk.plugins.vae_family.betavae.metrics import CapacityOrder, Config
from distk.settings import resolve
from distk.training.beginning import build


def trainer(steps: int, **model):
    """A small generator on 3 x 1 x 4 x 5 x 5 sprites, whose scale has one value."""
    options = {
        "model": {"arch": "mlp", **model},
        "data": {"name": "dsprites", "size": 32, "scales": [5], "orientations": 4, "positions": 5},
        "train": {"batch": 16, "device": "cpu", "steps": steps},
    }
    return build(resolve("factorgen", options=options), torch.device("cpu"), Ranks())


def made(curve: list[list[float]], c_max: float) -> FactorGen:
    """A generator that kept these KLs of shape, scale, orientation, posX, posY, at equal distances up to `c_max`."""
    model = trainer(1, c_min=0.0, c_max=c_max).model
    assert isinstance(model, FactorGen)
    rows = torch.tensor(curve)
    model.capacities = torch.linspace(0, c_max, len(rows)).tolist()
    model.curve = rows
    return model


def read(model: FactorGen, **settings):
    table = CodeTable(torch.zeros(1, 5), names=[], kinds=[], model=model)
    return CapacityOrder(Config(**settings)).compute(table, 0)


def test_channels_are_the_mean_over_the_grid(seed: int) -> None:
    t = trainer(1)
    model, grid = t.model.double(), t.dataset.grid().double()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.scale.copy_(torch.randn(5, generator=g))
        model.log_std.copy_(torch.randn(5, generator=g))
    spread = grid.std(0, correction=0).where(grid.std(0, correction=0) > 0, torch.ones(5, dtype=torch.float64))
    means = model.scale * (grid - grid.mean(0)) / spread
    kl = kl_divergence(Normal(means, model.log_std.exp()), Normal(0.0, 1.0)).mean(0)
    assert torch.allclose(model.channels(), kl, atol=1e-6)  # sizes are kept in float32


def test_every_capacity_is_kept_when_it_is_first_reached() -> None:
    t = trainer(30, c_min=0.5, c_max=2.5, c_steps=20)
    model = t.model
    for step in range(21):
        before = model.channels().detach().clone()
        t.step()
        reached = [i for i, row in enumerate(model.curve.tolist()) if min(row) > -0.5]
        assert reached == [i for i, c in enumerate(model.capacities) if c <= 0.5 + 2.0 * step / 20 + 1e-9]
        assert torch.equal(model.curve[reached[-1]], before)
    assert len(reached) == POINTS


def test_what_the_metric_reads_from_a_curve_drawn_by_hand() -> None:
    rows = [
        [0.0] * 5,
        [0.2, 0.3, 0.2, 0.4, 0.4],
        [0.0, 0.0, 0.05, 0.9, 0.6],
        [0.0, 0.5, 0.05, 1.2, 1.0],
        [0.4, 1.0, 0.05, 2.0, 1.5],
    ]
    found = read(made(rows, 4.0), at=2.0)
    assert found["others"] == pytest.approx(0.05)
    assert found["uneven"] == pytest.approx(0.3 / 1.5)
    opened = {name: found[f"opened_{name}"] for name in ("shape", "scale", "orientation", "posX", "posY")}
    # The bump of the first steps does not count, and what stays shut has the largest capacity.
    assert opened == {"shape": 4.0, "scale": 3.0, "orientation": 4.0, "posX": 1.0, "posY": 1.0}
    assert found["opened_first"] == 1.0
    assert found["least"] == pytest.approx(0.05)
    assert found["kl_posX"] == pytest.approx(0.9)


def test_what_it_cannot_read_is_said_in_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"grew to 0 nats, so nothing is known at 5"):
        read(made([[0.0] * 5, [-1.0] * 5], 9.0))
    with pytest.raises(UsageError, match="first: the factors of these data are"):
        read(made([[0.0] * 5], 9.0), first=("place",))
    with pytest.raises(DistkError, match="nothing is known at 5"):
        evaluate(trainer(2).model, ["capacity-order"], data=trainer(2).dataset)
