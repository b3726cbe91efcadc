"""Items that a data set draws from their row numbers, each drawn once where they fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distk import memory
from distk.device import static_shapes_only

MOST = 1 << 30
"""Bytes up to which drawn items are remembered, and no more than a quarter of what there is."""


class Remembered:
    """`draw(rows)`, float32 `[n, *shape]` for rows int64 `[n]`, whose results are kept on the CPU.

    What a row looks like must depend on its number alone, to the last bit: a run that is resumed draws other rows
    together. On CUDA nothing is kept: there drawing is fast, and asking
    which rows are new would read from the device. Nothing is drawn ahead, so that a start costs nothing; memory is
    taken row by row.
    """

    def __init__(
        self, draw: Callable[[Tensor], Tensor], count: int, shape: Sequence[int], device: torch.device
    ) -> None:
        self.draw = draw
        size = 4 * count * int(torch.Size(shape).numel())
        self.fits = device.type == "cpu" and size <= min(MOST, memory.available() // 4)
        self._shape = (count, *shape)
        self._items: Tensor | None = None
        self._have = torch.zeros(count if self.fits else 0, dtype=torch.bool)

    def __call__(self, rows: Tensor) -> Tensor:
        """The items of rows int64 `[n]`, float32 `[n, *shape]`."""
        if not self.fits or static_shapes_only(rows.device):
            return self.draw(rows)
        new = rows[~self._have[rows]]
        if len(new):
            if self._items is None:
                self._items = torch.empty(self._shape)
            new = new.unique()
            self._items[new] = self.draw(new)
            self._have[new] = True
        # Of no rows there is nothing to keep.
        return self.draw(rows) if self._items is None else self._items.index_select(0, rows)
