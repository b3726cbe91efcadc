"""What `ldf` and its baseline share: settings, the pixels' scale, and which items may be seen whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import Dataset, DataSpec, Method, Source, UsageError, option

SUBSET_SEED = 0
"""Which items `joint-samples` leaves is one fixed choice, the same for every seed and method."""


@dataclass(frozen=True)
class Shared:
    """Settings that the two methods have in common, so that one can be held against the other."""

    grid: int = option(2, "an image is cut into so many rows and columns of pieces; clips into frames", min=1, max=64)
    arch: Literal["conv", "auto", "mlp"] = option(
        "conv", "networks of the pixels: conv for sides 16, 32, 64; mlp; auto: conv where there is one", paper="conv"
    )
    z: int = option(64, "dimensions of a piece's code", min=1, max=4096)
    z0: int = option(128, "dimensions of the noise that a whole item is made of", min=1, max=4096)
    width: float = option(1.0, "factor on all channels and units of the pieces' networks", above=0, max=16)
    top_hidden: int = option(1024, "units of the hidden layers above", min=1, max=65536)
    gamma: float = option(2.0, "weight of the discriminators' regulariser", paper="Roth et al.", min=0)
    anneal: float = option(0.01, "gamma falls to this share of itself, step by step", above=0, max=1)
    dropout: float = option(0.2, "dropout on what the discriminators of pixels see", min=0, max=0.9)
    lr: float = option(1e-4, "learning rate of Adam", paper="1e-4 (Dumoulin et al.)", above=0)
    beta1: float = option(0.5, "Adam's first beta", paper="0.5 (Dumoulin et al.)", min=0, max=0.999)
    joint_samples: int | None = option(
        None, "only so many training items are seen whole; their pieces, and all others', still are", paper="256", min=2
    )


S = TypeVar("S", bound=Shared, default=Shared)


class Whole(Method[S]):
    """What both methods do with whole items: the pixels' scale, and the few that `joint-samples` leaves."""

    data = "pacman"
    kinds = ("image", "video")
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 4000, "batch": 100}
    least_batch = 2  # the generators' first layers are normalised over the batch

    def _seen(self, x: Tensor) -> Tensor:
        """Items in the data's range -> [0, 1]."""
        low, high = self.spec.range
        return (x - low) / (high - low)

    def _shown(self, x: Tensor) -> Tensor:
        """Inverse of `_seen`."""
        low, high = self.spec.range
        return x * (high - low) + low

    def whole_rows(self, dataset: Dataset) -> Tensor:
        """Rows int64 of the training items that may be seen whole: all, or those that `joint-samples` leaves.

        Raises UsageError where that is more than there are.
        """
        wanted, held = self.config.joint_samples, self.__dict__.get("_chosen")
        if held is None or held[0] is not dataset:
            rows = dataset.rows_of("train")
            if wanted is not None and wanted > len(rows):
                raise UsageError(
                    f"--joint-samples {wanted} is more than the {len(rows):,} training items of data set "
                    f"'{dataset.name}'."
                )
            if wanted is not None:
                order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SUBSET_SEED))[:wanted]
                rows = rows[order.to(rows.device)]
            held = self.__dict__["_chosen"] = (dataset, rows)
        return held[1]

    def _drawn(self, source: Source) -> Tensor:
        """A batch of items that may be seen whole, `[batch, *item]`."""
        if self.config.joint_samples is None:
            return source.sample()["x"]
        rows = self.whole_rows(source.dataset)
        return source.dataset.batch(rows[drawn_below(source, len(rows))])["x"]


def drawn_below(source: Source, size: int) -> Tensor:
    """This rank's share of `batch` numbers below `size`, int64."""
    n, device = source.batch, source.dataset.device
    drawn = torch.randint(size, (n * source.world,), generator=source.generator, device=device)
    return drawn[source.rank * n : (source.rank + 1) * n]


def annealed(config: Shared, step: int, steps: int) -> float:
    """gamma * anneal^(t / (T - 1)) at step t of T (the option of Roth et al.'s code)."""
    share = min(max(step, 0) / max(steps - 1, 1), 1.0)
    return config.gamma * config.anneal**share


def pieces_of(data: DataSpec, grid: int) -> tuple[int, tuple[int, ...]]:
    """Number of pieces of an item, and the shape of one.

    Raises ValueError for images that the grid does not divide.
    """
    if data.kind == "video":
        return data.shape[0], tuple(data.shape[1:])
    channels, height, width = data.shape
    if height % grid or width % grid:
        raise ValueError(f"images of {height}x{width} pixels cannot be cut into {grid} x {grid} equal pieces")
    return grid * grid, (channels, height // grid, width // grid)
