"""covstats: how correlated the units of a code are, and on how few its variance lies (Kageback & Mogren 2016).

All of it from the unbiased covariance C of the codes, in float64 and over everything that was encoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distk import CodeTable, Metric, UsageError, option
from distk.console import warn
from distk.covariance import columns_of, correlation, statistics
from distk.meaning import higher, lower, neither

COLLAPSED = "the coding layer is constant (collapsed)"


@dataclass(frozen=True)
class Config:
    """Which units, and how many of them TdV counts."""

    d: int | None = option(None, "units that TdV counts; without it there is no TdV", min=1, max=1 << 20)
    layer: str = option("code", "code for all continuous groups, or the name of one")


class CovStats(Metric[Config]):
    """The figures of `statistics`; as arrays `covariance` and `correlation` [p, p]."""

    headline = "cvr"
    measures = "dependence among codes, no labels"
    numbers = {
        "cvr": lower(1, source="Kageback & Mogren 2016", form="authors", what="sum of |covariance| over its trace"),
        "mapc": lower(0, 1, source="Kageback & Mogren 2016", form="authors", what="undefined where a unit is constant"),
        "mapc_varying": lower(0, 1, what="over the units that vary"),
        "units_varying": neither(0, unit="units", whole=True, what="with more than 0.001 of the largest variance"),
        "trace": neither(0, what="variance of all units"),
        "tdv": higher(0, 1, source="Kageback & Mogren 2016", form="authors", what="variance on the d largest units"),
        "ud90": lower(1, unit="units", whole=True, source="Kageback & Mogren 2016", form="authors"),
    }

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        codes = table.codes[:, columns_of(table, self.config.layer)].double()
        if len(codes) < 2:
            raise UsageError(f"a covariance needs at least 2 items, here is {len(codes)}.")
        c = torch.cov(codes.T).reshape(codes.shape[1], codes.shape[1])
        found = {key: float(value) for key, value in statistics(c, self.config.d).items()}
        reasons = {}
        if found["trace"] == 0:
            warn(COLLAPSED)
            reasons = {key: COLLAPSED for key, value in found.items() if math.isnan(value)}
        elif len(c) == 1:
            reasons["mapc"] = reasons["mapc_varying"] = "one unit has no pairs"
        else:
            reasons["mapc"] = "a unit is constant, so its correlations are undefined"
            reasons["mapc_varying"] = "fewer than two units vary"
        reasons = {key: text for key, text in reasons.items() if math.isnan(found[key])}
        arrays = {"covariance": c.cpu().numpy(), "correlation": correlation(c).cpu().numpy()}
        return {**found, **arrays, **({"reasons": reasons} if reasons else {})}
