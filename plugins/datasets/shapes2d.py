"""shapes2d (Peychev, Veličković & Liò 2017): one white square, ellipse or triangle on black, 64x64, five factors.

An image is one of at most 3 x 6 x 60 sprites moved by whole pixels, so that the sprites alone lie on the device (7 MB)
and any of the 276,480 images is a view of them. Images that coincide bit for bit, within a shape, are counted and kept
out of the splits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, option
from distk.console import counted, progress
from distk.nn import shapes

SHAPES = ("square", "ellipse", "triangle")
SIDE, FIRST, STEPS = 64, 24, 16
"""Pixels of an image; position 0 of the centre; positions along each axis."""
CANVAS = SIDE + STEPS - 1
"""Pixels of a sprite's canvas: every window of SIDE pixels in it is the sprite at one position."""
CENTRE = FIRST + STEPS - 1
SMALLEST, DEGREES = 8, 3
"""Size at scale 0, in pixels; step of the rotation."""


@dataclass(frozen=True)
class Config:
    """Which renderer, and which part of the grid."""

    renderer: Literal["analytic", "pillow"] = option(
        "analytic", "analytic: pixel centres inside the shape, on the device; pillow: the published program's drawing"
    )
    size: Literal[64, 32, 16] = option(64, "height and width in pixels; below 64 the mean of 2x2 or 4x4 pixels")
    shapes: tuple[str, ...] = option(SHAPES, "which of square, ellipse, triangle")
    positions: int = option(16, "values of each coordinate, evenly spread over 16 pixels", paper="16", min=1, max=16)
    scales: tuple[int, ...] = option(
        (0, 1, 2, 3, 4, 5), "which of the six scales (radius 8 to 13 pixels)", paper="all", min=0, max=5
    )
    rotations: int = option(60, "the first so many steps of 3 degrees", paper="60", min=1, max=60)
    duplicates: Literal["drop", "keep"] = option("drop", "what the splits do with images that coincide")
    truncate: bool = option(True, "cut every shape's share of the splits to that of the rarest shape", paper="yes")

    def __post_init__(self) -> None:
        for name, values in (("shapes", self.shapes), ("scales", self.scales)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must name at least one of them, each once")
        for shape in self.shapes:
            if shape not in SHAPES:
                raise ValueError(f"'{shape}' is none of the shapes {', '.join(SHAPES)}")


class Shapes2D(FactorDataset[Config]):
    """Factors shape 3, x 16, y 16, scale 6, rotation 60: a full grid.

    Splits (70 : 15 : 15 of each shape): `train`, `test`, `validation`. They hold one row for each different image,
    while sampling by factors covers the whole grid.
    """

    factor_names = ("shape", "x", "y", "scale", "rotation")
    factor_kinds = ("categorical", "ordinal", "ordinal", "ordinal", "circular")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        n = config.positions
        self.factor_sizes = (len(config.shapes), n, n, len(config.scales), config.rotations)
        self.spec = DataSpec("image", (1, config.size, config.size), classes=config.shapes)
        self.places = torch.linspace(0, STEPS - 1, n, dtype=torch.float64, device=device).round().long()
        sprites = _RENDERERS[config.renderer](config, device)
        self._first = self._survivors(sprites)
        self._views = sprites.unfold(1, SIDE, 1).unfold(2, SIDE, 1)
        self._kept = self._keep()
        self.parts = self._divide()
        how = "drawn by Pillow" if config.renderer == "pillow" else "rendered on the device"
        unique = int((self._first == torch.arange(len(self), device=device)).sum())
        self.origin = f"{how} ({config.renderer} renderer), {unique:,} of {counted(len(self), 'image')} different"

    # Images

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `label` int64 `[n]` the shape, `factors` int64 `[n, 5]`."""
        factors = self.factors(rows)
        shape, x, y, _, _ = factors.unbind(-1)
        sprite, left, top = self._sprite(factors), STEPS - 1 - self.places[x], STEPS - 1 - self.places[y]
        images = self._views[sprite, top, left].float().unsqueeze(1)
        if self.config.size != SIDE:
            images = F.avg_pool2d(images, SIDE // self.config.size)
        return {"x": images, "label": shape, "factors": factors}

    def _sprite(self, factors: Tensor) -> Tensor:
        """Number of the sprite of factor values `[..., 5]`."""
        scales, rotations = len(self.config.scales), self.config.rotations
        return (factors[..., 0] * scales + factors[..., 3]) * rotations + factors[..., 4]

    # Which images are the same

    def surviving(self, rows: Tensor) -> Tensor:
        """Rows int64 `[...]` -> for each the first row of its shape that shows the same 64x64 image, bit for bit."""
        return self._first[rows]

    def _survivors(self, sprites: Tensor) -> Tensor:
        """The first row that shows each row's image, int64 `[N]`.

        Sprites are moved into the upper left corner: two images are the same if these are and their places agree.
        """
        lit = sprites.bool()
        top = lit.any(2).int().argmax(1)
        left = lit.any(1).int().argmax(1)
        axis = torch.arange(CANVAS, device=self.device)
        down = (axis + top[:, None]) % CANVAS
        across = (axis + left[:, None]) % CANVAS
        cornered = lit.gather(1, down[:, :, None].expand_as(lit)).gather(2, across[:, None, :].expand_as(lit))
        _, kind = torch.unique(cornered.flatten(1).to(torch.uint8), dim=0, return_inverse=True)
        rows = torch.arange(len(self), device=self.device)
        factors = self.factors(rows)
        sprite = self._sprite(factors)
        key = factors[:, 0] * len(sprites) + kind[sprite]
        key = key * 2 * CANVAS + top[sprite] + self.places[factors[:, 2]]
        key = key * 2 * CANVAS + left[sprite] + self.places[factors[:, 1]]
        _, same = torch.unique(key, return_inverse=True)
        first = torch.full((int(same.max()) + 1,), len(self), device=self.device)
        return first.scatter_reduce(0, same, rows, "amin")[same]

    # Splits

    def _keep(self) -> list[Tensor]:
        """Per shape, the rows that take part in the splits, shuffled and cut to the rarest shape's number."""
        rows = torch.arange(len(self), device=self.device)
        survives = self._first == rows if self.config.duplicates == "drop" else torch.ones_like(rows, dtype=torch.bool)
        shapes = self.factor_sizes[0]
        each = [r[s] for r, s in zip(rows.chunk(shapes), survives.chunk(shapes), strict=True)]
        most = min(len(part) for part in each) if self.config.truncate else len(self)
        generator = torch.Generator().manual_seed(0)
        return [part[torch.randperm(len(part), generator=generator)[:most].to(self.device)] for part in each]

    def _divide(self) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {"train": [], "test": [], "validation": []}
        for rows in self._kept:
            first = round(0.7 * len(rows))
            second = first + round((len(rows) - first) / 2)
            for name, part in zip(parts, rows.tensor_split((first, second)), strict=True):
                parts[name].append(part)
        generator = torch.Generator().manual_seed(1)
        joined = {name: torch.cat(found) for name, found in parts.items()}
        mixed = {k: rows[torch.randperm(len(rows), generator=generator).to(self.device)] for k, rows in joined.items()}
        return {name: rows for name, rows in mixed.items() if len(rows)}

    def stats(self) -> list[dict[str, Any]]:
        """Per shape and in all: combinations of factors, different images, and rows of the splits."""
        rows = torch.arange(len(self), device=self.device)
        shape = self.factors(rows)[:, 0]
        survives = self._first == rows
        found: list[dict[str, Any]] = []
        for k, name in enumerate(self.config.shapes):
            split = {part: int((shape[r] == k).sum()) for part, r in self.parts.items()}
            counts = {"combinations": int((shape == k).sum()), "unique": int((survives & (shape == k)).sum())}
            found.append({"shape": name, **counts, "kept": len(self._kept[k]), **split})
        totals = {key: sum(row[key] for row in found) for key in found[0] if key != "shape"}
        return [*found, {"shape": "all", **totals}]


def _analytic(config: Config, device: torch.device) -> Tensor:
    """uint8 `[sprites, CANVAS, CANVAS]`: 1 where a pixel's centre lies inside the shape, in float64.

    The rotation is taken modulo the shape's symmetry in whole degrees, so that equal shapes are equal to the last bit.
    """
    axis = torch.arange(CANVAS, device=device, dtype=torch.float64) + 0.5 - CENTRE
    dx, dy = axis.view(1, 1, -1), axis.view(1, -1, 1)
    radius = SMALLEST + torch.tensor(config.scales, device=device, dtype=torch.float64)
    sprites = []
    for shape in config.shapes:
        degrees = torch.arange(config.rotations, device=device) * DEGREES % _SYMMETRY[shape]
        angle = torch.deg2rad(degrees.double()).repeat(len(radius)).view(-1, 1, 1)
        r = radius.repeat_interleave(config.rotations).view(-1, 1, 1)
        u, v = dx * angle.cos() - dy * angle.sin(), dx * angle.sin() + dy * angle.cos()
        sprites.append((_reach(shape, u, v, r) <= 1e-9).to(torch.uint8))
    return torch.cat(sprites)


_SYMMETRY = {"square": 90, "ellipse": 180, "triangle": 120}


def _reach(shape: str, u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    """At most 0 inside the upright shape of radius r around the origin, y downwards."""
    if shape == "square":
        return shapes.box((u, v), (0, 0), (r, r))
    if shape == "ellipse":
        return shapes.ellipsoid((u, v), (0, 0), (r / 2, r))
    return shapes.triangle((u, v), (0, 0), r)


def _pillow(config: Config, device: torch.device) -> Tensor:
    """uint8 `[sprites, CANVAS, CANVAS]` as the published program draws: whole-pixel bounds, bicubic rotation."""
    middle, sprites = SIDE, []
    with progress("drawing", len(config.shapes) * len(config.scales) * config.rotations) as advance:
        for shape in config.shapes:
            for r in (SMALLEST + s for s in config.scales):
                upright = Image.new("L", (2 * middle, 2 * middle))
                _drawn(ImageDraw.Draw(upright), shape, middle, r)
                for k in range(config.rotations):
                    turned = upright.rotate(DEGREES * k, Image.Resampling.BICUBIC, expand=True)
                    left, top = turned.width // 2 - CENTRE, turned.height // 2 - CENTRE
                    window = turned.crop((left, top, left + CANVAS, top + CANVAS))
                    sprites.append(torch.from_numpy(np.asarray(window) >= 127.5))
                    advance()
    return torch.stack(sprites).to(torch.uint8).to(device)


def _drawn(draw: Any, shape: str, c: int, r: int) -> None:
    """The upright shape in white around (c, c); Pillow's bounds include both ends, so that it sits off-centre."""
    if shape == "square":
        draw.rectangle((c - r, c - r, c + r, c + r), fill=255)
    elif shape == "ellipse":
        draw.ellipse((c - r // 2, c - r, c + r // 2, c + r), fill=255)
    else:
        half = r * math.sqrt(3) / 2
        draw.polygon((c + half, c + r / 2, c, c - r, c - half, c + r / 2), fill=255)


_RENDERERS: dict[str, Callable[[Config, torch.device], Tensor]] = {"analytic": _analytic, "pillow": _pillow}
