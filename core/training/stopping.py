"""Why a run ends before its last step: the time that it was given, a score that is good enough or no longer grows.

Also what `--epochs` means in steps. The loop asks `given_up` before each step and `look` at each row of the log.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from distk.asked import asked
from distk.console import counted, warn_once
from distk.data import Dataset
from distk.errors import UsageError, nearest
from distk.registry import registry
from distk.settings import Settings, TrainConfig
from distk.training.beginning import opened

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PARTS = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_CLOCK = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)")
_CONDITION = re.compile(r"\s*([^<>=\s]+)\s*(>=|<=|>|<)\s*(\S+)\s*")
PATIENCE, MET, TIME = 1, 2, 3
"""What ended a run; the number is what its processes agree on."""


class Session(Protocol):
    """What is asked of a run under way, `training.loop.Session`."""

    best: dict[str, Any]
    began: float
    met: str
    trainer: Any

    @property
    def config(self) -> TrainConfig:
        """Settings of its trainer."""


@dataclass(frozen=True)
class Condition:
    """What `--stop-when` says: a term of the log, or a score by METRIC or METRIC.KEY, against a number."""

    text: str
    name: str
    sign: str
    value: float

    def holds(self, found: float) -> bool:
        """Whether a number fulfils it; one that is not finite never does."""
        if not math.isfinite(found):
            return False
        if self.sign.startswith(">"):
            return found > self.value or (self.sign == ">=" and found == self.value)
        return found < self.value or (self.sign == "<=" and found == self.value)

    def key(self, scored: Collection[str]) -> str:
        """What the term is called in a row of the log. scored: the scores that are taken; other names are terms."""
        metric, _, key = self.name.partition(".")
        names = {n: e.name for e in registry().entries("metric") for n in (e.name, *e.aliases)}
        if names.get(metric) not in scored:
            return self.name
        return f"{names[metric]}/{key or registry().find('metric', metric).load().headline}"


def seconds(text: str) -> float:
    """`90s`, `30m`, `2h`, `1d`, `1h30m` or `H:MM:SS` in seconds. Raises UsageError for another form and for no time."""
    parts, found = _PARTS.findall(text), 0.0
    if (clock := _CLOCK.fullmatch(text)) is not None:
        hours, minutes, rest = map(int, clock.groups())
        found = 3600.0 * hours + 60 * minutes + rest
    elif parts and "".join(n + unit for n, unit in parts) == text:
        found = sum(float(n) * _UNITS[unit] for n, unit in parts)
    if not found > 0:
        raise UsageError(f"--max-time '{text}' is not understood; write 90s, 30m, 2h, 1h30m or 1:30:00.")
    return found


def conditions(config: TrainConfig) -> list[Condition]:
    """The conditions of `--stop-when`. Raises UsageError for another form, and for a score that is never taken."""
    made = []
    for text in config.stop_when:
        match = _CONDITION.fullmatch(text)
        try:
            found = Condition(text, match[1], match[2], float(match[3])) if match else None
        except ValueError:
            found = None
        if found is None:
            raise UsageError(f"--stop-when '{text}' is not understood; write NAME>=NUMBER, as in 'mig>=0.3'.")
        made.append(found)
    return made


def scored(config: TrainConfig) -> set[str]:
    """What the scores of `--eval` and `--keep` are called in the log."""
    return {one.label for one in asked([*config.eval, *filter(None, [config.keep.partition(":")[2]])])}


def check(config: TrainConfig) -> None:
    """Raise UsageError for a `--max-time` or a `--stop-when` that is not understood, before anything is opened."""
    if config.max_time:
        seconds(config.max_time)
    conditions(config)


def in_steps(settings: Settings, device: torch.device, dataset: Dataset | None) -> tuple[Settings, Dataset | None]:
    """Settings whose `steps` are as many as `epochs` takes: batches of as many items as that many passes over the
    training rows have. The data set is opened for it, and given back.

    Raises UsageError for a method that is fitted in closed form.
    """
    if settings.train.epochs is None:
        return settings, dataset
    if settings.method.closed_form:
        raise UsageError(f"method '{settings.entry.name}' is fitted in one go: leave --epochs out.")
    dataset = dataset if dataset is not None else opened(settings, device)
    steps = math.ceil(settings.train.epochs * len(dataset.rows_of("train")) / settings.train.batch)
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=max(1, steps))), dataset


def look(session: Session, values: Mapping[str, Any]) -> None:
    """Hold a row of the log against `--stop-when`."""
    taken = scored(session.config)
    for one in conditions(session.config):
        key = one.key(taken)
        metric, slash, _ = key.partition("/")
        if isinstance(found := values.get(key), (int, float)):
            if one.holds(float(found)):
                session.met = f"{one.text} holds, {key} is {float(found):.4g}"
        elif not slash or metric not in taken or any(name.startswith(f"{metric}/") for name in values):
            hint = nearest(one.name, [name for name, value in values.items() if isinstance(value, float)])
            warn_once(f"--stop-when '{one.text}': the log has no '{key}'.{hint} A score must be taken: --eval NAME.")


def given_up(session: Session) -> str:
    """Why the run ends before its next step, in words, and empty where it goes on; all processes agree."""
    config, why = session.config, 0
    if not (config.patience or config.stop_when or config.max_time):
        return ""
    if config.patience and session.best.get("stale", 0) >= config.patience:
        why = PATIENCE
    elif session.met:
        why = MET
    elif config.max_time and time.monotonic() - session.began >= seconds(config.max_time):
        why = TIME
    why = session.trainer.ranks.largest(why)
    return {
        0: "",
        PATIENCE: f"--patience: {counted(config.patience, 'scoring')} without a better one",
        MET: f"--stop-when: {session.met}" if session.met else "--stop-when",
        TIME: f"--max-time {config.max_time} is over",
    }[why]


def ended(session: Session, why: str) -> dict[str, Any]:
    """What the checkpoint says of a run that ended early; `done` unless only its time was over."""
    return {"step": session.trainer.index, "why": why, "done": not why.startswith("--max-time")}
