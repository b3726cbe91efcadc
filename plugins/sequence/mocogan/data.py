"""Shape motion: a circle or a square of one colour crosses a black frame on a random curve (Tulyakov et al. 2017).

The authors' released clips follow this recipe to the bit: sides of 8 to 14 pixels, a quartic Bezier curve of 32
positions, pixels on or off. Only positions and a few numbers are kept; a batch is drawn from them on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, UsageError, option
from distk.console import counted
from distk.data import Split

CANVAS = 64
"""Side of the frames that the recipe is about; smaller ones are averaged from it."""
SIDES = (8, 10, 12, 14)
HALF_WIDTHS = ((4, 3, 3, 2, 0), (5, 4, 4, 4, 3, 0), (6, 5, 5, 5, 4, 3, 0), (7, 6, 6, 6, 5, 5, 3, 0))
"""Of a circle of each side: half its width in the rows at distance 0, 1, ... from its centre."""
POSITIONS = 32
DIRECTIONS = {"released": ("bottom to top", "right to left"), "paper": ("top to bottom", "left to right")}
"""Names of classes 0 and 1."""


@dataclass(frozen=True)
class Config:
    """How many clips there are, how long, and how large."""

    clips: int = option(4000, "clips for training", paper="4000", min=1, max=5_000_000)
    test_clips: int = option(1000, "further clips for the test", min=1, max=5_000_000)
    size: Literal[16, 32, 64] = option(64, "height and width in pixels; below 64 by averaging", paper="64")
    frames: int = option(16, "frames of an item", paper="16", min=2, max=POSITIONS)
    every: int = option(2, "take only every so many-th of the 32 positions of a curve", min=1, max=POSITIONS - 1)
    direction: Literal["released", "paper"] = option(
        "released", "which way shapes go: up or left as in the released files, or down or right as in the text"
    )
    data_seed: int = option(0, "seed of the clips", min=0, max=2**31)


class ShapeMotion(FactorDataset[Config]):
    """Clips `[frames, 3, size, size]` in [0, 1]. A row is a window of a clip; all windows of one are in one split.

    label: 0 where the shape goes up (or down), 1 where it goes left (or right). corner: uint8 `[clips, 32, 2]`, x and y
    of the upper left corner of the shape's box at each position, on a canvas of 64x64. The other factors hold for the
    whole clip; `line` is where the curve begins and ends in the direction in which the shape does not go.
    """

    factor_names = ("shape", "size", "motion", "red", "green", "blue", "line")
    factor_sizes = (2, len(SIDES), 2, 256, 256, 256, 62 - SIDES[0])
    factor_kinds = ("categorical", "ordinal", "categorical", "continuous", "continuous", "continuous", "ordinal")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        span = (config.frames - 1) * config.every + 1
        if span > POSITIONS:
            raise UsageError(
                f"{counted(config.frames, 'frame')}, every {config.every}. position, need {counted(span, 'position')}"
                f" of a curve, which has {POSITIONS}: lower --frames or --every."
            )
        self.windows = POSITIONS - span + 1
        count = config.clips + config.test_clips
        draw = torch.Generator().manual_seed(config.data_seed)
        factors = drawn_factors(count, draw)
        self.corner = curves(factors, draw, config.direction == "paper").to(torch.uint8).to(device)
        self.table = factors.repeat_interleave(self.windows, 0).to(device)
        rows = torch.arange(count * self.windows, device=device)
        cut = config.clips * self.windows
        self.parts = {"train": rows[:cut], "test": rows[cut:]}
        self._within = torch.arange(config.frames, device=device) * config.every
        self._sides = torch.tensor(SIDES, device=device)
        self._half = half_widths().to(device)
        self._grid = torch.arange(CANVAS, device=device)
        names = DIRECTIONS[config.direction]
        self.spec = DataSpec("video", (config.frames, 3, config.size, config.size), classes=names)
        self.origin = (
            f"{counted(config.clips, 'clip')} and {config.test_clips:,} for the test, drawn on the device (no file)"
        )

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, t, 3, size, size]`, `label` int64 `[n]` the motion, `factors` int64 `[n, 7]`."""
        factors = self.factors(rows)
        at = (rows % self.windows)[:, None] + self._within
        x = self._render(factors, self.corner[(rows // self.windows)[:, None], at].long())
        return {"x": x, "label": factors[:, 2], "factors": factors}

    def sample_frames(self, n: int, generator: torch.Generator, split: Split = "train") -> Tensor:
        """`n` frames float32 `[n, 3, size, size]`, uniform over all 32 positions of all clips of a split."""
        rows = self.sample_rows(n, generator, split)
        at = torch.randint(POSITIONS, (n, 1), generator=generator, device=self.device)
        corner = self.corner[(rows // self.windows)[:, None], at].long()
        return self._render(self.factors(rows), corner)[:, 0]

    def _render(self, factors: Tensor, corner: Tensor) -> Tensor:
        """Factors `[n, 7]`, corners int64 `[n, t, 2]` -> `[n, t, 3, size, size]`: whole numbers compared, no blur."""
        circle, size = factors[:, 0, None, None, None] == 0, factors[:, 1]
        side = self._sides[size][:, None, None, None]
        across = self._grid - corner[:, :, 0, None, None]  # [n, t, 1, 64]
        down = self._grid[:, None] - corner[:, :, 1, None, None]  # [n, t, 64, 1]
        centre = side // 2 - 1
        box = (across >= 0) & (across < side) & (down >= 0) & (down < side)
        row = (down - centre).abs().clamp_max(self._half.shape[1] - 1)
        round_ = (across - centre).abs() <= self._half[size[:, None, None, None], row]
        inside = (box & (round_ | ~circle)).float().unsqueeze(2)
        if self.config.size != CANVAS:
            inside = F.avg_pool3d(inside, (1, CANVAS // self.config.size, CANVAS // self.config.size))
        return inside * (factors[:, None, 3:6, None, None] / 255)


def half_widths() -> Tensor:
    """`HALF_WIDTHS` as int64 `[4, 9]`, with -1 in rows outside the circle."""
    longest = max(map(len, HALF_WIDTHS)) + 1
    return torch.tensor([[*widths, *[-1] * (longest - len(widths))] for widths in HALF_WIDTHS])


def drawn_factors(n: int, draw: torch.Generator) -> Tensor:
    """Factors of `n` clips, each uniform and by itself, int64 `[n, 7]`; `line` is counted from 0."""
    sizes = (2, len(SIDES), 2, 256, 256, 256)
    columns = [torch.randint(size, (n,), generator=draw) for size in sizes]
    limit = 62 - torch.tensor(SIDES)[columns[1]]
    line = (torch.rand(n, generator=draw, dtype=torch.float64) * limit).long()
    return torch.stack([*columns, line], 1)


def curves(factors: Tensor, draw: torch.Generator, mirrored: bool = False) -> Tensor:
    """Corners of the shapes of `factors` `[n, 7]` at 32 positions, int64 `[n, 32, 2]` (x, y), in 1..62 - side.

    A quartic Bezier curve in each coordinate, cut down to whole numbers. The coordinate that moves (x of class 1, y of
    class 0) goes from 62 - side to 1, or `mirrored` back; the other begins and ends at `line` + 1. The three control
    points in between are whole numbers, uniform on 1..62 - side.
    """
    limit = 62 - torch.tensor(SIDES, dtype=torch.float64)[factors[:, 1]]
    inner = 1 + (torch.rand(2, len(factors), 3, generator=draw, dtype=torch.float64) * limit[:, None]).floor()
    line = factors[:, 6].double() + 1
    ends = (torch.stack([limit, torch.ones_like(limit)], 1), torch.stack([line, line], 1))
    u = torch.linspace(0, 1, POSITIONS, dtype=torch.float64)
    weights = torch.stack([k * (1 - u) ** (4 - i) * u**i for i, k in enumerate((1, 4, 6, 4, 1))])  # [5, 32]
    goes, stays = (torch.cat([e[:, :1], p, e[:, 1:]], 1) @ weights for e, p in zip(ends, inner, strict=True))
    # A sum that is a whole number may fall short of it by its rounding, which must not cost a pixel.
    goes, stays = ((value + 1e-9).floor().long() for value in (goes, stays))
    goes = limit.long()[:, None] + 1 - goes if mirrored else goes
    sideways = factors[:, 2, None] == 1
    return torch.stack([torch.where(sideways, goes, stays), torch.where(sideways, stays, goes)], 2)
