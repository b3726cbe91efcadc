"""Arrays at the root of an HDF5 file, in the process that calls: `arrays.Hdf5` has another one do it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from distk.apart import Answer
from distk.errors import DistkError

LARGEST = 1 << 33
"""Bytes of one array."""
NUMBERS = "biuf"


def names(content: bytes, where: str, hint: str) -> Iterator[Answer]:
    """Which arrays there are."""
    with _opened(where, hint) as file:
        yield {"names": [str(name) for name in file if file.get(name, getclass=True) is h5py.Dataset]}, []


def header(content: bytes, where: str, hint: str, name: str, ratio: int) -> Iterator[Answer]:
    """Shape and type of an array. ratio: how many bytes one stored byte may unpack to."""
    with _opened(where, hint) as file:
        held = _held(file, where, name, ratio)
        yield {"shape": list(held.shape), "dtype": held.dtype.str}, []


def read(content: bytes, where: str, hint: str, name: str, ratio: int) -> Iterator[Answer]:
    """An array."""
    with _opened(where, hint) as file:
        yield {}, [np.asarray(_held(file, where, name, ratio)[()])]


@contextlib.contextmanager
def _opened(where: str, hint: str) -> Iterator[Any]:
    try:
        with h5py.File(where, "r") as file:
            yield file
    except (DistkError, MemoryError):
        raise
    except Exception as error:  # h5py answers a damaged file with errors of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{where}' is not a valid HDF5 file ({reason}){hint}.") from error


def _held(file: Any, where: str, name: str, ratio: int) -> Any:
    """An array that is one of numbers, lies in this file, and may be as large as it says."""
    held = file[name]
    if held.external or held.is_virtual or held.file.filename != file.filename:
        raise DistkError(f"'{where}': '{name}' lies in another file, which is not read.")
    # What was never written takes no room, and is not there.
    room = min(LARGEST, min(held.id.get_storage_size(), Path(where).stat().st_size) * ratio)
    size = math.prod(held.shape or (1,)) * held.dtype.itemsize
    if held.shape is None or held.dtype.kind not in NUMBERS or size > room:
        raise DistkError(
            f"'{where}': '{name}' is {held.dtype} {held.shape}, which cannot be in this file or is not read."
        )
    return held
