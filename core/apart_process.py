"""The other end of `apart.py`: calls the function that is asked for, and answers with what it yields.

A request is the length of its words, the words as JSON, and the bytes that they announce; an answer likewise, with
arrays.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from distk import console
from distk.apart import HELLO, LENGTH
from distk.errors import DistkError, UsageError

MEMORY = 6 << 30
"""Bytes of address space that a file may make this process take."""
SAID = 2000
"""Characters of an error that are told."""


def answers(request: dict[str, Any], content: bytes) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    """What the function yields, then that this was all, or why not."""
    warnings: list[str] = []
    with contextlib.suppress(OSError):
        os.chdir(request["folder"])  # where paths begin for who asks
    console.warn = warnings.append  # type: ignore[assignment]
    console._warned.clear()  # who asked says once what is said twice
    try:
        module, _, name = str(request["work"]).partition(":")
        for told, arrays in getattr(importlib.import_module(module), name)(content, **request["asked"]):
            yield {**told, "warnings": warnings}, arrays
            warnings.clear()
        yield {"end": True, "warnings": warnings}, []
    except DistkError as error:
        yield {"error": str(error)[:SAID], "usage": isinstance(error, UsageError)}, []
    except MemoryError:
        yield {"error": f"'{request['asked']['where']}' needs more than {MEMORY >> 30} GB of memory to be read."}, []
    except Exception as error:  # what nobody foresaw is told, too, so that the next file is read
        text = " ".join(str(error).split())[:200]
        yield {"error": f"'{request['asked']['where']}' cannot be read: {text}", "odd": type(error).__name__}, []


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until there are no more requests."""
    hello = json.dumps({"told": {"told": HELLO}, "arrays": []}).encode()
    replies.write(LENGTH.pack(len(hello)) + hello)
    replies.flush()
    while start := requests.read(LENGTH.size):
        request = json.loads(requests.read(LENGTH.unpack(start)[0]))
        content = requests.read(int(request["bytes"]))
        for told, arrays in answers(request, content):
            held = [np.ascontiguousarray(array) for array in arrays]
            described = [[array.dtype.str, list(array.shape)] for array in held]
            words = json.dumps({"told": told, "arrays": described}).encode()
            replies.write(LENGTH.pack(len(words)) + words)
            for array in held:
                replies.write(array.reshape(-1).view(np.uint8).data)
            replies.flush()


def main() -> None:
    """Serve stdin and stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches who asked, and ends us with it
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and "--bound" in sys.argv:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a file that keeps us busy must not outlive who asked
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
