"""Scores of mvae that look at bound and KL map: mvae-elbo and object-count. Those of single slots: mvae_slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import CodeTable, Dataset, FactorDataset, Metric, UsageError, option, seeded
from distk.console import progress
from distk.meaning import higher, lower, neither
from distk.plugins.vae_family.mvae.method import MVAE, Draws, MVAEBaseline, entropy


def behind(table: CodeTable) -> tuple[MVAE, Dataset]:
    """Model and data set of a table of codes. Raises UsageError for a model without object slots."""
    if not isinstance(table.model, MVAE):
        name = "mvae-baseline" if isinstance(table.model, MVAEBaseline) else type(table.model).__name__
        raise UsageError(f"{name} has no object slots; this is for models of method 'mvae'.")
    assert table.dataset is not None  # a table with a model has one
    return table.model, table.dataset


def some_rows(dataset: Dataset, split: Literal["train", "test"], n: int) -> Tensor:
    """The first `n` rows of a split, fewer if it has fewer; of all rows where there is no split."""
    return dataset.rows_of(split)[:n]


def batches(what: str, dataset: Dataset, rows: Tensor, size: int = 256) -> Iterator[dict[str, Tensor]]:
    """Batches of these rows, under a progress bar."""
    with progress(what, len(rows)) as advance:
        for part in rows.split(size):
            yield dataset.batch(part)
            advance(len(part))


@dataclass(frozen=True)
class BoundConfig:
    """How many scenes."""

    scenes: int = option(12_800, "at most so many test scenes", paper="12,800", min=1)


class Bound(Metric[BoundConfig]):
    """The bound of an mvae or mvae-baseline on test scenes, one draw of the posterior each, nats per image.

    elbo = -(reconstruction + kl). excess: reconstruction less its floor, the entropy of the pixels as targets.
    """

    headline = "elbo"
    numbers = {
        "elbo": higher(unit="nats", source="Nash et al. 2017", form="authors"),
        "reconstruction": lower(unit="nats", what="-log p(x|z), summed over pixels"),
        "kl": neither(unit="nats"),
        "floor": neither(0, unit="nats", what="the least that reconstruction can be"),
        "excess": lower(unit="nats", what="reconstruction - floor"),
        "scenes": neither(0, unit="scenes", whole=True),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = table.model, table.dataset
        if not isinstance(model, MVAEBaseline) or dataset is None:
            raise UsageError("the metric 'mvae-elbo' knows the bound of mvae and mvae-baseline only.")
        rows = some_rows(dataset, "test", self.config.scenes)
        noise = Draws(seeded(seed, dataset.device))
        total, n = torch.zeros(3, dtype=torch.float64, device=dataset.device), len(rows)
        for batch in batches("measuring the bound", dataset, rows):
            nll, kl = model.terms(batch["x"], noise)
            total += torch.stack([nll.double().sum(), kl.double().sum(), entropy(batch["x"].double()).sum()])
        nll, kl, floor = (total / n).tolist()
        return {
            "elbo": -(nll + kl),
            "reconstruction": nll,
            "kl": kl,
            "floor": floor,
            "excess": nll - floor,
            "scenes": n,
        }


# Counting


def peaks(kl: Tensor) -> Tensor:
    """KL maps `[n, S]` of a square grid with every cell that is below one of its 8 neighbours set to 0."""
    side = int(kl.shape[1] ** 0.5)
    grid = kl.view(-1, 1, side, side)
    return torch.where(grid < F.max_pool2d(grid, 3, 1, 1), 0.0, grid).flatten(1)


def best_threshold(kl: Tensor, count: Tensor) -> tuple[float, float]:
    """Threshold t for which `(kl > t).sum(1) == count` most often, and that share of the images.

    kl: `[n, K]` of K cells or slots, not negative. count: int64 `[n]`, at most K.
    Exact: image i is right for t from its (count + 1)-th largest KL up to its count-th; the best t is where most of
    these intervals overlap. It is put in the middle of that place, the first one where several are as good.
    """
    n, k = kl.shape
    ends = F.pad(kl.double().sort(1, descending=True).values, (1, 1))
    ends[:, 0], ends[:, k + 1] = torch.inf, 0.0
    possible = count <= k
    low, high = (ends.gather(1, (count.clamp(max=k) + step)[:, None])[:, 0] for step in (1, 0))
    low, high = low[possible], high[possible]
    at, order = torch.cat([low, high]).sort(stable=True)
    right = torch.cat([torch.ones_like(low), -torch.ones_like(high)])[order].cumsum(0)
    after = torch.cat([at[1:], at.new_full((1,), torch.inf)])
    right = torch.where(after > at, right, -1.0)
    if not len(right) or not bool((right > 0).any()):
        return 0.0, 0.0
    best = int(right.argmax())
    middle = (at[best] + after[best]) / 2 if bool(after[best].isfinite()) else at[best]
    return float(middle), float(right[best]) / n


@dataclass(frozen=True)
class CountConfig:
    """Where is counted, and on how many scenes."""

    scope: Literal["map", "slots"] = option("map", "count among all cells, or among the kept ones", paper="map")
    nms: bool = option(False, "count only cells that are not below a neighbour; needs scope map")
    train: int = option(6400, "at most so many train scenes, on which the threshold is chosen", paper="6,400", min=1)
    test: int = option(12_800, "at most so many test scenes", paper="12,800", min=1)

    def __post_init__(self) -> None:
        if self.nms and self.scope != "map":
            raise ValueError("nms looks at neighbouring cells, so it needs scope map")


class ObjectCount(Metric[CountConfig]):
    """The number of cells with more KL than a threshold, as the number of objects (section 4.3).

    threshold: nats, the best one on train scenes. accuracy, train_accuracy: share of the scenes counted right.
    majority: accuracy of always saying the test scenes' most frequent count. confusion: int64
    `[true count, said count]` over test scenes, the last column for that many and more.
    """

    headline = "accuracy"
    numbers = {
        "accuracy": higher(0, 1, source="Nash et al. 2017, section 4.3"),
        "train_accuracy": neither(0, 1, what="with the threshold that fits best there"),
        "threshold": neither(unit="nats"),
        "majority": neither(0, 1, what="of always saying the commonest number"),
        "bias": neither(unit="objects", what="said - true"),
        "scenes": neither(0, unit="scenes", whole=True),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = behind(table)
        if not isinstance(dataset, FactorDataset) or "count" not in dataset.factor_names:
            raise UsageError("object-count needs a data set with a 'count' factor.")
        kl, count = self._read(model, dataset, "train", self.config.train)
        threshold, train = best_threshold(kl, count)
        kl, count = self._read(model, dataset, "test", self.config.test)
        said = (kl > threshold).sum(1)
        most = dataset.factor_sizes[dataset.factor_names.index("count")]
        pairs = count * (most + 1) + said.clamp(max=most)
        table_ = torch.bincount(pairs, minlength=most * (most + 1)).view(most, most + 1)
        return {
            "accuracy": float((said == count).double().mean()),
            "train_accuracy": train,
            "threshold": threshold,
            "majority": float(table_.sum(1).max()) / len(count),
            "bias": float((said - count).double().mean()),
            "confusion": table_.cpu().numpy(),
            "scenes": len(count),
        }

    def _read(
        self, model: MVAE, dataset: FactorDataset, split: Literal["train", "test"], n: int
    ) -> tuple[Tensor, Tensor]:
        rows = some_rows(dataset, split, n)
        found = [model.objects(batch["x"]) for batch in batches(f"{split} scenes", dataset, rows)]
        kl = torch.cat([objects.kl if self.config.scope == "slots" else objects.map for objects in found])
        count = dataset.factors(rows)[:, dataset.factor_names.index("count")]
        return peaks(kl) if self.config.nms else kl, count
