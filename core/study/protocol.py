"""What a study asks of others: a runner, which yields rows, and an engine, which runs jobs somewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distk.errors import DistkError
from distk.settings import Settings
from distk.study.recipe import Variant
from distk.training.loop import Stop

Row = dict[str, Any]
"""`variant`, `seed`, and a number per column; a column that is undefined for a variant is missing or NaN."""


class StudyFailed(DistkError):
    """Some jobs of a study failed; the others are done."""


@dataclass
class StudyRun:
    """What a runner is given.

    variants, seeds: what is asked for. settings: by label of the variant, an instance of the runner's Config.
    done: (label, seed) of the rows that are in results.csv already. out: the study's folder, for files of the runner's
    own, such as checkpoints of half-trained networks. device: as the user named it. stop: its `signal` is not 0 once
    the study was asked to stop; then the runner should save what it needs and return.
    resolve: complete settings of a variant that has a method, for a seed.
    """

    variants: Sequence[Variant]
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    done: frozenset[tuple[str, int]]
    out: Path
    device: str
    stop: Stop
    resolve: Callable[[Variant, int], Settings]
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def todo(self) -> list[tuple[Variant, int]]:
        """(variant, seed) of every row that is not done, in the order of the recipe."""
        return [(v, s) for v in self.variants if not v.quoted for s in self.seeds if (v.label, s) not in self.done]


class Runner(Protocol):
    """A study that is no grid of trainings: a function that yields rows, in any order.

    Each row is written as it comes, so that a study that is stopped goes on after it.
    """

    def __call__(self, study: StudyRun) -> Iterator[Row]:
        """Yield the rows of `study.todo()`."""


def runner(config: type) -> Callable[[Any], Any]:
    """Decorator of a runner: its settings are those of this dataclass, made with `distk.option`."""

    def mark(function: Any) -> Any:
        function.Config = config
        return function

    return mark


@dataclass(frozen=True)
class Ended:
    """A job that came to its end. error: empty where it succeeded, else one sentence."""

    folder: Path
    error: str = ""


class Engine(Protocol):
    """Where jobs run. A job is a folder that holds `job.json`; `python -m distk.study.job FOLDER` on any machine that
    sees the folder runs it, resumes what is there, and leaves nothing to do where all is done.

    jobs: how many at a time; None lets the engine choose. device: as the user named it.
    """

    def __init__(self, jobs: int | None, device: str) -> None: ...

    def submit(self, folder: Path) -> None:
        """Take a job over."""

    def poll(self) -> list[Ended]:
        """The jobs that ended since the last call; returns at once."""

    def cancel(self, number: int) -> None:
        """Ask every job to stop as by this signal: one that runs saves and ends, one that waits never begins. `poll`
        still reports each of them once. Called again, it does nothing more."""

    def close(self) -> None:
        """Leave nothing running behind."""
