"""The engine `local`: jobs in processes of this machine, as many at a time as it has cores, or one for each GPU.

A process takes one job after the other, since importing torch costs more than a small run's scoring. On the CPU it has
one thread unless OMP_NUM_THREADS says otherwise, whatever else runs: so the figures do not depend on how many run at a
time. On CUDA the new runs of one variant are given to a process together, and train side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from distk.config import NoConfig
from distk.device import choose_device
from distk.study.job import ending, threads
from distk.study.protocol import Ended, Engine, Site
from distk.study.timing import processes
from distk.training.parents import end_with_parent

TOGETHER = 8
"""Runs that train side by side on CUDA."""


class Local(Engine[NoConfig]):
    """See the top of this file, and `distk.study.protocol.Engine`."""

    here = True

    def __init__(self, config: NoConfig, site: Site) -> None:
        super().__init__(config, site)
        self.cuda = choose_device(site.device).type == "cuda"
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads()), "COLUMNS": "1000"}
        self.gpus = _gpus() if self.cuda and site.device in ("auto", "cuda") else []
        self.at_once = site.jobs or (max(1, len(self.gpus)) if self.cuda else processes(None))
        self.waiting: list[Path] = []
        self.dropped: list[Path] = []
        self.workers: list[_Worker] = []
        self.cancelled = False

    def submit(self, folders: Sequence[Path]) -> Mapping[Path, str]:
        """Take jobs over; they begin at the next `poll`."""
        self.waiting += folders
        return dict.fromkeys(folders, "")

    def poll(self) -> list[Ended]:
        """What ended since the last call; begins what there is room for."""
        ended = [Ended(folder, "it never began") for folder in self.dropped]
        self.dropped.clear()
        for worker in list(self.workers):
            ended += worker.ended()
            if worker.gone:
                self.workers.remove(worker)
        while self.waiting and (idle := self._idle()) is not None:
            idle.give(self._next())
        if not self.waiting:
            for worker in self.workers:
                worker.dismiss()
        return ended

    def cancel(self, number: int) -> None:
        """Pass a signal on, once."""
        if not self.cancelled:
            self.cancelled = True
            self.dropped, self.waiting = self.waiting, []
            for worker in self.workers:
                worker.process.send_signal(number)

    def close(self) -> None:
        """End what still runs, after something went wrong in this process: it saves, and who comes next waits."""
        for worker in self.workers:
            worker.dismiss()
            if worker.folders:
                worker.process.terminate()
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(10)

    def _next(self) -> list[Path]:
        together = [self.waiting.pop(0)]
        while self.cuda and self.waiting and len(together) < TOGETHER and self.waiting[0].parent == together[0].parent:
            together.append(self.waiting.pop(0))
        return together

    def _idle(self) -> _Worker | None:
        """A process without a job, a new one if there may be more; None where all are busy."""
        for worker in self.workers:
            if not worker.folders:
                return worker
        if len(self.workers) >= self.at_once:
            return None
        environment = dict(self.environment)
        if self.gpus:
            slot = min(set(range(self.at_once)) - {worker.slot for worker in self.workers})
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
            self.workers.append(_Worker(environment, slot))
        else:
            self.workers.append(_Worker(environment, len(self.workers)))
        return self.workers[-1]


class _Worker:
    """A process that is told folders, a list in JSON on a line, and answers with a line when their jobs have ended.

    folders: what it is at; empty while it waits.
    """

    def __init__(self, environment: dict[str, str], slot: int) -> None:

        self.slot, self.folders, self.gone = slot, list[Path](), False
        # A group of its own: Ctrl-C reaches only us, and we pass it on once.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "distk.study.job", "--listen"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # each job writes its own into its folder
            env=environment,
            process_group=0,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.asks, self.answers = self.process.stdin, self.process.stdout
        os.set_blocking(self.answers.fileno(), False)

    def give(self, folders: list[Path]) -> None:
        """Hand over jobs that train together, or one."""
        self.folders = folders
        with contextlib.suppress(OSError):  # it ended in the meantime, which the next look at it finds
            self.asks.write(json.dumps([str(f) for f in folders]).encode() + b"\n")
            self.asks.flush()

    def dismiss(self) -> None:
        """Let it end when it has nothing to do."""
        if not self.folders:
            with contextlib.suppress(OSError):
                self.asks.close()

    def ended(self) -> list[Ended]:
        """The jobs that ended since the last look; sets `gone` when the process has ended, too."""
        code = self.process.poll()
        answer = self.answers.read()
        self.gone = code is not None
        if not self.folders or not (answer or self.gone):
            return []
        folders, self.folders = self.folders, []
        if self.gone:
            self.answers.close()
        return [Ended(folder, *ending(folder, code)) for folder in folders]


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [g for g in named.split(",") if g] if named else [str(i) for i in range(torch.cuda.device_count())]
