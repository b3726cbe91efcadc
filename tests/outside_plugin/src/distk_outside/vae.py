"""The VAE that three methods here build on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from typing_extensions import TypeVar

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, adam, option
from distk.nn import mlp


@dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    z: int = option(4, "dimensions of the code", min=1, max=1000)
    hidden: int = option(64, "units of the hidden layers", min=1)
    lr: float = option(1e-3, "learning rate of Adam", above=0)


C = TypeVar("C", bound=Config, default=Config)


class VAE(Method[C]):
    """Code: `z`, continuous, with a Gaussian posterior."""

    train_defaults = {"steps": 300, "batch": 32}

    def __init__(self, config: C, data: DataSpec) -> None:
        super().__init__(config, data)
        pixels = math.prod(data.shape)
        self.latents = LatentSpace.of(Latent("z", "continuous", config.z))
        self.encoder = nn.Sequential(nn.Flatten(), mlp((pixels, config.hidden, 2 * config.z)))
        self.decoder = mlp((config.z, config.hidden, pixels))

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), adam(self.config.lr))]

    def gaussian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each `[n, z]`."""
        mean, logvar = self.encoder(x).chunk(2, 1)
        return mean, (0.5 * logvar.clamp(-10, 10)).exp()

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {"z": self.gaussian(x)}

    def encode(self, x: Tensor) -> Code:
        return {"z": self.gaussian(x)[0]}

    def decode(self, code: Code) -> Tensor:
        return self.decoder(code["z"]).sigmoid().view(-1, *self.spec.shape)
