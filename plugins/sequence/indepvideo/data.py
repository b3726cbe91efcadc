"""Clips whose parts move independently: vectors of two oscillators, and two squares that bounce.

`DrawnClips` is what the drawn data sets share: training clips are drawn anew for every batch, on the device, and never
repeat; the rows of the data set are further, fixed clips for thresholds and tests. `sources` are the true states.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import Dataset, DataSpec, Files, Split, option


@dataclass(frozen=True)
class ClipConfig:
    """How long clips are, and how many fixed ones there are."""

    frames: int = option(5, "frames of a clip", min=2, max=10_000)
    train: int = option(2048, "fixed clips of the train split; training itself draws new ones", min=1, max=10_000_000)
    test: int = option(2048, "fixed clips of the test split", min=1, max=10_000_000)


D = TypeVar("D", bound=ClipConfig, default=ClipConfig)


class DrawnClips(Dataset[D]):
    """Clips that are functions of a few numbers, uniform on [0, 1). A subclass calls `fix` and defines `clips`."""

    fixed: Tensor

    def fix(self, numbers: int) -> None:
        """Draw the fixed clips' numbers float32 `[clips, numbers]`: on the host, so that every device has the same."""
        total = self.config.train + self.config.test
        self.fixed = torch.rand(total, numbers, generator=torch.Generator().manual_seed(0)).to(self.device)
        everything = torch.arange(total, device=self.device)
        self.parts = {"train": everything[: self.config.train], "test": everything[self.config.train :]}

    @abstractmethod
    def clips(self, uniform: Tensor, held: Tensor) -> dict[str, Tensor]:
        """Numbers `[n, numbers]` -> a batch; held bool `[n]`: clips of the test split."""

    def __len__(self) -> int:
        return len(self.fixed)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The fixed clips of these rows: `x` float32 `[n, t, ...]`."""
        return self.clips(self.fixed[rows], rows >= self.config.train)

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` clips: new ones for the train split, else fixed ones with replacement."""
        if split != "train":
            return self.batch(self.sample_rows(n, generator, split))
        uniform = torch.rand(n, self.fixed.shape[1], generator=generator, device=self.device)
        return self.clips(uniform, torch.zeros(n, dtype=torch.bool, device=self.device))


def covered(start: Tensor, length: Tensor | float, size: int) -> Tensor:
    """Share of each of `size` pixels that the intervals [start, start + length] cover: `[...]` -> `[..., size]`."""
    pixel = torch.arange(size, device=start.device)
    start = start.unsqueeze(-1)
    end = start + (length.unsqueeze(-1) if isinstance(length, Tensor) else length)
    return (torch.minimum(pixel + 1, end) - torch.maximum(pixel, start)).clamp(0, 1)


# ------------------------------------------------------------------------------------- oscillators


@dataclass(frozen=True)
class OscillatorConfig:
    """How many clips there are, and how fast the two oscillators turn."""

    frames: int = option(8, "frames of a clip", min=2, max=10_000)
    clips: int = option(20_000, "clips; every tenth is a test clip", min=20, max=10_000_000)
    first_speed: float = option(0.5, "radians per frame of the first oscillator", min=0, max=math.pi)
    second_speed: float = option(
        1.3, "of the second; with equal speeds nothing tells the two apart", min=0, max=math.pi
    )
    noise: float = option(0.05, "standard deviation of the observation noise", min=0)
    data_seed: int = option(0, "seed of the mixing matrix and of the clips", min=0, max=2**31)


class TwoOscillators(Dataset[OscillatorConfig]):
    """Clips of 8 numbers: x_t = A [s_1(t); s_2(t)] + noise, A 8x4 with orthonormal columns.

    s_i(t) = r_i (cos(phi_i + w_i t), sin(phi_i + w_i t)), r ~ U[0.6, 1.4], phi ~ U[0, 2 pi). Two rotations of different
    speed have unique invariant planes, so that the two sources can be found from how they move, and from nothing else:
    at any one moment all directions of their four numbers look alike.
    """

    def __init__(self, config: OscillatorConfig, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        n, frames = config.clips, config.frames
        draw = torch.Generator().manual_seed(config.data_seed)
        mixing = torch.linalg.qr(torch.randn(8, 4, generator=draw, dtype=torch.float64)).Q.float()
        radius = 0.6 + 0.8 * torch.rand(n, 1, 2, 1, generator=draw)
        phase = 2 * math.pi * torch.rand(n, 1, 2, generator=draw)
        speed = torch.tensor([config.first_speed, config.second_speed])
        angle = phase + speed * torch.arange(frames)[:, None]
        state = radius * torch.stack([angle.cos(), angle.sin()], -1)
        noise = config.noise * torch.randn(n, frames, 8, generator=draw)
        self.state = state.to(device)
        self.x = (state.flatten(2) @ mixing.T + noise).to(device)
        self.spec = DataSpec("vector-clip", (frames, 8), (-3.0, 3.0))
        self.origin = f"{n:,} procedural clips of 8 numbers: two oscillators, mixed at random"
        every = torch.arange(n, device=device)
        self.parts = {"train": every[every % 10 != 0], "test": every[every % 10 == 0]}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, t, 8]`."""
        return {"x": self.x[rows]}

    def sources(self, rows: Tensor) -> Tensor:
        """States of the two oscillators, float32 `[n, t, 2, 2]`: clip, frame, oscillator, cosine and sine."""
        return self.state[rows]


# ----------------------------------------------------------------------------------------- squares


@dataclass(frozen=True)
class SquareConfig(ClipConfig):
    """How large frames and squares are, and how fast these move."""

    frames: int = option(8, "frames of a clip", min=2, max=10_000)
    size: int = option(16, "height and width in pixels", min=8, max=256)
    side: int = option(3, "side of a square in pixels", min=1, max=64)
    speed: float = option(1.2, "pixels per frame", min=0, max=64)

    def __post_init__(self) -> None:
        if self.side >= self.size:
            raise ValueError(f"squares of side {self.side} do not move in frames of size {self.size}")


class BouncingSquares(DrawnClips[SquareConfig]):
    """A red and a green square that move straight on, bounce off the walls, and do not see each other.

    A pixel is as bright as the share of it that a square covers. Place and direction are uniform. The red one is in
    channel 0, the green one in channel 1, channel 2 is empty.
    """

    object_channels = (0, 1)

    def __init__(self, config: SquareConfig, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.spec = DataSpec("video", (config.frames, 3, config.size, config.size))
        self.origin = "a red and a green square, rendered on the device, training clips never repeat"
        self.fix(6)

    def places(self, uniform: Tensor) -> Tensor:
        """Numbers `[n, 6]` -> top left corners in pixels, float32 `[n, t, 2, 2]`: clip, frame, square, row and column.

        The reflected path is a triangle wave of the straight one, so that no frame needs the one before.
        """
        u = uniform.view(-1, 1, 2, 3)
        room = self.config.size - self.config.side
        angle = 2 * math.pi * u[..., 2]
        velocity = self.config.speed * torch.stack([angle.sin(), angle.cos()], -1)
        time = torch.arange(self.config.frames, device=u.device).view(-1, 1, 1)
        straight = room * u[..., :2] + velocity * time
        return room - (straight % (2 * room) - room).abs()

    def clips(self, uniform: Tensor, held: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, t, 3, size, size]` in [0, 1]."""
        place, size, side = self.places(uniform), self.config.size, float(self.config.side)
        down, across = (covered(place[..., axis], side, size) for axis in (0, 1))
        squares = down.unsqueeze(-1) * across.unsqueeze(-2)
        return {"x": torch.cat([squares, torch.zeros_like(squares[:, :, :1])], 2)}

    def sources(self, rows: Tensor) -> Tensor:
        """Corners of the squares, in pixels, float32 `[n, t, 2, 2]`."""
        return self.places(self.fixed[rows])
