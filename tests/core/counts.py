"""How many commands the tests run, and of which kind, as a table: `python tests/core/counts.py`.

Counted from what is registered and from the lists that the tests run over, so that nothing has to be run for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from distk import cli
from distk.registry import registry
from distk.settings import TrainConfig

sys.path.insert(0, str(Path(__file__).parent))
import test_examples
import test_misused
import test_ranges
import test_sweeps
from ranges import MANY, command_at, edges, ends, numbers


def rows() -> Iterator[tuple[str, int, str]]:
    """What is run, how many commands that are, and the test that does."""
    program = cli.build()
    files = len(test_examples.NEEDS_FILES)
    runnable = [p for p in test_examples.places() if " ".join(p.words) not in test_examples.NEEDS]
    examples = sum(len(test_examples.lines_of(program, list(p.words))) for p in runnable)
    yield "every example of every command, as text and as JSON", 2 * examples, "test_examples.py"
    yield "of these, on data sets that ask for the user's files", 2 * files, "test_examples.py"
    methods, datasets, metrics = (len(registry().entries(kind)) for kind in ("method", "dataset", "metric"))
    yield f"{len(test_sweeps.LOOKS)} commands on a run of each method", 2 * methods * len(test_sweeps.LOOKS), SWEEPS
    yield f"each score on {len(test_sweeps.SCORED)} kinds of runs", 2 * metrics * len(test_sweeps.SCORED), SWEEPS
    shown = 2 + len(test_sweeps.TAKES) + 6  # as text and JSON; until a method takes it; scored, drawn, described
    yield "each data set shown, trained on, scored and drawn, at most", datasets * shown, SWEEPS
    for kind, what in (("method", "methods"), ("dataset", "data sets"), ("metric", "scores"), ("penalty", "penalties")):
        free = test_examples.NEEDS_FILES if kind == "dataset" else ()
        entries = [entry for entry in registry().entries(kind) if entry.name not in free]
        yield f"both ends of every setting of {what}", sum(len(list(ends(e.load().Config))) for e in entries), RANGES
    asking = [registry().find("dataset", name) for name in sorted(test_examples.NEEDS_FILES)]
    every = sum(len(list(ends(entry.load().Config))) for entry in asking)
    yield "both ends of every setting of data sets that ask for the user's files", every, RANGES
    yield "both ends of the trainer's settings, with three methods", 3 * len(list(ends(TrainConfig))), RANGES
    limits = [v for w in test_ranges.COMMANDS for _, d in numbers(command_at(program, w)) for v in edges(d, int)]
    yield "both ends of the numbers that commands take", sum(value != str(MANY) for value in limits), RANGES
    told = [declared for w in test_misused.PLACES for _, declared in numbers(command_at(program, w))]
    beyond = sum(1 + sum(value is not None for value in declared.values()) for declared in told)
    yield "a value that is no number, or beyond its range", beyond, "test_misused.py"
    yield "an option that there is not", len(test_misused.PLACES), "test_misused.py"


SWEEPS, RANGES = "test_sweeps.py", "test_ranges.py"


def table() -> str:
    """The rows in Markdown."""
    found = list(rows())
    lines = ["| what is run | commands | by `tests/core/` |", "|---|---:|---|"]
    return "\n".join([*lines, *(f"| {what} | {count:,} | `{test}` |" for what, count, test in found)])


if __name__ == "__main__":
    print(table())
