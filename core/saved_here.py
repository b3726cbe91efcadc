"""A saved data set of Hugging Face's, in the process that calls: `saved` has another one do it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from distk.apart import Answer
from distk.errors import DistkError
from distk.files import read_bytes

STATE = "state.json"
LARGEST = 1 << 24
"""Bytes of a file of words about a data set."""
AT_ONCE = 256
"""Rows that are told together."""
PICTURES = 1 << 25
"""Bytes of pictures that are told together, unless one alone has more."""


def describe(content: bytes, where: str) -> Iterator[Answer]:
    """What the split in the folder `where` holds: kinds and names of classes by column, its rows, its features."""
    with _told(where):
        parts = [part for _, part in _files(Path(where))]
        features = parts[0].features
        classes = {name: f.names for name, f in features.items() if isinstance(f, datasets.ClassLabel)}
        kinds = {str(name): _kind(feature) for name, feature in features.items()}
        yield {"rows": sum(map(len, parts)), "kinds": kinds, "classes": classes, "features": repr(features)}, []


def cells(content: bytes, where: str, columns: Sequence[str]) -> Iterator[Answer]:
    """The cells of some columns, some rows at a time. Of each column `form` says how: `words` in `cells`; `numbers`,
    one array; `pictures`, the bytes of all files and how many are of each, -1 where there are none."""
    with _told(where):
        for _, part in _files(Path(where)):
            kept = part.select_columns(list(columns))
            for name in columns:
                if isinstance(part.features[name], datasets.Image):
                    kept = kept.cast_column(name, datasets.Image(decode=False))
            start, size = 0, AT_ONCE
            while start < len(kept):
                chunk = kept[start : start + size]
                found = {name: _held(chunk[name], part.features[name]) for name in columns}
                if size > 1 and sum(array.nbytes for _, _, arrays in found.values() for array in arrays) > PICTURES:
                    size //= 4
                    continue
                start += size
                told = {name: {"form": form, "cells": words} for name, (form, words, _) in found.items()}
                yield {"columns": told}, [array for _, _, arrays in found.values() for array in arrays]


def _files(folder: Path) -> Iterator[tuple[Path, Any]]:
    """The files of a split, one open at a time: what is mapped takes address space, of which there is little."""
    info = datasets.DatasetInfo.from_directory(str(folder))
    for held in json.loads(read_bytes(folder / STATE, LARGEST))["_data_files"]:
        part = datasets.Dataset.from_file(str(folder / held["filename"]), info=info.copy()).with_format(None)
        part.data.table.validate(full=True)
        yield folder / held["filename"], part


def _held(cells: list[Any], feature: Any) -> tuple[str, list[Any], list[np.ndarray]]:
    if isinstance(feature, datasets.Image):
        files = [cell.get("bytes") if isinstance(cell, dict) else None for cell in cells]
        sizes = np.array([-1 if file is None else len(file) for file in files], np.int64)
        return "pictures", [], [np.frombuffer(b"".join(file or b"" for file in files), np.uint8), sizes]
    if _kind(feature) in ("number", "class", "array") and not any(cell is None for cell in cells):
        try:
            array = np.array(cells)
        except (ValueError, OverflowError):  # rows of several lengths
            array = np.empty(0, object)
        if array.dtype.kind in "buif":
            return "numbers", [], [array]
    plain = (bool, int, float, str, list, type(None))
    return "words", [cell if isinstance(cell, plain) else str(cell) for cell in cells], []


def _kind(feature: Any) -> str:
    """picture, class, word, number, array or other."""
    if isinstance(feature, datasets.Image):
        return "picture"
    if isinstance(feature, datasets.ClassLabel):
        return "class"
    if isinstance(feature, datasets.Value):
        if feature.dtype in ("string", "large_string"):
            return "word"
        return "number" if feature.dtype.startswith(("int", "uint", "float", "bool")) else "other"
    if isinstance(feature, (datasets.Array2D, datasets.Array3D, datasets.Array4D)):
        return "array"
    inner = getattr(feature, "feature", None)
    return "array" if isinstance(inner, datasets.Value) and _kind(inner) == "number" else "other"


@contextmanager
def _told(where: str) -> Iterator[None]:
    """One sentence for whatever Arrow and the package raise over damaged files, which is many."""
    try:
        yield
    except (DistkError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{where}' cannot be read as a saved data set: {reason}.") from error
