"""Do codes of sentences cluster by syntax? The clustering error of Brunner et al. 2018, section 4.1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from distk.solvers import kmeans, random_points


def contents(labels: Tensor, kinds: Tensor, clusters: int, prototypes: int) -> Tensor:
    """How many sentences of each prototype lie in each cluster: labels int64 `[R, n]`, kinds int64 `[n]` -> int64
    `[R, clusters, prototypes]`."""
    place = labels * prototypes + kinds
    counts = torch.zeros(len(labels), clusters * prototypes, dtype=torch.long, device=labels.device)
    return counts.scatter_add_(1, place, torch.ones_like(place)).view(-1, clusters, prototypes)


def errors(counts: Tensor) -> Tensor:
    """Clustering error of each run, int64 `[R]`: a cluster belongs to its most frequent prototype, every sentence of
    another one in it is an error; summed over clusters. Two clusters may belong to one prototype."""
    return (counts.sum(2) - counts.amax(2)).sum(1)


def one_to_one(counts: Tensor) -> int:
    """Sentences outside the best assignment in which every cluster has a prototype of its own; counts `[K, P]`."""
    table = counts.cpu().numpy()
    rows, columns = linear_sum_assignment(-table)
    return int(table.sum() - table[rows, columns].sum())


@dataclass(frozen=True)
class Clustering:
    """Many runs of K-means over one set of codes. errors: int64 `[R]`; inertia: float64 `[R]`; counts: int64
    `[R, K, P]`; labels: int64 `[R, n]`."""

    errors: Tensor
    inertia: Tensor
    counts: Tensor
    labels: Tensor

    @property
    def lowest(self) -> int:
        """The run of the lowest inertia, which no prototype helped to choose."""
        return int(self.inertia.argmin())

    @property
    def best(self) -> int:
        """The run of the smallest error."""
        return int(self.errors.argmin())

    def summary(self) -> dict[str, float]:
        """best: the smallest error of all runs (the paper's figure). lowest_inertia: the error of the run with the
        lowest inertia; hungarian: the same run's error with a prototype of its own for every cluster. median: of all
        runs. All in sentences."""
        return {
            "best": float(self.errors.min()),
            "lowest_inertia": float(self.errors[self.lowest]),
            "median": float(np.median(self.errors.cpu().numpy())),
            "hungarian": float(one_to_one(self.counts[self.lowest])),
        }


def cluster(codes: Tensor, kinds: Tensor, restarts: int, seed: int, standardize: bool = False) -> Clustering:
    """K-means with as many clusters as there are prototypes among `kinds`, from random points, Euclidean, in float64.

    codes: float `[n, d]`. kinds: int64 `[n]`, 0 to P-1. standardize: each dimension to variance 1 (the paper does not).
    """
    x = codes.double()
    x = x - x.mean(0)
    if standardize:
        x = x / x.std(0, unbiased=False).clamp_min(1e-12)
    kinds = kinds.to(x.device)
    many = int(kinds.max()) + 1
    start = random_points(x, many, restarts, torch.Generator().manual_seed(seed))
    found = kmeans(x, start)
    counts = contents(found.labels, kinds, many, many)
    return Clustering(errors(counts), found.inertia, counts, found.labels)
