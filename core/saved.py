"""Data sets that the package `datasets` of Hugging Face saved to a folder (`save_to_disk`), read without a network.

Such a folder is `dataset_dict.json` with a folder for each split, or one split: `state.json`, `dataset_info.json` and
files of Arrow. They are read as they lie, by another process (`apart`); nothing is downloaded, and no program of theirs
is run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distk.apart import apart, only
from distk.errors import DistkError, UsageError
from distk.files import read_bytes

DICT, STATE = "dataset_dict.json", "state.json"
LARGEST = 1 << 24
"""Bytes of a file of words about a data set."""
KINDS = ("picture", "class", "word", "number", "array", "other")


@dataclass(frozen=True)
class Part:
    """A split: its folder, rows, what each column holds (one of KINDS), the names of classes, all features in words."""

    folder: Path
    rows: int
    kinds: dict[str, str]
    classes: dict[str, list[str]]
    features: str

    def __len__(self) -> int:
        return self.rows


def is_saved(root: Path) -> bool:
    """Whether a folder holds a saved data set."""
    return (root / DICT).is_file() or (root / STATE).is_file()


def open_saved(root: Path) -> dict[str, Part]:
    """The splits by name; "" for a data set without splits.

    Raises UsageError without the package or where there is no saved data set; DistkError for one that is damaged, or
    names files elsewhere.
    """
    if not is_saved(root):
        raise UsageError(f"'{root}' holds no saved data set ({DICT} or {STATE}, as save_to_disk writes them).")
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(f"reading '{root}' needs the package datasets: pip install 'distk[hf]'.")
    splits = _plain(root / DICT, "splits") if (root / DICT).is_file() else [""]
    found = {}
    for split in splits:
        folder = root / split
        _plain(folder / STATE, "_data_files")
        told, _ = only("distk.saved_here:describe", str(folder))
        found[split] = _part(folder, told)
    if not found or not all(len(part) for part in found.values()):
        raise DistkError(f"'{root}' holds a split without rows.")
    return found


def _part(folder: Path, told: dict[str, Any]) -> Part:
    """What the other process says of a split, held against what it must be."""
    try:
        kinds = {str(name): str(kind) for name, kind in told["kinds"].items()}
        classes = {str(name): [str(word) for word in words] for name, words in told["classes"].items()}
        part = Part(folder, int(told["rows"]), kinds, classes, str(told["features"]))
        if set(kinds.values()) <= set(KINDS) and all(name in classes for name, k in kinds.items() if k == "class"):
            return part
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise DistkError(f"'{folder}' is damaged: its reader says nothing of use about it.")


def _plain(path: Path, key: str) -> list[str]:
    """The names under a key of a file of words, each of them a plain file or folder beside it."""
    try:
        held = json.loads(read_bytes(path, LARGEST))[key]
        names = [name["filename"] if isinstance(name, dict) else name for name in held]
        if not all(isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name for name in names):
            raise DistkError(f"'{path}' names files elsewhere, which are not read.")
    except DistkError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DistkError(f"'{path}' is damaged or missing: it does not say where the rows lie.") from error
    return names


def rows(part: Part, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """The cells of some columns, some rows at a time, pictures as the bytes of their files, or None."""
    for told, arrays in apart("distk.saved_here:cells", str(part.folder), columns=list(columns)):
        coming = iter(arrays)
        try:
            chunk = {name: _cells(told["columns"][name], coming) for name in columns}
            sound = len({len(cells) for cells in chunk.values()}) <= 1
        except (KeyError, TypeError, StopIteration, ValueError, AttributeError):
            sound = False
        if not sound:
            raise DistkError(f"'{part.folder}' is damaged: its reader gives columns of several lengths.")
        yield chunk


def _cells(told: dict[str, Any], arrays: Iterator[np.ndarray]) -> list[Any]:
    if told["form"] == "words":
        return list(told["cells"])
    if told["form"] == "numbers":
        array = next(arrays)
        return array.tolist() if array.ndim == 1 else list(array)
    content, sizes = next(arrays).tobytes(), next(arrays)
    ends = np.maximum(sizes, 0).cumsum()
    if len(ends) and ends[-1] != len(content):
        raise ValueError("bytes of pictures")
    return [
        None if size < 0 else content[end - size : end] for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)
    ]


def table(part: Part) -> Iterator[tuple[list[str], list[list[Any]]]]:
    """As `distk.tabular.chunks`: the columns of words, numbers and classes, the latter by their names."""
    names = [name for name, kind in part.kinds.items() if kind in ("word", "number", "class")]
    for chunk in rows(part, names):
        yield names, [named(part, name, chunk[name]) if name in part.classes else chunk[name] for name in names]


def named(part: Part, name: str, cells: Sequence[Any]) -> list[str | None]:
    """The names of the classes of a column's cells; None where a cell has none (-1, or nothing)."""
    words = part.classes[name]
    return [words[cell] if isinstance(cell, int) and 0 <= cell < len(words) else None for cell in cells]
