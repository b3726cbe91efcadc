"""A file of anybody's codes: npz, or safetensors of `distk embed`, read as a table that every metric takes."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distk.arrays import open_npz
from distk.errors import DistkError
from distk.memory import afford
from distk.metric import CodeTable

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
    "slots": "[n, S, height, width] or [n, height, width]",
    "objects": "[n, height, width]",
}
"""The members of an npz of codes; only `codes` is required, and that not beside `slots`."""
LARGEST = 1 << 28
"""Numbers in a file of codes; each takes eight bytes, several times."""


MOST_SLOTS = 1 << 12
LONGEST_WORDS = 1 << 20
"""Characters that a list of names in the metadata may have."""


def table_from_arrays(path: Path, device: torch.device | str = "cpu") -> CodeTable:
    """A table from an npz with `codes` `[n, D]` and whatever else of `MEMBERS` it holds, or from safetensors where the
    codes may be called `z` and the words stand in the metadata as JSON lists, as `distk embed` writes them.

    `codes_test` and `factors_test` are rows for testing predictors; `std` and `kl` describe a Gaussian posterior;
    `slots` (the slot of each pixel, or weights of S slots, of which the largest counts) and `objects` (the object of
    each pixel, 0 the background) go together; without `codes` they are the share of the pixels in each slot.
    kinds of codes are "continuous", "ordinal" or "categorical" (a column of class indices), those of factors as in
    CodeTable.
    Raises DistkError for a file that is neither, holds pickled members, lacks `codes`, or whose members do not fit.
    """
    arrays = _tensors(path) if path.suffix.lower() == ".safetensors" else _members(path)
    pixels = _pixels(path, arrays)
    if "codes" not in arrays and pixels:
        arrays = {**arrays, "codes": _shares(pixels["slots"])}
    if "codes" not in arrays:
        raise DistkError(f"'{path}' must hold a numeric array 'codes' of shape [n, D].")
    codes = _numbers(path, arrays, "codes")
    n, d = codes.shape
    if n < 2:
        raise DistkError(f"'{path}' holds the codes of one item, of which nothing can be scored.")
    table = CodeTable(codes.to(device), [f"c{i + 1}" for i in range(d)], ["continuous"] * d, source=f"'{path}'")
    table.names = _words(path, arrays, "code_names", d) or table.names
    table.kinds = _words(path, arrays, "code_kinds", d, ("continuous", "ordinal", "categorical")) or table.kinds
    if "std" in arrays:
        table.std = _numbers(path, arrays, "std", (n, d)).to(device)
    if pixels:
        if len(pixels["objects"]) != n:
            raise DistkError(f"'{path}': 'codes' has {n} rows but 'objects' {len(pixels['objects'])}.")
        table.extra |= {name: values.to(device) for name, values in pixels.items()}
    if "kl" in arrays:
        table.kl = _numbers(path, arrays, "kl", (d, 1)).squeeze(1).to(device)
    if "factors" in arrays:
        factors = _numbers(path, arrays, "factors", (n, None))
        k = factors.shape[1]
        whole = (factors == factors.round()).all(0)
        table.factors = (factors.long() if bool(whole.all()) else factors).to(device)
        table.factor_names = tuple(_words(path, arrays, "factor_names", k) or [f"f{i + 1}" for i in range(k)])
        table.factor_sizes = tuple(len(column.unique()) for column in factors.T)
        kinds = ("categorical", "ordinal", "circular", "continuous")
        inferred = ["ordinal" if w else "continuous" for w in whole.tolist()]
        table.factor_kinds = tuple(_words(path, arrays, "factor_kinds", k, kinds) or inferred)
    if ("codes_test" in arrays) != ("factors_test" in arrays) or ("codes_test" in arrays and table.factors is None):
        raise DistkError(f"'{path}': 'codes_test' and 'factors_test' go together, beside 'factors'.")
    if "codes_test" in arrays and table.factors is not None:
        table.codes_test = _numbers(path, arrays, "codes_test", (None, d)).to(device)
        truth = _numbers(path, arrays, "factors_test", (len(table.codes_test), len(table.factor_names)))
        table.factors_test = truth.to(table.factors.dtype if bool((truth == truth.round()).all()) else truth.dtype)
        table.factors_test = table.factors_test.to(device)
    return table


def _members(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DistkError(f"file of codes '{path}' does not exist.")
    if not zipfile.is_zipfile(path):
        raise DistkError(f"'{path}' is not an npz file; write one with numpy.savez(path, codes=..., factors=...).")
    with open_npz(path) as file:
        if "codes" not in file.names and "slots" not in file.names:
            strange = [name for name in file.names if name not in MEMBERS]
            if strange:
                raise DistkError(f"'{path}' holds no 'codes' but '{strange[0]}'; members: {', '.join(MEMBERS)}.")
        held = [name for name in file.names if name in MEMBERS]
        count = sum(math.prod(file.header(name)[0]) for name in held)
        if count > LARGEST:
            raise DistkError(f"'{path}' holds {count:,} numbers when unpacked; at most {LARGEST:,} are read.")
        afford(4 * 8 * count, f"'{path}', {count:,} numbers when unpacked,")
        return {name: file.read(name) for name in held}


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """The members of a safetensors file; words come from its metadata."""
    if not path.is_file():
        raise DistkError(f"file of codes '{path}' does not exist.")
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
    if "codes" not in found and "slots" not in found:
        raise DistkError(f"'{path}' holds no 'codes' and no 'z'; members: {', '.join(MEMBERS)}.")
    return found


def _pixels(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """`slots` float64 or int64 [n, (S,) height, width] and `objects` int64 [n, height, width]; empty without them."""
    if "slots" not in arrays and "objects" not in arrays:
        return {}
    if "slots" not in arrays or "objects" not in arrays:
        raise DistkError(f"'{path}': 'slots' and 'objects' go together.")
    slots, objects = arrays["slots"], arrays["objects"]
    weights = slots.ndim == objects.ndim + 1
    shape = (*slots.shape[:1], *slots.shape[2:]) if weights else slots.shape
    if objects.ndim < 2 or shape != objects.shape or 0 in slots.shape:
        told = f"'slots' in '{path}' is {slots.shape} and 'objects' {objects.shape}"
        raise DistkError(f"{told}; expected [n, height, width], slots also [n, S, height, width].")
    for name, array in (("slots", slots), ("objects", objects)):
        whole = name == "objects" or not weights
        sound = array.dtype.kind in "fiub" and bool(np.isfinite(array).all())
        if not sound or (whole and (bool((array < 0).any()) or bool((array != np.round(array)).any()))):
            what = "whole numbers from 0" if whole else "finite numbers"
            raise DistkError(f"'{name}' in '{path}' must hold {what}.")
    kind = np.float64 if weights else np.int64
    return {"slots": torch.from_numpy(slots.astype(kind)), "objects": torch.from_numpy(objects.astype(np.int64))}


def _shares(slots: Tensor) -> np.ndarray:
    """The share of a picture's pixels in each slot, float64 [n, S]."""
    taken = slots.argmax(1) if slots.is_floating_point() else slots
    count = slots.shape[1] if slots.is_floating_point() else int(slots.max()) + 1
    if count > MOST_SLOTS:
        raise DistkError(f"'slots' numbers {count:,} slots; at most {MOST_SLOTS:,} are read.")
    flat = taken.flatten(1)
    return np.stack([(flat == s).double().mean(1).numpy() for s in range(count)], 1)


def _numbers(
    path: Path, arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, int | None] = (None, None)
) -> Tensor:
    """A member as finite float64 `[rows, columns]`; a vector counts as one column."""
    array = arrays[name][:, None] if arrays[name].ndim == 1 else arrays[name]
    fits = array.ndim == 2 and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "fiub" or 0 in array.shape:
        wanted = f"[{', '.join('any number' if s is None else str(s) for s in shape)}]"
        raise DistkError(f"'{name}' in '{path}' is {array.dtype} {arrays[name].shape}; expected numbers {wanted}.")
    values = torch.from_numpy(array.astype(np.float64))
    if not bool(values.isfinite().all()) and name not in ("std", "kl"):
        first = int((~values.isfinite()).any(0).nonzero()[0, 0])
        raise DistkError(f"column {first} of '{name}' in '{path}' has values that are not finite.")
    return values


def _words(
    path: Path, arrays: Mapping[str, np.ndarray], name: str, count: int, allowed: tuple[str, ...] = ()
) -> list[str]:
    if name not in arrays:
        return []
    found = arrays[name].reshape(-1)
    words = [str(word) for word in found[:count]]  # an array of empty words may claim to have billions
    if len(found) != count or (allowed and not set(words) <= set(allowed)):
        expected = f" out of {', '.join(allowed)}" if allowed else ""
        raise DistkError(f"'{name}' in '{path}' must hold {count} words{expected}, found {len(found)}: {words[:5]}.")
    return words
