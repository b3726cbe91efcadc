"""The one schema of a checkpoint's header, checked where a file is read: whoever uses a header need not doubt it."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 32
"""Levels of lists and tables."""
HUGE = 1 << 64
"""Whole numbers are smaller than this: nothing that is counted or drawn needs more."""
AXES, SIDE = 6, 1 << 20
"""Axes that an item may have, and values along one."""

_TEXTS = ("method", "plugin", "distribution", "version")
_NUMBERS = ("step", "seed", "format")
_TABLES = ("config", "data", "train", "metrics")
_DATA: dict[str, Any] = {
    "name": str,
    "options": dict,
    "folder": (str, type(None)),
    "origin": str,
    "spec": dict,
    "identity": dict,
}


def parsed(text: str) -> dict[str, Any]:
    """A header's text as a table of plain values.

    Raises ValueError or RecursionError for what is no JSON, or holds texts, numbers or levels that JSON written by us
    never does: lone surrogates, numbers that are not finite or enormous, thousands of levels.
    """
    values = json.loads(text, parse_constant=_refused)
    if not isinstance(values, dict):
        raise ValueError("it is no table")
    todo: list[tuple[Any, int]] = [(values, 1)]
    while todo:
        value, level = todo.pop()
        if level > DEEPEST:
            raise ValueError("it is nested too deep")
        if isinstance(value, dict):
            todo += [(member, level + 1) for member in (*value, *value.values())]
        elif isinstance(value, list):
            todo += [(member, level + 1) for member in value]
        elif isinstance(value, str):
            value.encode()  # raises for a lone surrogate
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number is not finite")
        elif isinstance(value, int) and not -HUGE < value < HUGE:
            raise ValueError("a number is enormous")
    return values


def _refused(word: str) -> None:
    raise ValueError(f"{word} is no number of a header")


def check(header: dict[str, Any]) -> None:
    """Raise TypeError or ValueError, saying where, for a header whose values are not of the kinds that they must be.

    header: the fields of `checkpoint.Header`.
    """
    for name in _TEXTS:
        _kind(header[name], str, name)
    for name in _NUMBERS:
        if type(header[name]) is not int or (name != "seed" and header[name] < 0):
            raise TypeError(name)
    for name in _TABLES:
        _kind(header[name], dict, name)
    data = header["data"]
    for name, kind in _DATA.items():
        if name in data:
            _kind(data[name], kind, f"data.{name}")
    _check_spec(data.get("spec"))
    _kind(header["latents"], list, "latents")
    for group in header["latents"]:
        _kind(group, dict, "latents")
        words = [group.get("name"), group.get("kind")]
        if not all(isinstance(word, str) for word in words) or not _count(group.get("size")):
            raise TypeError("latents")
    if "best" in header["metrics"]:
        _check_best(header["metrics"]["best"])


def _check_spec(spec: Any) -> None:
    """The description of an item, see `data.DataSpec`."""
    _kind(spec, dict, "data.spec")
    _kind(spec.get("kind"), str, "data.spec.kind")
    shape = spec.get("shape")
    _kind(shape, list, "data.spec.shape")
    if len(shape) > AXES or not all(_count(n) and 0 < n <= SIDE for n in shape):
        raise ValueError("data.spec.shape")
    values = spec.get("range")
    _kind(values, list, "data.spec.range")
    if len(values) != 2 or not all(_number(v) for v in values) or not values[0] < values[1]:
        raise ValueError("data.spec.range")
    _kind(spec.get("classes"), list, "data.spec.classes")
    if not all(isinstance(name, str) for name in spec["classes"]):
        raise TypeError("data.spec.classes")
    _kind(spec.get("extra"), dict, "data.spec.extra")


def _check_best(best: Any) -> None:
    _kind(best, dict, "metrics.best")
    sound = isinstance(best.get("metric"), str) and isinstance(best.get("key"), str)
    if not sound or not _number(best.get("value")) or not _count(best.get("step")):
        raise TypeError("metrics.best")


def _kind(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(where)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
