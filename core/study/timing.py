"""How long a study takes: a few steps of every variant, measured before it begins, and what is left while it runs.

A step is timed on one thread, as the engine `local` gives its processes. The estimate is of the steps alone: opening
data and scoring come on top, and so does whatever else the machine is doing then.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from distk.console import counted
from distk.laboratory.records import LOG, last_rows
from distk.study.job import threads
from distk.training.trainer import Trainer

EACH = 1.0
"""Seconds of timing that a variant may take, its first step not counted."""
ALL = 20.0
"""Seconds of timing that a study may take; what comes later counts as the mean of its method."""
STEPS = 20
FIRST = 0.25
"""Seconds of a first step, which also builds what later ones find, beyond which only one more is timed."""
LOOK = 2.0
"""Seconds between two looks at the logs of runs that are training."""
TAIL = 4096
"""Bytes of a log that are read for its newest step."""


@dataclass
class Expected:
    """Seconds of one step by variant, as measured here; `methods` by method. spent: seconds that measuring took."""

    variants: dict[str, float] = field(default_factory=dict)
    methods: dict[str, list[float]] = field(default_factory=dict)
    spent: float = 0.0

    def measure(self, label: str, method: str, trainer: Trainer) -> None:
        """Time a few steps of a variant, which trains its model; nothing is kept of a variant whose step fails."""
        known = self.methods.setdefault(method, [])
        if self.spent >= ALL:
            if known:
                self.variants[label] = statistics.fmean(known)
            return
        began = time.perf_counter()
        seconds = _seconds(trainer)
        self.spent += time.perf_counter() - began
        if seconds is not None:
            self.variants[label] = seconds
            known.append(seconds)

    def total(self, steps: Mapping[str, int], seeds: int, at_once: int) -> float | None:
        """Seconds of all runs, of so many at once; None where a variant was not timed.

        steps: by variant, of one run.
        """
        if not steps or not set(steps) <= set(self.variants):
            return None
        runs = [self.variants[label] * n for label, n in steps.items() for _ in range(seeds)]
        # No shorter than the longest run, however many go side by side.
        return max(sum(runs) / max(1, min(at_once, len(runs))), *runs)


def _seconds(trainer: Trainer) -> float | None:
    """Seconds of a step: the median of a few on one thread; None where a step fails, which training will say."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: list[float] = []
    try:
        with torch.random.fork_rng(devices=[]):
            first = _one(trainer)
            began = time.perf_counter()
            while not found or (first < FIRST and len(found) < STEPS and time.perf_counter() - began < EACH):
                found.append(_one(trainer))
    except Exception:  # whatever a method raises shows again, and better, when it trains
        return None
    finally:
        torch.set_num_threads(threads)
    return statistics.median(found)


def _one(trainer: Trainer) -> float:
    began = time.perf_counter()
    trainer.step()
    return time.perf_counter() - began


def processes(jobs: int | None) -> int:
    """How many runs the engine `local` has at a time on the CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return jobs or max(1, cores // threads())


def in_words(seconds: float) -> str:
    """A length of time in words: `40 s`, `12 min`, `3 h 20 min`, `2 days 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours + (minutes >= 30), 24)
    return f"{counted(days, 'day')} {hours} h" if hours else f"{counted(days, 'day')}"


class Left:
    """The steps of the runs that are not done, and how long they will take at the rate of this call so far.

    steps: last step by folder. done: the step that each stands at.
    """

    def __init__(self, steps: Mapping[Path, int], done: Mapping[Path, int]) -> None:
        self.steps = dict(steps)
        self.at = {folder: min(done.get(folder, 0), n) for folder, n in steps.items()}
        self.total = sum(self.steps.values())
        self.began, self.first = time.monotonic(), sum(self.at.values())
        self.looked = self.began

    @property
    def count(self) -> int:
        """Steps that are done."""
        return sum(self.at.values())

    def ended(self, folder: Path) -> int:
        """A run came to its end; the steps that this adds."""
        return self._to(folder, self.steps.get(folder, 0))

    def look(self, waiting: Collection[Path], now: float | None = None) -> int:
        """Look at the logs of runs that may be training, at most every two seconds; the steps that were added."""
        now = time.monotonic() if now is None else now
        if now - self.looked < LOOK:
            return 0
        self.looked = now
        added = 0
        for folder in waiting:
            rows = last_rows(folder / LOG, TAIL)
            steps = [row["step"] for row in rows if isinstance(row.get("step"), int)]
            added += self._to(folder, max(steps, default=0))
        return added

    def seconds(self, now: float | None = None) -> float | None:
        """Seconds that are left; None before the first step was seen."""
        now = time.monotonic() if now is None else now
        made = self.count - self.first
        return None if made <= 0 else (self.total - self.count) * (now - self.began) / made

    def _to(self, folder: Path, step: int) -> int:
        before = self.at.get(folder, 0)
        self.at[folder] = max(before, min(step, self.steps.get(folder, 0)))
        return self.at[folder] - before
