"""arrays: images in one file of arrays, with or without what is known of them: .npy, .npz or HDF5.

    images   uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], or floats from 0 to 1, which become bytes
    label    whole numbers [N]
    factors  [N, K]: whole numbers, or real numbers for continuous factors; factor_names [K], factor_kinds [K]
    split    words [N] such as train, val and test

A .npy file holds the images alone, and is memory-mapped where it lies. Images out of .npz and HDF5 are unpacked once
and kept (`distk.kept`).
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

from distk import Dataset, DataSpec, DistkError, FactorDataset, Files, UsageError, option, permuted_split
from distk.arrays import Npz, open_npy, open_npz
from distk.console import note, progress
from distk.data import levels
from distk.kept import kept, stamps
from distk.plugins.datasets.hdf5 import open_hdf5
from distk.stored import Stored

KINDS = ("categorical", "ordinal", "circular", "continuous")
LARGEST, MOST, FACTORS = 4096, 1 << 20, 1 << 10
"""Pixels along a side of an image, different labels, and factors, that are believed."""
AT_ONCE = 1024


@dataclass(frozen=True)
class Config:
    """Where the images are, and how they are split."""

    images: str = option("images", "name of the array of images in .npz and HDF5 files")
    test: float = option(
        0.1, "share of the images kept for the test split, where the file names none", above=0, max=0.9
    )


class Arrays(Dataset[Config]):
    """Images of a file; with factors in it, `ArraysWithFactors`."""

    counted = True
    reads = "a file of arrays, .npy, .npz or .h5, with images [N, H, W], [N, H, W, C] or [N, C, H, W]"

    def __new__(cls, config: Config, device: torch.device, files: Files) -> Arrays:
        """An instance that has factors, where the file has."""
        path = _file(files)
        with _opened(path) as held:
            return super().__new__(ArraysWithFactors if "factors" in held else cls)

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        path = _file(files)
        with _opened(path) as held:
            images = _images(path, held, config.images)
            self._last = images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3)
            self.label = _label(path, held, len(images), device)
            self.parts = _splits(path, held, len(images), config, device)
            self._take_factors(path, held, len(images))
        # With the file closed: that the device has no room is not the file's fault.
        self.pixels = Stored(images, device, files.where)
        self.stored = (self.pixels,)
        height_first = images.shape[1:] if images.ndim == 3 or not self._last else np.roll(images.shape[1:], 1)
        shape = tuple(int(n) for n in (height_first if images.ndim == 4 else (1, *height_first)))
        classes = () if self.label is None else tuple(str(k) for k in range(int(self.label.max()) + 1))
        self.spec = DataSpec("image", shape, classes=classes)
        self.origin = f"{len(images):,} images of '{path}'"

    def _take_factors(self, path: Path, held: Mapping[str, Any], n: int) -> None:
        """Nothing here: this form has none."""

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, channels, height, width]` in [0, 1]; `label` int64 `[n]`, where the file has one."""
        x = self.pixels[rows]
        x = (x.permute(0, 3, 1, 2) if self._last else x).reshape(len(rows), *self.spec.shape) / 255
        return {"x": x} if self.label is None else {"x": x, "label": self.label[rows]}


class ArraysWithFactors(Arrays, FactorDataset[Config]):
    """Images of a file whose factors it holds too."""

    def _take_factors(self, path: Path, held: Mapping[str, Any], n: int) -> None:
        given = _numbers(path, held, "factors", n)
        values = torch.from_numpy(given if given.ndim == 2 else given[:, None]).to(self.device)
        count = values.shape[1]
        broken = (values != values.round()).any(0).tolist()
        names = _words(path, held, "factor_names", count) or [f"f{k + 1}" for k in range(count)]
        guessed = ["continuous" if b else "ordinal" for b in broken]
        kinds = _words(path, held, "factor_kinds", count) or guessed
        wrong = [kind for kind in kinds if kind not in KINDS]
        if wrong or len(set(names)) < count:
            told = f"the kind '{wrong[0]}'; kinds are {', '.join(KINDS)}" if wrong else "two factors of one name"
            raise DistkError(f"'{path}' has {told}.")
        self.factor_names, self.factor_kinds = tuple(names), tuple(kinds)
        self.table, self.factor_sizes = levels(values)
        self.real_values = values if "continuous" in kinds else None


def _file(files: Files) -> Path:
    """The one file of `--data-dir`. Raises UsageError where there is none, or more than one."""
    if not files.required:
        raise UsageError("data set 'arrays' needs a file of images: add --data-dir FILE.npz (or .npy, .h5).")
    root = files.folders[0]
    kinds = (".npy", ".npz", ".h5", ".hdf5")
    inside = sorted(root.iterdir()) if root.is_dir() else [root]
    found = [p for p in inside if p.suffix.lower() in kinds and p.is_file()]  # a pipe would keep us waiting
    if len(found) != 1:
        named = ", ".join(p.name for p in found[:5]) or "none"
        raise UsageError(f"'{root}' must be or hold one file {', '.join(kinds)}; found {named}.")
    return found[0]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file by name, read when they are looked at. Raises DistkError for what cannot be opened."""
    if path.suffix.lower() == ".npz":
        with open_npz(path) as packed:
            yield _Packed(packed)
        return
    try:
        if path.suffix.lower() == ".npy":
            yield {"images": open_npy(path)}
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


def _images(path: Path, held: Mapping[str, Any], name: str) -> np.ndarray:
    """uint8, as they lie in the file; of a .npy memory-mapped, else unpacked once and kept."""
    if path.suffix.lower() == ".npy":
        name = "images"
    if name not in held:
        raise UsageError(f"'{path}' has no array '{name}' but {', '.join(held) or 'nothing'}: name one with --images.")
    array = held[name]  # of HDF5 not yet its numbers
    shape = tuple(array.shape)
    known = array.dtype == np.uint8 or array.dtype.kind == "f"
    sides = [n for n in shape[1:] if n not in (1, 3)] if len(shape) == 4 else shape[1:]
    channels = len(shape) == 3 or (len(shape) == 4 and (shape[1] in (1, 3) or shape[3] in (1, 3)))
    if not known or not channels or 0 in shape or max(sides, default=0) > LARGEST:
        raise DistkError(
            f"'{name}' in '{path}' is {array.dtype} {shape}; expected bytes, or floats from 0 to 1, [N, H, W], "
            "[N, H, W, C] or [N, C, H, W] with 1 or 3 channels."
        )
    if isinstance(array, np.memmap) and array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f":
        note(f"'{name}' holds floats, which become whole numbers from 0 to 255")

    def fill(images: np.ndarray) -> None:
        with progress(f"reading {path.name}", len(images)) as advance:
            start = 0
            for part in _parts(array):
                images[start : start + len(part)] = _bytes(path, name, part)
                start += len(part)
                advance(len(part))

    return kept(
        f"arrays {path.resolve()} {name}", {"files": stamps([path], path.parent), "version": 1}, shape, np.uint8, fill
    )


def _parts(array: Any) -> Iterator[np.ndarray]:
    """An array in consecutive parts along its first axis, so that it is never whole in memory."""
    if isinstance(array, _Member):
        yield from array.parts()
        return
    for start in range(0, len(array), AT_ONCE):
        yield array[start : start + AT_ONCE]


def _bytes(path: Path, name: str, part: np.ndarray) -> np.ndarray:
    if part.dtype == np.uint8:
        return part
    low, high = float(part.min()), float(part.max())
    if not (low >= 0 and high <= 1):
        raise DistkError(f"'{name}' in '{path}' holds values from {low:g} to {high:g}; floats must lie from 0 to 1.")
    return np.rint(part * 255).astype(np.uint8)


def _numbers(path: Path, held: Mapping[str, Any], name: str, n: int) -> np.ndarray:
    """Finite float64 `[n]` or `[n, K]`."""
    array = held[name]  # not yet its numbers
    kind, shape = array.dtype.kind, tuple(array.shape)
    if kind not in "fiub" or len(shape) not in (1, 2) or shape[0] != n or not 0 < math.prod(shape[1:]) <= FACTORS:
        raise DistkError(f"'{name}' in '{path}' is {array.dtype} {shape}; expected numbers for {n} images.")
    values = np.asarray(array).astype(np.float64)
    if not np.isfinite(values).all():
        raise DistkError(f"'{name}' in '{path}' has values that are not finite.")
    return values


def _label(path: Path, held: Mapping[str, Any], n: int, device: torch.device) -> Tensor | None:
    if "label" not in held:
        return None
    values = _numbers(path, held, "label", n)
    if values.ndim != 1 or (values != values.round()).any() or values.min() < 0 or values.max() >= MOST:
        raise DistkError(f"'label' in '{path}' must hold a whole number from 0 for each image.")
    return torch.from_numpy(values).long().to(device)


def _words(path: Path, held: Mapping[str, Any], name: str, n: int) -> list[str]:
    if name not in held:
        return []
    array = held[name]
    if math.prod(array.shape) != n or array.dtype.kind not in "USO":
        raise DistkError(f"'{name}' in '{path}' must hold {n} words, found {array.dtype} {tuple(array.shape)}.")
    array = np.asarray(array).reshape(-1)
    return [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in array]


def _splits(path: Path, held: Mapping[str, Any], n: int, config: Config, device: torch.device) -> dict[str, Tensor]:
    words = _words(path, held, "split", n)
    if not words:
        return permuted_split(n, config.test, 0, device) if n > 1 else {}
    names = list(dict.fromkeys(words))
    if "train" not in names or "all" in names:
        raise DistkError(f"'split' in '{path}' names {', '.join(names[:5])}; it needs 'train', and cannot name 'all'.")
    which = np.array(words)
    return {name: torch.from_numpy(np.flatnonzero(which == name)).to(device) for name in names}
