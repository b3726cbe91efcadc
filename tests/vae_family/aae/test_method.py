"""AAE and AAE-S: who is trained by what, the critic's game in closed form, the class, and the metric prior-mmd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate
from torch import Tensor

from distk import CodeTable, DataSpec, UsageError
from distk.device import Ranks, seeded
from distk.method import Step
from distk.plugins.vae_family.aae import metrics
from distk.plugins.vae_family.aae.method import Given, given_class
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

SMALL = {"size": 32, "scales": [5], "orientations": 1, "positions": 4}


def trainer(name: str = "aae-s", **model: Any) -> Trainer:
    options = {
        "model": {"arch": "mlp", "z": 2, "disc_width": 16, **model},
        "data": {"name": "dsprites", **SMALL},
        "train": {"batch": 16, "device": "cpu"},
    }
    return build(resolve(name, options=options), torch.device("cpu"), Ranks())


def step_of(t: Trainer, seed: int = 0) -> Step:
    made = Step(
        index=t.counter,
        schedule={},
        phase=None,
        generator=seeded(seed, t.device),
        log=lambda name, value: None,
    )
    made.batch = t.dataset.sample(16, seeded(seed, t.device))
    return made


# Who is trained by what


@pytest.mark.parametrize("posterior", ["deterministic", "gaussian"])
def test_every_objective_reaches_its_own_networks(posterior: str) -> None:
    """A the encoder and the decoder, B the critic alone, C the encoder alone - in this order."""
    t = trainer(posterior=posterior)
    step, networks = step_of(t), {"encoder": t.model.encoder, "decoder": t.model.decoder, "critic": t.model.critic}
    reached = {}
    for objective in t.objectives:
        t.model.zero_grad(set_to_none=True)
        # With respect to everything: what the objective lists must be all that the loss reaches, or more for the critic
        # and the decoder, which the trainer leaves out.
        objective.loss(step).backward()
        grads = {n: any(p.grad is not None for p in net.parameters()) for n, net in networks.items()}
        own = {id(p) for p in objective.parameters}
        reached[objective.name] = grads, {n for n, net in networks.items() if own >= {id(p) for p in net.parameters()}}
    assert [o.name for o in t.objectives] == ["recon", "critic", "regularise"]
    assert reached["recon"] == ({"encoder": True, "decoder": True, "critic": False}, {"encoder", "decoder"})
    assert reached["critic"] == ({"encoder": False, "decoder": False, "critic": True}, {"critic"})
    assert reached["regularise"] == ({"encoder": True, "decoder": False, "critic": True}, {"encoder"})


def test_the_critic_keeps_its_weights_while_the_encoder_is_regularised() -> None:
    t = trainer(adv_weight=100.0)
    step = step_of(t)
    for stage in t.stages[:2]:
        t._update(stage, step)
    before = {n: p.detach().clone() for n, p in t.model.named_parameters()}
    slots = [v.clone() for s in t.optimizers["recon"].state.values() for v in s.values()]
    t._update(t.stages[2], step)
    changed = {n.split(".")[0] for n, p in t.model.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert changed == {"encoder"}
    # Two Adams own the encoder, each with its moments.
    after = [v for s in t.optimizers["recon"].state.values() for v in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(slots, after, strict=True))


def test_merged_step_is_the_sum_of_both_losses() -> None:
    t = trainer(merge_ac=True, adv_weight=7.0)
    assert [o.name for o in t.objectives] == ["autoencoder", "critic"]
    step = step_of(t)
    x, y = step.batch["x"], F.one_hot(step.batch["label"], 3).float()
    z = t.model.encoder(x)
    expected = F.binary_cross_entropy_with_logits(t.model.decoder(torch.cat([z, y], 1)), x, reduction="sum") / 16
    expected = expected + 7 * F.softplus(-t.model.critic(z)).mean()
    assert float(t.model.autoencoder(step)) == pytest.approx(float(expected), rel=1e-5)


def test_gradient_penalty_against_finite_differences(seed: int) -> None:
    t = trainer(r1=0.1)
    assert [[o.name for o in stage] for stage in t.stages] == [["recon"], ["critic", "r1"], ["regularise"]]
    assert [s for s in range(40) if t.objectives[2].active(s)] == [0, 16, 32]
    t.model.double()
    step = step_of(t, seed)
    step.memo = {"z": torch.zeros(16, 2), "y": torch.zeros(16, 3)}
    step.randn = lambda *shape: torch.randn(*shape, generator=seeded(seed, t.device), dtype=torch.float64)
    z, h = step.randn(16, 2), 1e-6
    moves = h * torch.eye(2, dtype=torch.float64)
    slope = torch.stack([(t.model.critic(z + m) - t.model.critic(z - m)).squeeze(1) / (2 * h) for m in moves], 1)
    expected = 0.5 * 0.1 * 16 * slope.square().sum(1).mean()
    # A kink of the LeakyReLU within 1e-6 of a sample would change a slope; the chance is below 1e-3.
    assert float(t.model.penalty(step)) == pytest.approx(float(expected), rel=1e-3)


# The game in closed form: q = N(mu, s^2), p = N(0, 1), D = log p / q


def optimal(mu: float, s: float, z: Tensor) -> Tensor:
    """log p(z) - log q(z)."""
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(mu, s)
    return p.log_prob(z) - q.log_prob(z)


@pytest.mark.parametrize(("mu", "s"), [(0.7, 1.0), (-1.2, 0.6), (0.4, 1.5)])
def test_regularising_gradient_of_a_fixed_optimal_critic(mu: float, s: float) -> None:
    """d/dm E softplus(-D(m + s e)) at m = mu, by autograd over a quadrature of e, against scipy's quadrature of

    E[-sigmoid(-D) D'] with D' = -z + (z - mu) / s^2: it is positive for mu > 0, so that descent moves mu to 0.
    """
    e, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(100))
    m = torch.tensor(mu, dtype=torch.float64, requires_grad=True)

    class Fixed(torch.nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return optimal(mu, s, z)

    t = trainer()
    t.model.critic = Fixed()
    step = step_of(t)
    fooled = [t.model._fool((m + s * one).view(1, 1), step) / t.model.config.adv_weight for one in e]
    loss = (w / w.sum() * torch.stack(fooled)).sum()
    (slope,) = torch.autograd.grad(loss, m)

    def integrand(z: float) -> float:
        density = math.exp(-0.5 * ((z - mu) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        d = -0.5 * z * z + 0.5 * ((z - mu) / s) ** 2 + math.log(s)
        return density * -1 / (1 + math.exp(d)) * (-z + (z - mu) / s**2)

    expected, _ = integrate.quad(integrand, mu - 12 * s, mu + 12 * s, epsabs=1e-12, limit=200)
    assert float(slope) == pytest.approx(expected, abs=1e-6)
    assert float(slope) * mu > 0


def test_equal_distributions_leave_the_best_critic_at_log_two() -> None:
    """The cross-entropy of D = 0, and no other constant, is ln 2: the least that a critic can have for q = p."""
    t = trainer()
    for p in t.model.critic.parameters():
        torch.nn.init.zeros_(p)
    step = step_of(t)
    step.memo = {"z": torch.randn(16, 2), "y": torch.zeros(16, 3)}
    assert float(t.model.tell_apart(step)) == pytest.approx(math.log(2), abs=1e-6)
    for bias in (-0.5, 0.5):
        torch.nn.init.constant_(t.model.critic[-1].bias, bias)
        assert float(t.model.tell_apart(step)) > math.log(2) + 0.01


# The class


def test_the_class_reaches_the_decoder_and_not_the_encoder(seed: int) -> None:
    t = trainer()
    x = step_of(t, seed).batch["x"]
    z = t.model.encode(x)["z"]
    made = [t.model.decode({"z": z, "y": F.one_hot(torch.full((16,), k), 3).float()}) for k in range(3)]
    assert not torch.allclose(made[0], made[1])
    assert torch.equal(t.model.encode(x)["z"], z)
    assert torch.equal(t.model.encode(x)["y"], torch.zeros(16, 3))
    # Of an unknown class: the mean of all.
    assert torch.allclose(t.model.decode(t.model.encode(x)), torch.stack(made).mean(0), atol=1e-6)
    some = F.one_hot(torch.tensor([2] + [0] * 15), 3).float() * torch.tensor([1.0] + [0] * 15)[:, None]
    mixed = t.model.decode({"z": z, "y": some})
    assert torch.allclose(mixed[0], made[2][0], atol=1e-6)
    assert torch.allclose(mixed[1:], torch.stack(made).mean(0)[1:], atol=1e-6)


def test_label_dropout_and_what_the_critic_sees() -> None:
    t = trainer(label_dropout=1.0)
    assert torch.equal(t.model.told(step_of(t)), torch.zeros(16, 3))
    t = trainer(disc_sees_label=True)
    assert t.model.critic[0].in_features == 2 + 3
    t.step()
    step = step_of(trainer())
    assert torch.equal(trainer().model.told(step).argmax(1), step.batch["label"])
    assert trainer("aae").model.told(step).shape == (16, 0)


def test_the_published_sizes() -> None:
    settings = resolve("aae-s")
    spec = DataSpec("image", (1, 64, 64), classes=("square", "ellipse", "heart"))
    model = settings.method(settings.model, spec)
    assert sum(p.numel() for p in model.critic.parameters()) == 512 * 7 + 512 * 513 + 513
    first = next(m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear))
    assert first.in_features == 6 + 3
    assert [(o.name, len(o.parameters)) for o in model.objectives()] == [
        ("recon", 24),
        ("critic", 6),
        ("regularise", 12),
    ]


FACTORS = {"factors": {"colour": 1, "kind": 4, "scale": 6}}
KINDS = {"factor_kinds": {"colour": "categorical", "kind": "categorical", "scale": "ordinal"}}


def test_where_the_class_comes_from() -> None:
    spec = DataSpec("image", (1, 32, 32), extra={**FACTORS, **KINDS})
    assert given_class(spec, "kind") == Given(4, ("0", "1", "2", "3"), 1)
    labelled = DataSpec("image", (1, 32, 32), classes=("a", "b"))
    assert given_class(labelled, "") == given_class(labelled, "label") == Given(2, ("a", "b"), None)
    t = trainer(label_factor="shape")
    assert t.model.given == Given(3, ("square", "ellipse", "heart"), 0)
    step = step_of(t)
    assert torch.equal(t.model.told(step).argmax(1), step.batch["factors"][:, 0])


@pytest.mark.parametrize(
    ("extra", "factor", "message"),
    [
        ({**FACTORS, **KINDS}, "scale", r"needs a categorical factor; the data has colour\(1\), kind\(4\), scale\(6\)"),
        ({**FACTORS, **KINDS}, "size", "needs a categorical factor"),
        ({**FACTORS, **KINDS}, "colour", "factor 'colour' has one value"),
        ({}, "", "the data has no factors, and no label"),
        ({"factors": 3}, "", "damaged"),
        ({"factors": {"kind": 1 << 40}, "factor_kinds": {"kind": "categorical"}}, "kind", "impossible number"),
    ],
)
def test_data_without_a_class_are_refused(extra: dict[str, Any], factor: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given_class(DataSpec("image", (1, 32, 32), extra=extra), factor)


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("aae-s", {"adv_weight": -1}, "below the smallest allowed value 0"),
        ("aae-s", {"z": 0}, "below the smallest allowed value 1"),
        ("aae-s", {"label_dropout": 2}, "above the largest allowed value 1"),
        ("aae", {"label_factor": "shape"}, "belong to aae-s, or to aae with --labels"),
    ],
)
def test_settings_out_of_range(name: str, model: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(name, options={"model": model})


def test_an_ordered_factor_is_refused_when_training_starts() -> None:
    with pytest.raises(
        UsageError, match=r"'aae-s' with data 'dsprites': aae-s needs a categorical factor; .*posX\(4\)"
    ):
        trainer(label_factor="posX")
    assert trainer("aae", labels=True).model.classes == 3


# The metric prior-mmd


def test_mmd_to_the_prior_against_samples_and_quadrature(generator: torch.Generator) -> None:
    z = 0.5 + 1.3 * torch.randn(400, 1, generator=generator, dtype=torch.float64)
    h = 0.9
    within = torch.exp(-(z - z.T).square() / (2 * h * h))
    within = (within.sum() - 400) / (400 * 399)
    e, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(100))
    w = w / w.sum()
    across = (torch.exp(-(z - e).square() / (2 * h * h)) * w).sum(1).mean()
    prior = (torch.exp(-(e[:, None] - e).square() / (2 * h * h)) * w[:, None] * w).sum()
    expected = float(within - 2 * across + prior)
    assert metrics.mmd2_to_prior(z, h) == pytest.approx(expected, abs=1e-9)


def test_mmd_is_near_zero_for_the_prior_and_grows_with_distance() -> None:
    draw = torch.Generator().manual_seed(1)
    z = torch.randn(2000, 6, generator=draw, dtype=torch.float64)
    h = metrics.median_distance(6)
    assert float((z[:1000] - z[1000:]).norm(dim=1).median()) == pytest.approx(h, rel=0.05)
    match, moved = (metrics.mmd2_to_prior(z + shift, h) for shift in (0.0, 0.5))
    assert abs(match) < 5e-4 < 0.01 < moved


def test_metric_reports_moments_and_a_probe(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    kind = torch.arange(3).repeat(700)
    z = torch.randn(2100, 2, generator=draw)
    z[:, 1] = z[:, 0].exp()
    z[:, 0] = kind + 0.1 * z[:, 0]
    codes = torch.cat([z, torch.ones(2100, 1), kind[:, None].float()], 1)
    names, kinds = ["z1", "z2", "z3", "y"], ["continuous"] * 3 + ["categorical"]
    table = CodeTable(codes, names, kinds, kind[:, None], ("kind",), (3,), ("categorical",))
    found = metrics.PriorMMD(metrics.Config(samples=2100)).compute(table, 0)
    values = z.double().numpy()
    assert found["code_names"] == ["z1", "z2", "z3"]
    from scipy.stats import kurtosis, skew

    assert found["skewness"][:2].tolist() == pytest.approx(skew(values).tolist(), rel=1e-6)
    assert found["excess_kurtosis"][:2].tolist() == pytest.approx(kurtosis(values).tolist(), rel=1e-6)
    assert found["covariance2"] == pytest.approx(2 * np.cov(values.T)[0, 1] ** 2, rel=1e-6)
    assert math.isnan(found["skewness"][2])
    assert found["class_probe"] > 0.95
    assert 0.3 < found["class_chance"] < 0.4
    with pytest.raises(UsageError, match="only discrete codes"):
        metrics.PriorMMD(metrics.Config()).compute(CodeTable(codes[:, 3:], ["y"], ["categorical"]), 0)
