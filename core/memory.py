"""Memory that there is, asked before a stranger's file or an option takes it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

from distk.errors import DistkError, UsageError

_CGROUP = ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
SMALL = 1 << 28
"""Bytes that are not worth asking for."""


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


def keep_heap() -> None:
    """Let this process keep memory that it frees for what it allocates next, instead of giving it back to the system.

    A step on the CPU frees and takes the same megabytes again, and each time the system has to clear the pages (12,000
    a step of mvae): a quarter of its time. Costs a few dozen MiB. Only with the GNU C library; elsewhere nothing
    happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (
            (-4, 0),
            (-1, (1 << 31) - 1),
            (-2, 64 << 20),
        ):  # no mmap, no trimming, 64 MiB at a time
            mallopt(parameter, value)


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
