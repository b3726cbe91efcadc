"""Mechanisms that move images away from a reference distribution, applied to a batch on its device.

A name is `right` or, with its amount, `right:2`. Every mechanism is a row of one table, so that a mixture is drawn and
applied without a loop and without reading back which mechanism befell which image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk.errors import nearest

DIRECTIONS = {
    "up": (0, -1),
    "down": (0, 1),
    "left": (-1, 0),
    "right": (1, 0),
    "up-left": (-1, -1),
    "up-right": (1, -1),
    "down-left": (-1, 1),
    "down-right": (1, 1),
}
DEFAULTS = {
    **dict.fromkeys(DIRECTIONS, 4.0),
    "noise": 0.5,
    "rotate": 45.0,
    "stretch-x": 1.75,
    "stretch-y": 1.75,
    "compress-x": 1.75,
    "compress-y": 1.75,
}
"""Mechanisms that take an amount, and the amount without one: pixels, standard deviation, degrees, factor."""
PLAIN = ("invert", "identity")
SETS = {
    "paper10": (*DIRECTIONS, "invert", "noise"),
    "lemmon11": (
        *(f"rotate:{angle}" for angle in range(45, 316, 45)),
        "stretch-x",
        "stretch-y",
        "compress-x",
        "compress-y",
    ),
}


@dataclass(frozen=True)
class Mechanism:
    """One transformation of an image with pixels in [0, 1].

    dx, dy: shift of the content in pixels, right and down. noise: standard deviation of what is added before the clamp.
    matrix: from output to input coordinates, (x from x, x from y, y from x, y from y), origin at the centre.
    """

    name: str
    dx: int = 0
    dy: int = 0
    invert: bool = False
    noise: float = 0.0
    matrix: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)

    @property
    def reach(self) -> int:
        """The largest shift along an axis, in pixels."""
        return max(abs(self.dx), abs(self.dy))


def parse(names: Sequence[str]) -> list[Mechanism]:
    """Names of mechanisms and of sets -> mechanisms, sets in place.

    Raises ValueError for an unknown name, an amount out of range, a repetition, or an empty list.
    """
    made = [_one(single) for name in names for single in SETS.get(name, (name,))]
    if not made:
        raise ValueError("'mechanisms' names none")
    for mechanism in made:
        if made.count(mechanism) > 1:
            raise ValueError(f"mechanism '{mechanism.name}' is named twice")
    return made


def _one(text: str) -> Mechanism:
    name, _, amount = text.partition(":")
    if name in PLAIN:
        if amount:
            raise ValueError(f"mechanism '{name}' takes no amount, found '{text}'")
        return Mechanism(name, invert=name == "invert")
    if name not in DEFAULTS:
        known = sorted([*DEFAULTS, *PLAIN, *SETS])
        raise ValueError(f"unknown mechanism '{text}'.{nearest(name, known)} Available: {', '.join(known)}")
    try:
        value = float(amount) if amount else DEFAULTS[name]
    except ValueError:
        raise ValueError(f"mechanism '{text}': '{amount}' is no number") from None
    shown = f"{name}:{value:g}"
    if name in DIRECTIONS:
        if not (value == int(value) and 1 <= value <= 1024) if math.isfinite(value) else True:
            raise ValueError(f"mechanism '{text}' must shift by a whole number of pixels, at least 1")
        dx, dy = DIRECTIONS[name]
        return Mechanism(shown, dx=dx * int(value), dy=dy * int(value))
    if name == "noise":
        if not 0 < value <= 100:
            raise ValueError(f"mechanism '{text}' needs a standard deviation above 0, at most 100")
        return Mechanism(shown, noise=value)
    return Mechanism(shown, matrix=_matrix(name, value, text))


def _matrix(name: str, value: float, text: str) -> tuple[float, float, float, float]:
    if name == "rotate":
        if not 0 < abs(value) < 360:
            raise ValueError(f"mechanism '{text}' needs an angle between 0 and 360 degrees")
        cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
        return (cos, -sin, sin, cos)
    if not 1 < value <= 16:
        raise ValueError(f"mechanism '{text}' needs a factor above 1, at most 16")
    factor = 1 / value if name.startswith("stretch") else value
    return (factor, 0.0, 0.0, 1.0) if name.endswith("x") else (1.0, 0.0, 0.0, factor)


def shift(x: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Images `[n, c, h, w]` moved by `dx` to the right and `dy` downwards, int64 `[n]`: what leaves is lost, what
    becomes free is 0. Exact: pixels are copied, not interpolated."""
    n, c, h, w = x.shape
    rows = torch.arange(h, device=x.device) - dy[:, None]
    columns = torch.arange(w, device=x.device) - dx[:, None]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    place = rows.clamp(0, h - 1)[:, :, None] * w + columns.clamp(0, w - 1)[:, None, :]
    moved = x.flatten(2).gather(2, place.view(n, 1, -1).expand(-1, c, -1)).view_as(x)
    return moved * inside[:, None]


class Mixture(nn.Module):
    """K mechanisms as a table on the device (no parameters, nothing in the checkpoint)."""

    dx: Tensor
    dy: Tensor
    invert: Tensor
    noise: Tensor
    matrix: Tensor

    def __init__(self, mechanisms: Sequence[Mechanism]) -> None:
        super().__init__()
        self.mechanisms = tuple(mechanisms)
        self.warps = any(m.matrix != (1.0, 0.0, 0.0, 1.0) for m in mechanisms)
        columns = {
            "dx": torch.tensor([m.dx for m in mechanisms]),
            "dy": torch.tensor([m.dy for m in mechanisms]),
            "invert": torch.tensor([m.invert for m in mechanisms]),
            "noise": torch.tensor([m.noise for m in mechanisms]),
            "matrix": torch.tensor([m.matrix for m in mechanisms]).view(-1, 2, 2),
        }
        for name, values in columns.items():
            self.register_buffer(name, values, persistent=False)

    def __len__(self) -> int:
        return len(self.mechanisms)

    def forward(self, x: Tensor, which: Tensor, noise: Tensor) -> Tensor:
        """x float `[n, c, h, w]` in [0, 1], mechanism `which` int64 `[n]`, standard normal `noise` like x -> like x."""
        if not len(x):  # torch refuses a grid of nothing
            return x
        moved = shift(x, self.dx[which], self.dy[which])
        if self.warps:
            matrix = self.matrix[which]
            warped = F.grid_sample(
                x, F.affine_grid(F.pad(matrix, (0, 1)), list(x.shape), align_corners=False), align_corners=False
            )
            plain = (matrix == torch.eye(2, device=x.device)).all((1, 2)).view(-1, 1, 1, 1)
            moved = torch.where(plain, moved, warped)
        moved = torch.where(self.invert[which].view(-1, 1, 1, 1), 1 - moved, moved)
        return (moved + self.noise[which].view(-1, 1, 1, 1) * noise).clamp(0, 1)
