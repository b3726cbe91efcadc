"""How `distk eval` shows its numbers: by what they measure, with direction, chance and interval beside them."""

from __future__ import annotations

from typing import Any

from distk import console
from distk.console import counted
from distk.meaning import ARROWS
from distk.metric import Picture
from distk.registry import registry

OTHER = "other"
SHOWN = 12
"""Letters of a chance that is a formula ("1/K"); a longer one stands in --json alone."""


PAIRS = 4
"""Pairs of dependent factors that are named; --json has all."""


def show(results: dict[str, dict[str, Any]], drawn: dict[str, dict[str, Picture]], every: bool) -> None:
    """Numbers as a table, with a column per split where there are several; then what failed, and why.

    every: all metrics were asked for, so that those which do not apply are named in one line, without their reasons.
    """
    metrics = {split: result["metrics"] for split, result in results.items()}
    if len(results) == 1:
        _one(next(iter(metrics.values())), grouped=every)
    else:
        _side_by_side(metrics)
    several = len(results) > 1
    failed: list[tuple[str, str]] = []
    said: dict[str, list[tuple[str, str]]] = {}
    for split, scored in metrics.items():
        of = f" ({split})" if several else ""
        failed += [(f"{name}{of}", values["error"]) for name, values in scored.items() if "error" in values]
        for name, values in scored.items():
            for key, why in values.get("reasons", {}).items():
                said.setdefault(why, []).append((f"{name}{of}", key))
    anything = any("error" not in values for scored in metrics.values() for values in scored.values())
    if failed and every and anything:
        names = ", ".join(name for name, _ in failed)
        console.say()
        console.note(
            f"not applicable here: {counted(len(failed), 'metric')} (name one, or add --json, for its reason): {names}"
        )
    elif failed and anything:
        console.say()
        console.table("", ("not scored", "because"), failed)
    else:
        for name, reason in failed:
            console.error(f"{name}: {reason}")
    for line in [*(_told(why, where) for why, where in said.items()), *_dependent(results)]:
        console.note(line)
    for split, pictures in drawn.items():
        for name, picture in pictures.items():
            if text := picture.text():
                console.say(f"\n{name}{f' ({split})' if several else ''}\n{text}")


def _told(why: str, where: list[tuple[str, str]]) -> str:
    """A reason once, behind the scores that give it; of a single one with the number that it is about."""
    names, keys = list(dict.fromkeys(name for name, _ in where)), list(dict.fromkeys(key for _, key in where))
    if (len(keys) > 1 and len(names) > 1) or why.startswith((f"{keys[0]} ", f"{keys[0]}:")):
        return f"{', '.join(names)}: {why}"
    return f"{', '.join(names)}, {', '.join(keys)}: {why}"


def _dependent(results: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each split whose factors tell of each other."""
    lines = []
    for split, result in results.items():
        pairs = result.get("provenance", {}).get("dependent_factors", [])
        if pairs:
            named = [f"{' and '.join(p['factors'])} ({p['share']:.0%})" for p in pairs[:PAIRS]]
            more = f" and {counted(len(pairs) - PAIRS, 'more pair')}" if len(pairs) > PAIRS else ""
            of = f" of split '{split}'" if len(results) > 1 else ""
            lines.append(f"factors{of} tell of each other: {', '.join(named)}{more}; see dependent-gaps")
    return lines


def _numbers(values: dict[str, Any], first: str = "") -> dict[str, float | int]:
    """The numbers of a metric's result that stand in the table, `first` before others; what counts is whole."""
    shown = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not k.endswith("_std")}
    shown = {k: shown[k] for k in sorted(shown, key=lambda k: k != first)}
    meaning = values.get("meaning", {})
    return {
        key: int(value) if meaning.get(key, {}).get("whole") and value == int(value) else value
        for key, value in shown.items()
        if key != "repeats"
    }


def _one(metrics: dict[str, Any], grouped: bool) -> None:
    """A table, or one for each thing that is measured; columns that say nothing are left out."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, values in metrics.items():
        if "error" not in values:
            heading = _measures(values.get("metric", name)) if grouped else ""
            groups.setdefault(heading, []).extend(_lines(name, values))
    for heading, lines in sorted(groups.items(), key=lambda one: (one[0] == OTHER, one[0])):
        beside = ("std", "seeds", "shuffled", "95 %", "best", "chance")
        used = ["metric", "key", "value", *(key for key in beside if any(line[key] != "" for line in lines))]
        rows = [[line[key] if line[key] != "" or key in ("best", "chance") else None for key in used] for line in lines]
        console.table(heading, used, rows)
        if grouped:
            console.say()


def _lines(name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """What stands beside each number of a result; "" where nothing does."""
    seeds, meaning = values.get("repeats", 1), values.get("meaning", {})
    chance = values.get("baseline", {}).get("mean", {})
    reach = values.get("interval", {}).get("of", {})
    found = []
    cls = registry().loaded("metric", values.get("metric", name))
    for key, value in _numbers(values, "" if cls is None else cls.headline).items():
        told = meaning.get(key, {})
        expected = told.get("chance", "")
        found.append(
            {
                "metric": name,
                "key": key,
                "value": value,
                "std": values.get(f"{key}_std", ""),
                "seeds": seeds if seeds > 1 else "",
                "shuffled": chance.get(key, ""),
                "95 %": "{:.3g}..{:.3g}".format(*reach[key]) if key in reach else "",
                "best": ARROWS.get(told.get("better", ""), ""),
                "chance": expected if not isinstance(expected, str) or len(expected) <= SHOWN else "",
            }
        )
    return found


def _measures(name: str) -> str:
    cls = registry().loaded("metric", name)
    return OTHER if cls is None else str(cls.measures) or OTHER


def _side_by_side(metrics: dict[str, dict[str, Any]]) -> None:
    found = {
        split: {n: _numbers(v) for n, v in scored.items() if "error" not in v} for split, scored in metrics.items()
    }
    keys = dict.fromkeys((name, key) for scored in found.values() for name, values in scored.items() for key in values)
    rows = [(name, key, *(found[split].get(name, {}).get(key) for split in found)) for name, key in keys]
    if rows:
        console.table("", ("metric", "key", *found), rows)
