"""Items that lie on the device, or on the host where they do not fit, and the rows that each training step takes.

Which rows a step takes depends on the run's seed and the number of the step alone (`rows_at`), not on the run's
generator: so batches are the same wherever the items lie, and the next ones are known while a step still runs. A thread
gathers them ahead, from memory or from a memory-mapped file, into pinned memory where the device is another one.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distk import memory
from distk.console import note

Where = Literal["auto", "device", "host"]

SHARE = 0.5
"""Share of the device's free memory that items may take before `auto` leaves them on the host."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def rows_at(seed: int, step: Tensor | int, call: int, lanes: Tensor, size: int) -> Tensor:
    """Row numbers 0..size-1, uniformly and with replacement, int64 as `lanes`: the same on every device.

    seed: of the run. step: its number, a host value or an int64 scalar on the device of `lanes`. call: which draw of
    this step. lanes: int64, places in the batch of all ranks. Each coordinate is added to what SplitMix64's output
    function (Steele, Lea & Flood 2014) made of those before it: a sum of seed and step alone would give one seed the
    batches of the next, a step later. Modulo size; the modulo's bias is below size / 2^63.
    """
    start = _signed(_hashed(_hashed(seed * _GOLDEN) + (call + 1) * _GOLDEN))
    at = torch.as_tensor(step, dtype=torch.int64, device=lanes.device)
    state = _mixed((at + 1) * _signed(_GOLDEN) + start)
    return _shifted(_mixed(state + (lanes + 1) * _signed(_GOLDEN)), 1) % size


def uniform_at(rows: Tensor, draws: int) -> Tensor:
    """Numbers that belong to row numbers int64 `[n]`: float32 `[n, draws]`, uniform on [0, 1) in steps of 2^-24, the
    same on every device and at every call; made as in `rows_at`."""
    lanes = torch.arange(1, draws + 1, device=rows.device) * _signed(_GOLDEN)
    state = _mixed(_mixed((rows + 1) * _signed(_GOLDEN))[:, None] + lanes)
    return _shifted(state, 40).float() / (1 << 24)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _hashed(value: int) -> int:
    """As `_mixed`, of a host value without sign."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """A logical shift to the right of int64."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _signed(_FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(_SECOND)
    return x ^ _shifted(x, 31)


@dataclass
class Clock:
    """What the rows of a step depend on. at: its number on the host, None within a captured step, which has only
    `index`, the number as an int64 scalar on the device. calls: draws so far."""

    seed: int
    index: Tensor
    at: int | None = None
    calls: int = 0

    def draw(self) -> int:
        """The number of the next draw of this step."""
        self.calls += 1
        return self.calls - 1


class Draw(NamedTuple):
    """What a batch that was gathered ahead was gathered for."""

    seed: int
    step: int
    call: int
    items: int
    split: str

    @property
    def lane(self) -> tuple[int, int]:
        """What stays from step to step."""
        return self.seed, self.call


@dataclass(frozen=True)
class Ahead:
    """What the next lookup takes, and what the same draw of the next step will; rows int64 on the CPU."""

    draw: Draw
    rows: Tensor
    later: Draw
    later_rows: Tensor


class Stored:
    """N items, `stored[rows]` -> those rows on the device.

    items: array `[N, ...]`; one that is memory-mapped stays so on the host. where: `device`, `host`, or `auto`, which
    takes the device if at most half of its free memory is needed.
    """

    def __init__(self, items: np.ndarray, device: torch.device, where: Where = "auto") -> None:
        free = free_memory(device)
        self.device, self.on_host = device, where == "host" or (where == "auto" and items.nbytes > SHARE * free)
        if self.on_host and where == "auto":
            note(f"the data stay on the host: {items.nbytes / 1e9:.1f} GB, of {free / 1e9:.1f} GB that are free")
        mapped = isinstance(items, np.memmap)
        held = torch.from_numpy(items)
        self.items = held if self.on_host else held.to(device, copy=mapped)
        self._next: Ahead | None = None
        self._waiting: dict[tuple[int, int], tuple[Draw, Future[Tensor]]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="distk-gather") if self.on_host else None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Tensor) -> Tensor:
        if self._pool is None:
            if isinstance(rows, Tensor) and rows.dim() == 1 and rows.dtype == torch.int64:
                return self.items.index_select(0, rows)  # copies whole rows, where a CPU's `items[rows]` goes by bytes
            return self.items[rows]
        if self._next is None:
            return self._moved(self._gathered(rows.cpu()))
        ahead, self._next = self._next, None
        draw, waiting = self._waiting.pop(ahead.draw.lane, (None, None))
        ready = waiting is not None and draw == ahead.draw
        found = waiting.result() if waiting is not None and ready else self._gathered(ahead.rows)
        self._waiting[ahead.later.lane] = (ahead.later, self._pool.submit(self._gathered, ahead.later_rows))
        return self._moved(found)

    def expect(self, ahead: Ahead | None) -> None:
        """Announce the rows of the next lookup, and those to gather meanwhile for the next step; None takes it back."""
        self._next = ahead if self.on_host else None

    def _gathered(self, rows: Tensor) -> Tensor:
        pinned = self.device.type == "cuda"
        out = torch.empty((len(rows), *self.items.shape[1:]), dtype=self.items.dtype, pin_memory=pinned)
        return torch.index_select(self.items, 0, rows, out=out)

    def _moved(self, found: Tensor) -> Tensor:
        return found if self.device.type == "cpu" else found.to(self.device, non_blocking=True)


def free_memory(device: torch.device) -> int:
    """Bytes that the device has free; of the CPU those that this process can get without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory.available()
