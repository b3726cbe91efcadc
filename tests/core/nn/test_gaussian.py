"""Gaussians and likelihoods against torch.distributions, scipy and Monte Carlo, in float64."""

from __future__ import annotations

import math

import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from distk.nn import (
    bernoulli_nll,
    gaussian_kl,
    gaussian_kl_between,
    gaussian_nll,
    kl_between,
    kl_to_prior,
    log_normal,
    reparameterise,
)


def four(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)


def test_kl_of_each_element_is_that_of_torch_distributions(generator) -> None:
    mean_q, logvar_q, mean_p, logvar_p = four(generator)
    std_q, std_p = (0.5 * logvar_q).exp(), (0.5 * logvar_p).exp()
    prior = kl_divergence(Normal(mean_q, std_q), Normal(0.0, 1.0))
    between = kl_divergence(Normal(mean_q, std_q), Normal(mean_p, std_p))
    for ours, theirs in (
        (kl_to_prior(mean_q, logvar_q), prior),
        (gaussian_kl(mean_q, std_q), prior),
        (kl_between(mean_q, logvar_q, mean_p, logvar_p), between),
        (gaussian_kl_between(mean_q, std_q, mean_p, std_p), between),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_kl_is_the_mean_log_ratio_of_samples(generator) -> None:
    mean_q, logvar_q, mean_p, logvar_p = four(generator)[:, 0]
    noise = torch.randn(100_000, 5, generator=generator, dtype=torch.float64)
    z = reparameterise(mean_q, (0.5 * logvar_q).exp(), noise)
    ratio = log_normal(z, mean_q, logvar_q) - log_normal(z, mean_p, logvar_p)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert bool(((ratio.mean(0) - kl_between(mean_q, logvar_q, mean_p, logvar_p)).abs() < 6 * error).all())


def test_log_density_is_scipys(generator) -> None:
    value, mean, logvar, _ = four(generator)
    theirs = scipy.stats.norm.logpdf(value, mean, (0.5 * logvar).exp())
    torch.testing.assert_close(log_normal(value, mean, logvar), torch.from_numpy(theirs), rtol=1e-12, atol=1e-12)


def test_formulas_broadcast(generator) -> None:
    z, mean, logvar, _ = four(generator)
    every = log_normal(z.unsqueeze(1), mean, logvar)
    assert every.shape == (6, 6, 5)
    torch.testing.assert_close(every[2, 4], log_normal(z[2], mean[4], logvar[4]))


def test_a_samples_gradient_reaches_mean_and_spread(generator) -> None:
    mean, std, noise, weight = four(generator)
    mean.requires_grad_()
    std.requires_grad_()
    (reparameterise(mean, std, noise) * weight).sum().backward()
    torch.testing.assert_close(mean.grad, weight)
    torch.testing.assert_close(std.grad, weight * noise)


def test_likelihoods_sum_over_an_items_elements(generator) -> None:
    logits, mean = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    x = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    binary = (x > 0.5).double()
    torch.testing.assert_close(
        bernoulli_nll(logits, binary), -Bernoulli(logits=logits).log_prob(binary).flatten(1).sum(1)
    )
    p = logits.sigmoid()
    grey = -(x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(bernoulli_nll(logits, x), grey)
    theirs = -Normal(mean, math.sqrt(0.3)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_nll(mean, x, 0.3), theirs)
