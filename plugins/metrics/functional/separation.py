"""Informativeness and separation of latents from their posteriors alone (Do & Tran 2020), no labels needed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import checks
from .blocks import most, numbers, spans
from .checks import Array, Result


def sepin(mean: Array, std: Array, samples: int = 2000, seed: int = 0) -> Result:
    """SEPIN and WSEPIN: I(x; z_i | z of the others), what a latent says that no other says (Do & Tran 2020, section 4).

    mean, std: of the posteriors N(mean, std^2), [N, D]; q(z) is their mixture over all rows. Estimated as the mean over
    `samples` draws (a row, then z from its posterior) of log q(z_i | x) - log q(z) + log q(z without z_i), in nats.
    informativeness [D] is I(x; z_i) by the same draws, between 0 and log N. wsepin weighs each latent by its share of
    the informativeness, sepin is the plain mean. Keys: wsepin, sepin, separability [D], informativeness [D],
    standard_error (of wsepin over the draws). A latent that another one copies has separability 0 but for the
    posteriors' own noise. Raises ValueError for a std that is not above 0.
    """
    m, s = checks.matrix(mean, "mean", own=True), checks.matrix(std, "std", own=True)
    if m.shape != s.shape:
        raise ValueError(f"mean has shape {tuple(m.shape)} but std {tuple(s.shape)}")
    if bool((s.amin(0) <= 0).any()):
        raise ValueError("std must be above 0 everywhere: a latent without noise has no density")
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(len(m), (samples,), generator=generator).to(m.device)
    noise = torch.randn(samples, m.shape[1], generator=generator, dtype=torch.float64).to(m.device)
    spread = s[row].double()
    z = m[row].double() + spread * noise
    own = -0.5 * noise.square() - spread.log() - 0.5 * math.log(2 * math.pi)
    single, rest, joint = _mixtures(z, m, s)
    separate = own - joint[:, None] + rest
    informed = (own - single).mean(0)
    weight = informed.clamp_min(0)
    weight = weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
    separability = separate.mean(0)
    weighted = separate @ weight
    return {
        "wsepin": float(weighted.mean()),
        "sepin": float(separability.mean()),
        "separability": checks.array(separability),
        "informativeness": checks.array(informed),
        "standard_error": float(weighted.std() / samples**0.5),
    }


def _mixtures(z: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log q(z_i) and log q(z without z_i), `[S, D]` each, and log q(z) `[S]`, under the mixture of N posteriors."""
    n, d = mean.shape
    single, rest = (torch.full_like(z, -torch.inf) for _ in range(2))
    joint = torch.full_like(z[:, 0], -torch.inf)
    held = most(z)
    draws = max(1, held // (n * d))
    for rows in spans(n, d, held):  # the mixture's parts, and the draws: what is held is [draws, rows, D]
        own, spread = numbers(mean[rows]), numbers(std[rows])
        constant = spread.log() + 0.5 * math.log(2 * math.pi)
        for at in spans(len(z), 1, draws):
            density = -0.5 * ((z[at, None] - own) / spread).square() - constant
            whole = density.sum(2)
            joint[at] = torch.logaddexp(joint[at], whole.logsumexp(1))
            single[at] = torch.logaddexp(single[at], density.logsumexp(1))
            rest[at] = torch.logaddexp(rest[at], (whole[:, :, None] - density).logsumexp(1))
    log_n = math.log(n)
    return single - log_n, rest - log_n, joint - log_n
