"""How far the runs of a study are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from distk.errors import DistkError
from distk.files import read_text
from distk.study import job, store


def status(out: Path) -> dict[str, Any]:
    """{"study", "scale", "runs": [{"variant", "seed", "state", "step", "steps", "reason"}], "counts"} of a folder.

    state: done, not scored, stopped or running (the newest checkpoint is of an earlier step), failed, not begun.
    Raises DistkError for a folder without a study.
    """
    held = store.load(out)
    rows = {(row["variant"], row["seed"]) for row in store.read_rows(held.results)}
    runs = []
    for label in held.variants:
        for seed in held.seeds:
            one: dict[str, Any] = {"variant": label, "seed": seed, "state": "not begun", "step": None, "steps": None}
            one["reason"] = ""
            folder = held.run_folder(label, seed)
            if (folder / job.FILE).exists():
                one |= _of(folder)
            elif (label, seed) in rows:
                one["state"] = "done"
            runs.append(one)
    return {
        "study": held.study,
        "scale": held.scale,
        "out": str(out),
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
    failure = folder / job.FAILURE
    if finished:
        state = "done"
    elif failure.exists():
        return {
            "state": "failed",
            "step": step,
            "steps": wanted.steps,
            "reason": _said(failure),
        }
    else:
        state = "not begun" if step is None else "not scored" if step >= wanted.steps else "stopped or running"
    return {"state": state, "step": step, "steps": wanted.steps}


def _said(failure: Path) -> str:
    try:
        return read_text(failure)[:1000]
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
