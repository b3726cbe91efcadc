"""From a table of codes to the arrays that the scores take: which columns, which rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import CodeTable, UsageError, option, seeded

TRAIN, TEST = 10_000, 5_000
"""Rows that disentanglement_lib draws for predictors; other scores take the first number."""


@dataclass(frozen=True)
class Config:
    """What stands for the representation of an item."""

    code: Literal["mean", "sample"] = option("mean", "posterior means, or one draw from the posterior per item")


@dataclass(frozen=True)
class PredictorConfig(Config):
    """As `Config`, and how a discrete code enters a predictor."""

    discrete: Literal["index", "onehot"] = option("index", "a discrete code as one column of indices or as indicators")


def codes(table: CodeTable, config: Config, seed: int) -> Tensor:
    """Columns of the representation, `[N, D]`; with `code="sample"` fresh noise per row and call.

    Raises UsageError when samples are asked for and the codes have no posterior.
    """
    if config.code == "mean":
        return table.codes
    if table.std is None:
        raise UsageError("sampled codes were asked for, but this representation has no posterior.")
    noise = torch.randn(table.codes.shape, generator=seeded(seed, table.codes.device), device=table.codes.device)
    return table.codes + noise * table.std.nan_to_num(0.0)


def factors(table: CodeTable) -> Tensor:
    """Factors `[N, K]` on the codes' device."""
    return table.needs_factors().to(table.codes.device)


def onehot(values: Tensor, table: CodeTable) -> Tensor:
    """Columns with each categorical one replaced by its indicators."""
    parts = []
    for d, kind in enumerate(table.kinds):
        column = values[:, d : d + 1]
        if kind == "categorical":
            present = table.codes[:, d].unique()
            column = (column == present).to(values.dtype)
        parts.append(column)
    return torch.cat(parts, 1)


def draw(table: CodeTable, config: Config, seed: int, rows: int) -> tuple[Tensor, ...]:
    """(codes, factors) of `rows` items: P1 on a full grid, else a shuffle without repetition; a file as it is."""
    values, truth = codes(table, config, seed), factors(table)
    picked = _rows(table, rows, seed)
    return values[picked], truth[picked]


def draw_split(table: CodeTable, config: PredictorConfig, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(codes, factors, codes_test, factors_test) for predictors; two thirds for training where rows are scarce."""
    values, truth = codes(table, config, seed), factors(table)
    if config.discrete == "onehot":
        values = onehot(values, table)
    picked = _rows(table, TRAIN + TEST, seed)
    cut = min(TRAIN, len(picked) * 2 // 3)
    train, test = picked[:cut], picked[cut:]
    return values[train], truth[train], values[test], truth[test]


def _rows(table: CodeTable, rows: int, seed: int) -> Tensor:
    device = table.codes.device
    if table.grid and len(table) >= rows:
        # With replacement from the grid, as published; a small grid would put one item on both sides of a split.
        return table.sample_rows(rows, seeded(seed, device))
    if table.model is None:
        return torch.arange(min(rows, len(table)), device=device)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    return order[:rows].to(device)


def named(result: Mapping[str, Any], table: CodeTable) -> dict[str, Any]:
    """A score's result with the names of codes and factors beside its arrays, for plots."""
    return {**result, "code_names": list(table.names), "factor_names": list(table.factor_names)}
