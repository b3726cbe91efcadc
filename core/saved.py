"""Data sets that the package `datasets` of Hugging Face saved to a folder (`save_to_disk`), read without a network.

Such a folder is `dataset_dict.json` with a folder for each split, or one split: `state.json`, `dataset_info.json` and
files of Arrow. They are read as they lie; nothing is downloaded, and no program of theirs is run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distk.errors import DistkError, UsageError
from distk.files import read_bytes

DICT, STATE = "dataset_dict.json", "state.json"
LARGEST = 1 << 24
"""Bytes of a file of words about a data set."""
AT_ONCE = 256
"""Rows that are read together."""


def is_saved(root: Path) -> bool:
    """Whether a folder holds a saved data set."""
    return (root / DICT).is_file() or (root / STATE).is_file()


def open_saved(root: Path) -> dict[str, Any]:
    """Split -> `datasets.Dataset`; "" for a data set without splits.

    Raises UsageError without the package or where there is no saved data set; DistkError for one that is damaged, or
    names files elsewhere.
    """
    if not is_saved(root):
        raise UsageError(f"'{root}' holds no saved data set ({DICT} or {STATE}, as save_to_disk writes them).")
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(f"reading '{root}' needs the package datasets: pip install 'distk[hf]'.")
    import datasets

    splits = _plain(root / DICT, "splits") if (root / DICT).is_file() else [""]
    found = {}
    for split in splits:
        folder = root / split
        _plain(folder / STATE, "_data_files")
        try:
            found[split] = datasets.Dataset.load_from_disk(str(folder)).with_format(None)
            found[split].data.table.validate(full=True)
        except Exception as error:  # Arrow's errors of damaged files are many
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DistkError(f"'{folder}' cannot be read as a saved data set: {reason}.") from error
    if not found or not all(len(part) for part in found.values()):
        raise DistkError(f"'{root}' holds a split without rows.")
    return found


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


def rows(part: Any, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """The cells of some columns, some rows at a time, pictures as the bytes of their files."""
    import datasets

    kept = part.select_columns(list(columns))
    for name in columns:
        if isinstance(part.features[name], datasets.Image):
            kept = kept.cast_column(name, datasets.Image(decode=False))
    for start in range(0, len(kept), AT_ONCE):
        yield kept[start : start + AT_ONCE]


def table(part: Any) -> Iterator[tuple[list[str], list[list[Any]]]]:
    """As `distk.tabular.chunks`: the columns of words, numbers and classes, the latter by their names."""
    found = kinds(part)
    names = [name for name, kind in found.items() if kind in ("word", "number", "class")]
    for chunk in rows(part, names):
        yield (
            names,
            [
                [part.features[name].int2str(cell) if cell is not None and cell >= 0 else None for cell in chunk[name]]
                if found[name] == "class"
                else chunk[name]
                for name in names
            ],
        )


def kinds(part: Any) -> dict[str, str]:
    """What each column holds: picture, class, word, number, array, or other."""
    import datasets

    def kind(feature: Any) -> str:
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
        return "array" if isinstance(inner, datasets.Value) and kind(inner) == "number" else "other"

    return {str(name): kind(feature) for name, feature in part.features.items()}
