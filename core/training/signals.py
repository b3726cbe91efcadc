"""The signals that end a run or a study: the step is finished, everything is saved, the exit code says which it was."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from distk.errors import DistkError

PASSED_ON = 10.0
"""Seconds within which a second SIGTERM is the first one, passed on by whoever started the process."""


class Interrupted(DistkError):
    """The user or the system asked the run to stop; everything is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        Exception.__init__(self, message)  # not shortened: it may list many runs
        self.exit_code = 128 + signal_number


class Stop:
    """The signal that asked the runs of this process to stop, 0 while none did."""

    signal: int = 0


@contextlib.contextmanager
def stopping(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM finish the step and save; a second one stops at once. A SIGTERM soon after another is the same
    one, since a queue sends it to a job and to the job's launcher, which passes it on."""
    since = 0.0

    def handle(number: int, frame: Any) -> None:
        nonlocal since
        now = time.monotonic()
        if stop.signal == number == signal.SIGTERM and now - since < PASSED_ON:
            return
        since = now
        if stop.signal:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.signal = number
        # Not through the console: its stream may be in the middle of a write that this handler interrupted.
        with contextlib.suppress(OSError):
            os.write(2, b"finishing the step and saving; a second Ctrl-C stops at once\n")

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the embedding program handles its own signals
        yield
        return
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
