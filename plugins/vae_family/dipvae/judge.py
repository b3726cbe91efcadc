"""The claim of Figure 1: one sweep's curve of score against error lies above the other's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from distk.study import claims
from distk.study.claims import Claim, Verdict

ERROR = "reconstruction.mse_pixel"


def judge(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """The kind `at equal error: A against B`, where A and B begin the labels of two sweeps.

    Per seed: the claim's column of A less that of B at the same squared error, mean over the weights of A whose error
    lies within those of B, linear between B's points; then the engine's own verdict over seeds.
    """
    kind, _, names = claim.kind.partition(": ")
    if kind != "at equal error":
        return None
    one, other = names.split(" against ")
    told = []
    for seed in sorted({row["seed"] for row in rows}):
        gaps = apart(curve(rows, one, seed, claim.column), curve(rows, other, seed, claim.column))
        if gaps:
            told.append({"variant": "it", "seed": seed, "it": sum(gaps) / len(gaps)})
    return claims.judge(Claim("", better="it", column="it", bound=0.0, relation="above"), told, True)


def curve(rows: Sequence[Mapping[str, Any]], label: str, seed: int, column: str) -> list[tuple[float, float]]:
    """(error, score) of the runs of one seed whose labels begin so, by error."""
    own = [row for row in rows if row["seed"] == seed and str(row["variant"]).startswith(label)]
    found = [(row.get(ERROR), row.get(column)) for row in own]
    return sorted((float(x), float(y)) for x, y in found if x is not None and y is not None)


def apart(ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]) -> list[float]:
    """Score less the other curve's at the same error, of every point within the other's errors."""
    found = []
    for error, score in ours:
        for (a, first), (b, second) in itertools.pairwise(theirs):
            if a <= error <= b and a < b:
                found.append(score - first - (error - a) / (b - a) * (second - first))
                break
    return found
