"""Figures of a covariance matrix: how correlated the units of a code are, and on how few its variance lies."""

from __future__ import annotations

import torch
from torch import Tensor

from distk.console import counted
from distk.errors import UsageError
from distk.metric import CodeTable

ALIVE = 1e-3
"""A unit varies whose variance exceeds this share of the largest unit's."""


def columns_of(table: CodeTable, layer: str) -> list[int]:
    """Columns of a table that belong to `layer`: code for all continuous ones, or a group.

    Raises UsageError where there are none.
    """
    continuous = [i for i, kind in enumerate(table.kinds) if kind != "categorical"]
    groups = {g.name: g.columns for g in table.model.latents if g.kind != "categorical"} if table.model else {}
    if layer in groups:
        return [i for i in continuous if table.names[i] in groups[layer]]
    if layer != "code":
        raise UsageError(f"there is no layer '{layer}'; there is {', '.join(['code', *groups])}.")
    if not continuous:
        raise UsageError("there is no continuous code, so there are no units to correlate.")
    return continuous


def statistics(c: Tensor, d: int | None = None) -> dict[str, Tensor]:
    """Figures of covariances `[..., p, p]`, float64, each `[...]`; none depends on the units' order, sign or scale.

    mapc: mean |correlation| of different units, NaN where a unit is constant. units_varying: those whose variance
    exceeds 0.001 of the largest; mapc_varying: mapc over those. cvr: sum |C_ij| / tr C, from 1 (diagonal) to p; the
    paper prints a further factor 1/p^2, with which its own figures would be impossible. tdv: share of tr C on the `d`
    units of largest variance. ud90: how many of these are needed for 0.9 of tr C. trace: tr C. Where tr C = 0 all but
    trace and units_varying are NaN.

    Raises UsageError for d above p.
    """
    p = c.shape[-1]
    if d is not None and d > p:
        raise UsageError(f"d = {d} is more than the {counted(p, 'unit')} of the layer.")
    variance = c.diagonal(dim1=-2, dim2=-1)
    trace = variance.sum(-1)
    whole = torch.where(trace > 0, trace, torch.nan)
    size = correlation(c).abs()
    alive = variance > ALIVE * variance.amax(-1, keepdim=True)
    both = alive.unsqueeze(-1) & alive.unsqueeze(-2)
    varying = alive.sum(-1).to(c.dtype)
    found = {
        "mapc": _off_diagonal(size) / (p * p - p) if p > 1 else torch.full_like(trace, torch.nan),
        "mapc_varying": _off_diagonal(torch.where(both, size, 0.0)) / (varying * varying - varying),
        "units_varying": varying,
        "cvr": c.abs().sum((-2, -1)) / whole,
        "trace": trace,
    }
    largest = variance.sort(-1, descending=True).values.cumsum(-1)
    if d is not None:
        found["tdv"] = largest[..., d - 1] / whole
    needed = 1 + (largest < (0.9 - 1e-12) * trace.unsqueeze(-1)).sum(-1).to(c.dtype)
    found["ud90"] = torch.where(trace > 0, needed, torch.nan)
    return found


def correlation(c: Tensor) -> Tensor:
    """Covariances `[..., p, p]` -> correlations; NaN for units without variance."""
    sd = c.diagonal(dim1=-2, dim2=-1).sqrt()
    return c / (sd.unsqueeze(-1) * sd.unsqueeze(-2))


def _off_diagonal(m: Tensor) -> Tensor:
    return m.sum((-2, -1)) - m.diagonal(dim1=-2, dim2=-1).sum(-1)
