"""The baseline of the paper: a GAN that sees and makes all pixels at once, as large as an `ldf` of like settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distk import Code, DataSpec, Latent, LatentSpace, Objective, Source, Step, adam, option
from distk.nn import call_fake, call_real
from distk.plugins.gan_family.ldf.method import LDF, Config
from distk.plugins.gan_family.ldf.networks import Decoder, WholeCritic, count, plan_of, regulariser
from distk.plugins.gan_family.ldf.shared import Shared, Whole, annealed


@dataclass(frozen=True)
class JointConfig(Shared):
    """Settings of `joint-gan`; those of the pieces say which `ldf` it is made as large as."""

    joint_width: float | None = option(
        None, "factor on its own channels; default: as many parameters as that ldf has", above=0, max=64
    )


class JointGAN(Whole[JointConfig]):
    """The baseline: a GAN whose discriminator sees all pixels; the frames of a clip are the channels of one image.

    Code: `top`, which nothing infers. Its networks are columns as those of the pieces, made so wide that it has as many
    parameters as the `ldf` of the same settings (`like`, within a few per cent).
    """

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"width": 0.25, "top_hidden": 256, "z": 16, "z0": 32, "lr": 3e-4},
            "data": {"name": "pacman", "clips": 1000, "held_out": 200},
            "train": {"steps": 600, "batch": 64, "log_every": 50},
        },
        "cifar": {"data": {"name": "cifar10"}, "train": {"steps": 4000, "batch": 100}},
        "pacman": {"data": {"name": "pacman"}, "train": {"steps": 10000, "batch": 100}},
    }
    instead: Mapping[str, str] = {"reconstruct": "distk sample", "swap": "distk interpolate"}

    def __init__(self, config: JointConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        height, width = data.shape[-2:]
        self.shape = (math.prod(data.shape) // (height * width), height, width)
        self.latents = LatentSpace.of(Latent("top", "continuous", config.z0, encoded=False))
        self.like = ldf_size(config, data)
        self.factor = config.joint_width or self._matching()
        self.generator, self.critic = self._networks(self.factor)

    def _networks(self, factor: float) -> tuple[Decoder, WholeCritic]:
        config, plan = self.config, plan_of(self.shape, self.config.arch)
        critic = WholeCritic(self.shape, plan, factor, config.dropout)
        return Decoder(self.shape, config.z0, plan, factor), critic

    def _matching(self) -> float:
        """The width at which this has as many parameters as that ldf, by bisection."""
        low, high = 1 / 64, 64.0
        with torch.device("meta"):
            for _ in range(12):  # to a third of a per cent
                middle = math.sqrt(low * high)
                if sum(map(count, self._networks(middle))) < self.like:
                    low = middle
                else:
                    high = middle
        return round(high, 4)

    def objectives(self) -> list[Objective]:
        rate = adam(self.config.lr, (self.config.beta1, 0.999))
        return [
            Objective("critic", self.tell, self.critic.parameters(), rate, "joint", compiles=False),
            Objective("generator", self.fool, self.generator.parameters(), rate, "joint"),
        ]

    def schedule(self, step: int) -> dict[str, float]:
        return {"gamma": annealed(self.config, step, self.run_steps)}

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """`x`: items that may be seen whole."""
        return {"x": self._drawn(source)}

    def tell(self, step: Step) -> Tensor:
        """L_D = mean -log D(x) + mean -log(1 - D(G(z0))) + gamma/2 Omega, nats."""
        x = self._seen(step.batch["x"]).view(-1, *self.shape)
        n = len(x)
        made = step.memo["made"] = self.generator(step.randn(n, self.config.z0))
        pixels = torch.cat([x, made]).detach().requires_grad_()
        score = self.critic(pixels)
        cost = step.schedule["gamma"] / 2 * regulariser(score, n, pixels)
        return call_real(score[:n]).mean() + call_fake(score[n:]).mean() + cost

    def fool(self, step: Step) -> Tensor:
        """L_G = mean -log D(G(z0)), nats."""
        return call_real(self.critic(step.memo["made"])).mean()

    def decode(self, code: Code) -> Tensor:
        return self._shown(self.generator(code["top"])).view(-1, *self.spec.shape)


def ldf_size(config: Shared, data: DataSpec) -> int:
    """Number of parameters of the `ldf` of the same settings."""
    shared = {name: getattr(config, name) for name in Shared.__dataclass_fields__}
    with torch.device("meta"):
        return count(LDF(Config(**{**shared, "joint_samples": None}), data))
