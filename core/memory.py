"""Memory that there is, asked before a stranger's file or an option takes it."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from distk.errors import DistkError, UsageError

_CGROUP = ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
SMALL = 1 << 28
"""Bytes that are not worth asking for."""
NO_MEMORY = ("out of memory", "can't allocate memory", "Unable to allocate", "not enough memory")
"""What torch and numpy say where there is none."""


def available() -> int:
    """Bytes that this process may still take without swapping: of the machine, its container and its own limit."""
    found = [1 << 62]
    with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        held = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        found.append(1024 * held["MemAvailable"])
    for most, used in _CGROUP:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            root = Path("/sys/fs/cgroup")
            found.append(int((root / most).read_text()) - int((root / used).read_text()))
    with contextlib.suppress(OSError, ValueError, IndexError):
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    if len(found) == 1 and hasattr(os, "sysconf"):  # another system: what the machine has
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(0, min(found))


def afford(size: int, what: str, usage: str = "") -> None:
    """Raise DistkError where `size` bytes are more than there is memory.

    what: what takes them, as the beginning of a sentence. usage: what to do about it, which makes it a UsageError.
    """
    if size < SMALL:
        return
    free = available()
    if size > free:
        told = f"{what} takes about {size / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free"
        raise UsageError(f"{told}: {usage}.") if usage else DistkError(f"{told}.")


def lacking(error: BaseException) -> bool:
    """Whether an exception says that there is no memory, whoever says so."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)
