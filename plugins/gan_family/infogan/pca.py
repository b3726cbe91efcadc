"""Principal components as a code: the baseline beside InfoGAN (Eastwood & Williams 2017, Tables 1 and 2).

Fitted in closed form before the first step, so that a run takes none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Source, UsageError, option
from distk.console import counted, progress

SPARE, PASSES, SETTLED = 16, 500, 1e-7
"""Directions beyond those that are asked for, most passes over the data, and the relative change of the variances at
which these end."""
CHUNK = 2048


@dataclass(frozen=True)
class Config:
    """How many components, and of what."""

    components: int = option(6, "principal components", paper="6 (also 10)", min=1, max=4096)
    fit_items: int = option(20_000, "training items to fit them on, drawn by the seed; or as many as there are", min=2)
    standardise: bool = option(True, "divide every pixel by its deviation first, so that all count alike")


class PCA(Method[Config]):
    """Code `c`: coordinates along the principal components, each of unit variance over the training items."""

    data = "teapots"
    kinds = ("image", "vector")
    closed_form = True
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 0, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {"data": {"name": "teapots", "size": 16, "poses": 1024, "items": 8192, "gap": "paper"}},
        "paper": {
            "data": {"name": "teapots", "items": 200_000, "poses": 0, "size": 64, "supersample": 2, "gap": "paper"}
        },
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        width, k = math.prod(data.shape), config.components
        if k > width:
            raise ValueError(f"items of {counted(width, 'number')} have at most as many components, not {k}")
        self.latents = LatentSpace.of(Latent("c", "continuous", k))
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(width), requires_grad=False)
        self.axes = nn.Parameter(torch.zeros(k, width), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(k), requires_grad=False)
        self.explained = nn.Parameter(torch.zeros(()), requires_grad=False)
        """Share of the training items' variance that the components hold, of standardised pixels where they are."""

    @torch.no_grad()
    def initialise(self, source: Source) -> None:
        """Fit mean, scale, axes `[components, width]` and deviations along them to the training items.

        Raises UsageError for fewer items than components.
        """
        data, k = source.dataset, self.config.components
        rows = data.rows_of("train")
        order = torch.randperm(len(rows), generator=source.generator, device=rows.device)
        rows = rows[order[: self.config.fit_items]]
        if len(rows) <= k:
            raise UsageError(
                f"{counted(k, 'component')} cannot come from {counted(len(rows), 'training item')} of '{data.name}'."
            )
        x = torch.cat([data.batch(part)["x"].flatten(1).float() for part in rows.split(CHUNK)])
        mean = x.mean(0, dtype=torch.float64).float()
        x = x.sub_(mean)
        if self.config.standardise:
            deviation = x.square().mean(0, dtype=torch.float64).sqrt().float()
            # A pixel that never changes has none.
            self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))
            x = x.div_(self.scale)
        axes, variance = principal_axes(x, k, source.generator)
        self.mean.copy_(mean)
        self.axes.copy_(axes)
        self.deviation.copy_(variance.sqrt().clamp_min(1e-12))
        self.explained.copy_(variance.sum() / x.square().mean(0, dtype=torch.float64).sum().clamp_min(1e-30))

    def encode(self, x: Tensor) -> Code:
        return {"c": (x.flatten(1) - self.mean) / self.scale @ self.axes.T / self.deviation}

    def decode(self, code: Code) -> Tensor:
        low, high = self.spec.range
        x = self.mean + self.scale * ((code["c"] * self.deviation) @ self.axes)
        return (x.clamp(low, high) if self.spec.kind == "image" else x).view(-1, *self.spec.shape)


def principal_axes(x: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centred rows `[n, width]` -> the k leading eigenvectors of their covariance `[k, width]`, orthonormal, and their
    eigenvalues `[k]` (variances over n), largest first; float64.

    By subspace iteration from random directions, so that neither the covariance nor a decomposition of all of x is
    made. The entry of an axis that is largest in size is positive.
    """
    n, width = x.shape
    count = min(k + SPARE, n, width)
    basis = torch.randn(width, count, generator=generator, device=generator.device).to(x.device)
    before = torch.zeros(k, device=x.device, dtype=torch.float64)
    with progress("principal components", PASSES) as advance:
        for _ in range(PASSES):
            basis = torch.linalg.qr(basis.double())[0].float()
            basis = x.T @ (x @ basis)
            variance = torch.linalg.svdvals(basis.double())[:k] / n
            advance(1)
            if bool(((variance - before).abs() <= SETTLED * variance[0]).all()):
                break
            before = variance
    basis = torch.linalg.qr(basis.double())[0]
    shadow = x @ basis.float()
    variance, turn = torch.linalg.eigh((shadow.T.double() @ shadow.double()) / n)
    axes = (basis @ turn).T.flip(0)[:k]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return axes * largest.sign(), variance.flip(0)[:k].clamp_min(0)
