"""One Gaussian blob on black, moved over a grid of positions (Burgess et al. 2018, Figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, option

CANVAS = 64


@dataclass(frozen=True)
class Config:
    """Size of the pictures, of the blob and of the grid. Lengths are in pixels of a 64x64 canvas."""

    size: int = option(64, "height and width in pixels; the canvas is scaled to it", min=8, max=512)
    sigma: float = option(8.0, "standard deviation of the blob, in pixels of a 64x64 canvas", above=0, max=64)
    positions: int = option(32, "values of each coordinate, evenly from 16 to 48 of 64 pixels", min=2, max=512)


class Blobs(FactorDataset[Config]):
    """Factors posX and posY; peak 1, real-valued pixels.

    The published text gives neither the blob's width nor the grid. The grid is a choice. The width is such that a code
    of the position pays at the published beta of 150: to first order it does while beta is below the sum over pixels of
    cov(position, pixel)^2 / (p (1 - p)), p the mean pixel, which is 278 at 64x64, and 92 for half this width.
    """

    factor_names = ("posX", "posY")
    factor_kinds = ("ordinal", "ordinal")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.factor_sizes = (config.positions, config.positions)
        self.spec = DataSpec("image", (1, config.size, config.size))
        self.origin = "rendered on the device: a Gaussian blob at each of a grid of positions"
        pixel = (torch.arange(config.size, device=device, dtype=torch.float32) + 0.5) * (CANVAS / config.size)
        centre = torch.linspace(16, 48, config.positions, device=device)
        # The blob is a product of a profile along x and one along y: float32 [positions, size].
        self.profile = (-0.5 * ((pixel - centre[:, None]) / config.sigma) ** 2).exp()

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `factors` int64 `[n, 2]`."""
        factors = self.factors(rows)
        along_x, along_y = self.profile[factors[:, 0]], self.profile[factors[:, 1]]
        return {"x": (along_y[:, None, :, None] * along_x[:, None, None, :]), "factors": factors}
