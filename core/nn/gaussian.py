"""Diagonal Gaussians, on log variances. Everything is per element: sum and average where the loss says so."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kl_to_prior(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each element, nats, broadcast shape."""
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1)


def kl_between(mean_q: Tensor, logvar_q: Tensor, mean_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(N(mean_q, exp(logvar_q)) || N(mean_p, exp(logvar_p))) of each element, nats, broadcast shape."""
    spread = (logvar_q.exp() + (mean_q - mean_p).square()) * (-logvar_p).exp()
    return 0.5 * (logvar_p - logvar_q + spread - 1)


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    """`kl_to_prior` of a standard deviation instead of a log variance."""
    return kl_to_prior(mean, 2 * std.log())


def gaussian_kl_between(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """`kl_between` of standard deviations instead of log variances."""
    return kl_between(mean_q, 2 * std_q.log(), mean_p, 2 * std_p.log())


def log_normal(value: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log N(value; mean, exp(logvar)) of each element, nats, broadcast shape."""
    return -0.5 * (math.log(2 * math.pi) + logvar + (value - mean).square() * (-logvar).exp())


def reparameterise(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """mean + std * noise: with standard normal noise a sample of N(mean, std^2) whose gradient reaches both."""
    return torch.addcmul(mean, std, noise)
