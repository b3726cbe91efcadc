"""vae, betavae, annealedvae and the metric vae-bound: the formulas against independent computations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from distk import CodeTable, DataSpec, UsageError, seeded
from distk.device import Ranks
from distk.method import Step
from distk.nn import kl_to_prior
from distk.plugins.vae_family.betavae.method import AnnealedConfig, optimizer
from distk.plugins.vae_family.metrics import Config as BoundConfig
from distk.plugins.vae_family.metrics import VaeBound, target_entropy
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

DATA = {"name": "blobs", "size": 32, "positions": 8}


def trainer(method: str, seed: int = 0, data: dict[str, Any] | None = None, **model: Any) -> Trainer:
    """A small trainer on the CPU: arch mlp, three latents, batch 16."""
    options = {
        "model": {"z": 3, "arch": "mlp", **model},
        "data": data or DATA,
        "train": {"batch": 16, "device": "cpu", "seed": seed, "steps": 4},
    }
    return build(resolve(method, options=options), torch.device("cpu"), Ranks())


def step_of(t: Trainer, seed: int, index: int = 0) -> tuple[Step, dict[str, torch.Tensor]]:
    """A step on a batch of float64, and what it logs."""
    logged: dict[str, torch.Tensor] = {}
    t._set_schedule(t.model.schedule(index))
    step = Step(
        index=t.counter,
        schedule=t._schedule,
        phase=None,
        generator=seeded(seed, t.device),
        log=lambda name, value: logged.__setitem__(name, value.detach()),
    )
    step.batch = {k: v.double() if v.is_floating_point() else v for k, v in t.dataset.sample(16, t.generator).items()}
    return step, logged


def plain(t: Trainer, x: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstruction and KL per latent, by torch.distributions and the probability form of the cross-entropy."""
    noise = torch.randn(16, 3, generator=seeded(seed, t.device))
    mean, logvar = t.model.encoder(x).chunk(2, 1)
    std = (logvar / 2).exp()
    p = torch.sigmoid(t.model.decoder(mean + std * noise))
    cross = -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1).mean()
    return cross, kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).mean(0)


def test_kl_against_torch_and_a_million_samples(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(5, generator=generator, dtype=torch.float64)
    logvar = torch.randn(5, generator=generator, dtype=torch.float64)
    kl = kl_to_prior(mean, logvar)
    q, p = Normal(mean, (logvar / 2).exp()), Normal(torch.zeros(5).double(), 1.0)
    assert torch.allclose(kl, kl_divergence(q, p), atol=1e-12)
    z = mean + (logvar / 2).exp() * torch.randn(1_000_000, 5, generator=generator, dtype=torch.float64)
    ratio = q.log_prob(z) - p.log_prob(z)
    # Six standard errors: one run in 10^8 fails by chance.
    assert bool(((ratio.mean(0) - kl).abs() < 6 * ratio.std(0) / 1000).all())


@pytest.mark.parametrize(("method", "beta"), [("vae", 1.0), ("betavae", 7.5), ("betavae", 0.0)])
def test_elbo_against_a_plain_computation(method, beta, seed) -> None:
    t = trainer(method, **({"beta": beta} if method == "betavae" else {}))
    t.model.double()
    step, logged = step_of(t, seed)
    loss = t.model.elbo(step).detach()
    reconstruction, kl = (value.detach() for value in plain(t, step.batch["x"], seed))
    assert float(loss) == pytest.approx(float(reconstruction + beta * kl.sum()), rel=1e-9)
    assert torch.allclose(logged["kl"], kl)
    assert float(logged["reconstruction"]) == pytest.approx(float(reconstruction), rel=1e-9)


@pytest.mark.parametrize("capacity", [0.0, 1e4])
def test_the_pressure_pulls_to_the_capacity_from_both_sides(capacity, seed) -> None:
    """d/dtheta of the loss = d rec + gamma sign(KL - C) d KL."""
    t = trainer("annealedvae", gamma=30.0, c_min=capacity, c_max=capacity)
    model = t.model.double()
    step, logged = step_of(t, seed)
    loss = model.elbo(step)
    reconstruction, kl = plain(t, step.batch["x"], seed)
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters)
    sign = 1.0 if capacity == 0 else -1.0
    wanted = torch.autograd.grad(reconstruction + sign * 30.0 * (kl.sum() - capacity), parameters)
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in zip(found, wanted, strict=True))
    total = (reconstruction + 30 * (kl.sum() - capacity).abs()).detach()
    assert float(loss.detach()) == pytest.approx(float(total), rel=1e-9)
    assert float(logged["capacity"]) == capacity


def test_images_may_differ_in_their_rate() -> None:
    """Two images of 0 and 2 C nats meet the capacity C: the absolute value is that of the mean."""
    t = trainer("annealedvae", gamma=1000.0, c_min=3.0, c_max=3.0)
    step, _ = step_of(t, 0)
    per_image = torch.tensor([0.0, 6.0])
    assert float(t.model.charge(per_image.mean(), step)) == 0.0
    assert float(t.model.charge(torch.tensor(4.0), step)) == pytest.approx(1000.0)


def test_capacity_over_the_steps() -> None:
    model = resolve("annealedvae").method
    config = resolve("annealedvae").model
    assert [config.capacity(t) for t in (0, 50_000, 100_000, 10**7)] == [0.0, 12.5, 25.0, 25.0]
    assert model(config, DataSpec("image", (1, 64, 64))).schedule(4000) == {"capacity": 1.0}
    other = AnnealedConfig(c_min=0.5, c_max=25.0, c_steps=100)
    assert [other.capacity(t) for t in (0, 50, 100)] == [0.5, 12.75, 25.0]


def test_one_name_is_another_with_beta_1(seed) -> None:
    a, b = trainer("vae", seed), trainer("betavae", seed, beta=1.0)
    for t in (a, b):
        for _ in range(3):
            t.step()
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    assert resolve("betab").entry.name == resolve("betavae-capacity").entry.name == "annealedvae"


def test_the_published_network() -> None:
    """Layer by layer as in appendix A.1 of Burgess et al. 2018."""
    settings = resolve("betavae")
    model = settings.method(settings.model, DataSpec("image", (3, 64, 64)))
    conv = lambda a, b: a * b * 16 + b  # noqa: E731
    full = lambda a, b: a * b + b  # noqa: E731
    encoder = conv(3, 32) + 3 * conv(32, 32) + full(512, 256) + full(256, 256) + full(256, 20)
    decoder = full(10, 256) + full(256, 256) + full(256, 512) + 3 * conv(32, 32) + conv(32, 3)
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder
    shapes = []
    for layer in model.encoder:
        layer.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    assert model.decode(model.encode(torch.rand(2, 3, 64, 64))).shape == (2, 3, 64, 64)
    assert shapes[::2][:4] == [(32, 32, 32), (32, 16, 16), (32, 8, 8), (32, 4, 4)]


def test_the_gaussian_likelihood_is_the_sum_of_squares(seed) -> None:
    t = trainer("betavae", likelihood="gaussian")
    x, output = torch.rand(4, 1, 32, 32), torch.randn(4, 1, 32, 32)
    slow = torch.stack([F.mse_loss(output[i].sigmoid(), x[i], reduction="sum") for i in range(4)])
    assert torch.allclose(t.model.nll(output, x), slow)


def test_adagrad_by_hand(seed) -> None:
    """Higgins et al. 2017 trained dSprites with Adagrad at 1e-2: w -= lr g / (sqrt(sum of g^2) + 1e-10)."""
    config = resolve("betavae", preset="paper").model
    assert (config.arch, config.lr) == ("higgins-fc", 1e-2)
    w = torch.nn.Parameter(torch.randn(4, generator=torch.Generator().manual_seed(seed)))
    expected, total = w.detach().clone(), torch.zeros(4)
    made = optimizer(config)([w])
    for k in range(3):
        g = torch.randn(4, generator=torch.Generator().manual_seed(seed + k))
        w.grad = g
        made.step()
        total += g**2
        expected -= 1e-2 * g / (total.sqrt() + 1e-10)
    assert torch.allclose(w.detach(), expected, atol=1e-6)


def test_adagrad_trains_and_is_resumed() -> None:
    from distk.testing import check_method

    check_method("betavae", model={"arch": "mlp", "optimizer": "adagrad", "lr": 1e-2})


@pytest.mark.parametrize(
    ("method", "model", "message"),
    [
        ("betavae", {"beta": -1}, "'beta': -1.0 is below the smallest allowed value 0"),
        ("annealedvae", {"gamma": -1}, "'gamma': -1.0 is below the smallest allowed value 0"),
        ("annealedvae", {"c_min": 5, "c_max": 4}, "c-max must be >= c-min 5 \\(got 4\\)"),
        ("betavae", {"beta": math.nan}, "nan is not allowed"),
    ],
)
def test_settings_out_of_range(method, model, message) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(method, options={"model": model})


def test_a_strange_capacity_is_warned_about(capsys) -> None:
    resolve("annealedvae", options={"model": {"c_max": 250.5}})
    assert "c-max 250.5 nats is far more" in capsys.readouterr().err


def test_data_that_do_not_fit_are_refused() -> None:
    settings = resolve("betavae")
    with pytest.raises(
        ValueError, match=r"\[0, 1\] for the Bernoulli likelihood.* 0 to 255: use --likelihood gaussian"
    ):
        settings.method(settings.model, DataSpec("image", (1, 64, 64), (0.0, 255.0)))
    small = resolve("betavae", options={"data": {"name": "dimred"}, "train": {"device": "cpu"}})
    with pytest.raises(UsageError, match="8x8 pixels or more, not 10; --arch mlp takes any data"):
        build(small, torch.device("cpu"), Ranks())


# The metric


def test_bound_against_a_plain_computation(seed) -> None:
    t = trainer("betavae", seed)
    model, dataset = t.model.double(), t.dataset
    rows = torch.arange(len(dataset))
    original = dataset.batch
    dataset.batch = lambda r: {k: v.double() if v.is_floating_point() else v for k, v in original(r).items()}
    table = CodeTable(torch.zeros(0, 3), ["z1", "z2", "z3"], ["continuous"] * 3, model=model, dataset=dataset)
    found = VaeBound(BoundConfig()).compute(table, seed)
    x = dataset.batch(rows)["x"]
    noise = torch.randn(64, 3, generator=seeded(seed, t.device)).double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    mean, logvar = model.encoder(x).chunk(2, 1)
    logits = model.decoder(mean + (logvar / 2).exp() * noise)
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
    kl = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).mean(0)
    assert found["reconstruction"] == pytest.approx(float(nll), rel=1e-9)
    assert torch.allclose(found["kl_per_latent"], kl, atol=1e-9)
    assert found["elbo"] == pytest.approx(-float(nll + kl.sum()), rel=1e-9)
    assert found["bits_per_dim"] == pytest.approx(float(nll + kl.sum()) / (1024 * math.log(2)), rel=1e-9)
    assert found["active_units"] == float((mean.var(0, correction=0) > 0.01).sum())
    # No prediction comes below the floor, and the images themselves reach it.
    itself = F.binary_cross_entropy(x, x, reduction="none").flatten(1).sum(1).mean()
    assert found["floor"] == pytest.approx(float(itself), rel=1e-6)
    assert found["reconstruction"] > found["floor"]


def test_floor_of_black_and_white_is_zero(seed) -> None:
    x = torch.randint(0, 2, (5, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).float()
    assert target_entropy(x).tolist() == [0.0] * 5
    assert float(target_entropy(torch.full((1, 10), 0.5))) == pytest.approx(10 * math.log(2))


def test_bound_refuses_other_models_and_squares_have_no_nats() -> None:
    t = trainer("betavae", likelihood="gaussian")
    table = CodeTable(torch.zeros(0, 3), ["z1", "z2", "z3"], ["continuous"] * 3, model=t.model, dataset=t.dataset)
    found = VaeBound(BoundConfig()).compute(table, 0)
    assert math.isnan(found["elbo"])
    assert "sum of squared errors" in found["reasons"]["elbo"]
    other = build(resolve("cascadevae", preset="demo", options={"train": {"device": "cpu"}}), t.device, Ranks())
    table.model = other.model
    with pytest.raises(UsageError, match="Gaussian VAEs whose code is `z` alone"):
        VaeBound(BoundConfig()).compute(table, 0)


def test_the_metric_is_sound() -> None:
    from distk.testing import metric_checks, model_table

    t = trainer("betavae")
    checks = metric_checks("vae-bound", model_table(t.model.eval(), t.dataset, 64))
    assert [check for check in checks if check.problem or check.skipped] == []
