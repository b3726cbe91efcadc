"""Factors as regression targets: numbers as they are, classes as indicators, angles as cosine and sine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks

Kinds = Mapping[int, float | None]
"""Columns that are no quantities: None for classes, whose values have no order; the period of a circular factor."""


class Targets(NamedTuple):
    """Columns to foretell, train [n, M] and test [m, M], standardised by the training rows, and the factor that each of
    the M belongs to; of: the same columns of other rows. NaN where a factor has no value."""

    train: Tensor
    test: Tensor
    owner: list[int]
    of: Callable[[Tensor], Tensor]

    def pooled(self, columns: Tensor) -> Tensor:
        """Means [..., K] over the columns [..., M] of each factor."""
        count = max(self.owner) + 1
        places = torch.tensor(self.owner, device=columns.device)
        total = columns.new_zeros(*columns.shape[:-1], count).index_add_(-1, places, columns)
        return total / torch.bincount(places, minlength=count)


def targets(train: Tensor, test: Tensor, kinds: Kinds) -> Targets:
    """See `Targets`. train [n, K], test [m, K]: factors that vary."""
    owner = [
        k for k in range(train.shape[1]) for _ in range(_encoded(train[:1, k], train[:, k], kinds.get(k, 0)).shape[1])
    ]

    def encoded(rows: Tensor) -> Tensor:
        return torch.cat([_encoded(rows[:, k], train[:, k], kinds.get(k, 0)) for k in range(train.shape[1])], 1)

    own = encoded(train)
    mean = own.nanmean(0)
    spread = (own - mean).square().nanmean(0).sqrt()
    scale = torch.where(spread > 0, 1 / spread, torch.zeros_like(spread))

    def of(rows: Tensor) -> Tensor:
        return (encoded(rows) - mean) * scale

    return Targets(of(train), of(test), owner, of)


def _encoded(rows: Tensor, train: Tensor, kind: float | None) -> Tensor:
    """One factor [n] as columns [n, T]: `kind` None for classes, a period above 0 for angles, 0 for numbers."""
    if kind is None:
        values = train[checks.present(train)].unique()
        if len(values) > 2:  # two classes are a number: one indicator says all
            return (rows[:, None] == values).to(train.dtype).masked_fill_(rows[:, None].isnan(), torch.nan)
    elif kind > 0:
        angle = rows * (2 * math.pi / kind)
        return torch.stack([angle.cos(), angle.sin()], 1)
    return rows[:, None]


def columns_of(owner: Sequence[int], factor: int) -> list[int]:
    """The columns of a factor."""
    return [m for m, k in enumerate(owner) if k == factor]
