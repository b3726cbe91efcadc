"""Where a training step's batches come from."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from distk.data import Dataset, Split
from distk.stored import Ahead, Clock, Draw, rows_at


@dataclass(frozen=True)
class Source:
    """What a training step draws its batches from: a split of a data set, a batch size and a generator.

    Over several devices each rank keeps its rows of one global batch: the batch does not depend on their number.
    """

    dataset: Dataset
    batch: int
    generator: torch.Generator
    split: Split = "train"
    rank: int = 0
    world: int = 1
    bucket: Hashable = None
    clock: Clock | None = None

    def sample(self, n: int | None = None) -> dict[str, Tensor]:
        """A batch of `n` items (default: the batch size) as a dict of tensors."""
        n = n or self.batch
        if self.clock is not None and self.dataset.counted:
            return self._counted(n, self.clock)
        return self._mine(self.dataset.sample(n * self.world, self.generator, self.split, self.bucket), n)

    def draw(
        self, make: Callable[[int, torch.Generator], dict[str, Tensor]], n: int | None = None
    ) -> dict[str, Tensor]:
        """A batch that a method makes itself: `make(rows, generator)` gives the whole batch of all ranks,
        `[rows, ...]`, and this rank's `n` of them (default: the batch size) are returned."""
        n = n or self.batch
        return self._mine(make(n * self.world, self.generator), n)

    def _counted(self, n: int, clock: Clock) -> dict[str, Tensor]:
        """This rank's items of the rows that belong to this draw of this step."""
        call, dataset = clock.draw(), self.dataset
        waiting = [stored for stored in dataset.stored if stored.on_host]
        if not waiting or clock.at is None:
            return dataset.items(self._rows(n, clock, call, clock.index, dataset.rows(self.split)))
        table = dataset.rows_on_host(self.split)
        draw = Draw(clock.seed, clock.at, call, n, self.split)
        now, later = (self._rows(n, clock, call, step, table) for step in (clock.at, clock.at + 1))
        for stored in waiting:
            stored.expect(Ahead(draw, now, draw._replace(step=clock.at + 1), later))
        batch = dataset.items(now.to(dataset.device, non_blocking=True))
        for stored in waiting:
            stored.expect(None)
        return batch

    def _rows(self, n: int, clock: Clock, call: int, step: Tensor | int, table: Tensor | None) -> Tensor:
        """Rows int64 `[n]` of one draw, on the device of `step`; table: the rows of the split, or None for all."""
        device = step.device if isinstance(step, Tensor) else torch.device("cpu")
        lanes = torch.arange(self.rank * n, (self.rank + 1) * n, device=device)
        drawn = rows_at(clock.seed, step, call, lanes, len(self.dataset) if table is None else len(table))
        return drawn if table is None else table[drawn]

    def _mine(self, batch: dict[str, Tensor], n: int) -> dict[str, Tensor]:
        if self.world == 1:
            return batch
        return {key: value[self.rank * n : (self.rank + 1) * n] for key, value in batch.items()}
