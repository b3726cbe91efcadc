"""table: rows of numbers in a CSV, TSV or Parquet file as vectors, with columns for factors, labels and splits.

The first line names the columns, unless it holds numbers alone. Files `train.csv` and `test.csv` in one folder are
splits. Parquet needs `pip install 'distk[tables]'`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from distk import DistkError, Files, UsageError, option
from distk.console import counted, progress
from distk.errors import nearest
from distk.plugins.datasets.arrays import HeldFactors, HeldItems, SplitConfig
from distk.plugins.datasets.folder import SPLITS
from distk.tabular import SUFFIXES, chunks, factor_values, floats, mostly_numbers
from distk.tree import Entry, opened

LABELS, SPLIT = ("label", "class", "target"), ("split",)
"""Columns that are taken for labels and splits without being named."""
SHOWN = 5


@dataclass(frozen=True)
class Config(SplitConfig):
    """Which columns hold what."""

    columns: tuple[str, ...] = option((), "columns of the vectors; default: all numbers that are nothing else")
    factors: tuple[str, ...] = option((), "columns of known factors, numbers or words, comma-separated")
    label_column: str = option("", f"column of the label; default: {', '.join(LABELS)}, where there is one")
    split_column: str = option("", "column of the split; default: split, where there is one")
    on_bad: Literal["stop", "skip"] = option("stop", "a row with a gap or no number ends the reading, or is left out")


class Table(HeldItems[Config]):
    """Vectors of a table; with --factors, `TableWithFactors`."""

    reads = "a CSV, TSV or Parquet file with a row for each item, or train.csv and test.csv in a folder, zip or tar"

    def __new__(cls, config: Config, device: torch.device, files: Files) -> Table:
        """An instance that has factors, where columns are named for them."""
        return super().__new__(TableWithFactors if config.factors else cls)

    @contextlib.contextmanager
    def held(self, files: Files) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        if not files.required:
            raise UsageError("data set 'table' needs a file: add --data-dir FILE.csv (or .tsv, .parquet).")
        root = files.folders[0]
        with opened(root, SUFFIXES) as tree:
            parts = _parts(root, tree.entries)
            tables = {part: _Rows(self.config, _where(root, entry)).read(entry) for part, entry in parts.items()}
            self.told += tuple(tree.left_out())
        first = next(iter(tables.values()))
        for table in tables.values():
            if table.x_names != first.x_names:
                raise DistkError(f"the tables in '{root}' have different columns.")
        self.told += tuple(dict.fromkeys(itertools.chain.from_iterable(table.told for table in tables.values())))
        yield root, _joined(self.config, tables)


class TableWithFactors(Table, HeldFactors[Config]):
    """Vectors of a table whose factors stand in it, too."""


def _where(root: Path, entry: Entry) -> str:
    return str(root) if root.name == entry.name else str(root / entry.name)


def _parts(root: Path, entries: Sequence[Entry]) -> dict[str, Entry]:
    """The one table as "", or the table of each split. Raises UsageError for none, and for several that are none."""
    if len(entries) == 1:
        return {"": entries[0]}
    named = {SPLITS.get(Path(entry.name).stem.lower(), ""): entry for entry in entries}
    if not entries or "" in named or "train" not in named or len(named) < len(entries):
        found = ", ".join(entry.name for entry in entries[:SHOWN]) or "none"
        raise UsageError(
            f"'{root}' must be or hold one file {', '.join(sorted(SUFFIXES))}, or train.csv and test.csv; "
            f"found {found}."
        )
    return {name: named[name] for name in dict.fromkeys(SPLITS.values()) if name in named}


class _Rows:
    """What is read of one table. x: float64 `[n, D]`; words: the cells of each further column that has a meaning."""

    def __init__(self, config: Config, where: str) -> None:
        self.config, self.where = config, where
        self.told: list[str] = []
        self.x_names: list[str] = []
        self.x = np.empty((0, 0))
        self.words: dict[str, np.ndarray] = {}
        self.bad: list[str] = []

    def read(self, entry: Entry) -> _Rows:
        pieces = chunks(entry, self.where, self.told)
        names, first = next(pieces, ([], []))
        if not names:
            raise DistkError(f"'{self.where}' has no rows.")
        self._roles(names, first)
        words: dict[str, list[np.ndarray]] = {name: [] for name in self.words}
        numbers, at = [], 1
        with progress(f"reading {Path(entry.name).name}", 0) as advance:
            for _, columns in itertools.chain([(names, first)], pieces):
                table = dict(zip(names, columns, strict=True))
                kept, x = self._numbers(table, at)
                numbers.append(x[kept])
                for name in words:
                    words[name].append(np.asarray(table[name])[kept])
                at += len(kept)
                advance(len(kept))
        self.x = np.concatenate(numbers)
        self.words = {name: np.concatenate(held) for name, held in words.items()}
        if self.bad:
            shown = "; ".join(self.bad[:SHOWN])
            self.told.append(f"{counted(len(self.bad), 'row')} of '{self.where}' left out: {shown}")
        if not len(self.x):
            raise DistkError(f"'{self.where}' has no row of numbers.")
        return self

    def _roles(self, names: list[str], first: list[Any]) -> None:
        """Which columns are what, by the settings and by the first rows."""
        if twice := [name for name in names if names.count(name) > 1]:
            raise DistkError(f"'{self.where}' has two columns '{twice[0]}'.")
        config = self.config
        self.label = config.label_column or next((name for name in names if name.lower() in LABELS), "")
        self.split = config.split_column or next((name for name in names if name.lower() in SPLIT), "")
        asked = (*config.columns, *config.factors, *filter(None, (config.label_column, config.split_column)))
        for name in asked:
            if name not in names:
                raise UsageError(f"'{self.where}' has no column '{name}'.{nearest(name, names)}")
        meaning = [name for name in dict.fromkeys((self.label, self.split, *config.factors)) if name]
        self.words = {name: np.empty(0) for name in meaning}
        numeric = [n for n, cells in zip(names, first, strict=True) if mostly_numbers(cells)]
        self.x_names = list(config.columns) or [name for name in numeric if name not in meaning]
        unread = [name for name in names if name not in self.x_names and name not in self.words]
        if not self.x_names:
            raise DistkError(f"'{self.where}' has no column of numbers for the vectors among {', '.join(names)[:200]}.")
        if unread:
            self.told.append(f"columns of '{self.where}' not read: {', '.join(unread)[:200]}")

    def _numbers(self, table: Mapping[str, Any], at: int) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of a chunk are sound, bool `[n]`, and their vectors, float64 `[n, D]`."""
        x = np.stack([floats(table[name]) for name in self.x_names], 1)
        filled = [[cell is not None and str(cell).strip() != "" for cell in table[name]] for name in self.words]
        fits = np.concatenate([np.isfinite(x), np.array(filled, bool).reshape(len(filled), len(x)).T], 1)
        sound = np.asarray(fits.all(axis=1))
        for i in np.flatnonzero(~sound).tolist():
            name = [*self.x_names, *self.words][int(np.flatnonzero(~fits[i])[0])]
            cell = "" if table[name][i] is None else str(table[name][i])[:40]
            what = f"row {at + i} has {repr(cell) if cell.strip() else 'nothing'} in column '{name}'"
            if self.config.on_bad == "stop":
                raise DistkError(f"{what} of '{self.where}': --on-bad skip leaves such rows out.")
            self.bad.append(what)
        return sound, x


def _joined(config: Config, tables: Mapping[str, _Rows]) -> dict[str, Any]:
    """The arrays that `HeldItems` reads."""
    every = list(tables.values())
    x = np.concatenate([table.x for table in every])
    held: dict[str, Any] = {"vectors": x.astype(np.float32) if np.abs(x).max() < 3e38 else x}
    words = {name: np.concatenate([table.words[name] for table in every]) for name in every[0].words}
    if label := every[0].label:
        held["label"] = _whole_or_words(words[label])
    if "" not in tables:
        held["split"] = np.concatenate([np.full(len(table.x), part) for part, table in tables.items()])
    elif split := every[0].split:
        held["split"] = np.array([SPLITS.get(str(word).lower(), str(word)) for word in words[split]])
    if config.factors:
        values, kinds = zip(*(factor_values(words[name]) for name in config.factors), strict=True)
        held |= {
            "factors": np.stack(values, 1),
            "factor_names": np.array(config.factors),
            "factor_kinds": np.array(kinds),
        }
    return held


def _whole_or_words(cells: np.ndarray) -> np.ndarray:
    values = floats(cells)
    return (
        values
        if np.isfinite(values).all() and (values == values.round()).all() and values.min() >= 0
        else cells.astype(str)
    )
