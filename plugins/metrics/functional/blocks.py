"""Tables read in parts: what a score holds beside a table follows the table, and is small beside a large one.

On a processor a part fits into its caches, so that parts cost no time; on a GPU it is large, since many small kernels
would leave it idle.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

LEAST, MOST, GPU = 1 << 14, 1 << 17, 1 << 22
"""Numbers of a part: at least and at most on a processor (128 KiB, 1 MiB of float64), and on any other device."""


def most(x: Tensor) -> int:
    """How many numbers may be held at a time beside a table on this device, however large it is."""
    return MOST if x.device.type == "cpu" else GPU


def room(x: Tensor) -> int:
    """How many numbers of a table, or made of it, may be held at a time: a sixteenth of it on a processor, within the
    bounds above."""
    return min(MOST, max(LEAST, x.numel() // 16)) if x.device.type == "cpu" else GPU


def spans(rows: int, width: int, held: int) -> Iterator[slice]:
    """Slices over so many rows in order, of which each takes `width` of the numbers that may be held."""
    step = max(1, held // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def parts(x: Tensor) -> Iterator[Tensor]:
    """The rows of x [n] or [n, D] in order, some at a time, as `numbers`."""
    return (numbers(x[at]) for at in spans(len(x), x[:1].numel(), room(x)))


def numbers(part: Tensor) -> Tensor:
    """Rows as float64, one after the other in memory: sums are then the same to the last bit whatever the type and the
    order of a table. A view where they are so already."""
    return part.double().contiguous()


def whole_numbers(count: int) -> torch.dtype:
    """The narrowest type that holds 0..count-1, and -1. None of bytes without a sign: those would be taken for a mask
    where they stand as an index."""
    return torch.int8 if count <= 1 << 7 else torch.int16 if count <= 1 << 15 else torch.int32


def row_numbers(count: int) -> torch.dtype:
    """The narrower type that may stand as an index and holds 0..count-1."""
    return torch.int32 if count < 1 << 31 else torch.int64


def mean(x: Tensor) -> Tensor:
    """Means [D] of the columns of x [n, D], float64."""
    total = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
    for part in parts(x):
        total += part.sum(0)
    return total / len(x)


def centred_squares(x: Tensor, around: Tensor) -> Tensor:
    """Sums [D] over the rows of the squared differences of x [n, D] from `around` [D], float64."""
    total = torch.zeros_like(around)
    for part in parts(x):
        total += (part - around).square_().sum(0)
    return total
