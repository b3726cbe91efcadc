"""How much of each factor's variance one code explains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distk import CodeTable, Metric, option


@dataclass(frozen=True)
class Config:
    """Settings of the score."""

    least: float = option(0.0, "factors explained less than this count as 0", min=0, max=1)


class BestR2(Metric[Config]):
    """The largest squared correlation of each factor with one code; the headline is the mean over factors."""

    headline = "r2"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        factors = table.needs_factors().double()
        width = table.codes.shape[1]
        correlation = torch.corrcoef(torch.cat([table.codes.double(), factors], 1).T)[:width, width:]
        best = correlation.square().nan_to_num().amax(0)
        best = torch.where(best < self.config.least, 0.0, best)
        return {"r2": float(best.mean()), "worst": float(best.min()), "each": best}
