"""The bounds of the family against quadrature over a code of one dimension."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec, Method, UsageError, can, one_hot
from distk.registry import registry

SPEC = DataSpec("image", (1, 4, 4))
GRID = torch.linspace(-20, 20, 8001, dtype=torch.float64)
UNIT = torch.linspace(-8, 8, 1601, dtype=torch.float64)
"""Points of the prior, and of a posterior in its own standard deviations."""
GAUSSIAN = ("vae", "betavae", "annealedvae", "betatcvae")


def made(name: str, seed: int, **settings: Any) -> Method:
    torch.manual_seed(seed)
    cls = registry().find("method", name).load()
    model = cls(cls.Config(**settings), SPEC).eval()
    for parameter in model.parameters():  # large enough that the posterior is not the prior
        parameter.data.mul_(2)
    return model


def log_likelihood(model: Any, y: Tensor, z: Tensor, *classes: Tensor) -> Tensor:
    """log p(y | z, c) of one item at each of these z `[points]`, float64."""
    parts = [
        model.decoder(torch.cat([part[:, None], *(c.expand(len(part), -1) for c in classes)], 1))
        for part in z.float().split(500)
    ]
    logits = torch.cat(parts).double().flatten(1)
    target = y.double().flatten().expand_as(logits)
    return -F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)


def parts(model: Any, x: Tensor, mean: Tensor, std: Tensor, *classes: Tensor) -> tuple[Tensor, Tensor]:
    """E_q log p(x | z, c) - KL(q(z|x) || p(z)), and log of the integral of p(x | z, c) p(z): `[n]` each.

    The expectation is taken over points of each item's own posterior, wherever it lies.
    """
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    step, wide = float(UNIT[1] - UNIT[0]), float(GRID[1] - GRID[0])
    expected, evidence = [], []
    for y, m, s in zip(x, mean.double().flatten(), std.double().flatten(), strict=True):
        z = m + s * UNIT
        inside = log_likelihood(model, y, z, *classes) + normal.log_prob(z) - normal.log_prob(UNIT) + s.log()
        expected.append((normal.log_prob(UNIT).exp() * inside).sum() * step)
        evidence.append(
            (log_likelihood(model, y, GRID, *classes) + normal.log_prob(GRID)).logsumexp(0) + math.log(wide)
        )
    return torch.stack(expected), torch.stack(evidence)


def held(model: Any, x: Tensor, expected: Tensor, evidence: Tensor, generator: torch.Generator, draws: int) -> None:
    """The mean of many draws is the expectation, within five standard errors, and below log p(x)."""
    with torch.no_grad():
        seen = torch.stack([model.bound(x, generator)["elbo"].double() for _ in range(draws)])
    error = seen.std(0) / draws**0.5
    assert bool(((seen.mean(0) - expected).abs() < 5 * error + 1e-4).all()), (seen.mean(0), expected, error)
    assert bool((expected <= evidence + 1e-6).all())


@pytest.mark.parametrize("name", GAUSSIAN)
def test_a_gaussian_bound_is_its_expectation(name: str, seed: int, generator: torch.Generator) -> None:
    model: Any = made(name, seed, z=1, arch="mlp")
    x = torch.rand(3, 1, 4, 4, generator=generator)
    with torch.no_grad():
        mean, logvar = model.infer(x)
        expected, evidence = parts(model, x, mean, (0.5 * logvar).exp())
    held(model, x, expected, evidence, generator, 1500)


def test_a_discrete_variable_is_summed_over_its_posterior(seed: int, generator: torch.Generator) -> None:
    model: Any = made("jointvae", seed, z=1, disc=(3,), arch="mlp", c_disc=(0.0, 1.0, 100.0, 30.0))
    x = torch.rand(3, 1, 4, 4, generator=generator)
    with torch.no_grad():
        mean, logvar, (log_q,) = model.heads(x)
        of_class = [parts(model, x, mean, (0.5 * logvar).exp(), one_hot(torch.tensor([k]), 3)) for k in range(3)]
        values = torch.stack([value for value, _ in of_class], 1)
        log_q = log_q.double()
        expected = (log_q.exp() * (values - math.log(3) - log_q)).sum(1)
        evidence = (torch.stack([value for _, value in of_class], 1) - math.log(3)).logsumexp(1)
    held(model, x, expected, evidence, generator, 1500)


def test_there_is_no_bound_without_nats_or_density(generator: torch.Generator, seed: int) -> None:
    x = torch.rand(3, 1, 4, 4, generator=generator)
    with pytest.raises(UsageError, match="squared errors"):
        made("vae", seed, z=1, arch="mlp", likelihood="gaussian").bound(x, generator)
    assert not can(made("aae", seed, z=2, arch="mlp"), "bound")


def test_the_terms_add_up(seed: int, generator: torch.Generator) -> None:
    x = torch.rand(3, 1, 4, 4, generator=generator)
    terms = made("vae", seed, z=2, arch="mlp").bound(x, generator)
    assert torch.allclose(terms["elbo"], -(terms["reconstruction"] + terms["kl"].sum(1)))
    assert terms["kl"].shape == (3, 2)


BOUNDED = (
    *("vae", "betavae", "annealedvae", "betatcvae", "cascadevae", "cascadevae-c", "dipvae", "dipvae-ii"),
    *("factorvae", "jointvae", "peychev-fc", "peychev-conv", "mvae", "mvae-baseline"),
)


def small(name: str, seed: int) -> tuple[Any, DataSpec]:
    """A method with the networks of its preset `demo`, enlarged, and what it takes."""
    from distk.settings import resolve

    torch.manual_seed(seed)
    settings = resolve(name, preset="demo")
    size = settings.data_options.get("size", 32)
    channels = 3 if settings.data == "sprites-scenes" else 1
    spec = DataSpec("image", (channels, size, size))
    model: Any = settings.method(settings.model, spec).eval()
    if "peychev" not in name:  # its weights begin large enough that the posterior is not the prior
        for parameter in model.parameters():
            parameter.data.mul_(1.5)
    return model, spec


@pytest.mark.parametrize("name", BOUNDED)
def test_every_bound_is_the_sum_of_what_is_charged(name: str, seed: int, generator: torch.Generator) -> None:
    """Reconstruction, KL, and of a discrete variable its KL to the uniform prior: of a point mass the log of S."""
    model, spec = small(name, seed)
    with torch.no_grad():
        terms = model.bound(torch.rand(3, *spec.shape, generator=generator), generator)
    discrete = terms["kl_discrete"].sum(1) if "kl_discrete" in terms else math.log(3) * (name == "cascadevae")
    charged = terms["reconstruction"] + terms["kl"].sum(1) + discrete
    assert torch.allclose(terms["elbo"], -charged, rtol=1e-6)  # the same sums in float32, maybe in another order
    assert float(terms["kl"].sum(1).min()) > 1e-5 * float(charged.max()), "else nothing of it would show"


@pytest.mark.parametrize("name", BOUNDED)
def test_the_posterior_is_the_one_whose_kl_the_bound_charges(name: str, seed: int, generator: torch.Generator) -> None:
    """Mean and standard deviation as `posterior` gives them, by torch's own KL of two normal distributions."""
    model, spec = small(name, seed)
    x = torch.rand(3, *spec.shape, generator=generator)
    with torch.no_grad():
        charged = model.bound(x, generator)["kl"]
        pairs = model.posterior(x).values()
        mean, std = (torch.cat([pair[k].flatten(1) for pair in pairs], 1).double() for k in (0, 1))
    told = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    )
    assert float(told.sum()) > 1e-3, "a posterior that is not the prior"
    # float32 rounds each term of a dimension to 6e-8 of its size, and terms cancel where they add up to nearly 0
    size = mean.shape[1] * 1e-6 * (1 + (mean.square() + std.square() + std.log().abs()).amax(1))
    size += 2e-8 * (1 / std).sum(1)  # cascadevae adds 1e-8 to the standard deviation before its logarithm is taken
    assert bool(((charged.double().sum(1) - told.sum(1)).abs() < size).all())
