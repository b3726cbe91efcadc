"""The claims of the tables that compare more than two figures: each becomes a number per seed, held against a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distk.plugins.rl_control.grasping.bodies import CATEGORIES
from distk.study import claims
from distk.study.claims import Claim, Verdict

Point = Mapping[str, Any]
SEEN, NOVEL = ("all 15", "all 45"), ("all 30", "all 60")


def judge(claim: Claim, rows: Sequence[Point]) -> Verdict | None:
    """The verdict on these kinds, None for others; variants A and B are the claim's `better` and `than`.

    `relative gain`: per cent by which A's column is above B's, against the claim's bound. `drop`: what novel elevations
    cost A less what they cost B, below 0. `gains most`, `gains least`: A's gain over B in the claim's column, less the
    largest (smallest) gain of the other categories.
    """
    measures = {
        "relative gain": lambda a, b: 100 * (a[claim.column] / b[claim.column] - 1),
        "drop": lambda a, b: _drop(a) - _drop(b),
        "gains most": lambda a, b: _gains(a, b)[claim.column] - max(_others(a, b, claim.column)),
        "gains least": lambda a, b: _gains(a, b)[claim.column] - min(_others(a, b, claim.column)),
    }
    if claim.kind not in measures:
        return None
    found = {}
    for seed in sorted({row["seed"] for row in rows}):
        pair = [
            next((r for r in rows if (r["variant"], r["seed"]) == (v, seed)), {}) for v in (claim.better, claim.than)
        ]
        try:
            found[seed] = measures[claim.kind](*pair)
        except (KeyError, TypeError, ZeroDivisionError):  # a run that has not all of these figures
            continue
    relation = {"drop": "below", "gains most": "above", "gains least": "below"}.get(claim.kind, claim.relation)
    made = [{"variant": "it", "seed": seed, "it": value} for seed, value in found.items()]
    held = Claim("", better="it", column="it", bound=claim.bound or 0.0, relation=relation, margin=claim.margin)
    return claims.judge(held, made, True)


def _drop(row: Point) -> float:
    """Accuracy that novel elevations cost: mean of the seen ones less mean of the others."""
    return sum(row[c] for c in SEEN) / len(SEEN) - sum(row[c] for c in NOVEL) / len(NOVEL)


def _gains(a: Point, b: Point) -> dict[str, float]:
    """Relative gain of each category in planning."""
    return {f"{name} success": a[f"{name} success"] / b[f"{name} success"] - 1 for name in CATEGORIES}


def _others(a: Point, b: Point, column: str) -> list[float]:
    return [gain for name, gain in _gains(a, b).items() if name != column]
