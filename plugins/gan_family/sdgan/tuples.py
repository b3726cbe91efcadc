"""Tuples of images of one identity, drawn on the device with static shapes and without rejection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import Dataset, UsageError
from distk.console import counted, warn_once
from distk.data import Split
from distk.embedding import label_of


@dataclass
class Identities:
    """Rows of a data set sorted by identity.

    order: int64 `[N]`, rows, identity after identity. start, count: int64 `[V]`, where an identity begins in `order`
    and how many rows it has, at least `least` of them. label: int64 `[V]`, its label in the data.
    """

    order: Tensor
    start: Tensor
    count: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.count)

    def tuples(self, n: int, k: int, generator: torch.Generator) -> Tensor:
        """Rows int64 `[n, k]`: the identity of each tuple is uniform over identities, its k rows are distinct and every
        ordered choice of them is equally likely. Identities must have k rows or more."""
        device = self.order.device
        who = torch.randint(len(self), (n,), generator=generator, device=device)
        return self.of(who, k, generator)

    def strangers(self, n: int, generator: torch.Generator) -> Tensor:
        """Rows int64 `[n, 2]` of two different identities, uniform over ordered pairs of them; one row of each.

        Raises UsageError for a single identity.
        """
        if len(self) < 2:
            raise UsageError("there is a single identity, so no pair of different ones can be drawn.")
        device = self.order.device
        first = torch.randint(len(self), (n,), generator=generator, device=device)
        other = torch.randint(len(self) - 1, (n,), generator=generator, device=device)
        second = other + (other >= first).long()
        return torch.cat([self.of(who, 1, generator) for who in (first, second)], 1)

    def of(self, who: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """k distinct rows, int64 `[n, k]`, of the identities with these numbers, int64 `[n]`."""
        device = self.order.device
        uniform = torch.rand(len(who), k, generator=generator, device=device)
        count, chosen = self.count[who], torch.empty(len(who), 0, dtype=torch.long, device=device)
        for i in range(k):
            left = count - i
            # The r-th of the places that are still free: step over those that are taken, in ascending order.
            place = torch.minimum((uniform[:, i] * left).long(), left - 1)
            for taken in chosen.sort(1).values.unbind(1):
                place = place + (place >= taken).long()
            chosen = torch.cat([chosen, place[:, None]], 1)
        return self.order[self.start[who, None] + chosen]

    def subset(self, which: Tensor) -> Identities:
        """The identities of these numbers, int64 `[m]`, alone."""
        return Identities(self.order, self.start[which], self.count[which], self.label[which])


def identities(dataset: Dataset, split: Split, least: int = 2) -> Identities:
    """The identities (labels) of a split that have at least `least` images there; the others are counted in a warning.

    Raises UsageError for data without labels, and where no identity is left.
    """
    rows = dataset.rows_of(split)
    labels, place = label_of(dataset, rows).sort(stable=True)
    kinds, count = labels.unique_consecutive(return_counts=True)
    start = count.cumsum(0) - count
    keep = count >= least
    few = kinds[~keep].tolist()
    if few:
        shown = ", ".join(map(str, few[:5])) + (", ..." if len(few) > 5 else "")
        message = (
            f"{len(few):,} of {counted(len(kinds), 'identity', 'identities')} of '{dataset.name}' have fewer than"
            f" {counted(least, 'image')}"
        )
        if not bool(keep.any()):
            raise UsageError(f"{message} in the {split} split, so none is left (identities {shown}).")
        warn_once(f"{message} in the {split} split and are left out: {shown}")
    return Identities(rows[place], start[keep], count[keep], kinds[keep])
