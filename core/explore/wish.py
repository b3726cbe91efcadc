"""What a page asks for: read from JSON once, and held against what may be asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distk.console import counted
from distk.errors import UsageError

LONGEST = 2000
"""Characters of a sentence that are read."""
LARGEST = 1e6
"""The largest value of a latent that is taken: a slider goes to a few, a person may type more."""


@dataclass(frozen=True)
class Start:
    """Where a code comes from, one of three: `item`, a number among the items that were read at the start; `draw`, the
    seed of a draw from the prior; `sentence`, a line that somebody typed."""

    item: int | None = None
    draw: int | None = None
    sentence: str | None = None


@dataclass(frozen=True)
class Wish:
    """One state of the page.

    start: the code that is moved. other: a second one. swapped: groups that are taken from it. share: how far the code
    has gone towards it, 0 to 1. moves: group -> dimension -> its value. classes: group -> its class.
    """

    start: Start
    other: Start | None = None
    swapped: tuple[str, ...] = ()
    share: float = 0.0
    moves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)


def read_wish(told: Any) -> Wish:
    """A wish from what JSON gave. Raises UsageError, saying what is wrong, for anything that is none."""
    _members(told, "the request", {"start", "other", "swapped", "share", "moves", "classes"})
    if "start" not in told:
        raise UsageError("the request has no 'start'.")
    swapped = told.get("swapped", [])
    if not isinstance(swapped, list) or not all(isinstance(name, str) for name in swapped):
        raise UsageError("'swapped' is a list of names of groups.")
    share = _number(told.get("share", 0.0), "share")
    if not 0 <= share <= 1:
        raise UsageError("'share' is from 0 to 1.")
    moves = {
        name: {
            _index(place, f"a dimension of '{name}'"): _number(value, name) for place, value in _mapping(row).items()
        }
        for name, row in _mapping(told.get("moves", {})).items()
    }
    classes = {name: _whole(k, f"the class of '{name}'") for name, k in _mapping(told.get("classes", {})).items()}
    other = told.get("other")
    return Wish(_start(told["start"]), None if other is None else _start(other), tuple(swapped), share, moves, classes)


def read_rewrite(told: Any) -> tuple[str, int]:
    """A sentence and the label that it is to have. Raises UsageError as `read_wish`."""
    _members(told, "the request", {"sentence", "to"})
    return _sentence(told.get("sentence")), _whole(told.get("to"), "'to'")


def _start(told: Any) -> Start:
    _members(told, "a start", {"item", "draw", "sentence"})
    if len(told) != 1:
        raise UsageError("a start is an item, a draw or a sentence, one of them.")
    if "sentence" in told:
        return Start(sentence=_sentence(told["sentence"]))
    if "item" in told:
        return Start(item=_whole(told["item"], "'item'"))
    return Start(draw=_whole(told["draw"], "'draw'"))


def _members(told: Any, what: str, known: set[str]) -> None:
    if not isinstance(told, dict):
        raise UsageError(f"{what} is no JSON object.")
    if more := sorted(set(told) - known):
        raise UsageError(f"{what} has '{more[0][:40]}', which is none of {', '.join(sorted(known))}.")


def _mapping(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise UsageError("'moves' and 'classes' are JSON objects with a member for each group.")
    return told


def _sentence(told: Any) -> str:
    if not isinstance(told, str) or not told.strip():
        raise UsageError("there is no sentence: write one.")
    if len(told) > LONGEST:
        raise UsageError(f"a sentence of {counted(len(told), 'character')} is too long; {LONGEST:,} are read.")
    return " ".join(told.split())


def _whole(told: Any, what: str) -> int:
    if type(told) is not int or not 0 <= told < 1 << 31:
        raise UsageError(f"{what} is no whole number from 0 to {(1 << 31) - 1:,}.")
    return told


def _index(told: str, what: str) -> int:
    if not (told.isascii() and told.isdigit() and len(told) < 10):
        raise UsageError(f"'{told[:40]}' is no number of {what}.")
    return int(told)


def _number(told: Any, what: str) -> float:
    if isinstance(told, bool) or not isinstance(told, (int, float)) or not math.isfinite(told) or abs(told) > LARGEST:
        raise UsageError(f"a value of '{what}' is no number from {-LARGEST:,.0f} to {LARGEST:,.0f}.")
    return float(told)
