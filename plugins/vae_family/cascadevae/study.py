"""What the engine does not judge by itself of the study `discrete`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distk.study.claims import FAILS, FEW, HOLDS, LEAST, Claim, Verdict


def judge(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """Of "the best run": whether one run reaches the bound, in the column's unit; None of other kinds of claims."""
    if claim.kind != "the best run" or claim.bound is None:
        return None
    found = [row.get(claim.column) for row in rows if row["variant"] == claim.better]
    values = [float(value) for value in found if isinstance(value, (int, float)) and math.isfinite(value)]
    if len(values) < LEAST:
        return Verdict(FEW, n=len(values), reason=f"{len(values)} of at least {LEAST} runs")
    margin = max(values) - claim.bound
    return Verdict(HOLDS if margin >= 0 else FAILS, margin, n=len(values), how="the best run")
