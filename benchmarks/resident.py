"""The most memory that this process has held, for what measures one call at a time."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path


def peak(reset: bool = False, trim: bool = True) -> int:
    """Bytes that this process has held at most since the last reset; at a reset those of now.

    trim: a reset first gives back what was freed, which takes milliseconds. Raises OSError where the system does not
    tell.
    """
    if reset and trim:
        with suppress(OSError, AttributeError):  # or what was freed and not given back takes what comes, unseen
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again from what is held now
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
