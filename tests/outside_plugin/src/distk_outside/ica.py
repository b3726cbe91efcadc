"""Independent components by FastICA (Hyvarinen 1999): fitted whole, before any step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from sklearn.decomposition import FastICA
from torch import Tensor

from distk import Code, DataSpec, Latent, LatentSpace, Method, Source, option
from distk.metric import chosen_rows


@dataclass(frozen=True)
class Config:
    """How many components, of how many items."""

    components: int = option(3, "components", min=1, max=1000)
    rows: int = option(2000, "training items at most", min=10)


class ICA(Method[Config]):
    """Code: `s`, continuous, without a prior."""

    data = "blobs"
    closed_form = True

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        pixels = math.prod(data.shape)
        self.latents = LatentSpace.of(Latent("s", "continuous", config.components, prior="none"))
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("unmix", torch.zeros(config.components, pixels))
        self.register_buffer("mix", torch.zeros(pixels, config.components))

    def initialise(self, source: Source) -> None:
        rows = chosen_rows(source.dataset, "train", self.config.rows, 0)
        x = source.dataset.batch(rows)["x"].flatten(1).cpu().numpy()
        found = FastICA(self.config.components, random_state=0, whiten="unit-variance").fit(x)
        for buffer, value in ((self.mean, found.mean_), (self.unmix, found.components_), (self.mix, found.mixing_)):
            buffer.copy_(torch.from_numpy(value))

    def encode(self, x: Tensor) -> Code:
        return {"s": (x.flatten(1) - self.mean) @ self.unmix.T}

    def decode(self, code: Code) -> Tensor:
        return (code["s"] @ self.mix.T + self.mean).clamp(0, 1).view(-1, *self.spec.shape)
