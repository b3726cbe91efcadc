"""What `import distk` offers for many runs: the same words as the command line. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distk.laboratory.compare import Comparison
from distk.laboratory.compare import compare as held_together
from distk.laboratory.index import runs_below
from distk.laboratory.records import Record
from distk.laboratory.select import chosen, ordered
from distk.run import RUNS


def runs(folder: str | Path = RUNS, *, where: Sequence[str] = (), sort: str = "-changed") -> list[Record]:
    """Every run below a folder (`record.path`, `.method`, `.seed`, `.step`, `.state`, `.settings`, `.scores`).

    where: conditions that all hold, such as ("beta>=4", "state=finished"). sort: a key, `-key` from the largest.
    Raises DistkError for a folder that is not there, UsageError for a key that no run has.
    """
    found = runs_below(Path(folder))
    return ordered(chosen(found.records, where, found.headlines), sort, found.headlines)


def compare(*paths: str | Path, metrics: Sequence[str] = ()) -> Comparison:
    """Settings in which runs differ (`.settings`), scores (`.scores`), and of two groups their `.differences`.

    paths: run folders, checkpoints, or folders with runs below them. Runs that differ in their seed alone are one of
    `.groups`, whose scores have a mean and, from three runs, a 95 per cent bootstrap interval over seeds.
    metrics: these alone. Raises DistkError for a path without a run or a metric by which none was scored.
    """
    return held_together(*paths, metrics=metrics)
