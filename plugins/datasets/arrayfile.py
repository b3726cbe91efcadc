"""The arrays of one file by name: .npz, .npy or HDF5, or a folder of .npy files; read when they are looked at."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from distk import DistkError, UsageError
from distk.arrays import Npz, open_npy, open_npz
from distk.console import counted, progress
from distk.kept import of_files
from distk.plugins.datasets.hdf5 import open_hdf5

KINDS = (".npy", ".npz", ".h5", ".hdf5")
AT_ONCE = 1024
"""Rows that are read together."""


def place_of(root: Path, items: tuple[str, ...]) -> Path:
    """The one file that `root` is or holds, or `root` itself where it holds a .npy file for each array, one of them
    named as one of `items`. Raises UsageError where there is none, or more than one."""
    inside = sorted(root.iterdir()) if root.is_dir() else [root]
    found = [p for p in inside if p.suffix.lower() in KINDS and p.is_file()]  # a pipe would keep us waiting
    if len(found) == 1:
        return found[0]
    if found and all(p.suffix.lower() == ".npy" for p in found) and {p.stem for p in found} & set(items):
        return root
    named = ", ".join(p.name for p in found[:5]) or "none"
    raise UsageError(f"'{root}' must be or hold one file {', '.join(KINDS)}; found {named}.")


def files_of(place: Path) -> list[Path]:
    """The files behind what `place_of` gave."""
    return sorted(p for p in place.iterdir() if p.suffix.lower() == ".npy") if place.is_dir() else [place]


def read_npy(file: IO[bytes], where: str, most: int) -> np.ndarray:
    """The array of an open .npy file, such as a member of an archive. where: its name, for messages.

    Raises DistkError for more than `most` bytes, for objects, and for what is no such file or ends early.
    """
    try:
        version = np.lib.format.read_magic(file)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = head(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or size > most:
            raise DistkError(
                f"'{where}' is {dtype} {shape}, which is not read: at most {counted(most, 'byte')} of numbers are."
            )
        content = file.read(size + 1)
    except DistkError:
        raise
    except Exception as error:  # the header is read by Python's own tokenizer and parser, each with errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{where}' is not a valid npy file ({reason}).") from error
    if len(content) != size:
        raise DistkError(f"'{where}' does not have the {counted(size, 'byte')} that its header states.")
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if fortran else "C")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file by name, read when they are looked at; a .npy file has the one name "".

    Raises DistkError for what cannot be opened.
    """
    if path.suffix.lower() == ".npz":
        with open_npz(path) as packed:
            yield _Packed(packed)
        return
    try:
        if path.is_dir():
            yield {p.stem: open_npy(p) for p in files_of(path) if p.is_file()}
        elif path.suffix.lower() == ".npy":
            yield {"": open_npy(path)}
        else:
            with open_hdf5(path) as file:
                yield file
    except (OSError, ValueError, EOFError, RuntimeError, KeyError) as error:
        raise DistkError(f"'{path}' cannot be read: {' '.join(str(error).split())[:200]}.") from error


class _Packed(Mapping[str, Any]):
    """The members of an npz file; the size of each is held against the file before it is read."""

    def __init__(self, npz: Npz) -> None:
        self.npz = npz

    def __getitem__(self, name: str) -> Any:
        return _Member(self.npz, name)

    def __contains__(self, name: object) -> bool:
        return name in self.npz.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.npz.names)

    def __len__(self) -> int:
        return len(self.npz.names)


class _Member:
    """One array of an npz file, of which only the header was read."""

    def __init__(self, npz: Npz, name: str) -> None:
        self.npz, self.name = npz, name
        self.shape, self.dtype = npz.header(name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.npz.read(self.name)

    def parts(self) -> Iterator[np.ndarray]:
        """The array in consecutive parts along its first axis; one that is stored column by column in one."""
        if self.npz.by_column(self.name):
            return iter([self.npz.read(self.name)])
        return self.npz.parts(self.name)


def parts(array: Any) -> Iterator[np.ndarray]:
    """An array in consecutive parts along its first axis, so that it is never whole in memory."""
    if isinstance(array, _Member):
        yield from array.parts()
        return
    for start in range(0, len(array), AT_ONCE):
        yield array[start : start + AT_ONCE]


def unpacked(name: str, path: Path, array: Any) -> np.ndarray:
    """An array of an opened file as it is, unpacked once and kept under `name` (`distk.kept`), memory-mapped."""

    def fill(out: np.ndarray) -> None:
        at = 0
        with progress(f"reading {path.name}", len(out)) as advance:
            for part in parts(array):
                out[at : at + len(part)] = part
                at += len(part)
                advance(len(part))

    return of_files(name, [path], path.parent, tuple(array.shape), array.dtype, fill)
