"""MPI3D (Gondal et al. 2019): a robot's arm with an object, photographed and rendered, seven factors, 64x64.

The official files hold `images` uint8 `[N, 64, 64, 3]` in the order of the factors, the last one fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option, permuted_split
from distk.plugins.datasets.arrayfile import opened, unpacked
from distk.stored import Stored

FILES = {
    "toy": "mpi3d_toy.npz",
    "realistic": "mpi3d_realistic.npz",
    "real": "mpi3d_real.npz",
    "complex": "real3d_complicated_shapes_ordered.npz",
}
GRIDS = {
    "toy": (6, 6, 2, 3, 3, 40, 40),
    "realistic": (6, 6, 2, 3, 3, 40, 40),
    "real": (6, 6, 2, 3, 3, 40, 40),
    "complex": (4, 4, 2, 3, 3, 40, 40),
}
SHAPES = {
    "toy": ("cone", "cube", "cylinder", "hexagonal", "pyramid", "sphere"),
    "complex": ("mug", "ball", "banana", "cup"),
}


@dataclass(frozen=True)
class Config:
    """Which of the four."""

    variant: Literal["toy", "realistic", "real", "complex"] = option(
        "toy", "toy and realistic are rendered, real is photographed, complex has four everyday objects"
    )
    holdout: float = option(0.0, "share of the images, drawn once for all, that only the split `test` holds", min=0)

    def __post_init__(self) -> None:
        if self.holdout >= 1:
            raise ValueError(f"holdout {self.holdout} leaves nothing to train on; it must be below 1")


class MPI3D(FactorDataset[Config]):
    """Factors object_color 6, object_shape 6, object_size 2, camera_height 3, background_color 3, horizontal_axis 40,
    vertical_axis 40 (complex: 4 colours and 4 shapes)."""

    counted = True
    reads = " or ".join(FILES.values())
    factor_names = (
        "object_color",
        "object_shape",
        "object_size",
        "camera_height",
        "background_color",
        "horizontal_axis",
        "vertical_axis",
    )
    factor_kinds = ("categorical", "categorical", "ordinal", "ordinal", "categorical", "ordinal", "ordinal")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.factor_sizes, name = GRIDS[config.variant], FILES[config.variant]
        path = files.find(name, name.replace(".npz", ".npy"), f"*/{name}")
        if path is None:
            raise UsageError(f"data set 'mpi3d' is not drawn: put '{name}' into a folder and add --data-dir FOLDER.")
        self.pixels = Stored(read(path, math.prod(self.factor_sizes)), device, files.where)
        self.stored, self.origin = (self.pixels,), f"read from {path}"
        self.parts = permuted_split(len(self), config.holdout, 0, device) if config.holdout else {}
        shapes = SHAPES["complex" if config.variant == "complex" else "toy"]
        self.spec = DataSpec("image", (3, 64, 64), classes=shapes)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, 64, 64]` in [0, 1], `label` int64 `[n]` the shape, `factors` int64 `[n, 7]`."""
        levels = self.factors(rows)
        return {"x": self.pixels[rows].movedim(-1, 1).float() / 255, "label": levels[:, 1], "factors": levels}


def read(path: Path, count: int) -> np.ndarray:
    """The images of an official file, uint8 `[count, 64, 64, 3]`, unpacked once and kept; a .npy file is mapped.

    Raises DistkError for another shape or type, and for a damaged file.
    """
    shape = (count, 64, 64, 3)
    with opened(path) as held:
        name = "" if path.suffix == ".npy" else "images"
        if name not in held or tuple(held[name].shape) != shape or held[name].dtype != np.uint8:
            there = f"{held[name].dtype} {tuple(held[name].shape)}" if name in held else f"only {', '.join(held)[:80]}"
            raise DistkError(f"'{path}': expected images uint8 {shape}, found {there}.")
        if name == "":
            return held[name]
        return unpacked(f"mpi3d: {path.name}", path, held["images"])
