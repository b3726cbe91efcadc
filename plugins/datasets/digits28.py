"""digits28: an offline stand-in for MNIST, made of the real handwriting that scikit-learn carries.

1,797 8x8 digits, enlarged, and bent a little differently for each of 70,000 images. Rendered when drawn, on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, Files, option
from distk.console import counted

WRITERS = 1197
"""The first so many originals are the training split; the others come from other writers."""


@dataclass(frozen=True)
class Config:
    """Size and number of the images."""

    size: int = option(28, "height and width in pixels", min=12, max=256)
    margin: int = option(5, "pixels at every border that stay empty", min=0, max=64)
    augment: bool = option(True, "bend the digits at random; without it each original appears once")
    train: int = option(60_000, "training images, when augmenting", min=1, max=10_000_000)
    test: int = option(10_000, "test images, when augmenting", min=1, max=10_000_000)

    def __post_init__(self) -> None:
        if self.size - 2 * self.margin < 6:
            raise ValueError(f"size {self.size} with a margin of {self.margin} leaves no room for a digit")


class Digits28(Dataset[Config]):
    """Grey digits on black, label 0..9. Originals are split before they are bent: no test image has a training twin.

    Rotation +-12 degrees, shear +-0.2, scale 0.85 to 1.1, translation +-1 pixel (at 28 pixels), all uniform; then
    shrunk where necessary so that the ink leaves `margin` pixels free, and shifts up to that lose nothing.
    """

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        from sklearn.datasets import load_digits

        raw = load_digits()
        inner = round(config.size * 20 / 28)
        x = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16
        x = F.interpolate(x, size=(inner, inner), mode="bicubic", antialias=False).clamp_(0, 1).mul_(1.3).clamp_(max=1)
        train, test = (config.train, config.test) if config.augment else (WRITERS, len(x) - WRITERS)
        first, second = torch.arange(train) % WRITERS, WRITERS + torch.arange(test) % (len(x) - WRITERS)
        which = torch.cat([first, second])
        forward, offset = self._bends(len(which))
        self._shrink(forward, offset, which, x)
        self.originals, self.which = x.to(device), which.to(device)
        self.inverse, self.offset = torch.linalg.inv(forward).to(device), offset.to(device)
        self.label = torch.tensor(raw.target, dtype=torch.long)[which].to(device)
        self.spec = DataSpec("image", (1, config.size, config.size), classes=tuple("0123456789"))
        self.origin = (
            f"{counted(len(which), 'image')} from the 1,797 real digits bundled with scikit-learn, rendered on the"
            " device"
        )
        everything = torch.arange(len(which), device=device)
        self.parts = {"train": everything[:train], "test": everything[train:]}

    def _bends(self, n: int) -> tuple[Tensor, Tensor]:
        """Matrix from the original's pixels to the image's `[n, 2, 2]` and translation in pixels `[n, 2]`."""
        if not self.config.augment:
            return torch.eye(2).repeat(n, 1, 1), torch.zeros(n, 2)
        draw = torch.rand(n, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
        angle, shear = draw[:, 0] * math.radians(12), draw[:, 1] * 0.2
        scale = 0.975 + 0.125 * draw[:, 2]
        cos, sin = angle.cos(), angle.sin()
        # rotation . shear: a point (x, y) first becomes (x + shear y, y)
        rows = [cos, shear * cos - sin, sin, shear * sin + cos]
        forward = torch.stack(rows, 1).view(n, 2, 2) * scale.view(-1, 1, 1)
        return forward, draw[:, 3:] * (self.config.size / 28)

    def _shrink(self, forward: Tensor, offset: Tensor, which: Tensor, originals: Tensor) -> None:
        """Scale `forward` down in place where ink would enter the margin.

        A pixel is lit if its centre maps closer than 1 pixel, along both axes, to a lit pixel of the original.
        """
        inner = originals.shape[-1]
        axis = torch.arange(inner) - (inner - 1) / 2
        place = torch.stack([axis.repeat(inner), axis.repeat_interleave(inner)], 1)
        lit = originals.flatten(1) > 0
        room = (self.config.size - 1) / 2 - self.config.margin + 1
        for part in torch.arange(len(which)).split(4096):
            points = torch.einsum("nij,pj->nip", forward[part], place)
            dark = ~lit[which[part]].unsqueeze(1)
            reach = forward[part].abs().sum(2)
            high = points.masked_fill(dark, -math.inf).amax(2) + reach
            low = (-points).masked_fill(dark, -math.inf).amax(2) + reach
            fits = torch.minimum((room - offset[part]) / high, (room + offset[part]) / low).amin(1)
            forward[part] *= fits.clamp(max=1).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.which)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `label` int64 `[n]`."""
        size, inner = self.config.size, self.originals.shape[-1]
        axis = torch.arange(size, device=rows.device) - (size - 1) / 2
        place = torch.stack([axis.repeat(size), axis.repeat_interleave(size)], 1)
        source = torch.einsum("nij,npj->npi", self.inverse[rows], place - self.offset[rows].unsqueeze(1))
        grid = (source * (2 / inner)).view(-1, size, size, 2)
        x = F.grid_sample(self.originals[self.which[rows]], grid, align_corners=False)
        return {"x": x.clamp(0, 1), "label": self.label[rows]}
