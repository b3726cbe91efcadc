"""A generator whose encoder is replaced by the true factors (Burgess et al. 2018, section 4.3).

Each factor f_i is sent through a noisy channel of its own, z_i = a_i f_i + s_i eps, and one decoder draws the image
from all of them. As the capacity C grows, the order in which channels open shows which factors lower the
reconstruction error most per nat: the code of a beta-VAE, if it were aligned with the factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.console import counted
from distk.nn import kl_to_prior, reparameterise
from distk.plugins.vae_family.betavae.method import CapacityConfig
from distk.plugins.vae_family.gaussian import check_likelihood, negative_log_likelihood, values
from distk.plugins.vae_family.networks import Architecture, decoder

SHOWN = 10
"""Images whose reconstructions are kept at each of `marks`."""
POINTS = 200
"""Capacities from c_min to c_max at which the KL of every channel is kept."""


@dataclass(frozen=True)
class Config(CapacityConfig):
    """Hyperparameters of the generator."""

    c_min: float = option(0.5, "C at the start, nats", paper="0.5", min=0)
    marks: tuple[float, ...] = option(
        (3.1, 7.3, 15.4, 23.8), "capacities at which reconstructions are kept, nats", paper="3.1,7.3,15.4,23.8", min=0
    )
    arch: Architecture = option("burgess", "decoder, named after its paper")
    likelihood: Literal["bernoulli", "gaussian"] = option(
        "bernoulli", "bernoulli: cross-entropy of pixels in [0, 1]; gaussian: sum of squared errors"
    )
    lr: float = option(5e-4, "learning rate of Adam", paper="5e-4", above=0)
    channel_lr: float | None = option(
        None, "learning rate of the channels' a and log s; default: --lr; more makes short runs possible", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.marks) > 32:
            raise ValueError(f"marks names {counted(len(self.marks), 'capacity', 'capacities')}; at most 32 are kept")


class FactorGen(Method[Config]):
    """Generator from noisy factors. Code: `z`, one dimension per factor.

    Reads `factors` int64 `[n, K]` of the batch. Factors are standardised: their values, counted 0, 1, ..., are shifted
    and scaled to mean 0 and variance 1 if all are equally frequent. Orientation is not wrapped.
    """

    data = "dsprites"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 100_000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {
                "arch": "mlp",
                "lr": 4e-3,
                "channel_lr": 2e-2,
                "gamma": 40.0,
                "c_max": 12.0,
                "c_steps": 1500,
                "marks": [3, 7, 11],
            },
            "data": {"name": "dsprites", "size": 32, "scales": [1, 3, 5], "orientations": 10, "positions": 16},
            "train": {"steps": 1500, "log_every": 25},
        },
        "paper": {"train": {"steps": 100_000}},
    }
    instead: Mapping[str, str] = dict.fromkeys(("eval", "traverse", "reconstruct"), "distk betavae capacity")
    sizes: Tensor
    centre: Tensor
    spread: Tensor
    shown: Tensor
    kept: Tensor
    kept_at: Tensor
    curve: Tensor

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        check_likelihood(config.likelihood, data)
        self.factor_names, sizes = factor_sizes(data)
        k = len(sizes)
        self.latents = LatentSpace.of(Latent("z", "continuous", k))
        # KL of a channel at the start: 0.5 (0.1^2 + 1 - 0 - 1), 0.005 nats.
        self.scale = nn.Parameter(torch.full((k,), 0.1))
        self.log_std = nn.Parameter(torch.zeros(k))
        self.decoder = decoder(config.arch, data, k)
        size = torch.tensor(sizes, dtype=torch.float32)
        self.register_buffer("sizes", size, persistent=False)
        self.register_buffer("centre", (size - 1) / 2, persistent=False)
        self.register_buffer("spread", ((size**2 - 1) / 12).sqrt().clamp_min(0.5), persistent=False)
        drawn = (torch.rand(SHOWN, k, generator=torch.Generator().manual_seed(0)) * size).long()
        self.register_buffer("shown", torch.minimum(drawn, size.long() - 1), persistent=False)
        self.register_buffer("kept", torch.zeros(len(config.marks), SHOWN, *data.shape))
        self.register_buffer("kept_at", torch.full((len(config.marks),), -1))
        self.mark_steps = [first_step(config, mark) for mark in config.marks]
        # KL of every channel when C first reached each of `capacities`; -1 where it has not.
        self.register_buffer("curve", torch.full((POINTS, k), -1.0))
        width = config.c_max - config.c_min
        self.capacities = [config.c_min + width * i / (POINTS - 1) for i in range(POINTS)]
        self.point_steps: dict[int, list[int]] = {}
        for i, c in enumerate(self.capacities):
            at = config.c_steps if i == POINTS - 1 else first_step(config, c)
            self.point_steps.setdefault(config.c_steps if at is None else at, []).append(i)

    # One step

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), self.optimizer)]

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam; the pressure's gradient changes its sign about every step, and Adam divides by its size, so that the
        channels follow the much smaller one of the reconstruction slowly. They may have a learning rate of their own.
        """
        config, channels = self.config, [self.scale, self.log_std]
        if config.channel_lr is None:
            return adam(config.lr)(parameters)
        made = adam(config.lr)([p for p in parameters if all(p is not c for c in channels)])
        rate = torch.tensor(config.channel_lr, device=self.scale.device) if self.scale.is_cuda else config.channel_lr
        made.add_param_group({"params": channels, "lr": rate})
        return made

    def schedule(self, step: int) -> dict[str, Any]:
        return {"capacity": self.config.capacity(step)}

    def before_step(self, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Keep the KL of every channel as C grows, and reconstructions of the shown factors when C reaches a mark."""
        for i in self.point_steps.get(step, ()):
            with torch.no_grad():
                self.curve[i].copy_(self.channels())
        for i, at in enumerate(self.mark_steps):
            if at == step:
                with torch.no_grad():
                    self.kept[i].copy_(self.decode({"z": self.mean(self.shown)}))
                    self.kept_at[i].fill_(step)

    def elbo(self, step: Step) -> Tensor:
        """Reconstruction + gamma |KL - C(t)|: sum over pixels, mean over the batch, nats."""
        f, capacity = self.standardised(step.batch["factors"]), step.schedule["capacity"]
        z = reparameterise(self.scale * f, self.log_std.exp(), step.randn(*f.shape))
        x = step.batch["x"]
        reconstruction = negative_log_likelihood(self.config.likelihood, self.decoder(z), x, self.spec).mean()
        kl = self.kl(f)
        step.log("reconstruction", reconstruction)
        step.log("kl", kl)
        step.log("capacity", capacity)
        return reconstruction + self.config.gamma * (kl.sum() - capacity).abs()

    def kl(self, f: Tensor) -> Tensor:
        """KL of each channel to N(0, 1), mean over standardised factors `[n, K]`, nats, `[K]`."""
        return kl_to_prior(self.scale * f, 2 * self.log_std).mean(0)

    def channels(self) -> Tensor:
        """KL of each channel to N(0, 1), mean over factors that are equally frequent, nats, `[K]`."""
        square = (self.sizes**2 - 1) / 12 / self.spread**2  # of standardised factors: 1, or 0 for one with one value
        return 0.5 * (self.scale**2 * square + (2 * self.log_std).exp() - 1) - self.log_std

    def standardised(self, factors: Tensor) -> Tensor:
        """Factor values int64 `[n, K]` -> float `[n, K]` of mean 0 and variance 1 over the grid."""
        return (factors - self.centre) / self.spread

    def mean(self, factors: Tensor) -> Tensor:
        """Factor values int64 `[n, K]` -> the mean of their code, float `[n, K]`."""
        return self.scale * self.standardised(factors)

    # The trained model

    def decode(self, code: Code) -> Tensor:
        return values(self.decoder(code["z"]), self.spec)

    def prior(self, n: int, generator: torch.Generator) -> Code:
        """`n` codes of factors drawn uniformly, as the decoder was trained on."""
        k, device = len(self.factor_names), generator.device
        uniform = torch.rand(n, k, generator=generator, device=device)
        factors = torch.minimum((uniform * self.sizes).long(), self.sizes.long() - 1)
        noise = torch.randn(n, k, generator=generator, device=device)
        return {"z": reparameterise(self.mean(factors), self.log_std.exp(), noise)}


def factor_sizes(spec: DataSpec) -> tuple[list[str], list[int]]:
    """Names of the factors behind the data, and how many values each has. Raises ValueError when there are none."""
    factors = spec.extra.get("factors")
    if not isinstance(factors, Mapping) or not factors:
        raise ValueError("factorgen needs a data set with factors; this one has none")
    sizes = list(factors.values())
    if len(sizes) > 1000 or any(not isinstance(n, int) or not 0 < n < 1 << 31 for n in sizes):
        raise ValueError("the numbers of values of the factors are impossible")
    return [str(name) for name in factors], sizes


def first_step(config: CapacityConfig, mark: float) -> int | None:
    """The first step in which C is at least `mark` nats; None if it never is."""
    if mark <= config.c_min:
        return 0
    if mark > config.c_max:
        return None
    step = math.ceil((mark - config.c_min) / (config.c_max - config.c_min) * config.c_steps)
    # Rounding may put the quotient a little to either side of a whole step.
    return next((t for t in (step - 1, step, step + 1) if config.capacity(t) >= mark), None)
