"""FactorVAE: the bound minus gamma times the total correlation of the code (Kim & Mnih, NIPS 2017 workshop, ICML 2018).

    E[log p(x|z)] - KL(q(z|x) || p(z)) - gamma KL(q(z) || prod_j q(z_j))                              (their eq. 4)

The last term is estimated by a critic that tells codes from codes whose dimensions were permuted over the batch: for
the optimal critic the difference of its two logits is log q(z) / prod_j q(z_j) (eq. 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distk import DataSpec, Objective, Source, Step, adam, option
from distk.console import counted, warn_once
from distk.nn import call_fake, call_real, mlp
from distk.plugins.vae_family.gaussian import GaussianConfig, GaussianVAE
from distk.plugins.vae_family.networks import Architecture

SLOPE = 0.2
"""Of the critic's leaky ReLUs."""


@dataclass(frozen=True)
class Config(GaussianConfig):
    """Hyperparameters of FactorVAE; the defaults are those of the workshop paper where it gives any."""

    z: int = option(10, "latent dimensions, at least 2", paper="10", min=1, max=1024)
    arch: Architecture = option("factor", "networks, named after their papers; mlp is small and takes vectors")
    lr: float = option(1e-4, "learning rate of the autoencoder's Adam", paper="1e-4 (ICML)", above=0)
    gamma: float = option(35.0, "weight of the total correlation", paper="35", min=0)
    critic_updates: int = option(5, "updates of the critic per step", paper="5; 1 (ICML)", min=1, max=1000)
    critic_data: Literal["fresh", "shared"] = option(
        "fresh", "fresh: each update sees two new batches; shared: the step's codes and one more batch, every time"
    )
    order: Literal["sequential", "simultaneous"] = option(
        "sequential", "autoencoder first and then the critic, or both gradients from one pass before either steps"
    )
    critic_width: int = option(1000, "units per hidden layer of the critic", paper="1000", min=1, max=65536)
    critic_layers: int = option(6, "hidden layers of the critic", paper="6", min=1, max=64)
    critic_lr: float = option(1e-4, "learning rate of the critic's Adam", paper="1e-4 (ICML)", above=0)
    init: Literal["default", "normal02"] = option(
        "default", "default: torch's for the autoencoder, He's for the critic; normal02: N(0, 0.02) (a public program)"
    )

    def __post_init__(self) -> None:
        if self.z < 2:
            raise ValueError("the total correlation of one dimension is zero; factorvae needs --z 2 or more")
        if self.order == "simultaneous" and (self.critic_updates, self.critic_data) != (1, "shared"):
            raise ValueError(
                "order simultaneous takes one critic update on the step's own codes: "
                "add --critic-updates 1 --critic-data shared"
            )


class FactorVAE(GaussianVAE[Config]):
    """FactorVAE. Code: `z`, continuous."""

    least_batch = 2  # codes are permuted over the batch
    presets: ClassVar[Mapping[str, Any]] = {
        # Three shapes of one size on a grid of positions, with networks that train in half a minute on one core.
        "demo": {
            "model": {
                "z": 4,
                "arch": "mlp",
                "lr": 1e-3,
                "gamma": 10.0,
                "critic_updates": 2,
                "critic_width": 128,
                "critic_layers": 3,
                "critic_lr": 1e-3,
            },
            "data": {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 16},
            "train": {"steps": 1500, "log_every": 50},
        },
        "paper": {"train": {"steps": 300_000, "batch": 64}},
        "icml": {
            "model": {"critic_updates": 1, "critic_data": "shared", "order": "simultaneous"},
            "train": {"steps": 300_000, "batch": 64},
        },
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        hidden = [config.critic_width] * config.critic_layers
        self.critic = mlp([config.z, *hidden, 2], nn.LeakyReLU, negative_slope=SLOPE)
        if config.init == "normal02":
            normal02_(self)
        else:
            he_(self.critic)

    # One step: the autoencoder against the critic of the step before, then the critic on what the encoder now gives

    def objectives(self) -> list[Objective]:
        config = self.config
        together = "game" if config.order == "simultaneous" else None
        return [
            Objective(
                "vae",
                self.vae,
                [*self.encoder.parameters(), *self.decoder.parameters()],
                adam(config.lr),
                stage=together,
            ),
            Objective(
                "critic",
                self.critic_loss,
                self.critic.parameters(),
                adam(config.critic_lr, betas=(0.5, 0.9)),
                stage=together,
                updates=config.critic_updates,
            ),
        ]

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """`x` for the autoencoder, and `critic`: the items of all the critic's updates together."""
        _warn_of_batch(source)
        batches = 2 * self.config.critic_updates if self.config.critic_data == "fresh" else 1
        return {**source.sample(), "critic": source.sample(batches * source.batch)["x"]}

    def vae(self, step: Step) -> Tensor:
        """Negative bound plus gamma times the critic's total correlation, nats; the critic gets no gradient of it."""
        bound = self.batch_bound(step)
        tc = self.total_correlation(bound.z)
        step.log("tc", tc)
        if self.config.critic_data == "shared":
            # Both sides of the critic's batch from one state of the encoder.
            step.memo["codes"] = bound.z.detach(), self._codes(step)
        return bound.reconstruction + bound.kl.sum() + self.config.gamma * tc

    def critic_loss(self, step: Step) -> Tensor:
        """Cross-entropy of telling codes from permuted codes, half of the sum of both sides, nats."""
        joint, other = self._pair(step)
        permuted = permute_dims(other, step.rand(*other.shape))
        true, false = self.log_ratio(torch.cat([joint, permuted])).chunk(2)
        step.log("critic_accuracy", 0.5 * ((true > 0).float().mean() + (false < 0).float().mean()))
        return 0.5 * (call_real(true).mean() + call_fake(false).mean())

    def _pair(self, step: Step) -> tuple[Tensor, Tensor]:
        """Codes for the joint side and, independent of them, for the side to permute; `[batch, z]` each, detached."""
        if self.config.critic_data == "shared":
            return step.memo["codes"]
        if "codes" not in step.memo:  # one pass of the encoder for the batches of all updates
            step.memo["codes"] = list(self._codes(step).chunk(2 * self.config.critic_updates))
        return step.memo["codes"].pop(), step.memo["codes"].pop()

    @torch.no_grad()
    def _codes(self, step: Step) -> Tensor:
        """A draw of q(z|x) for each of the critic's items; without a graph, so that nothing reaches the encoder."""
        return self.draw(*self.infer(step.batch["critic"]), step)

    # The density ratio

    def log_ratio(self, z: Tensor) -> Tensor:
        """The critic's estimate of log q(z) / prod_j q(z_j), nats: codes `[n, z]` -> float32 `[n]`."""
        joint, product = self.critic(z).float().unbind(1)
        return joint - product

    def total_correlation(self, z: Tensor) -> Tensor:
        """The critic's estimate of KL(q(z) || prod_j q(z_j)) from samples of q(z) `[n, z]`, nats, scalar (eq. 5)."""
        return self.log_ratio(z).mean()


def permute_dims(z: Tensor, noise: Tensor) -> Tensor:
    """Every column of z `[n, d]` in the order of that column of uniform noise `[n, d]`: samples of prod_j q(z_j).

    Each column keeps its values, so that the marginals are kept exactly.
    """
    return z.gather(0, noise.argsort(0))


def he_(critic: nn.Module) -> None:
    """Linear layers normal with variance 2 / ((1 + slope^2) fan_in), biases 0, in place."""
    for layer in critic.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
            nn.init.zeros_(layer.bias)


def normal02_(model: nn.Module) -> None:
    """Linear layers and convolutions N(0, 0.02^2), biases 0, in place; transposed convolutions keep torch's."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, 0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _warn_of_batch(source: Source) -> None:
    if source.batch < 32:
        warn_once(f"batch {source.batch} is small: the critic of factorvae may learn the permutations by heart")
    rows = source.dataset.rows(source.split)
    total = len(source.dataset) if rows is None else len(rows)
    if total < 2 * source.batch:
        warn_once(
            f"{counted(total, 'item')} cannot fill two batches of {source.batch}: the batch that factorvae permutes"
            " overlaps with the one that it does not"
        )
