"""CascadeVAE: information cascading and exact discrete inference (Jeong & Song, ICML 2019, arXiv 1905.09432).

Continuous z with a KL weight per dimension that is lowered one dimension at a time, and one discrete code d that no
network encodes: on every batch it is solved for, exactly, as a min-cost flow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import (
    Code,
    Dataset,
    DataSpec,
    Latent,
    LatentSpace,
    Method,
    Objective,
    Step,
    adam,
    one_hot,
    option,
    static_shapes_only,
)
from distk.console import warn_once
from distk.nn import bernoulli_nll, gaussian_kl, reparameterise
from distk.plugins.vae_family.cascadevae import solver as mincostflow
from distk.plugins.vae_family.networks import SnuDecoder, SnuEncoder


@dataclass(frozen=True)
class ContinuousConfig:
    """Hyperparameters without the discrete code."""

    z: int = option(6, "continuous dimensions", paper="6 or 4", min=1, max=1024)
    beta_h: float = option(10.0, "KL weight of dimensions not yet relieved", paper="10 (code)", min=0)
    beta_l: float | None = option(
        None, "KL weight of relieved dimensions; default 1, with --z 4 it is 2", paper="1; 2", min=0
    )
    relieve_every: int = option(20_000, "steps between relieving one more dimension", paper="20,000 (code)", min=1)
    hidden: int = option(256, "width of the fully connected layers", paper="256", min=1, max=65536)
    lr: float = option(1e-4, "learning rate of Adam, constant", paper="1e-4 (code)", above=0)
    weight_l2: float = option(4e-5, "half-square penalty on all weights", paper="4e-5 (code)", min=0)
    adam_reset: Literal["relieve", "never"] = option(
        "relieve", "restart Adam's moments whenever a dimension is relieved"
    )

    def __post_init__(self) -> None:
        if self.low > self.beta_h:
            warn_once(
                f"beta_l {self.low} is above beta_h {self.beta_h}: dimensions become more expensive when relieved"
            )

    @property
    def low(self) -> float:
        """beta_l with its default resolved: 2 for four dimensions, else 1 (slides)."""
        return self.beta_l if self.beta_l is not None else 2.0 if self.z == 4 else 1.0


@dataclass(frozen=True)
class Config(ContinuousConfig):
    """Hyperparameters of CascadeVAE."""

    classes: int = option(3, "values of the discrete code", paper="3", min=2, max=1024)
    warmup: int = option(
        80_000, "steps before the discrete code takes part, a multiple of relieve-every", paper="80,000 (code)", min=0
    )
    pair_cost: float = option(
        0.001, "nats charged per pair of batch members in one class", paper="0.001 (code)", min=0, max=1e4
    )
    solver: Literal["auto", "torch", "triton", "scipy", "argmin", "random"] = option(
        "auto", "how d is found; scipy, argmin and random (a drawn class) are references and ablations"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup % self.relieve_every:
            raise ValueError(f"warmup {self.warmup} must be a multiple of relieve-every {self.relieve_every}")
        mincostflow.pair_units(self.pair_cost)


K = TypeVar("K", bound=ContinuousConfig, default=ContinuousConfig)


class CascadeVAEContinuous(Method[K]):
    """CascadeVAE-C: only the information cascade. Code: `z`, continuous."""

    data = "dsprites"
    taps = ("code",)
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 300_000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        # Three shapes of one size on a grid of positions: a minute on two cores. Without the L2 penalty, because in so
        # short a warm-up it would only serve to shrink the decoder's unused columns of d (see the method's card).
        "demo": {
            "model": {"z": 3, "hidden": 128, "lr": 1e-3, "relieve_every": 300, "weight_l2": 0.0},
            "data": {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 16},
            "train": {"steps": 1500, "log_every": 50},
        },
        "paper": {"train": {"steps": 300_000, "eval_every": 10_000, "keep": "best:factorvae"}},
    }

    def __init__(self, config: K, data: DataSpec) -> None:
        super().__init__(config, data)
        self.classes = getattr(config, "classes", 0)
        self.latents = LatentSpace.of(*self._groups())
        self.encoder = SnuEncoder(data, config.z, config.hidden)
        self.decoder = SnuDecoder(data, config.z + self.classes, config.hidden)

    def _groups(self) -> list[Latent]:
        return [Latent("z", "continuous", self.config.z)]

    # Information cascade

    def relieved(self, step: int) -> int:
        """r(t): how many dimensions have the low KL weight in this step."""
        return min(step // self.config.relieve_every + 1, self.config.z)

    def schedule(self, step: int) -> dict[str, Any]:
        r = self.relieved(step)
        return {"beta": [self.config.low] * r + [self.config.beta_h] * (self.config.z - r)}

    def before_step(self, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """The published program makes a new Adam per value of r; zeroing its state in place is the same."""
        if self.config.adam_reset == "relieve" and step > 0 and self.relieved(step) != self.relieved(step - 1):
            for slots in optimizers["loss"].state.values():
                for value in slots.values():
                    value.zero_()

    # One step

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), adam(self.config.lr, weight_l2=self.config.weight_l2))]

    def elbo(self, step: Step) -> Tensor:
        """Negative bound: sum over pixels, mean over batch, nats; the L2 term is applied by the optimizer."""
        x = step.batch["x"]
        mean, std = self.encoder(x)
        step.tap("code", mean)
        z = reparameterise(mean, std, step.randn(*mean.shape))
        d = self.discrete(step, z, x)
        reconstruction = bernoulli_nll(self.decoder(torch.cat([z, d], 1)), x).mean()
        kl = gaussian_kl(mean, std + 1e-8).mean(0)
        step.log("reconstruction", reconstruction)
        step.log("kl", kl)
        return reconstruction + (step.schedule["beta"] * kl).sum()

    def discrete(self, step: Step, z: Tensor, x: Tensor) -> Tensor:
        """The discrete code of a batch as the decoder's input `[n, S]`; there is none here."""
        return z[:, :0]

    # The trained model

    def encode(self, x: Tensor) -> Code:
        return {"z": self.encoder(x)[0]}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {"z": self.encoder(x)}

    def bound(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`elbo` of each item, nats; the class is the best one, a point mass that costs log S against the uniform
        prior."""
        mean, std = self.encoder(x)
        z = reparameterise(mean, std, torch.randn(mean.shape, generator=generator, device=mean.device))
        d = self.best_class(z, x)
        reconstruction, kl = bernoulli_nll(self.decoder(torch.cat([z, d], 1)), x), gaussian_kl(mean, std + 1e-8)
        elbo = -(reconstruction + kl.sum(1) + math.log(max(1, d.shape[1])))
        return {"elbo": elbo, "reconstruction": reconstruction, "kl": kl}

    def best_class(self, z: Tensor, x: Tensor) -> Tensor:
        """The class of each item by itself, as the decoder's input `[n, S]`; there is none here."""
        return z[:, :0]

    def decode(self, code: Code) -> Tensor:
        return self.decoder(torch.cat([code[group.name] for group in self.latents], 1)).sigmoid()


class CascadeVAE(CascadeVAEContinuous[Config]):
    """CascadeVAE. Code: `z`, continuous, and `d`, one of S classes."""

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            **CascadeVAEContinuous.presets["demo"],
            "model": {**CascadeVAEContinuous.presets["demo"]["model"], "warmup": 600},
        },
        "paper": CascadeVAEContinuous.presets["paper"],
    }
    started: Tensor

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        # 0 until the first step with a discrete code: before it, d is the zero vector and no class means anything.
        self.register_buffer("started", torch.zeros(()))

    def accepts(self, dataset: Dataset) -> None:
        """A step whose solver reads from the device is not captured."""
        self.capturable = mincostflow.reads_because(self.config.solver, self.classes, dataset.device) or True

    def _groups(self) -> list[Latent]:
        return [*super()._groups(), Latent("d", "categorical", self.config.classes)]

    def relieved(self, step: int) -> int:
        """Up to the warm-up's end phase q relieves q + 1 dimensions; the phase in which d starts relieves none."""
        phase = step // self.config.relieve_every
        return min(phase + 1 if step < self.config.warmup else max(phase, 1), self.config.z)

    def phase(self, step: int) -> Hashable:
        return step >= self.config.warmup

    def discrete(self, step: Step, z: Tensor, x: Tensor) -> Tensor:
        """d of the inner problem: minimise sum_i cost[i, d_i] + L sum_k n_k (n_k - 1) / 2 (zero vector in warm-up)."""
        if not step.phase:
            return z.new_zeros(len(z), self.classes)
        with torch.no_grad():
            cost = self.cost(z, x)
            if self.config.solver == "random":
                chosen = step.randint(self.classes, len(z))
            else:
                early = not static_shapes_only(z.device) or self.capturable is not True
                chosen = mincostflow.assign(cost.float(), self.config.pair_cost, self.config.solver, early_exit=early)
            d = one_hot(chosen, self.classes)
            step.log("frac_not_argmin", (chosen != cost.argmin(1)).float().mean())
            step.log("class", d.sum(0))
            self.started.fill_(1.0)
        return d

    def cost(self, z: Tensor, x: Tensor) -> Tensor:
        """Reconstruction cost of each item under each class, sum over pixels, nats: `[n, S]`."""
        logits = self.decoder.per_class(z, self.classes)
        return bernoulli_nll(logits.flatten(0, 1), x.repeat_interleave(self.classes, 0)).unflatten(
            0, (-1, self.classes)
        )

    def encode(self, x: Tensor) -> Code:
        """z = posterior mean; d = the class that reconstructs best from it, whatever else is in the batch."""
        z = self.encoder(x)[0]
        return {"z": z, "d": self.best_class(z, x)}

    def best_class(self, z: Tensor, x: Tensor) -> Tensor:
        return one_hot(self.cost(z, x).argmin(1), self.classes) * self.started
