"""Claims about the losses themselves, judged by arithmetic on embeddings that are drawn: no run is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distk.plugins.vae_family.fstat.method import (
    binomial_deviance_loss,
    f_statistic_loss,
    histogram_loss,
    triplet_loss,
)
from distk.study.claims import FAILS, HOLDS, Claim, Verdict

DRAWS, CLASSES, PLACES, K, D = 20, 4, 6, 8, 2
"""Embeddings that are drawn; classes, items of each and dimensions; dimensions on which pairs are to be apart."""
APART = 1e3
"""Distance of the classes in their own standard deviations, on the dimensions on which they are apart."""
TINY, CHANGED = 1e-9, 1e-3
"""What counts as no gradient, as a share of that of classes that are one; as no change, and as a change, of a loss."""
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "F-statistic": lambda z, mask: f_statistic_loss(z, mask, D)[0],
    "triplet": lambda z, mask: triplet_loss(z, mask, 0.1),
    "histogram": lambda z, mask: histogram_loss(z, mask, 0.01),
    "binomial deviance": lambda z, mask: binomial_deviance_loss(z, mask, 2.0, 0.5, 10.0),
}


def judge(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """The kinds `of the loss: it vanishes` and `of the losses: rotated`."""
    generator = torch.Generator().manual_seed(0)
    if claim.kind == "of the loss: it vanishes":
        shares = [vanished(generator) for _ in range(DRAWS)]
        told = f"gradient of parted classes at most {max(shares):.1e} of that of classes that are one"
        return _verdict(max(shares) < TINY, told)
    if claim.kind == "of the losses: rotated":
        changes = [rotated(generator) for _ in range(DRAWS)]
        own = min(change["F-statistic"] for change in changes)
        rivals = max(value for change in changes for name, value in change.items() if name != "F-statistic")
        told = f"F-statistic changes by at least {own:.2g} of itself, rivals by at most {rivals:.1e}"
        return _verdict(own > CHANGED and rivals < TINY, told)
    return None


def drawn(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """An embedding in which classes are one, float64 `[C, n, K]`, and its mask `[C, n]`."""
    z = torch.randn(CLASSES, PLACES, K, generator=generator, dtype=torch.float64)
    return z, torch.ones(CLASSES, PLACES, dtype=torch.float64)


def vanished(generator: torch.Generator) -> float:
    """Norm of the loss's gradient with the classes apart on `D` dimensions, as a share of that without."""
    z, mask = drawn(generator)
    parted = z.clone()
    parted[..., :D] += APART * torch.arange(CLASSES, dtype=z.dtype)[:, None, None]
    norms = []
    for held in (parted, z):
        held.requires_grad_()
        (gradient,) = torch.autograd.grad(LOSSES["F-statistic"](held, mask), held)
        norms.append(float(gradient.norm()))
    return norms[0] / norms[1]


def rotated(generator: torch.Generator) -> dict[str, float]:
    """By what share of itself every loss changes when the embedding is rotated."""
    z, mask = drawn(generator)
    z = z + torch.randn(CLASSES, 1, K, generator=generator, dtype=z.dtype)
    turn = torch.linalg.qr(torch.randn(K, K, generator=generator, dtype=z.dtype)).Q
    return {name: abs(float(loss(z @ turn, mask) / loss(z, mask)) - 1) for name, loss in LOSSES.items()}


def _verdict(holds: bool, told: str) -> Verdict:
    return Verdict(HOLDS if holds else FAILS, n=DRAWS, how="arithmetic", reason=f"{told}, in {DRAWS} draws")
