"""Sentences out of a table: a CSV, TSV or Parquet file, or a folder that Hugging Face's `datasets` saved, with a column
of text, and one of labels where there is one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distk import DistkError, Files, UsageError, option
from distk.console import counted, progress
from distk.errors import nearest
from distk.plugins.text.common.corpus import SentenceDataset, TextConfig
from distk.plugins.text.common.files import Part, folder_of
from distk.plugins.text.common.splits import completed, described
from distk.saved import is_saved, open_saved
from distk.saved import table as cells_of
from distk.tabular import SUFFIXES, chunks, mostly_numbers
from distk.tree import Entry, opened

TEXTS = ("text", "sentence", "review", "content", "body")
LABELS = ("label", "class", "target", "sentiment", "stars")
"""Columns that are taken for text and labels without being named."""
SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
    "unsup": "unsup",
    "unsupervised": "unsup",
}
MOST = 1 << 16
"""Different labels that are believed."""
SHOWN = 5


@dataclass(frozen=True)
class TableConfig(TextConfig):
    """Which columns hold what."""

    text_column: str = option("", f"column of the sentences; default: {', '.join(TEXTS)}, or the only one of words")
    label_column: str = option("", f"column of the label; default: {', '.join(LABELS)}, where there is one")
    split_column: str = option("", "column of the split; default: split, where there is one")


class TextTable(SentenceDataset[TableConfig]):
    """A sentence a row; rows without text are left out and counted. Labels are the different cells of their column.

    Rows without a label are the split `unsup`. `train.csv`, `dev.csv` and `test.csv` in a folder or archive are splits.
    """

    reads = (
        "a CSV, TSV or Parquet file with a row for each sentence, or train.csv and test.csv in a folder, zip or tar, "
        "or a folder of Hugging Face's save_to_disk"
    )

    def read(self, files: Files) -> tuple[dict[str, Part], tuple[str, ...], str]:
        root = folder_of(files, "train.csv")
        if not files.required:
            raise UsageError("data set 'text-table' needs a file: add --data-dir FILE.csv (or .tsv, .parquet).")
        tables = self._saved(root) if root.is_dir() and is_saved(root) else self._of_files(root)
        self.told += tuple(dict.fromkeys(itertools.chain.from_iterable(table.told for table in tables.values())))
        labels = sorted({label for table in tables.values() for label in table.labels if label}, key=_in_order)
        if len(labels) > MOST:
            column = next(iter(tables.values())).label
            raise DistkError(
                f"column '{column}' of '{root}' has {counted(len(labels), 'different label')}; name another one."
            )
        number = {label: k for k, label in enumerate(labels)}
        parts: dict[str, Part] = {}
        for split, table in tables.items():
            table.sort_into(parts, split, number)
        if not parts:
            raise DistkError(f"'{root}' has no row with text.")
        parts, remark = completed(parts, self.model is not None)
        return parts, tuple(labels), f"{described(parts)} from '{root}'{remark}"

    def _of_files(self, root: Path) -> dict[str, _Sentences]:
        found = {}
        with opened(root, SUFFIXES) as tree:
            for split, entry in _parts(root, tree.entries).items():
                where = root if entry.name == root.name else root / entry.name
                told: list[str] = []
                found[split] = _Sentences(self.config, where).take(chunks(entry, str(where), told), told)
        return found

    def _saved(self, root: Path) -> dict[str, _Sentences]:
        """Of a folder that Hugging Face's `datasets` saved."""
        found = {}
        for name, part in open_saved(root).items():
            split = SPLITS.get(name.lower(), "") if name else ""
            if name and not split:
                raise UsageError(f"'{root}' has a split '{name}', not train, dev, validation or test.")
            found[split] = _Sentences(self.config, root / name).take(cells_of(part), [])
        return found


def _in_order(label: str) -> tuple[bool, float, str]:
    """Numbers by their value, before words."""
    number = label.replace(".", "", 1).isdecimal()
    return not number, float(label) if number else 0.0, label


def _parts(root: Path, entries: Sequence[Entry]) -> dict[str, Entry]:
    """The one table as "", or the table of each split. Raises UsageError for none, and for several that are none."""
    if len(entries) == 1:
        return {"": entries[0]}
    named = {SPLITS.get(Path(entry.name).stem.lower(), ""): entry for entry in entries}
    if not entries or "" in named or len(named) < len(entries):
        found = ", ".join(entry.name for entry in entries[:SHOWN]) or "none"
        raise UsageError(
            f"'{root}' must be or hold one file {', '.join(sorted(SUFFIXES))}, or train.csv and test.csv; "
            f"found {found}."
        )
    return {name: named[name] for name in dict.fromkeys(SPLITS.values()) if name in named}


class _Sentences:
    """What is read of one table: `texts`, `labels` and `splits` of its rows, "" where there is none."""

    def __init__(self, config: TableConfig, where: Path) -> None:
        self.config, self.where = config, where
        self.told: list[str] = []
        self.texts: list[str] = []
        self.labels: list[str] = []
        self.splits: list[str] = []
        self.text = self.label = self.split = ""

    def take(self, chunks: Iterator[tuple[list[str], list[Any]]], told: list[str]) -> _Sentences:
        """Read all rows. told: what their file has to say once it is open."""
        empty, first = 0, True
        with progress(f"reading {self.where.name}", 0) as advance:
            for names, columns in chunks:
                if first:
                    self._roles(names, columns)
                    self.told += told
                    first = False
                cells = dict(zip(names, columns, strict=True))
                texts = [_line(cell) for cell in cells[self.text]]
                self.texts += texts
                for name, held in ((self.label, self.labels), (self.split, self.splits)):
                    held += [_line(cell) for cell in cells[name]] if name else [""] * len(texts)
                empty += texts.count("")
                advance(len(texts))
        if empty:
            self.told.append(f"{counted(empty, 'row')} of '{self.where}' without text left out")
        return self

    def _roles(self, names: list[str], first: list[object]) -> None:
        """Which columns are what, by the settings, by their names, and by what the first rows hold."""
        config = self.config
        for name in filter(None, (config.text_column, config.label_column, config.split_column)):
            if name not in names:
                raise UsageError(f"'{self.where}' has no column '{name}'.{nearest(name, names)}")
        low = {name.lower(): name for name in reversed(names)}
        self.label = config.label_column or next((low[name] for name in LABELS if name in low), "")
        self.split = config.split_column or low.get("split", "")
        words = [n for n, cells in zip(names, first, strict=True) if not mostly_numbers(cells)]
        left = [name for name in words if name not in (self.label, self.split)]
        guessed = next((low[name] for name in TEXTS if name in low), left[0] if len(left) == 1 else "")
        self.text = config.text_column or guessed
        if not self.text:
            shown = ", ".join(names)[:200]
            raise UsageError(f"'{self.where}' has the columns {shown}: name that of the sentences with --text-column.")
        if self.text in (self.label, self.split):
            other = "label" if self.text == self.label else "split"
            raise UsageError(f"column '{self.text}' of '{self.where}' cannot be both text and {other}.")
        unread = [name for name in names if name not in (self.text, self.label, self.split)]
        if unread:
            self.told.append(f"columns of '{self.where}' not read: {', '.join(unread)[:200]}")

    def sort_into(self, parts: dict[str, Part], split: str, number: Mapping[str, int]) -> None:
        """Give every row to its split."""
        for text, label, own in zip(self.texts, self.labels, self.splits, strict=True):
            name = split or SPLITS.get(own.lower() or "train", "")
            if not name:
                raise DistkError(
                    f"column '{self.split}' of '{self.where}' names the split '{own[:40]}', not train, dev, test."
                )
            if text:
                name = "unsup" if number and not label else name
                parts.setdefault(name, Part()).add([text], number[label] if label else -1)


def _line(cell: object) -> str:
    """A cell as one line."""
    return "" if cell is None else " ".join(str(cell).split())
