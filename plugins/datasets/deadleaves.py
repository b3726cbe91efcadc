"""deadleaves: occlusion images with the statistics of natural ones (Lee, Mumford & Huang 2001), CIFAR-10's stand-in.

Sixty discs are painted over each other, radii with density r^-3, positions uniform, colours mostly grey. Images are
rendered when they are drawn, on the device; an image's random numbers are a hash of its row, so that none are stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, option
from distk.remembered import Remembered

DISCS, PER_DISC = 60, 13
"""Discs per image; uniform numbers that each takes."""
AT_ONCE = {"cpu": 16}
"""Images rendered together, so that on the CPU they stay in its cache."""
SMALLEST, LARGEST = 1.5, 16.0
"""Radii in pixels at 32x32."""


@dataclass(frozen=True)
class Config:
    """Size and number of the images."""

    size: int = option(32, "height and width in pixels; discs grow with it", min=8, max=256)
    train: int = option(50_000, "training images", min=1, max=10_000_000)
    test: int = option(10_000, "test images", min=1, max=10_000_000)


class DeadLeaves(Dataset[Config]):
    """Colour images of overlapping, softly shaded discs, without labels."""

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.spec = DataSpec("image", (3, config.size, config.size))
        total = config.train + config.test
        self.origin = f"{total:,} dead-leaves images, rendered on the device"
        everything = torch.arange(total, device=device)
        self.parts = {"train": everything[: config.train], "test": everything[config.train :]}
        self._drawn = Remembered(self._draw, len(self), self.spec.shape, device)

    def __len__(self) -> int:
        return self.config.train + self.config.test

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1]; a row's image does not depend on the batch."""
        return {"x": self._drawn(rows)}

    def _draw(self, rows: Tensor) -> Tensor:
        return torch.cat([self._render(part) for part in rows.split(AT_ONCE.get(rows.device.type, 512))])

    def _render(self, rows: Tensor) -> Tensor:
        size, n = self.config.size, len(rows)
        numbers = uniforms(rows, DISCS * PER_DISC + 1 + 2 * 3 * size * size)
        discs, base, noise = numbers.split([DISCS * PER_DISC, 1, 6 * size * size], 1)
        base = 0.25 + 0.5 * base
        cover, paint = self._discs(discs.view(n, DISCS, PER_DISC), base)
        # The first disc is in front. What is still clear behind it, less what is clear behind the next, is the next's.
        clear = cover.neg_().add_(1).cumprod(1)
        shows = torch.cat([1 - clear[:, :1], clear[:, :-1] - clear[:, 1:]], 1)
        colour, across, down = torch.bmm(paint.mT, shows.flatten(2)).view(n, 5, size, size).split([3, 1, 1], 1)
        place = self._places(numbers.device)
        painted = colour + across * place + down * place[:, None] + (clear[:, -1] * base[:, :, None]).unsqueeze(1)
        return (painted + 0.01 * normal(noise).view(n, 3, size, size)).clamp_(0, 1)

    def _places(self, device: torch.device) -> Tensor:
        """Centres of the pixels on the scale of 32, `[size]`."""
        return (torch.arange(self.config.size, device=device) + 0.5) * (32 / self.config.size)

    def _discs(self, numbers: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers `[n, K, 13]` -> cover `[n, K, h, w]` in [0, 1] with an edge of one pixel, and paint
        `[n, K, 5]`: a disc's colour at (0, 0), the same for all channels across and down, per unit of length."""
        unit, place = self.config.size / 32, self._places(numbers.device)
        first = 1 - numbers[..., 0] * (1 - (SMALLEST / LARGEST) ** 2)
        radius = SMALLEST * first.rsqrt()
        x, y = (-4 + 40 * numbers[..., 1:3]).unbind(-1)
        across, down = (unit * (place - x[..., None])).square(), (unit * (place - y[..., None])).square()
        distance = (across.unsqueeze(-2) + down.unsqueeze(-1)).sqrt_()
        cover = distance.neg_().add_((unit * radius + 0.5)[..., None, None]).clamp_(0, 1)
        slope = 0.15 * numbers[..., 4] / radius
        angle = 2 * math.pi * numbers[..., 3]
        right, below = slope * angle.cos(), slope * angle.sin()
        grey, tint = normal(numbers[..., 5:7]), normal(numbers[..., 7:13])
        colour = (base[:, :, None] + 0.22 * grey + 0.08 * tint).clamp(0, 1)
        origin = colour - (right * x + below * y).unsqueeze(-1)
        return cover, torch.cat([origin, right.unsqueeze(-1), below.unsqueeze(-1)], -1)


def uniforms(rows: Tensor, count: int) -> Tensor:
    """`count` numbers in (0, 1) for each of `rows`, float32 `[n, count]`: SplitMix64 of row * 2^20 + place.

    Steele, Lea & Flood 2014. The same on every device; tensor code without host reads.
    """
    z = (rows.unsqueeze(1) << 20) + torch.arange(count, device=rows.device) + 1
    z = z * -7046029254386353131  # 0x9E3779B97F4A7C15; int64 wraps around as uint64 does
    z = (z ^ _shifted(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    z = (z ^ _shifted(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    z = z ^ _shifted(z, 31)
    return (_shifted(z, 41).float() + 0.5) / 2**23


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Right shift that fills with zeros, as of an unsigned number."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def normal(uniform: Tensor) -> Tensor:
    """Uniform numbers `[..., 2 k]` -> standard normal ones `[..., k]` (Box & Muller)."""
    first, second = uniform.unflatten(-1, (-1, 2)).unbind(-1)
    return (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()
