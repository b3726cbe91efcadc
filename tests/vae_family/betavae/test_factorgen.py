"""factorgen: channels, factors, marks, and the optimum of a single channel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from distk import DataSpec, FactorDataset, UsageError, open_dataset, seeded
from distk.device import Ranks
from distk.method import Step
from distk.plugins.vae_family.betavae.factorgen import Config, FactorGen, first_step
from distk.settings import resolve
from distk.training.beginning import build


def trainer(steps: int = 8, **model):
    """A small generator on 3 x 2 x 4 x 5 x 5 sprites."""
    options = {
        "model": {"arch": "mlp", **model},
        "data": {"name": "dsprites", "size": 32, "scales": [1, 5], "orientations": 4, "positions": 5},
        "train": {"batch": 16, "device": "cpu", "steps": steps},
    }
    return build(resolve("factorgen", options=options), torch.device("cpu"), Ranks())


def test_loss_against_a_plain_computation(seed) -> None:
    t = trainer(gamma=20.0, c_min=2.0)
    model = t.model.double()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.scale.copy_(torch.randn(5, generator=g))
        model.log_std.copy_(torch.randn(5, generator=g))
    batch = t.dataset.sample(16, t.generator)
    logged = {}
    step = Step(
        index=t.counter,
        schedule={"capacity": torch.tensor(2.0)},
        phase=None,
        generator=seeded(seed, t.device),
        log=lambda name, value: logged.__setitem__(name, value.detach()),
    )
    step.batch = {"x": batch["x"].double(), "factors": batch["factors"]}
    loss = model.elbo(step)
    # Standardised by the grid itself: the population mean and variance of every column.
    grid = t.dataset.grid().double().numpy()
    f = torch.tensor((batch["factors"].numpy() - grid.mean(0)) / grid.std(0))
    mean, std = model.scale.detach() * f, model.log_std.detach().exp()
    kl = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).mean(0)
    p = model.decoder(mean + std * torch.randn(16, 5, generator=seeded(seed, t.device))).sigmoid()
    nll = -(step.batch["x"] * p.log() + (1 - step.batch["x"]) * (1 - p).log()).flatten(1).sum(1).mean()
    assert torch.allclose(logged["kl"], kl, atol=1e-9)
    assert float(loss.detach()) == pytest.approx(float((nll + 20 * (kl.sum() - 2).abs()).detach()), rel=1e-6)


def test_start_and_sizes() -> None:
    settings = resolve("factorgen")
    spec = DataSpec("image", (1, 64, 64), extra={"factors": {"shape": 3, "scale": 6, "rot": 40, "x": 32, "y": 32}})
    model = settings.method(settings.model, spec)
    f = model.standardised(torch.cartesian_prod(*(torch.arange(s) for s in (3, 6, 2, 2, 2))))
    assert float(model.kl(f[:, :2].new_zeros(1, 5) + 1).sum().detach()) == pytest.approx(0.025)
    # Ten parameters of channels, and the decoder of the family.
    assert sum(p.numel() for n, p in model.named_parameters() if not n.startswith("decoder")) == 10
    twin = resolve("betavae")
    other = twin.method(twin.model, DataSpec("image", (1, 64, 64)))
    shapes = [p.shape for p in model.decoder.parameters()]
    assert shapes[1:] == [p.shape for p in other.decoder.parameters()][1:]
    assert shapes[0] == (256, 5)


def test_factors_are_standardised_over_the_grid() -> None:
    t = trainer()
    f = t.model.standardised(t.dataset.grid())
    assert torch.allclose(f.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(f.var(0, unbiased=False), torch.ones(5), atol=1e-5)
    one = FactorGen(Config(arch="mlp"), DataSpec("image", (1, 32, 32), extra={"factors": {"only": 1, "x": 2}}))
    assert one.standardised(torch.tensor([[0, 0], [0, 1]])).tolist() == [[0.0, -1.0], [0.0, 1.0]]


@pytest.mark.parametrize("target", [0.3, 1.0, 2.5])
def test_best_use_of_one_channel(target) -> None:
    """The largest signal a / s at a KL of C nats has a^2 + s^2 = 1 and s = exp(-C), found by a solver."""
    from scipy.optimize import minimize

    model = FactorGen(Config(arch="mlp"), DataSpec("image", (1, 32, 32), extra={"factors": {"x": 2}})).double()
    f = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)

    def kl(v: np.ndarray) -> float:
        with torch.no_grad():
            model.scale.fill_(v[0])
            model.log_std.fill_(v[1])
        return float(model.kl(f).sum().detach())

    found = minimize(
        lambda v: -(math.log(v[0]) - v[1]),
        np.array([0.5, -0.3]),
        bounds=[(1e-3, 3), (-10, 3)],
        constraints={"type": "eq", "fun": lambda v: kl(v) - target},
        options={"ftol": 1e-14, "maxiter": 500},
        method="SLSQP",
    )
    a, s = found.x[0], math.exp(found.x[1])
    assert s == pytest.approx(math.exp(-target), abs=1e-4)
    assert a**2 + s**2 == pytest.approx(1, abs=1e-4)


def test_marks_are_the_first_steps_that_reach_them(seed) -> None:
    g = torch.Generator().manual_seed(seed)
    for c_steps in (1, 7, 1000, 100_000):
        config = Config(c_min=0.5, c_max=25.0, c_steps=c_steps)
        for mark in [0.0, 0.5, 25.0, *(0.5 + 24.5 * torch.rand(20, generator=g, dtype=torch.float64)).tolist()]:
            step = first_step(config, mark)
            assert config.capacity(step) >= mark
            assert step == 0 or config.capacity(step - 1) < mark
        assert first_step(config, 25.1) is None
    assert first_step(Config(c_min=5, c_max=5), 6.0) is None


def test_reconstructions_are_kept_at_the_marks(tmp_path) -> None:
    t = trainer(c_min=0.0, c_max=8.0, c_steps=8, marks=(3.0, 5.5, 30.0))
    for index in range(8):
        if index in (3, 6):
            expected = t.model.decode({"z": t.model.mean(t.model.shown)}).detach()
        t.step()
        if index == 3:
            assert torch.equal(t.model.kept[0], expected)
    assert t.model.kept_at.tolist() == [3, 6, -1]
    assert torch.equal(t.model.kept[1], expected)
    assert float(t.model.kept[2].abs().max()) == 0


def test_samples_are_images_of_factors(seed) -> None:
    t = trainer()
    with torch.no_grad():
        t.model.log_std.fill_(-20)
        code = t.model.prior(500, seeded(seed, t.device))["z"]
    f = (code / t.model.scale).detach()
    values = (f * t.model.spread + t.model.centre).round(decimals=3)
    assert all(set(values[:, k].unique().tolist()) <= set(range(n)) for k, n in enumerate((3, 2, 4, 5, 5)))
    assert all(len(values[:, k].unique()) == n for k, n in enumerate((3, 2, 4, 5, 5)))
    assert t.model.sample(3, seeded(seed, t.device)).shape == (3, 1, 32, 32)


def test_data_without_factors_are_refused() -> None:
    settings = resolve("factorgen", options={"data": {"name": "digits"}, "train": {"device": "cpu"}})
    with pytest.raises(UsageError, match="'factorgen' with data 'digits': factorgen needs a data set with factors"):
        build(settings, torch.device("cpu"), Ranks())
    for factors in ({"x": 0}, {"x": 1 << 40}, {"x": "many"}, 3):
        with pytest.raises(ValueError, match="factors"):
            FactorGen(Config(), DataSpec("image", (1, 64, 64), extra={"factors": factors}))


def test_too_many_marks() -> None:
    with pytest.raises(UsageError, match="at most 32 are kept"):
        resolve("factorgen", options={"model": {"marks": [1.0] * 33}})


# What every data set with factors tells a method


def test_batches_and_the_spec_tell_the_factors(seed) -> None:
    for name in ("dsprites", "dsprites-color", "blobs"):
        small = {} if name == "blobs" else {"orientations": 2}
        data = open_dataset(name, {"positions": 4, "size": 32, **small})
        assert data.spec.extra["factors"] == dict(zip(data.factor_names, data.factor_sizes, strict=True))
        batch = data.sample(9, seeded(seed, data.device))
        assert batch["factors"].shape == (9, len(data.factor_names))
        assert batch["factors"].dtype == torch.int64


def test_factors_are_added_to_batches_that_lack_them(seed) -> None:
    class Plain(FactorDataset):
        factor_names, factor_sizes, factor_kinds = ("a", "b"), (3, 4), ("ordinal", "ordinal")

        def batch(self, rows):
            return {"x": self.factors(rows).float().sum(1)}

    data = Plain(None, torch.device("cpu"), None)
    batch = data.sample(50, seeded(seed, data.device))
    assert torch.equal(batch["factors"].sum(1).float(), batch["x"])
