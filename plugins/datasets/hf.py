"""hf: a data set that Hugging Face's `datasets` saved to a folder, of pictures, arrays or numbers.

Pictures are decoded as those of a folder are. `text-table` reads the sentences of such a folder.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch

from distk import DistkError, Files, UsageError, option
from distk.console import counted, progress
from distk.errors import nearest
from distk.files import expanded
from distk.kept import of_files
from distk.pictures import Fitting, Form, Seen, read_many
from distk.plugins.datasets.arrays import HeldFactors, HeldItems, SplitConfig
from distk.plugins.datasets.folder import SPLITS
from distk.plugins.datasets.items import Found
from distk.saved import named, open_saved, rows

LABELS = ("label", "labels", "class", "target", "fine_label")
"""Columns that are taken for labels without being named."""
LARGEST = 1 << 28
"""Bytes of one picture's file."""


@dataclass(frozen=True)
class Config(SplitConfig):
    """Which columns hold what, and what pictures become."""

    variant: str = option("", "the saved folder, as in --data hf:FOLDER; the same as --data-dir", place=True)
    column: str = option("", "column of the items; default: the only one of pictures or arrays, else all numbers")
    label_column: str = option("", f"column of the label; default: {', '.join(LABELS)}, where there is one")
    factors: tuple[str, ...] = option((), "columns of known factors, numbers, words or classes, comma-separated")
    size: int = option(64, "height and width of pictures in pixels", min=4, max=1024)
    channels: Literal[1, 3] = option(3, "of pictures: 1 grey, 3 colour")
    fit: Fitting = option("crop", "pictures of another shape are cut to the middle, padded, or stretched")


class Saved(HeldItems[Config]):
    """Items of a saved data set; with --factors, `SavedWithFactors`."""

    reads = "a folder that Hugging Face's datasets wrote with save_to_disk"

    def __new__(cls, config: Config, device: torch.device, files: Files) -> Saved:
        """An instance that has factors, where columns are named for them."""
        return super().__new__(SavedWithFactors if config.factors else cls)

    @contextlib.contextmanager
    def held(self, files: Files) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        if not files.required and not self.config.variant:
            raise UsageError("data set 'hf' needs a saved folder: --data hf:FOLDER, or add --data-dir FOLDER.")
        root = expanded(self.config.variant) if self.config.variant else files.folders[0]
        if not root.is_dir():
            raise UsageError(f"'{root}' is no folder; data set 'hf' reads {self.reads}.")
        self.saved = open_saved(root)
        held: dict[str, Any] = {}
        first = next(iter(self.saved.values()))
        for split, part in self.saved.items():
            if part.features != first.features:
                raise DistkError(f"the splits of '{root}' have different columns, first '{split}'.")
        self.roles = _Roles(root, self.config, first.kinds)
        if self.roles.label:
            held["label"] = self._named(self.roles.label)
        if "" not in self.saved:
            held["split"] = np.concatenate(
                [np.full(len(part), SPLITS.get(split.lower(), split)) for split, part in self.saved.items()]
            )
        if self.config.factors:
            values, told = zip(*(self._factor(name) for name in self.config.factors), strict=True)
            held |= {
                "factors": np.stack(values, 1),
                "factor_names": np.array(self.config.factors),
                "factor_kinds": np.array(told),
            }
        if self.roles.spare:
            self.told += (f"columns of '{root}' not read: {', '.join(self.roles.spare)[:200]}",)
        yield root, held

    def _items(self, path: Path, held: Mapping[str, Any]) -> Found:
        names, what = self.roles.items, self.roles.what
        if what == "picture":
            return self._pictures(path, names[0])
        values = self._cells(names)
        if what == "array":
            return self._arrays(path, names[0], values[names[0]])
        x = np.stack([np.asarray(values[name], np.float64) for name in names], 1)
        return _vectors(path, x)

    def _cells(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """The cells of some columns, of all splits one after the other."""
        found: dict[str, list[Any]] = {name: [] for name in names}
        for part in self.saved.values():
            for chunk in rows(part, names):
                for name in names:
                    found[name] += chunk[name]
        for name, cells in found.items():
            empty = next((row for row, cell in enumerate(cells) if cell is None), None)
            if empty is not None:
                raise DistkError(f"row {empty} of column '{name}' is empty.")
        return found

    def _named(self, name: str) -> np.ndarray:
        """A column of classes as their names, of others as it is."""
        cells = self._cells([name])[name]
        if self.roles.kinds[name] != "class":
            return np.array(cells)
        words = named(next(iter(self.saved.values())), name, cells)
        if None in words:
            raise DistkError(f"column '{name}' has rows without a class, the first {words.index(None)}.")
        return np.array(words)

    def _factor(self, name: str) -> tuple[np.ndarray, str]:
        """Values float64 `[n]` of a factor, and its kind: words and classes are categorical, whole numbers ordinal."""
        cells, kind = self._cells([name])[name], self.roles.kinds[name]
        if kind == "word":
            return np.unique(cells, return_inverse=True)[1].astype(np.float64), "categorical"
        values = np.asarray(cells, np.float64)
        if not np.isfinite(values).all():
            raise DistkError(f"column '{name}' has values that are not finite.")
        whole = bool((values == values.round()).all())
        return values, "categorical" if kind == "class" else "ordinal" if whole else "continuous"

    def _pictures(self, root: Path, name: str) -> Found:
        form = Form((self.config.size, self.config.size), self.config.channels, self.config.fit)
        seen, count = Seen(), sum(len(part) for part in self.saved.values())

        def cells() -> Iterator[tuple[IO[bytes], str, int]]:
            at = 0
            for part in self.saved.values():
                for chunk in rows(part, [name]):
                    for cell in chunk[name]:
                        where = f"{root}: row {at} of {name}"
                        yield io.BytesIO(_content(cell, where)), where, 1
                        at += 1

        def fill(images: np.ndarray) -> None:
            with progress("reading pictures", count) as advance:
                for k, picture in read_many(cells(), form, seen):
                    images[k] = picture
                    advance(1)

        paths = sorted(path for path in root.rglob("*") if path.is_file())
        shape = (count, form.channels, *form.size)
        images = of_files(f"hf {root.resolve()} {name} {form}", paths, root, shape, np.uint8, fill)
        return Found(name, "image", tuple(shape[1:]), images, False, told=tuple(seen.told(form)))

    def _arrays(self, root: Path, name: str, cells: list[Any]) -> Found:
        where = f"column '{name}' in '{root}'"
        try:
            x = np.array(cells)
        except ValueError:
            x = np.empty(0)
        if x.ndim == 2 and x.dtype.kind in "iuf":
            return _vectors(root, x.astype(np.float64))
        if x.ndim not in (3, 4) or x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 255:
            raise DistkError(f"{where} is {x.dtype} {x.shape}; expected rows of one length, or images of 0 to 255.")
        last = x.ndim == 4 and x.shape[-1] in (1, 3)
        sides = x.shape[1:] if x.ndim == 3 else x.shape[1:3] if last else x.shape[2:]
        channels = 1 if x.ndim == 3 else x.shape[-1] if last else x.shape[1]
        if channels not in (1, 2, 3, 4):
            raise DistkError(f"{where} has the shape {x.shape}; images have 1 to 4 channels.")
        return Found(name, "image", (channels, *sides), x.astype(np.uint8), last)


class SavedWithFactors(Saved, HeldFactors[Config]):
    """Items of a saved data set whose factors are columns of it, too."""


class _Roles:
    """Which columns are what. items: of the items, what: they are. label: its column, or "". spare: not read."""

    def __init__(self, root: Path, config: Config, found: dict[str, str]) -> None:
        self.kinds = found
        for name in filter(None, (config.column, config.label_column, *config.factors)):
            if name not in found:
                raise UsageError(f"'{root}' has no column '{name}'.{nearest(name, list(found))}")
        plain = ("class", "word", "number")
        self.label = config.label_column or next((n for n in LABELS if found.get(n) in plain), "")
        for name in (*config.factors, *([self.label] if self.label else [])):
            if found[name] not in plain:
                raise UsageError(f"column '{name}' of '{root}' holds neither numbers, words nor classes.")
        meaning = (self.label, *config.factors)
        self.items = [config.column] if config.column else self._guessed(root, meaning)
        self.what = found[self.items[0]]
        if self.what not in ("picture", "array", "number"):
            raise UsageError(f"column '{self.items[0]}' of '{root}' holds no pictures, arrays or numbers.")
        self.spare = [name for name in found if name not in (*self.items, *meaning)]

    def _guessed(self, root: Path, meaning: Sequence[str]) -> list[str]:
        for kind in ("picture", "array"):
            names = [name for name, held in self.kinds.items() if held == kind]
            if len(names) == 1:
                return names
            if names:
                raise UsageError(f"'{root}' has the columns {', '.join(names)}: name that of the items with --column.")
        names = [name for name, held in self.kinds.items() if held == "number" and name not in meaning]
        if names:
            return names
        told = ", ".join(self.kinds)[:200]
        hint = "; sentences are read with --data text-table" if "word" in self.kinds.values() else ""
        raise UsageError(f"'{root}' has no pictures, arrays or numbers among its columns {told}{hint}.")


def _content(cell: Any, where: str) -> bytes:
    if not cell:
        raise DistkError(f"'{where}' lies in another file, or is empty; save the data set with its pictures inside.")
    if len(cell) > LARGEST:
        raise DistkError(f"'{where}' has {counted(len(cell), 'byte')}; at most {LARGEST:,} are read.")
    return bytes(cell)


def _vectors(root: Path, x: np.ndarray) -> Found:
    if not np.isfinite(x).all() or np.abs(x).max() > float(np.finfo(np.float32).max):
        raise DistkError(f"'{root}' has values that are not finite, or that 32 bits cannot hold.")
    low, high = float(x.min()), float(x.max())
    return Found(
        "numbers", "vector", tuple(x.shape[1:]), x.astype(np.float32), False, (low, high if high > low else low + 1)
    )
