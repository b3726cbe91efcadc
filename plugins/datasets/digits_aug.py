"""digits-aug: scikit-learn's digits, enlarged to MNIST's format and bent at random; the offline data of
the study `beta-mnist`. Rendered when drawn, on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, Files, option

SIDE, INNER = 28, 20
TRAIN, VALIDATION = 1437, 120
"""The first so many originals are for training, the first so many of these for validation; 360 are for testing."""


@dataclass(frozen=True)
class Config:
    """How many copies."""

    copies: int = option(20, "bent copies of each of the 1,437 training originals", min=1, max=1000)
    test_copies: int = option(4, "bent copies of each of the 360 test originals", min=1, max=1000)


class DigitsAug(Dataset[Config]):
    """Grey digits on black, 28x28, label 0..9; the copies of one original stand together and never in two splits.

    Each copy is rotated by up to 10 degrees, scaled by 0.85 to 1.15, sheared by up to 0.15 and shifted by up to 2
    pixels, all uniform. `validation` is the part of `train` that comes from its first 120 originals.
    """

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        from sklearn.datasets import load_digits

        raw = load_digits()
        x = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16
        x = F.interpolate(x, size=(INNER, INNER), mode="bilinear", align_corners=False)
        border = (SIDE - INNER) // 2
        self.originals = F.pad(x, (border,) * 4).to(device)
        source = torch.arange(len(x))
        which = torch.cat(
            [source[:TRAIN].repeat_interleave(config.copies), source[TRAIN:].repeat_interleave(config.test_copies)]
        )
        self.which = which.to(device)
        self.affine = _affine(len(which)).to(device)
        self.label = torch.tensor(raw.target, dtype=torch.long)[which].to(device)
        self.spec = DataSpec("image", (1, SIDE, SIDE), classes=tuple("0123456789"))
        self.origin = f"{len(which):,} bent copies of the 1,797 real digits bundled with scikit-learn"
        rows, cut = torch.arange(len(which), device=device), TRAIN * config.copies
        self.parts = {"train": rows[:cut], "test": rows[cut:], "validation": rows[: VALIDATION * config.copies]}

    def __len__(self) -> int:
        return len(self.which)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, 28, 28]` in [0, 1], `label` int64 `[n]`."""
        grid = F.affine_grid(self.affine[rows], [len(rows), 1, SIDE, SIDE], align_corners=False)
        x = F.grid_sample(self.originals[self.which[rows]], grid, align_corners=False)
        return {"x": x.clamp(0, 1), "label": self.label[rows]}


def _affine(n: int) -> Tensor:
    """`[n, 2, 3]`: from a copy's coordinates in [-1, 1] to its original's, drawn from a fixed seed."""
    draw = torch.rand(n, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    angle, shear, scale = draw[:, 0] * math.radians(10), draw[:, 1] * 0.15, 1 + 0.15 * draw[:, 2]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # rotation . shear: a point (x, y) first becomes (x + shear y, y)
    forward = torch.stack([cos, shear * cos - sin, sin, shear * sin + cos], 1).view(n, 2, 2)
    inverse = torch.linalg.inv(forward)
    shift = draw[:, 3:] * (2 * 2 / SIDE)
    return torch.cat([inverse, -(inverse @ shift.unsqueeze(2))], 2)
