"""What `import distk` offers for many runs: the same words as the command line. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distk.errors import path_of
from distk.laboratory.compare import Comparison
from distk.laboratory.compare import compare as held_together
from distk.laboratory.index import runs_below
from distk.laboratory.records import Record
from distk.laboratory.select import chosen, ordered
from distk.run import RUNS, Run


def runs(folder: str | Path = RUNS, *, where: Sequence[str] = (), sort: str = "-changed") -> list[Record]:
    """Every run below a folder (`record.path`, `.method`, `.seed`, `.step`, `.state`, `.settings`, `.scores`).

    where: conditions that all hold, such as ("beta>=4", "state=finished"). sort: a key, `-key` from the largest.
    Raises DistkError for a folder that is not there, UsageError for a key that no run has.
    """
    found = runs_below(path_of(folder, "runs: a folder"))
    return ordered(chosen(found.records, where, found.headlines), sort, found.headlines)


def compare(*paths: str | Path | Run | Sequence[Any], metrics: Sequence[str] = ()) -> Comparison:
    """Settings in which runs differ (`.settings`), scores (`.scores`), and of two groups their `.differences`.

    paths: runs, their folders or checkpoints, or folders with runs below them, one by one or as one list. Runs that
    differ in their seed alone are one of `.groups`, whose scores have a mean and, from three runs, a 95 per cent
    bootstrap interval over seeds.
    metrics: these alone. Raises DistkError for a path without a run or a metric by which none was scored.
    """
    if len(paths) == 1 and isinstance(paths[0], (list, tuple)):
        paths = tuple(paths[0])
    each = [path_of(path, "compare: a run or a folder of runs") for path in paths]
    return held_together(*each, metrics=metrics)
