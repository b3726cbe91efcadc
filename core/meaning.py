"""What a number of a metric means: which way is better, its range, unit, value at chance, and where it comes from.

Nothing here imports torch.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Better = Literal["higher", "lower", ""]
ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Number:
    """What one number of a metric means.

    better: "higher", "lower", or "" where neither is better (a count, a size, a setting). low, high: ends of its range,
    None where it has none. unit: "nats", "codes", ...; empty for a pure number. chance: what codes that know nothing of
    the factors get, as a number or as a formula ("1/K", K factors); None where nobody knows it beforehand. source:
    paper and equation. form: whose version it is ("dlib", "authors", "textbook"). whole: it counts something. what: it
    in words, where the name does not say it.
    """

    better: Better
    low: float | None = None
    high: float | None = None
    unit: str = ""
    chance: float | str | None = None
    source: str = ""
    form: str = ""
    whole: bool = False
    what: str = ""

    @property
    def arrow(self) -> str:
        """↑, ↓ or nothing."""
        return ARROWS[self.better]

    @property
    def range(self) -> str:
        """ "0..1", "0..", "..1"; empty where it has no ends."""
        if self.low is None and self.high is None:
            return ""
        return f"{'' if self.low is None else f'{self.low:g}'}..{'' if self.high is None else f'{self.high:g}'}"

    @property
    def higher_is_better(self) -> bool | None:
        """None where neither is better."""
        return None if self.better == "" else self.better == "higher"

    def plain(self) -> dict[str, Any]:
        """As values for JSON, without what is not known."""
        told: dict[str, Any] = {"better": self.better or "neither"}
        if self.low is not None or self.high is not None:
            told["range"] = [self.low, self.high]
        if self.whole:
            told["whole"] = True
        for key in ("unit", "chance", "source", "form", "what"):
            if (value := getattr(self, key)) not in ("", None):
                told[key] = value
        return told


def higher(low: float | None = None, high: float | None = None, **rest: Any) -> Number:
    """A number of which more is better."""
    return Number("higher", low, high, **rest)


def lower(low: float | None = None, high: float | None = None, **rest: Any) -> Number:
    """A number of which less is better."""
    return Number("lower", low, high, **rest)


def neither(low: float | None = None, high: float | None = None, **rest: Any) -> Number:
    """A number that is no score: a threshold, a size, a figure to compare with."""
    return Number("", low, high, **rest)


def count(unit: str, what: str = "") -> Number:
    """How many of something there are."""
    return Number("", 0, unit=unit, whole=True, what=what)


def find(numbers: Mapping[str, Number], key: str) -> Number | None:
    """The meaning of a key, which may be a pattern (`mean_*`) in the table; a name of its own goes first."""
    if key in numbers:
        return numbers[key]
    return next((number for form, number in numbers.items() if fnmatch.fnmatchcase(key, form)), None)
