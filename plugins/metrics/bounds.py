"""The evidence bound of any method that has one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, can, option, seeded
from distk.console import progress
from distk.meaning import count, higher, neither


@dataclass(frozen=True)
class BoundConfig:
    """How the bound is estimated."""

    items: int = option(1000, "at most so many items of the test split, drawn without replacement", min=1, max=1 << 24)
    samples: int = option(1, "draws of the code per item", min=1, max=10_000)
    importance: bool = option(False, "also log p by importance sampling with these draws, where the method allows it")


class Elbo(Metric[BoundConfig]):
    """Means over items of what `Method.bound` gives, nats: `elbo`, and the terms that it is made of.

    elbo: the bound on log p(x), whatever weights the training objective has; higher is better. A term per dimension
    `[k]` is an array. log_p: with `--importance`, log of the mean importance weight of the draws of an item, between
    elbo and log p(x) (Burda et al. 2016).
    """

    headline = "elbo"
    measures = "items made and bounds"
    numbers = {
        "elbo": higher(unit="nats", what="bound on log p(x)"),
        "log_p": higher(unit="nats", source="Burda et al. 2016, eq. 8"),
        "items": count("items"),
        "*": neither(unit="nats", what="a term of the bound"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model without a bound."""
        model, dataset = table.model, table.dataset
        if model is None or dataset is None or not can(model, "bound"):
            raise UsageError("metric 'elbo' scores methods that bound log p(x); this one does not.")
        rows = dataset.rows_of("test")
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[: self.config.items]
        generator = seeded(seed, dataset.device)
        totals: dict[str, Tensor] = {}
        with progress("measuring the bound", len(order)) as advance:
            for part in rows[order.sort().values.to(rows.device)].split(64):
                for name, value in self._terms(model, dataset.batch(part)["x"], generator).items():
                    totals[name] = totals.get(name, torch.zeros((), device=value.device)) + value.double().sum(0)
                advance(len(part))
        means = {name: total / len(order) for name, total in totals.items()}
        arrays = {name: value.cpu().numpy() for name, value in means.items() if value.dim()}
        return {**{name: float(v) for name, v in means.items() if not v.dim()}, "items": len(order), **arrays}

    def _terms(self, model: Any, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of each item, averaged over the draws; `log_p` where it is asked for."""
        means: dict[str, Tensor] = {}
        weights = []
        for _ in range(self.config.samples):
            terms = model.bound(x, generator)
            weight = terms.pop("log_weight", None)
            if self.config.importance:
                if weight is None:
                    raise UsageError("this method gives no importance weights: score 'elbo' without importance.")
                weights.append(weight.double())
            for name, value in terms.items():
                means[name] = means.get(name, 0) + value.double() / self.config.samples
        if weights:
            means["log_p"] = torch.stack(weights).logsumexp(0) - math.log(len(weights))
        return means
