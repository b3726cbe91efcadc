"""Reading a stranger's file in a process of its own, whose death or silence is an error about the file.

Decoders of pictures, movies and tables are large programs in C and C++. `apart` has them work in a second process,
which is started when it is first needed and serves one file after the other; `apart_process.py` is its other end. What
comes back is held against itself here. It keeps this process alive and its memory whole; it is no wall against a file
that takes over the reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import select
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from distk.console import warn_once
from distk.errors import DistkError, UsageError
from distk.memory import afford

PATIENCE = 60.0
"""Seconds of silence after which a file is given up."""
LONGEST = 64 << 20
"""Bytes of the words of an answer."""
LARGEST = 1 << 33
"""Bytes of one array of an answer that are believed."""
ROOM = 1 << 16
"""Bytes that a pipe holds everywhere."""
WIDE = 1 << 20
"""Bytes that one may hold on Linux."""
LENGTH = struct.Struct("<Q")
"""The number of bytes of what follows."""
COMMAND = (sys.executable, "-P", "-m", "distk.apart_process")
HELLO = "hello"
"""What the process says first."""
Answer = tuple[dict[str, Any], list[np.ndarray]]
Request = tuple[str, bytes, dict[str, Any]]


class Given(Exception):
    """The process died, was silent for too long, or answered nonsense: it is given up."""


class _Process:
    """A process that reads. It belongs to the process that started it, not to forks of that one."""

    def __init__(self) -> None:
        # One thread: those of linear algebra would take address space that a file may need.
        alone = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        pipe = subprocess.PIPE
        # Linux can end it with the thread that started it, which must be the one that lives longest.
        bound = ["--bound"] if threading.current_thread() is threading.main_thread() else []
        self.owner = os.getpid()
        try:
            self.held = subprocess.Popen(
                [*COMMAND, *bound],
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **alone},
                bufsize=0,
            )
            started = self.receive()[0] == {"told": HELLO}
        except (Given, OSError, ValueError) as error:
            raise DistkError(f"the second process, which reads files, does not start: {error}.") from error
        self.room = min(_widened(self.held.stdin), _widened(self.held.stdout))
        if not started:
            raise DistkError("the second process, which reads files, does not start as it should.")

    @property
    def usable(self) -> bool:
        return self.owner == os.getpid() and self.held.poll() is None

    def end(self) -> None:
        """End the process, if it is ours."""
        if self.owner == os.getpid():
            self.held.kill()
            self.held.wait()
        for stream in (self.held.stdin, self.held.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def send(self, request: dict[str, Any], content: bytes) -> None:
        words = json.dumps(request).encode()
        assert self.held.stdin is not None
        rest = memoryview(LENGTH.pack(len(words)) + words + content)
        while rest:
            rest = rest[os.write(self.held.stdin.fileno(), rest) :]

    def receive(self) -> Answer:
        """The next answer. Raises Given for one that is none."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        if length > LONGEST:
            raise Given("an endless answer")
        words = json.loads(self._exactly(length))
        return dict(words["told"]), [self._array(*described) for described in words["arrays"]]

    def _array(self, dtype: str, shape: list[int]) -> np.ndarray:
        kind = np.dtype(str(dtype))
        size = math.prod(shape) * kind.itemsize
        if kind.kind not in "buif" or not all(isinstance(n, int) and n >= 0 for n in shape) or size > LARGEST:
            raise Given(f"an array {dtype} {shape}"[:100])
        afford(size, "what a file unpacks to")
        array = np.empty(shape, kind)
        self._fill(memoryview(array.reshape(-1).view(np.uint8).data))
        return array

    def _exactly(self, size: int) -> bytes:
        content = bytearray(size)
        self._fill(memoryview(content))
        return bytes(content)

    def _fill(self, rest: memoryview) -> None:
        out: Any = self.held.stdout
        while rest:
            if not select.select([out], [], [], PATIENCE)[0]:
                raise Given(f"no answer for {PATIENCE:g} seconds")
            got = out.readinto(rest)
            if not got:
                raise Given(self.how_it_died())
            rest = rest[got:]

    def how_it_died(self) -> str:
        """In words; waits until it has."""
        code = self.held.wait()
        return f"its reader ended with signal {-code}" if code < 0 else f"its reader ended with {code}"


_idle: list[_Process] = []
"""Processes that wait for a file: more than one where a file is read while another one is."""


def apart(work: str, where: str, content: bytes = b"", **asked: Any) -> Iterator[Answer]:
    """What a function of ours yields about a file, which it reads in a process of its own.

    work: `MODULE:FUNCTION`, called as `f(content, where, **asked)`; it yields dicts that JSON can hold, each with a
    list of arrays of numbers. where: the file's name, for messages. content: bytes of the file, unless the function
    opens it by itself.

    Yields (dict, arrays). Raises what the function raises of DistkError and UsageError, and DistkError where the
    process dies of the file or does not answer.
    """
    for _, told, arrays in each(work, [(where, content, asked)]):
        yield told, arrays


def each(
    work: str, files: Iterable[tuple[str, bytes, dict[str, Any]]]
) -> Iterator[tuple[int, dict[str, Any], list[np.ndarray]]]:
    """`apart` for many files, which are sent ahead while others are worked on: (number of the file, dict, arrays)."""
    process, coming, k = _taken(), iter(files), 0
    sent: deque[tuple[str, int]] = deque()
    ahead, sound = next(coming, None), False
    try:
        while ahead is not None or sent:
            # What is under way fits into the pipe, so that sending never waits for a process that waits for us.
            while ahead is not None and (not sent or sum(size for _, size in sent) + _taking(ahead[1]) <= process.room):
                where, content, asked = ahead
                sent.append((where, _taking(content)))
                request = {
                    "work": work,
                    "asked": {"where": where, **asked},
                    "bytes": len(content),
                    "folder": os.getcwd(),
                }
                process.send(request, content)
                ahead = next(coming, None)
            told, arrays = process.receive()
            for line in told.pop("warnings", ()):
                warn_once(str(line))
            if "error" in told:
                sound = len(sent) == 1
                raise (UsageError if told.get("usage") else DistkError)(str(told["error"]))
            if "end" not in told:
                yield k, told, arrays
                continue
            sent.popleft()
            k += 1
        sound = True
    except (Given, OSError, ValueError, KeyError, TypeError, struct.error) as error:
        reason = process.how_it_died() if isinstance(error, BrokenPipeError) else str(error)
        raise DistkError(f"'{sent[0][0]}' is damaged: reading it was given up ({reason}).") from error
    finally:
        if sound:
            _idle.append(process)
        else:  # it died, or nobody wants the rest of its answers
            process.end()


def _widened(pipe: Any) -> int:
    """Bytes that a pipe holds, more than usual where the system allows it."""
    with contextlib.suppress(AttributeError, OSError):  # not on Linux; more than a user may have
        return int(fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, WIDE))
    return ROOM


def _taking(content: bytes) -> int:
    """Bytes of the pipe that a request takes, which is filled by pages."""
    return (len(content) // 4096 + 3) * 4096


def only(work: str, where: str, content: bytes = b"", **asked: Any) -> Answer:
    """The one answer of `apart`."""
    (answer,) = apart(work, where, content, **asked)
    return answer


def _taken() -> _Process:
    while _idle:
        process = _idle.pop()
        if process.usable:
            return process
        process.end()
    return _Process()
