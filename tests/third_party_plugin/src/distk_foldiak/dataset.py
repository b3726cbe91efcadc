"""The bars problem: every subset of horizontal and vertical bars, once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, option


@dataclass(frozen=True)
class Config:
    """How many bars there are."""

    bars: int = option(3, "bars in each direction; there are 4 ** bars images", min=1, max=8)


class Foldiak(FactorDataset[Config]):
    """Images float32 [1, s, s] in [0, 1], s = 2 * bars + 1; pixels where bars cross are no brighter than a bar."""

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        side = 2 * config.bars + 1
        self.spec = DataSpec("image", (1, side, side))
        self.origin = "drawn on the device"
        names = [f"{way}{i + 1}" for way in ("row", "column") for i in range(config.bars)]
        self.factor_names = tuple(names)
        self.factor_sizes = (2,) * len(names)
        self.factor_kinds = ("ordinal",) * len(names)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows int64 [n] -> `x` [n, 1, s, s]."""
        on = self.factors(rows).float()
        spread = torch.zeros(self.config.bars, self.spec.shape[1], device=self.device)
        spread[torch.arange(self.config.bars), 2 * torch.arange(self.config.bars) + 1] = 1
        level, upright = (half @ spread for half in on.chunk(2, dim=1))
        return {"x": level[:, None, :, None].maximum(upright[:, None, None, :]).expand(-1, 1, *self.spec.shape[1:])}
