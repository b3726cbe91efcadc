"""How much parts of a state know of each other one step later: functions of arrays, float64, no model.

A pair is a state at t and the state at t + 1. Parts are units of the state, int64 `[m]` each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from distk.console import counted

CHUNK = 1 << 22
"""Distances that are held at once, for each part."""
ROUNDING = 1e-12
"""Of a unit's scale: a spread below it is none."""


def ceiling(pairs: int, k: int) -> float:
    """What the estimate of `mutual_information` is for a part that is known exactly, nats: psi(pairs) - psi(k).

    Nothing that it is given can score higher, whatever the true information: it only knows ranks of distances.
    """
    top, bottom = torch.special.digamma(torch.tensor([pairs, k], dtype=torch.float64)).tolist()
    return float(top - bottom)


def mutual_information(now: Sequence[Tensor], then: Sequence[Tensor], k: int = 3) -> Tensor:
    """Mutual information of every part at t + 1 with every part at t, nats, float64 `[then, now]`.

    Estimator 1 of Kraskov, Stoegbauer & Grassberger (2004, eq. 8) with the maximum norm, on the coordinates as they
    are: psi(k) + psi(n) - mean[psi(n_x + 1) + psi(n_y + 1)], where n_x counts the other points strictly nearer in x
    than the k-th neighbour in both. now, then: `[n, d]` per part. Distances within a part are computed once for all
    pairs of parts. Slightly negative values are estimates of 0.

    Raises ValueError for fewer than k + 2 pairs, and where more than k pairs coincide, which leaves no distance to
    count by: then a part does not vary, or pairs were drawn twice.
    """
    n = len(now[0])
    if n < k + 2:
        raise ValueError(
            f"no distance to neighbour {k} can be measured over {counted(n, 'pair')}: at least {k + 2} are needed"
        )
    psi = torch.special.digamma
    head = float(psi(torch.tensor([float(k), float(n)], dtype=torch.float64)).sum())
    total = torch.zeros(len(then), len(now), dtype=torch.float64, device=now[0].device)
    stuck = torch.zeros(len(then), len(now), dtype=torch.float64, device=now[0].device)
    for rows in torch.arange(n, device=now[0].device).split(max(1, CHUNK // n)):
        at = [_distances(part.double(), rows) for part in now]
        after = [_distances(part.double(), rows) for part in then]
        for i, y in enumerate(after):
            for j, x in enumerate(at):
                radius = torch.maximum(x, y).topk(k, 1, largest=False).values[:, -1:]
                stuck[i, j] += (radius == 0).sum()
                for distance in (x, y):
                    total[i, j] += psi((distance < radius).sum(1).double() + 1).sum()
    if bool((stuck > 0).any()):
        i, j = divmod(int(stuck.argmax()), len(now))
        raise ValueError(
            f"{float(stuck.max()) / n:.0%} of the {counted(n, 'pair')} coincide with {k} others (part {j} at t, part"
            f" {i} at t + 1), which leaves no distance to count by: these parts do not vary, or pairs were given twice"
        )
    return head - total / n


def _distances(points: Tensor, rows: Tensor) -> Tensor:
    """Maximum norm from some rows to all, `[rows, n]`, unit by unit; a point's distance to itself is infinite."""
    distance = points.new_zeros(len(rows), len(points))
    for column in points.T:
        torch.maximum(distance, (column[rows, None] - column).abs_(), out=distance)
    distance[torch.arange(len(rows), device=rows.device), rows] = torch.inf
    return distance


def same_and_cross(table: Tensor, order: Literal["all", "upper"] = "all") -> tuple[float, float]:
    """Mean information of a part with its own next state, and with another part: from `mutual_information`'s table.

    order: over all ordered pairs of parts, or only those where the later state is of the part with the higher number,
    as in the authors' program. The second is NaN with one part.
    """
    k = len(table)
    if k < 2:
        return float(table.diagonal().mean()), math.nan
    off = torch.ones(k, k, dtype=torch.bool, device=table.device)
    off = off.tril(-1) if order == "upper" else off.fill_diagonal_(False)
    return float(table.diagonal().mean()), float(table[off].mean())


def partitions(size: int, parts: int, count: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """`count` random ways to cut `size` units into parts of equal size, int64 on the host.

    Raises ValueError where the size is no multiple of the number of parts.
    """
    if parts < 2 or size % parts:
        raise ValueError(f"{counted(size, 'unit')} cannot be cut into {parts} equal parts")
    for _ in range(count):
        yield list(torch.randperm(size, generator=generator).view(parts, -1).sort(1).values)


def correlation(now: Tensor, then: Tensor) -> Tensor:
    """Pearson's r of every unit at t (rows) with every unit at t + 1 (columns), float64 `[units, units]`.

    0 where a unit does not vary.
    """
    a, b = (value.double() - value.double().mean(0) for value in (now, then))
    sides = []
    for value in (a, b):
        norm = value.norm(dim=0)
        level = ROUNDING * math.sqrt(len(value)) * value.abs().amax(0).clamp(min=1)
        sides.append(torch.where(norm > level, value / norm.clamp(min=1e-300), 0.0))
    return sides[0].T @ sides[1]


def blocks(matrix: Tensor, parts: Sequence[Tensor]) -> tuple[float, float]:
    """Mean |r| within the parts' diagonal blocks over mean |r| outside them, and mean |r| over all of `matrix`."""
    within = torch.zeros_like(matrix, dtype=torch.bool)
    for units in parts:
        within[units[:, None], units] = True
    size = matrix.abs()
    outside = float(size[~within].mean()) if bool((~within).any()) else math.nan
    return float(size[within].mean()) / outside if outside else math.nan, float(size.mean())


def explained(code: Tensor, source: Tensor) -> float:
    """R^2 of the least-squares fit of `source` `[n, s]` by `code` `[n, d]` and a constant, over all its coordinates."""
    code, source = code.double(), source.double()
    design = torch.cat([code, torch.ones_like(code[:, :1])], 1)
    left = source - design @ torch.linalg.lstsq(design, source, driver="gelsd").solution
    return 1 - float(left.square().sum() / (source - source.mean(0)).square().sum())


def alignment(table: Tensor) -> tuple[float, float, float]:
    """Of R^2 `[parts, sources]` the best one-to-one matching: mean over matched pairs less mean over the others, and
    both means. NaN for the others where there are none."""
    at, of = (torch.as_tensor(index) for index in linear_sum_assignment(-table.numpy()))
    matched = torch.zeros_like(table, dtype=torch.bool)
    matched[at, of] = True
    mean = float(table[matched].mean())
    other = float(table[~matched].mean()) if bool((~matched).any()) else math.nan
    return mean - other, mean, other
