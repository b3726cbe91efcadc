"""The jobs of a study handed to an engine, and watched until all have ended.

A job that is lost (its machine, its process gone) is begun again, without end as long as it gets further, and three
times where it stays where it was. What was submitted stands in engine.json, so that after a kill the next call finds
jobs that went on without it, and submits nothing twice.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distk.console import counted, note, progress, warn
from distk.study import job, signs, submitted
from distk.study.protocol import Ended, Engine
from distk.study.timing import Left, in_words
from distk.training.signals import Stop

POLL = 0.05
"""Seconds between two looks at the jobs."""
LOOK = 1.0
"""Seconds between two looks for a request to cancel, and between two writings of engine.json."""
LOST = 3
"""Times that a job is begun again without getting further."""
SAID = 30.0, 1800.0
"""Seconds until it is said first that jobs wait, and at most until it is said again; each time it is twice as long."""


class Watch:
    """What is not done of a study. todo: folder -> how messages call the run. last: its last step."""

    def __init__(self, engine: Engine, record: submitted.Submitted, stop: Stop, quiet: bool) -> None:
        self.engine, self.record, self.stop, self.quiet = engine, record, stop, quiet
        self.todo: dict[Path, str] = {}
        self.last: dict[Path, int] = {}
        self.waiting: set[Path] = set()
        self.failed: dict[str, str] = {}
        self.standing: dict[Path, tuple[float, float]] = {}
        self.tries: Counter[Path] = Counter()
        self.lost: list[Path] = []
        self.gone: list[Path] = []
        self.began = self.looked = time.monotonic()
        self.silent = SAID[0]
        self.left = Left({}, {})

    def run(self, total: int) -> dict[str, str]:
        """Submit what no engine has, and wait for everything. Returns what failed, with its reason. total: all runs,
        done ones among them."""
        done = total - len(self.todo)
        if not self.quiet:
            note(f"{counted(total, 'run')}, {done} of them done already" if done else f"{counted(total, 'run')}")
        self.waiting = set(self.todo)
        self.left = Left(self.last, {folder: job.step_of(folder) or 0 for folder in self.todo})
        self.begin()
        with progress("steps", self.left.total, self.left.count, self.quiet) as advance:
            advance(0, note=f"{done} of {counted(total, 'run')}")
            while self.waiting:
                if added := self.left.look(self.waiting):
                    advance(added)
                for ended in self.engine.poll():
                    advance(self.ended(ended), note=f"{total - len(self.waiting)} of {counted(total, 'run')}")
                if self.lost and not self.stop.signal:
                    self.submit(self.lost)
                    self.lost = []
                if time.monotonic() - self.looked > LOOK:
                    self.look()
                if self.stop.signal:
                    self.engine.cancel(self.stop.signal)
                    self.waiting -= set(self.lost)
                time.sleep(POLL)
        self.strike_out()
        return self.failed

    def begin(self) -> None:
        """Find the jobs that an earlier process submitted and that still wait or run; submit the others."""
        known = {folder: name for folder, name in self.record.folders().items() if folder in self.todo}
        found = self.engine.found(known) if known else {}
        others = set(self.record.folders()) - set(known)
        self.record.drop({*(set(known) - set(found)), *(f for f in others if _done(f))})
        if found and not self.quiet:
            note(f"in the queue already, from an earlier call: {counted(len(found), 'run')}")
        for folder in found:
            self.standing[folder] = signs.standing(folder)
        if fresh := [folder for folder in self.todo if folder not in found]:
            self.submit(fresh)

    def submit(self, folders: Sequence[Path]) -> None:
        """Hand jobs over and write down that they were."""
        for folder in folders:
            (folder / signs.FAILURE).unlink(missing_ok=True)
            self.standing[folder] = signs.standing(folder)
        self.record.add(self.engine.submit(folders))

    def ended(self, told: Ended) -> int:
        """One job ended: done, failed, lost for ever, or to be begun again. Returns the steps that are over with it."""
        folder, what = told.folder, self.todo[told.folder]
        if told.lost and not self.stop.signal and self.again(folder):
            warn(f"{what}: {told.error.rstrip('.')}; it is begun again")
            self.lost.append(folder)
            return 0
        self.gone.append(folder)
        self.waiting.discard(folder)
        over = self.left.ended(folder)
        if self.stop.signal:
            return over
        if told.error:
            self.failed[what] = told.error
            signs.tell(folder, told.error)
            warn(f"{what}: {told.error}")
        elif not self.quiet:
            seconds = self.left.seconds() if self.waiting and self.engine.here else None
            rest = "" if seconds is None else f"; about {in_words(seconds)} left"
            note(f"{what} is done ({len(self.todo) - len(self.waiting)} of {len(self.todo)}){rest}")
        return over

    def again(self, folder: Path) -> bool:
        """Whether a lost job is worth another try."""
        now = signs.standing(folder)
        self.tries[folder] = self.tries[folder] + 1 if now == self.standing[folder] else 1
        return self.tries[folder] <= LOST

    def look(self) -> None:
        """What is done once a second: requests to cancel, engine.json, and a word about long queues."""
        self.looked = time.monotonic()
        self.strike_out()
        asked(self.record.out, self.stop)
        if self.quiet or self.engine.here or self.looked - self.began < self.silent:
            return
        self.silent = self.looked - self.began + min(self.silent, SAID[1])
        if waits := self.engine.waits():
            why = ", ".join(f"{n} for {reason}" for reason, n in waits.items())
            note(
                f"{counted(sum(waits.values()), 'job')} waiting in the queue, after "
                f"{in_words(self.looked - self.began)}:"
                f" {why}"
            )

    def strike_out(self) -> None:
        """Bring engine.json up to date."""
        if self.gone:
            self.record.drop(self.gone)
        self.gone = []


def _done(folder: Path) -> bool:
    return (folder / job.FILE).exists() and job.done(folder, job.read(folder)) is not None


def asked(out: Path, stop: Stop) -> None:
    """Stop where `distk study cancel` asks for it."""
    request = out / submitted.REQUEST
    if request.exists():
        stop.signal = stop.signal or signal.SIGTERM
        with contextlib.suppress(OSError):
            request.unlink()
