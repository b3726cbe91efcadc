"""`--format` and `--dpi`: how pictures are written. Nothing here imports torch or matplotlib."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from distk.errors import UsageError

FORMS = (".png", ".svg", ".pdf")
"""Suffixes of the files that a picture can be."""
COLUMN = 3.4
"""Inches of a column of a paper."""
POINTS = 7.0
"""Size of words in a picture that is as wide as a column, in points; journals want 6 or more."""


@dataclass(frozen=True)
class Chosen:
    """What `--format` and `--dpi` say: a suffix, empty where nothing is said; dots per inch, None likewise."""

    suffix: str = ""
    dpi: int | None = None


_NOTHING = Chosen()
_chosen: ContextVar[Chosen] = ContextVar("chosen", default=_NOTHING)


def chosen() -> Chosen:
    """How the command that runs shall write its pictures."""
    return _chosen.get()


def choose(form: str | None, dpi: int | None) -> None:
    """Set it for the command that runs."""
    _chosen.set(Chosen(f".{form}" if form else "", dpi))


@contextlib.contextmanager
def unchosen() -> Iterator[None]:
    """Within, nothing is chosen until a command chooses; afterwards all is as before."""
    token = _chosen.set(_NOTHING)
    try:
        yield
    finally:
        _chosen.reset(token)


def formed(name: str) -> str:
    """The name of a picture, in the form that was chosen."""
    path = Path(name)
    return str(path.with_suffix(chosen().suffix)) if chosen().suffix and path.suffix.lower() in FORMS else name


def held_to(out: Path, option: str = "--out") -> None:
    """Raise UsageError where the suffix of a picture's file says otherwise than `--format`."""
    suffix = chosen().suffix
    if suffix and out.suffix and out.suffix.lower() != suffix:
        raise UsageError(f"{option} '{out}' and --format {suffix[1:]} contradict each other: leave one of the two out.")


Form = Annotated[
    Literal["png", "svg", "pdf"] | None,
    typer.Option("--format", help="Form of pictures; default: as --out ends, else png.", rich_help_panel="Pictures"),
]
Dpi = Annotated[
    int | None,
    typer.Option(
        "--dpi",
        help="Dots per inch, of a picture as wide as a paper's column; default: as large as its pixels need.",
        min=30,
        max=2400,
        rich_help_panel="Pictures",
    ),
]
