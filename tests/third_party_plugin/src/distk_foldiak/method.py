"""A linear autoencoder with tied weights: x is coded as W (x - mean) and decoded with the transpose of W."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option


@dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    z: int = option(6, "dimensions of the code", min=1, max=4096)
    decorrelate: float = option(0.1, "weight of the squared correlations between codes", min=0)
    lr: float = option(1e-2, "learning rate of Adam", above=0)


class TiedLinear(Method[Config]):
    """Code: `z`, continuous."""

    data = "foldiak"
    train_defaults = {"steps": 500, "batch": 32}

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        pixels = math.prod(data.shape)
        self.latents = LatentSpace.of(Latent("z", "continuous", config.z))
        self.weight = nn.Parameter(torch.randn(config.z, pixels) / math.sqrt(pixels))
        self.mean = nn.Parameter(torch.zeros(pixels))

    def objectives(self) -> list[Objective]:
        return [Objective("error", self.error, self.parameters(), adam(self.config.lr))]

    def error(self, step: Step) -> Tensor:
        """Squared error, sum over pixels, mean over batch, plus squared covariances of different codes."""
        x = step.batch["x"].flatten(1)
        z = (x - self.mean) @ self.weight.T
        squares = (x - self.mean - z @ self.weight).square().sum(1).mean()
        centred = z - z.mean(0)
        covariance = centred.T @ centred / len(z)
        apart = (covariance - covariance.diag().diag()).square().sum()
        step.log("squares", squares)
        return squares + self.config.decorrelate * apart

    def encode(self, x: Tensor) -> Code:
        return {"z": (x.flatten(1) - self.mean) @ self.weight.T}

    def decode(self, code: Code) -> Tensor:
        return (code["z"] @ self.weight + self.mean).clamp(0, 1).view(-1, *self.spec.shape)
