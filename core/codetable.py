"""Codes and factors of any program, as arrays, made into the table that every metric takes.

Words and objects are classes; a factor that numbers the rows is left out by name; rows that lie sorted by a factor are
shuffled, since predictors are fitted on the first rows and tested on the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk.console import counted, note_once
from distk.data import names_of
from distk.errors import DistkError, UsageError, WrongType, nearest, shown_type
from distk.metric import CodeTable
from distk.slots import pixels, shares
from distk.tabular import factor_values

MEMBERS = {
    "codes": "[n, D]",
    "factors": "[n, K]",
    "codes_test": "[m, D]",
    "factors_test": "[m, K]",
    "std": "[n, D]",
    "kl": "[D]",
    "code_names": "[D]",
    "code_kinds": "[D]",
    "factor_names": "[K]",
    "factor_kinds": "[K]",
    "slots": "[n, height, width] or [n, S, height, width]",
    "objects": "[n, height, width]",
}
"""The members of an npz of codes; only `codes` is required, and that not beside `slots`."""
PIXELS = ("slots", "objects")
CODE_KINDS = ("continuous", "ordinal", "categorical")
FACTOR_KINDS = ("categorical", "ordinal", "circular", "continuous")
SORTED = 6.0
"""Standard deviations by which neighbouring rows agree more than they would in a random order, so that they count as
sorted: one in a billion by chance."""
ORDER = 20_260
"""Seed of the order that sorted rows are brought into."""


def table_of(
    members: Mapping[str, Any],
    where: str = "the codes",
    device: torch.device | str = "cpu",
    *,
    columns: Sequence[str] | None = None,
    factors: Sequence[str] | None = None,
) -> CodeTable:
    """A table of arrays, whatever of `MEMBERS` there is; a data frame, or a dict of columns, brings its own names.

    Factors are numbers, or words and objects, which are classes. columns, factors: names of those that are read, in
    this order; None: all, but a factor that has a value for every second row or more is left out. `extra["told"]` says
    what was left out or shuffled. `slots` and `objects` go together (see `distk.slots`); without `codes` the codes are
    the share of the pixels in each slot.
    where: what messages call the source. Raises DistkError for members that do not fit, UsageError for unknown names.
    """
    held = _plain(members)
    parted = pixels(where, held)
    if "codes" not in held and parted:
        held["codes"] = shares(parted["slots"])
    if "codes" not in held:
        raise DistkError(f"{where} must hold a numeric array 'codes' of shape [n, D].")
    codes = numbers(where, held, "codes")
    n, d = codes.shape
    if n < 2:
        raise DistkError(f"{where} holds the codes of one item, of which nothing can be scored.")
    names = _words(where, held, "code_names", d) or [f"c{i + 1}" for i in range(d)]
    kinds = _words(where, held, "code_kinds", d, CODE_KINDS) or ["continuous"] * d
    std = numbers(where, held, "std", (n, d)) if "std" in held else None
    table = CodeTable(codes, names, kinds, std=std, source=where)
    if parted:
        if len(parted["objects"]) != n:
            raise DistkError(f"{where}: 'codes' has {counted(n, 'row')} but 'objects' {len(parted['objects'])}.")
        table.extra |= parted
    if "kl" in held:
        table.kl = numbers(where, held, "kl", (d, 1)).squeeze(1)
    if ("codes_test" in held) != ("factors_test" in held) or ("codes_test" in held and "factors" not in held):
        raise DistkError(f"{where}: 'codes_test' and 'factors_test' go together, beside 'factors'.")
    if "codes_test" in held:
        table.codes_test = numbers(where, held, "codes_test", (None, d))
    if "factors" in held:
        _add_factors(table, held, where)
    elif factors:
        raise UsageError(f"{where} holds no factors, so none can be chosen by name.")
    _choose_codes(table, columns)
    _choose_factors(table, factors)
    _shuffle(table)
    return _moved(table, torch.device(device))


def _plain(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members as numpy arrays; names of a data frame's or dict's columns become members of their own."""
    held: dict[str, Any] = {}
    for name, value in members.items():
        if name not in MEMBERS:
            raise UsageError(f"codes have no part '{name}'.{nearest(str(name), MEMBERS)} Parts: {', '.join(MEMBERS)}.")
        if value is None:
            continue
        kind = {"codes": "code_names", "factors": "factor_names"}.get(name)
        if isinstance(value, Mapping):
            own, value = list(value), _stacked(list(value.values()))
        elif hasattr(value, "columns") and hasattr(value, "to_numpy"):
            own, value = list(value.columns), value.to_numpy()
        else:
            own = None
        if own is not None and kind is not None:
            held.setdefault(kind, np.array([str(word) for word in own]))
        held[name] = _array(name, value)
    return held


def _stacked(columns: Sequence[Any]) -> np.ndarray:
    arrays = [_array("factors", column) for column in columns]
    if len({len(array) for array in arrays if array.ndim}) > 1:
        raise DistkError(f"columns have {names_of([len(array) for array in arrays])} rows, which must be as many each.")
    alike = all(array.dtype.kind in "fiub" for array in arrays)
    return np.stack(arrays if alike else [array.astype(object) for array in arrays], 1)


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        half = value.is_floating_point() and value.element_size() < 4  # numpy does not know all of them
        value = (value.float() if half else value).numpy()
    if isinstance(value, (str, bytes)) or not (hasattr(value, "__array__") or isinstance(value, Iterable)):
        raise WrongType(f"'{name}' is an array or a tensor {MEMBERS[name]}, not {shown_type(value)}.")
    try:
        return np.asarray(value)
    except (ValueError, TypeError):  # rows of different lengths
        raise DistkError(f"'{name}' is no array {MEMBERS[name]}: its rows differ in length.") from None


def _add_factors(table: CodeTable, held: Mapping[str, Any], where: str) -> None:
    """Factors of a table, and those of its test rows: column by column numbers, or classes in alphabetical order."""
    n, train = len(table.codes), _columns(where, held, "factors", len(table.codes))
    k = train.shape[1]
    both = train
    if table.codes_test is not None:
        test = _columns(where, held, "factors_test", len(table.codes_test), k)
        alike = train.dtype == test.dtype
        both = np.concatenate([train, test] if alike else [train.astype(object), test.astype(object)])
    if both.dtype.kind in "fiub":
        values = numbers(where, {"factors": both}, "factors")
        whole = ((values == values.round()) | values.isnan()).all(0)
        kinds = ["ordinal" if bool(w) else "continuous" for w in whole]
    else:
        parts = [_with_gaps(column) for column in both.T]
        values, kinds = torch.from_numpy(np.stack([part for part, _ in parts], 1)), [kind for _, kind in parts]
    table.factors = values[:n]
    if table.codes_test is not None:
        table.factors_test = values[n:]
    table.factor_names = tuple(_words(where, held, "factor_names", k) or [f"f{i + 1}" for i in range(k)])
    table.factor_kinds = tuple(_words(where, held, "factor_kinds", k, FACTOR_KINDS) or kinds)


def _columns(where: str, held: Mapping[str, Any], name: str, rows: int, k: int | None = None) -> np.ndarray:
    """A member as `[rows, K]` of numbers, words or objects."""
    array = held[name][:, None] if held[name].ndim == 1 else held[name]
    fits = array.ndim == 2 and array.shape[0] == rows and array.shape[1] == (k or array.shape[1]) and array.size
    if not fits or array.dtype.kind not in "fiubUSO":
        wanted = f"numbers or words [{rows}, {k or 'any number'}]"
        raise DistkError(f"'{name}' in {where} is {array.dtype} {held[name].shape}; expected {wanted}.")
    return np.asarray(np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array)


def _with_gaps(column: np.ndarray) -> tuple[np.ndarray, str]:
    """Values float64 of cells that are numbers or words, NaN where there is nothing, and the kind of the factor."""
    gaps = np.array(
        [
            cell is None or (isinstance(cell, float) and math.isnan(cell)) or str(cell).strip().lower() in ("", "nan")
            for cell in column
        ]
    )
    values = np.full(len(column), np.nan)
    if gaps.all():
        return values, "categorical"
    values[~gaps], kind = factor_values(column[~gaps])
    return values, kind


def numbers(
    where: str, arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, int | None] = (None, None)
) -> Tensor:
    """A member as finite float64 `[rows, columns]`; a vector counts as one column."""
    array = arrays[name][:, None] if arrays[name].ndim == 1 else arrays[name]
    fits = array.ndim == 2 and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if array.dtype.kind == "O" and fits:  # plain numbers of a data frame
        try:
            array = array.astype(np.float64)
        except (ValueError, TypeError):
            fits = False
    if not fits or array.dtype.kind not in "fiub" or 0 in array.shape:
        wanted = f"[{', '.join('any number' if s is None else str(s) for s in shape)}]"
        raise DistkError(f"'{name}' in {where} is {array.dtype} {arrays[name].shape}; expected numbers {wanted}.")
    values = torch.from_numpy(array.astype(np.float64))
    # A factor that is not known is NaN.
    sound = values.isfinite() | values.isnan() if name.startswith("factors") else values.isfinite()
    if not bool(sound.all()) and name not in ("std", "kl"):
        first = int((~sound).any(0).nonzero()[0, 0])
        raise DistkError(f"column {first} of '{name}' in {where} has values that are not finite.")
    return values


def _words(
    where: str, arrays: Mapping[str, np.ndarray], name: str, count: int, allowed: tuple[str, ...] = ()
) -> list[str]:
    if name not in arrays:
        return []
    found = arrays[name].reshape(-1)
    words = [str(word) for word in found[:count]]  # an array of empty words may claim to have billions
    if len(found) != count or (allowed and not set(words) <= set(allowed)):
        expected = f" out of {', '.join(allowed)}" if allowed else ""
        raise DistkError(
            f"'{name}' in {where} must hold {counted(count, 'word')}{expected}, found {len(found)}: {words[:5]}."
        )
    return words


def _places(asked: Sequence[str], names: Sequence[str], what: str, where: str) -> list[int]:
    """Where the asked names stand. Raises UsageError for one that is not there or was asked for twice."""
    for name in asked:
        if name not in names:
            raise UsageError(f"{where} has no {what} '{name}'.{nearest(name, names)} There are: {', '.join(names)}.")
    if len(set(asked)) < len(asked) or not asked:
        raise UsageError(f"name each {what} of {where} once: {', '.join(names)}.")
    return [list(names).index(name) for name in asked]


def _choose_codes(table: CodeTable, asked: Sequence[str] | None) -> None:
    if asked is None:
        return
    kept = _places(asked, table.names, "code", table.source)
    table.codes, table.names = table.codes[:, kept], [table.names[i] for i in kept]
    table.kinds = [table.kinds[i] for i in kept]
    table.std = table.std[:, kept] if table.std is not None else None
    table.kl = table.kl[kept] if table.kl is not None else None
    table.codes_test = table.codes_test[:, kept] if table.codes_test is not None else None


def _choose_factors(table: CodeTable, asked: Sequence[str] | None) -> None:
    """Keep the asked factors; where none were, leave out what numbers the rows, as far as others remain."""
    if table.factors is None:
        return
    n, sizes = len(table.factors), [len(column[~column.isnan()].unique()) for column in table.factors.T]
    kept = list(range(len(sizes)))
    if asked is not None:
        kept = _places(asked, table.factor_names, "factor", table.source)
    else:
        ids = [i for i in kept if table.factor_kinds[i] != "continuous" and sizes[i] > max(n // 2, 2)]
        if len(ids) < len(kept):
            kept = [i for i in kept if i not in ids]
            for i in ids:
                told = (
                    f"factor '{table.factor_names[i]}' has {counted(sizes[i], 'value')} in {counted(n, 'row')}, as a"
                    " row's number has"
                )
                _tell(table, f"{told}: it is left out; name it with --factors to keep it")
    table.factors = table.factors[:, kept]
    table.factors_test = table.factors_test[:, kept] if table.factors_test is not None else None
    table.factor_names = tuple(table.factor_names[i] for i in kept)
    table.factor_kinds = tuple(table.factor_kinds[i] for i in kept)
    table.factor_sizes = tuple(sizes[i] for i in kept)
    _tell_gaps(table)
    every = table.factors if table.factors_test is None else torch.cat([table.factors, table.factors_test])
    if "continuous" not in table.factor_kinds and bool((every == every.round()).all()):
        table.factors = table.factors.long()
        table.factors_test = table.factors_test.long() if table.factors_test is not None else None


def _tell_gaps(table: CodeTable) -> None:
    """Say of each factor how many rows lack it. Raises UsageError for one that no row has."""
    assert table.factors is not None
    for name, gaps in zip(table.factor_names, table.factors.isnan().sum(0).tolist(), strict=True):
        if gaps == len(table.factors):
            raise UsageError(f"factor '{name}' of {table.source} has no value in any row: leave it out with --factors.")
        if gaps:
            told = f"factor '{name}' has no value in {gaps:,} of {counted(len(table.factors), 'row')}"
            _tell(table, f"{told}: they are left out for it alone, or where factors are looked at together")


def sorted_by(factors: Tensor) -> int | None:
    """The first column of factors `[n, K]` by which the rows lie sorted or in blocks, None in a random order.

    Neighbouring rows are compared: how often they have one value, and how their ranks correlate, each against what a
    random order gives.
    """
    for i, column in enumerate(factors.T):
        column = column[~column.isnan()]
        n = len(column)
        values, index, counts = column.unique(return_inverse=True, return_counts=True)
        if len(values) < 2 or n < 20:
            continue
        share = float((counts.double() / n).square().sum())
        alike = float((index[1:] == index[:-1]).double().mean())
        ranks = index.double() - index.double().mean()
        follows = float((ranks[1:] * ranks[:-1]).sum() / ranks.square().sum())
        spread = math.sqrt(max(share * (1 - share), 1e-12) / (n - 1))
        if (alike - share) / spread > SORTED or follows * math.sqrt(n) > SORTED:
            return i
    return None


def _shuffle(table: CodeTable) -> None:
    """Bring rows that lie sorted by a factor into a random order, the same one every time, and say so; test rows that
    a file has need none."""
    if table.factors is None or table.codes_test is not None or (by := sorted_by(table.factors)) is None:
        return
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(ORDER))
    table.codes, table.factors = table.codes[order], table.factors[order]
    table.std = table.std[order] if table.std is not None else None
    table.extra |= {name: table.extra[name][order] for name in PIXELS if name in table.extra}
    told = f"the rows of {table.source} lie sorted by '{table.factor_names[by]}'"
    _tell(table, f"{told}: they are shuffled before any split")


def _tell(table: CodeTable, sentence: str) -> None:
    """Say what was done to a table, here and in the results."""
    table.extra.setdefault("told", []).append(sentence)
    note_once(sentence)


def _moved(table: CodeTable, device: torch.device) -> CodeTable:
    for name in ("codes", "factors", "std", "kl", "codes_test", "factors_test"):
        if (tensor := getattr(table, name)) is not None:
            setattr(table, name, tensor.to(device))
    table.extra |= {name: table.extra[name].to(device) for name in PIXELS if name in table.extra}
    return table
