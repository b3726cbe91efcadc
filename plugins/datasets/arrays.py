"""arrays: items in one file of arrays, with or without what is known of them: .npy, .npz or HDF5.

    images   [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 to 4 channels
    vectors  [N, D]
    clips    [N, T, H, W], [N, T, H, W, C] or [N, T, C, H, W]
    label    (or labels) whole numbers or words [N]; classes: names of the numbers
    factors  [N, K]: whole numbers, or real numbers for continuous factors; factor_names [K], factor_kinds [K]
    split    words [N] such as train, val and test

A .npy file holds the items alone, and is memory-mapped where it lies; a folder of .npy files holds an array in each.
Items out of .npz and HDF5 are unpacked once and kept (`distk.kept`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import Dataset, DataSpec, DistkError, FactorDataset, Files, UsageError, option, permuted_split
from distk.console import counted
from distk.data import levels
from distk.plugins.datasets.arrayfile import KINDS, opened, place_of
from distk.plugins.datasets.items import ITEMS, Found, find
from distk.stored import Stored
from distk.unpacked import on_disk

FACTOR_KINDS = ("categorical", "ordinal", "circular", "continuous")
MOST, FACTORS = 1 << 20, 1 << 10
"""Different labels, and factors, that are believed."""
WHOLE = 65535
"""The largest value of 16 bits."""


@dataclass(frozen=True)
class SplitConfig:
    """How the items are split."""

    test: float = option(0.1, "share of the items kept for the test split, where the file names none", above=0, max=0.9)


@dataclass(frozen=True)
class Config(SplitConfig):
    """Where the items are, and how they are split."""

    images: str = option("", "name of the array of items; default: images, vectors or clips, or the only one that fits")


Held = TypeVar("Held", bound=SplitConfig, default=SplitConfig)


class HeldItems(Dataset[Held]):
    """Items with what is known of them, as arrays by name; see `held`."""

    counted = True

    @contextlib.contextmanager
    def held(self, files: Files) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """The file, and its arrays by the names above."""
        raise NotImplementedError

    def __init__(self, config: Held, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        with self.held(files) as (path, held):
            found = self._items(path, held)
            n = len(found.items)
            self.label, classes = _label(path, held, n, device)
            self.parts = _splits(path, held, n, config, device)
            self._take_factors(path, held, n)
            spare = [name for name in held if name and name not in (found.name, *KNOWN)]
        self.told += (*found.told, *([f"not read in '{path}': {', '.join(spare)[:200]}"] if spare else []))
        self.found = found
        # With the file closed: that the device has no room is not the file's fault.
        self.pixels = Stored(found.items, device, files.where)
        self.stored = (self.pixels,)
        self.spec = DataSpec(found.kind, found.shape, self._range(files, found), classes=classes)
        what = {"image": "images", "vector": "vectors", "video": "clips"}[found.kind]
        self.origin = f"{n:,} {what} of '{path}'"

    def _items(self, path: Path, held: Mapping[str, Any]) -> Found:
        """The items, and how they are kept."""
        return find(path, held, getattr(self.config, "images", ""))

    def _range(self, files: Files, found: Found) -> tuple[float, float]:
        """Of pixels 0 to 1; of vectors what the model was built for, or else the smallest and the largest value."""
        if found.kind != "vector":
            return 0.0, 1.0
        known = files.model.range if files.model is not None and files.model.kind == "vector" else found.range
        if known[0] > found.range[0] or known[1] < found.range[1]:
            outside = "{:g} to {:g}".format(*found.range)
            self.told += (f"values go from {outside}, beyond the {known[0]:g} to {known[1]:g} of the model's own data",)
        return known

    def _take_factors(self, path: Path, held: Mapping[str, Any], n: int) -> None:
        """Nothing here: this form has none."""

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, channels, height, width]` or `[n, time, channels, height, width]` in [0, 1], or `[n, D]`;
        `label` int64 `[n]`, where the file has one."""
        x, found = self.pixels[rows], self.found
        if found.kind != "vector":
            if found.last:
                x = x.movedim(-1, -3)
            x = x.reshape(len(rows), *self.spec.shape)
            # 16 bits are kept as int16, which every device can look up; the mask gives their value back.
            x = (x.int() & WHOLE) / WHOLE if x.dtype == torch.int16 else x / 255
        return {"x": x} if self.label is None else {"x": x, "label": self.label[rows]}


class HeldFactors(HeldItems[Held], FactorDataset[Held]):
    """Items whose factors are known, too."""

    def _take_factors(self, path: Path, held: Mapping[str, Any], n: int) -> None:
        given = _factors(path, held, n)
        values = torch.from_numpy(given if given.ndim == 2 else given[:, None]).to(self.device)
        count = values.shape[1]
        broken = (values != values.round()).any(0).tolist()
        names = _words(path, held, "factor_names", count) or [f"f{k + 1}" for k in range(count)]
        words = held["factors"].dtype.kind in "USO"
        guessed = ["continuous" if b else "categorical" if words else "ordinal" for b in broken]
        kinds = _words(path, held, "factor_kinds", count) or guessed
        wrong = [kind for kind in kinds if kind not in FACTOR_KINDS]
        if wrong or len(set(names)) < count:
            told = f"the kind '{wrong[0]}'; kinds are {', '.join(FACTOR_KINDS)}" if wrong else "two factors of one name"
            raise DistkError(f"'{path}' has {told}.")
        self.factor_names, self.factor_kinds = tuple(names), tuple(kinds)
        self.table, self.factor_sizes = levels(values)
        self.real_values = values if "continuous" in kinds else None


class Arrays(HeldItems[Config]):
    """Items of a file; with factors in it, `ArraysWithFactors`."""

    reads = (
        "a file of arrays, .npy, .npz or .h5, or a zip or tar of one, with images [N, H, W, C], vectors [N, D] or "
        "clips [N, T, H, W, C]"
    )

    def __new__(cls, config: Config, device: torch.device, files: Files) -> Arrays:
        """An instance that has factors, where the file has."""
        with _place(files) as path, opened(path) as held:
            return super().__new__(ArraysWithFactors if "factors" in held else cls)

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        with _place(files) as path:  # of an archive the user knows its own name
            here, there = str(path), str(files.folders[0])
            if not path.is_relative_to(files.folders[0]):
                self.origin = self.origin.replace(here, there)
                self.told = tuple(told.replace(here, there) for told in self.told)

    @contextlib.contextmanager
    def held(self, files: Files) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        with _place(files) as path, opened(path) as arrays:
            yield path, arrays


class ArraysWithFactors(Arrays, HeldFactors[Config]):
    """Items of a file whose factors it holds, too."""


KNOWN = ("label", "labels", "classes", "factors", "factor_names", "factor_kinds", "split")


@contextlib.contextmanager
def _place(files: Files) -> Iterator[Path]:
    """The user's file, or folder of files, which may be in an archive."""
    if not files.required:
        raise UsageError("data set 'arrays' needs a file of images: add --data-dir FILE.npz (or .npy, .h5).")
    with on_disk(files.folders[0], KINDS) as root:
        yield place_of(root, ITEMS)


def _numbers(path: Path, held: Mapping[str, Any], name: str, n: int) -> np.ndarray:
    """Finite float64 `[n]` or `[n, K]`."""
    array = held[name]  # not yet its numbers
    kind, shape = array.dtype.kind, tuple(array.shape)
    if kind not in "fiub" or len(shape) not in (1, 2) or shape[0] != n or not 0 < math.prod(shape[1:]) <= FACTORS:
        raise DistkError(f"'{name}' in '{path}' is {array.dtype} {shape}; expected numbers for {counted(n, 'item')}.")
    values = np.asarray(array).astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmax(~np.isfinite(values).reshape(n, -1).all(1)))
        raise DistkError(f"'{name}' in '{path}' has values that are not finite, the first in row {row}.")
    return values


def _factors(path: Path, held: Mapping[str, Any], n: int) -> np.ndarray:
    """As `_numbers`; of words the number of each among the different words of its column, in sorted order."""
    array = held["factors"]
    if array.dtype.kind not in "USO":
        return _numbers(path, held, "factors", n)
    shape = tuple(array.shape)
    if len(shape) not in (1, 2) or shape[0] != n or not 0 < math.prod(shape[1:]) <= FACTORS:
        raise DistkError(f"'factors' in '{path}' is {array.dtype} {shape}; expected words for {counted(n, 'item')}.")
    words = np.array(_words(path, held, "factors", math.prod(shape))).reshape(n, -1)
    return np.stack([np.unique(column, return_inverse=True)[1] for column in words.T], 1).astype(np.float64)


def _label(path: Path, held: Mapping[str, Any], n: int, device: torch.device) -> tuple[Tensor | None, tuple[str, ...]]:
    """int64 `[n]` and the names of the classes; None and nothing where the file has no labels."""
    name = next((name for name in ("label", "labels") if name in held), "")
    if not name:
        return None, ()
    if held[name].dtype.kind in "USO":
        classes, place = np.unique(_words(path, held, name, n), return_inverse=True)
        return torch.from_numpy(place.astype(np.int64)).to(device), tuple(map(str, classes))
    values = _numbers(path, held, name, n)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or (values != values.round()).any() or values.min() < 0 or values.max() >= MOST:
        raise DistkError(f"'{name}' in '{path}' must hold a word or a whole number from 0 for each item.")
    count = int(values.max()) + 1
    names = tuple(map(str, range(count)))
    if "classes" in held:
        size = math.prod(held["classes"].shape)
        names = tuple(_words(path, held, "classes", max(size, count)))
    return torch.from_numpy(values).long().to(device), names


def _words(path: Path, held: Mapping[str, Any], name: str, n: int) -> list[str]:
    if name not in held:
        return []
    array = held[name]
    if math.prod(array.shape) != n or array.dtype.kind not in "USO":
        raise DistkError(
            f"'{name}' in '{path}' must hold {counted(n, 'word')}, found {array.dtype} {tuple(array.shape)}."
        )
    array = np.asarray(array).reshape(-1)
    return [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in array]


def _splits(
    path: Path, held: Mapping[str, Any], n: int, config: SplitConfig, device: torch.device
) -> dict[str, Tensor]:
    words = _words(path, held, "split", n)
    if not words:
        return permuted_split(n, config.test, 0, device) if n > 1 else {}
    names = list(dict.fromkeys(words))
    if "train" not in names or "all" in names:
        raise DistkError(f"'split' in '{path}' names {', '.join(names[:5])}; it needs 'train', and cannot name 'all'.")
    which = np.array(words)
    return {name: torch.from_numpy(np.flatnonzero(which == name)).to(device) for name in names}
