"""The queues that the engine `slurm` asks: Slurm's own, or processes of this machine that submitit started."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distk.errors import DistkError, UsageError, unknown

FOLDER = "jobs"
"""Below the study's folder: what submitit keeps."""
ANSWER = 30
"""Seconds within which Slurm must answer."""
SAVING = 60.0
"""Seconds after which a job that was asked to save and end is ended by Slurm."""
AT_ONCE = 200
"""Jobs that one command names."""
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING"})
RUNNING = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "SUSPENDED", "STOPPED"})


@dataclass(frozen=True)
class Entry:
    """A job in a queue. state: in Slurm's words. reason: why it waits. node: where it runs or ran."""

    state: str
    reason: str = ""
    node: str = ""

    @property
    def open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in WAITING or self.state in RUNNING


class Queue:
    """Where submitit puts jobs. cluster: as submitit calls it."""

    cluster = ""

    def __init__(self, out: Path) -> None:
        self.title = f"distk-{hashlib.sha256(str(out).encode()).hexdigest()[:12]}"
        """Name of the jobs of this study, by which they are told from others."""
        self.problem = ""
        """Why there was no answer last time."""

    def check(self, partition: str) -> None:
        """Raise DistkError where no job could be submitted."""

    def look(self, names: Collection[str]) -> Mapping[str, Entry] | None:
        """The jobs of this study that the queue knows, ended ones among them for a while; None without an answer."""
        raise NotImplementedError

    def cancel(self, jobs: Mapping[str, Entry]) -> None:
        """Ask jobs to save and end; those that wait never begin. May be called again until they are gone."""
        raise NotImplementedError


class SlurmQueue(Queue):
    """Slurm, by its commands."""

    cluster = "slurm"

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.asked: dict[str, float] = {}

    def check(self, partition: str) -> None:
        """See the base: no Slurm here, a controller that does not answer, a partition that is not there."""
        missing = [command for command in ("sbatch", "squeue", "scancel", "sinfo", "srun") if not shutil.which(command)]
        if missing:
            raise DistkError(
                f"there is no Slurm on this machine ({missing[0]} is not found): run the study on a login node of the "
                "cluster, or leave --engine slurm away."
            )
        told = self._told(["sinfo", "-a", "-h", "-o", "%R"])
        if told is None:
            raise DistkError(f"Slurm does not answer: {self.problem}. Ask again when `sinfo` does.")
        known = sorted({line.strip() for line in told.splitlines() if line.strip()})
        for one in filter(None, partition.split(",")):
            if one not in known:
                raise unknown("partition of this Slurm", one, known)

    def look(self, names: Collection[str]) -> Mapping[str, Entry] | None:
        """See the base."""
        told = self._told(["squeue", "--me", "-h", "-r", "-t", "all", "-n", self.title, "-o", "%i|%T|%r|%N"])
        if told is None:
            return None
        found = {}
        for line in told.splitlines():
            name, _, rest = line.strip().partition("|")
            state, reason, node = [*rest.split("|"), "", "", ""][:3]
            if name in names:
                found[name] = Entry(state, "" if reason == "None" else reason, node)
        return found

    def cancel(self, jobs: Mapping[str, Entry]) -> None:
        """See the base. One that runs gets SIGTERM once; Slurm ends it where it does not end within a minute."""
        now = time.monotonic()
        waiting = [name for name, entry in jobs.items() if entry.state in WAITING]
        fresh = [name for name, entry in jobs.items() if entry.state in RUNNING and name not in self.asked]
        slow = [name for name in jobs if now - self.asked.get(name, now) > SAVING]
        self.asked |= dict.fromkeys(fresh, now)
        self._scancel(["--state=PENDING"], waiting)
        self._scancel(["--signal=TERM"], fresh)
        self._scancel([], slow)

    def _scancel(self, options: Sequence[str], names: Sequence[str]) -> None:
        for i in range(0, len(names), AT_ONCE):
            self._told(["scancel", *options, *names[i : i + AT_ONCE]])

    def _told(self, command: Sequence[str]) -> str | None:
        """What a command prints; None, with `problem` set, where it fails or does not answer."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER)
        except subprocess.TimeoutExpired:
            self.problem = f"{command[0]} gave no answer within {ANSWER} s"
            return None
        except OSError as error:
            self.problem = f"{command[0]}: {error.strerror or error}"
            return None
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            self.problem = said[-1].strip().rstrip(".") if said else f"{command[0]} ended with {done.returncode}"
            return None
        return done.stdout


class LocalQueue(Queue):
    """submitit's processes on this machine: all jobs at once, to try things without a cluster."""

    cluster = "local"

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.folder = out / FOLDER
        self.asked: set[str] = set()

    def check(self, partition: str) -> None:
        """See the base."""
        if partition:
            raise UsageError(f"engine 'slurm': there is no partition '{partition}' with cluster=local, which has none.")

    def look(self, names: Collection[str]) -> Mapping[str, Entry] | None:
        """See the base. A process counts when it is one of submitit's, with this study's folder."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError):  # a process that has ended has no arguments
                arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if b"submitit.local._local" in arguments and os.fsencode(self.folder) in arguments:
                    found[name] = Entry("RUNNING")
        return found

    def cancel(self, jobs: Mapping[str, Entry]) -> None:
        """See the base."""
        for name in jobs:
            if name not in self.asked:
                self.asked.add(name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(name), signal.SIGTERM)


def named(name: str) -> bool:
    """Whether a text may be the name of a job, as engine.json of a stranger's folder gives it."""
    return re.fullmatch(r"[1-9]\d{0,9}(_\d{1,9})?", name) is not None
