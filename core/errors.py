"""The exceptions that a user sees: one sentence with what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable


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


class NotServed(UsageError):
    """A command that this method cannot serve."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"`, or an empty string where nothing in `known` is close to `name`."""
    import difflib  # its tables of expressions cost more than the rest of a start

    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{found[0]}'?" if found else ""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that nobody registered: names the nearest one and lists what there is."""
    known = sorted(known)
    return UsageError(f"unknown {what} '{name}'.{nearest(name, known)} Available: {', '.join(known) or 'none'}.")


NO_MEMORY = ("out of memory", "can't allocate memory", "Unable to allocate", "not enough memory")
"""What torch and numpy say where there is none."""


def no_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory, whoever says so."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)
