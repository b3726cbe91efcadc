"""Rows of a Parquet file, in the process that calls: `tabular` has another one do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from distk.apart import Answer
from distk.errors import DistkError

CELLS = 1 << 18
"""Cells that are told at once, roughly."""


def rows(content: bytes, where: str, most: int) -> Iterator[Answer]:
    """At most so many rows at a time: the columns' names, and the cells of each, or None for an array of numbers."""
    try:
        file = parquet.ParquetFile(pa.BufferReader(content), thrift_string_size_limit=1 << 26)
        size = max(1, min(most, CELLS // max(1, file.metadata.num_columns)))
        for batch in file.iter_batches(size, use_threads=False):
            cells = [_cells(column) for column in batch.columns]
            numbers = [column for column in cells if not isinstance(column, list)]
            told = [column if isinstance(column, list) else None for column in cells]
            yield {"names": [str(name) for name in batch.schema.names], "cells": told}, numbers
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise a family of their own
        reason = " ".join(str(error).split())[:200]
        raise DistkError(f"'{where}' cannot be read as Parquet: {reason}.") from error


def _cells(column: Any) -> Any:
    """An array of numbers, or else a list of numbers, words and None."""
    if column.null_count == 0 and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return column.to_numpy()
    plain = (bool, int, float, str, type(None))
    return [cell if isinstance(cell, plain) else str(cell)[:CELLS] for cell in column.to_pylist()]
