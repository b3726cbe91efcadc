"""Class indices of discrete codes as indicators: no reader takes the name of a class for a number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .sentences import Column, Unfit


def class_columns(codes: Tensor, discrete: bool | Sequence[int]) -> Tensor:
    """Mask [D] of the codes [n, D] that are class indices: all (True), none, or those of these numbers.

    Raises ValueError for one that holds anything but whole numbers.
    """
    mask = torch.zeros(codes.shape[1], dtype=torch.bool, device=codes.device)
    if discrete is True:
        mask[:] = True
    elif discrete is not False:
        mask[list(discrete)] = True
    broken = [d for d in mask.nonzero()[:, 0].tolist() if checks.fractional(codes[:, d])]
    if broken:
        first = Column("code", broken[0])
        raise Unfit("{} is said to be discrete, but has values between whole numbers", first)
    return mask


def classes(column: Tensor) -> Tensor:
    """The values of a column [n], in order of their first row: however classes are called, this order stays."""
    values, index = column.unique(return_inverse=True)
    place = torch.arange(len(column), device=column.device)
    first = torch.full((len(values),), len(column), device=column.device).scatter_reduce(0, index, place, "amin")
    return values[first.argsort()]


def indicators(codes: Tensor, discrete: Sequence[int], *others: Tensor) -> tuple[list[Tensor], list[int]]:
    """Codes [n, D] and further rows [m, D] with the columns `discrete` replaced by an indicator of each of their
    classes in `codes`, and the code that each of the new columns belongs to.

    A class that `codes` lacks is 0 in all columns of its code. Raises ValueError for what is no class index.
    """
    parts = [codes, *others]
    if not len(discrete):
        return parts, list(range(codes.shape[1]))
    mask = class_columns(codes, discrete).tolist()
    made: list[list[Tensor]] = [[] for _ in parts]
    owner: list[int] = []
    for d, counted in enumerate(mask):
        values = classes(codes[:, d]) if counted else None
        owner += [d] * (1 if values is None else len(values))
        for columns, part in zip(made, parts, strict=True):
            column = part[:, d, None]
            columns.append(column if values is None else (column == values).to(part.dtype))
    return [torch.cat(columns, 1) for columns in made], owner


def summed(columns: Tensor, owner: Sequence[int]) -> Tensor:
    """Sums [D, K] over the columns [D', K] of each code."""
    if len(owner) == max(owner) + 1:
        return columns
    total = columns.new_zeros(max(owner) + 1, *columns.shape[1:])
    return total.index_add_(0, torch.tensor(owner, device=columns.device), columns)


def read(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(mean [D], weight [D, K]) of the least-squares map of columns x [n, D] onto y [n, K]: of indicators, the mean of
    y in each class. Columns may depend on each other, as the indicators of all classes do."""
    mean = x.mean(0)
    centred = x - mean
    gram = centred.T @ centred / len(x)
    return mean, torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ (centred.T @ (y - y.mean(0)) / len(x))
