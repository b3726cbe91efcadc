"""How much the factors of a table tell of each other, beside what a finite table always seems to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk.metric import CodeTable

ROWS, SHUFFLES, BINS = 20_000, 20, 10
"""Rows that are looked at, shuffles that say what chance gives, bins of a factor that is a real number."""
FAR = 5.0
"""Deviations above their mean at which dependence is reported: by chance in none of hundreds of pairs."""


@dataclass(frozen=True)
class Dependence:
    """Two factors that tell of each other. nats: plug-in information; by_chance: its mean where one is shuffled; share:
    what is above chance, of the smaller entropy of the two, in [0, 1]."""

    first: str
    second: str
    nats: float
    by_chance: float
    share: float

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return {"factors": [self.first, self.second], "nats": self.nats, "by_chance": self.by_chance} | {
            "share": self.share
        }


def dependences(table: CodeTable) -> list[Dependence]:
    """Pairs of factors that depend on each other, the strongest share first; none for a full grid or without factors.

    A table of n rows seems to have (A - 1)(B - 1) / 2n nats even where factors of A and B values are independent: only
    what exceeds twenty shuffles by far is reported.
    """
    if table.factors is None or table.grid or len(table.factor_names) < 2 or len(table) < 2:
        return []
    generator = torch.Generator().manual_seed(0)
    truth = table.factors.cpu()
    if len(truth) > ROWS:
        truth = truth[torch.randperm(len(truth), generator=generator)[:ROWS]]
    columns = [_index(column) for column in truth.T]
    orders = _orders(len(truth), generator)
    found = []
    for a in range(len(columns)):
        for b in range(a + 1, len(columns)):
            smaller = min(_entropy(column[column >= 0]) for column in (columns[a], columns[b]))
            if smaller <= 0:
                continue
            both = (columns[a] >= 0) & (columns[b] >= 0)
            first, second = (columns[a], columns[b]) if bool(both.all()) else (columns[a][both], columns[b][both])
            if not len(first):
                continue
            nats = _information(first, second)
            mine = orders if len(first) == len(truth) else _orders(len(first), generator)
            shuffled = torch.tensor([_information(first, second[order]) for order in mine])
            mean, deviation = float(shuffled.mean()), float(shuffled.std())
            if nats > mean + FAR * deviation + 1e-9:
                share = (nats - mean) / smaller
                names = table.factor_names
                found.append(Dependence(names[a], names[b], nats, mean, share))
    return sorted(found, key=lambda one: -one.share)


def _orders(rows: int, generator: torch.Generator) -> list[Tensor]:
    return [torch.randperm(rows, generator=generator) for _ in range(SHUFFLES)]


def _index(column: Tensor) -> Tensor:
    """Class indices of a factor's values, -1 for NaN; real numbers are cut into bins of equal width."""
    if column.is_floating_point() and bool((gap := column.isnan()).any()):
        index = torch.full(column.shape, -1, dtype=torch.int64)
        if not bool(gap.all()):
            index[~gap] = _index(column[~gap])
        return index
    if column.is_floating_point() and bool((column != column.round()).any()):
        low, high = column.min(), column.max()
        column = ((column - low) / (high - low) * BINS).long().clamp_(max=BINS - 1)
    return column.unique(return_inverse=True)[1]


def _entropy(index: Tensor) -> float:
    share = torch.bincount(index).double() / len(index)
    return float(-torch.special.xlogy(share, share).sum())


def _information(a: Tensor, b: Tensor) -> float:
    """Plug-in mutual information in nats of class indices [n], never negative."""
    width = int(b.max()) + 1
    return max(0.0, _entropy(a) + _entropy(b) - _entropy(a * width + b))
