"""Choosing and ordering runs by words: `method=betavae`, `beta>=4`, `dci.disentanglement<0.5`."""

from __future__ import annotations

import fnmatch
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distk.errors import UsageError
from distk.laboratory.records import Record, unknown_key

FORM = re.compile(r"\s*([^<>=!\s]+)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*", re.DOTALL)
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def chosen(records: Sequence[Record], where: Sequence[str], headlines: Mapping[str, str]) -> list[Record]:
    """The runs for which every condition holds.

    where: `KEY=VALUE`, `!=`, `<`, `<=`, `>`, `>=`; KEY as in `Record.value`. Numbers are compared as numbers, else text
    with `*` for anything. A run without such a value is left out, and one of `!=` kept. Raises UsageError for a
    condition that is not understood and for a key that no run has.
    """
    found = list(records)
    for condition in where:
        key, sign, wanted = _parts(condition)
        values = [record.value(key, headlines) for record in records]
        if records and all(value is None for value in values):
            raise UsageError(
                f"--where '{condition}': no run has '{key}'.{unknown_key(key, list(records), headlines)} "
                "A key is method, data, seed, step, state, a setting, a score or a logged term."
            )
        if sign in ORDER and _number(wanted) is None:
            raise UsageError(f"--where '{condition}': '{wanted}' is no number to compare '{key}' with.")
        found = [record for record in found if _holds(record.value(key, headlines), sign, wanted)]
    return found


def ordered(records: Sequence[Record], key: str, headlines: Mapping[str, str]) -> list[Record]:
    """Runs by a key, ascending; `-KEY` descending. Those without a value come last.

    Raises UsageError for a key that no run has.
    """
    name, down = (key[1:], True) if key.startswith("-") else (key, False)
    pairs = [(record.value(name, headlines), record) for record in records]
    if records and all(value is None for value, _ in pairs):
        raise UsageError(f"--sort '{key}': no run has '{name}'.{unknown_key(name, list(records), headlines)}")
    known = [(value, record) for value, record in pairs if value is not None]
    numeric = all(isinstance(value, (int, float)) for value, _ in known)
    known.sort(key=lambda pair: pair[0] if numeric else _text(pair[0]), reverse=down)
    return [record for _, record in known] + [record for value, record in pairs if value is None]


def _parts(condition: str) -> tuple[str, str, str]:
    found = FORM.fullmatch(condition)
    if found is None:
        raise UsageError(f"--where '{condition}' is not understood; write KEY=VALUE, or != < <= > >= for =.")
    return found[1], found[2], found[3]


def _holds(value: Any, sign: str, wanted: str) -> bool:
    number = _number(wanted)
    if sign in ORDER:
        sound = isinstance(value, (int, float)) and not isinstance(value, bool)
        return sound and number is not None and ORDER[sign](value, number)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and number is not None:
        same = float(value) == number
    else:
        same = value is not None and fnmatch.fnmatchcase(_text(value), wanted)
    return same == (sign == "=")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(value: Any) -> str:
    """A value as a filter writes it: lists with commas, `true` and `false`."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)
