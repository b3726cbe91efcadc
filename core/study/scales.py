"""What a study does otherwise at the scale that it runs at than as it was published."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from distk.study.layers import scaled
from distk.study.parse import SCALABLE, seeds_of
from distk.study.recipe import Recipe, Table


def instead(recipe: Recipe, seeds: Sequence[int] = ()) -> dict[str, tuple[Any, Any]]:
    """Setting -> (its value here, its value as published), by the scale and by `--set`.

    seeds: those that run, where they are others than the recipe's. Settings of a variant are told by how many variants
    there are: a scale may have its own.
    """
    raw = tomllib.loads(recipe.text)
    scales = raw.pop("scale", {})
    here, there = (scaled(raw, scales.get(scale, {})) for scale in (recipe.scale, "paper"))
    for section, values in recipe.forced.items():
        here[section] = {**here.get(section, {}), **values}
    found: dict[str, tuple[Any, Any]] = {}
    many = len(seeds or recipe.seeds), len(seeds_of(there.get("seeds", 1), "seeds"))
    if many[0] != many[1]:
        found["seeds"] = many
    for key in (*SCALABLE, *(section for section in recipe.forced if section not in SCALABLE)):
        if key not in ("seeds", "equal"):
            ours, theirs = dict(_flat(key, here.get(key))), dict(_flat(key, there.get(key)))
            for name in (*theirs, *(name for name in ours if name not in theirs)):
                if ours.get(name) != theirs.get(name):
                    found[name] = (ours.get(name), theirs.get(name))
    counts = [
        sum(_size(v) for v in raw.get("variants", []) if v.get("scale") in (None, s)) for s in (recipe.scale, "paper")
    ]
    if counts[0] != counts[1]:
        found["variants"] = (counts[0], counts[1])
    return found


def told(found: dict[str, tuple[Any, Any]]) -> str:
    """The same in a line."""
    return ", ".join(f"{name} {_word(ours)} instead of {_word(theirs)}" for name, (ours, theirs) in found.items())


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif value is not None:
        yield name, value


def _size(variant: Table) -> int:
    """How many variants the grid of one makes."""
    size = 1
    for values in variant.get("grid", {}).values():
        size *= len(values)
    return size


def _word(value: Any) -> str:
    if value is None:
        return "the default"
    if isinstance(value, list):
        return f"[{', '.join(map(_word, value))}]"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
