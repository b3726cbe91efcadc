"""The bound of a dsvae."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option, seeded
from distk.plugins.sequence.dsvae.method import DSVAE
from distk.plugins.sequence.metrics import held_out, opened


@dataclass(frozen=True)
class ElboConfig:
    """How the bound is estimated."""

    clips: int = option(1000, "test clips", min=1, max=1_000_000)
    samples: int = option(1, "draws of f and z per clip", min=1, max=10_000)
    importance: bool = option(False, "also log p by importance sampling with these draws")


class Elbo(Metric[ElboConfig]):
    """Nats per clip, with the Gaussian's constant on the model's scale: elbo = log_likelihood - kl_f - kl_z."""

    headline = "elbo"
    needs_model = True

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = opened(table)
        if not isinstance(model, DSVAE):
            raise UsageError("the metric 'elbo' knows the bound of dsvae only.")
        draw = seeded(seed, dataset.device)
        places = held_out(table)
        places = places[torch.rand(len(places), generator=draw, device=draw.device).argsort()[: self.config.clips]]
        rows = cast(Tensor, table.rows)[places]
        sums: dict[str, Tensor] = {}
        for part in rows.split(64):
            for name, value in self._bound(model, dataset.batch(part)["x"], draw).items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.double().sum(0)
        mean = {name: total / len(rows) for name, total in sums.items()}
        per_frame = {k: v.cpu().numpy() for k, v in mean.items() if v.dim()}
        numbers = {k: float(v) for k, v in mean.items() if not v.dim()}
        return {**numbers, "elbo_per_frame": numbers["elbo"] / model.frames, "clips": len(rows), **per_frame}

    def _bound(self, model: Any, x: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        """Terms of each clip `[b]`, averaged over the draws; KL per dimension of f and of z (summed over time)."""
        n, t = x.shape[:2]
        found: dict[str, Tensor] = {}
        weights = []
        for _ in range(self.config.samples):
            noise_f = torch.randn(n, model.config.f_dim, generator=draw, device=draw.device)
            noise_z = torch.randn(n, t, model.config.z_dim, generator=draw, device=draw.device)
            terms = model.terms(x, noise_f, noise_z)
            likelihood = model.log_likelihood(terms.squares.double(), t)
            kl_f, kl_z = terms.kl_f.double(), terms.kl_z.double().sum(1)
            values = {
                "elbo": likelihood - kl_f.sum(1) - kl_z.sum(1),
                "log_likelihood": likelihood,
                "kl_f": kl_f.sum(1),
                "kl_z": kl_z.sum(1),
                "mse": terms.squares.double() / (t * model.pixels),
                "kl_f_by_dimension": kl_f,
                "kl_z_by_dimension": kl_z,
            }
            found = {k: found.get(k, 0) + v / self.config.samples for k, v in values.items()}
            if self.config.importance:
                weights.append(model.log_weight(x, noise_f, noise_z).double())
        if weights:
            found["log_p"] = torch.stack(weights).logsumexp(0) - torch.log(torch.tensor(float(len(weights))))
        return found
