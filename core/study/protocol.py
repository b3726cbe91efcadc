"""What a study asks of others: a runner, which yields rows, and an engine, which runs jobs somewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from distk.config import C, Configured
from distk.errors import DistkError
from distk.settings import Settings
from distk.study.recipe import Variant
from distk.training.signals import Stop

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
    """A job that came to its end.

    error: empty where it succeeded, else one sentence. lost: the job itself said nothing, since its process or its
    machine is gone; the study begins it again, as long as it gets further.
    """

    folder: Path
    error: str = ""
    lost: bool = False


@dataclass(frozen=True)
class Site:
    """For what an engine works.

    out: the study's folder, absolute, in which it may keep files of its own. jobs: how many at a time; None lets the
    engine choose. device: as the user named it, of the machines where the jobs run.
    """

    out: Path
    jobs: int | None = None
    device: str = "auto"


class Engine(Configured[C]):
    """Where jobs run: it submits, watches and cancels, and does nothing else.

    A job is a folder that holds `job.json`; `python -m distk.study.job FOLDER` on any machine that sees the folder runs
    it, resumes what is there, and leaves nothing to do where all is done. Folders are absolute. Settings are those of
    its Config, `--set engine.KEY=VALUE`.
    """

    here: ClassVar[bool] = False
    """Jobs run on this machine: the device is looked for here, and the time of a step is measured here."""
    outlives: ClassVar[bool] = False
    """Jobs go on when the process of the study is gone; `found` takes them up again."""

    def __init__(self, config: C, site: Site) -> None:
        """Make ready; nothing is written yet. Raises UsageError or DistkError where the jobs could never run: a package
        is missing, a cluster does not answer, a partition is not there."""
        self.config, self.site = config, site

    def submit(self, folders: Sequence[Path]) -> Mapping[Path, str]:
        """Take these jobs over, in this order. Returns what each is called where it waits, or an empty text."""
        raise NotImplementedError

    def found(self, jobs: Mapping[Path, str]) -> Mapping[Path, str]:
        """Of jobs that another process submitted, by what `submit` called them: those that still wait or run, with why
        they wait, or an empty text. From now on `poll` reports them and `cancel` stops them, too."""
        return {}

    def poll(self) -> list[Ended]:
        """The jobs that ended since the last call; returns at once."""
        raise NotImplementedError

    def waits(self) -> Mapping[str, int]:
        """How many jobs wait, by why they do, as the queue says it; empty where none does."""
        return {}

    def cancel(self, number: int) -> None:
        """Ask every job to stop as by this signal: one that runs saves and ends, one that waits never begins. `poll`
        still reports each of them once. Called again, it does nothing more."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go. Nothing runs on behind it, unless jobs outlive the process."""
