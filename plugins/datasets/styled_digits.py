"""styled-digits: an offline stand-in for SVHN, real handwriting in house-number dress, 3x32x32.

The 8x8 digits that scikit-learn carries, with colours, neighbours, shading, noise and blur: SVHN's difficulties (colour
polarity, distractors, low contrast) without its download. Rendered once, on the device, from a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, Files, option

SIZE, WRITERS = 32, 1197
"""Height and width in pixels; how many originals digits28 trains on (the others come from other writers)."""
SOURCES = {"train": 450, "test": 447}
"""Originals behind each split."""


@dataclass(frozen=True)
class Config:
    """How hard, and how many."""

    difficulty: Literal["full", "easy"] = option(
        "full", "easy: no neighbours, more contrast, half the rotation and shift"
    )
    train: int = option(1000, "training images, a tenth per class", min=10, max=1_000_000)
    test: int = option(10_000, "test images, a tenth per class", min=10, max=1_000_000)


class StyledDigits(Dataset[Config]):
    """Coloured digits, label 0..9, of equally many images per class. Writers of test images are in no training image.

    Mask: rotation +-0.3 rad (easy 0.15), the frame showing 0.8 to 1.3 of the glyph's box, shear +-0.25, shift +-10 %
    of the half width (easy 5 %); with probability 0.7 (easy: never) a second glyph at the left or right edge, strength
    0.8. Colours uniform with a mean absolute difference of at least 0.25 (easy 0.5); linear shading of slope +-0.25 per
    half width along both axes, noise of deviation 0.04, a 3x3 box blur with probability 0.5.

    which: int64 `[N]`, the original behind each image, as numbered by scikit-learn.
    """

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        from sklearn.datasets import load_digits

        raw = load_digits()
        target = torch.tensor(raw.target, dtype=torch.long)
        glyphs = torch.tensor(raw.images, dtype=torch.float32, device=device).unsqueeze(1) / 16
        glyphs = F.interpolate(glyphs, size=(24, 24), mode="bicubic", antialias=False).clamp_(0, 1)
        draw = torch.Generator().manual_seed(0)  # on the CPU, so that every device gets the same images
        sources = {
            "train": torch.randperm(WRITERS, generator=draw)[: SOURCES["train"]],
            "test": WRITERS + torch.randperm(len(target) - WRITERS, generator=draw)[: SOURCES["test"]],
        }
        which = [
            _even(sources[name], target, count) for name, count in (("train", config.train), ("test", config.test))
        ]
        neighbours = [
            sources[name][torch.randint(len(sources[name]), (len(part),), generator=draw)]
            for name, part in zip(sources, which, strict=True)
        ]
        self.which, beside = torch.cat(which).to(device), torch.cat(neighbours)
        parts = [
            self._render(glyphs, self.which[part], beside[part].to(device), draw)
            for part in torch.arange(len(beside)).split(1000)
        ]
        self.images = torch.cat(parts)
        self.label = target.to(device)[self.which]
        self.spec = DataSpec("image", (3, SIZE, SIZE), classes=tuple("0123456789"))
        self.origin = (
            f"{len(beside):,} {'easy ' * (config.difficulty == 'easy')}images from "
            f"{sum(SOURCES.values())} real digits bundled with scikit-learn, rendered on the device"
        )
        rows = torch.arange(len(beside), device=device)
        self.parts = {"train": rows[: config.train], "test": rows[config.train :]}

    def _render(self, glyphs: Tensor, which: Tensor, beside: Tensor, draw: torch.Generator) -> Tensor:
        """Originals `[n]`, neighbours `[n]` -> images uint8 `[n, 3, 32, 32]`."""
        easy, n, device = self.config.difficulty == "easy", len(which), glyphs.device

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return (low + (high - low) * torch.rand(n, *shape, generator=draw)).to(device)

        def chance(probability: float) -> Tensor:
            return (uniform(0, 1, 1, 1, 1) < probability).float()

        turn, move = (0.15, 0.05) if easy else (0.3, 0.1)
        angle, scale, shear = uniform(-turn, turn), uniform(0.8, 1.3), uniform(-0.25, 0.25)
        shift = uniform(-move, move, 2)
        away = uniform(1.5, 1.8) * (uniform(-1, 1) < 0).float().mul(2).sub(1)
        mask = _place(glyphs[which], angle, scale, shear, shift)
        other = _place(glyphs[beside], angle, scale, shear, torch.stack([away, shift[:, 1]], 1))
        mask = torch.maximum(mask, 0.8 * other * chance(0.0 if easy else 0.7))
        front, back = _colours(uniform(0, 1, 32, 2, 3), 0.5 if easy else 0.25)
        axis = torch.linspace(-1, 1, SIZE, device=device)
        slope = uniform(-0.25, 0.25, 2, 1, 1)
        shade = (slope[:, :1] * axis + slope[:, 1:] * axis[:, None]).reshape(n, 1, SIZE, SIZE)
        noise = 0.04 * torch.randn(n, 3, SIZE, SIZE, generator=draw).to(device)
        image = back * (1 - mask) + front * mask + shade + noise
        blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
        image = torch.lerp(image, blurred, chance(0.5))
        return (image.clamp(0, 1) * 255).round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, 32, 32]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.images.index_select(0, rows).float() / 255, "label": self.label[rows]}


def _even(sources: Tensor, target: Tensor, count: int) -> Tensor:
    """`count` of the sources, the classes taking turns and within a class its sources."""
    by_class = [sources[target[sources] == c] for c in range(10)]
    return torch.stack([by_class[i % 10][i // 10 % len(by_class[i % 10])] for i in range(count)])


def _place(glyphs: Tensor, angle: Tensor, scale: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """Glyphs `[n, 1, h, w]` rotated, scaled, sheared, and moved by shift `[n, 2]` half widths: `[n, 1, 32, 32]`."""
    cos, sin = angle.cos(), angle.sin()
    # What grid_sample wants is where each pixel of the image comes from: move back, rotate, then shear and scale.
    top = torch.stack([cos + shear * sin, shear * cos - sin], 1)
    bottom = torch.stack([sin, cos], 1)
    inverse = torch.stack([top, bottom], 1) * scale.view(-1, 1, 1)
    offset = -(inverse @ shift.unsqueeze(2))
    grid = F.affine_grid(torch.cat([inverse, offset], 2), [len(glyphs), 1, SIZE, SIZE], align_corners=False)
    return F.grid_sample(glyphs, grid, align_corners=False)


def _colours(drawn: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Of candidates `[n, k, 2, 3]` the first with enough contrast (else the one with most), as two `[n, 3, 1, 1]`."""
    contrast = (drawn[:, :, 0] - drawn[:, :, 1]).abs().mean(2)
    enough = (contrast >= least).float()
    order = torch.arange(drawn.shape[1], 0, -1, device=drawn.device)
    choice = (enough * order * 10 + contrast).argmax(1)
    chosen = drawn[torch.arange(len(drawn), device=drawn.device), choice]
    return chosen[:, 0].view(-1, 3, 1, 1), chosen[:, 1].view(-1, 3, 1, 1)
