"""Input validation shared by every score: arrays in, float64 tensors and class indices out.

Every message names the argument, the first offending column and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from distk.console import counted

from .blocks import numbers, parts, room, spans, whole_numbers
from .sentences import Argument, Column, Columns, Mention, Plain, Sentence, Unfit

Array = Any  # numpy array, torch tensor (any device, any real dtype) or nested sequence
# Floats, float64 numpy arrays, and `reasons: dict[str, str]` when something is undefined
Result = dict[str, Any]


def tensor(array: Array, name: str = "the array") -> Tensor:
    """`array` as a detached torch tensor on its own device; numpy and sequences land on the CPU.

    Raises ValueError for anything but real numbers: text, objects, dates, complex numbers, rows of unequal length.
    """
    if isinstance(array, Tensor):
        if array.is_complex():
            raise ValueError(f"{name} must be real, got {array.dtype}")
        return array.detach()
    try:
        held = np.asarray(array)
        if not held.flags.writeable or min(held.strides, default=0) < 0:
            held = np.array(held)  # torch refuses views of read-only or reversed arrays
    except ValueError:
        raise ValueError(f"{name} must be a table of numbers: its rows differ in length") from None
    if held.dtype.kind not in "biuf":
        what = {"U": "text", "S": "bytes", "O": "objects", "c": "complex numbers"}.get(held.dtype.kind, str(held.dtype))
        raise ValueError(f"{name} must hold real numbers, got {what}")
    if held.dtype.kind == "f" and held.dtype.itemsize > 8:
        held = held.astype(np.float64)
    elif held.dtype.kind == "u" and held.dtype.itemsize > 1:  # torch does not calculate with these
        held = held.astype(np.int64)
    return torch.from_numpy(held.astype(held.dtype.newbyteorder("="), copy=False))


def matrix(array: Array, name: str = "codes", min_rows: int = 2, gaps: bool = False, own: bool = False) -> Tensor:
    """`array` as a finite float64 matrix [n, D]; a vector [n] becomes [n, 1]. gaps: NaN stands for a missing value.
    own: numbers keep their own type, for who turns them into float64 part by part.

    Raises ValueError for another rank, no columns, fewer than `min_rows` rows, or NaN/inf (naming the
    column).
    """
    x = tensor(array, name)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name} must have shape [rows, columns], got {tuple(x.shape)}")
    if x.shape[0] < min_rows:
        raise ValueError(f"{name} has {counted(x.shape[0], 'row')}: needs at least {min_rows}")
    x = (x.byte() if x.dtype == torch.bool else x) if own else x.double()
    low, high = x.aminmax(dim=0)  # NaN goes through both; isfinite would copy the table
    finite = torch.isfinite(low) & torch.isfinite(high)
    if gaps and not bool(finite.all()):
        infinite = torch.zeros_like(finite)
        for part in parts(x):
            infinite |= part.isinf().any(0)
        finite = ~infinite
    if not bool(finite.all()):
        column = int((~finite).nonzero()[0])
        kind: Literal["code", "factor"] = "factor" if name.startswith("factors") else "code"
        raise Unfit(name + " contains NaN or inf, first in {}", Column(kind, column, "column"))
    return x


def paired(
    codes: Array, factors: Array, suffix: str = "", gaps: bool = False, own: bool = False
) -> tuple[Tensor, Tensor]:
    """Codes [n, D] and factors [n, K], finite float64 on one device; ValueError if lengths differ. gaps: factors may be
    NaN where they are not known. own: see `matrix`."""
    c = matrix(codes, "codes" + suffix, own=own)
    f = matrix(factors, "factors" + suffix, gaps=gaps, own=own).to(c.device)
    if len(c) != len(f):
        raise ValueError(f"codes{suffix} has {counted(len(c), 'row')} but factors{suffix} has {len(f)}")
    return c, f


def split(
    codes: Array,
    factors: Array,
    codes_test: Array | None,
    factors_test: Array | None,
    gaps: bool = False,
    own: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(train codes, train factors, test codes, test factors); without test rows 2/3 : 1/3 in order. gaps, own: as in
    `paired`."""
    c, f = paired(codes, factors, gaps=gaps, own=own)
    if (codes_test is None) != (factors_test is None):
        raise ValueError("codes_test and factors_test must be given together")
    if codes_test is None:
        if len(c) < 6:
            raise ValueError(f"codes has {counted(len(c), 'row')}: needs at least 6 to be split into train and test")
        cut = 2 * len(c) // 3
        return c[:cut], f[:cut], c[cut:], f[cut:]
    ct, ft = paired(codes_test, factors_test, "_test", gaps, own)
    if ct.shape[1] != c.shape[1] or ft.shape[1] != f.shape[1]:
        raise ValueError(
            f"test rows have {counted(ct.shape[1], 'code')} and {counted(ft.shape[1], 'factor')}, training rows"
            f" {c.shape[1]} and {f.shape[1]}"
        )
    return c, f, ct.to(c.device), ft.to(c.device)


def equal_width(column: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Equal-width bin index (0..bins-1, of the narrowest type) as numpy's
    `digitize(x, histogram(x, bins)[1][:-1]) - 1`.

    The index counts the first `bins` edges that are <= x, so the maximum falls into the last bin. `column`
    [n, M], `low`, `high` [M].
    """
    low, high = low.double(), high.double()
    step = (high - low) / bins
    steps = torch.arange(bins, dtype=torch.float64, device=column.device)
    # The same operations as numpy.linspace: equal to the last bit
    edges = steps * step[:, None] + low[:, None]
    index = torch.empty(column.shape, dtype=whole_numbers(bins), device=column.device)
    for m in range(column.shape[1]):
        for at in spans(len(column), 1, room(column)):
            part = numbers(column[at, m])
            place = torch.searchsorted(edges[m], part, right=True, out_int32=True)
            index[at, m] = place.sub_(1).clamp_(0, bins - 1)
    return index


Rows = Tensor | slice
"""Row numbers int64, or a slice where it is all of them, so that nothing is copied."""


def present(column: Tensor) -> Rows:
    """The rows of a factor [n] in which it has a value."""
    gap = column.isnan() if column.is_floating_point() else None
    return slice(None) if gap is None or not bool(gap.any()) else (~gap).nonzero()[:, 0]


@dataclass
class Labels:
    """Discrete factors as class indices; constant factors are left out.

    columns: of each of the K' factors its classes [n], 0..sizes[j]-1, -1 where it has no value, in the narrowest type;
    kept: the K' original columns; total: K; partial: those of the K' that lack a value somewhere.
    """

    columns: list[Tensor]
    sizes: list[int]
    kept: list[int]
    total: int
    reasons: dict[str, str] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)
    bounds: tuple[Tensor, Tensor, int] | None = None
    partial: set[int] = field(default_factory=set)

    @property
    def index(self) -> Tensor:
        """All columns, int64 [n, K']."""
        return self.at(slice(None))

    def at(self, rows: Rows) -> Tensor:
        """Some rows of all columns, int64 [m, K']."""
        return torch.stack([column[rows].long() for column in self.columns], 1)

    def of(self, factor: int, rows: Rows = slice(None)) -> Tensor:
        """The classes of one of the K' factors, int64 [n]."""
        return self.columns[factor][rows].long()

    def counts(self, factor: int, rows: Rows = slice(None)) -> Tensor:
        """Rows of each class of one of the K' factors, float64 [sizes[factor]]."""
        return torch.bincount(self.columns[factor][rows], minlength=self.sizes[factor]).double()

    def to(self, device: torch.device) -> Labels:
        """The same there."""
        return replace(self, columns=[column.to(device) for column in self.columns])

    def take(self, *factors: int) -> Rows:
        """The rows in which these of the K' factors have values."""
        lacking = [self.columns[k] >= 0 for k in factors if k in self.partial]
        return torch.stack(lacking).all(0).nonzero()[:, 0] if lacking else slice(None)

    def encode(self, factors: Tensor) -> Tensor:
        """Class indices [m, K'] of other rows; -1 where the value never occurred in the rows seen first, or is NaN."""
        kept = factors[:, self.kept] if self.bounds is None else cut(factors, *self.bounds)[:, self.kept]
        index = torch.empty(kept.shape, dtype=whole_numbers(max(self.sizes)), device=factors.device)
        for j, values in enumerate(self.values):
            for at in spans(len(kept), 1, room(kept)):
                part = numbers(kept[at, j])
                place = torch.searchsorted(values, part).clamp_(max=len(values) - 1)
                index[at, j] = torch.where(values[place] == part, place, -1).to(index.dtype)
        return index

    def widen(self, array: Tensor | np.ndarray) -> np.ndarray:
        """[..., K'] -> numpy float64 [..., K] with NaN for the dropped factors."""
        narrow = array.cpu().numpy() if isinstance(array, Tensor) else array
        wide = np.full((*narrow.shape[:-1], self.total), np.nan)
        wide[..., self.kept] = narrow
        return wide

    def explain(self, *keys: str) -> dict[str, str]:
        """The reasons for dropped factors, repeated for each result key."""
        text = Sentence.joined(self.reasons.values())
        return dict.fromkeys(keys, text) if text else {}


def discrete(
    factors: Tensor, factor_bins: int | None = None, min_per_value: int = 10, rows: int | None = None
) -> Labels:
    """Factors [n, K] of any type of numbers as class indices, constant columns dropped.

    Non-integer columns are continuous: ValueError unless `factor_bins` cuts every column into equal-width
    bins. `rows` (default n) must reach `min_per_value` times the number of values of every factor.
    """
    total, bounds = factors.shape[1], None
    if factor_bins is not None:
        if not 2 <= factor_bins <= 10_000:
            raise ValueError(f"factor_bins must be in 2..10000, got {factor_bins}")
        bounds = (*extremes(factors), factor_bins)
    else:
        _not_continuous(factors)
    rows = len(factors) if rows is None else rows
    columns, sizes, values = [], [], []
    kept: list[int] = []
    reasons: dict[str, str] = {}
    partial: set[int] = set()
    for k in range(total):
        column = factors[:, k]
        if bounds is not None:
            column = cut(column[:, None], bounds[0][k, None], bounds[1][k, None], bounds[2])[:, 0]
        known = present(column)
        found, index = levels(column[known])
        if len(found) < 2:
            reasons |= dropped(k)
            continue
        there = rows if isinstance(known, slice) else rows * len(known) // len(factors)
        if there < min_per_value * len(found):
            wanted = f"needs at least {counted(min_per_value * len(found), 'row')}, got {there}"
            raise Unfit(f"{{}} has {counted(len(found), 'value')}: {wanted}", Column("factor", k))
        if not isinstance(known, slice):
            reasons |= missing(k, len(factors) - len(known), len(factors))
            partial.add(len(kept))
            index = torch.full(column.shape, -1, dtype=index.dtype, device=index.device).index_copy_(0, known, index)
        columns.append(index)
        sizes.append(len(found))
        kept.append(k)
        values.append(found)
    if not kept:
        raise ValueError("every factor is constant: nothing to score")
    return Labels(columns, sizes, kept, total, reasons, values, bounds, partial)


def _not_continuous(factors: Tensor) -> None:
    """Raise Unfit that names the first column [n, K] with a value between whole numbers."""
    for k in range(factors.shape[1]):
        if fractional(factors[:, k]):
            raise Unfit(
                "{} is continuous but this score needs discrete factors: cut it with {}, or use dci with {}",
                Column("factor", k),
                Argument("factor_bins", "--bins N"),
                Argument("predictor='lasso'", "--predictor lasso (predictor=lasso)"),
            )


def fractional(column: Tensor) -> bool:
    """Whether a column [n] has a value between whole numbers; NaN is none."""
    return column.is_floating_point() and any(
        bool(((part != part.round()) & ~part.isnan()).any()) for part in parts(column)
    )


def levels(column: Tensor) -> tuple[Tensor, Tensor]:
    """The values of whole numbers [n], rising, float64, and the place of each row's among them in the narrowest type:
    by counting where their range is no wider than the column is long, since sorting takes many times as long."""
    if not len(column):
        return column.double(), column.char()
    low, high = (end.double() for end in column.aminmax())
    if not float(high - low) < len(column):
        values, index = column.double().unique(return_inverse=True)
        return values, index.to(whole_numbers(len(values)))
    there = torch.zeros(int(high - low) + 1, dtype=torch.bool, device=column.device)
    for part in parts(column):
        there[(part - low).long()] = True
    values = there.nonzero()[:, 0].double() + low
    place = (there.cumsum(0) - 1).to(whole_numbers(len(values)))
    index = torch.empty(column.shape, dtype=place.dtype, device=column.device)
    for at in spans(len(column), 1, room(column)):
        index[at] = place[(column[at].double() - low).long()]
    return values, index


def extremes(factors: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each column [n, K] that is not NaN, float64 [K] each; 0 without any."""
    low = torch.full(factors.shape[1:], torch.inf, dtype=torch.float64, device=factors.device)
    high = -low
    for part in parts(factors):
        gap = part.isnan()
        low = torch.minimum(low, part.masked_fill(gap, torch.inf).amin(0))
        high = torch.maximum(high, part.masked_fill(gap, -torch.inf).amax(0))
    return low.nan_to_num(0.0, 0.0, 0.0), high.nan_to_num(0.0, 0.0, 0.0)


def cut(factors: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Equal-width bins as float64; NaN stays."""
    return equal_width(factors, low, high, bins).double().masked_fill_(factors.isnan(), torch.nan)


def missing(factor: int, gaps: int, rows: int) -> dict[str, str]:
    """That rows without a value of a factor are left out for it alone."""
    column = Column("factor", factor)
    told = f"{{}} has no value in {gaps:,} of {counted(rows, 'row')}: they are left out for it alone"
    return {Sentence("{}", column): Sentence(told, column)}


def stand_ins(factors: Tensor, continuous: Sequence[int]) -> Tensor:
    """Factors [n, K] with the columns `continuous` replaced by whether they exceed their mean: what `discrete` needs to
    see whether they vary, for scores that read their values elsewhere.
    """
    columns = list(continuous)
    if not columns:
        return factors
    factors = factors.to(torch.float64, copy=True)
    given = factors[:, columns]
    factors[:, columns] = (given > given.nanmean(0)).to(factors.dtype).masked_fill_(given.isnan(), torch.nan)
    return factors


def varying(factors: Tensor) -> tuple[list[int], dict[str, str]]:
    """Columns of a continuous factor table [n, K] that vary, and the reasons for those left out."""
    low, high = extremes(factors)
    kept = (high > low).nonzero()[:, 0].tolist()
    if not kept:
        raise ValueError("every factor is constant: nothing to score")
    reasons: dict[str, str] = {}
    for k, gaps in enumerate(factors.isnan().sum(0).tolist()):
        reasons |= {} if k in kept else dropped(k)
        reasons |= missing(k, gaps, len(factors)) if k in kept and gaps else {}
    return kept, reasons


def dropped(factor: int, name: str = "") -> dict[str, str]:
    """The reason for leaving out a constant factor, by that factor; name: where the caller gave one."""
    column: Mention = Plain(f"factor '{name}'") if name else Column("factor", factor)
    return {Sentence("{}", column): Sentence("{} is constant: dropped", column)}


def live_codes(codes: Tensor) -> Tensor:
    """Mask [D] of the codes that are not constant (their range is exactly zero)."""
    return codes.amax(0) > codes.amin(0)


def left_out(live: Tensor, rest: str = "") -> Sentence:
    """That constant codes are left out. live: bool [D], those that are not."""
    constant = Columns("code", tuple((~live).nonzero()[:, 0].tolist()))
    return Sentence("constant {} left out" + rest, constant)


def standardise(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Columns to zero mean and unit population standard deviation of `train`; constant columns become 0."""
    mean, sd = train.mean(0), train.std(0, correction=0)
    scale = torch.where(live_codes(train), 1 / sd.clamp_min(torch.finfo(sd.dtype).tiny), torch.zeros_like(sd))
    return [(x - mean).mul_(scale) for x in (train, *others)]


def labels_1d(array: Array, name: str) -> Tensor:
    """A vector of class labels [n] as int64 class indices 0..S-1 (by sorted value)."""
    x = matrix(array, name, min_rows=1, own=True)
    if x.shape[1] != 1:
        raise ValueError(f"{name} must be one column of labels, got shape {tuple(x.shape)}")
    if fractional(x[:, 0]):
        raise ValueError(f"{name} must hold class indices, found fractional values")
    return levels(x[:, 0])[1].long()


def array(x: Tensor) -> np.ndarray:
    """A tensor as numpy float64."""
    return x.detach().double().cpu().numpy()


def finish(result: Result, reasons: dict[str, str]) -> Result:
    """`result` with the key `reasons` when there is anything to say."""
    if reasons:
        result["reasons"] = reasons
    return result


def one_of(value: str, allowed: Sequence[str], name: str) -> None:
    """ValueError that lists the allowed words when `value` is none of them."""
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")
