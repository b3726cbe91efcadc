"""Sentences about columns of arrays: they read with numbers, and with names where somebody knows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self


@dataclass(frozen=True)
class Names:
    """What columns of codes and factors are called, and the data that they belong to."""

    codes: Sequence[str] = ()
    factors: Sequence[str] = ()
    source: str = "this data"


class Mention(Protocol):
    """Part of a sentence that has two readings: `str` for callers of an array function, `named` for everybody else."""

    def named(self, names: Names) -> str: ...


@dataclass(frozen=True)
class Column:
    """One column. word: what it is called beside its number; where it has a name, that is its `kind`."""

    kind: Literal["code", "factor"]
    number: int
    word: str = ""

    def __str__(self) -> str:
        return f"{self.word or self.kind} {self.number}"

    def named(self, names: Names) -> str:
        known = names.codes if self.kind == "code" else names.factors
        return f"{self.kind} '{known[self.number]}'" if self.number < len(known) else str(self)


@dataclass(frozen=True)
class Columns:
    """Several columns."""

    kind: Literal["code", "factor"]
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind}s {list(self.numbers)}"

    def named(self, names: Names) -> str:
        known = names.codes if self.kind == "code" else names.factors
        return f"{self.kind}s {', '.join(known[n] if n < len(known) else str(n) for n in self.numbers)}"


@dataclass(frozen=True)
class Argument:
    """An argument of an array function, which is an option of the command line."""

    python: str
    option: str

    def __str__(self) -> str:
        return self.python

    def named(self, names: Names) -> str:
        return self.option


class NoTwoRows:
    """That no pair of rows has what follows."""

    def __str__(self) -> str:
        return "no two rows"

    def named(self, names: Names) -> str:
        return f"{names.source} has no two items that"


class Sentence(str):
    """Text whose mentions of columns can be read again with their names.

    pattern: as for `str.format`. mentions: what stands in its places.
    """

    pattern: str
    mentions: tuple[Mention, ...]

    def __new__(cls, pattern: str, *mentions: Mention) -> Self:
        made = super().__new__(cls, pattern.format(*mentions))
        made.pattern, made.mentions = pattern, mentions
        return made

    def named(self, names: Names) -> str:
        """The text with names in place of column numbers."""
        return self.pattern.format(*(mention.named(names) for mention in self.mentions))

    @classmethod
    def joined(cls, texts: Iterable[str]) -> Sentence:
        """Texts and sentences in one, parted by semicolons; empty ones are left out."""
        parts = [text if isinstance(text, Sentence) else cls("{}", Plain(text)) for text in texts if text]
        return cls("; ".join("{}" for _ in parts), *(Quoted(part) for part in parts))


@dataclass(frozen=True)
class Plain:
    """Text that reads the same either way."""

    text: str

    def __str__(self) -> str:
        return self.text

    def named(self, names: Names) -> str:
        return self.text


@dataclass(frozen=True)
class Quoted:
    """A sentence within another."""

    sentence: Sentence

    def __str__(self) -> str:
        return str(self.sentence)

    def named(self, names: Names) -> str:
        return self.sentence.named(names)


class Unfit(ValueError):
    """Arrays that a score cannot take, for a reason that names columns of them."""

    def __init__(self, pattern: str, *mentions: Mention) -> None:
        self.sentence = Sentence(pattern, *mentions)
        super().__init__(self.sentence)

    @property
    def factor(self) -> int | None:
        """The one factor that it is about; None where it is about something else, or about several."""
        named = [m.number for m in self.sentence.mentions if isinstance(m, Column) and m.kind == "factor"]
        return named[0] if len(set(named)) == 1 else None


def in_words(text: str, names: Names) -> str:
    """A text as it reads with names; one without mentions of columns as it is."""
    return text.named(names) if isinstance(text, Sentence) else text
