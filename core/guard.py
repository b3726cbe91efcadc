"""Around a plugin's code: what it prints, hangs in, raises or leaves changed is its own fault, and is named as such."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

PATIENCE = 2.0
"""Seconds after which it is said which plugin is being loaded."""


class Pressed:
    """Whether Ctrl-C was pressed: a plugin may raise KeyboardInterrupt, too, which must not stop everything."""

    yes = False
    watched: Pressed | None = None
    """Of whoever watches now: what is loaded within what is loaded asks the same one."""


@contextlib.contextmanager
def watching() -> Iterator[Pressed]:
    """Tell the user's Ctrl-C from a KeyboardInterrupt that code raises by itself."""
    if Pressed.watched is not None:
        yield Pressed.watched
        return
    pressed = Pressed()

    def handle(number: int, frame: FrameType | None) -> None:
        pressed.yes = True
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield pressed  # whoever handles the signal does not raise here
        return
    signal.signal(signal.SIGINT, handle)
    Pressed.watched = pressed
    try:
        yield pressed
    finally:
        Pressed.watched = None
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def told_if_slow(what: str, seconds: float) -> Iterator[None]:
    """Say on stderr what is being done, if it takes longer than so many seconds."""

    def tell() -> None:
        # Not through the console, whose stream the main thread may be writing to.
        with contextlib.suppress(OSError):
            told = "".join(c if c.isprintable() else "?" for c in what)
            os.write(2, f"{told} ...\n".encode("utf-8", "replace"))

    timer = threading.Timer(seconds, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """While a plugin's module is imported: prints go to stderr, where what is being loaded is said if it takes long."""
    with told_if_slow(f"loading {what}", PATIENCE), contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def restored(run: Any = None) -> Iterator[list[str]]:
    """While a plugin follows a run: afterwards stdout, the working folder, gradients and the run's files are as they
    were. Yields what had to be put back, in words, which is complete at the end."""
    changed: list[str] = []
    folder = os.getcwd()
    torch = sys.modules.get("torch")
    graded = torch.is_grad_enabled() if torch is not None else True
    opened = run is not None and getattr(run, "is_open", False)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield changed
    finally:
        with contextlib.suppress(OSError):
            moved = not os.path.exists(".") or os.getcwd() != folder
            if moved:
                os.chdir(folder)
                changed.append("changed the working folder")
        if torch is not None and torch.is_grad_enabled() != graded:
            torch.set_grad_enabled(graded)
            changed.append("switched gradients off" if graded else "switched gradients on")
        if opened and not run.is_open:
            run.reopen()
            changed.append("closed the run")
