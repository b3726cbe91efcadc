"""The bound against exact integrals and distributions computed by other means, and what the presets say."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

import distk
from distk.device import Ranks
from distk.plugins.rl_control.dyncontent.method import (
    content_kl,
    mixture_log_density,
    transition_terms,
)
from distk.plugins.rl_control.dyncontent.networks import Gaussian, Local, Transition
from distk.settings import resolve
from distk.source import Source
from distk.testing import check_method
from distk.training.beginning import build

TINY = {"count": 60, "second": 40, "held_out": 20}


def trainer_of(method="dyncontent", **model):
    options = {
        "model": {"hidden": 12, "transition_hidden": 8, **model},
        "data": TINY,
        "train": {"batch": 8, "device": "cpu", "steps": 10},
    }
    return build(resolve(method, options=options), torch.device("cpu"), Ranks())


@pytest.mark.parametrize("method", ["dyncontent", "rce"])
def test_conformance(method):
    check_method(method, model={"hidden": 12, "transition_hidden": 8}, data=TINY)


def test_what_the_paper_says():
    """Section 4: 8000 triples, 2000 frames without actions, 40x40 pictures; the rest is not printed."""
    settings = resolve("dyncontent", preset="paper")
    assert settings.data_options["count"] == 8000
    assert settings.data_options["second"] == 2000
    printed = resolve("dyncontent", preset="printed").model
    assert (printed.logdet, printed.content_from, printed.aid) == (False, "x1", 0.0)


# The bound


def closed_form(slope, logdet):
    """The bound and log p(x) of z ~ N(.3, .7^2), zhat = slope z + .2, x = zhat + N(0, .4^2) at x = 1.1, in nats.

    The posterior of zhat is exact, and its expectations are taken by Gauss-Hermite quadrature, exact for quadratics.
    """
    one = torch.ones(1, 1, dtype=torch.float64)
    prior_mean, prior_var = slope * 0.3 + 0.2, (slope * 0.7) ** 2
    log_p = -0.5 * (math.log(2 * math.pi * (prior_var + 0.16)) + (1.1 - prior_mean) ** 2 / (prior_var + 0.16))
    var = 1 / (1 / prior_var + 1 / 0.16)
    mean = var * (prior_mean / prior_var + 1.1 / 0.16)
    points, weights = np.polynomial.hermite_e.hermegauss(9)
    total = 0.0
    now, after = Gaussian(0.3 * one, math.log(0.49) * one), Gaussian(mean * one, math.log(var) * one)
    local = Local((slope - 1) * one, one, 0 * one.unsqueeze(-1), 0.2 * one)
    for point, weight in zip(points, weights, strict=True):
        zhat = mean * one + math.sqrt(var) * point
        terms = transition_terms(now, after, now, zhat, local, 0 * one, logdet)
        likelihood = -0.5 * (math.log(2 * math.pi * 0.16) + (1.1 - zhat) ** 2 / 0.16)
        total += weight / math.sqrt(2 * math.pi) * float(likelihood - terms)
    return total, log_p


@pytest.mark.parametrize(
    ("slope", "expected", "printed"), [(0.5, -1.283, -1.976), (1.0, None, None), (3.0, -1.679, -0.580)]
)
def test_the_bound_is_the_likelihood_where_the_posterior_is_exact(slope, expected, printed):
    bound, log_p = closed_form(slope, logdet=True)
    assert abs(bound - log_p) < 1e-10
    as_printed, _ = closed_form(slope, logdet=False)
    assert abs(as_printed - log_p - math.log(slope)) < 1e-10
    if expected is not None:
        assert abs(log_p - expected) < 1e-3
        assert abs(as_printed - printed) < 1e-3
    assert (as_printed > log_p + 1) == (slope == 3.0)  # above the likelihood: no bound


def test_sherman_and_morrison(generator):
    draw = [torch.randn(200, 4, generator=generator, dtype=torch.float64) for _ in range(5)]
    v, r, c, z, u = draw
    b = torch.randn(200, 4, 4, generator=generator, dtype=torch.float64)
    local = Local(v, r, b, c)
    keep = local.slope.abs() > 0.2
    assert int(keep.sum()) > 100
    matrix = local.matrix[keep]
    assert torch.allclose(torch.linalg.slogdet(matrix)[1], local.log_abs_det()[keep], atol=1e-12, rtol=1e-12)
    after = (local.matrix @ z.unsqueeze(-1) + b @ u.unsqueeze(-1)).squeeze(-1) + c
    assert torch.allclose(local.forward(z, u), after, atol=1e-12)
    solved = torch.linalg.solve(matrix, (after - (b @ u.unsqueeze(-1)).squeeze(-1) - c)[keep].unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(local.backward(after, u)[keep], solved, atol=1e-10)
    assert torch.allclose(solved, z[keep], atol=1e-10)


def test_the_slope_stays_away_from_zero():
    v = torch.tensor([[1.0], [1.0], [1.0]])
    r = torch.tensor([[-1.0], [-0.99], [-1.01]])
    slope = Local(v, r, torch.zeros(3, 1, 1), v).slope
    assert torch.allclose(slope, torch.tensor([0.05, 0.05, -0.05]))


def test_gradients_of_the_transition_terms(generator):
    tensors = [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(10)]
    tensors[9] = 0.3 * tensors[9]  # r: far from a slope of zero
    tensors[8] = 0.3 * tensors[8]
    b = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    u = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    for tensor in tensors:
        tensor.requires_grad_()

    def terms(m0, s0, m1, s1, m2, s2, noise, c, v, r):
        zhat = Gaussian(m1, s1).draw(noise)
        local = Local(v, r, b, c)
        return transition_terms(Gaussian(m0, s0), Gaussian(m1, s1), Gaussian(m2, s2), zhat, local, u, True)

    assert torch.autograd.gradcheck(terms, tensors)


class Noise:
    """A step that hands out fixed noise and keeps what is logged."""

    def __init__(self, batch, generator):
        self.batch, self.generator, self.logged, self.given = batch, generator, {}, []

    def randn(self, rows, *shape):
        self.given.append(torch.randn(rows, *shape, generator=self.generator))
        return self.given[-1]

    def log(self, name, value):
        self.logged[name] = float(value)


def normal(g):
    return Independent(Normal(g.mean, (0.5 * g.logvar).exp()), 1)


@pytest.mark.parametrize("content_from", ["shuffled", "x1"])
@pytest.mark.parametrize("pairing", ["paired", "unpaired", "none"])
@torch.no_grad()
def test_the_loss_row_by_row(generator, content_from, pairing):
    """The whole loss of a batch, written out with torch.distributions, full matrices and a loop over rows."""
    trainer = trainer_of(content_from=content_from, pairing=pairing, aid=0.7)
    model = trainer.model
    for parameter in model.parameters():  # away from the start, where A is almost I
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    batch = _batch(trainer)
    step = Noise(batch, generator)
    total = float(model.bound_loss(step))
    first, second = step.given
    n, u = 8, model.scaled(batch["u"])
    assert torch.allclose(u, batch["u"] / 3)
    codes = {
        name: model.encoder(batch[name]) for name in ("x", "x_next", "y") + (("x_pair",) if pairing == "paired" else ())
    }
    shift = 1 if content_from == "shuffled" else 0
    x_bound = aid = y_bound = 0.0
    for i in range(n):

        def row(g, at=i):
            return Gaussian(g.mean[at : at + 1], g.logvar[at : at + 1])

        now, after = row(codes["x"][0]), row(codes["x_next"][0])
        other = (i - shift) % n
        w = row(codes["x_next"][1], other)
        eps = first[i : i + 1]
        zhat = normal(after).mean + eps[:, :2] * (0.5 * after.logvar).exp()
        content = w.mean + eps[:, 6:8] * (0.5 * w.logvar).exp()
        zbar_of = model.backward_net(zhat, batch["x"][i : i + 1], u[i : i + 1])
        zbar = zbar_of.mean + eps[:, 2:4] * (0.5 * zbar_of.logvar).exp()
        at = model.transition(zbar, u[i : i + 1])
        matrix = torch.eye(2) + at.v[0][:, None] * at.r[0][None]
        z = torch.linalg.solve(matrix, zhat[0] - at.b[0] @ u[i] - at.c[0])

        def nll(code, picture):
            return -float(Bernoulli(logits=model.decoder(code)).log_prob(picture.flatten()[None]).sum())

        x_bound += nll(torch.cat([zhat, content], 1), batch["x_next"][i])
        x_bound += float(kl_divergence(normal(zbar_of), normal(now)) - normal(after).entropy())
        x_bound += float(-normal(now).log_prob(z[None]) + torch.linalg.slogdet(matrix)[1])
        x_bound += float(kl_divergence(normal(row(codes["x_next"][1])), Independent(Normal(-torch.ones(1, 2), 1.0), 1)))
        point = now.mean + eps[:, 4:6] * (0.5 * now.logvar).exp()
        map_there = model.transition(point, u[i : i + 1])
        there = (torch.eye(2) + map_there.v[0][:, None] * map_there.r[0][None]) @ point[0] + map_there.b[0] @ u[i]
        aid += nll(torch.cat([(there + map_there.c[0])[None], content], 1), batch["x_next"][i])
        v, w_y, eps = row(codes["y"][0]), row(codes["y"][1], other), second[i : i + 1]
        drawn = v.mean + eps[:, :2] * (0.5 * v.logvar).exp()
        y_bound += nll(torch.cat([drawn, w_y.mean + eps[:, 2:] * (0.5 * w_y.logvar).exp()], 1), batch["y"][i])
        y_bound += float(kl_divergence(normal(row(codes["y"][1])), Independent(Normal(torch.ones(1, 2), 1.0), 1)))
        if pairing == "paired":
            y_bound += float(kl_divergence(normal(v), normal(row(codes["x_pair"][0]))))
        elif pairing == "none":
            y_bound += float(kl_divergence(normal(v), Independent(Normal(torch.zeros(1, 2), 1.0), 1)))
        else:
            parts = MixtureSameFamily(Categorical(torch.ones(n)), normal(codes["x"][0]))
            y_bound += float(normal(v).log_prob(drawn) - parts.log_prob(drawn))
    # float32: a sum over 1,600 pixels is right to about 1e-6 of itself, and so is what the networks make of a draw
    assert abs(step.logged["x_bound"] - x_bound / n) < 2e-5 * abs(x_bound / n)
    assert abs(step.logged["foretold"] - aid / n) < 2e-5 * aid / n
    assert abs(step.logged["y_bound"] - y_bound / n) < 2e-5 * abs(y_bound / n)
    assert abs(total - (x_bound + 0.7 * aid + y_bound) / n) < 2e-5 * abs(total)


def _batch(trainer):
    return trainer.model.collect(Source(trainer.dataset, 8, trainer.generator))


def test_y_frames_come_with_the_frame_of_the_same_state():
    trainer = trainer_of()
    batch = _batch(trainer)
    # The agent's centre of mass is the same in both, its shape is not.
    still = trainer.dataset.background.float()
    for name, pixels in (("y", (10, 13)), ("x_pair", (9, 9))):
        agent = (batch[name][:, 0] - still).clamp_min(0)
        assert float(agent.flatten(1).sum(1).max()) <= pixels[1]
    assert bool((batch["y"] - batch["x_pair"] > -1e-6).flatten(1).float().mean(1).gt(0.99).all())
    centres = []
    for name in ("y", "x_pair"):
        agent = (batch[name][:, 0] - still).clamp_min(0)
        axis = torch.arange(agent.shape[1], dtype=torch.float32)
        mass = agent.sum((1, 2)).clamp_min(1e-6)
        centres.append(torch.stack([(agent.sum(k) * axis).sum(1) / mass for k in (1, 2)], 1))
    seen = torch.stack([(batch[n][:, 0] - still).clamp_min(0).flatten(1).sum(1) for n in ("y", "x_pair")]).amin(0) > 1
    assert int(seen.sum()) > 2
    # One pixel, for shapes of 3 to 4 pixels that obstacles may cut; frames of other states are many apart.
    assert float((centres[0] - centres[1])[seen].abs().max()) < 1.5


@pytest.mark.parametrize(("grad", "moves"), [("both", True), ("y_only", False)])
def test_whether_the_prior_of_y_learns(generator, grad, moves):
    model = trainer_of(prior_grad=grad).model
    tensors = [torch.randn(5, 2, generator=generator).requires_grad_() for _ in range(4)]
    v, prior = Gaussian(*tensors[:2]), Gaussian(*tensors[2:])
    model.y_prior(v, v.mean, v, prior).sum().backward()
    assert tensors[0].grad is not None
    assert (tensors[2].grad is not None) == moves


def test_mixture_and_content(generator):
    mean, logvar = (torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    value = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    parts = MixtureSameFamily(Categorical(torch.ones(7)), normal(Gaussian(mean, logvar)))
    assert torch.allclose(mixture_log_density(value, Gaussian(mean, logvar)), parts.log_prob(value), atol=1e-10)
    prior = MultivariateNormal(torch.full((3,), -1.0, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    full = MultivariateNormal(mean, torch.diag_embed(logvar.exp()))
    assert torch.allclose(content_kl(Gaussian(mean, logvar), -1.0), kl_divergence(full, prior), atol=1e-10)
    assert float(content_kl(Gaussian(mean[:, :0], logvar[:, :0]), 1.0).abs().max()) == 0


# The trained model


def test_transitions_start_at_the_identity_and_the_ablation_stays_there(generator):
    z, u = torch.randn(50, 2, generator=generator), torch.rand(50, 2, generator=generator) * 2 - 1
    fresh = Transition(2, 2, 100, "zu", identity=False)(z, u)
    assert float((fresh.matrix - torch.eye(2)).abs().max().detach()) < 0.05
    frozen = Transition(2, 2, 100, "zu", identity=True)
    assert list(frozen.parameters()) == []
    assert torch.equal(frozen(z, u).forward(z, u), z)
    assert float(frozen(z, u).log_abs_det().abs().max()) == 0


def test_the_point_of_linearisation_may_leave_the_action_out(generator):
    z, u = torch.randn(5, 2, generator=generator), torch.randn(2, 5, 2, generator=generator)
    alone, both = Transition(2, 2, 8, "z", False), Transition(2, 2, 8, "zu", False)
    assert torch.equal(alone(z, u[0]).b, alone(z, u[1]).b)
    assert not torch.equal(both(z, u[0]).b, both(z, u[1]).b)


@torch.no_grad()
def test_content_and_dynamics_are_apart_in_the_code(generator):
    trainer = trainer_of()
    model = trainer.model.eval()
    x = trainer.dataset.batch(torch.arange(4))["x"]
    code = model.encode(x)
    mixed, _ = model.latents.swap(code, model.encode(x.flip(0)), "content")
    assert torch.equal(mixed["dynamics"], code["dynamics"])
    after = model.foretell(mixed, torch.zeros(4, 2))
    assert torch.equal(after["content"], mixed["content"])
    assert torch.equal(after["dynamics"], model.foretell(code, torch.zeros(4, 2))["dynamics"])
    # u is read in the data's units: 3 pixels are 1.
    far = model.foretell(code, torch.full((4, 2), 3.0))["dynamics"]
    scaled = model.local(code["dynamics"], torch.ones(4, 2)).forward(code["dynamics"], torch.ones(4, 2))
    assert torch.equal(far, scaled)


def test_rce_learns_from_any_transitions_with_continuous_actions(tmp_path):
    options = {"hidden": 8, "transition_hidden": 4, "batch": 8, "steps": 2, "device": "cpu", "quiet": True}
    run = distk.train("rce", data="transitions", count=50, out=tmp_path / "a", **options)
    model = distk.load(run.checkpoint, "cpu")
    assert [g.name for g in model.latents] == ["dynamics"]
    with pytest.raises(distk.UsageError, match="must be numbers, not a choice"):
        distk.train("rce", data="transitions:maze", out=tmp_path / "b", **options)


def test_the_learning_rate_falls_as_a_cosine():
    model = trainer_of(lr=1e-3, lr_end=5e-5).model
    model.run_steps = 100
    assert model.schedule(0)["lr"] == pytest.approx(1e-3)
    assert model.schedule(50)["lr"] == pytest.approx((1e-3 + 5e-5) / 2)
    assert model.schedule(100)["lr"] == pytest.approx(5e-5)
