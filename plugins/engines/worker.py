"""What a worker of Ray does: jobs of a study, in the worker itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch

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
    with job.into(Path(folders[0]) / job.LOG):
        return job.main(["--log", *folders]), ""
