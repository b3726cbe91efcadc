"""What a paper claims, held against our runs: a difference of means with a bootstrap interval over seeds.

The interval. Where two variants ran the same seeds, differences are taken seed by seed and resampled (paired); else
each variant's runs are resampled on their own. Of 10,000 resampled means the interval takes the quantiles a/2 and
1 - a/2, where a is widened for few runs (the expanded percentile interval of Hesterberg, The American Statistician
69(4), 2015): a/2 = Phi(-sqrt(n / (n - 1)) t(0.975, n - 1)), n the runs of the smaller side. For three runs that is from
the smallest to the largest value, for many runs the usual 2.5 and 97.5 per cent. The generator starts from 0, so that
the same runs give the same interval.

The verdict. `holds` where the whole interval is on the claim's side, `does not hold` where all of it is on the other
side, `too few runs to say` where it has both, or where a side has fewer than three runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distk.errors import UsageError, nearest

HOLDS, FAILS, FEW, UNTESTED = "holds", "does not hold", "too few runs to say", "no run can test it"
LEAST = 3
"""Runs of each side below which nothing is said."""
RESAMPLES = 10_000
NEAR = ("not much worse", "not worse", "equal")
RELATIONS = ("above", "below", "at least", "at most", "equal", "about")


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper.

    better, than: labels of variants. column, than_column: of the results. direction: "higher", "lower" or "equal";
    empty takes that of the column. kind: empty, "not much worse" (by no more than `margin`), "not worse", "equal"
    (within `margin`), or words that only the study's own judge understands. bound, relation: the column's mean against
    a number. untested: why no run can test it. scale: those at which it is asked; empty: all. where, evidence,
    note: where and how the paper shows it.
    """

    text: str
    better: str = ""
    than: str = ""
    column: str = ""
    than_column: str = ""
    direction: str = ""
    kind: str = ""
    margin: float | None = None
    bound: float | None = None
    relation: str = ""
    untested: str = ""
    where: str = ""
    evidence: str = ""
    note: str = ""
    scale: tuple[str, ...] = ()

    @property
    def judged_here(self) -> bool:
        """Whether the engine can judge it by itself; else a study's judge may."""
        return not self.untested and (not self.kind or self.kind in NEAR)


@dataclass(frozen=True)
class Verdict:
    """verdict: one of the four. difference, low, high: mean difference in the claim's direction (positive: for the
    claim; of `equal` and bounds the plain difference) and its interval, None where there is none. n: runs of the
    smaller side. how: "paired", "unpaired", or for a bound "one sample". reason: what else there is to say."""

    verdict: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    how: str = ""
    reason: str = ""


def check_claim(claim: Claim, where: str) -> None:
    """Raise UsageError for a claim of ours that cannot be judged as it stands; others' kinds are their judge's."""
    if not claim.text:
        raise UsageError(f"{where} needs a 'text'.")
    if claim.direction not in ("", "higher", "lower", "equal"):
        raise UsageError(f"{where}: 'direction' must be higher, lower or equal, found '{claim.direction}'.")
    if not claim.judged_here:
        return
    if not (claim.better and claim.column):
        raise UsageError(f"{where} needs 'better' and 'column', or 'untested' with the reason why no run can test it.")
    sides = (claim.bound is not None) + bool(claim.than or claim.than_column)
    if sides != 1:
        raise UsageError(f"{where} needs one of 'than', 'than_column' and 'bound' to hold '{claim.column}' against.")
    if claim.bound is not None and claim.relation not in RELATIONS:
        raise UsageError(
            f"{where}: 'relation' must be one of {', '.join(RELATIONS)}, found '{claim.relation}'."
            f"{nearest(claim.relation, RELATIONS)} (Other words need a 'kind', which the study's own judge decides.)"
        )
    if claim.margin is None and (claim.kind in ("not much worse", "equal") or claim.relation in ("equal", "about")):
        raise UsageError(f"{where}: {claim.kind or claim.relation} needs a 'margin': how far is still near.")
    if claim.margin is not None and not (claim.margin >= 0 and math.isfinite(claim.margin)):
        raise UsageError(f"{where}: 'margin' must be a number from 0, found {claim.margin}.")


def judge(claim: Claim, rows: Sequence[Mapping[str, Any]], higher: bool) -> Verdict:
    """The verdict on a claim of ours. higher: whether larger is better in its column, unless the claim says it."""
    first = _values(rows, claim.better, claim.column)
    if claim.bound is not None:
        found = {seed: value - claim.bound for seed, value in first.items()}
        return _bounded(claim, difference_of(found, None))
    second = _values(rows, claim.than or claim.better, claim.than_column or claim.column)
    up = higher if claim.direction in ("", "equal") else claim.direction == "higher"
    sign = 1.0 if up or claim.kind == "equal" else -1.0
    spread = difference_of({k: sign * v for k, v in first.items()}, {k: sign * v for k, v in second.items()})
    if claim.kind == "equal":
        return _within(spread, claim.margin or 0.0)
    return _above(spread, -(claim.margin or 0.0) if claim.kind in NEAR else 0.0, strict=claim.kind not in NEAR)


def _values(rows: Sequence[Mapping[str, Any]], label: str, column: str) -> dict[int, float]:
    """Seed -> number, of the runs that have one."""
    found = {row["seed"]: row.get(column) for row in rows if row["variant"] == label}
    return {s: float(v) for s, v in found.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def difference_of(first: Mapping[int, float], second: Mapping[int, float] | None) -> Verdict:
    """First less second, by seed: mean difference, interval and number of runs; the verdict is open, or FEW.

    second: None for the mean of the first alone.
    """
    if second is None:
        samples, how = [np.array(list(first.values()))], "one sample"
    elif set(first) == set(second):
        samples, how = [np.array([first[s] - second[s] for s in first])], "paired"
    else:
        samples, how = [np.array(list(first.values())), -np.array(list(second.values()))], "unpaired"
    n = min(len(sample) for sample in samples)
    if n == 0:
        return Verdict(FEW, n=0, how=how, reason="there are no runs with a number")
    difference = float(sum(sample.mean() for sample in samples))
    if n < LEAST:
        return Verdict(FEW, difference, n=n, how=how, reason=f"{n} of at least {LEAST} runs")
    low, high = bootstrap(samples)
    return Verdict("", difference, low, high, n, how)


def bootstrap(samples: Sequence[np.ndarray], resamples: int = RESAMPLES) -> tuple[float, float]:
    """The interval of the sum of the samples' means, each sample resampled on its own; see the top of this file."""
    generator = np.random.Generator(np.random.PCG64(0))
    total = np.zeros(resamples)
    for sample in samples:
        total += sample[generator.integers(len(sample), size=(resamples, len(sample)))].mean(1)
    tail = tail_of(min(len(sample) for sample in samples))
    low, high = np.quantile(total, [tail, 1 - tail])
    return float(low), float(high)


def interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """The interval of the mean of several runs; None below three."""
    return bootstrap([np.array(values)]) if len(values) >= LEAST else (None, None)


@functools.cache
def tail_of(n: int) -> float:
    """The share of bootstrap means that lies below the interval of n runs, n at least 2; see the top of this file."""
    from scipy.stats import norm, t

    return float(norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1)))


def _above(spread: Verdict, limit: float, strict: bool) -> Verdict:
    """Whether the difference is above a limit (strict) or at least there."""
    if spread.low is None or spread.high is None:
        return spread
    holds = spread.low > limit if strict else spread.low >= limit
    fails = spread.high <= limit if strict else spread.high < limit
    return _with(spread, HOLDS if holds else FAILS if fails else FEW)


def _within(spread: Verdict, margin: float) -> Verdict:
    """Whether the difference lies within a margin of 0."""
    if spread.low is None or spread.high is None:
        return spread
    holds = -margin <= spread.low and spread.high <= margin
    fails = spread.low > margin or spread.high < -margin
    return _with(spread, HOLDS if holds else FAILS if fails else FEW)


def _bounded(claim: Claim, spread: Verdict) -> Verdict:
    if claim.relation in ("equal", "about"):
        return _within(spread, claim.margin or 0.0)
    if spread.low is None or spread.high is None or claim.relation in ("above", "at least"):
        return _above(spread, 0.0, strict=claim.relation == "above")
    turned = Verdict("", spread.difference, -spread.high, -spread.low)
    return _with(spread, _above(turned, 0.0, strict=claim.relation == "below").verdict)


def _with(spread: Verdict, verdict: str) -> Verdict:
    reason = "the interval has both sides" if verdict == FEW else ""
    return Verdict(verdict, spread.difference, spread.low, spread.high, spread.n, spread.how, reason)
