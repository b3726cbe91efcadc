"""Places that the user named on this machine: a file's own words may lead to no other.

A checkpoint says where its data lay, so that nobody has to name the folder again. One that a stranger wrote could say
"/", or a share on the network. So what a user names is remembered, in `places` in the cache folder, and what only a
file names is read if it is, or lies below, one of these or `$DISTK_DATA`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distk.console import warn_once
from distk.errors import UsageError
from distk.files import expanded, read_bytes
from distk.kept import cache_folder

MOST = 4 << 20
"""Bytes of the list that are read."""
_named: set[str] = set()
"""Those of this process: it must go on where nothing can be kept."""


def name(place: str | Path) -> None:
    """Remember a place that the user named."""
    told = _resolved(place)
    if told in _named:
        return
    _named.add(told)
    if _covered(told, _remembered()):
        return
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        held = os.open(cache_folder() / "places", flags, 0o600)
        try:
            os.write(held, json.dumps(told).encode() + b"\n")  # one write: others may append at the same time
        finally:
            os.close(held)
    except OSError as error:
        reason = error.strerror or error
        warn_once(f"'{place}' cannot be remembered ({reason}): later commands need --data-dir, or set DISTK_CACHE")


def check(place: str, source: str, cure: str) -> None:
    """Raise UsageError unless the user named this place.

    source: the file that names it, cure: the command that names it, which ends in the place, for the message.
    """
    told = _resolved(place)
    root = os.environ.get("DISTK_DATA")
    if not _covered(told, _named | _remembered() | ({_resolved(root)} if root else set())):
        raise UsageError(
            f"{source} names '{place}', and nobody has named it on this machine: a file alone does not decide what is "
            f"read. If you want it to be read, say so once: {cure} {shlex.quote(place)}"
        )


def settings(config: type, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, place) of those values of a config that are files or folders: `option(..., place=True)`."""
    for field in dataclasses.fields(config):
        value = values.get(field.name)
        if field.metadata.get("place") and isinstance(value, str) and value:
            yield field.name, value


def _resolved(place: str | Path) -> str:
    return os.path.realpath(expanded(place))


def _covered(place: str, known: set[str]) -> bool:
    """Whether a resolved place is, or lies below, one of these."""
    return bool({place, *(str(above) for above in Path(place).parents)} & known)


def _remembered() -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for line in read_bytes(cache_folder() / "places", MOST).splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(told := json.loads(line), str):
                    found.add(told)
    return found
