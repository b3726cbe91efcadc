"""Arrays of HDF5 files, MATLAB v7.3 among them, read in a process of its own.

libhdf5 is no match for damaged files: some end the process that reads them, others keep it busy for ever. So a second
process reads, whose death or silence is an error about the file. What it says is held against itself here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distk import DistkError, UsageError
from distk.arrays import DEFLATE

PATIENCE = 30.0
"""Seconds of silence after which a file is given up."""
AT_ONCE = 1 << 24
"""Bytes that are asked for at once, roughly."""
LONGEST = 64 << 20
"""Bytes of an answer's first line."""
NUMBERS = "biufS"


class _Silent(Exception):
    """The process died, or did not answer in time."""


class _Process:
    """The process that reads; started when it is first asked, and anew after it died."""

    def __init__(self) -> None:
        self._owner, self._held, self._rest = 0, None, b""
        self._held: subprocess.Popen[bytes] | None

    def ask(self, request: dict[str, Any], size: int = 0) -> tuple[dict[str, Any], bytes]:
        """An answer, and `size` bytes after it. Raises _Silent, and DistkError with what h5py says of the file."""
        try:
            held = self._running()
            assert held.stdin is not None
            held.stdin.write(json.dumps(request).encode() + b"\n")
            held.stdin.flush()
            told = json.loads(self._line())
            if "error" in told:
                raise DistkError(str(told["error"])[:300])
            if int(told.get("bytes", 0)) != size:
                raise _Silent(f"{told.get('bytes')} bytes instead of {size}")
            return told, self._bytes(size)
        except (OSError, ValueError, TypeError, AttributeError, _Silent) as error:
            self.end()
            raise _Silent(str(error)) from error

    def _running(self) -> subprocess.Popen[bytes]:
        if self._held is None or self._owner != os.getpid() or self._held.poll() is not None:
            self.end()
            command = [sys.executable, "-P", "-m", "distk.plugins.datasets.hdf5_process"]
            # One thread: those of linear algebra would take address space that the file may need.
            alone = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
            environment = {**os.environ, **alone, "HDF5_USE_FILE_LOCKING": "FALSE"}
            pipe = subprocess.PIPE
            self._held = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, bufsize=0
            )
            self._owner, self._rest = os.getpid(), b""
        return self._held

    def end(self) -> None:
        """End the process, if it is ours."""
        if self._held is not None and self._owner == os.getpid():
            self._held.kill()
            self._held.wait()
            for pipe in (self._held.stdin, self._held.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
        self._held, self._rest = None, b""

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            if len(self._rest) > LONGEST:
                raise _Silent("an endless answer")
            self._rest += self._more()
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _bytes(self, size: int) -> bytes:
        parts, have = [self._rest[:size]], min(size, len(self._rest))
        self._rest = self._rest[size:]
        while have < size:
            more = self._more()
            parts.append(more[: size - have])
            self._rest = more[size - have :]
            have += len(parts[-1])
        return b"".join(parts)

    def _more(self) -> bytes:
        assert self._held is not None
        assert self._held.stdout is not None
        until = time.monotonic() + PATIENCE
        if not select.select([self._held.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
            raise _Silent(f"no answer for {PATIENCE:g} seconds")
        more = os.read(self._held.stdout.fileno(), 1 << 20)
        if not more:
            raise _Silent("it died")
        return more


_process = _Process()


class Array:
    """An array of a file, of which only the description was read; `array[start:stop]` reads rows.

    dtype: numpy's, or None for words (`words` reads them) and references (`leads_to` follows them).
    """

    def __init__(self, file: Hdf5, at: list[Any]) -> None:
        self.file, self.at = file, at
        told, _ = file.ask({"at": at})
        name = "an array that it refers to" if len(at) > 1 else f"'{at[0]}'"
        if not told.get("array"):
            raise DistkError(f"{name} in '{file.path}' is no array.")
        shape, kind = told["shape"], told["dtype"]
        if told["outside"]:
            raise DistkError(f"{name} in '{file.path}' lies in another file, which is not read.")
        self.refers, self.of_words = kind == "refers", kind == "words"
        self.dtype: Any = np.dtype(object) if self.refers or self.of_words else np.dtype(str(kind))
        self.shape: tuple[int, ...] = tuple(int(n) for n in shape)
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        numbers = self.dtype.kind in NUMBERS
        stored = min(int(told["stored"]), file.path.stat().st_size)  # a header may claim any storage
        possible = self.size * max(1, self.dtype.itemsize if numbers else 1) <= stored * DEFLATE
        if min(self.shape, default=0) < 0 or len(self.shape) > 32 or not possible:
            raise DistkError(f"{name} in '{file.path}' is {self.dtype} {self.shape}, which cannot be in this file.")

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 1

    def __getitem__(self, rows: slice | tuple[()]) -> np.ndarray:
        """Rows `[start:stop]`, or all `[()]`."""
        start, stop, _ = rows.indices(len(self)) if isinstance(rows, slice) else (0, len(self), 1)
        if self.dtype.kind not in NUMBERS:
            raise DistkError(f"'{self.at[0]}' in '{self.file.path}' holds {self.dtype}, which is not read as numbers.")
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, AT_ONCE // max(1, row))
        parts = []
        for first in range(start, stop, step):
            last = min(stop, first + step)
            asked = {"at": self.at, "start": first, "stop": last}
            content = self.file.ask(asked, (last - first) * row)[1] if row else b""
            parts.append(np.frombuffer(content, self.dtype))
        flat = np.concatenate(parts) if parts else np.empty(0, self.dtype)
        return flat.reshape(stop - start, *self.shape[1:]) if self.shape else flat.reshape(())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.array(self.words(), dtype=object).reshape(self.shape) if self.of_words else self[()]
        return values if dtype is None else values.astype(dtype)

    def words(self) -> list[str]:
        """The words of an array of them."""
        found = self.file.ask({"at": self.at, "start": 0, "stop": len(self)})[0].get("words")
        if not isinstance(found, list) or len(found) != self.size:
            raise DistkError(f"'{self.at[0]}' in '{self.file.path}' does not hold the words that it says.")
        return [str(word) for word in found]

    def leads_to(self, k: int) -> Array:
        """What number k of an array of references leads to."""
        return Array(self.file, [*self.at, k])


class Hdf5(Mapping[str, Array]):
    """The arrays of an open file by name; those that lie in another file are refused."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        try:
            told, _ = _process.ask({"open": os.fsdecode(path.resolve())})
        except _Silent as error:
            raise DistkError(f"'{path}' is damaged: reading it was given up ({error}).") from error
        except DistkError as error:
            wrong = "does not exist" if not path.exists() else f"is not {what}"
            raise DistkError(f"'{path}' {wrong} ({str(error).rstrip('.')}).") from error
        self._names = [str(name) for name in told.get("names", ())]

    def ask(self, request: dict[str, Any], size: int = 0) -> tuple[dict[str, Any], bytes]:
        """An answer about this file. Raises DistkError where it is damaged, whatever that does to the reader."""
        try:
            return _process.ask(request, size)
        except _Silent as error:
            raise DistkError(f"'{self.path}' is damaged: reading it was given up ({error}).") from error
        except DistkError as error:
            raise DistkError(f"'{self.path}' cannot be read: {str(error).rstrip('.')}.") from error

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        try:
            return Array(self, [name])
        except (KeyError, TypeError, ValueError) as error:
            raise DistkError(f"'{name}' in '{self.path}' is not described as an array.") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextlib.contextmanager
def open_hdf5(path: Path, what: str = "an HDF5 file") -> Iterator[Hdf5]:
    """Open a file; one at a time. what: what it should be, for the message.

    Raises UsageError without the package h5py, DistkError for what is no HDF5 file.
    """
    if importlib.util.find_spec("h5py") is None:
        raise UsageError(f"reading '{path.name}' needs the package h5py: pip install 'distk[hdf5]'.")
    yield Hdf5(path, what)
