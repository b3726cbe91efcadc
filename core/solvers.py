"""Many small problems solved side by side, as batched tensor code on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from distk.console import counted

CHECK_EVERY = 10
"""Iterations between two looks from the host at whether everything has converged."""


class Clusters(NamedTuple):
    """Of R runs. centres: `[R, K, d]`. labels: int64 `[R, n]`. inertia: sum of squares to the own centre, `[R]`."""

    centres: Tensor
    labels: Tensor
    inertia: Tensor


def random_points(x: Tensor, clusters: int, runs: int, generator: torch.Generator) -> Tensor:
    """Starts of k-means: in each run K different rows of x `[n, d]`, `[R, K, d]`. Raises ValueError for n < K."""
    if len(x) < clusters:
        raise ValueError(f"{counted(clusters, 'cluster')} need as many points, and there are {len(x)}")
    order = torch.rand(runs, len(x), generator=generator, device=generator.device).argsort(1)
    return x[order[:, :clusters].to(x.device)]


def kmeans(x: Tensor, start: Tensor, iterations: int = 300) -> Clusters:
    """Lloyd's algorithm on points x `[n, d]` from R sets of K centres `start` `[R, K, d]`, until no label changes.

    A cluster that lost all of its points goes on from the point of its run that lies farthest from its centre, several
    such clusters from the next farthest ones. Distances are best taken in float64, or of centred points.
    """
    centres = start
    labels, distance = _nearest(x, centres)
    for iteration in range(iterations):
        centres = _means(x, labels, distance, centres)
        before, (labels, distance) = labels, _nearest(x, centres)
        if iteration % CHECK_EVERY == CHECK_EVERY - 1 and torch.equal(before, labels):
            break
    return Clusters(centres, labels, distance.sum(1))


def _nearest(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each point and its squared distance, each `[R, n]`."""
    # |x|^2 + |c|^2 - 2 x.c, one matrix product for all runs; rounding can make it negative.
    cross = torch.matmul(x, centres.transpose(1, 2))
    square = (x.square().sum(1)[:, None] + centres.square().sum(2)[:, None] - 2 * cross).clamp_min(0)
    distance, labels = square.min(2)
    return labels, distance


def _means(x: Tensor, labels: Tensor, distance: Tensor, centres: Tensor) -> Tensor:
    """Mean of each cluster's points `[R, K, d]`; an empty one takes a far point."""
    runs, clusters, size = centres.shape
    index = labels.unsqueeze(2).expand(-1, -1, size)
    total = torch.zeros_like(centres).scatter_add_(1, index, x.expand(runs, -1, -1))
    count = torch.zeros(runs, clusters, dtype=x.dtype, device=x.device)
    count.scatter_add_(1, labels, torch.ones_like(distance))
    empty = count == 0
    far = x[distance.topk(clusters, 1).indices]
    turn = (empty.long().cumsum(1) - 1).clamp_min(0).unsqueeze(2).expand(-1, -1, size)
    return torch.where(empty.unsqueeze(2), far.gather(1, turn), total / count.clamp_min(1).unsqueeze(2))


class Minimum(NamedTuple):
    """Of B problems. x: `[B, d]`. value: `[B]`. slope: length of the gradient there, `[B]`. iterations: int64 `[B]`,
    how many each row took."""

    x: Tensor
    value: Tensor
    slope: Tensor
    iterations: Tensor


Function = Callable[[Tensor], Tensor]


def lbfgs(
    function: Function,
    start: Tensor,
    *,
    tol: float = 1e-8,
    iterations: int = 200,
    history: int = 10,
    trials: int = 25,
) -> Minimum:
    """A local minimum in every row, by L-BFGS: each row has its own history, step length and end.

    function: points `[B, d]` -> values `[B]`, differentiable, row i depending on row i alone. start: `[B, d]`. A row is
    done when its gradient is shorter than `tol`, and where no step lowers it any more (`Minimum.slope` tells which).
    trials: most evaluations of a line search for the weak Wolfe conditions, which brackets each row's step length.
    A gradient method with a scalar first scaling never leaves the span of start and gradients.
    """
    x = start.detach().clone()
    value, gradient = _evaluate(function, x)
    done = gradient.norm(dim=1) < tol
    taken = torch.zeros_like(done, dtype=torch.long)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for iteration in range(iterations):
        if iteration % CHECK_EVERY == 0 and bool(done.all()):
            break
        direction = _direction(gradient, pairs)
        uphill = (direction * gradient).sum(1, keepdim=True) >= 0
        direction = torch.where(uphill, -gradient, direction)
        first = torch.ones_like(value) if pairs else 1 / gradient.norm(dim=1).clamp_min(1e-30)
        moved, new_value, new_gradient = _line_search(function, x, value, gradient, direction, first, done, trials)
        s, y = moved - x, new_gradient - gradient
        curvature = (s * y).sum(1, keepdim=True)
        # A pair without positive curvature, as that of a row that stands still, says nothing: its weight is 0.
        useful = curvature > 1e-12 * s.norm(dim=1, keepdim=True) * y.norm(dim=1, keepdim=True)
        rho = torch.where(useful, 1 / torch.where(useful, curvature, 1.0), 0.0)
        taken = taken + ~done
        pairs = [*pairs[-(history - 1) :], (s, y, rho)] if history > 1 else [(s, y, rho)]
        done = done | (new_gradient.norm(dim=1) < tol) | (s == 0).all(1)
        x, value, gradient = moved, new_value, new_gradient
    return Minimum(x, value, gradient.norm(dim=1), taken)


def _evaluate(function: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = function(point)
        (gradient,) = torch.autograd.grad(value.sum(), point)
    return value.detach(), gradient


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """-H gradient of every row by the two-loop recursion, H scaled by the newest pair that counts."""
    q, weights = gradient, []
    scale = torch.ones_like(gradient[:, :1])
    for s, y, rho in reversed(pairs):
        weight = rho * (s * q).sum(1, keepdim=True)
        q = q - weight * y
        weights.append(weight)
    for _, y, rho in pairs:
        scale = torch.where(rho > 0, 1 / (rho * y.square().sum(1, keepdim=True)).clamp_min(1e-30), scale)
    r = scale * q
    for (s, y, rho), weight in zip(pairs, reversed(weights), strict=True):
        r = r + s * (weight - rho * (y * r).sum(1, keepdim=True))
    return -r


def _line_search(
    function: Function,
    x: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
    length: Tensor,
    done: Tensor,
    trials: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Points, values and gradients at a step of each row that meets the weak Wolfe conditions (1e-4, 0.9).

    A row whose search ends without one takes its best trial that is lower than where it stood, else it stays.
    """
    slope = (gradient * direction).sum(1)
    low, high = torch.zeros_like(value), torch.full_like(value, torch.inf)
    best = x, value, gradient
    searching = ~done
    for _ in range(trials):
        trial = x + length[:, None] * direction
        new_value, new_gradient = _evaluate(function, trial)
        short_of = ~(new_value <= value + 1e-4 * length * slope)  # not lower enough, or not a number
        steep = (new_gradient * direction).sum(1) < 0.9 * slope
        found = searching & ~short_of & ~steep
        take = found | (searching & (new_value < best[1]))
        best = (
            torch.where(take[:, None], trial, best[0]),
            torch.where(take, new_value, best[1]),
            torch.where(take[:, None], new_gradient, best[2]),
        )
        searching = searching & ~found
        if not bool(searching.any()):
            break
        high = torch.where(short_of, length, high)
        low = torch.where(~short_of & steep, length, low)
        bisected = torch.where(high.isinf(), 2 * low, (low + high) / 2)
        length = torch.where(searching, bisected, length)
    return best
