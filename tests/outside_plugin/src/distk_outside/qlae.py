"""Latent quantisation (Hsu et al. 2023): each dimension takes one of a few values, which are learned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Source, Step, adamw, option
from distk.nn import bernoulli_nll, mlp


@dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    z: int = option(4, "dimensions", min=1, max=1000)
    values: int = option(6, "values of each", min=2, max=1000)
    hidden: int = option(64, "units of the hidden layers", min=1)
    lr: float = option(1e-3, "learning rate", above=0)
    decay: float = option(0.1, "decoupled weight decay of encoder and decoder; the values have none", min=0)


class QLAE(Method[Config]):
    """Code: `z`, ordinal, of the values in `book` `[z, values]`."""

    data = "blobs"
    train_defaults = {"steps": 300, "batch": 32}

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        pixels = math.prod(data.shape)
        self.latents = LatentSpace.of(Latent("z", "ordinal", config.z))
        self.encoder = nn.Sequential(nn.Flatten(), mlp((pixels, config.hidden, config.z)))
        self.decoder = mlp((config.z, config.hidden, pixels))
        self.book = nn.Parameter(torch.linspace(-1, 1, config.values).repeat(config.z, 1))

    def initialise(self, source: Source) -> None:
        """The values begin as quantiles of what the encoder makes of the data."""
        with torch.no_grad():
            made = self.encoder(torch.cat([source.sample()["x"] for _ in range(4)]))
            share = (torch.arange(self.config.values, device=made.device) + 0.5) / self.config.values
            self.book.copy_(torch.quantile(made, share, dim=0).T)

    def objectives(self) -> list[Objective]:
        make = adamw(self.config.lr, decay=self.config.decay, no_decay=[self.book])
        return [Objective("error", self.error, self.parameters(), make)]

    def quantised(self, raw: Tensor) -> Tensor:
        """The nearest value of each dimension, `[n, z]`."""
        nearest = (raw.unsqueeze(-1) - self.book).abs().argmin(-1)
        return self.book.expand(len(raw), -1, -1).gather(2, nearest.unsqueeze(-1)).squeeze(-1)

    def error(self, step: Step) -> Tensor:
        """Reconstruction with a straight-through gradient, and both pulls between encoder and values."""
        x = step.batch["x"]
        raw = self.encoder(x)
        z = self.quantised(raw)
        through = raw + (z - raw).detach()
        reconstruction = bernoulli_nll(self.decoder(through), x.flatten(1)).mean()
        pull = (z - raw.detach()).square().sum(1).mean() + 0.1 * (raw - z.detach()).square().sum(1).mean()
        step.log("reconstruction", reconstruction)
        return reconstruction + pull

    def walk(self, group: Latent, columns: int) -> Tensor:
        return self.book.detach().sort(1).values

    def encode(self, x: Tensor) -> Code:
        return {"z": self.quantised(self.encoder(x))}

    def decode(self, code: Code) -> Tensor:
        return self.decoder(code["z"]).sigmoid().view(-1, *self.spec.shape)
