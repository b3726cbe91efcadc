"""The engine `slurm`: the runs of a study as job arrays of a Slurm cluster, through submitit.

Jobs go on when the process of the study is gone. Slurm queues a job again whose node is lost or that others preempt;
one whose time limit is near saves and has itself queued again; each takes its run up where it was saved last.

submitit hands a job over as a pickle in OUT/jobs, which nobody but the user may enter; it is read on the node by
submitit alone. What a job has to say comes back as files of the run: no pickle of a result is ever read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distk import option
from distk.console import counted, note, warn
from distk.errors import DistkError, UsageError
from distk.files import own_file, own_folder, read_text
from distk.plugins.engines.queues import FOLDER, WAITING, Entry, LocalQueue, Queue, SlurmQueue, named
from distk.plugins.engines.work import Work
from distk.study.job import LOG, ending, threads
from distk.study.protocol import Ended, Engine, Site

SETTLE = 60.0
"""Seconds that the files of a job which ended well may take until they are seen here, on a file system with a cache."""
SILENT = 300.0
"""Seconds without an answer of the queue after which that is said."""
TAIL = 4096


@dataclass(frozen=True)
class Config:
    """Settings, `--set engine.KEY=VALUE`."""

    partition: str = option("", "partition, or several with commas between; default: the cluster's own")
    account: str = option("", "account that pays")
    qos: str = option("", "quality of service")
    constraint: str = option("", "features that a node must have")
    time: int = option(60, "minutes of a job; a run that needs more saves, is queued again and goes on", min=1)
    grace: int = option(90, "seconds before that limit at which a run saves", min=10)
    cpus: int = option(1, "cores of a job", min=1)
    memory: float | None = option(None, "GB of a job; default: the cluster's own", above=0)
    gpus: int | None = option(None, "GPUs of a job; default: 1 with --device cuda, else none", min=0)
    together: int = option(1, "runs of a job, one after the other; on a GPU, seeds of a variant side by side", min=1)
    array: int = option(1000, "most jobs of an array (MaxArraySize of the cluster)", min=1)
    setup: str = option("", "shell commands before a job, such as 'module load cuda'")
    sbatch: str = option("", "further options of sbatch, such as '--exclude=node7 --nice=100'")
    watch: float = option(10.0, "seconds between two looks at the queue", min=0.2)
    cluster: Literal["slurm", "local"] = option("slurm", "local: processes of this machine, to try without a cluster")


class Slurm(Engine[Config]):
    """See the top of this file, and `distk.study.protocol.Engine`."""

    outlives = True

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__(config, site)
        if importlib.util.find_spec("submitit") is None:
            raise UsageError("engine 'slurm' needs the package submitit: pip install 'distk[slurm]'.")
        self.extra = _flags(config.sbatch)
        self.queue: Queue = SlurmQueue(site.out) if config.cluster == "slurm" else LocalQueue(site.out)
        self.queue.check(config.partition)
        self.folder = site.out / FOLDER
        self.jobs: dict[str, list[Path]] = {}
        self.seen: dict[str, Entry] = {}
        self.ended: dict[str, float] = {}
        self.looked = float("-inf")
        self.answered = time.monotonic()
        self.cancelled = False

    def submit(self, folders: Sequence[Path]) -> Mapping[Path, str]:
        """Submit arrays. Raises DistkError with the words of sbatch where Slurm refuses them."""
        import submitit

        own_folder(self.folder)
        self.folder.chmod(0o700)
        groups = list(self._groups(folders))
        called: dict[Path, str] = {}
        executor = submitit.AutoExecutor(self.folder, cluster=self.config.cluster, slurm_max_num_timeout=1 << 30)
        executor.update_parameters(**self._parameters())
        began = time.monotonic()
        for i in range(0, len(groups), self.config.array):
            part = groups[i : i + self.config.array]
            spare = max(5.0, self.config.grace - 20.0)
            work = [Work([str(f) for f in each], threads(), self.config.time, spare) for each in part]
            try:
                jobs = executor.submit_array(work)
            except submitit.core.utils.FailedJobError as error:
                raise DistkError(f"Slurm refuses the jobs: {_words(str(error))}.") from error
            for job, each in zip(jobs, part, strict=True):
                self.jobs[job.job_id] = each
                called |= dict.fromkeys(each, job.job_id)
        arrays = sorted({name.partition("_")[0] for name in called.values()})
        if self.config.cluster == "slurm":
            took = time.monotonic() - began
            note(f"{counted(len(groups), 'job')} of Slurm, {', '.join(arrays)}, submitted in {took:.1f} s")
        self.looked = time.monotonic()
        return called

    def found(self, jobs: Mapping[Path, str]) -> Mapping[Path, str]:
        """See the base. Only jobs that bear the name of this study are touched, whatever engine.json says."""
        names = {name for name in jobs.values() if named(name)}
        seen = self.queue.look(names)
        if seen is None:
            raise DistkError(f"Slurm does not answer: {self.queue.problem}.")
        self.seen = {name: entry for name, entry in seen.items() if entry.open}
        here = {folder: name for folder, name in jobs.items() if name in self.seen}
        for folder, name in here.items():
            self.jobs.setdefault(name, []).append(folder)
        return {folder: self.seen[name].reason for folder, name in here.items()}

    def poll(self) -> list[Ended]:
        """See the base; the queue is asked every few seconds."""
        now = time.monotonic()
        if not self.jobs or now - self.looked < self.config.watch:
            return []
        self.looked = now
        seen = self.queue.look(self.jobs)
        if seen is None:
            self._silent(now)
            return []
        self.answered = now
        self.seen = {name: entry for name, entry in seen.items() if entry.open}
        if self.cancelled:
            self.queue.cancel(self.seen)
        told = []
        for name in [name for name in self.jobs if name not in self.seen]:
            told += self._ended(name, seen.get(name, Entry("GONE")))
        return told

    def _silent(self, now: float) -> None:
        """The queue gave no answer. That is said in the end, and who wants to stop is not kept waiting."""
        why = self.queue.problem
        if self.cancelled:
            words = f"jobs may go on: `distk study cancel {self.site.out}` asks again"
            raise DistkError(f"Slurm does not answer ({why}); {words}.")
        if now - self.answered > SILENT:
            self.answered = now
            warn(f"Slurm does not answer ({why}); jobs go on without it")

    def waits(self) -> Mapping[str, int]:
        """See the base: Slurm's reasons."""
        reasons: dict[str, int] = {}
        for entry in self.seen.values():
            if entry.state in WAITING:
                reasons[entry.reason or entry.state] = reasons.get(entry.reason or entry.state, 0) + 1
        return reasons

    def cancel(self, number: int) -> None:
        """See the base."""
        if not self.cancelled:
            self.cancelled = True
            self.queue.cancel(self.queue.look(self.jobs) or {})

    def close(self) -> None:
        """See the base: jobs go on. The folder of submitit goes where it is empty."""
        if not self.jobs:
            for left in [*self.folder.glob("*_submission.sh"), *self.folder.glob(".submission_file_*.sh")]:
                left.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _groups(self, folders: Sequence[Path]) -> Iterator[list[Path]]:
        """Runs that are one job: of one variant, so that they may train side by side."""
        group: list[Path] = []
        for folder in folders:
            if group and (len(group) >= self.config.together or group[0].parent != folder.parent):
                yield group
                group = []
            group.append(folder)
        if group:
            yield group

    def _parameters(self) -> dict[str, Any]:
        """Settings as submitit takes them."""
        config = self.config
        gpus = config.gpus if config.gpus is not None else int(self.site.device.startswith("cuda"))
        common: dict[str, Any] = {"timeout_min": config.time, "gpus_per_node": gpus}
        if config.cluster == "local":
            return {**common, **({"local_setup": [config.setup]} if config.setup else {})}
        given: dict[str, Any] = {"partition": config.partition, "account": config.account, "qos": config.qos}
        given |= {"constraint": config.constraint, "setup": [config.setup] if config.setup else None}
        given |= {"array_parallelism": self.site.jobs or config.array, "signal_delay_s": config.grace}
        given |= {"additional_parameters": {"requeue": True, **self.extra}}
        return {
            **{k: v for k, v in common.items() if v},
            "name": self.queue.title,
            "cpus_per_task": config.cpus,
            **({"mem_gb": config.memory} if config.memory else {}),
            **{f"slurm_{key}": value for key, value in given.items() if value},
        }

    def _ended(self, name: str, entry: Entry) -> list[Ended]:
        """What became of the runs of a job that left the queue; nothing yet where files may be on their way."""
        told = [(folder, *ending(folder, None)) for folder in self.jobs[name]]
        since = self.ended.setdefault(name, time.monotonic())
        unsaid = [folder for folder, error, lost in told if error and lost]
        if unsaid and entry.state == "COMPLETED" and time.monotonic() - since < SETTLE:
            return []
        trace = any((self.folder / f"{name}_0_log.{end}").exists() for end in ("out", "err"))
        found = []
        for folder, error, lost in told:
            if error and lost:
                self._keep_words(name, folder)
                error, lost = self._reason(name, folder, entry, trace)
            found.append(Ended(folder, error, lost))
        del self.jobs[name]
        for end in ("submitted.pkl", "0_result.pkl", "0_log.out", "0_log.err"):
            (self.folder / f"{name}_{end}").unlink(missing_ok=True)
        return found

    def _reason(self, name: str, folder: Path, entry: Entry, trace: bool) -> tuple[str, bool]:
        """(error, lost) of a job that said nothing itself."""
        node = f" on {entry.node}" if entry.node else ""
        if entry.state.startswith("CANCELLED"):
            return f"job {name} was cancelled", False
        if entry.state == "OUT_OF_MEMORY":
            return f"job {name} had not enough memory{node}: give more by --set engine.memory=GB", False
        if not trace:
            where = f"without a trace in '{self.site.out}'"
            return f"job {name} ended{node} {where}: --out must lie on a file system that all nodes see", False
        how = "" if entry.state in ("GONE", "COMPLETED", "FAILED") else f" ({entry.state.lower().replace('_', ' ')})"
        return f"job {name} ended{node}{how}; see {folder / LOG}", True

    def _keep_words(self, name: str, folder: Path) -> None:
        """Put what Slurm and submitit said of a job into the log of its run."""
        with contextlib.suppress(OSError):
            said = read_text(self.folder / f"{name}_0_log.err")[-TAIL:].splitlines()
            lines = [line for line in said if line.strip() and "submitit INFO" not in line]
            if lines:
                with open(folder / LOG, "a", opener=own_file) as log:
                    log.write(f"what the queue said of job {name}:\n" + "\n".join(lines) + "\n")


def _flags(text: str) -> dict[str, Any]:
    """`--key=value --flag` as submitit takes them. Raises UsageError for anything else."""
    found: dict[str, Any] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"engine 'slurm', 'sbatch': {text!r} is not understood ({error}).") from error
    for word in words:
        key, equals, value = word.partition("=")
        if not key.startswith("--") or len(key) < 3:
            raise UsageError(f"engine 'slurm', 'sbatch': write --KEY=VALUE, not {word!r}.")
        found[key[2:].replace("-", "_")] = value if equals else True
    return found


def _words(error: str) -> str:
    """The sentence of sbatch in an exception of submitit."""
    said = [line.strip() for line in error.splitlines() if "error:" in line]
    return (said[-1] if said else error.strip().splitlines()[-1] if error.strip() else "no reason given").rstrip(".")
