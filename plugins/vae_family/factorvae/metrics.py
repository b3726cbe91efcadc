"""The metric `tc`: the total correlation KL(q(z) || prod_j q(z_j)) of sampled codes, by four estimators, nats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option
from distk.meaning import lower, neither
from distk.nn import log_normal
from distk.plugins.metrics.functional import active_units
from distk.plugins.vae_family.factorvae.method import FactorVAE


@dataclass(frozen=True)
class Config:
    """How many codes the estimators look at."""

    samples: int = option(10_000, "sampled codes for the Gaussian and the critic's estimate", min=2, max=1 << 24)
    components: int = option(10_000, "posteriors that stand for q(z)", min=2, max=1 << 20)
    points: int = option(500, "samples at which log q(z) is evaluated", min=1, max=1 << 20)
    mws_batch: int = option(256, "batch of the minibatch-weighted estimate", min=2, max=1 << 16)


class TotalCorrelation(Metric[Config]):
    """Total correlation of the continuous code, on samples of its posterior (of the codes as they are without one).

    gaussian: 0.5 (sum_j log C_jj - log det C) of the samples' covariance C: what their correlations tell. A lower
        bound where the margins are Gaussian; blind to dependence without correlation.
    aggregate: mean of log q(z) - sum_j log q(z_j) with q(z) the mixture of the posteriors; if not all of them take
        part, a sample's own one has its share of the data and the others the rest (Chen et al. 2018, stratified).
    mws: the same by minibatch-weighted sampling, as beta-TCVAE trains on it (Chen et al. 2018, appendix C), with its
        constants: too large by (D - 1) log N and more, for N items of data. Compare it at one N and D only.
    discriminator: the critic's estimate, of models of method factorvae.
    active_units: dimensions whose posterior mean has a variance above 0.01 (Burda et al. 2016). With none (without a
        posterior: with none that varies), or one dimension in all, every total correlation is 0, and `reasons` says so.
    """

    headline = "gaussian"
    measures = "dependence among codes, no labels"
    numbers = {
        "gaussian": lower(0, unit="nats", form="textbook", what="of the samples' covariance, a lower bound"),
        "aggregate": lower(unit="nats", source="Chen et al. 2018, eq. 2", form="stratified"),
        "mws": lower(unit="nats", source="Chen et al. 2018, appendix C", form="authors", what="far too large"),
        "discriminator": lower(unit="nats", source="Kim & Mnih 2018, eq. 3", form="authors"),
        "active_units": neither(0, unit="codes", whole=True, what="whose mean has a variance above 0.01"),
    }

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError where the code has no continuous dimension."""
        config: Config = self.config
        keep, reasons = _columns(table)
        mean = table.codes[:, keep]
        std = None if table.std is None else table.std[:, keep]
        std = None if std is None or bool(std.isnan().all()) else std
        active = active_units(mean)["active_units"]
        # Without a posterior the scale of codes means nothing: one that varies at all may depend on others.
        some = active > 0 if std is not None else bool((mean.double().std(0) > 1e-8).any())
        estimators = ["gaussian", "mws", "aggregate"] + ["discriminator"] * isinstance(table.model, FactorVAE)
        if not some or len(keep) < 2:
            why = "no dimension is active" if not some else "it has one dimension"
            text = f"0 by definition, because the code cannot depend on itself: {why}"
            return {**dict.fromkeys(estimators, 0.0), "active_units": active, "reasons": {"gaussian": text}}
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(mean), generator=generator).to(mean.device)
        z = _sample(mean, std, rows[: config.samples], generator)
        result = {"gaussian": gaussian_tc(z), "active_units": active}
        if std is None:
            reasons["gaussian"] = "no posterior: the codes as they are, not samples"
            result |= {"mws": math.nan, "aggregate": math.nan}
            reasons |= dict.fromkeys(("mws", "aggregate"), "needs a Gaussian posterior")
        else:
            total = len(table.dataset) if table.dataset is not None else len(mean)
            result["mws"] = _mws(mean, std, rows, config, total, generator)
            chosen = rows[: config.components]
            points = _sample(mean, std, chosen[: config.points], generator)
            result["aggregate"] = aggregate_tc(points, mean[chosen], std[chosen], total)
        if isinstance(table.model, FactorVAE):
            parts = [table.model.log_ratio(part.float()) for part in z.split(4096)]
            result["discriminator"] = float(torch.cat(parts).mean())
        return {**result, "code_names": [table.names[d] for d in keep], **({"reasons": reasons} if reasons else {})}


def gaussian_tc(z: Tensor) -> float:
    """0.5 (sum_j log C_jj - log det C) of samples `[n, d]`, nats, in float64; constant columns take no part.

    Infinite where a column is a linear function of others.
    """
    z = z.double()
    z = z[:, z.std(0) > 1e-8]
    if z.shape[1] < 2:
        return 0.0
    # log det of the correlation matrix: the same, and free of the columns' scales.
    correlation = torch.corrcoef(z.T)
    return float(-0.5 * torch.linalg.slogdet(correlation)[1]) + 0.0


def aggregate_tc(z: Tensor, mean: Tensor, std: Tensor, total: int) -> float:
    """Mean of log q(z) - sum_j log q(z_j), nats; sample i `[s, d]` was drawn from posterior i of the `[k, d]`.

    total: items of the data. Where the posteriors are k < total of them, sample i's own one weighs 1 / total and the
    other k - 1 share the rest, so that their densities are unbiased.
    """
    found, k = [], len(mean)
    total = max(total, k)
    other = math.log((total - 1) / total / (k - 1)) if k > 1 else -math.inf
    size = max(1, (1 << 22) // (k * mean.shape[1]))
    logvar = 2 * std.clamp_min(1e-6).log()
    for start in range(0, len(z), size):
        density = log_normal(z[start : start + size].unsqueeze(1), mean, logvar)
        own = torch.arange(start, start + len(density), device=z.device)
        weight = torch.full(density.shape[:2], other, device=z.device, dtype=z.dtype)
        weight[torch.arange(len(own), device=z.device), own] = -math.log(total)
        joint = (weight + density.sum(2)).logsumexp(1)
        found.append(joint - (weight.unsqueeze(2) + density).logsumexp(1).sum(1))
    return float(torch.cat(found).double().mean())


def mws_tc(z: Tensor, mean: Tensor, std: Tensor, total: int) -> Tensor:
    """log q(z_i) - sum_j log q(z_ij) with q(z) = 1 / (B N) sum_k q(z|x_k) over a batch (Chen et al. 2018), `[B]`."""
    density = log_normal(z.unsqueeze(1), mean, 2 * std.clamp_min(1e-6).log())
    constant = math.log(len(mean)) + math.log(total)
    return density.sum(2).logsumexp(1) - density.logsumexp(1).sum(1) + (mean.shape[1] - 1) * constant


def _mws(mean: Tensor, std: Tensor, rows: Tensor, config: Config, total: int, generator: torch.Generator) -> float:
    batch = min(config.mws_batch, len(rows))
    whole = min(len(rows), 8 * batch) // batch * batch
    found = []
    for part in rows[:whole].split(batch):
        found.append(mws_tc(_sample(mean, std, part, generator), mean[part], std[part], total))
    return float(torch.cat(found).double().mean())


def _sample(mean: Tensor, std: Tensor | None, rows: Tensor, generator: torch.Generator) -> Tensor:
    """A draw of the posterior of each row; the noise comes from the CPU, so that a seed means the same everywhere."""
    if std is None:
        return mean[rows]
    return mean[rows] + std[rows] * torch.randn(len(rows), mean.shape[1], generator=generator).to(mean.device)


def _columns(table: CodeTable) -> tuple[list[int], dict[str, str]]:
    """The columns to score: continuous, with a posterior wherever any has one; and why others are left out."""
    live = [True] * len(table.names) if table.std is None else (~table.std.isnan().any(0)).tolist()
    continuous = [d for d, kind in enumerate(table.kinds) if kind != "categorical"]
    if not continuous:
        raise UsageError("total correlation needs continuous codes, and this representation has only discrete ones.")
    keep = [d for d in continuous if live[d]] or continuous
    left = [name for d, name in enumerate(table.names) if d not in keep]
    return keep, {", ".join(left): "left out: discrete, or without a posterior"} if left else {}
