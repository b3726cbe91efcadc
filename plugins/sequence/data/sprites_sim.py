"""Procedural sprites: animated characters of 4 attributes in 9 motions, drawn on the device from signed distances.

The shapes depend on the motion and the style of the hair alone, the attributes only choose colours. Painting "over"
is linear in the colours, so that a clip is a matrix product: weight of each part at each pixel times the part's
colour. The weights are drawn once (20 MB at 64x64); every batch is then rendered exactly, and nothing else is stored.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distk import DataSpec, Files, option
from distk.nn import shapes
from distk.plugins.sequence.data.clips import ACTIONS, ATTRIBUTES, FRAMES, ClipDataset, character_split

PARTS = ("bottom", "shoes", "top", "body", "hair", "eyes")
STYLES = 3
BODY = (
    (253, 213, 183),
    (236, 196, 121),
    (174, 179, 202),
    (201, 208, 238),
    (186, 132, 84),
    (156, 102, 62),
    (57, 170, 78),
)
BOTTOM = ((228, 228, 229), (235, 155, 86), (154, 26, 26), (134, 126, 127), (85, 126, 133), (49, 79, 34))
TOP = ((100, 31, 31), (40, 178, 198), (229, 230, 199), (134, 126, 127), (117, 80, 45), (177, 153, 152))
HAIR = ((2, 125, 33), (60, 7, 216), (255, 169, 19), (192, 192, 192), (225, 41, 67), (131, 53, 172))
SHOES, EYES = (79, 35, 19), (24, 20, 28)
RAISED = (0.0, 0.3, 0.6, 0.8, 1.0, 0.9, 1.0, 0.2)
"""How far the hands are raised in each frame of the spell."""
SWING = (-110, -130, -60, 0, 40, 60, 40, -110)
"""Angle of the striking arm in each frame of the slash, degrees."""


class Painter:
    """Paints shapes one over the other and keeps, for every part, its weight in each pixel.

    weights: float32 `[9 * 8 * 3, 6, size, size]`, one picture per motion, frame and hair style, in that order.
    Coordinates are those of a 64x64 canvas with y downwards and pixel centres at +0.5.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        scale = 64 / size
        centre = (torch.arange(size, device=device) + 0.5) * scale
        self.y, self.x = centre[:, None], centre
        self.scale = scale
        pictures = len(ACTIONS) * FRAMES * STYLES
        self.weights = torch.zeros(pictures, len(PARTS), size, size, device=device)
        number = torch.arange(pictures, device=device)
        self.frame = number // STYLES % FRAMES
        self.style = (number % STYLES).view(-1, 1, 1)
        motion = number // (STYLES * FRAMES)
        self.action, self.direction = (motion // 3).view(-1, 1, 1), (motion % 3).view(-1, 1, 1)

    def per_frame(self, values: tuple[float, ...]) -> Tensor:
        """A number for each of the 8 frames -> `[pictures, 1, 1]`."""
        return torch.tensor(values, device=self.x.device, dtype=torch.float32)[self.frame].view(-1, 1, 1)

    def paint(self, part: str, distance: Tensor) -> None:
        """Paint where the signed distance `[pictures, size, size]` is negative, with a dark rim one pixel wide."""
        pixels = distance / self.scale
        cover = shapes.coverage(pixels).unsqueeze(1)
        self.weights *= 1 - cover
        self.weights[:, PARTS.index(part)] += cover[:, 0] * (1 - 0.6 * (pixels + 1).clamp(0, 1))

    def ellipse(self, cx: Tensor, cy: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        """(|(dx/rx, dy/ry)| - 1) min(rx, ry)."""
        rx, ry = torch.as_tensor(rx, device=self.x.device), torch.as_tensor(ry, device=self.x.device)
        return ((((self.x - cx) / rx) ** 2 + ((self.y - cy) / ry) ** 2).sqrt() - 1) * torch.minimum(rx, ry)

    def capsule(self, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor, radius: float) -> Tensor:
        return shapes.capsule((self.x, self.y), (ax, ay), (bx, by), radius)

    def box(self, cx: Tensor, cy: Tensor, half_x: Tensor | float, half_y: float, corner: float) -> Tensor:
        return shapes.box((self.x, self.y), (cx, cy), (half_x, half_y), corner)


def part_weights(size: int, device: torch.device) -> Tensor:
    """The weight of every part in every picture: float32 `[9, 3 styles, 8 frames, 6 parts, size, size]`."""
    p = Painter(size, device)
    side = p.direction != 0
    g = torch.where(side, 2.0 * p.direction - 3, 0.0)  # left -1, right +1
    walk, slash = p.action == 0, p.action == 2
    s = torch.where(walk, p.per_frame(tuple(math.sin(2 * math.pi * t / FRAMES) for t in range(FRAMES))), 0.0)
    bob = -s.abs()
    angle = p.per_frame(SWING) * (math.pi / 180)
    middle = 32 + torch.where(side & slash, 2 * g * angle.sin(), 0.0)
    _legs(p, middle, bob, s, g, side, walk)
    for k in (-1, 0, 1):
        if k == 0:
            p.paint("top", p.box(middle, 37 + bob, torch.where(side, 5.0, 8.0), 8, 3))
        else:
            _arm(p, k, middle, bob, s, g, side, angle)
    _head(p, middle, 20 + bob, g, side)
    whole = p.weights.view(len(ACTIONS), FRAMES, STYLES, len(PARTS), size, size)
    return whole.transpose(1, 2).contiguous()


def _legs(p: Painter, middle: Tensor, bob: Tensor, s: Tensor, g: Tensor, side: Tensor, walk: Tensor) -> None:
    for k in (-1, 1):
        hip_x = middle + k * torch.where(side, 1.5, 4.0)
        foot_x = hip_x + torch.where(side & walk, 6 * k * s, 0.0)
        foot_y = 56 - torch.where(~side & walk, 4 * (k * s).clamp_min(0), 0.0)
        p.paint("bottom", p.capsule(hip_x, 43 + bob, foot_x, foot_y, 3))
        p.paint("shoes", p.ellipse(foot_x + 1.5 * g, foot_y + 1.5, 3.0, 2.0))


def _arm(p: Painter, k: int, middle: Tensor, bob: Tensor, s: Tensor, g: Tensor, side: Tensor, angle: Tensor) -> None:
    raised = p.per_frame(RAISED)
    shoulder_x = middle + k * torch.where(side, 1.0, 9.0)
    hands = [
        (torch.where(side, -5 * k * s, 2.0 * k), 44 + bob - torch.where(side, 0.0, 1 + k * s)),
        (torch.where(side, 9 * g * raised, 4 * k * raised), 44 - 24 * raised),
        (torch.where(side, 11 * g * angle.cos(), 3 + 8 * angle.cos()), 31 + 12 * angle.sin())
        if k == 1
        else (torch.full_like(s, 2.0 * k), torch.full_like(s, 44.0)),
    ]
    hand_x, hand_y = hands[0]
    for action in (1, 2):
        hand_x = torch.where(p.action == action, hands[action][0], hand_x)
        hand_y = torch.where(p.action == action, hands[action][1], hand_y)
    p.paint("top", p.capsule(shoulder_x, 31 + bob, shoulder_x + hand_x, hand_y, 2.6))
    p.paint("body", p.ellipse(shoulder_x + hand_x, hand_y, 2.6, 2.6))


def _head(p: Painter, x: Tensor, y: Tensor, g: Tensor, side: Tensor) -> None:
    p.paint("body", p.ellipse(x, y, torch.where(side, 8.0, 9.0), 9.0))
    cap = torch.maximum(p.ellipse(x, y - 1, torch.where(side, 9.0, 10.0), 10.0), p.y - (y - 2))
    curtain = p.box(x - 5 * g, y + 6, torch.where(side, 4.0, 10.0), 10, 2)
    curtain = torch.maximum(curtain, -p.box(x + 3 * g, y + 6, 7.0, 12, 0))
    bun = p.ellipse(x - 3 * g, y - 11, 4.0, 5.0)
    hair = torch.where(p.style == 1, torch.minimum(cap, curtain), cap)
    p.paint("hair", torch.where(p.style == 2, torch.minimum(cap, bun), hair))
    for k in (-1, 1):
        p.paint("eyes", p.ellipse(x + torch.where(side, 5 * g, 3.5 * k), y + 1, 1.2, 1.6))


@dataclass(frozen=True)
class Config:
    """Which set of attributes, and how large the frames are."""

    variant: Literal["li-mandt", "das-dandi"] = option(
        "li-mandt", "6x6x6x6 attributes, or Das & Dandi's 7 bodies x 5 bottoms x 4 tops x 6 hair colours"
    )
    size: Literal[16, 32, 64, 128] = option(64, "height and width in pixels")


class SpritesSim(ClipDataset[Config]):
    """Factors body, bottom, top, hair, action; clips of 8 frames; train and test characters are disjoint."""

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.factor_sizes = (6, 6, 6, 6, 9) if config.variant == "li-mandt" else (7, 5, 4, 6, 9)
        weights = part_weights(config.size, device)
        self.weights = weights.flatten(0, 1).flatten(3)  # [27, 8, 6, pixels]
        self.palettes = [torch.tensor(p, device=device) / 255 for p in (BODY, BOTTOM, TOP, HAIR)]
        self.fixed = torch.tensor((SHOES, EYES), device=device) / 255
        self.spec = DataSpec(
            "video",
            (FRAMES, 3, config.size, config.size),
            classes=ACTIONS,
            extra={"attributes": dict(zip(ATTRIBUTES, self.factor_sizes, strict=False))},
        )
        characters = math.prod(self.factor_sizes[:-1])
        # Li & Mandt: 1,000 of 1,296 characters train. Das & Dandi: a tenth of the characters is for the test.
        train = 1000 if config.variant == "li-mandt" else characters - characters // 10
        self.parts = character_split(self.factor_sizes, train, device)
        self.origin = "drawn on the device (no file)"

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 8, 3, size, size]` in steps of 1/255, `label` int64 `[n]` the motion, `factors` `[n, 5]`."""
        factors = self.factors(rows)
        body, bottom, top, hair = (palette[factors[:, k]] for k, palette in enumerate(self.palettes))
        shoes, eyes = self.fixed.expand(len(rows), -1, -1).unbind(1)
        colours = torch.stack([bottom, shoes, top, body, hair, eyes], 2)  # [n, 3, parts]
        pictures = self.weights[factors[:, 4] * STYLES + factors[:, 3] % STYLES]
        # Float32 proper, whatever the training run allows its matrix products: pixels must not depend on it.
        terms = (colours[:, None, :, i, None] * pictures[:, :, None, i] for i in range(len(PARTS)))
        x = functools.reduce(torch.add, terms)
        x = (x * 255).round().div(255).view(len(rows), *self.spec.shape)
        return {"x": x, "label": factors[:, 4], "factors": factors}
