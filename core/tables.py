"""Tables of others, CSV, TSV or Parquet: the names of the columns, then their cells, some rows at a time.

The first line of a text file names the columns, unless it holds numbers alone. Parquet needs `pip install
'distk[tables]'`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from distk.errors import DistkError, UsageError
from distk.tree import Entry

SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
CHUNK = 4096
"""Rows that are read together."""
WIDEST = 1 << 16
"""Columns that are believed."""
LONGEST = 1 << 20
"""Characters of one cell that are believed."""

Chunk = tuple[list[str], list[Any]]


class TableFile:
    """One table. where: its name, for messages. told: what is to be said of it, once the first chunk was read."""

    def __init__(self, entry: Entry, where: str) -> None:
        self.entry, self.where = entry, where
        self.told: list[str] = []

    def chunks(self) -> Iterator[Chunk]:
        """The names of the columns and, chunk by chunk, a sequence of cells for each: words, or of Parquet values.

        Raises DistkError naming a row with another number of cells, and for a damaged file; UsageError without pyarrow.
        """
        return self._parquet() if self.entry.suffix == ".parquet" else self._text()

    def _text(self) -> Iterator[Chunk]:
        with self.entry.open() as raw, _as_text(raw) as text:
            try:
                head = text.read(1 << 16)
                text.seek(0)
                first = head.partition("\n")[0]
                mark = "\t" if self.entry.suffix == ".tsv" else max(",;\t", key=first.count)
                csv.field_size_limit(LONGEST)
                rows = csv.reader(text, delimiter=mark, strict=True)
                names = [cell.strip() for cell in next(rows, [])]
                start: list[list[str]] = []
                if not 0 < len(names) <= WIDEST:
                    raise DistkError(f"'{self.where}' has no columns.")
                if all(map(is_number, names)):
                    start, names = [names], [f"c{i + 1}" for i in range(len(names))]
                    self.told.append(f"'{self.where}' names no columns: they are c1 to c{len(names)}")
                yield from self._chunks(itertools.chain(start, rows), names)
            except (csv.Error, UnicodeDecodeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise DistkError(f"'{self.where}' cannot be read as a table: {reason}.") from error

    def _chunks(self, rows: Iterator[list[str]], names: list[str]) -> Iterator[Chunk]:
        line = 1
        while chunk := list(itertools.islice(rows, CHUNK)):
            sound = [row for row in chunk if row]
            wrong = next((row for row in sound if len(row) != len(names)), None)
            if wrong is not None:
                at = line + chunk.index(wrong)
                raise DistkError(f"row {at} of '{self.where}' has {len(wrong)} cells, its first line {len(names)}.")
            line += len(chunk)
            if sound:
                yield names, list(zip(*sound, strict=True))
        if line == 1:
            raise DistkError(f"'{self.where}' has no rows.")

    def _parquet(self) -> Iterator[Chunk]:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            hint = "pip install 'distk[tables]'"
            raise UsageError(f"reading '{self.where}' needs the package pyarrow: {hint}.") from None
        with self.entry.open() as raw:
            try:
                file = parquet.ParquetFile(raw)
                for batch in file.iter_batches(CHUNK):
                    yield list(batch.schema.names), [column.to_pylist() for column in batch.columns]
            except Exception as error:  # damaged files raise a family of their own
                reason = " ".join(str(error).split())[:200]
                raise DistkError(f"'{self.where}' cannot be read as Parquet: {reason}.") from error


@contextlib.contextmanager
def _as_text(raw: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    try:
        yield text
    finally:
        text.detach()


def floats(cells: Any) -> np.ndarray:
    """float64 `[n]`, NaN where a cell is no number."""
    try:
        return np.asarray(cells, np.float64)
    except (ValueError, TypeError):
        return np.array([float(cell) if is_number(cell) else np.nan for cell in cells])


def is_number(cell: Any) -> bool:
    """Whether a cell can be read as a number."""
    try:
        float(cell)
    except (ValueError, TypeError):
        return False
    return True


def mostly_numbers(cells: Any) -> bool:
    """Whether more than half of the cells are numbers."""
    return bool(np.isfinite(floats(cells)).mean() > 0.5)
