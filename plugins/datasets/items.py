"""Which array of a file holds the items, what they are, and how their numbers are told apart and kept.

Pixels are kept in 8 or 16 bits, vectors as float32. What was changed is said in `Found.told`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distk import DistkError, UsageError
from distk.console import progress
from distk.kept import kept, stamps
from distk.plugins.datasets.arrayfile import files_of, parts

ITEMS = ("images", "vectors", "clips")
"""Names of arrays of items."""
LARGEST = 4096
"""Pixels along a side of an image that are believed."""
CHANNELS = (1, 2, 3, 4)
FORMS = {
    "image": "[N, H, W], [N, H, W, C] or [N, C, H, W]",
    "vector": "[N, D]",
    "video": "[N, T, H, W], [N, T, H, W, C] or [N, T, C, H, W]",
}
BRIGHT = 16
"""Floats with a larger value than this, and none below 0 or above 255, are taken for brightness from 0 to 255."""


@dataclass(frozen=True)
class Found:
    """The items of a file. kind: image, vector or video. shape: of one, with the channels before height and width.
    items: as they are kept, uint8, int16 that holds the bits of uint16, or float32. last: whether channels come last in
    them. range: smallest and largest value, of vectors. told: what was changed."""

    name: str
    kind: str
    shape: tuple[int, ...]
    items: np.ndarray
    last: bool
    range: tuple[float, float] = (0.0, 1.0)
    told: tuple[str, ...] = ()


def find(path: Path, held: Mapping[str, Any], wanted: str) -> Found:
    """The items of an open file. wanted: the name of their array, or nothing.

    Raises UsageError where there is none of that name, DistkError for an array that cannot be read as items.
    """
    name = _name(path, held, wanted)
    array = held[name]  # of HDF5 not yet its numbers
    shown = name or "the array"
    where = f"'{shown}' in '{path}'"
    kind, shape = _kind(name, tuple(array.shape)), tuple(array.shape)
    if kind is None or 0 in shape or array.dtype.kind not in "buif":
        raise DistkError(f"{where} is {array.dtype} {shape}; expected numbers {' or '.join(FORMS.values())}.")
    key = f"arrays {path.resolve()} {name}"
    about = {"files": stamps(files_of(path), path if path.is_dir() else path.parent), "version": 2}
    if kind == "vector":
        return _vectors(name, where, array, shape, key, about)
    last, item = _layout(where, kind, shape)
    if array.dtype in (np.uint8, np.uint16) and isinstance(array, np.memmap):
        items = array if array.dtype == np.uint8 else array.view(np.int16)
        return Found(name, kind, item, items, last, told=_said(shown, array.dtype))
    change, dtype, told = _pixels(where, shown, array)

    def fill(items: np.ndarray) -> None:
        _filled(path, items, array, change)

    return Found(name, kind, item, kept(key, about, shape, dtype, fill), last, told=told)


def _name(path: Path, held: Mapping[str, Any], wanted: str) -> str:
    if "" in held:  # a .npy file has one array, without a name
        return ""
    if wanted:
        if wanted not in held:
            names = ", ".join(held) or "nothing"
            raise UsageError(f"'{path}' has no array '{wanted}' but {names}: name one with --images.")
        return wanted
    known = [name for name in ITEMS if name in held]
    if len(known) == 1:
        return known[0]
    fits = known or [name for name in held if len(getattr(held[name], "shape", ())) in (3, 4, 5)]
    if len(fits) != 1:
        names = ", ".join(held)[:300] or "nothing"
        several = f"holds {' and '.join(fits[:5])}" if fits else f"has no array 'images' but {names}"
        raise UsageError(f"'{path}' {several}: name the items with --images.")
    return fits[0]


def _kind(name: str, shape: tuple[int, ...]) -> str | None:
    """image, vector or video; None for an array that is none of them. Four axes are clips only by name."""
    if len(shape) == 2:
        return "vector"
    if len(shape) == 5 or (name == "clips" and len(shape) == 4):
        return "video"
    return "image" if len(shape) in (3, 4) else None


def _layout(where: str, kind: str, shape: tuple[int, ...]) -> tuple[bool, tuple[int, ...]]:
    """Whether channels come last, and the shape of an item with the channels before height and width."""
    inside = shape[1:] if kind == "image" else shape[2:]
    sides: tuple[int, ...]
    if len(inside) == 2:
        channels, last, sides = 1, False, tuple(inside)
    else:
        last = inside[2] in CHANNELS and inside[0] not in CHANNELS
        channels, sides = (inside[2], inside[:2]) if last else (inside[0], inside[1:])
    if channels not in CHANNELS or max(sides) > LARGEST:
        raise DistkError(
            f"{where} has the shape {shape}; expected {FORMS[kind]} with 1 to 4 channels and at most {LARGEST} pixels "
            "a side."
        )
    return last, (*(() if kind == "image" else shape[1:2]), channels, *sides)


def _said(shown: str, dtype: np.dtype) -> tuple[str, ...]:
    return (f"'{shown}' holds 16 bits, 0 to 65535, which become 0 to 1",) if dtype == np.uint16 else ()


Change = Callable[[np.ndarray], np.ndarray]


def _pixels(where: str, shown: str, array: Any) -> tuple[Change, type, tuple[str, ...]]:
    """How the numbers of an array become what is kept, its type, and what is to be said of it."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return lambda part: part, np.uint8, ()
    if array.dtype == np.uint16:
        return lambda part: part.view(np.int16), np.int16, _said(shown, array.dtype)
    if kind == "b":
        told = (f"'{shown}' holds yes and no, which become 1 and 0",)
        return lambda part: part.astype(np.uint8) * np.uint8(255), np.uint8, told
    low, high, whole = _span(where, array)
    span = f"from {low:g} to {high:g}"
    if kind in "iu" and low >= 0 and high <= 1:
        told = (f"'{shown}' holds 0 and 1 as {array.dtype}, black and white",)
        return lambda part: part.astype(np.uint8) * np.uint8(255), np.uint8, told
    if kind in "iu" or (whole and high > 1):
        if low >= 0 and high <= 255:
            told = (f"'{shown}' holds whole numbers {span} as {array.dtype}, taken for 0 to 255",)
            return lambda part: part.astype(np.uint8), np.uint8, told
        raise DistkError(
            f"{where} holds whole numbers {span} as {array.dtype}, whose range nobody states: make them uint8, "
            "uint16 or floats from 0 to 1."
        )
    if low >= 0 and high <= 1:
        told = (f"'{shown}' holds floats from 0 to 1, which become whole numbers from 0 to 255",)
        return lambda part: np.rint(_real(part) * 255).astype(np.uint8), np.uint8, told
    if low >= -1 and high <= 1:
        told = (f"'{shown}' holds floats from -1 to 1, which become whole numbers from 0 to 255",)
        return lambda part: np.rint((_real(part) + 1) * 127.5).astype(np.uint8), np.uint8, told
    if low >= 0 and BRIGHT < high <= 255:
        told = (f"'{shown}' holds floats {span}, taken for 0 to 255 and rounded",)
        return lambda part: np.rint(part).astype(np.uint8), np.uint8, told
    raise DistkError(f"{where} holds floats {span}; floats must lie from 0 to 1, from -1 to 1 or from 0 to 255.")


def _real(part: np.ndarray) -> np.ndarray:
    """Half precision has too few digits to be scaled in."""
    return part.astype(np.float32) if part.dtype.itemsize < 4 else part


def _span(where: str, array: Any) -> tuple[float, float, bool]:
    """Smallest and largest value, and whether all are whole. Raises DistkError naming the first row that is not
    finite."""
    low, high, whole, row = math.inf, -math.inf, True, 0
    for part in parts(array):
        if part.dtype.kind == "f":
            finite = np.isfinite(part).reshape(len(part), -1).all(1)
            if not finite.all():
                raise DistkError(
                    f"{where} holds values that are not finite, the first in row {row + int(finite.argmin())}."
                )
            whole = whole and bool((part == np.rint(part)).all())
        low, high, row = min(low, float(part.min())), max(high, float(part.max())), row + len(part)
    return low, high, whole


def _vectors(name: str, where: str, array: Any, shape: tuple[int, ...], key: str, about: dict[str, Any]) -> Found:
    low, high, _ = _span(where, array)
    most = float(np.finfo(np.float32).max)
    if not -most <= low <= high <= most:
        raise DistkError(f"{where} holds values from {low:g} to {high:g}, which 32 bits cannot hold.")
    told = (
        () if array.dtype.kind != "f" or array.dtype.itemsize <= 4 else (f"'{name or 'the array'}' is kept as float32",)
    )
    if isinstance(array, np.ndarray) and array.dtype == np.float32:
        items = array
    else:

        def fill(made: np.ndarray) -> None:
            _filled(Path(where), made, array, lambda part: part.astype(np.float32))

        items = kept(key, about, shape, np.float32, fill)
    return Found(name, "vector", shape[1:], items, False, (low, high if high > low else low + 1), told)


def _filled(path: Path, items: np.ndarray, array: Any, change: Change) -> None:
    with progress(f"reading {path.name}", len(items)) as advance:
        start = 0
        for part in parts(array):
            items[start : start + len(part)] = change(part)
            start += len(part)
            advance(len(part))
