"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import signal
import sys

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: after a fork it might deadlock


def end_with_parent() -> None:
    """In the child: receive SIGTERM, and so save and stop, when the parent dies (prctl PR_SET_PDEATHSIG, Linux)."""
    assert _LIBC is not None  # asked for on Linux only
    _LIBC.prctl(1, signal.SIGTERM)
