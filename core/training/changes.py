"""What may change when a run is taken up again, by options or by editing its config.toml; all else is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distk import checkpoint, places
from distk.config import read_toml
from distk.console import counted
from distk.errors import DistkError, UsageError
from distk.models import check_places
from distk.settings import Settings, resolve

MAY_CHANGE = frozenset(
    {
        *(
            "steps",
            "max_time",
            "patience",
            "stop_when",
            "log_every",
            "checkpoint_every",
            "eval",
            "eval_every",
            "eval_option",
            "log",
        ),
        *("device", "data_on", "deterministic", "capture", "on_nonfinite"),
    }
)
"""Settings of the trainer that do not change what was trained so far: how long, what is written and scored, where."""
_RATE = re.compile(r"(\w+_)?lr(_\w+)?")
"""Settings of methods that are learning rates, which an optimizer takes anew."""
Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Change:
    """A setting of a run that is another one from a step on."""

    section: str
    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.section}.{self.key} {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "none" if value is None else str(value)


def settings_of(
    header: checkpoint.Header, file: Path, changes: Sections | None = None, folder: str | None = None
) -> Settings:
    """The settings that a checkpoint was trained with, `changes` over them, checked like those of a command line.

    folder: where the data are now; else where the checkpoint says, if the user has named that place.
    """
    data = header.data
    if "name" not in data:
        raise DistkError(f"'{file}' does not say which data it was trained on, so it cannot be continued.")
    check_places(header, f"'{file}'", folder)
    named = {"name": data["name"], **({"dir": data["folder"]} if data.get("folder") else {})}
    own = {"model": header.config, "train": header.train, "data": {**data.get("options", {}), **named}}
    try:
        before = resolve(header.method, options=own)
        if not changes:
            return before
    except UsageError as error:  # the message may quote a value of any length
        raise DistkError(f"'{file}' cannot be continued: {str(error)[:1000]}") from error
    except (ArithmeticError, RecursionError) as error:
        raise DistkError(f"'{file}' has an impossible setting ({type(error).__name__}).") from error
    return resolve(header.method, options={s: {**own[s], **changes.get(s, {})} for s in own})


def wanted(header: checkpoint.Header, file: Path, asked: Sections) -> tuple[Settings, list[Change]]:
    """The settings that a run goes on with, and what of them is new.

    asked: by options. What the run folder's config.toml says otherwise than the checkpoint counts as asked for, too.
    Raises UsageError for what may not change, for fewer steps than are done, and for a config.toml that is none.
    """
    named = asked.get("data", {}).get("dir")
    edited = file.with_name("config.toml")
    own = settings_of(header, file, folder=named)
    differing = _differing(edited, header.method, own)
    for change in differing if named is None else ():
        if (change.section, change.key) == ("data", "dir") and change.new is not None:
            base = header.data["name"].partition(":")[0]
            places.check(change.new, f"'{edited}'", f"distk data {base} --data-dir")
    if refused := [change for change in differing if not _allowed(change.section, change.key)]:
        what = refused[0]
        raise UsageError(
            f"'{edited}' says {what.section}.{what.key} = {_shown(what.new)}, and the run was trained with "
            f"{_shown(what.old)}, which cannot change: put it back, or train anew with `distk train {header.method} "
            f"--config {edited}`."
        )
    for section, values in asked.items():
        for key in values:
            if not _allowed(section, key):
                may = ", ".join(f"train.{name}" for name in sorted(MAY_CHANGE))
                raise UsageError(f"{section}.{key} cannot change in a run; these can: {may}, data.dir, model.lr.")
    together: dict[str, dict[str, Any]] = {}
    for change in differing:
        together.setdefault(change.section, {})[change.key] = change.new
    for section, values in asked.items():
        together.setdefault(section, {}).update(values)
    settings = settings_of(header, file, together, folder=named)
    steps = settings.train.steps
    if steps < header.step:
        where = "--steps" if "steps" in asked.get("train", {}) else f"'{edited}' says steps ="
        raise UsageError(f"{where} {steps}: the run stands at step {header.step:,} already; name a larger number.")
    return settings, _between(own, settings)


def _allowed(section: str, key: str) -> bool:
    known = {"train": MAY_CHANGE, "data": frozenset({"dir"})}
    return key in known.get(section, ()) or (section == "model" and _RATE.fullmatch(key) is not None)


def _differing(edited: Path, method: str, own: Settings) -> list[Change]:
    """What a config.toml says otherwise than the checkpoint; nothing where there is none."""
    if not edited.exists():
        return []
    found = read_toml(edited)
    said = {name: part for name, part in found.items() if isinstance(part, dict)}
    if found.get("method", method) != method:
        raise UsageError(f"'{edited}' is of method '{found['method']}', the checkpoint beside it of '{method}'.")
    try:
        new = resolve(method, options=said)
    except UsageError as error:
        raise UsageError(f"'{edited}': {error}") from error
    return [c for c in _between(own, new) if c.key in said.get(c.section, ())]


def _between(old: Settings, new: Settings) -> list[Change]:
    before, after = old.to_dict(), new.to_dict()
    return [
        Change(section, key, before[section].get(key), after[section].get(key))
        for section in after
        for key in {**before[section], **after[section]}
        if before[section].get(key) != after[section].get(key)
    ]


def other_threads(header: checkpoint.Header) -> str:
    """What is said where a run on the CPU goes on with another number of threads; empty where it does not."""
    before, now = header.metrics.get("threads"), torch.get_num_threads()
    if not isinstance(before, int) or before == now:
        return ""
    return (
        f"this run had {counted(before, 'thread')} and goes on with {now}, which order sums differently: it will not "
        f"be bit for bit the run that it would have been. OMP_NUM_THREADS={before} keeps it so."
    )


def recorded(header: checkpoint.Header, changes: list[Change]) -> list[dict[str, Any]]:
    """The changes of a run so far, as its checkpoint keeps them: {"step", "setting", "old", "new"}."""
    before = header.metrics.get("changes")
    told = [
        {"step": header.step, "setting": f"{c.section}.{c.key}", "old": _shown(c.old), "new": _shown(c.new)}
        for c in changes
    ]
    return [*(before if isinstance(before, list) else []), *told]
