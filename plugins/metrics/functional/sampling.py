"""Index samplers: many batches of row numbers at once.

Draws come from a CPU generator, so that a seed means the same rows on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from distk.console import counted

from . import checks
from .blocks import MOST, row_numbers, spans
from .checks import Array
from .sentences import Column, Mention, NoTwoRows, Plain, Sentence, Unfit

CONTINUOUS_BINS = 10  # equal-width bins of continuous factors
CHANGED = 100  # rows that differ from another one in a factor alone


class Sampler(Protocol):
    """Row numbers (int64, CPU) under the sampling protocols; `kept` are the factors with more than one
    value.
    """

    rows: int
    factors: int
    kept: list[int]
    reasons: dict[str, str]

    def uniform(self, n: int, generator: torch.Generator) -> Tensor:
        """[n] rows, independent and uniform."""

    def fixed(self, factor: Tensor, n: int, generator: torch.Generator, uniform_value: bool = False) -> Tensor:
        """[V, n] rows; row i shares one value of factor[i] (the first row's, or uniform over values)."""

    def sharing(self, factor: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two [V, n]; each pair shares its value of factor[i], the other factors are independent."""

    def changing(self, factor: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two [V]; the rows of a pair differ in factor[i] only."""


class GridSampler:
    """Every factor combination once, row-major, last factor fastest: sampling is arithmetic on row
    numbers.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = torch.tensor([int(s) for s in sizes])
        if len(self.sizes) == 0 or bool((self.sizes < 1).any()):
            raise ValueError(f"sizes must be positive, got {list(sizes)}")
        self.strides = torch.cat([self.sizes.flip(0).cumprod(0).flip(0)[1:], torch.ones(1, dtype=torch.int64)])
        self.rows = int(self.sizes.prod())
        self.factors = len(self.sizes)
        self.kept = (self.sizes > 1).nonzero()[:, 0].tolist()
        single = [k for k in range(self.factors) if k not in self.kept]
        self.reasons: dict[str, str] = {}
        for k in single:
            self.reasons |= checks.dropped(k)

    def uniform(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.rows, (n,), generator=generator)

    def _digit(self, row: Tensor, factor: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (row.ndim - 1)
        return row // self.strides[factor].view(shape) % self.sizes[factor].view(shape)

    def fixed(self, factor: Tensor, n: int, generator: torch.Generator, uniform_value: bool = False) -> Tensor:
        # On a full grid the first row's value is itself uniform over the values.
        row = torch.randint(self.rows, (len(factor), n), generator=generator)
        own = self._digit(row, factor)
        return row + (own[:, :1] - own) * self.strides[factor][:, None]

    def sharing(self, factor: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = torch.randint(self.rows, (len(factor), n), generator=generator)
        second = torch.randint(self.rows, (len(factor), n), generator=generator)
        shift = self._digit(first, factor) - self._digit(second, factor)
        return first, second + shift * self.strides[factor][:, None]

    def changing(self, factor: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = torch.randint(self.rows, (len(factor),), generator=generator)
        old, size = self._digit(first, factor), self.sizes[factor]
        step = 1 + (torch.rand(len(factor), generator=generator, dtype=torch.float64) * (size - 1)).long()
        return first, first + ((old + step.minimum(size - 1)) % size - old) * self.strides[factor]


class TableSampler:
    """Any rows with factors [N, K]: rows are bucketed by factor value once, then drawn inside buckets.

    Continuous columns are cut into 10 equal-width bins. `names` are the factors' names for error messages.
    """

    def __init__(self, factors: Array, names: Sequence[str] | None = None) -> None:
        table = checks.matrix(factors, "factors", own=True).cpu()
        self.rows, self.factors = table.shape
        if names is not None and len(names) != self.factors:
            raise ValueError(f"{len(names)} factor names for {counted(self.factors, 'factor')}")
        self.names = [""] * self.factors if names is None else list(names)
        self.reasons: dict[str, str] = {}
        columns = []
        for k in range(self.factors):
            column = table[:, k : k + 1]
            if checks.fractional(column[:, 0]):
                column = checks.equal_width(column, column.amin(0), column.amax(0), CONTINUOUS_BINS)
                told = Sentence(f"{{}} is continuous: cut into {CONTINUOUS_BINS} bins", self._mention(k))
                self.reasons[Sentence("{}", self._mention(k))] = told
            columns.append(checks.levels(column[:, 0])[1])
        self.index = columns
        self.sizes = [int(column.max()) + 1 for column in columns]
        self.kept = [k for k, size in enumerate(self.sizes) if size > 1]
        for k in set(range(self.factors)) - set(self.kept):
            self.reasons |= checks.dropped(k, self.names[k])
        self.order = [column.argsort(stable=True).to(row_numbers(self.rows)) for column in columns]
        self.counts = [torch.bincount(column, minlength=s) for column, s in zip(columns, self.sizes, strict=True)]
        self.starts = [count.cumsum(0) - count for count in self.counts]

    def demand(self, per_value: int) -> None:
        """Raise Unfit for a factor that has fewer rows per value, on the mean: groups of few rows share their chance
        values, which votes then take for the factor's.
        """
        for k in self.kept:
            if self.rows < per_value * self.sizes[k]:
                wanted = f"needs at least {counted(per_value * self.sizes[k], 'row')}, got {self.rows}"
                raise Unfit(f"{{}} has {counted(self.sizes[k], 'value')}: {wanted}", Column("factor", k))

    def uniform(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.rows, (n,), generator=generator)

    def fixed(self, factor: Tensor, n: int, generator: torch.Generator, uniform_value: bool = False) -> Tensor:
        first = self.uniform(len(factor), generator)
        draw = torch.rand(len(factor), n, generator=generator, dtype=torch.float64)
        result = torch.empty(len(factor), n, dtype=row_numbers(self.rows))
        for k in factor.unique().tolist():
            mine = (factor == k).nonzero()[:, 0]
            value = self.index[k][first[mine]].long()
            if uniform_value:
                value = torch.randint(self.sizes[k], (len(mine),), generator=generator)
            for at in spans(len(mine), n, MOST):
                some = mine[at]
                start, count = self.starts[k][value[at], None], self.counts[k][value[at], None]
                offset = (draw[some] * count).long().minimum(count - 1)
                result[some] = self.order[k][start + offset].to(result.dtype)
            if not uniform_value:
                result[mine, 0] = first[mine].to(result.dtype)
        return result

    def sharing(self, factor: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = torch.rand(2, len(factor), n, generator=generator, dtype=torch.float64)
        kind = row_numbers(self.rows)
        first, second = torch.empty(2, len(factor), n, dtype=kind).unbind(0)
        for k in factor.unique().tolist():
            order = self.order[k]
            value = self.index[k][order].long()
            # Places in `order` with a companion in their bucket
            usable = (self.counts[k][value] > 1).nonzero()[:, 0]
            if len(usable) == 0:
                told = "{} share a value of {}; this score compares such pairs"
                raise Unfit(told, NoTwoRows(), self._mention(k))
            mine = (factor == k).nonzero()[:, 0]
            for at in spans(len(mine), n, MOST):
                some = mine[at]
                place = usable[(draw[0, some] * len(usable)).long().clamp_(max=len(usable) - 1)]
                start, count = self.starts[k][value[place]], self.counts[k][value[place]]
                step = 1 + (draw[1, some] * (count - 1)).long().minimum(count - 2)
                first[some] = order[place].to(kind)
                second[some] = order[start + (place - start + step) % count].to(kind)  # another row than the first
        return first, second

    def changing(self, factor: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = torch.rand(2, len(factor), generator=generator, dtype=torch.float64)
        first, second = torch.empty(2, len(factor), dtype=torch.int64).unbind(0)
        for k in factor.unique().tolist():
            order, group, run = self._neighbours(k)
            others = (group[:, 1] - group[:, 0]) - (run[:, 1] - run[:, 0])
            usable = (others > 0).nonzero()[:, 0]
            if len(usable) == 0:
                told = "{} differ only in {}; this score compares such pairs"
                raise Unfit(told, NoTwoRows(), self._mention(k))
            self.enough(len(usable), k)
            mine = (factor == k).nonzero()[:, 0]
            place = usable[(draw[0, mine] * len(usable)).long().clamp_(max=len(usable) - 1)]
            free = others[place]
            partner = group[place, 0] + (draw[1, mine] * free).long().minimum(free - 1)
            # Skip the old value
            partner += torch.where(partner >= run[place, 0], run[place, 1] - run[place, 0], 0)
            first[mine], second[mine] = order[place], order[partner]
        return first, second

    def enough(self, rows: int, k: int) -> None:
        """Raise Unfit for a factor in which few rows alone differ: noise that is drawn again and again is learnt."""
        if rows < CHANGED:
            told = f"{counted(rows, 'row')} differ from another one in {{}} alone: this score needs at least {CHANGED}"
            raise Unfit(told, self._mention(k))

    def _mention(self, k: int) -> Mention:
        return Plain(f"factor '{self.names[k]}'") if self.names[k] else Column("factor", k)

    def _neighbours(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows sorted by all other factors, then by k; and each place's group and equal-value run as [start,
        stop).
        """
        rest = [j for j in range(self.factors) if j != k]
        key = torch.zeros(self.rows, dtype=torch.int64)
        for j in rest:  # renumbering after every factor keeps the key below rows * size: no overflow
            key = (key * self.sizes[j] + self.index[j]).unique(return_inverse=True)[1]
        fine = key * self.sizes[k] + self.index[k]
        order = fine.argsort(stable=True)
        return order, _runs(key[order]), _runs(fine[order])


def _runs(ordered: Tensor) -> Tensor:
    """[start, stop) of the run of equal values around each place of a sorted vector: int64 [n, 2]."""
    _, inverse, count = ordered.unique_consecutive(return_inverse=True, return_counts=True)
    stop = count.cumsum(0)
    return torch.stack([(stop - count)[inverse], stop[inverse]], 1)
