"""Items held against what their data set says of them, before a run and when a loss is no number."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from distk.data import Dataset
from distk.errors import DistkError

LOOKED_AT = 256
"""Items that are looked at before a run, spread evenly over the split that is trained on."""
BYTES = 1 << 26
"""Bytes of items that are looked at together."""
SEARCHED = 200_000
"""Items that are searched for the cause of a loss that is no number."""
SECONDS = 10.0
"""How long that search may take: somebody waits for the message, and items may be drawn when they are asked for."""
SLACK = 1e-5
"""Share of its span by which a value may leave the range, as rounding makes it."""


def check_items(dataset: Dataset) -> None:
    """Raise DistkError for items of another shape than the data set says, that are not finite, or outside its range."""
    if dataset.spec.kind not in ("image", "video", "vector"):
        return
    rows = dataset.rows_of("train")
    count = min(len(rows), LOOKED_AT, _at_once(dataset))
    if not count:
        raise DistkError(f"data set '{dataset.name}' has no items to train on.")
    spread = torch.linspace(0, len(rows) - 1, count, dtype=torch.float64).long().to(rows.device)
    problem = _problem(dataset, rows[spread])
    if problem:
        raise DistkError(f"data set '{dataset.name}' does not hold what it says: {problem}.")


def unsound_item(dataset: Dataset) -> str:
    """The first item that is not finite or outside the range, in words; empty where none is found in time."""
    if dataset.spec.kind not in ("image", "video", "vector"):
        return ""
    until = time.monotonic() + SECONDS
    for rows in torch.arange(min(len(dataset), SEARCHED), device=dataset.device).split(_at_once(dataset)):
        if problem := _problem(dataset, rows):
            return problem
        if time.monotonic() > until:
            break
    return ""


def _at_once(dataset: Dataset) -> int:
    return max(1, BYTES // (4 * math.prod(dataset.spec.shape)))


def _problem(dataset: Dataset, rows: Tensor) -> str:
    x, spec = dataset.batch(rows)["x"], dataset.spec
    if tuple(x.shape) != (len(rows), *spec.shape):
        return f"items have the shape {tuple(x.shape[1:])}, not {tuple(spec.shape)}"
    if not x.is_floating_point():
        return f"items are {x.dtype}, not floats"
    flat = x.flatten(1)
    finite = flat.isfinite().all(1)
    if not bool(finite.all()):
        return f"row {int(rows[finite.long().argmin()])} holds values that are not finite (NaN or infinite)"
    low, high = spec.range
    if spec.kind == "vector":  # their range is no bound
        return ""
    slack = SLACK * (high - low)
    outside = ((flat < low - slack) | (flat > high + slack)).any(1)
    if bool(outside.any()):
        at = int(outside.long().argmax())
        span = f"{float(flat[at].min()):.4g} to {float(flat[at].max()):.4g}"
        return f"row {int(rows[at])} holds values from {span}, outside the range {low:g} to {high:g}"
    return ""
