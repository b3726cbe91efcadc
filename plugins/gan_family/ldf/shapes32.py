"""Coloured shapes 32x32 in ten classes, drawn on the device: labelled pictures where CIFAR-10 is not at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, Files, option
from distk.console import counted, progress
from distk.device import seeded
from distk.nn import shapes

SIDE = 32
FORMS = ("disc", "square", "triangle", "ring", "cross")
CLASSES = tuple(f"{fill} {form}" for fill in ("plain", "striped") for form in FORMS)


@dataclass(frozen=True)
class Config:
    """How many pictures are drawn."""

    images: int = option(10_000, "pictures to train on", min=10, max=1_000_000)
    held_out: int = option(2_000, "further pictures for the test split", min=10, max=1_000_000)
    picture_seed: int = option(0, "which pictures are drawn", min=0, max=2**31)


class Shapes32(Dataset[Config]):
    """Images float32 `[3, 32, 32]` in [0, 1]; the label is the form and whether it is striped, all ten alike.

    Position, size, angle and both colours are random; the ground is a smooth coloured texture. The first rows train.
    """

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.spec = DataSpec("image", (3, SIDE, SIDE), classes=CLASSES)
        total = config.images + config.held_out
        generator = seeded(config.picture_seed, device)
        self.label = torch.randint(len(CLASSES), (total,), generator=generator, device=device)
        parts = []
        with progress("drawing shapes", total) as advance:
            for label in self.label.split(1000):
                parts.append((draw(label, generator) * 255).round().to(torch.uint8))
                advance(len(label))
        self.images = torch.cat(parts)
        self.origin = f"{counted(total, 'picture')} drawn on the device (no file)"
        every = torch.arange(total, device=device)
        self.parts = {"train": every[: config.images], "test": every[config.images :]}

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, 32, 32]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.images.index_select(0, rows).float() / 255, "label": self.label[rows]}


def draw(label: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures float `[n, 3, 32, 32]` in [0, 1] of these classes int64 `[n]`."""
    n, device = len(label), label.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=device)

    place = torch.arange(SIDE, device=device) + 0.5
    cx, cy, size, turn = uniform(11, 21, 1, 1), uniform(11, 21, 1, 1), uniform(6, 10, 1, 1), uniform(0, 1, 1, 1)
    angle = turn * 2 * math.pi
    dx, dy = place - cx, place[:, None] - cy
    x, y = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    origin = (0.0, 0.0)
    arm = torch.minimum(shapes.box((x, y), origin, (size, size / 3)), shapes.box((x, y), origin, (size / 3, size)))
    disc = shapes.ball((x, y), origin, size)
    distances = (
        disc,
        shapes.box((x, y), origin, (size * 0.85, size * 0.85)),
        shapes.triangle((x, y), origin, size),
        (disc + size * 0.22).abs() - size * 0.22,
        arm,
    )
    form, striped = label % len(FORMS), (label >= len(FORMS)).view(-1, 1, 1)
    inside = torch.stack(distances, 1)[torch.arange(n, device=device), form]
    cover = shapes.coverage(inside)[:, None]
    stripe = (torch.sin(x * (2 * math.pi / 4)) > 0) & striped
    rough = uniform(0, 1, 3, 4, 4)
    ground = F.interpolate(rough, (SIDE, SIDE), mode="bicubic", align_corners=True).clamp(0, 1) * 0.5
    ink = uniform(0.55, 1, 3, 1, 1)
    paint = torch.where(stripe[:, None], ink * 0.25, ink)
    return torch.lerp(ground, paint, cover)
