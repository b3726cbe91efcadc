"""The claims of Kageback & Mogren about whole sweeps: each becomes a number per seed, held against a bound."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from distk.study import claims
from distk.study.claims import Claim, Verdict

Point = Mapping[str, Any]


def judge(claim: Claim, rows: Sequence[Point]) -> Verdict | None:
    """The verdict on these kinds, None for others.

    `at equal error: A against B`: the claim's column of penalty A minus that of B at the same squared error, mean over
    the weights of A that B's curve reaches; `direction` says which way. `best weight: A`: the weight above 0 at which
    the column is smallest lies below the claim's `margin`.
    """
    kind, _, names = claim.kind.partition(": ")
    seeds = sorted({row["seed"] for row in rows})
    found: dict[int, float] = {}
    if kind == "at equal error":
        one, other = names.split(" against ")
        for seed in seeds:
            pairs = at_equal_error([row for row in rows if row["seed"] == seed], claim.column, one, other)
            if pairs:
                found[seed] = sum(a - b for _, a, b in pairs) / len(pairs)
        return _held(found, 0.0, "above" if claim.direction == "higher" else "below")
    if kind == "best weight":
        for seed in seeds:
            swept = [row for row in _curve(rows, names) if row["seed"] == seed and row["weight"] > 0]
            if swept:
                found[seed] = min(swept, key=lambda row: row[claim.column])["weight"]
        return _held(found, claim.margin or 0.0, "below")
    return None


def at_equal_error(rows: Sequence[Point], key: str, one: str, other: str) -> list[tuple[float, float, float]]:
    """(mse, key of `one`, key of `other`) for the weights of penalty `one`, where the curve of `other` reaches so far;
    linear in log mse between the points of `other`. Weight 0 is on both curves."""
    curve = {p: sorted((row["mse"], row[key]) for row in _curve(rows, p)) for p in (one, other)}
    found: list[tuple[float, float, float]] = []
    for error, value in curve[one]:
        for (a, first), (b, second) in itertools.pairwise(curve[other]):
            if 0 < a <= error <= b and a < b:
                share = math.log(error / a) / math.log(b / a)
                found.append((error, value, first + share * (second - first)))
                break
    return found


def _curve(rows: Sequence[Point], penalty: str) -> list[Point]:
    """The rows of a penalty, and those of weight 0, which are everybody's."""
    return [row for row in rows if row["penalty"] == penalty or row["weight"] == 0]


def _held(values: Mapping[int, float], bound: float, relation: str) -> Verdict:
    """The engine's own verdict on a number per seed."""
    rows = [{"variant": "it", "seed": seed, "it": value} for seed, value in values.items()]
    return claims.judge(Claim("", better="it", column="it", bound=bound, relation=relation), rows, True)
