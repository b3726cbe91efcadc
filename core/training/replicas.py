"""One method, many seeds: replicas that train side by side, each as if it were alone.

On CUDA they share one process. A small network's captured step leaves most of a GPU idle, so every replica has a stream
of its own and their graphs run at the same time; one data set serves them all. (Stacking the replicas into one batched
network would save launches, too, but changes the order of sums and asks every method for it.) On the CPU each replica
is a process with one thread, as many at a time as there are cores: networks this small gain little from a second
thread, and a process has no interpreter to share. They are forks of one process that has imported torch and the method,
so that short runs are not all start-up (`distk.training.forks`). docs/reliability.md has the measurement.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from distk.config import to_toml
from distk.console import counted, note, progress
from distk.device import Ranks, choose_device, describe, own_randomness, randomness
from distk.errors import DistkError, UsageError
from distk.files import own_file, own_folder
from distk.registry import registry
from distk.run import Run, new_folder
from distk.settings import Settings
from distk.training import forks
from distk.training.beginning import opened
from distk.training.loop import Session, running, start, steps
from distk.training.parents import end_with_parent
from distk.training.record import COMMAND, command
from distk.training.signals import Interrupted, Stop, stopping


@dataclass
class Outcome:
    """What became of the replicas, by seed: those that finished, were stopped (with their folders), or failed."""

    finished: dict[int, Run] = field(default_factory=dict)
    stopped: dict[int, Path] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)

    def done(self, stop: Stop) -> list[Run]:
        """The finished runs; raises DistkError where a replica failed, Interrupted where they were stopped."""
        if self.failed:
            said = "; ".join(f"seed {seed}: {text}" for seed, text in sorted(self.failed.items()))
            others = len(self.finished) + len(self.stopped)
            raise DistkError(f"{len(self.failed)} of {counted(len(self.failed) + others, 'seed')} failed. {said}")
        if stop.signal:
            lines = "".join(f"\n  distk resume {path}" for _, path in sorted(self.stopped.items()))
            rest = f"\nNot begun: seeds {', '.join(map(str, self.waiting))}." if self.waiting else ""
            raise Interrupted(f"stopped; everything is saved. Continue with:{lines or ' nothing'}{rest}", stop.signal)
        return [run for _, run in sorted(self.finished.items())]


def train_seeds(settings: Sequence[Settings], out: Path | None = None, quiet: bool = False) -> list[Run]:
    """Train replicas that differ in their seed, each in its own run folder (`out`/s<seed>, or a new one under ./runs).

    Each is equal to the run trained alone; on the CPU, to the one trained alone with the same number of threads.
    Raises UsageError under torchrun, DistkError naming the seeds that failed after the others are done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--seeds trains its replicas by itself: start it without torchrun, or name one --seed.")
    folders = [out / f"s{s.train.seed}" if out is not None else None for s in settings]
    device = choose_device(settings[0].train.device)
    if device.type == "cpu" and len(settings) > 1:
        return in_processes(settings, folders, quiet)
    return side_by_side(settings, folders, device, quiet)


# One process


def side_by_side(
    settings: Sequence[Settings], folders: Sequence[Path | None], device: torch.device, quiet: bool = False
) -> list[Run]:
    """Train replicas in this process, a step of each in turn, on CUDA each on a stream of its own."""
    first = settings[0]
    dataset = opened(first, device)
    outcome, stop = Outcome(), Stop()
    replicas: dict[int, _Replica] = {}
    for one, folder in zip(settings, folders, strict=True):
        session = start(one, folder, device, Ranks(), dataset)
        session.stop = stop
        replicas[one.train.seed] = _Replica(session, device)
    if not quiet:
        note(f"{counted(len(replicas), 'seed')} of {first.entry.name} side by side on {describe(device)}")
        note(f"data {dataset.name}: {dataset.origin}")
    total = sum(replica.session.config.steps for replica in replicas.values())
    with stopping(stop), progress("training seeds", total, 0, quiet) as advance:
        while replicas:
            for seed, replica in list(replicas.items()):
                try:
                    going = replica.step()
                except DistkError as error:  # the others go on
                    outcome.failed[seed] = str(error)
                    going = False
                else:
                    advance(1)
                    if not going and stop.signal:
                        outcome.stopped[seed] = replica.session.run.path
                    elif not going:
                        outcome.finished[seed] = replica.session.run
                if not going:
                    del replicas[seed]
    return outcome.done(stop)


class _Replica:
    """A run that takes turns with others: its own global generators, and on CUDA its own stream."""

    def __init__(self, session: Session, device: torch.device) -> None:
        self.session, self.device = session, device
        self.states = randomness(device)  # as `start` left them, seeded for this replica
        self.stream: Any = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)
            self.stream.wait_stream(torch.cuda.current_stream(device))  # the weights are made on that one
        self._steps = self._run()

    def _run(self) -> Iterator[None]:
        with running(self.session, quiet=True):
            yield from steps(self.session)

    def step(self) -> bool:
        """Take one step; False when there was none left."""
        here = torch.cuda.stream(self.stream) if self.stream is not None else contextlib.nullcontext()
        with own_randomness(self.states, self.device), here:
            return next(self._steps, self) is not self


# Several processes


def in_processes(settings: Sequence[Settings], folders: Sequence[Path | None], quiet: bool = False) -> list[Run]:
    """Train replicas in processes of their own, as many at a time as the machine has cores for their threads.

    A signal is passed on: every replica finishes its step and saves.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdigit() and int(given) else 1
    waiting = [_Worker(one, folder, threads) for one, folder in zip(settings, folders, strict=True)]
    at_once = max(1, min(len(waiting), cores // threads))
    if not quiet:
        busy = f"{counted(at_once, 'process', 'processes')} of {counted(threads, 'thread')} at a time"
        note(f"{counted(len(waiting), 'seed')} of {settings[0].entry.name}, {busy}")
    outcome, stop = Outcome(), Stop()
    going: list[_Worker] = []
    server = forks.begun(_environment(threads), _needed(settings[0]))
    try:
        with stopping(stop), progress("training seeds", len(waiting), 0, quiet) as advance:
            while (waiting and not stop.signal) or going:
                while waiting and len(going) < at_once and not stop.signal:
                    worker = waiting.pop(0)
                    try:
                        going.append(worker.begin(server))
                    except DistkError as error:  # the others go on
                        outcome.failed[worker.seed] = str(error)
                        advance(1)
                time.sleep(0.05)
                if stop.signal:
                    for worker in going:
                        worker.pass_on(stop.signal)
                for worker in [w for w in going if w.ended()]:
                    going.remove(worker)
                    worker.tell(outcome, stop)
                    advance(1)
    finally:
        for worker in going:
            worker.kill()
        if server is not None:
            server.close()
    outcome.waiting = [worker.seed for worker in waiting]
    return outcome.done(stop)


def _environment(threads: int) -> dict[str, str]:
    """That of a replica's process: so many threads, and messages in one line."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "COLUMNS": "1000", COMMAND: command()}


def _needed(settings: Settings) -> list[str]:
    """The modules that every replica imports."""
    data = registry().find("dataset", settings.data.partition(":")[0]).load()
    return ["distk.commands.train", "distk.training.loop", settings.method.__module__, data.__module__]


class _Worker:
    """`distk train` of one seed in a process of its own, started by `begin`."""

    def __init__(self, settings: Settings, folder: Path | None, threads: int) -> None:
        self.seed, self.threads, self.settings = settings.train.seed, threads, settings
        self.path = new_folder(settings.entry.name, self.seed, folder)
        self.process: subprocess.Popen | forks.Run | None = None
        self._said: IO[bytes] | None = None
        self._config: Path | None = None
        self._passed = False

    def begin(self, server: forks.Server | None) -> _Worker:
        """Start the process: a fork of the server's, where there is one. Raises DistkError where its folder cannot be
        written."""
        # A name by which whoever takes the folder, the process itself first, removes it: a kill leaves none behind.
        self._config = self.path / f".config.toml.{secrets.token_hex(8)}.tmp"
        text = to_toml(self.settings.to_dict(), {"method": self.settings.entry.name})
        try:
            own_folder(self.path)
            with open(self._config, "x", encoding="utf-8", opener=own_file) as file:
                file.write(text)
        except OSError as error:
            raise DistkError(f"cannot write to run folder '{self.path}': {error.strerror or error}.") from error
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (read when the process has ended)
        words = ["train", self.settings.entry.name, "--config", str(self._config), "--out", str(self.path)]
        if server is not None:
            with contextlib.suppress(OSError):  # it was killed: the usual way
                self.process = server.begin(words, Path(f"/proc/{os.getpid()}/fd/{self._said.fileno()}"))
                return self
        # A group of its own: Ctrl-C reaches only us, and we pass it on once.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "distk", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env=_environment(self.threads),
            process_group=0,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        return self

    def pass_on(self, number: int) -> None:
        """Ask the process to finish its step and save, once."""
        if not self._passed and self.process is not None:
            self._passed = True
            self.process.send_signal(number)

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process is not None and self.process.poll() is not None

    def tell(self, outcome: Outcome, stop: Stop) -> None:
        """Sort this replica into the outcome and clean up after it."""
        assert self.process is not None
        assert self._said is not None
        assert self._config is not None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        self._said.close()
        self._config.unlink(missing_ok=True)
        if self.process.returncode == 0:
            outcome.finished[self.seed] = Run(self.path, {"method": self.settings.entry.name})
            note(f"seed {self.seed} is done: {self.path}")
        elif stop.signal and (self.path / "checkpoint.safetensors").exists():
            outcome.stopped[self.seed] = self.path
        elif not stop.signal:
            said = lines[-1].removeprefix("error: ") if lines else ""
            outcome.failed[self.seed] = said or f"its process ended with {self.process.returncode}"

    def kill(self) -> None:
        """End the process at once, after something went wrong in this one."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._config is not None:
            self._config.unlink(missing_ok=True)
