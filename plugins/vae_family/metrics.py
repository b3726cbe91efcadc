"""The metric `vae-bound`: what the bound of a Gaussian VAE consists of, in nats per item."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option, seeded
from distk.console import progress
from distk.meaning import higher, lower, neither
from distk.method import eval_mode
from distk.nn import kl_to_prior, reparameterise
from distk.plugins.metrics.functional import active_units
from distk.plugins.vae_family.gaussian import GaussianVAE


@dataclass(frozen=True)
class Config:
    """How many items."""

    items: int = option(10_000, "at most so many items, drawn without replacement", min=1)


class VaeBound(Metric[Config]):
    """The bound of a Gaussian VAE on the data, from one sample of each posterior.

    elbo = -(reconstruction + kl), nats per item. reconstruction: -log p(x|z), sum over pixels. floor: the smallest
    value that it could take, the entropy of the pixels as targets, 0 for black and white. kl: sum over latents;
    `kl_per_latent` `[z]`. active_units: latents whose posterior mean has a variance above 0.01.
    bits_per_dim: -elbo per pixel and channel, in bits. With the likelihood `gaussian` the reconstruction is a sum of
    squared errors, and elbo and bits are undefined.
    """

    headline = "elbo"
    measures = "items made and bounds"
    numbers = {
        "elbo": higher(unit="nats"),
        "reconstruction": lower(unit="nats", what="-log p(x|z), summed over pixels"),
        "floor": neither(0, unit="nats", what="the least that reconstruction can be"),
        "kl": neither(0, unit="nats", what="summed over latents"),
        "bits_per_dim": lower(unit="bits"),
        "active_units": neither(0, unit="latents", whole=True, what="whose mean has a variance above 0.01"),
    }
    needs_model = True
    needs_codes = False

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model that is no Gaussian VAE with the one group `z`."""
        model, dataset = table.model, table.dataset
        if not isinstance(model, GaussianVAE) or [group.name for group in model.latents] != ["z"] or dataset is None:
            raise UsageError("metric 'vae-bound' scores Gaussian VAEs whose code is `z` alone.")
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[: self.config.items]
        generator = seeded(seed, dataset.device)
        nll, floor, kl, means = [], [], [], []
        with eval_mode(model), progress("measuring the bound", len(order)) as advance:
            for rows in order.sort().values.to(dataset.device).split(512):
                x = dataset.batch(rows)["x"]
                mean, logvar = model.infer(x)
                noise = torch.randn(mean.shape, generator=generator, device=mean.device)
                z = reparameterise(mean, (0.5 * logvar.clamp(-20, 10)).exp(), noise)
                nll.append(model.nll(model.decoder(z), x).double())
                floor.append(target_entropy(x))
                means.append(mean.double())
                kl.append(kl_to_prior(mean, logvar).double())
                advance(len(rows))
        active = active_units(torch.cat(means))["active_units"]
        return {**self._summary(model, torch.cat(nll), torch.cat(floor), torch.cat(kl).mean(0)), "active_units": active}

    def _summary(self, model: GaussianVAE, nll: Tensor, floor: Tensor, kl: Tensor) -> dict[str, Any]:
        reconstruction, total = float(nll.mean()), float(kl.sum())
        result: dict[str, Any] = {
            "elbo": -(reconstruction + total),
            "reconstruction": reconstruction,
            "floor": float(floor.mean()),
            "kl": total,
            "bits_per_dim": (reconstruction + total) / (math.prod(model.spec.shape) * math.log(2)),
            "kl_per_latent": kl.cpu(),
            "rows_used": [len(nll)],
        }
        if model.config.likelihood != "bernoulli":
            why = "the reconstruction is a sum of squared errors, not of nats"
            undefined = ("elbo", "bits_per_dim", "floor")
            result |= dict.fromkeys(undefined, math.nan)
            result["reasons"] = dict.fromkeys(undefined, why)
        return result


def target_entropy(x: Tensor) -> Tensor:
    """Smallest cross-entropy that any prediction of grey values `[n, ...]` in [0, 1] can reach, nats, float64 `[n]`."""
    x = x.double().flatten(1)
    return (torch.special.entr(x) + torch.special.entr(1 - x)).sum(1)
