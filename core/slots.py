"""Slots and objects of pixels in a file of codes: for models that part a picture into objects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from distk.console import counted
from distk.errors import DistkError

MOST_SLOTS = 1 << 12


def pixels(where: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """`slots` int64 [n, height, width] (the slot of each pixel) or float64 [n, S, height, width] (weights, of which the
    largest counts), and `objects` int64 [n, height, width]; empty without them. Raises DistkError for one alone, other
    shapes or other values."""
    if "slots" not in arrays and "objects" not in arrays:
        return {}
    if "slots" not in arrays or "objects" not in arrays:
        raise DistkError(f"{where}: 'slots' and 'objects' go together.")
    slots, objects = arrays["slots"], arrays["objects"]
    weights = slots.ndim == objects.ndim + 1
    shape = (*slots.shape[:1], *slots.shape[2:]) if weights else slots.shape
    if objects.ndim < 2 or shape != objects.shape or 0 in slots.shape:
        told = f"'slots' in {where} is {slots.shape} and 'objects' {objects.shape}"
        raise DistkError(f"{told}; expected [n, height, width], slots also [n, S, height, width].")
    for name, array in (("slots", slots), ("objects", objects)):
        whole = name == "objects" or not weights
        sound = array.dtype.kind in "fiub" and bool(np.isfinite(array).all())
        if not sound or (whole and (bool((array < 0).any()) or bool((array != np.round(array)).any()))):
            what = "whole numbers from 0" if whole else "finite numbers"
            raise DistkError(f"'{name}' in {where} must hold {what}.")
    kind = np.float64 if weights else np.int64
    return {"slots": torch.from_numpy(slots.astype(kind)), "objects": torch.from_numpy(objects.astype(np.int64))}


def shares(slots: Tensor) -> np.ndarray:
    """The share of a picture's pixels in each slot, float64 [n, S]: what stands for codes in a file that has none."""
    taken = slots.argmax(1) if slots.is_floating_point() else slots
    count = slots.shape[1] if slots.is_floating_point() else int(slots.max()) + 1
    if count > MOST_SLOTS:
        raise DistkError(f"'slots' numbers {counted(count, 'slot')}; at most {MOST_SLOTS:,} are read.")
    flat = taken.flatten(1)
    return np.stack([(flat == s).double().mean(1).numpy() for s in range(count)], 1)
