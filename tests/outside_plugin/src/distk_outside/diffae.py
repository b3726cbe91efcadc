"""A diffusion autoencoder (Preechakul et al. 2022), small: a code tells a denoiser what to make of noise."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.nn import Average, mlp


@dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    z: int = option(4, "dimensions of the code", min=1, max=1000)
    hidden: int = option(64, "units of the hidden layers", min=1)
    steps_of_decoding: int = option(10, "steps from noise to an image", min=1, max=1000)
    decay: float = option(0.99, "of the average that decodes", min=0, max=0.9999)
    lr: float = option(1e-3, "learning rate of Adam", above=0)


class DiffAE(Method[Config]):
    """Code: `z`, continuous, without a prior; `noise`, what decoding begins with, neither encoded nor walked."""

    data = "blobs"
    train_defaults = {"steps": 300, "batch": 32}

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.pixels = math.prod(data.shape)
        self.latents = LatentSpace.of(
            Latent("z", "continuous", config.z, prior="none"),
            Latent("noise", "continuous", self.pixels, encoded=False, walked=False),
        )
        self.encoder = nn.Sequential(nn.Flatten(), mlp((self.pixels, config.hidden, config.z)))
        self.denoiser = mlp((self.pixels + config.z + 1, config.hidden, self.pixels))
        self.average = Average(self.denoiser, config.decay)

    def objectives(self) -> list[Objective]:
        parameters = [*self.encoder.parameters(), *self.denoiser.parameters()]
        return [Objective("denoising", self.loss, parameters, adam(self.config.lr), after=self.average.update)]

    def mixed(self, x: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """x and noise `[n, pixels]` at times `[n, 1]` in [0, 1]: cosine schedule."""
        angle = time * math.pi / 2
        return angle.cos() * x + angle.sin() * noise

    def loss(self, step: Step) -> Tensor:
        x = 2 * step.batch["x"].flatten(1) - 1
        time, noise = step.rand(len(x), 1), step.randn(len(x), self.pixels)
        seen = torch.cat([self.mixed(x, noise, time), self.encoder(step.batch["x"]), time], 1)
        return (self.denoiser(seen) - x).square().sum(1).mean()

    def encode(self, x: Tensor) -> Code:
        return {"z": self.encoder(x)}

    def decode(self, code: Code) -> Tensor:
        code = self.filled(code)
        x, z = code["noise"], code["z"]
        steps = self.config.steps_of_decoding
        times = [1 - i / steps for i in range(steps + 1)]
        for now, then in itertools.pairwise(times):
            time = torch.full((len(x), 1), now, device=x.device)
            clean = self.average(torch.cat([x, z, time], 1))
            angle = time * math.pi / 2
            noise = (x - angle.cos() * clean) / angle.sin()
            x = self.mixed(clean, noise, torch.full_like(time, then))
        return (0.5 * x + 0.5).clamp(0, 1).view(-1, *self.spec.shape)
