"""Fairness: do predictions of one factor change when another, sensitive one does (Locatello et al. 2019)?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distk.console import counted

from . import checks
from .boosting import gradient_boosting
from .checks import Array, Result
from .indicators import indicators
from .sampling import GridSampler
from .solvers import contingency, logistic_regression

SMALL = 1000
"""Rows that are drawn of a grid that has fewer."""


class _Asked(NamedTuple):
    """Rows whose predictions are compared: codes [m, D], value of the sensitive factor int64 [m] for each sensitive
    factor, by its number, and where its rows lie."""

    codes: Tensor
    groups: dict[int, tuple[slice, Tensor]]


def fairness(
    codes: Array,
    factors: Array | None = None,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    *,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    predictor: str = "gbt",
    train: int = 10_000,
    points: int = 100,
    discrete: Sequence[int] = (),
) -> Result:
    """Unfairness of predictors that read one factor from codes [n, D] when another factor changes; LOWER is better.

    For each target factor i a predictor ('gbt': boosted trees, 'lr': logistic regression) is fitted on `train` rows.
    unfair_ij = mean over the values v of the sensitive factor j, weighted by their rows, of the total variation
    distance 1/2 sum_y |p(y | v) - p(y)| of its predictions. unfairness = mean over i != j; worst = the largest over
    pairs of the largest over v. Both in [0, 1].
    sizes: the codes are a full grid of these factors, row-major, last factor fastest; then `points` random rows have
    factor j set to every value in turn and keep all others (an intervention). Without: factors [n, K], and the groups
    are the test rows that have the value (without test rows 2/3 : 1/3 in order); there factors that depend on each
    other make even true predictions unfair, and a distance of few rows is above 0 by chance.
    Keys: unfairness, worst, accuracy (of the predictors, mean over factors; on a grid, on rows of their own),
    unfairness_matrix [K, K] (target, sensitive; NaN on the diagonal and for dropped constant factors). discrete: codes
    that are class indices, read by their indicators. Raises
    ValueError for one factor.
    """
    checks.one_of(predictor, ("gbt", "lr"), "predictor")
    if sizes is not None:
        x, labels, asked, held, truth = _grid(checks.matrix(codes, "codes"), sizes, seed, train, points)
    else:
        x, labels, asked, held, truth = _rows(codes, factors, codes_test, factors_test, train)
    (x, shown, held), _ = indicators(x, discrete, asked.codes, held)
    count = len(labels.kept)
    if count < 2:
        raise ValueError("fairness is about two factors or more: here one alone varies")
    mean = torch.full((count, count), torch.nan, dtype=torch.float64)
    worst, accuracy = mean.clone(), []
    for i, size in enumerate(labels.sizes):
        guess = _predicted(predictor, x, labels.of(i), size, torch.cat([shown, held]), seed)
        accuracy.append(float((guess[len(shown) :] == truth[:, i]).double().mean()))
        for j, (place, value) in asked.groups.items():
            if j != i:
                tables = contingency(value, guess[place], (labels.sizes[j], size))
                mean[i, j], worst[i, j] = variation(tables)
    off = ~torch.eye(count, dtype=torch.bool)
    wide = torch.full((labels.total, labels.total), torch.nan, dtype=torch.float64)
    kept = torch.tensor(labels.kept)
    wide[kept[:, None], kept] = mean
    result: Result = {
        "unfairness": float(mean[off].mean()),
        "worst": float(worst[off].max()),
        "accuracy": sum(accuracy) / count,
        "unfairness_matrix": checks.array(wide),
    }
    return checks.finish(result, labels.explain("unfairness"))


def variation(counts: Tensor) -> tuple[float, float]:
    """Total variation distances of predictions from their overall distribution, counts [values, classes]: the mean over
    values, weighted by their rows, and the largest. Values without rows are left out."""
    rows = counts.sum(1)
    share = counts[rows > 0] / rows[rows > 0, None]
    distance = (share - counts.sum(0) / counts.sum()).abs().sum(1) / 2
    return float((distance * rows[rows > 0]).sum() / rows.sum()), float(distance.max())


def _predicted(predictor: str, x: Tensor, y: Tensor, classes: int, other: Tensor, seed: int) -> Tensor:
    if predictor == "gbt":
        return gradient_boosting(x, y, classes, other, seed=seed).scores_test.argmax(1)
    scaled, others = checks.standardise(x, other)
    return logistic_regression(scaled, y, classes).logits(others).argmax(1)


def _grid(
    codes: Tensor, sizes: Sequence[int], seed: int, train: int, points: int
) -> tuple[Tensor, checks.Labels, _Asked, Tensor, Tensor]:
    """Training rows, their labels, rows with every value of each factor in turn, and further rows with their labels."""
    sampler = GridSampler(sizes)
    if sampler.rows != len(codes):
        raise ValueError(f"a grid of sizes {list(sizes)} has {counted(sampler.rows, 'row')}, but codes {len(codes)}")
    train = min(train, max(sampler.rows, SMALL))  # more draws of a small grid would only repeat its rows
    generator = torch.Generator().manual_seed(seed)
    digits = torch.stack(
        [torch.arange(sampler.rows) // s % n for s, n in zip(sampler.strides, sampler.sizes, strict=True)], 1
    )
    rows, held = sampler.uniform(train, generator), sampler.uniform(max(1, train // 2), generator)
    labels = checks.discrete(digits[rows].double(), rows=train)
    parts, groups, at = [], {}, 0
    for j, k in enumerate(labels.kept):
        base, size = sampler.uniform(points, generator), int(sampler.sizes[k])
        own = digits[base, k]
        value = torch.arange(size).repeat_interleave(points)
        parts.append((base - own * sampler.strides[k]).repeat(size) + value * sampler.strides[k])
        seen = labels.values[j].long()  # a value that was never trained on is no group
        place = torch.searchsorted(seen, value).clamp_(max=len(seen) - 1)
        known = seen[place] == value
        parts[-1] = parts[-1][known]
        groups[j] = (slice(at, at + int(known.sum())), place[known].to(codes.device))
        at += int(known.sum())
    asked = _Asked(codes[torch.cat(parts).to(codes.device)], groups)
    device = codes.device
    truth = labels.encode(digits[held].double()).to(device)
    return codes[rows.to(device)], labels.to(device), asked, codes[held.to(device)], truth


def _rows(
    codes: Array, factors: Array | None, codes_test: Array | None, factors_test: Array | None, train: int
) -> tuple[Tensor, checks.Labels, _Asked, Tensor, Tensor]:
    """As `_grid`, for rows whose factors are given: the groups are those test rows that have the value."""
    if factors is None:
        raise ValueError("needs sizes (of a full grid) or factors")
    c, f, ct, ft = checks.split(codes, factors, codes_test, factors_test)
    c, f = c[:train], f[:train]
    labels = checks.discrete(f)
    truth = labels.encode(ft)
    known = (truth >= 0).all(1)
    ct, truth = ct[known], truth[known]
    everything = slice(0, len(ct))
    return c, labels, _Asked(ct, {j: (everything, truth[:, j]) for j in range(len(labels.kept))}), ct, truth
