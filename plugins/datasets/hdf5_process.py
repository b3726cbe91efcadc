"""The process in which HDF5 files are read for `hdf5.py`: libhdf5 crashes and loops on some damaged files.

Requests come as a line of JSON each on stdin; answers go to stdout as a line of JSON and the bytes that it announces.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
from typing import Any

import h5py
import numpy as np

MEMORY = 4 << 30
"""Bytes of address space that a file may make this process take."""
SPARE = 256 << 20
"""Bytes beyond what this process has that reading anything may take."""
TIMES = 8
"""Words lie in a file as they are, so that they take no more than so many times its size here and in the answer; the
same holds for the unpacked pieces in which numbers are stored, of which HDF5 keeps several."""
NAMES = 10_000
"""Names at the top of a file that are told."""


class Server:
    """The file that is open, and what is asked of it."""

    file: Any = None

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """An answer and the bytes that follow it."""
        if "open" in request:
            if self.file is not None:
                self.file.close()
            _may_take(SPARE)
            self.file = h5py.File(request["open"], "r")
            return {"names": [str(name) for _, name in zip(range(NAMES), self.file, strict=False)]}, b""
        held = self._at(*request["at"])
        if "start" not in request:
            return self._described(held), b""
        _may_take(SPARE + TIMES * self._size(held, request["stop"] - request["start"]))
        part = held[request["start"] : request["stop"]] if held.shape else held[()]
        array = np.ascontiguousarray(part)
        if array.dtype.kind == "O":
            return {"words": [_word(value) for value in array.reshape(-1)]}, b""
        content = array.tobytes()
        return {"bytes": len(content)}, content

    def _at(self, name: str, k: int | None = None) -> Any:
        """An object by its name, or what number k of an array of references leads to."""
        held = self.file[name]
        return held if k is None else self.file[held[()].reshape(-1)[k]]

    def _size(self, held: Any, rows: int) -> int:
        """Bytes of some rows of an array, and of a piece in which they are stored; of words those of the file."""
        if held.dtype.kind == "O":
            return os.path.getsize(self.file.filename)
        row = math.prod(held.shape[1:]) * held.dtype.itemsize
        return rows * row + math.prod(held.chunks or ()) * held.dtype.itemsize

    def _described(self, held: Any) -> dict[str, Any]:
        if not isinstance(held, h5py.Dataset) or held.shape is None:
            return {"array": False}
        refers = h5py.check_ref_dtype(held.dtype) is h5py.Reference
        outside = bool(held.external or held.is_virtual or held.file.filename != self.file.filename)
        kind = "refers" if refers else "words" if held.dtype.kind == "O" else held.dtype.str
        size = held.id.get_storage_size()
        return {"array": True, "shape": list(held.shape), "dtype": kind, "outside": outside, "stored": size}


def _may_take(more: int) -> None:
    """Let this process have so many bytes of address space beyond what it has: a number in a damaged file, such as the
    length of a word, must not become gigabytes. Where the system does not say what it has, `MEMORY` alone holds."""
    try:
        with open("/proc/self/statm", "rb") as file:
            has = int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (min(MEMORY, has + more), MEMORY))


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def main() -> None:
    """Answer until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a file that keeps us busy must not outlive who asked
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    server = Server()
    for line in sys.stdin.buffer:
        try:
            told, content = server.answer(json.loads(line))
        except Exception as error:  # h5py answers a damaged file with errors of every kind
            told, content = {"error": " ".join(str(error).split())[:300] or type(error).__name__}, b""
        answers.write(json.dumps(told).encode() + b"\n" + content)
        answers.flush()


if __name__ == "__main__":
    main()
