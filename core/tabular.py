"""Tables in CSV, TSV and Parquet files of strangers, chunk by chunk: names of columns and cells, nothing else.

The first line of a text names the columns, unless it holds numbers alone. Parquet needs `pip install 'distk[tables]'`.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import itertools
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from distk.apart import apart
from distk.console import counted
from distk.errors import DistkError, UsageError
from distk.tree import Entry

SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
CHUNK = 4096
"""Rows that are read together."""
WIDEST = 1 << 16
"""Columns that are believed."""
LONGEST = 1 << 20
"""Characters of one cell that are believed."""
LARGEST = 1 << 31
"""Bytes of a Parquet file that are read."""


def chunks(entry: Entry, where: str, told: list[str]) -> Iterator[tuple[list[str], list[Any]]]:
    """The names of the columns and their cells, text or plain values, chunk by chunk.

    where: the file, for messages. told: takes a sentence where the columns have no names.
    Raises DistkError for what cannot be read as a table, UsageError where a package is missing.
    """
    return _parquet(entry, where) if entry.suffix == ".parquet" else _text(entry, where, told)


def _text(entry: Entry, where: str, told: list[str]) -> Iterator[tuple[list[str], list[Any]]]:
    with entry.open() as raw, _as_text(raw) as text:
        try:
            head = text.read(1 << 16)
            text.seek(0)
            first = head.partition("\n")[0]
            mark = "\t" if entry.suffix == ".tsv" else max(",;\t", key=first.count)
            csv.field_size_limit(LONGEST)
            rows = csv.reader(text, delimiter=mark, strict=True)
            names = [cell.strip() for cell in next(rows, [])]
            start: list[list[str]] = []
            if not 0 < len(names) <= WIDEST:
                raise DistkError(f"'{where}' has no columns.")
            if all(map(is_number, names)):
                start, names = [names], [f"c{i + 1}" for i in range(len(names))]
                told.append(f"'{where}' names no columns: they are c1 to c{len(names)}")
            yield from _of_rows(itertools.chain(start, rows), names, where)
        except (csv.Error, UnicodeDecodeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DistkError(f"'{where}' cannot be read as a table: {reason}.") from error


def _of_rows(rows: Iterator[list[str]], names: list[str], where: str) -> Iterator[tuple[list[str], list[Any]]]:
    line = 1
    while chunk := list(itertools.islice(rows, CHUNK)):
        sound = [row for row in chunk if row]
        wrong = next((row for row in sound if len(row) != len(names)), None)
        if wrong is not None:
            at = line + chunk.index(wrong)
            raise DistkError(f"row {at} of '{where}' has {counted(len(wrong), 'cell')}, its first line {len(names)}.")
        line += len(chunk)
        if sound:
            yield names, list(zip(*sound, strict=True))
    if line == 1:
        raise DistkError(f"'{where}' has no rows.")


def _parquet(entry: Entry, where: str) -> Iterator[tuple[list[str], list[Any]]]:
    """The names of the columns and, chunk by chunk, their cells; another process reads them."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"reading '{where}' needs the package pyarrow: pip install 'distk[tables]'.")
    with entry.open() as raw:
        content = raw.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DistkError(f"'{where}' has more than {LARGEST:,} bytes, which are not read as Parquet.")
    for told, numbers in apart("distk.parquet:rows", where, content, most=CHUNK):
        arrays = iter(numbers)
        yield told["names"], [next(arrays) if cells is None else cells for cells in told["cells"]]


@contextlib.contextmanager
def _as_text(raw: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    try:
        yield text
    finally:
        text.detach()


def factor_values(cells: np.ndarray) -> tuple[np.ndarray, str]:
    """Values float64 `[n]` of a factor, and its kind: words are categorical, whole numbers ordinal."""
    values = floats(cells)
    if not np.isfinite(values).all():
        return np.unique(cells.astype(str), return_inverse=True)[1].astype(np.float64), "categorical"
    return values, "ordinal" if (values == values.round()).all() else "continuous"


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
    """Whether more than half of the cells are finite numbers."""
    return bool(np.isfinite(floats(cells)).mean() > 0.5)
