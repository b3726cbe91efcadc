"""One run of a study, in a folder: train or resume it to its last step, then score it into scores.json.

    python -m distk.study.job [--log] FOLDER ...

Any machine that sees the folder can do it. What is done is not done again, so that a job may be started as often as one
likes; while one process works in a folder, another waits for it. Several folders that differ in their seed alone are
trained side by side where they are new and the device is CUDA. A line on stderr says when and where a run begins and
ends; with --log this and whatever else is printed goes into job.log of the run that it is about.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distk import places
from distk.asked import from_settings
from distk.checkpoint import read_header
from distk.device import choose_device
from distk.errors import DistkError, UsageError
from distk.evaluation import evaluate
from distk.files import own_file, read_bytes, read_text, write_atomic
from distk.models import open_model
from distk.settings import resolve
from distk.study.signs import FAILURE, NAME, SCORES, working
from distk.training.loop import resume, train
from distk.training.replicas import side_by_side
from distk.training.signals import Interrupted

FORMAT = 1
FILE, LOG = "job.json", "job.log"


@dataclass(frozen=True)
class Job:
    """What is to be done in a folder.

    sections: model, data, train, complete. scores: rounds of scoring, each {metric: settings}. select: whether the best
    state is scored, too.
    """

    method: str
    sections: Mapping[str, Mapping[str, Any]]
    scores: Sequence[Mapping[str, Mapping[str, Any]]]
    select: bool

    @property
    def seed(self) -> int:
        """The run's seed, from which its scores are drawn, too."""
        return int(self.sections["train"]["seed"])

    @property
    def steps(self) -> int:
        """The last step."""
        return int(self.sections["train"]["steps"])

    def write(self, folder: Path) -> None:
        """Put it into its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"format": FORMAT, **vars(self)}, indent=1, allow_nan=False).encode()
        if not (folder / FILE).exists() or read_bytes(folder / FILE) != content:
            write_atomic(folder / FILE, content)


def read(folder: Path) -> Job:
    """The job of a folder; its names and values are checked when they are looked up.

    Raises DistkError for a folder without a job, or a damaged one.
    """
    try:
        found = json.loads(read_text(folder / FILE))
        if found.pop("format") != FORMAT:
            raise ValueError("another format")
        job = Job(**found)
        _ = job.seed, job.steps, [dict(settings) for each in job.scores for settings in each.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DistkError(f"'{folder / FILE}' holds no job of a study ({type(error).__name__}).") from error
    return job


def step_of(folder: Path) -> int | None:
    """The step that a folder's checkpoint stands at; None without one."""
    path = folder / "checkpoint.safetensors"
    return read_header(path).step if path.exists() else None


def threads() -> int:
    """Threads of a job on the CPU: one unless OMP_NUM_THREADS says otherwise, the same with every engine and however
    many jobs run at a time, so that figures do not depend on where they were made."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else 1


def ending(folder: Path, code: int | None, stopped: str = "its process ended") -> tuple[str, bool]:
    """How the job of a folder ended: (error, lost), an empty error where it is done. For engines.

    code: of its process, None where that is not known. stopped: how to call what happened.
    """
    try:
        wanted = read(folder)
    except DistkError as error:
        return str(error), False
    if done(folder, wanted) is not None:
        return "", False
    with contextlib.suppress(OSError):
        return read_text(folder / FAILURE)[:2000], False
    how = "" if code is None else f" by signal {-code}" if code < 0 else f" with {code}"
    return f"{stopped}{how}; see {folder / LOG}", code is None or code < 0 or code > 128


def done(folder: Path, job: Job) -> dict[str, Any] | None:
    """The scores of a job that is done: {"last": {mark: result}, "selected": ...}; None where something is missing."""
    held = _held(folder)
    if held.get("step") != job.steps:
        return None
    states = ["last", *(["selected"] if job.select else [])]
    marks = {mark(metric, settings) for each in job.scores for metric, settings in each.items()}
    whole = all(isinstance(held.get(s), dict) and marks <= set(held[s]) for s in states)
    return held if whole else None


def mark(metric: str, settings: Mapping[str, Any]) -> str:
    """A metric with its settings, as the key of its result."""
    return f"{metric} {json.dumps(settings, sort_keys=True)}"


def _held(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(folder / SCORES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder; waits while another process does, such as one that still saves after its study was killed."""
    try:
        with open(folder / ".job.lock", "a", opener=own_file) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise DistkError(f"cannot write to '{folder}': {error.strerror or error}.") from error


def carry_out(folders: Sequence[Path], logged: bool = False) -> None:
    """Bring the jobs of these folders to their end. Raises DistkError of the first that fails, after the others.

    logged: what is printed goes into the log of the run.
    """
    problem: DistkError | None = None
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(claimed(folder))
        jobs = {folder: read(folder) for folder in folders}
        stack.enter_context(working(folders))
        fresh = [folder for folder in folders if step_of(folder) is None]
        if len(fresh) > 1:
            _side_by_side({folder: jobs[folder] for folder in fresh})
        for folder, job in jobs.items():
            with into(folder / LOG) if logged else contextlib.nullcontext():
                try:
                    _one(folder, job)
                except DistkError as error:
                    if error.exit_code > 128:  # asked to stop
                        raise
                    problem = problem or error
    if problem is not None:
        raise problem


def _one(folder: Path, job: Job) -> None:
    """Train and score one run, and keep why that failed."""
    try:
        if done(folder, job) is None:
            _said(folder, "begins")
            _train(folder, job)
            _score(folder, job)
            _said(folder, "is done")
        (folder / FAILURE).unlink(missing_ok=True)
    except DistkError as error:
        stopped = error.exit_code > 128
        if not stopped:
            write_atomic(folder / FAILURE, str(error).encode())
            print(f"error: {error}", file=sys.stderr)
        _said(folder, "stops" if stopped else "fails")
        raise


@contextlib.contextmanager
def into(path: Path) -> Iterator[None]:
    """Send what this process prints to a file, and afterwards where it went before."""
    kept = os.dup(1), os.dup(2)
    try:
        with open(path, "a", opener=own_file) as log:
            _flush()
            for number in (1, 2):
                os.dup2(log.fileno(), number)
        yield
    finally:
        _flush()
        for old, number in zip(kept, (1, 2), strict=True):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _said(folder: Path, what: str) -> None:
    """Tell the log what becomes of a run, and where."""
    called = f", job {os.environ[NAME]}" if os.environ.get(NAME) else ""
    place = f"{socket.gethostname()}, process {os.getpid()}{called}"
    when, run, step = time.strftime("%Y-%m-%d %H:%M:%S"), f"{folder.parent.name}/{folder.name}", step_of(folder) or 0
    print(f"{when} {run} {what} at step {step} on {place}", file=sys.stderr, flush=True)


def _side_by_side(jobs: Mapping[Path, Job]) -> None:
    """Train new runs in one process where that is faster, on CUDA; a failure shows again when each is taken up."""
    settings = [_settings(job) for job in jobs.values()]
    device = choose_device(settings[0].train.device)
    if device.type == "cuda":
        try:
            side_by_side(settings, list(jobs), device, quiet=True)
        except Interrupted:
            raise
        except DistkError:
            return


def _settings(job: Job) -> Any:

    return resolve(job.method, options=job.sections)


def _train(folder: Path, job: Job) -> None:

    step = step_of(folder)
    if step is None:
        train(_settings(job), folder, quiet=True)
    elif step < job.steps:
        resume(folder, job.steps, quiet=True, folder=job.sections.get("data", {}).get("dir"))
    elif step > job.steps:
        raise UsageError(f"'{folder}' was trained to step {step}, beyond the {job.steps} that the study asks for.")


def _score(folder: Path, job: Job) -> None:
    """Score what is not scored yet, writing after every round."""
    states = {"last": folder / "checkpoint.safetensors"}
    if job.select:
        states["selected"] = folder / "best.safetensors"
    held = _held(folder)
    if held.get("step") != job.steps:
        held = {"step": job.steps}
    for state, path in states.items():
        results = held.setdefault(state, {})
        for each in job.scores:
            missing = {m: dict(s) for m, s in each.items() if mark(m, s) not in results}
            if not missing:
                continue
            if path.exists():
                model, header = open_model(path, str(job.sections["train"].get("device", "auto")))
                if where := job.sections.get("data", {}).get("dir"):
                    places.name(where)  # the user's recipe says so, maybe on another machine
                asked = [replace(from_settings(name, settings), label=name) for name, settings in missing.items()]
                told = evaluate(model, asked, seed=job.seed)["metrics"]
                held[f"{state}_step"] = header.step
            else:
                told = {
                    name: {"error": "no state was kept, since the score that selects was never defined"}
                    for name in missing
                }
            for name, settings in missing.items():
                results[mark(name, settings)] = _plain(told[name])
            write_atomic(folder / SCORES, json.dumps(held, indent=1, allow_nan=False).encode())


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a result (null where undefined), and its error or reasons."""
    found: dict[str, Any] = {}
    for key, value in result.items():
        if isinstance(value, (bool, int, float)):
            number = float(value)
            found[key] = number if number - number == 0 else None
        elif key == "error" or (key == "reasons" and isinstance(value, dict)):
            found[key] = value if key == "error" else {str(k): str(v) for k, v in value.items()}
    return found


def main(arguments: Sequence[str]) -> int:
    """Entry point; the exit code is that of `distk`. What went wrong is said on stderr and kept in failure.txt."""
    if list(arguments) == ["--listen"]:
        return listen()
    logged = list(arguments[:1]) == ["--log"]
    folders = [Path(argument) for argument in arguments[logged:]]
    if not folders:
        print("usage: python -m distk.study.job [--log] FOLDER ...", file=sys.stderr)
        return 2
    try:
        carry_out(folders, logged)
    except DistkError as error:
        if not any((folder / FAILURE).exists() for folder in folders):
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a method of somebody else may raise anything; the study must name it
        traceback.print_exc()
        for folder in folders:
            with contextlib.suppress(DistkError):
                write_atomic(folder / FAILURE, f"unexpected {type(error).__name__}: {error}".encode())
        return 1
    return 0


def listen() -> int:
    """Take folders from stdin, a list in JSON on a line, and answer each line with the exit code, until stdin ends.

    Whatever the jobs print goes into job.log of the first folder.
    """
    answers = os.fdopen(os.dup(1), "w")
    code = 0
    for line in sys.stdin:
        folders = json.loads(line)
        with open(Path(folders[0]) / LOG, "a", opener=own_file) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = main(["--log", *folders])
        _flush()
        if code > 128:  # stopped by a signal: nothing more is begun
            return code
        print(code, file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
