"""Two scores: one of a table of codes, which a file serves as well, and one that looks at the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from distk import CodeTable, Metric, NoConfig


class MCC(Metric[NoConfig]):
    """Mean absolute correlation of codes and factors, matched one to one (Hyvarinen & Morioka 2016)."""

    headline = "mcc"
    Config = NoConfig

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        factors = table.needs_factors().double()
        width = table.codes.shape[1]
        both = torch.cat([table.codes.double(), factors], 1)
        size = np.nan_to_num(torch.corrcoef(both.T)[:width, width:].abs().cpu().numpy())
        return {"mcc": float(size[linear_sum_assignment(-size)].mean())}


class Jacobian(Metric[NoConfig]):
    """Pixels that a code moves, as the participation ratio of its squared slopes; mean over codes and items."""

    headline = "pixels"
    higher_is_better = False
    needs = ("decode",)
    Config = NoConfig

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model = table.model
        assert model is not None
        rows = table.codes[:8]
        columns = []
        for d in range(rows.shape[1]):
            along = torch.zeros_like(rows)
            along[:, d] = 1
            _, slope = torch.func.jvp(lambda codes: model.decode(model.latents.unflatten(codes)), (rows,), (along,))
            square = slope.flatten(1).double().square()
            columns.append(square.sum(1).square() / square.square().sum(1).clamp_min(1e-300))
        return {"pixels": float(torch.stack(columns).mean())}
