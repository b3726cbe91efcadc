"""Means of several runs with their interval, and differences between two groups of runs, by `distk.study.claims`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distk.study.claims import LEAST, difference_of, interval, tail_of

RESAMPLES = 1_000
"""Of a band, whose every point has an interval of its own."""


@dataclass(frozen=True)
class Spread:
    """A figure of n runs. sd: sample standard deviation, None for one run. low, high: bootstrap interval of the mean,
    95 per cent, None below three runs."""

    mean: float
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.mean:.4g} [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.mean:.4g} (sd {self.sd:.2g})" if self.sd is not None else f"{self.mean:.4g}"


@dataclass(frozen=True)
class Difference:
    """Second group less the first. low, high: its interval, None below three runs a side. how: paired, unpaired."""

    mean: float
    low: float | None
    high: float | None
    n: int
    how: str

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out nought."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.mean:+.3g}"
        return f"{self.mean:+.3g} [{self.low:.3g}, {self.high:.3g}]"


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and interval of one number of several runs, at least one."""
    low, high = interval(values)
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), len(values), sd, low, high)


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Second less first, by seed: paired where the seeds are the same, else each side resampled on its own."""
    told = difference_of(second, first)
    assert told.difference is not None  # both sides have a run
    return Difference(told.difference, told.low, told.high, told.n, told.how)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high `[points]` of curves `[runs, points]`; low and high are the mean below three runs."""
    mean = values.mean(0)
    runs = len(values)
    if runs < LEAST:
        return mean, mean, mean
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = values[generator.integers(runs, size=(RESAMPLES, runs))].mean(1)
    tail = tail_of(runs)
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return mean, low, high
