"""Histogram gradient boosting with scikit-learn's objective, all classes of a factor at once.

Follows GradientBoostingClassifier's defaults (100 stages, learning rate 0.1, depth 3, multinomial deviance,
squared-error splits, Newton leaf values) on codes cut into at most ~255 quantile bins, so that one sparse
product per tree level builds the histograms of every class, node, code and bin. How well it agrees with scikit-learn:
the figures of docs/metrics.md.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

# With few rows per bin the cuts shift the importances (D by up to 0.04 at 1000 rows and 255 bins, but
# below 0.005 at 6000), so that small tables keep every value.
EXACT_ROWS = 2048


class Boosted(NamedTuple):
    """importance [D] (sums to 1, or 0 without any split); scores [n, S] and [m, S], argmax = prediction."""

    importance: Tensor
    scores: Tensor
    scores_test: Tensor


class _Bins(NamedTuple):
    """bins int64 [n, D]; low, high [D, B]: extreme training values of a bin; one-hot CSR [D*B, n]."""

    bins: Tensor
    low: Tensor
    high: Tensor
    one_hot: Tensor


class _Split(NamedTuple):
    """Per node and tree, [nodes, P]: split code, last bin going left, real threshold, gain (0: no split)."""

    code: Tensor
    bin: Tensor
    threshold: Tensor
    gain: Tensor


def gradient_boosting(
    x: Tensor,
    y: Tensor,
    classes: int,
    x_test: Tensor,
    stages: int = 100,
    rate: float = 0.1,
    depth: int = 3,
    bins: int = 255,
    seed: int = 0,
) -> Boosted:
    """Boosted trees for one discrete factor.

    Codes are cut into about `bins` quantile bins, or kept as they are up to EXACT_ROWS rows.

    x: float64 [n, D]; y: int64 [n] in 0..classes-1, every class present; x_test [m, D]. `seed` breaks ties
    between codes whose splits are equally good (identical codes), as scikit-learn's random feature order
    does. Importance = impurity decrease summed over splits, averaged over trees, normalised to sum 1.
    """
    n, d = x.shape
    table = _quantile_bins(x, max(bins, n) if n <= EXACT_ROWS else bins)
    trees = 1 if classes == 2 else classes
    target = torch.nn.functional.one_hot(y, classes)[:, classes - trees :].double()
    prior = target.mean(0)
    score = (prior / (1 - prior)).log() if trees == 1 else prior.log() - prior.log().mean()
    scores, scores_test = score.repeat(n, 1), score.repeat(len(x_test), 1)
    scale = rate * (1.0 if trees == 1 else (classes - 1) / classes)
    importance = x.new_zeros(d)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(stages):
        p = scores.sigmoid() if trees == 1 else scores.softmax(1)
        residual = target - p
        node = torch.zeros_like(scores, dtype=torch.int64)
        node_test = torch.zeros_like(scores_test, dtype=torch.int64)
        histogram = None
        for level in range(depth):
            histogram = _histograms(table, residual, node, level, histogram)
            split = _best_splits(*histogram, table, generator)
            importance.index_add_(0, split.code.reshape(-1), split.gain.reshape(-1))
            node = _route(node, split.code, split.bin, table.bins)
            node_test = _route(node_test, split.code, split.threshold, x_test)
        value = scale * _leaf_values(node, residual, p, 2**depth)
        scores += value.gather(0, node)
        scores_test += value.gather(0, node_test)
    total = importance.sum()
    importance = importance / total if float(total) > 0 else torch.zeros_like(importance)
    if trees == 1:
        scores, scores_test = (torch.cat([torch.zeros_like(s), s], 1) for s in (scores, scores_test))
    return Boosted(importance, scores, scores_test)


def _quantile_bins(x: Tensor, bins: int) -> _Bins:
    """Cut every code at its quantiles; runs of equal values stay whole, and few distinct values keep a bin
    each.

    The cut positions are symmetric (k and n - k), so that flipping a code's sign gives the mirrored bins.
    """
    n, d = x.shape
    half = torch.arange(1, bins // 2 + 1, device=x.device) * n // bins
    wanted = torch.cat([half, n - half]).unique()
    wanted = wanted[(wanted > 0) & (wanted < n)]
    ordered, order = x.sort(0)
    index = torch.empty_like(order)
    parts = []
    for j in range(d):
        column = ordered[:, j].contiguous()
        starts = torch.cat([wanted.new_zeros(1), (column[1:] != column[:-1]).nonzero()[:, 0] + 1])
        if len(starts) > bins:  # move each cut to both ends of the run of equal values that it falls into
            at = torch.searchsorted(starts, wanted)
            ends = torch.cat([starts, starts.new_tensor([n])])
            inside = ends[at] != wanted
            before = ends[(at - inside.long()).clamp_min(0)]
            starts = torch.cat([starts[:1], before, ends[at]]).unique()
            starts = starts[starts < n]
        stops = torch.cat([starts[1:], starts.new_tensor([n])])
        index[order[:, j], j] = torch.repeat_interleave(torch.arange(len(starts), device=x.device), stops - starts)
        parts.append((column[starts], column[stops - 1]))
    width = max(len(low) for low, _ in parts)
    low, high = (torch.stack([torch.nn.functional.pad(p[i], (0, width - len(p[i]))) for p in parts]) for i in (0, 1))
    cell = (index + torch.arange(d, device=x.device) * width).T.reshape(-1)
    members = cell.argsort(stable=True) % n
    pointers = torch.bincount(cell, minlength=d * width).cumsum(0)
    pointers = torch.cat([pointers.new_zeros(1), pointers])
    ones = torch.ones(n * d, dtype=x.dtype, device=x.device)
    with warnings.catch_warnings():  # torch announces once per process that CSR tensors are in beta
        warnings.simplefilter("ignore")
        one_hot = torch.sparse_csr_tensor(pointers, members, ones, size=(d * width, n), check_invariants=False)
    return _Bins(index, low, high, one_hot)


def _histograms(
    table: _Bins, residual: Tensor, node: Tensor, level: int, parents: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Sums of residuals and row counts [D, B, nodes, P] of one level.

    Only the left children are summed; a right child is its parent minus its sibling.
    """
    n, trees = residual.shape
    d, width = table.low.shape
    if parents is None:
        sums = (table.one_hot @ residual).view(d, width, 1, trees)
        counts = table.one_hot.crow_indices().diff().double().view(d, width, 1, 1).expand_as(sums)
        return sums, counts
    nodes = 2 ** (level - 1)
    left = torch.arange(nodes, device=node.device) * 2
    inside = (node[:, None, :] == left[None, :, None]).to(residual.dtype)
    stacked = torch.stack([inside * residual[:, None, :], inside], 1).view(n, -1)
    both = (table.one_hot @ stacked).view(d, width, 2, nodes, trees)
    children = []
    for parent, first in zip(parents, both.unbind(2), strict=True):
        children.append(torch.stack([first, parent - first], 3).view(d, width, 2 * nodes, trees))
    return children[0], children[1]


def _best_splits(sums: Tensor, counts: Tensor, table: _Bins, generator: torch.Generator) -> _Split:
    """The split of every node with the largest decrease of the residuals' sum of squares."""
    d, width, nodes, trees = sums.shape
    left, n_left = sums.cumsum(1), counts.cumsum(1)
    total, n_total = left[:1, -1:], n_left[:1, -1:]
    n_right = n_total - n_left
    base = total.square() / n_total.clamp_min(1)
    gain = left.square() / n_left + (total - left).square() / n_right - base
    gain = torch.where((n_left > 0.5) & (n_right > 0.5), gain, -1.0)
    best, at = gain.max(1)  # [D, nodes, P]
    top = best.amax(0)
    # Equal codes give equal gains up to rounding: one is drawn, or the first would take all importance.
    draw = torch.rand(d, nodes, trees, generator=generator, dtype=torch.float64).to(sums.device)
    code = torch.where(best >= top - 1e-9 * top.abs(), draw, -1.0).argmax(0)
    cut = at.gather(0, code[None])[0]
    useful = top > 1e-10 * base[0, 0] + 1e-20  # below this, a "gain" is rounding noise of a pure node
    pick = code[None, None].expand(1, width, nodes, trees)
    reached = n_left.gather(0, pick)[0]
    at_cut = reached.gather(0, cut[None])
    following = (reached > at_cut + 0.5).to(torch.uint8).argmax(0)  # the next bin with rows of this node
    threshold = (table.high[code, cut] + table.low[code, following]) / 2
    return _Split(
        code,
        torch.where(useful, cut, width),
        torch.where(useful, threshold, torch.inf),
        torch.where(useful, top, 0.0),
    )


def _route(node: Tensor, code: Tensor, limit: Tensor, values: Tensor) -> Tensor:
    """Child node [n, P] of every row: 2 * node, plus 1 where the node's split code exceeds its limit."""
    chosen = values.gather(1, code.gather(0, node))
    return 2 * node + (chosen > limit.gather(0, node))


def _leaf_values(node: Tensor, residual: Tensor, p: Tensor, leaves: int) -> Tensor:
    """One Newton step per leaf [leaves, P]: sum r / sum p (1 - p) (Friedman 2001, Algorithm 6)."""
    top = residual.new_zeros(leaves, residual.shape[1]).scatter_add_(0, node, residual)
    bottom = torch.zeros_like(top).scatter_add_(0, node, p * (1 - p))
    return torch.where(bottom > 1e-150, top / bottom.clamp_min(1e-150), 0.0)
