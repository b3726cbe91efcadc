"""What a run folder says about its run, from its small files alone; nothing here imports torch.

A checkpoint gives its header, the log its last rows, `distk eval` and studies their numbers. Files come from strangers:
sizes are bounded, and what cannot be read is a word in `problem` rather than an error, so that one damaged run does not
hide the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from distk.errors import DistkError, nearest
from distk.files import own_file
from distk.registry import registry

CHECKPOINT, CONFIG, LOG = "checkpoint.safetensors", "config.toml", "log.jsonl"
SCORED, STUDY, FAILURE, JOB = "checkpoint.eval.json", "scores.json", "failure.txt", "job.json"
FILES = (CHECKPOINT, CONFIG, LOG, SCORED, STUDY, FAILURE, JOB)
"""What a record is made of: it is the same as long as these are."""
LARGEST = 16 << 20
"""Bytes of a header, a configuration or a file of scores that we agree to read."""
TAIL = 64 << 10
"""Bytes of a log that are read from its end."""
NOT_SETTINGS = ("train.seed", "train.device", "train.init_from", "data.dir")
"""Settings that say which run it is and where it ran, not how it was trained."""


@dataclass(frozen=True)
class Record:
    """A run, as its folder tells it.

    path: the folder. method, data: names, empty where the folder does not say. seed, step, steps: None likewise; step
    is that of the newest checkpoint. state: finished, running, stopped, failed, or not begun. changed: when, in seconds
    since 1970. settings: by SECTION.KEY. scores: by METRIC.KEY, of the newest checkpoint. logged: the last value of
    each logged term. problem: what could not be read, or why the run failed.
    """

    path: Path
    method: str = ""
    data: str = ""
    seed: int | None = None
    step: int | None = None
    steps: int | None = None
    state: str = ""
    changed: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    logged: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""

    def value(self, key: str, headlines: Mapping[str, str] | None = None) -> Any:
        """What a word of a filter or of a column stands for, None where this run has no such thing.

        In order: a field of the record, a setting as SECTION.KEY or KEY, a score as METRIC.KEY or METRIC (its
        headline), a logged term.
        """
        if key in FIELDS:
            return str(self.path) if key == "path" else getattr(self, key)
        for name in (key, *(f"{section}.{key}" for section in ("model", "train", "data"))):
            if name in self.settings:
                return self.settings[name]
        for name in (key, f"{key}.{(headlines or {}).get(key, '')}"):
            if name in self.scores:
                return self.scores[name]
        return self.logged.get(key)

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return {**vars(self), "path": str(self.path)}

    @property
    def recipe(self) -> dict[str, Any]:
        """Method and settings, which runs that differ in their seed share."""
        return {"method": self.method, **{k: v for k, v in self.settings.items() if k not in NOT_SETTINGS}}


FIELDS = ("path", "method", "data", "seed", "step", "steps", "state", "changed", "problem")


def read(folder: Path) -> Record:
    """The record of a run folder. Never raises for what stands in it."""
    found = _Reading(folder)
    header = found.header()
    config = header if header is not None else found.config()
    settings = {f"{s}.{k}": v for s in ("model", "data", "train") for k, v in config.get(s, {}).items()}
    steps, seed = _whole(settings.get("train.steps")), _whole(settings.get("train.seed"))
    log, logged = found.log()
    step = _whole(config.get("step"))
    scores = {**log, **found.study(), **found.scored(step)}
    failure = found.text(FAILURE)
    ended = config.get("ended")
    early = isinstance(ended, dict) and ended.get("done") is True and ended.get("step") == step
    last = step is not None and steps is not None and step >= steps
    state = "failed" if failure else "finished" if last or early else ""
    return Record(
        folder,
        _word(config.get("method")),
        _word(settings.pop("data.name", "")),
        seed,
        step,
        steps,
        state,
        found.changed(),
        settings,
        scores,
        logged,
        failure or "; ".join(found.problems),
    )


def state_of(record: Record) -> str:
    """The state of a run now: for one that is not finished, whether a process holds its folder."""
    if record.state == "finished":
        return record.state
    with contextlib.suppress(OSError), regular(record.path / ".lock") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "running"
    return record.state or ("not begun" if record.step is None else "stopped")


class _Reading:
    """Reads the files of one folder, and remembers what was wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.problems = folder, list[str]()

    def changed(self) -> float:
        """When the newest of the files was written; 0 without any."""
        times = [0.0]
        for name in FILES:
            with contextlib.suppress(OSError):
                times.append((self.folder / name).stat().st_mtime)
        return max(times)

    def header(self) -> dict[str, Any] | None:
        """The checkpoint's header as sections, with method and step; None without a checkpoint that can be read."""
        try:
            with regular(self.folder / CHECKPOINT) as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= LARGEST:
                    raise ValueError
                told = json.loads(json.loads(file.read(length))["__metadata__"]["distk"])
            data = told["data"]
            named = {"name": data.get("name", ""), **data.get("options", {})}
            train = {"seed": told["seed"], **told["train"]}
            return {
                "method": told["method"],
                "step": told["step"],
                "ended": told.get("metrics", {}).get("ended"),
                **_sections({"model": told["config"], "data": named, "train": train}),
            }
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.problems.append(f"{CHECKPOINT} cannot be read")
            return None

    def config(self) -> dict[str, Any]:
        """config.toml, or the job of a study that has not begun, as sections with the method."""
        try:
            if text := self.text(CONFIG):
                found = tomllib.loads(text)
                return {"method": found.get("method", ""), **_sections(found)}
            found = json.loads(self.text(JOB) or "{}")
            return {"method": found.get("method", ""), **_sections(found.get("sections", {}))}
        except (ValueError, TypeError, AttributeError, RecursionError):
            self.problems.append(f"{CONFIG} cannot be read")
            return {}

    def log(self) -> tuple[dict[str, float], dict[str, float]]:
        """The newest scores in the log, by METRIC.KEY, and the last value of each logged term."""
        metrics = {entry.name for entry in registry().entries("metric")}
        scores: dict[str, float] = {}
        logged: dict[str, float] = {}
        for row in last_rows(self.folder / LOG):
            for key, value in row.items():
                if _number(value):
                    metric, slash, name = key.partition("/")
                    scored = slash and metric in metrics
                    (scores if scored else logged)[f"{metric}.{name}" if scored else key] = float(value)
        for key in ("step", "seconds"):
            logged.pop(key, None)
        return scores, logged

    def study(self) -> dict[str, float]:
        """Scores of a study's job, of the last state."""
        found = self._json(STUDY).get("last", {})
        scores: dict[str, float] = {}
        for mark, result in found.items() if isinstance(found, dict) else ():
            scores = {**_numbers(mark.partition(" ")[0], result), **scores}
        return scores

    def scored(self, step: int | None) -> dict[str, float]:
        """Scores that `distk eval` wrote of the checkpoint at this step; those of another are named as a problem."""
        found = self._json(SCORED).get("metrics", {})
        scores: dict[str, float] = {}
        for metric, result in found.items() if isinstance(found, dict) else ():
            of = result.get("measured") if isinstance(result, dict) else None
            at = _whole(of.get("step")) if isinstance(of, dict) else None
            if at is None or at == step:
                scores |= _numbers(metric, result)
            else:
                self.problems.append(f"{metric} was scored at step {at}: score it again")
        return scores

    def text(self, name: str) -> str:
        """A file's text, empty where there is none or where it is too large."""
        try:
            with regular(self.folder / name) as file:
                content = file.read(LARGEST + 1)
        except OSError:
            return ""
        if len(content) > LARGEST:
            self.problems.append(f"{name} is too large")
            return ""
        return content.decode("utf-8", "replace")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads(self.text(name) or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.problems.append(f"{name} cannot be read")
            return {}
        return found


def regular(path: Path) -> IO[bytes]:
    """A file opened for reading. Raises OSError for what is none: a pipe would never end, a link leads elsewhere."""
    return os.fdopen(own_file(path), "rb")


def last_rows(path: Path, size: int = TAIL) -> list[dict[str, Any]]:
    """The rows of a log in its last `size` bytes; those that a killed process left half written are passed over."""
    try:
        with regular(path) as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - size)
            file.seek(start)
            lines = file.read(size).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines[1:] if start else lines:
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def _sections(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections model, data and train, each a table."""
    return {s: dict(v) for s in ("model", "data", "train") if isinstance(v := found.get(s, {}), Mapping)}


def _numbers(metric: str, result: Any) -> dict[str, float]:
    if not isinstance(result, dict):
        return {}
    left = {k: v for k, v in result.items() if _number(v) and not k.endswith("_std") and k != "repeats"}
    return {f"{metric}.{key}": float(value) for key, value in left.items()}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def unknown_key(key: str, records: list[Record], headlines: Mapping[str, str]) -> str:
    """The nearest word to one that no run has, as the end of a sentence."""
    known = {*FIELDS, *headlines}
    for record in records:
        known |= {*record.settings, *record.scores, *record.logged}
        known |= {name.partition(".")[2] for name in record.settings}
    return nearest(key, known)


def require(folder: Path) -> None:
    """Raise DistkError unless a folder is there."""
    if not folder.is_dir():
        raise DistkError(f"'{folder}' is {'no folder' if folder.exists() else 'not there'}: name a folder of runs.")
