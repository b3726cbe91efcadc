"""Holding a trained model against data: opening them as the model's own were, and saying what is different."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distk.checkpoint import Header
from distk.config import hints
from distk.console import warn
from distk.data import Dataset, DataSpec, open_dataset
from distk.errors import UsageError
from distk.method import Method
from distk.models import trained_data
from distk.registry import registry

_AXES = {
    ("image", 3): ("channels", "height", "width"),
    ("environment", 3): ("channels", "height", "width"),
    ("grasp", 3): ("channels", "height", "width"),
    ("video", 4): ("frames", "channels", "height", "width"),
}
_NAMES = {
    "factors": "factors",
    "factor_kinds": "kinds of the factors",
    "fps": "frame rate",
    "actions": "number of actions",
    "action_names": "names of the actions",
    "vocab": "vocabulary",
    "unit": "unit of the vocabulary",
    "max_len": "longest sentence",
    "columns": "further columns",
}
"""What values of `DataSpec.extra` are called; others go by their key."""
_MEANING = ("vocab", "unit", "actions")
"""Values of `extra` that say what the model's inputs and outputs are: another one makes nonsense of every item."""
SHOWN = 6
"""Members of a list that a message shows."""


@dataclass(frozen=True)
class Difference:
    """What the model's and the data's description say differently. fatal: the model cannot read such items."""

    what: str
    model: str
    data: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.model} in the model, {self.data} in the data"


def fitting_data(model: Method, header: Header, name: str | None, folder: str | Path | None) -> Dataset:
    """The data set that the model was trained on, or another one by name, read as the model reads.

    What only means something else (class names, factors, a frame rate) is a warning. Raises UsageError that names
    what differs when the model cannot read these items.
    """
    device = model.device
    where = str(folder) if folder is not None else None
    if name is None:
        dataset = trained_data(header, device, where)
    else:
        options = _taken_over(model.spec, header, name)
        dataset = open_dataset(name, options, device=device, folder=where, model=model.spec)
    found = differences(model.spec, dataset.spec)
    fatal = [difference for difference in found if difference.fatal]
    if fatal:
        raise UsageError(f"data set '{dataset.name}' does not fit the model: {'; '.join(map(str, fatal))}.")
    if found:
        if problem := misfit(model, dataset.spec):
            raise UsageError(
                f"data set '{dataset.name}' does not fit the model: {'; '.join(map(str, found))} ({problem})."
            )
        warn(f"data set '{dataset.name}' is not as the model's own: {'; '.join(map(str, found))}")
    return dataset


def _taken_over(spec: DataSpec, header: Header, name: str) -> dict[str, Any]:
    """Settings of the model's own data that the named data set knows as well, such as the image size."""
    base = name.partition(":")[0]
    known = hints(registry().find("dataset", base).load().Config)
    options = {key: value for key, value in header.data.get("options", {}).items() if key in known}
    if base != header.data.get("name", "").partition(":")[0] and len(spec.shape) == 3:
        options |= {
            key: value for key, value in (("size", spec.shape[-1]), ("channels", spec.shape[0])) if key in known
        }
    return options


def differences(model: DataSpec, data: DataSpec) -> list[Difference]:
    """Everything that two data descriptions say differently, what the model cannot read first."""
    if model.kind != data.kind:  # all else says something else there
        return [Difference("kind", model.kind, data.kind, True)]
    found = _shapes(model, data)
    if model.range != data.range:
        found.append(Difference("range of values", _span(model), _span(data), True))
    if model.classes != data.classes:
        found.append(Difference("class names", *_listed(model.classes, data.classes), False))
    first, second = _plain(model.extra), _plain(data.extra)
    for key in sorted(set(first) | set(second)):
        one, other = first.get(key), second.get(key)
        if one != other:
            found.append(Difference(_NAMES.get(key, key.replace("_", " ")), *_listed(one, other), key in _MEANING))
    return sorted(found, key=lambda difference: not difference.fatal)


def misfit(model: Method, spec: DataSpec) -> str:
    """Why the model, built for such data, would be another network; empty where it would be the same.

    Empty as well for a model that cannot be built without computing.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            other = {name: tuple(t.shape) for name, t in type(model)(model.config, spec).state_dict().items()}
    except ValueError as error:
        return str(error).rstrip(".")
    except Exception:  # a constructor that computes with values has no sketch
        return ""
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    changed = [name for name in {**own, **other} if own.get(name) != other.get(name)]
    return f"its '{changed[0]}' would have another shape" if changed else ""


def _shapes(model: DataSpec, data: DataSpec) -> list[Difference]:
    """The axes that differ, by name where both are of a kind whose axes have names."""
    if model.shape == data.shape:
        return []
    axes = _AXES.get((model.kind, len(model.shape)))
    if axes is None or model.kind != data.kind or len(model.shape) != len(data.shape):
        return [Difference("shape", str(model.shape), str(data.shape), True)]
    pairs = zip(axes, model.shape, data.shape, strict=True)
    return [Difference(axis, str(a), str(b), True) for axis, a, b in pairs if a != b]


def _span(spec: DataSpec) -> str:
    return "{:g} to {:g}".format(*spec.range)


def _plain(value: Any) -> Any:
    """Values as a checkpoint's header gives them back: tuples are lists there."""
    return json.loads(json.dumps(value))


def _listed(one: Any, other: Any) -> tuple[str, str]:
    """Two values in words; of long lists the first members that the other one does not have at the same place."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) + len(other) > 2 * SHOWN:
        start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        return _members(one, start), _members(other, start)
    return _members(one, 0), _members(other, 0)


def _members(value: Any, start: int) -> str:
    if value is None or value in ([], (), {}):
        return "none"
    if isinstance(value, Mapping):
        nested = (list, tuple, Mapping)
        value = [key if isinstance(member, nested) else f"{key} {member}" for key, member in value.items()]
    if not isinstance(value, (list, tuple)):
        return str(value)[:100]
    shown = ", ".join(_members(member, 0) for member in value[start : start + SHOWN])[:300]
    count = f"{len(value):,} with " if start or len(value) > SHOWN else ""
    return f"{count}{'... ' if start else ''}{shown}{' ...' if len(value) > start + SHOWN else ''}"
