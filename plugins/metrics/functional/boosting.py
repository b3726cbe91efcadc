"""Exact gradient boosting with scikit-learn's objective, on codes that are sorted once.

Follows GradientBoostingClassifier's defaults (100 stages, learning rate 0.1, depth 3, multinomial deviance,
squared-error splits, Newton leaf values). Every boundary between two values is tried as a split, as there: bins would
lose the splits that part a few rows, and disentanglement of noisy codes with them. What scikit-learn sorts anew in
every node is sorted once here and handed down to the children in order (the exact greedy algorithm of Chen & Guestrin
2016), for all codes at a time. How well it agrees with scikit-learn: the figures of docs/metrics.md.

Unlike there, the result does not hang on how the codes are written down: splits that are equally good, of which there
are many among few rows, are chosen between by what the codes are (`_canonical`), not by where they stand.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Boosted(NamedTuple):
    """importance [D] (sums to 1, or 0 without any split); scores [n, S] and [m, S], argmax = prediction."""

    importance: Tensor
    scores: Tensor
    scores_test: Tensor


class _Sorted(NamedTuple):
    """Codes by column: values [D, n], order int64 [D, n] (rows by growing value), tied: columns with equal values."""

    values: Tensor
    order: Tensor
    tied: Tensor


class _Split(NamedTuple):
    """A node's best split: code, the largest value that goes left, threshold for other rows, decrease of squares."""

    code: int
    last: float
    threshold: float
    gain: float


def gradient_boosting(
    x: Tensor,
    y: Tensor,
    classes: int,
    x_test: Tensor,
    stages: int = 100,
    rate: float = 0.1,
    depth: int = 3,
    seed: int = 0,
) -> Boosted:
    """Boosted trees for one discrete factor.

    x: float64 [n, D]; y: int64 [n] in 0..classes-1, every class present; x_test [m, D]. `seed` breaks ties
    between codes whose splits are equally good, as scikit-learn's random feature order does. Importance = impurity
    decrease summed over splits, averaged over trees, normalised to sum 1. Another order of the codes, a code turned
    round, other units of it or further codes that are constant change nothing but the order of `importance`; codes
    that order the rows alike share theirs.
    """
    codes, signs, alike = _canonical(x)
    if not len(codes):  # nothing to split on: the classes' shares alone
        codes, signs, alike = codes.new_zeros(1), signs.new_ones(1), alike.new_zeros(1)
    fit = _boosted(x[:, codes] * signs, y, classes, x_test[:, codes] * signs, stages, rate, depth, seed)
    groups = int(alike[-1]) + 1
    shared = x.new_zeros(groups).index_add_(0, alike, fit.importance) / torch.bincount(alike, minlength=groups)
    importance = x.new_zeros(x.shape[1]).index_copy_(0, codes, shared[alike])
    return fit._replace(importance=importance)


def _canonical(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The codes x [n, D] in an order and a direction that follow from how each orders the rows, and from nothing else.

    Returns the places [C] of those that vary, in that order; 1 or -1 for each [C], so that the first of the rows with
    the least value comes before the first of those with the largest; and numbers [C] from 0 that are the same for codes
    that order the rows alike.
    """
    places = (x.amax(0) > x.amin(0)).nonzero()[:, 0].tolist()
    signs = {d: 1 if int(x[:, d].argmin()) < int(x[:, d].argmax()) else -1 for d in places}
    ranks = {d: (x[:, d] * signs[d]).unique(return_inverse=True)[1].cpu().numpy().tobytes() for d in places}
    places.sort(key=ranks.__getitem__)
    new = [bool(i) and ranks[d] != ranks[places[i - 1]] for i, d in enumerate(places)]
    turned = torch.tensor([signs[d] for d in places], dtype=x.dtype, device=x.device)
    codes = torch.tensor(places, dtype=torch.long, device=x.device)
    return codes, turned, torch.tensor(new, dtype=torch.long, device=x.device).cumsum(0)


def _boosted(
    x: Tensor, y: Tensor, classes: int, x_test: Tensor, stages: int, rate: float, depth: int, seed: int
) -> Boosted:
    """`gradient_boosting` of codes as they stand."""
    n, d = x.shape
    values = x.T.contiguous()
    ordered, order = values.sort(dim=1, stable=True)
    table = _Sorted(values, order, (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero()[:, 0])
    trees = 1 if classes == 2 else classes
    target = torch.nn.functional.one_hot(y, classes)[:, classes - trees :].double().T.contiguous()
    prior = target.mean(1, keepdim=True)
    start = (prior / (1 - prior)).log() if trees == 1 else prior.log() - prior.log().mean()
    scores, scores_test = start.repeat(1, n), start.repeat(1, len(x_test))
    scale = rate * (1.0 if trees == 1 else (classes - 1) / classes)
    importance = x.new_zeros(d)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(stages):
        p = scores.sigmoid() if trees == 1 else scores.softmax(0)
        for tree in range(trees):
            residual = target[tree] - p[tree]
            steps = residual, scale, scores[tree], scores_test[tree]
            _grow(table, x_test, table.order, torch.arange(len(x_test), device=x.device), depth, steps, p[tree],
                  importance, generator)  # fmt: skip
    total = importance.sum()
    importance = importance / total if float(total) > 0 else torch.zeros_like(importance)
    scores, scores_test = scores.T, scores_test.T
    if trees == 1:
        scores, scores_test = (torch.cat([torch.zeros_like(s), s], 1) for s in (scores, scores_test))
    return Boosted(importance, scores, scores_test)


def _grow(
    table: _Sorted,
    x_test: Tensor,
    order: Tensor,
    rows_test: Tensor,
    depth: int,
    steps: tuple[Tensor, float, Tensor, Tensor],
    p: Tensor,
    importance: Tensor,
    generator: torch.Generator,
) -> None:
    """Grow a tree of at most `depth` levels below one node, adding its leaf values to the scores in place.

    order int64 [D, m]: the node's rows by every code's values. rows_test [m_test]: the other rows that reach it.
    steps: residuals [n], the learning rate, scores [n], scores of the other rows; p [n]: probabilities. importance [D]
    grows, too.
    """
    residual, scale, scores, scores_test = steps
    rows = order[0]
    split = _best_split(table, order, residual, generator) if depth and len(rows) > 1 else None
    if split is None:
        # One Newton step per leaf: sum r / sum p (1 - p) (Friedman 2001, Algorithm 6)
        own = p[rows]
        bottom = float((own * (1 - own)).sum())
        value = scale * float(residual[rows].sum()) / bottom if bottom > 1e-150 else 0.0
        scores[rows] += value
        scores_test[rows_test] += value
        return
    importance[split.code] += split.gain
    left = table.values[split.code] <= split.last
    inside, left_test = left[order], x_test[rows_test, split.code] <= split.threshold
    for mask, mask_test in ((inside, left_test), (~inside, ~left_test)):
        child = order[mask].view(len(order), -1)  # every code has the same rows on this side, in its own order
        _grow(table, x_test, child, rows_test[mask_test], depth - 1, steps, p, importance, generator)


def _best_split(table: _Sorted, order: Tensor, residual: Tensor, generator: torch.Generator) -> _Split | None:
    """The split of a node with the largest decrease of the residuals' sum of squares; None where nothing is gained.

    With centred residuals, left sums L of `k` of `m` rows decrease it by m L^2 / (k (m - k)).
    """
    d, m = order.shape
    mean = residual[order[0]].mean()
    gain = (residual - mean)[order[:, :-1]].cumsum_(1).square_()
    k = torch.arange(1, m, dtype=gain.dtype, device=gain.device)
    gain.mul_(m / (k * (m - k)))
    if len(table.tied):
        values = table.values[table.tied].gather(1, order[table.tied])
        gain[table.tied] = torch.where(values[:, 1:] > values[:, :-1], gain[table.tied], -1.0)
    best, at = gain.max(1)
    top = float(best.max())
    if top <= 1e-10 * float(mean.square()) * m + 1e-20:  # rounding noise of a pure node
        return None
    # Equal codes give equal gains up to rounding: one is drawn, or the first would take all importance.
    draw = torch.rand(d, generator=generator, dtype=torch.float64).to(best.device)
    code = int(torch.where(best >= top - 1e-9 * top, draw, -1.0).argmax())
    place = order[code, int(at[code]) :][:2]
    last, following = table.values[code, place].tolist()
    return _Split(code, last, (last + following) / 2, top)
