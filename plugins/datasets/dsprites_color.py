"""dSprites in colour (Burgess et al. 2018, Figure 4a): the silhouette of a sprite times an RGB colour.

The published text does not define the colours. Here hue is uniform, saturation and value are uniform on [0.5, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, UsageError, option
from distk.plugins.datasets.dsprites import NPZ, SHAPES, DSprites
from distk.plugins.datasets.dsprites import Config as GreyConfig

COLOURS = (10, 3, 3)
"""Bins of hue, saturation and value in the table of factors."""


@dataclass(frozen=True)
class Config(GreyConfig):
    """The part of dSprites, and how often each of its images is coloured."""

    copies: int = option(1, "differently coloured copies of each image", min=1, max=1024)


class DSpritesColor(FactorDataset[Config]):
    """Factors of dSprites and hue 10, saturation 3, value 3 (bins of continuous colours).

    Every image of dSprites is there `copies` times, each time in a colour of its own, drawn once and for all. So the
    rows are not a full grid; `observe` still draws any combination of factors, colours at the middle of their bin.
    """

    reads = NPZ
    factor_names = (*DSprites.factor_names, "hue", "saturation", "value")
    factor_kinds = (*DSprites.factor_kinds, "circular", "ordinal", "ordinal")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        plain = {name: getattr(config, name) for name in ("size", "scales", "orientations", "positions")}
        self.grey = DSprites(GreyConfig(**plain), device, files)
        self.factor_sizes = (*self.grey.factor_sizes, *COLOURS)
        self.spec = DataSpec("image", (3, config.size, config.size), classes=SHAPES)
        self.origin = f"dSprites {self.grey.origin}, coloured by distk"
        count = len(self.grey) * config.copies
        # Drawn on the host, so that every device has the same colours: a place in [0, 1) of hue, saturation, value.
        place = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)).to(device)
        self._bins = torch.tensor(COLOURS, device=device)
        bins = (place * self._bins).long().clamp_(max=self._bins - 1)
        grey = self.grey.factors(torch.arange(count, device=device) // config.copies)
        self.place, self.table = place, torch.cat([grey, bins], 1)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], `label` int64 `[n]` the shape, `factors` int64 `[n, 8]`."""
        x = self.grey.batch(rows // self.config.copies)["x"]
        factors = self.factors(rows)
        return {"x": x * _colour(self.place[rows]), "label": factors[:, 0], "factors": factors}

    def observe(self, factors: Tensor) -> Tensor:
        """Factor values int64 `[n, 8]`, in the table or not -> images `[n, 3, size, size]`.

        Raises UsageError for values outside `factor_sizes`.
        """
        factors = torch.as_tensor(factors, device=self.device).long()
        if factors.dim() != 2 or factors.shape[1] != len(self.factor_sizes):
            raise UsageError(f"factors must be whole numbers [n, {len(self.factor_sizes)}].")
        colour = factors[:, 5:]
        if bool(((colour < 0) | (colour >= self._bins)).any()):
            raise UsageError("colours must be whole numbers with hue 0..9, saturation 0..2, value 0..2.")
        return self.grey.observe(factors[:, :5]) * _colour((colour + 0.5) / self._bins)


def _colour(place: Tensor) -> Tensor:
    """Places in [0, 1] of hue, saturation and value `[n, 3]` -> RGB `[n, 3, 1, 1]`."""
    hue, saturation, value = place[:, 0], 0.5 + 0.5 * place[:, 1], 0.5 + 0.5 * place[:, 2]
    return hsv_to_rgb(hue, saturation, value)[:, :, None, None]


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV, each `[n]` in [0, 1] -> RGB `[n, 3]` in [0, 1] (Smith 1978, in its form without cases)."""
    # Red, green and blue run through the same trapezium over the hue, 4/6 and 2/6 of a turn apart.
    phase = (hue[:, None] * 6 + torch.arange(5, 0, -2, device=hue.device)) % 6
    fall = torch.minimum(phase, 4 - phase).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * fall)
