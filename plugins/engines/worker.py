"""What a worker of Ray does: jobs of a study, in the worker itself."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from distk.files import own_file
from distk.study import job


def in_worker(folders: Sequence[str], cwd: str, threads: int) -> tuple[int, str]:
    """Jobs of a study, as a worker of Ray calls it: (exit code of the job, what is wrong with this machine).

    The jobs run in the worker itself, so that a worker which takes several imports torch once.
    """
    for folder in folders:
        if not (Path(folder) / job.FILE).is_file():
            return 1, f"the machine '{os.uname().nodename}' does not see '{folder}'"
    with contextlib.suppress(OSError):
        os.chdir(cwd)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    with _into(Path(folders[0]) / job.LOG):
        return job.main(list(folders)), ""


@contextlib.contextmanager
def _into(path: Path) -> Iterator[None]:
    """Send what this process prints to a file."""
    kept = os.dup(1), os.dup(2)
    with open(path, "a", opener=own_file) as log:
        _flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        _flush()
        for old, number in zip(kept, (1, 2), strict=True):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
