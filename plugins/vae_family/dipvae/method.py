"""DIP-VAE: the covariance of the inferred prior q(z) is driven to the identity (Kumar et al., ICLR 2018; NIPS 2017
workshop for variant I).

    minimise  -ELBO + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2                     (their eq. 5)

Variant I: C = Cov[mu(x)]. Variant II: C = Cov[mu(x)] + E[Sigma(x)], the covariance of q(z) by the law of total
covariance (eq. 4). The sums run over ordered pairs, so that every pair counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import DataSpec, Objective, Source, Step, adam, option
from distk.console import counted, warn_once
from distk.plugins.vae_family.gaussian import GaussianConfig, GaussianVAE
from distk.plugins.vae_family.networks import Architecture


@dataclass(frozen=True)
class Config(GaussianConfig):
    """Hyperparameters of DIP-VAE."""

    arch: Architecture = option(
        "locatello", "networks, named after their papers; mlp is small and takes vectors", paper="higgins-fc"
    )
    lr: float = option(1e-4, "learning rate of Adam, constant", above=0)
    variant: Literal["i", "ii"] = option("i", "covariance of the posterior means (i) or of sampled codes (ii)")
    lambda_od: float = option(10.0, "weight of the squared covariances", paper="a sweep", min=0)
    lambda_d_factor: float | None = option(
        None, "lambda_d / lambda_od, for the variances; default: 10 for variant i, 1 for ii", paper="10 (i)", min=0
    )
    lambda_warmup: int = option(0, "steps over which both weights grow from 0", paper="0", min=0)
    cov: Literal["running", "batch"] = option("running", "covariance over past batches too, or of this batch alone")
    cov_decay: float = option(0.9, "share of its past that the running covariance keeps, below 1", min=0)
    cov_grad: Literal["st", "literal"] = option(
        "st", "st: the gradient as if this batch were the whole estimate; literal: through its share in it only"
    )
    unbiased: bool = option(False, "scale the covariance of the means up to be unbiased: B / (B - 1) for one batch")

    def __post_init__(self) -> None:
        if self.cov_decay >= 1:
            raise ValueError(f"cov-decay {self.cov_decay:g} must be below 1")
        if self.cov == "running" and self.cov_grad == "literal" and self.lambda_od * self.cov_decay > 0:
            warn_once(
                "cov-grad literal: the gradient passes through the newest batch's share of the running covariance "
                f"only, so that lambda_od {self.lambda_od:g} comes down to {self.lambda_od * (1 - self.cov_decay):g}"
            )

    @property
    def lambda_d(self) -> float:
        """Weight of the squared deviations of the variances from 1, as in the paper's formula."""
        factor = self.lambda_d_factor if self.lambda_d_factor is not None else 10.0 if self.variant == "i" else 1.0
        return factor * self.lambda_od


@dataclass(frozen=True)
class ConfigII(Config):
    """As `Config`, variant II unless told otherwise."""

    variant: Literal["i", "ii"] = option("ii", "covariance of the posterior means (i) or of sampled codes (ii)")


D = TypeVar("D", bound=Config, default=Config)


class DIPVAE(GaussianVAE[D]):
    """DIP-VAE. Code: `z`, continuous.

    Buffers with --cov running, sums over past batches with decaying weights: first `[z]` of mu, second `[z, z]` of
    mu mu^T, spread `[z]` of sigma^2, weight `()` of ones, so that dividing by it corrects the start.
    """

    presets: ClassVar[Mapping[str, Any]] = {
        # A fast learning rate wants a short memory: the penalty acts on the past, and with a long one it overshoots.
        "demo": {
            "model": {"z": 4, "arch": "mlp", "lr": 1e-3, "cov_decay": 0.5},
            "data": {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 16},
            "train": {"steps": 1500, "log_every": 50},
        },
        # Table 1 has scores of test sets; the text does not give the split, a tenth is ours.
        "paper": {
            "model": {"arch": "higgins-fc"},
            "data": {"name": "dsprites", "holdout": 0.1},
            "train": {"steps": 300_000, "batch": 64},
        },
        "dlib": {"model": {"cov": "batch"}, "train": {"steps": 300_000, "batch": 64}},
    }
    first: Tensor
    second: Tensor
    spread: Tensor
    weight: Tensor

    def __init__(self, config: D, data: DataSpec) -> None:
        super().__init__(config, data)
        if config.cov == "batch" or config.cov_grad == "st" or config.unbiased:  # the batch's own covariance counts
            self.least_batch = 2
        if config.cov == "running":
            z = config.z
            for name, shape in (("first", (z,)), ("second", (z, z)), ("spread", (z,)), ("weight", ())):
                self.register_buffer(name, torch.zeros(shape))

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.loss, self.parameters(), adam(self.config.lr))]

    def schedule(self, step: int) -> dict[str, Any]:
        warmup = self.config.lambda_warmup
        return {"warmup": min(1.0, (step + 1) / warmup) if warmup else 1.0}

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        self._warn(source)
        return source.sample()

    def loss(self, step: Step) -> Tensor:
        """Negative bound plus the penalty, nats; the running moments are brought up to date here, once per step."""
        bound = self.batch_bound(step)
        c = self.covariance(bound.mean, bound.logvar)
        apart, scale = deviations(c)
        penalty = self.config.lambda_od * apart + self.config.lambda_d * scale
        step.log("covariances", apart)
        step.log("variances", scale)
        step.log("dip", penalty)
        return bound.reconstruction + bound.kl.sum() + step.schedule["warmup"] * penalty

    def covariance(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """The covariance C `[z, z]` that is penalised, from one batch of posteriors `[n, z]` and the running moments.

        Its value is the running estimate; its gradient that of this batch's covariance (st) or of this batch's share.
        """
        config = self.config
        with torch.autocast(mean.device.type, enabled=False):
            mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
            variance = logvar.to(mean.dtype).exp().mean(0) if config.variant == "ii" else torch.zeros_like(mean[0])
            m1, m2 = mean.mean(0), mean.T @ mean / len(mean)
            # Centred first: the difference of two large moments would lose digits.
            centred = mean - m1
            batch = centred.T @ centred / len(mean)
            if config.unbiased:
                batch = batch * len(mean) / (len(mean) - 1)
            batch = batch + torch.diag(variance)
            if config.cov == "batch":
                return batch
            running = self._running(m1, m2, variance, len(mean))
            return running if config.cov_grad == "literal" else (running - batch).detach() + batch

    def _running(self, m1: Tensor, m2: Tensor, variance: Tensor, n: int) -> Tensor:
        """Update the moments by those of a batch of n; the covariance `[z, z]` that they give, its past constant."""
        rho = self.config.cov_decay
        new = {"first": m1, "second": m2, "spread": variance, "weight": torch.ones_like(self.weight)}
        new = {name: rho * getattr(self, name) + (1 - rho) * value for name, value in new.items()}
        for name, value in new.items():
            getattr(self, name).copy_(value.detach())
        weight = new.pop("weight")
        first, second, spread = (value / weight for value in new.values())
        c = second - torch.outer(first, first)
        if self.config.unbiased:
            # The rows' weights sum to 1; the sum of their squares takes the place of 1 / B. The weight is 1 - rho^t.
            squares = (1 - rho) / (1 + rho) * (2 - weight) / weight / n
            c = c / (1 - squares)
        return c + torch.diag(spread)

    def _warn(self, source: Source) -> None:
        config, z = self.config, self.config.z
        if source.batch < z and config.cov == "batch":
            warn_once(
                f"the covariance of {counted(source.batch, 'sample')} in {counted(z, 'dimension')} has not full rank:"
                " raise --batch"
            )
        factors = len(getattr(source.dataset, "factor_names", ()))
        if factors and z > 2 * factors and config.variant == "i":
            warn_once(
                f"variant i gives every dimension unit variance, and {z} are far more than the"
                f" {counted(factors, 'factor')}: the surplus ones will carry noise or parts of factors; lower --z or"
                " use --variant ii"
            )


class DIPVAEII(DIPVAE[ConfigII]):
    """DIP-VAE whose variant is II by default."""


def deviations(c: Tensor) -> tuple[Tensor, Tensor]:
    """Of a covariance `[z, z]`: the sum of C_ij^2 over ordered pairs i != j, and that of (C_ii - 1)^2; scalars."""
    variances = c.diagonal()
    return (c - torch.diag(variances)).square().sum(), (variances - 1).square().sum()
