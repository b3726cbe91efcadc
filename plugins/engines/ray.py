"""The engine `ray`: the runs of a study as tasks of a Ray cluster, or of one that is started on this machine.

A task is a job of a study in a worker of Ray. Where the worker or its machine is lost, the study hands the run out
again, and it goes on where it was saved last. Tasks end with the process of the study; the same command takes their
runs up again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distk import option
from distk.console import warn
from distk.errors import DistkError, UsageError
from distk.plugins.engines.worker import in_worker
from distk.study.job import LOG, ending, threads
from distk.study.protocol import Ended, Engine, Site
from distk.study.signs import sign

STORE = 200 << 20
"""Bytes of the object store of a cluster on this machine: nothing large goes through it."""
ANSWER = 10
"""Seconds within which the address of a cluster must answer."""


@dataclass(frozen=True)
class Config:
    """Settings, `--set engine.KEY=VALUE`."""

    address: str = option("", "HOST:PORT of a cluster, or auto for the one of this machine; default: start one here")
    cpus: float = option(1.0, "cores of a run", min=0)
    gpus: float | None = option(None, "GPUs of a run, such as 0.25; default: 1 with --device cuda, else none", min=0)
    memory: float | None = option(None, "GB that a run is counted with; default: not counted", above=0)
    together: int = option(1, "runs of a task, one after the other; on a GPU, seeds of a variant side by side", min=1)


class Ray(Engine[Config]):
    """See the top of this file, and `distk.study.protocol.Engine`."""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__(config, site)
        if importlib.util.find_spec("ray") is None:
            raise UsageError("engine 'ray' needs the package ray: pip install 'distk[ray]'.")
        self.gpus = config.gpus if config.gpus is not None else float(site.device.startswith("cuda"))
        self.ray = _connected(config.address)
        self.waiting: list[list[Path]] = []
        self.tasks: dict[Any, list[Path]] = {}
        self.dropped: list[Path] = []
        self.cancelled = False
        try:
            self._room()
        except DistkError:
            self.close()
            raise
        options: dict[str, Any] = {"num_cpus": config.cpus, "num_gpus": self.gpus, "max_retries": 0}
        if config.memory:
            options["memory"] = int(config.memory * (1 << 30))
        self.work = self.ray.remote(**options)(in_worker)

    def submit(self, folders: Sequence[Path]) -> Mapping[Path, str]:
        """See the base. Ray queues the tasks; with --jobs there are never more of them than that."""
        for folder in folders:
            last = self.waiting[-1] if self.waiting else []
            if last and len(last) < self.config.together and last[0].parent == folder.parent:
                last.append(folder)
            else:
                self.waiting.append([folder])
        return dict.fromkeys(folders, "")

    def poll(self) -> list[Ended]:
        """See the base."""
        ended = [Ended(folder, "it never began") for folder in self.dropped]
        self.dropped.clear()
        while self.waiting and (self.site.jobs is None or len(self.tasks) < self.site.jobs):
            folders = self.waiting.pop(0)
            task = self.work.remote([str(folder) for folder in folders], os.getcwd(), threads())
            self.tasks[task] = folders
        if self.tasks:
            ready, _ = self.ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=0)
            for task in ready:
                ended += self._ended(task, self.tasks.pop(task))
        return ended

    def waits(self) -> Mapping[str, int]:
        """See the base: a task waits until its first run gives a sign of life."""
        waiting = sum(not ((found := sign(folders[0])) and found.fresh) for folders in self.tasks.values())
        asked = f"a place with {self.config.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")
        return {asked: waiting} if waiting else {}

    def cancel(self, number: int) -> None:
        """See the base. Ray passes Ctrl-C on to a task that runs, which saves and ends."""
        if not self.cancelled:
            self.cancelled = True
            self.dropped, self.waiting = [f for each in self.waiting for f in each], []
            for task in self.tasks:
                self.ray.cancel(task, force=False)

    def close(self) -> None:
        """See the base: tasks end with their driver."""
        with _quiet():
            self.ray.shutdown()

    def _ended(self, task: Any, folders: list[Path]) -> list[Ended]:
        """What became of the runs of a task."""
        exceptions = self.ray.exceptions
        try:
            code, wrong = self.ray.get(task)
        except exceptions.TaskCancelledError:
            return [Ended(folder, "it was cancelled") for folder in folders]
        except exceptions.OutOfMemoryError:
            error = "Ray ended it, since its machine had no memory left: give less at a time with --jobs"
            return [self._lost(folder, error) for folder in folders]
        except exceptions.RayTaskError as error:
            said = str(error).strip().splitlines()[-1].rstrip(".")
            return [Ended(folder, f"the worker of Ray failed: {said}") for folder in folders]
        except (exceptions.RayError, ConnectionError) as error:
            return [self._lost(folder, f"its worker is gone ({type(error).__name__})") for folder in folders]
        if wrong:
            hint = "--out must lie on a file system that all machines of the cluster see"
            return [Ended(folder, f"{wrong}: {hint}") for folder in folders]
        return [Ended(folder, *ending(folder, code)) for folder in folders]

    def _lost(self, folder: Path, error: str) -> Ended:
        told, lost = ending(folder, None)
        return Ended(folder, f"{error}; see {folder / LOG}" if lost else told, lost)

    def _room(self) -> None:
        """Say at once where no machine of the cluster can ever take a run."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fits = [n for n in nodes if n.get("CPU", 0) >= self.config.cpus and n.get("GPU", 0) >= self.gpus]
        if fits:
            return
        cores, gpus = (max((n.get(kind, 0) for n in nodes), default=0) for kind in ("CPU", "GPU"))
        told = (
            f"a run asks for {self.config.cpus:g} cores and {self.gpus:g} GPUs, and no machine of the Ray cluster has "
        )
        told += f"more than {cores:g} cores and {gpus:g} GPUs"
        if not self.config.address:
            raise UsageError(f"{told}: ask for less by --set engine.cpus and engine.gpus.")
        warn(f"{told}; runs wait until one joins it")


def _connected(address: str) -> Any:
    """The module ray, connected to a cluster. Raises DistkError where it does not answer."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to others unless the user wants it
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the engine `local` runs its processes
    import ray

    if ":" in address and "://" not in address:
        _answers(address)
    variables = {k: v for k, v in os.environ.items() if k.startswith("DISTK_")}
    given: dict[str, Any] = {"address": address} if address else {"address": "local", "object_store_memory": STORE}
    if not address:
        given["include_dashboard"] = False
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _quiet():
            ray.init(
                **given,
                runtime_env={"env_vars": {**variables, "OMP_NUM_THREADS": str(threads())}},
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=False,
            )
    except Exception as error:  # of grpc, of redis, of Ray itself, differently in each version
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if not address:
            raise DistkError(f"no Ray cluster can be started here: {said[:300].rstrip('.')}.") from error
        hint = "; one that asks for a token gets it with RAY_AUTH_MODE=token in the environment"
        raise DistkError(f"the Ray cluster at '{address}' does not answer: {said[:300].rstrip('.')}{hint}.") from error
    finally:
        for number, handler in handlers.items():  # Ray puts its own in their place
            with contextlib.suppress(ValueError, TypeError):
                signal.signal(number, handler)
    return ray


def _answers(address: str) -> None:
    """Raise for an address where nobody listens, since Ray would ask it for a minute."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not host:
        raise UsageError(
            f"engine 'ray': '{address}' is no address; write HOST:PORT, as `ray start` prints it, or auto."
        )
    try:
        with socket.create_connection((host, int(port)), ANSWER):
            pass
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise DistkError(f"the Ray cluster at '{address}' does not answer: {said}.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notices that Ray prints for people who start it by hand, from C++, too."""
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for old, number in zip(kept, (1, 2), strict=True):
                os.dup2(old, number)
                os.close(old)
