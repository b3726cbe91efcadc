"""What submitit runs on a node. It imports no torch: the job does, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distk.files import own_file
from distk.study.signs import NAME, standing, tell

LOG = "job.log"
LOOK = 0.1
"""Seconds between two looks at the process of a job."""
TRIES = 3
"""Times that a job may reach its time limit without having got further."""


class Work:
    """Jobs of a study, one after the other, as submitit calls it on a node. folders: absolute. threads: of each job on
    the CPU. minutes: the time limit. spare: seconds that are left when it is told that the limit is near.

    The jobs run in a process of their own, so that a signal which submitit takes for itself can be passed on to it as
    the one that makes a run save and end.
    """

    def __init__(self, folders: Sequence[str], threads: int, minutes: int, spare: float, tries: int = 0) -> None:
        self.folders, self.threads, self.minutes = list(folders), threads, minutes
        self.spare, self.tries = spare, tries
        self.pid = 0
        self.began: list[tuple[float, float]] = []

    def __call__(self) -> None:
        """Raises RuntimeError where the process was stopped or killed, so that the queue calls the job failed."""
        first = Path(self.folders[0])
        self.began = [standing(Path(folder)) for folder in self.folders]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "COLUMNS": "1000", NAME: _name()}
        with open(first / LOG, "a", opener=own_file) as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "distk.study.job", "--log", *self.folders],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                # Slurm sends its warning to every process of a job, and one that does not know it would die of it.
                preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
            )
        self.pid = process.pid
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # Slurm sends it to the process, too
            signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
        # No `wait`, which holds a lock while it waits: `checkpoint` is called from a handler, in the middle of it.
        while process.poll() is None:
            time.sleep(LOOK)
        code = process.returncode
        if 0 < code <= 128:
            for folder in self.folders[:1] if len(self.folders) == 1 else []:
                tell(Path(folder), f"its process ended with {code}; see {Path(folder) / LOG}")
        elif code:
            raise RuntimeError(f"the job was stopped ({code})")

    def checkpoint(self) -> Any:
        """The time limit is near, or others take the place: have the jobs save, and be queued again. Called by submitit
        in a handler of its signal. None where that has led nowhere before."""
        import submitit.helpers

        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGTERM)
            end = time.monotonic() + self.spare
            gone = os.WEXITED | os.WNOHANG | os.WNOWAIT
            while time.monotonic() < end and os.waitid(os.P_PID, self.pid, gone) is None:
                time.sleep(LOOK)
        further = self.began != [standing(Path(folder)) for folder in self.folders]
        tries = 0 if further else self.tries + 1
        if tries >= TRIES:
            for folder in map(Path, self.folders):
                tell(folder, f"nothing was saved within its time limit of {self.minutes} min, {TRIES} times")
            return None
        again = Work(self.folders, self.threads, self.minutes, self.spare, tries)
        return submitit.helpers.DelayedSubmission(again)


def _name() -> str:
    """What the queue calls this job."""
    variables = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SUBMITIT_LOCAL_JOB_ID")
    array, task, job, local = (os.environ.get(name, "") for name in variables)
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return local
    return f"{array}_{task}" if array else job
