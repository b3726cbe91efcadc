"""Buckets of lengths: a step draws sentences of about one length, and every shape in it is known to the host."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EDGES = (8, 12, 16, 20, 26, 36, 51, 76, 101, 151, 201, 301, 501)
"""Bucket widths in symbols, `<eos>` included."""
SMALLEST = 32
"""Training sentences of each group that a bucket must have; smaller ones join the next."""


@dataclass
class _Sorted:
    """Rows of a split sorted by (group, length).

    start, count: where each (group, bucket) begins in `rows`, and how many rows it has. cumulated: share of the text up
    to each bucket, the mean over the groups.
    """

    rows: Tensor
    start: list[list[int]]
    count: list[list[int]]
    cumulated: list[float]


class Buckets:
    """The sentences of each split by length, and in the training split by group (its label).

    size: symbols of each row with `<eos>`, int64 `[n]` on the host; top: the largest. group: int64 `[n]` on the host,
    0..many-1. splits: name -> rows on the device. further: the sizes of further columns. ends: upper ends that the
    buckets may have; without any all lengths are one bucket.

    edges: upper ends of the buckets. widths: for each bucket the width of `x` and of every further column.
    """

    def __init__(
        self,
        size: Tensor,
        top: int,
        group: Tensor,
        many: int,
        splits: Mapping[str, Tensor],
        further: Mapping[str, Tensor],
        ends: Sequence[int],
    ) -> None:
        train = splits.get("train", torch.zeros(0, dtype=torch.long)).cpu()
        found = _edges(size[train], group[train], many, top, ends) if len(train) else []
        self.edges = (*found, top)
        bucket = torch.bucketize(size, torch.tensor(self.edges))
        self._sorted = {
            name: self._table(rows, bucket, group if name == "train" else torch.zeros_like(group), many)
            for name, rows in splits.items()
            if len(rows)
        }
        self.widths = []
        for b, edge in enumerate(self.edges):
            longest = {name: _largest(sizes[bucket == b]) for name, sizes in further.items()}
            self.widths.append({"x": edge, **longest})

    def _table(self, rows: Tensor, bucket: Tensor, group: Tensor, many: int) -> _Sorted:
        host = rows.cpu()
        key = group[host] * len(self.edges) + bucket[host]
        table = torch.bincount(key, minlength=many * len(self.edges)).view(-1, len(self.edges))
        table = table[table.sum(1) > 0]
        start = (table.flatten().cumsum(0) - table.flatten()).view_as(table).tolist()
        share = table.double() / table.sum(1, keepdim=True)
        order = key.argsort(stable=True).to(rows.device)
        return _Sorted(rows[order], start, table.tolist(), share.mean(0).cumsum(0).tolist())

    def draw(self, step: int, seed: int, split: str) -> Hashable:
        """A bucket by its share of the split's text, a function of (seed, step); None where there is only one."""
        if len(self.edges) == 1 or split not in self._sorted:
            return None
        u = random.Random(f"bucket/{seed}/{step}").random()
        return next((b for b, total in enumerate(self._sorted[split].cumulated) if u < total), len(self.edges) - 1)

    def rows(self, n: int, generator: torch.Generator, split: str, bucket: Hashable) -> Tensor | None:
        """`n` rows of a bucket (None: of all) drawn with replacement, row i of group i mod K; int64 on the device.

        None where a plain uniform draw from the split is meant: beyond training without a bucket, or where the bucket
        has no sentence in this split.
        """
        table = self._sorted.get(split)
        if table is None or (split != "train" and (bucket is None or not table.count[0][bucket])):  # type: ignore[call-overload]
            return None
        each = -(-n // len(table.count))
        drawn = []
        for starts, counts in zip(table.start, table.count, strict=True):
            first, count = (starts[0], sum(counts)) if bucket is None else (starts[bucket], counts[bucket])  # type: ignore[call-overload]
            drawn.append(first + torch.randint(count, (each,), generator=generator, device=generator.device))
        return table.rows[torch.stack(drawn, 1).flatten()[:n]]


def _edges(size: Tensor, group: Tensor, many: int, top: int, ends: Sequence[int]) -> list[int]:
    """Upper ends of the buckets but the last; one that is too small for some group joins the next longer one."""
    edges = [e for e in ends if e < top]
    for edge in list(edges):
        low = max((e for e in edges if e < edge), default=0)
        if int(torch.bincount(group[(size > low) & (size <= edge)], minlength=many).min()) < SMALLEST:
            edges.remove(edge)
    if edges and int(torch.bincount(group[size > edges[-1]], minlength=many).min()) < SMALLEST:
        edges.pop()
    return edges


def _largest(sizes: Tensor) -> int:
    """At least 1: a column that has nothing in a bucket is one column of padding."""
    return max(1, int(sizes.max())) if len(sizes) else 1
