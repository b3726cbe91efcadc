"""dimred: vectors of few dimensions in a space of more (Kageback & Mogren 2016).

z ~ N(0, diag(sd^2)) with sd_i ~ U(0.5, 2), a projection Omega `[dims, factors]` of N(0, 1) entries, and x = Omega z,
without noise. Which sd, Omega and z is decided by the setting `projection`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, option
from distk.console import counted


@dataclass(frozen=True)
class Config:
    """How much there is, and of how many dimensions."""

    factors: int = option(4, "dimensions that the data really have", paper="4", min=1, max=4096)
    dims: int = option(10, "dimensions of an item", min=1, max=4096)
    items: int = option(10_000, "training items", paper="10,000", min=2)
    test: int = option(10_000, "test items", min=2)
    projection: int = option(0, "seed of the projection, the variances and the items", min=0, max=2**62)

    def __post_init__(self) -> None:
        if self.factors > self.dims:
            raise ValueError(f"{counted(self.factors, 'factor')} cannot fit into {counted(self.dims, 'dimension')}")


class Dimred(Dataset[Config]):
    """Vectors `[dims]`, the factors behind them as `z` `[factors]`."""

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        total = config.items + config.test
        draw = torch.Generator().manual_seed(config.projection)
        sd = 0.5 + 1.5 * torch.rand(config.factors, generator=draw)
        omega = torch.randn(config.dims, config.factors, generator=draw)
        z = torch.randn(total, config.factors, generator=draw) * sd
        self.omega, self.z = omega.to(device), z.to(device)
        self.x = self.z @ self.omega.T
        self.spec = DataSpec("vector", (config.dims,))
        self.origin = (
            f"{counted(total, 'point')} of a random {config.factors}-dimensional subspace of"
            f" {counted(config.dims, 'dimension')}, projection {config.projection}"
        )
        everything = torch.arange(total, device=device)
        self.parts = {"train": everything[: config.items], "test": everything[config.items :]}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, dims]`, unbounded, and `z` float32 `[n, factors]`."""
        return {"x": self.x[rows], "z": self.z[rows]}
