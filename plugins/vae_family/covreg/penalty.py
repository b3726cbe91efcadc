"""covreg: penalising the covariance of a coding layer's activations (Kageback & Mogren 2016; ICLR 2018 submission).

For activations H `[N, p]` of a batch, C = (H - mean)^T (H - mean) / (N - 1) and

    L_Sigma = (1 / p^2) sum_ij |C_ij|,

the loss being error + weight * L_Sigma. The diagonal is part of it: that is what switches superfluous units off, while
the rest decorrelates those that stay. (The paper's sums run to N, where p is meant, and its covariance sums twice.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distk import Penalty, UsageError, option
from distk.console import counted, warn_once


@dataclass(frozen=True)
class Config:
    """Variants of L_Sigma. It leaks: with a linear decoder h/s costs the same error and 1/s^2 of the penalty."""

    diag: Literal["keep", "drop"] = option(
        "keep", "drop leaves the variances alone: pure decorrelation, which switches no unit off", paper="keep"
    )
    norm: Literal["p2", "none"] = option("p2", "p2 divides by the square of the number of units", paper="p2")
    scale: Literal["none", "trace"] = option(
        "none",
        "trace divides by the mean variance. Without it, scaling the code down and the decoder up lowers the penalty "
        "at no cost, so that results depend on steps, learning rate and weight decay",
        paper="none",
    )
    channels: bool = option(
        False, "treat the positions of a feature map `[n, c, h, w]`, or the steps of `[n, t, p]`, as examples"
    )


class CovariancePenalty(Penalty[Config]):
    """L_Sigma, summed over the layers that it is put on."""

    weight = 0.08

    def value(self, activations: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([self.of(h) for h in activations.values()]).sum()

    def of(self, h: Tensor) -> Tensor:
        """L_Sigma of one layer's activations `[n, ...]`, a scalar."""
        c = covariance(as_units(h, self.config.channels))
        config, p = self.config, c.shape[-1]
        size = off_diagonal(c).abs().sum() if config.diag == "drop" else c.abs().sum()
        if config.scale == "trace":
            size = size * p / c.diagonal().sum().clamp_min(torch.finfo(c.dtype).tiny)
        return size / p**2 if config.norm == "p2" else size

    def check(self, layer: str, batch: int, units: int | None, whole: bool) -> None:
        if batch < 2:
            raise UsageError(f"covreg needs at least 2 examples per batch (got {batch}).")
        if units is not None and batch < 2 * units and not whole and not self.config.channels:
            warn_once(
                f"covreg: covariances of the {counted(units, 'unit')} of '{layer}' from batches of {batch} come out too"
                f" large; use --batch {2 * units} or more, and judge the result on the whole data."
            )


class ActivationPenalty(Penalty):
    """L1: mean |h| over examples and units, summed over the layers; what the paper compares L_Sigma with."""

    weight = 0.08

    def value(self, activations: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([h.abs().mean() for h in activations.values()]).sum()


def as_units(h: Tensor, channels: bool = False) -> Tensor:
    """Activations `[n, ...]` -> `[examples, units]`: flattened per example, or with positions as further examples."""
    if channels and h.dim() == 3:
        return h.flatten(0, 1)
    if channels and h.dim() > 3:
        return h.movedim(1, -1).flatten(0, -2)
    return h.flatten(1)


def covariance(h: Tensor) -> Tensor:
    """Unbiased covariance of `[..., N, p]` over N: `[..., p, p]`. The gradient passes through the mean, too."""
    centred = h - h.mean(-2, keepdim=True)
    return centred.mT @ centred / (h.shape[-2] - 1)


def off_diagonal(c: Tensor) -> Tensor:
    """Square matrices `[..., p, p]` with zeros on the diagonal."""
    return c * (1 - torch.eye(c.shape[-1], dtype=c.dtype, device=c.device))


def l_sigma(h: Tensor, drop: bool = False) -> Tensor:
    """L_Sigma of each member's activations `[M, N, p]`: `[M]`."""
    c = covariance(h)
    return (off_diagonal(c) if drop else c).abs().sum((-2, -1)) / c.shape[-1] ** 2
