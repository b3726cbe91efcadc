"""What the shell offers for the values of options after `distk --install-completion`. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from distk.errors import DistkError
from distk.registry import registry
from distk.run import RUNS

Completer = Callable[[str], list[str | tuple[str, str]]]
NEWEST = 50
"""Runs that are offered, the newest first."""


def _beginning(rows: Iterable[tuple[str, str]], incomplete: str) -> list[str | tuple[str, str]]:
    return [row for row in rows if row[0].startswith(incomplete)]


def _registered(kind: str) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(DistkError, OSError):  # a shell has no place for our messages
        for entry in registry().entries(kind):
            yield entry.name, entry.summary


def datasets(incomplete: str) -> list[str | tuple[str, str]]:
    """Names of data sets, with their summaries."""
    return _beginning(_registered("dataset"), incomplete)


def metrics(incomplete: str) -> list[str | tuple[str, str]]:
    """Names of metrics, and `all`."""
    return _beginning([*_registered("metric"), ("all", "every metric")], incomplete)


def kept(incomplete: str) -> list[str | tuple[str, str]]:
    """What `--keep` takes."""
    return _beginning(((f"best:{name}", about) for name, about in _registered("metric")), incomplete)


def methods(incomplete: str) -> list[str | tuple[str, str]]:
    """Names of methods."""
    return _beginning(_registered("method"), incomplete)


def penalties(incomplete: str) -> list[str | tuple[str, str]]:
    """Names of penalties."""
    return _beginning(_registered("penalty"), incomplete)


def studies(incomplete: str) -> list[str | tuple[str, str]]:
    """Names of studies; where none fits, the shell offers files."""
    return _beginning(_registered("study"), incomplete)


def loggers(incomplete: str) -> list[str | tuple[str, str]]:
    """Names of what `--log` takes."""
    return _beginning(((name, "") for name in registry().loggers), incomplete)


def splits(incomplete: str) -> list[str | tuple[str, str]]:
    """Names that splits commonly have."""
    return _beginning(((name, "") for name in ("all", "train", "validation", "test")), incomplete)


def devices(incomplete: str) -> list[str | tuple[str, str]]:
    """Names of devices; which of them this machine has is not looked at."""
    return _beginning(((name, "") for name in ("auto", "cpu", "cuda", "mps")), incomplete)


def runs(incomplete: str) -> list[str | tuple[str, str]]:
    """Run folders below the folder that is typed so far, or below ./runs, the newest first; else the shell offers
    files."""
    parent = Path(incomplete).parent if os.sep in incomplete else RUNS
    found: list[tuple[float, str]] = []
    with contextlib.suppress(OSError):
        for place in [*parent.iterdir(), *(RUNS.iterdir() if RUNS.is_dir() and parent == Path(".") else ())]:
            file = place / "checkpoint.safetensors"
            if str(place).startswith(incomplete) and file.is_file():
                found.append((file.stat().st_mtime, str(place)))
    return [name for _, name in sorted(found, reverse=True)[:NEWEST]]


def choices(values: Iterable[Any]) -> Completer:
    """Offers these values."""
    held = [(str(value), "") for value in values]
    return lambda incomplete: _beginning(held, incomplete)


OF_OPTION: dict[str, Completer] = {
    "eval": metrics,
    "keep": kept,
    "penalty": penalties,
    "log": loggers,
    "device": devices,
}
"""What settings of the trainer are completed with."""
