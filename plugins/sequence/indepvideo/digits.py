"""moving-mnist-rg: two handwritten digits that bounce, one red, one green (Srivastava et al. 2015, in two colours)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec, Files, open_dataset, option
from distk.plugins.sequence.indepvideo.data import ClipConfig, DrawnClips


@dataclass(frozen=True)
class Config(ClipConfig):
    """How large frames are, and how fast digits move."""

    size: Literal[32, 64] = option(64, "height and width in pixels; 32 halves the digits, too", paper="64")
    speed: float = option(0.1, "of every digit, in walks from wall to wall per frame", paper="0.1 (code)", min=0, max=1)
    fastest: float | None = option(None, "draw speeds between --speed and this instead", min=0, max=1)


class MovingDigits(DrawnClips[Config]):
    """A red digit in channel 0 and a green one in channel 1, each on a path of its own; channel 2 is empty.

    Digits are 28x28 and drawn from the training images for training, from the test images for the test split. Places p
    and directions are uniform, p in the unit square. In every frame p moves first; a coordinate that leaves [0, 1] is
    put on the wall and its velocity turned round. The corner is trunc(36 p), so that a digit goes 3.6 pixels a frame.
    """

    reads = "MNIST's files: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., plain or .gz"
    object_channels = (0, 1)

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.digits = open_dataset("mnist", {}, device=device, folder=files.folders[0] if files.required else None)
        self.stand_in = self.digits.stand_in
        self._rows = [self.digits.rows_of(split) for split in ("train", "test")]
        self.side = 28 * config.size // 64
        self.spec = DataSpec("video", (config.frames, 3, config.size, config.size))
        self.origin = f"two digits rendered on the device, training clips never repeat; digits: {self.digits.origin}"
        self.fix(10)

    def places(self, uniform: Tensor) -> Tensor:
        """Numbers `[n, 10]` -> places in the unit square, `[n, t, 2, 2]`: clip, frame, digit, row and column."""
        u, config = uniform.view(-1, 2, 5), self.config
        angle = 2 * math.pi * u[..., 2]
        top = config.speed if config.fastest is None else config.fastest
        speed = config.speed + (top - config.speed) * u[..., 3]
        velocity = speed.unsqueeze(-1) * torch.stack([angle.sin(), angle.cos()], -1)
        place, places = u[..., :2], []
        for _ in range(config.frames):  # two numbers a digit: the only thing that must be walked through
            place = place + velocity
            velocity = torch.where((place <= 0) | (place >= 1), -velocity, velocity)
            place = place.clamp(0, 1)
            places.append(place)
        return torch.stack(places, 1)

    def clips(self, uniform: Tensor, held: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, t, 3, size, size]` in [0, 1]; `corner` int64 `[n, t, 2, 2]`, row and column of each digit's
        top left corner."""
        size, side = self.config.size, self.side
        corner = ((size - side) * self.places(uniform)).long()
        pixel = torch.arange(size, device=uniform.device)
        # One more row and column of nothing, which every pixel outside the digit reads.
        inner = pixel - corner.unsqueeze(-1)
        inner = torch.where((inner >= 0) & (inner < side), inner, side)
        rows, columns = inner[..., 0, :, None], inner[..., 1, None, :]
        which = torch.arange(2 * len(uniform), device=uniform.device).view(-1, 1, 2, 1, 1)
        shown = self._images(uniform, held)[which, rows, columns]
        return {"x": torch.cat([shown, torch.zeros_like(shown[:, :, :1])], 2), "corner": corner}

    def _images(self, uniform: Tensor, held: Tensor) -> Tensor:
        """Both digits of each clip, with an empty row and column at the end, float32 `[2 n, side + 1, side + 1]`."""
        u = uniform.view(-1, 2, 5)[..., 4]
        rows = [part[(u * len(part)).long().clamp(max=len(part) - 1)] for part in self._rows]
        x = self.digits.batch(torch.where(held[:, None], rows[1], rows[0]).flatten())["x"]
        if self.config.size == 32:
            x = F.avg_pool2d(x, 2)
        return F.pad(x[:, 0], (0, 1, 0, 1))

    def sources(self, rows: Tensor) -> Tensor:
        """Places of the digits in the unit square, float32 `[n, t, 2, 2]`."""
        return self.places(self.fixed[rows])
