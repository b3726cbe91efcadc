"""The claims of Peychev et al. that are about whole curves: each becomes a number per seed, held against a bound."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import spearmanr

from distk.study import claims
from distk.study.claims import Claim, Verdict

Curve = Mapping[float, float]
RISES = 0.6
"""Rank correlation of a score with beta above which a curve counts as rising; the paper gives none."""


def judge(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """The verdict on `KIND: NETWORKS`, None for other kinds.

    `rises: A`: rank correlation with beta above 0.6. `rises more: A over B, C`: above that of each other.
    `flattens: A`: the slope over beta 3 to 5 is below that over 0 to 2. `spread: A`: the standard deviation over seeds,
    a number per beta, is above the claim's `margin`. `no worse: A than B`: mean over beta. `loses less: A than B`:
    accuracy lost, mean over beta, from the largest to the smallest fraction of the data.
    """
    kind, _, names = claim.kind.partition(": ")
    column = claim.column
    if kind == "rises":
        return _held({s: _rank(c) for s, c in _curves(rows, names, column).items()}, RISES, "above")
    if kind == "rises more":
        one, _, others = names.partition(" over ")
        ranks = [{s: _rank(c) for s, c in _curves(rows, n, column).items()} for n in (one, *others.split(", "))]
        shared = set.intersection(*(set(r) for r in ranks))
        return _held({s: ranks[0][s] - max(r[s] for r in ranks[1:]) for s in sorted(shared)}, 0.0, "above")
    if kind == "flattens":
        found = {s: (_slope(c, 3, 5), _slope(c, 0, 2)) for s, c in _curves(rows, names, column).items()}
        return _held({s: a - b for s, (a, b) in found.items() if a is not None and b is not None}, 0.0, "below")
    if kind == "spread":
        values = defaultdict(list)
        for curve in _curves(rows, names, column).values():
            for beta, value in curve.items():
                values[beta].append(value)
        spread = [statistics.stdev(v) for _, v in sorted(values.items()) if len(v) > 1]
        return _held(dict(enumerate(spread)), claim.margin or 0.0, "above")
    if kind in ("no worse", "loses less"):
        of = _mean if kind == "no worse" else _lost
        left, right = (of(rows, name, column) for name in names.split(" than "))
        gained = {s: left[s] - right[s] for s in left if s in right}
        return _held(gained, 0.0, "at least" if kind == "no worse" else "below")
    return None


def _held(values: Mapping[int, float], bound: float, relation: str) -> Verdict:
    """The engine's own verdict on a number per seed."""
    rows = [{"variant": "it", "seed": seed, "it": value} for seed, value in values.items()]
    return claims.judge(Claim("", better="it", column="it", bound=bound, relation=relation), rows, True)


def _curves(
    rows: Sequence[Mapping[str, Any]], network: str, column: str, fraction: float | None = None
) -> dict[int, Curve]:
    """Seed -> {beta: score} of a network, at its largest fraction of the data unless another is named."""
    own = [r for r in rows if r.get("network") == network and isinstance(r.get(column), (int, float))]
    part = fraction if fraction is not None else max((r["fraction"] for r in own), default=1.0)
    found: dict[int, dict[float, float]] = defaultdict(dict)
    for row in own:
        if row["fraction"] == part:
            found[row["seed"]][row["beta"]] = row[column]
    return {seed: dict(sorted(curve.items())) for seed, curve in sorted(found.items())}


def _rank(curve: Curve) -> float:
    """Rank correlation of score and beta; 0 for a flat curve."""
    level = len(set(curve.values())) < 2
    return 0.0 if level else float(spearmanr(list(curve), list(curve.values())).statistic)


def _slope(curve: Curve, first: float, last: float) -> float | None:
    """Least-squares slope of a part of a curve; None with fewer than two betas."""
    part = {b: v for b, v in curve.items() if first <= b <= last}
    return statistics.linear_regression(list(part), list(part.values())).slope if len(part) > 1 else None


def _mean(
    rows: Sequence[Mapping[str, Any]], network: str, column: str, fraction: float | None = None
) -> dict[int, float]:
    curves = _curves(rows, network, column, fraction)
    return {seed: statistics.fmean(curve.values()) for seed, curve in curves.items()}


def _lost(rows: Sequence[Mapping[str, Any]], network: str, column: str) -> dict[int, float]:
    least = min((r["fraction"] for r in rows if r.get("network") == network), default=1.0)
    whole, part = _mean(rows, network, column), _mean(rows, network, column, least)
    return {seed: whole[seed] - part[seed] for seed in whole if seed in part}
