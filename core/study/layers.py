"""What of a recipe lies over what: a scale over the recipe, a variant's data over the study's, --set over all."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Sequence
from typing import Any

from distk.errors import UsageError
from distk.study.recipe import Table


def scaled(raw: Table, changes: Table) -> dict[str, Any]:
    """A recipe's table with what `[scale.NAME]` changes."""
    made = copy.deepcopy(dict(raw))
    for key, value in changes.items():
        if key == "data" and isinstance(value, dict):
            made[key] = layered([made.get(key, {}), value])
        else:
            made[key] = _merged(made.get(key), value)
    return made


def _merged(before: Any, after: Any) -> Any:
    if isinstance(before, dict) and isinstance(after, dict):
        return {**before, **{k: _merged(before.get(k), v) for k, v in after.items()}}
    return copy.deepcopy(after)


def layered(layers: Sequence[Table]) -> dict[str, Any]:
    """Sections [data], each over the one before; another data set's settings mean nothing to this one."""
    made: dict[str, Any] = {}
    for layer in layers:
        if "name" in layer and _base(layer["name"]) != _base(made.get("name", layer["name"])):
            made = {}
        made |= layer
    return made


def _base(name: Any) -> str:
    return str(name).partition(":")[0]


def force(given: str, raw: dict[str, Any], forced: dict[str, dict[str, Any]]) -> None:
    """Take `SECTION.KEY=VALUE` into `forced`, or `options.METRIC.KEY=VALUE` into the recipe itself."""
    path, equals, text = given.partition("=")
    section, _, key = path.strip().partition(".")
    if not equals or not section or not key:
        raise UsageError(
            f"--set '{given}' is not understood; write METHOD.KEY=VALUE, or model., data., train., settings. or "
            "options.METRIC. before KEY=VALUE."
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if section == "options":
        metric, _, key = key.partition(".")
        if not key:
            raise UsageError(f"--set '{given}' is not understood; write options.METRIC.KEY=VALUE.")
        raw.setdefault("options", {}).setdefault(metric, {})[key] = value
    else:
        forced.setdefault(section, {})[key] = value
