"""What makes our data sets those of PyTorch: rows by number, and a `DataLoader` over them.

Training does not need it: batches are drawn on the device by `Dataset.sample`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from distk.errors import UsageError, WrongType, shown_type


class Indexed(data.Dataset[dict[str, Tensor]]):
    """Items by row number. A subclass has `__len__`, `items`, `rows_of`, `device` and `name`, as `distk.Dataset`."""

    name: str = ""
    device: torch.device

    def __len__(self) -> int:
        raise NotImplementedError

    def items(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows int64 `[n]` -> entries `[n, ...]`."""
        raise NotImplementedError

    def rows_of(self, split: str) -> Tensor:
        """The rows of a split, int64 `[n]`."""
        raise NotImplementedError

    def __getitem__(self, row: int | slice | Sequence[int] | Tensor) -> dict[str, Tensor]:
        """A whole number -> `items` of that row without the batch dimension; a slice, a list, a tensor of whole numbers
        or of truth values `[N]` -> those rows as one batch. Raises IndexError for a row that is not there."""
        if isinstance(row, (int, np.integer)) and not isinstance(row, bool):
            return {name: value[0] for name, value in self.items(self._checked([int(row)])).items()}
        if isinstance(row, slice):
            return self.items(torch.arange(*row.indices(len(self)), device=self.device))
        if isinstance(row, (str, bytes, Mapping)) or not hasattr(row, "__len__"):
            raise WrongType(f"rows are whole numbers, a slice, a list or a tensor, not {shown_type(row)}.")
        return self.items(self._checked(row))

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """The items of many rows, fetched at once: what a `DataLoader` with a batch size asks for."""
        held = self.items(self._checked(rows))
        return [{name: value[i] for name, value in held.items()} for i in range(len(rows))]

    def _checked(self, rows: Any) -> Tensor:
        """Rows that a program gave, int64 `[n]` on the device; negative ones count from the end."""
        index = torch.as_tensor(rows, device=self.device)
        if index.dtype == torch.bool and index.shape == (len(self),):
            index = index.nonzero()[:, 0]
        if index.dim() != 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise WrongType(f"rows are whole numbers [n], not {index.dtype} {list(index.shape)}.")
        wrong = (index < -len(self)) | (index >= len(self))
        if bool(wrong.any()):
            named = f" '{self.name}'" if self.name else ""
            raise IndexError(f"data set{named} has the rows 0 to {len(self) - 1}, not {int(index[wrong][0])}")
        return torch.where(index < 0, index + len(self), index).long()

    def loader(
        self,
        batch: int = 64,
        *,
        split: str = "all",
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        workers: int = 0,
    ) -> data.DataLoader[dict[str, Tensor]]:
        """A `DataLoader` over the rows of a split: whole batches as `items` gives them, each row once.

        shuffle: another order in every pass, all of them decided by `seed`. drop_last: leave out a last, smaller batch.
        workers: processes that fetch, for data on the CPU. Raises UsageError for a split that is not there.
        """
        if batch < 1 or workers < 0:
            raise UsageError(f"loader: batch is 1 or more and workers 0 or more, not {batch} and {workers}.")
        if workers and self.device.type != "cpu":
            raise UsageError(
                f"loader: the data lie on {self.device}, where processes cannot fetch: leave workers at 0."
            )
        rows = self.rows_of(split).tolist()
        order = torch.Generator().manual_seed(seed)
        sampler = data.SubsetRandomSampler(rows, order) if shuffle else rows
        return data.DataLoader(
            self, batch_size=None, sampler=data.BatchSampler(sampler, batch, drop_last), num_workers=workers
        )
