"""Signs of life: who works in a run's folder, for everybody who sees the folder, on whatever machine.

A job keeps `working.json` fresh while it is at a folder and removes it at its end. One that was killed leaves it, and a
sign that is old, or whose process is gone from this machine, counts for nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distk.errors import DistkError
from distk.files import read_text, write_atomic

FILE, SCORES, FAILURE, CHECKPOINT = "working.json", "scores.json", "failure.txt", "checkpoint.safetensors"
BEAT = 10.0
"""Seconds between two signs."""
SILENT = 120.0
"""Seconds after which a job that gives no sign counts as gone; clocks of two machines may differ by some of them."""
LARGEST = 4096
NAME = "DISTK_JOB"
"""Variable in which an engine tells a job what it is called in its queue."""


@dataclass(frozen=True)
class Sign:
    """Who works in a folder. host: the machine. pid: the process there. job: its name in a queue, or empty. since:
    seconds since 1970. fresh: whether it still works, as far as can be seen from here."""

    host: str
    pid: int
    job: str
    since: float
    fresh: bool


@contextlib.contextmanager
def working(folders: Sequence[Path]) -> Iterator[None]:
    """Give signs of life in these folders."""
    told = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get(NAME, ""), "since": time.time()}
    for folder in folders:
        write_atomic(folder / FILE, json.dumps(told).encode())
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            for folder in folders:
                with contextlib.suppress(OSError):
                    os.utime(folder / FILE)

    thread = threading.Thread(target=beat, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for folder in folders:
            with contextlib.suppress(OSError):
                (folder / FILE).unlink()


def sign(folder: Path) -> Sign | None:
    """The sign in a folder; None without one, or where it says nothing that could be one."""
    path = folder / FILE
    try:
        told = json.loads(read_text(path, LARGEST))
        age = time.time() - path.lstat().st_mtime
        found = Sign(str(told["host"]), int(told["pid"]), str(told["job"]), float(told["since"]), age < SILENT)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if found.host == socket.gethostname() and not _alive(found.pid):
        return Sign(found.host, found.pid, found.job, found.since, False)
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0


def worked(folder: Path) -> bool:
    """Whether a job ever did anything in a folder."""
    return any((folder / name).exists() for name in (FILE, SCORES, FAILURE, CHECKPOINT))


def standing(folder: Path) -> tuple[float, float]:
    """Something that changes whenever a job has got further: when its checkpoint and its scores were last written."""

    def written(name: str) -> float:
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            return 0.0

    return written(CHECKPOINT), written(SCORES)


def tell(folder: Path, error: str) -> None:
    """Keep why a run failed in its folder, where the job itself did not, so that `status` says it anywhere."""
    if not (folder / FAILURE).exists():
        with contextlib.suppress(DistkError):
            write_atomic(folder / FAILURE, error.encode())
