"""The exceptions that a user sees: one sentence with what is wrong, where, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class DistkError(Exception):
    """Something failed for a reason that the user can act on. Shown as one sentence, exit code 1."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        # A message may quote a value of a stranger's file, which may be megabytes, or the name of a member, which may
        # have line breaks.
        message = " ".join(message.split("\n"))
        super().__init__(message if len(message) <= 1500 else f"{message[:1000]} ... {message[-400:]}")


class UsageError(DistkError):
    """The request itself is wrong: an unknown name, a value out of range. Exit code 2."""

    exit_code = 2


class WrongType(UsageError, TypeError):
    """A program handed over something of another type than is taken; a TypeError as well."""


class NotServed(UsageError):
    """A command that this method cannot serve."""


def path_of(given: Any, what: str) -> Path:
    """What a program names a file or folder by, text, a path or a `Run`, as a path.

    what: for the message of the WrongType that anything else raises, as "load: a checkpoint or a run".
    """
    if isinstance(given, str) or (hasattr(given, "__fspath__") and not isinstance(given, type)):
        found = os.fspath(given)
        if isinstance(found, str):
            return Path(found)
    raise WrongType(f"{what} is named by a path or a Run, not by {shown_type(given)}.")


def shown_type(given: Any) -> str:
    """The type of a value, for messages."""
    return given.__name__ if isinstance(given, type) else type(given).__name__


def named(given: Any, what: str) -> str:
    """A name that a program gave, as text. Raises WrongType for anything else; what: as in `path_of`."""
    if isinstance(given, str):
        return given
    raise WrongType(f"{what} is named by text, not by {shown_type(given)}.")


def near(name: str, known: Iterable[str]) -> str:
    """The one of `known` that `name` most likely meant: close to it, or beginning with it; empty where none is."""
    import difflib  # its tables of expressions cost more than the rest of a start

    names, low = list(known), name.lower()
    if len(low) < 3:  # of one letter or two anything is as near as anything else
        return ""
    found = difflib.get_close_matches(low, names, n=1, cutoff=0.65)
    begun = sorted((each for each in names if each.lower().startswith(low)), key=len)
    return (found + begun + [""])[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"`, or an empty string where nothing in `known` is close to `name`."""
    found = near(name, known)
    return f" Did you mean '{found}'?" if found else ""


MANY = 20
"""More names than these are too many for a message."""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that nobody registered: names the nearest one and lists what there is.

    what: the kind, and where it was looked for: "preset of 'betavae'" makes "unknown preset 'small' of 'betavae'".
    """
    known = sorted(known)
    kind, of, where = what.partition(" of ")
    told = f"unknown {kind} '{name}'{of}{where}"
    close = nearest(name, known)
    if len(known) > MANY:
        return UsageError(f"{told}.{close or f' There are {len(known):,}, from {known[0]} to {known[-1]}.'}")
    return UsageError(f"{told}.{close} Available: {', '.join(known) or 'none'}.")


NO_MEMORY = ("out of memory", "can't allocate memory", "Unable to allocate", "not enough memory")
"""What torch and numpy say where there is none."""


def no_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory, whoever says so."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)
