"""Files of anybody's codes: npz, npy, CSV, TSV, Parquet, or safetensors of `distk embed`, read as one table."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from distk.arrays import open_npy, open_npz
from distk.codetable import MEMBERS, table_of
from distk.console import counted, note_once
from distk.errors import DistkError, UsageError, nearest
from distk.memory import afford
from distk.metric import CodeTable
from distk.tabular import SUFFIXES as TABLES
from distk.tabular import chunks, floats, mostly_numbers
from distk.tree import opened

LARGEST = 1 << 28
"""Numbers in a file of codes; each takes eight bytes, several times."""
LONGEST_WORDS = 1 << 20
"""Characters that a list of names in the metadata may have."""
SUFFIXES = (".npz", ".npy", ".safetensors", *sorted(TABLES))
"""Files that hold codes."""


def table_from_arrays(
    path: Path,
    device: torch.device | str = "cpu",
    *,
    columns: Sequence[str] | None = None,
    factors: str | Path | Sequence[str] | None = None,
) -> CodeTable:
    """A table of codes from a file, by its suffix: npz with `codes` `[n, D]` and whatever else of `MEMBERS` it holds;
    safetensors, where the codes may be called `z` and words stand in the metadata as JSON lists, as `distk embed`
    writes them; npy with the codes alone; CSV, TSV or Parquet with a row for each item.

    columns: names of the codes that are read. factors: names of the factors that are read, or a file of them (npy, a
    table, or an npz with `factors`). Of a table, columns of words are factors and all others codes, unless it is said.
    `codes_test` and `factors_test` are rows for testing predictors; `std` and `kl` describe a Gaussian posterior;
    kinds of codes are "continuous", "ordinal" or "categorical" (a column of class indices), those of factors as in
    CodeTable.
    Raises DistkError for a file that is none of these, holds pickled members, lacks `codes`, or whose members do not
    fit, and UsageError for names that it does not have.
    """
    beside = factors_file(factors)
    names = None if beside is not None or factors is None else _listed(factors)
    columns = None if columns is None else _listed(columns)
    where, suffix = f"'{path}'", path.suffix.lower()
    if not path.is_file():
        raise DistkError(f"file of codes '{path}' does not exist.")
    held: dict[str, Any]
    if suffix in TABLES:
        held = dict(_of_table(path, columns, names, every=beside is None))
        columns = None
    elif suffix == ".safetensors":
        held = _tensors(path)
    else:
        held = {"codes": _npy(path)} if suffix == ".npy" else _members(path)
    if beside is not None:
        if "codes_test" in held:
            raise UsageError(f"'{path}' has test rows, so its factors cannot come from '{beside}'.")
        held = {name: value for name, value in held.items() if not name.startswith("factor")}
        held |= _factors_of(beside)
    return table_of(held, where, device, columns=columns, factors=names)


def factors_file(factors: str | Path | Sequence[str] | None) -> Path | None:
    """The file that `--factors` names; None where it lists names. Raises DistkError for one that is not there."""
    text = factors[0] if isinstance(factors, (list, tuple)) and len(factors) == 1 else factors
    if isinstance(text, (str, Path)) and Path(text).suffix.lower() in SUFFIXES:
        if not Path(text).is_file():
            raise DistkError(f"file of factors '{text}' does not exist.")
        return Path(text)
    return None


def _listed(names: str | Path | Sequence[str]) -> list[str]:
    """Names in one text between commas, or in several."""
    texts = [str(names)] if isinstance(names, (str, Path)) else [str(name) for name in names]
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _factors_of(path: Path) -> dict[str, Any]:
    """The members of a file of factors alone."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return {"factors": _npy(path)}
    if suffix in TABLES:
        names, columns = _cells(path)
        return {"factors": dict(zip(names, columns, strict=True))}
    held = _tensors(path, "factors") if suffix == ".safetensors" else _members(path, "factors")
    return {name: value for name, value in held.items() if name in ("factors", "factor_names", "factor_kinds")}


def _npy(path: Path) -> np.ndarray:
    array = open_npy(path, "r")
    _few(path, array.size)
    return np.array(array)


def _few(path: Path, count: int) -> None:
    if count > LARGEST:
        raise DistkError(f"'{path}' holds {counted(count, 'number')} when unpacked; at most {LARGEST:,} are read.")
    afford(4 * 8 * count, f"'{path}', {counted(count, 'number')} when unpacked,")


def _members(path: Path, needed: str = "codes") -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise DistkError(
            f"'{path}' is none of {', '.join(SUFFIXES)}; numpy.savez(path, codes=..., factors=...) writes an npz file."
            if path.suffix.lower() != ".npz"
            else f"'{path}' is not an npz file; write one with numpy.savez(path, codes=..., factors=...)."
        )
    with open_npz(path) as file:
        if needed not in file.names and not (needed == "codes" and "slots" in file.names):
            strange = [name for name in file.names if name not in MEMBERS]
            if strange:
                raise DistkError(
                    f"'{path}' holds no '{needed}' but '{strange[0]}'; what is read is called {', '.join(MEMBERS)}."
                )
            raise DistkError(f"'{path}' must hold an array '{needed}' of shape {MEMBERS[needed]}.")
        held = [name for name in file.names if name in MEMBERS]
        _few(path, sum(math.prod(file.header(name)[0]) for name in held))
        return {name: file.read(name) for name in held}


def _tensors(path: Path, needed: str = "codes") -> dict[str, np.ndarray]:
    """The members of a safetensors file; words come from its metadata."""
    found: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():
                if (called := "codes" if name == "z" else name) in MEMBERS:
                    found[called] = file.get_tensor(name)
            for name, text in (file.metadata() or {}).items():
                if name in MEMBERS and name not in found and len(text) <= LONGEST_WORDS:
                    found[name] = np.array([str(word) for word in json.loads(text)])
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise DistkError(f"'{path}' is not a valid safetensors file of codes ({type(error).__name__}).") from error
    if needed not in found and not (needed == "codes" and "slots" in found):
        also = " and no 'z'" if needed == "codes" else ""
        raise DistkError(f"'{path}' holds no '{needed}'{also}; what is read is called {', '.join(MEMBERS)}.")
    return found


def _of_table(
    path: Path, columns: list[str] | None, factors: list[str] | None, every: bool
) -> dict[str, dict[str, np.ndarray]]:
    """Codes and factors of a table's columns, by their names. every: whether columns of words become factors."""
    names, cells = _cells(path)
    held = dict(zip(names, cells, strict=True))
    for name in (*(columns or ()), *(factors or ())):
        if name not in held:
            raise UsageError(f"'{path}' has no column '{name}'.{nearest(name, names)} There are: {', '.join(names)}.")
    if both := [name for name in columns or () if name in (factors or ())]:
        raise UsageError(f"column '{both[0]}' of '{path}' is named both as a code and as a factor.")
    numeric = {name for name in names if bool(np.isfinite(floats(held[name])).all())}
    asked = columns or ()
    if factors is None:
        open_to = [name for name in names if name not in numeric and name not in (columns or ())] if every else []
        # Numbers with a gap are codes, of which every row has one: said below.
        words = [name for name in open_to if not mostly_numbers(held[name])]
        numeric |= set(open_to) - set(words)
        factors = words
        if words:
            note_once(f"columns of words are factors: {', '.join(words)}; --factors names them, and others")
    if columns is None:
        columns = [name for name in names if name in numeric and name not in factors]
        note_once(f"codes: {', '.join(columns)}; --codes-columns names others")
    if wrong := [name for name in columns if not np.isfinite(floats(held[name])).all()]:
        bad = int(np.flatnonzero(~np.isfinite(floats(held[wrong[0]])))[0])
        cell = str(held[wrong[0]][bad])[:40]
        hint = "" if wrong[0] in asked else "; --factors names it as a factor"
        raise DistkError(f"column '{wrong[0]}' of '{path}' has {cell!r} in row {bad + 1}, which is no number{hint}.")
    if not columns:
        raise DistkError(f"'{path}' has no column of numbers for the codes among {', '.join(names)[:200]}.")
    picked = {"codes": {name: floats(held[name]) for name in columns}}
    return {**picked, **({"factors": {name: held[name] for name in factors}} if factors else {})}


def _cells(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """The names of a table's columns, and their cells as arrays of numbers or of objects."""
    told: list[str] = []
    parts: list[list[Any]] = []
    names: list[str] = []
    count = 0
    with opened(path, TABLES) as tree:
        for header, cells in chunks(tree.entries[0], str(path), told):
            names = header
            count += len(cells) * len(cells[0])
            _few(path, count)
            parts.append(cells)
    if twice := [name for name in names if names.count(name) > 1]:
        raise DistkError(f"'{path}' has two columns '{twice[0]}'.")
    if not parts:
        raise DistkError(f"'{path}' has no rows.")
    for sentence in told:
        note_once(sentence)
    columns = [np.array([cell for part in parts for cell in part[i]], object) for i in range(len(names))]
    return names, [floats(column) if np.isfinite(floats(column)).all() else column for column in columns]
