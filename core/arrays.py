"""Arrays in npz and HDF5 files of strangers: sizes are held against the file before memory is taken; no pickles."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import numpy as np

from distk.apart import Answer, only
from distk.console import counted
from distk.errors import DistkError, UsageError
from distk.memory import afford

LARGEST = 1 << 35
"""Bytes of one array."""
DEFLATE = 1040
"""No deflate stream grows by more than this factor when unpacked."""
PIECE = 1 << 20
COPIES = 3
"""Times that what is read whole may lie in memory, as it was stored and as it is used."""


def open_npy(path: Path, mode: Literal["r", "c"] = "c") -> np.ndarray:
    """The array of a .npy file, memory-mapped.

    Raises DistkError, in one sentence, for whatever numpy raises over a damaged or hostile header.
    """
    try:
        return np.lib.format.open_memmap(path, mode=mode)
    except Exception as error:  # the header is read by Python's own tokenizer and parser, each with errors of its own
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
        raise DistkError(f"'{path}' is not a valid npy file ({reason}).") from error


class Npz:
    """An open npz file. names: of its arrays, without `.npy`, in the order of the file. Use it through `open_npz`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, hint: str = "") -> None:
        self.path, self._archive, self._hint = path, archive, hint
        self.names = tuple(n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy"))
        self._size = path.stat().st_size

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of a member, as its own header states them. Raises DistkError when they cannot be true."""
        with self._member(name) as (_, shape, dtype, _order):
            return shape, dtype

    def by_column(self, name: str) -> bool:
        """Whether a member is stored in Fortran order, which `parts` does not read."""
        with self._member(name) as (_, shape, _dtype, order):
            return order == "F" and len(shape) > 1

    def room(self, name: str) -> int:
        """Bytes that a member may possibly hold, by the size of the file and of what is packed in it."""
        return self._possible(self._archive.getinfo(f"{name}.npy"))

    def read(self, name: str) -> np.ndarray:
        """A member as a writable array. Raises DistkError as `header` does, and for a member that ends too early."""
        with self._member(name) as (file, shape, dtype, order):
            size = math.prod(shape) * dtype.itemsize
            afford(COPIES * size, f"'{name}' in '{self.path}', {counted(size, 'byte')} when unpacked,")
            array = np.empty(math.prod(shape), dtype)
            self._fill(name, file, array)
            return array.reshape(shape, order=order)

    def parts(self, name: str, most: int = 1 << 24) -> Iterator[np.ndarray]:
        """A member in consecutive parts along its first axis, each of about `most` bytes: what is read is never whole
        in memory."""
        with self._member(name) as (file, shape, dtype, order):
            if order == "F" and len(shape) > 1:
                raise DistkError(
                    f"'{self.path}': '{name}' is stored column by column (Fortran order), which is not read."
                )
            step = max(1, most // max(1, math.prod(shape[1:]) * dtype.itemsize))
            for start in range(0, shape[0], step):
                part = np.empty((min(step, shape[0] - start), *shape[1:]), dtype)
                self._fill(name, file, part.reshape(-1))
                yield part

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype, Literal["C", "F"]]]:
        if name not in self.names:
            raise DistkError(f"'{self.path}' lacks '{name}'{self._hint}.")
        info = self._archive.getinfo(f"{name}.npy")
        with self._archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = head(file)
            size = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or any(n < 0 for n in shape) or size > self._possible(info):
                raise DistkError(
                    f"'{self.path}': '{name}' is {dtype} {shape}, which cannot be in this file or is not read."
                )
            yield file, shape, dtype, "F" if fortran else "C"

    def _possible(self, info: zipfile.ZipInfo) -> int:
        return min(LARGEST, min(info.compress_size, self._size) * DEFLATE)

    def _fill(self, name: str, file: IO[bytes], array: np.ndarray) -> None:
        view, at = array.view(np.uint8), 0
        while at < len(view):
            piece = file.read(min(PIECE, len(view) - at))
            if not piece:
                raise DistkError(f"'{self.path}' ends in the middle of '{name}'.")
            view[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)


@contextlib.contextmanager
def open_npz(path: Path, expected: str = "") -> Iterator[Npz]:
    """Open an npz file. expected: what it should hold, for the message.

    Raises DistkError, in one sentence, for whatever zipfile, zlib and numpy raise over a damaged or hostile file.
    """
    hint = f"; expected {expected}" if expected else ""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Npz(path, archive, hint)
    except (DistkError, NameError):  # what is no news about the file
        raise
    except Exception as error:  # damaged archives raise a family of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{path}' is not a valid npz file ({reason}){hint}.") from error


class Hdf5:
    """An HDF5 file as `Npz` has it, read by another process: `names` of the arrays at its root, `header`, `read`."""

    def __init__(self, path: Path, hint: str = "") -> None:
        self.path, self._hint = path, hint
        self.names = tuple(map(str, only("distk.hdf5:names", str(path), hint=hint)[0]["names"]))

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array. Raises DistkError where it is no array of numbers, lies in another file, or
        cannot be as large as it says."""
        told, _ = self._asked("header", name)
        return tuple(int(n) for n in told["shape"]), np.dtype(str(told["dtype"]))

    def read(self, name: str) -> np.ndarray:
        """An array, writable. Raises DistkError as `header` does."""
        return self._asked("read", name)[1][0]

    def _asked(self, what: str, name: str) -> Answer:
        if name not in self.names:
            raise DistkError(f"'{self.path}' lacks '{name}'{self._hint}.")
        return only(f"distk.hdf5:{what}", str(self.path), hint=self._hint, name=name, ratio=DEFLATE)


@contextlib.contextmanager
def open_hdf5(path: Path, expected: str = "") -> Iterator[Hdf5]:
    """An HDF5 file. expected: what it should hold, for the message.

    Raises UsageError without the package h5py, DistkError, in one sentence, for a damaged or hostile file.
    """
    if importlib.util.find_spec("h5py") is None:
        raise UsageError(f"reading '{path.name}' needs the package h5py: pip install 'distk[hdf5]'.")
    yield Hdf5(path, f"; expected {expected}" if expected else "")


def open_arrays(path: Path, expected: str = "") -> contextlib.AbstractContextManager[Npz | Hdf5]:
    """Open a file of arrays as what its ending says: HDF5 (`.h5`, `.hdf5`) or npz."""
    return open_hdf5(path, expected) if path.suffix.lower() in (".h5", ".hdf5") else open_npz(path, expected)
