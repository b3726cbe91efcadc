"""VAE, beta-VAE and the beta-VAE of controlled capacity: one model, the KL term weighted in three ways.

beta-VAE: Higgins et al., ICLR 2017. Controlled capacity: Burgess et al. 2018, "Understanding disentangling in
beta-VAE" (arXiv 1804.03599), equation (8). Their equations (1) and (2) are loose (the KL in (2) should be against
p(z|x)); (5) and (8) are what is minimised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import TypeVar

from distk import Objective, Step, option
from distk.console import warn_once
from distk.plugins.vae_family.gaussian import GaussianVAE, VAEConfig, optimizer


@dataclass(frozen=True)
class BetaConfig(VAEConfig):
    """Hyperparameters of a beta-VAE."""

    beta: float = option(4.0, "weight of the KL term", paper="4 (dSprites); 150 (blobs)", min=0)


@dataclass(frozen=True)
class CapacityConfig:
    """A capacity C in nats that grows linearly, and the pressure on the KL to equal it."""

    gamma: float = option(1000.0, "weight of |KL - C|", paper="1000", min=0)
    c_min: float = option(0.0, "C at the start, nats", paper="0 (VAE), 0.5 (factorgen)", min=0)
    c_max: float = option(25.0, "C at the end of the ramp, nats", paper="25 (dSprites), 50 (CelebA)", min=0)
    c_steps: int = option(100_000, "steps of the ramp", paper="100,000", min=1)

    def __post_init__(self) -> None:
        if self.c_max < self.c_min:
            raise ValueError(f"c-max must be >= c-min {self.c_min:g} (got {self.c_max:g})")
        if self.c_max > 200:
            warn_once(f"c-max {self.c_max:g} nats is far more than images need (dSprites has 13.5 nats of factors)")

    def capacity(self, step: int) -> float:
        """C in the step of this index, nats."""
        return self.c_min + (self.c_max - self.c_min) * min(1.0, step / self.c_steps)


@dataclass(frozen=True)
class AnnealedConfig(CapacityConfig, VAEConfig):
    """Hyperparameters of the beta-VAE of controlled capacity."""


BLOBS = {"name": "blobs", "size": 32}
SMALL = {"z": 4, "arch": "mlp", "lr": 2e-3}
"""A code and network with which the position of a blob is learned in seconds."""
HIGGINS = {"model": {"arch": "higgins-fc", "optimizer": "adagrad", "lr": 1e-2}, "train": {"steps": 300_000}}
"""The network and optimizer of Higgins et al. 2017 (Table 1) for dSprites; the number of steps is ours."""
BURGESS = {"train": {"steps": 300_000}}
"""The convolutional network and Adam of Burgess et al. 2018 (A.1), which later work took for beta-VAE; steps ours."""


V = TypeVar("V", bound=VAEConfig, default=VAEConfig)


class VAE(GaussianVAE[V]):
    """A Gaussian VAE: reconstruction + KL."""

    taps = ("code",)
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {"model": SMALL, "data": BLOBS, "train": {"steps": 1000, "log_every": 50}},
        "paper": HIGGINS,
        "burgess": BURGESS,
    }

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), optimizer(self.config))]

    def elbo(self, step: Step) -> Tensor:
        """Reconstruction (sum over pixels, mean over the batch, nats) + what is charged for the KL."""
        bound = self.batch_bound(step)
        return bound.reconstruction + self.charge(bound.kl.sum(), step)

    def charge(self, kl: Tensor, step: Step) -> Tensor:
        """What a KL of so many nats (mean over the batch, scalar) costs."""
        return kl


class BetaVAE(VAE[BetaConfig]):
    """beta-VAE: reconstruction + beta KL."""

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {**SMALL, "beta": 20.0, "lr": 1e-3},  # at 2e-3 the encoder's units die before a code pays
            "data": BLOBS,
            "train": {"steps": 3000, "log_every": 50},
        },
        "paper": HIGGINS,
        "burgess": BURGESS,
        "blobs": {"model": {"beta": 150.0}, "data": {"name": "blobs"}, "train": {"steps": 100_000}},
    }

    def charge(self, kl: Tensor, step: Step) -> Tensor:
        return self.config.beta * kl


class AnnealedVAE(VAE[AnnealedConfig]):
    """beta-VAE of controlled capacity: reconstruction + gamma |KL - C(t)| (equation 8)."""

    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 100_000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {**SMALL, "gamma": 30.0, "c_max": 6.0, "c_steps": 800},
            "data": BLOBS,
            "train": {"steps": 1000, "log_every": 50},
        },
        # Section 5, Figure 4a: coloured dSprites.
        "paper": {"data": {"name": "dsprites-color"}, "train": {"steps": 100_000}},
        "grey": {"train": {"steps": 100_000}},
        "celeba": {"model": {"z": 32, "c_max": 50.0}, "data": {"name": "folder", "size": 64}},
    }

    def schedule(self, step: int) -> dict[str, Any]:
        return {"capacity": self.config.capacity(step)}

    def charge(self, kl: Tensor, step: Step) -> Tensor:
        """gamma |KL - C|: the absolute value of the batch mean, so that images may differ in their KL."""
        capacity = step.schedule["capacity"]
        step.log("capacity", capacity)
        return self.config.gamma * (kl - capacity).abs()
