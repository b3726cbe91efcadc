"""How far the runs of a study are, from any machine that sees its folder; and how to stop them from there."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distk.errors import DistkError, unknown
from distk.files import read_text, write_atomic
from distk.registry import registry
from distk.study import job, signs, store, submitted
from distk.study.protocol import Engine

PATIENCE = 60.0
"""Seconds that `cancel` waits for jobs to save and end; they do so without it as well."""
LOOK = 0.2


def status(out: Path) -> dict[str, Any]:
    """{"study", "scale", "out", "engine", "watched", "runs": [...], "counts"} of a folder.

    engine: which one has jobs, or empty. watched: whether a process is running the study. A run is {"variant", "seed",
    "state", "step", "steps", "reason", "where", "job", "folder"}; state: done, running, queued, failed, stopped (the
    newest checkpoint is of an earlier step), not scored, not begun. reason: why it failed, waits or is stopped; where:
    the machine that it runs on; job: what its engine calls it.
    Raises DistkError for a folder without a study.
    """
    held = store.load(out)
    rows = {(row["variant"], row["seed"]) for row in store.read_rows(held.results)}
    record = submitted.load(out)
    watched = submitted.watched(out)
    runs = []
    for label in held.variants:
        for seed in held.seeds:
            folder = held.run_folder(label, seed)
            one: dict[str, Any] = {"variant": label, "seed": seed, "state": "not begun", "step": None, "steps": None}
            one |= {"reason": "", "where": "", "job": "", "folder": str(folder)}
            if (folder / job.FILE).exists():
                one |= _of(folder)
            elif (label, seed) in rows:
                one["state"] = "done"
            runs.append(one)
    _queued(runs, record, watched)
    return {
        "study": held.study,
        "scale": held.scale,
        "out": str(out),
        "engine": record.engine if record.jobs else "",
        "watched": watched,
        "runs": runs,
        "counts": dict(Counter(one["state"] for one in runs)),
    }


def _of(folder: Path) -> dict[str, Any]:
    try:
        wanted = job.read(folder)
        step = job.step_of(folder)
        finished = job.done(folder, wanted) is not None
    except DistkError as error:
        return {"state": "failed", "reason": str(error)}
    told: dict[str, Any] = {"step": step, "steps": wanted.steps}
    sign = signs.sign(folder)
    if finished:
        return {**told, "state": "done"}
    if sign is not None and sign.fresh:
        return {**told, "state": "running", "where": sign.host, "job": sign.job}
    if (folder / signs.FAILURE).exists():
        return {**told, "state": "failed", "reason": _said(folder / signs.FAILURE)}
    told["state"] = "not begun" if step is None else "not scored" if step >= wanted.steps else "stopped"
    if sign is not None:
        told["reason"] = f"its process on {sign.host} is gone"
    return told


def _queued(runs: list[dict[str, Any]], record: submitted.Submitted, watched: bool) -> None:
    """Say which runs wait in a queue."""
    names = {str(folder): name for folder, name in record.folders().items()}
    places = {id(one): str(Path(one["folder"]).absolute()) for one in runs}
    resting = [
        one for one in runs if one["state"] in ("not begun", "stopped", "not scored") and places[id(one)] in names
    ]
    if not resting:
        return
    waits = _waiting(record, watched)
    for one in resting:
        place = Path(places[id(one)])
        if place in waits:
            one |= {"state": "queued", "reason": waits[place], "job": names[str(place)]}


def _waiting(record: submitted.Submitted, watched: bool) -> Mapping[Path, str]:
    """The jobs that an engine has, by what it says itself where it can be asked, and why they wait."""
    jobs = record.folders()
    try:
        cls: type[Engine] = registry().find("engine", record.engine).load()
        if not cls.outlives:
            return dict.fromkeys(jobs, "") if watched else {}
        with contextlib.closing(record.again()) as engine:
            return engine.found(jobs)
    except DistkError as error:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.changed))
        return dict.fromkeys(jobs, f"as of {at}; the queue cannot be asked from here: {error}")


def _said(failure: Path) -> str:
    try:
        return read_text(failure)[:1000]
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def cancel(out: Path) -> dict[str, Any]:
    """Stop the runs of a study: those that run save and end, those that wait never begin. {"out", "asked", "ended",
    "left"}: how many there were, how many ended while we looked, how many still do.

    A process that runs the study is asked to stop; without one the engine is. Raises DistkError where the engine
    cannot be asked from here.
    """
    store.load(out)
    record = submitted.load(out)
    request = out / submitted.REQUEST
    end = time.monotonic() + PATIENCE
    if submitted.watched(out):
        asked = len(record.jobs)
        write_atomic(request, b"")
        while submitted.watched(out) and time.monotonic() < end:
            time.sleep(LOOK)
        left = len(submitted.load(out).jobs) if submitted.watched(out) else 0
        return {"out": str(out), "asked": asked, "ended": asked - left, "left": left}
    asked = ended = 0
    cls: type[Engine] | None = registry().find("engine", record.engine).load() if record.jobs else None
    if cls is not None and cls.outlives:
        with contextlib.closing(record.again()) as engine:
            found = engine.found(record.folders())
            asked = len(found)
            engine.cancel(signal.SIGTERM)
            while ended < asked and time.monotonic() < end:
                ended += len(engine.poll())
                time.sleep(LOOK)
    if ended == asked:
        record.jobs = {}
        record.save()
    return {"out": str(out), "asked": asked, "ended": ended, "left": asked - ended}


def log_of(out: Path, run: str) -> Path:
    """The log of a run's jobs. run: VARIANT/sSEED as below runs/, VARIANT being its label or its folder's name.

    Raises UsageError for a run that the study does not have, DistkError for one that never had a job.
    """
    held = store.load(out)
    name, _, seed = run.removeprefix("runs/").rstrip("/").rpartition("/")
    labels = {**{folder: label for label, folder in held.folders.items()}, **{label: label for label in held.variants}}
    known = [f"{held.folders[label]}/s{seed}" for label in held.variants for seed in held.seeds]
    if name not in labels or f"{held.folders[labels[name]]}/{seed}" not in known:
        raise unknown(f"run of '{out}'", run, known[:20])
    path = held.out / "runs" / held.folders[labels[name]] / seed / job.LOG
    if not path.exists():
        raise DistkError(f"run '{run}' of '{out}' has no log: no job has begun there.")
    return path
