"""Shapes3D (Burgess & Kim 2018): an object in a room, 480,000 images of 64x64, six factors.

The official file is read where it is there; without one the room is drawn on the device, a ray per sample of a pixel.
What is published of the pictures is kept: the factors, their numbers and order, ten hues of full saturation from 0 to
0.9 for floor, walls and object, sizes 0.75 to 1.25, cube, cylinder, ball and capsule, and a turn of the view from -30
to 30 degrees. Camera, light and the proportions of the room are not, and are distk's own: models trained on one and
tested on the other see different pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, option, permuted_split
from distk.console import progress
from distk.kept import kept
from distk.plugins.datasets.arrayfile import opened, unpacked
from distk.stored import Stored

FILE = "3dshapes.h5"
SHAPES = ("cube", "cylinder", "ball", "capsule")
GRID = (10, 10, 10, 8, 4, 15)
SIDE = 64

ROOM, EYE, RISE, PITCH = 3.2, 3.0, 1.7, 15.0
"""Half the side of the square room, distance of the camera from its middle, its height, and how far it looks down in
degrees; the object is 2 wide at size 1."""
FIELD = 62.0
"""Degrees that a picture spans."""
HALF, LIGHT, AMBIENT = 0.62, (0.35, 0.55, 1.0), 0.45
"""Half the width of an object of size 1; direction to the light, seen from the camera (right, back, up); light that
comes from everywhere."""
SAMPLES = 3
"""Rays along each side of a pixel."""


@dataclass(frozen=True)
class Config:
    """How large the pictures are, and what is held out."""

    size: Literal[64, 32] = option(64, "height and width in pixels; a file has 64")
    holdout: float = option(0.0, "share of the images, drawn once for all, that only the split `test` holds", min=0)

    def __post_init__(self) -> None:
        if self.holdout >= 1:
            raise ValueError(f"holdout {self.holdout} leaves nothing to train on; it must be below 1")


class Shapes3D(FactorDataset[Config]):
    """Factors floor_hue 10, wall_hue 10, object_hue 10, scale 8, shape 4, orientation 15, as in the official file."""

    counted = True
    reads = FILE
    factor_names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    factor_kinds = ("circular", "circular", "circular", "ordinal", "categorical", "ordinal")
    factor_sizes = GRID

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.spec = DataSpec("image", (3, config.size, config.size), classes=SHAPES)
        self.parts = permuted_split(len(self), config.holdout, 0, device) if config.holdout else {}
        self.pixels: Stored | None = None
        self.layers: Tensor | None = None
        path = files.find(FILE, f"*/{FILE}")
        if path is not None:
            if config.size != SIDE:
                raise DistkError(f"'{path}' holds images of {SIDE} pixels: leave size out, or do without the file.")
            # With the file closed: that the device has no room is not the file's fault.
            self.pixels = Stored(read(path), device, files.where)
            self.stored, self.origin = (self.pixels,), f"read from {path}"
            return
        self.origin = "drawn on the device: the factors of the published set, a room of distk's own"
        self.hues = rgb(factor_values()[0]).to(device)
        self.layers = self._layers()

    def _layers(self) -> Tensor:
        """As `layers`; on the CPU, where that takes seconds, kept for the next start."""
        size = self.config.size
        if self.device.type != "cpu":
            return layers(size, self.device)
        made_of = {"version": 1, "size": size, "samples": SAMPLES}
        shape = (math.prod(GRID[3:]), 3, size, size)
        return torch.from_numpy(
            kept("shapes3d: layers", made_of, shape, np.float32, lambda out: out.__setitem__(..., layers(size).numpy()))
        )

    def _drawn(self, levels: Tensor) -> Tensor:
        """Images of levels `[n, 6]` rounded to whole numbers of 255, as a file would hold them."""
        assert self.layers is not None
        place = (levels[:, 3] * GRID[4] + levels[:, 4]) * GRID[5] + levels[:, 5]
        x = torch.einsum("nlc,nlhw->nchw", self.hues[levels[:, :3]], self.layers[place])
        return (x * 255).round_() / 255

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], `label` int64 `[n]` the shape, `factors` int64 `[n, 6]`."""
        levels = self.factors(rows)
        x = self._drawn(levels) if self.pixels is None else self.pixels[rows].movedim(-1, 1).float() / 255
        return {"x": x, "label": levels[:, 4], "factors": levels}


def factor_values() -> tuple[Tensor, ...]:
    """What each level of each factor stands for, as the official `labels` have it: float32, a vector per factor."""
    hues = torch.arange(10) / 10
    return hues, hues, hues, torch.linspace(0.75, 1.25, 8), torch.arange(4).float(), torch.linspace(-30, 30, 15)


def read(path: Any) -> np.ndarray:
    """The images of the official file, uint8 `[480000, 64, 64, 3]`, unpacked once and kept.

    Raises DistkError for other shapes, for labels that are not the full grid in its order, and for a damaged file.
    """
    count = math.prod(GRID)
    with opened(path) as held:
        for name, shape in (("images", (count, SIDE, SIDE, 3)), ("labels", (count, len(GRID)))):
            if name not in held or tuple(held[name].shape) != shape:
                there = f"{tuple(held[name].shape)}" if name in held else "none"
                raise DistkError(f"'{path}': expected {name} {shape}, found {there}.")
        if held["images"].dtype != np.uint8:
            raise DistkError(f"'{path}': images must be uint8, found {held['images'].dtype}.")
        expected = torch.cartesian_prod(*factor_values()).numpy()
        found = np.asarray(held["labels"][:], dtype=np.float64)
        wrong = np.abs(found - expected).max(1) > 1e-3
        if wrong.any():
            row = int(wrong.argmax())
            raise DistkError(f"'{path}': labels are not the published grid, first in row {row}: {found[row].tolist()}.")
        return unpacked("shapes3d", path, held["images"])


def layers(size: int, device: torch.device | None = None) -> Tensor:
    """Brightness of floor, walls and object in every pixel, 0 where another one covers it, for each size, shape and
    orientation: float32 `[480, 3, size, size]`. A picture is the sum of the layers, each in its colour."""
    scale, shape, orientation = (values.to(device) for values in factor_values()[3:])
    room, made = Room(size, device), []
    every = torch.cartesian_prod(scale, shape, orientation)
    with progress("drawing", len(every)) as advance:
        for part in every.split(16):
            made.append(room(*part.unbind(1)))
            advance(len(part))
    return torch.cat(made)


class Hit(NamedTuple):
    """Where rays meet a surface first. distance: along the ray, infinite without a hit. normal: x, y, z, outwards."""

    distance: Tensor
    normal: tuple[Tensor, Tensor, Tensor]


Point = tuple[Tensor, Tensor, Tensor]


class Room:
    """Draws rooms on the device: a batch of sizes, shapes and orientations -> layers `[n, 3, size, size]`.

    Axes turn with the camera's stand: x to the right, y into the picture, z up, the floor at 0. The room and the object
    stay, and the camera walks around the room's middle by the orientation.
    """

    def __init__(self, size: int, device: torch.device | None = None) -> None:
        self.size = size
        fine = size * SAMPLES
        place = (torch.arange(fine, device=device) + 0.5) / fine * 2 - 1
        reach = math.tan(math.radians(FIELD / 2))
        right, up = place[None, :] * reach, -place[:, None] * reach
        tilt = math.radians(PITCH)
        across, along = right.expand(fine, fine), torch.ones(fine, fine, device=device)
        ray = torch.stack(
            [across, along * math.cos(tilt) + up * math.sin(tilt), up * math.cos(tilt) - along * math.sin(tilt)]
        )
        self.ray = (ray / ray.norm(dim=0)).flatten(1)  # [3, pixels]
        self.light = F.normalize(torch.tensor(LIGHT, device=device), dim=0)

    def __call__(self, scale: Tensor, shape: Tensor, orientation: Tensor) -> Tensor:
        """Scale, shape 0 to 3, orientation in degrees, float32 `[n]` each; layers of floor, walls, object."""
        turn = torch.deg2rad(orientation)[:, None]
        cos, sin = turn.cos(), turn.sin()

        def turned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x * cos - y * sin, x * sin + y * cos

        dx, dy = turned(self.ray[0], self.ray[1])
        ray: Point = (dx, dy, self.ray[2].expand_as(dx))
        ex, ey = turned(torch.zeros_like(cos), torch.full_like(cos, -EYE))
        eye: Point = (ex, ey, torch.full_like(ex, RISE))
        lx, ly = turned(self.light[0], -self.light[1])
        light: Point = (lx, ly, self.light[2].expand_as(lx))
        half, kind = (HALF * scale)[:, None], shape.long()[:, None]

        ground = -eye[2] / ray[2].clamp_max(-1e-6)
        ground = torch.where(ray[2] < 0, ground, torch.inf)
        side, facing = _walls(eye, ray)
        hit = _object(eye, ray, half, kind)
        near = torch.minimum(ground, side)
        on_floor = ground < side
        at = tuple(o + d * near for o, d in zip(eye, ray, strict=True))
        upright = torch.zeros_like(near)
        normal = [torch.where(on_floor, upright, f) for f in facing]
        normal[2] = torch.where(on_floor, torch.ones_like(near), normal[2])
        shadow = torch.isfinite(_object((at[0], at[1], at[2] + 1e-3), light, half, kind).distance) & on_floor
        lit = _shade((normal[0], normal[1], normal[2]), light).masked_fill(shadow, AMBIENT)
        front = hit.distance < near
        own = _shade(hit.normal, light)
        seen = (on_floor & ~front, ~on_floor & ~front, front)
        found = torch.stack([torch.where(mask, own if mask is front else lit, 0.0) for mask in seen], 1)
        fine = self.size * SAMPLES
        return F.avg_pool2d(found.view(-1, 3, fine, fine), SAMPLES)


def _shade(normal: Point, light: Point) -> Tensor:
    """Brightness of a matt surface, AMBIENT to 1."""
    facing = sum(n * d for n, d in zip(normal, light, strict=True))
    return AMBIENT + (1 - AMBIENT) * torch.as_tensor(facing).clamp_min(0)


def _walls(eye: Point, ray: Point) -> tuple[Tensor, Point]:
    """Distance to the walls from within the room, and their normals, inwards."""
    reach = []
    for o, d in zip(eye[:2], ray[:2], strict=True):
        towards = torch.where(d >= 0, ROOM, -ROOM)
        reach.append((towards - o) / torch.where(d.abs() < 1e-6, 1e-6, d))
    across = reach[0] < reach[1]
    zero = torch.zeros_like(reach[0])
    normal = (torch.where(across, -ray[0].sign(), zero), torch.where(across, zero, -ray[1].sign()), zero)
    return torch.minimum(*reach), normal


def _object(eye: Point, ray: Point, half: Tensor, kind: Tensor) -> Hit:
    """The first hit of the object that stands in the middle of the floor; half its width `[n, 1]`, kind `[n, 1]`."""
    made = [draw(eye, ray, half) for draw in (_cube, _cylinder, _ball, _capsule)]
    distance, normal = made[0].distance, made[0].normal
    for k, other in enumerate(made[1:], 1):
        chosen = kind == k
        distance = torch.where(chosen, other.distance, distance)
        normal = tuple(torch.where(chosen, b, a) for a, b in zip(normal, other.normal, strict=True))  # type: ignore[assignment]
    return Hit(distance, normal)


def _cube(eye: Point, ray: Point, half: Tensor) -> Hit:
    """Sides of 2 half, by slabs."""
    low, high, axis = None, None, None
    for i, (o, d) in enumerate(zip(eye, ray, strict=True)):
        d = torch.where(d.abs() < 1e-6, 1e-6, d)
        o = o - half if i == 2 else o
        first, second = (-half - o) / d, (half - o) / d
        enter, leave = torch.minimum(first, second), torch.maximum(first, second)
        if low is None or high is None or axis is None:
            low, high, axis = enter, leave, torch.zeros_like(enter)
        else:
            axis = torch.where(enter > low, float(i), axis)
            low, high = torch.maximum(low, enter), torch.minimum(high, leave)
    assert low is not None
    assert high is not None
    assert axis is not None
    met = (low < high) & (low > 0)
    normal = tuple(torch.where(axis == i, -d.sign(), 0.0) for i, d in enumerate(ray))
    return Hit(torch.where(met, low, torch.inf), normal)  # type: ignore[arg-type]


def _ball(eye: Point, ray: Point, half: Tensor, height: Tensor | None = None) -> Hit:
    """A ball of radius half that stands on the floor, or whose middle is at a height."""
    middle = half if height is None else height
    o = (eye[0], eye[1], eye[2] - middle)
    b = o[0] * ray[0] + o[1] * ray[1] + o[2] * ray[2]
    c = o[0] ** 2 + o[1] ** 2 + o[2] ** 2 - half**2
    root = b * b - c
    distance = -b - root.clamp_min(0).sqrt()
    met = (root > 0) & (distance > 0)
    normal = tuple((p + d * distance) / half for p, d in zip(o, ray, strict=True))
    return Hit(torch.where(met, distance, torch.inf), normal)  # type: ignore[arg-type]


def _tube(eye: Point, ray: Point, radius: Tensor, low: Tensor, high: Tensor) -> Hit:
    """The side of an upright cylinder between two heights."""
    a = (ray[0] ** 2 + ray[1] ** 2).clamp_min(1e-9)
    b = eye[0] * ray[0] + eye[1] * ray[1]
    root = b * b - a * (eye[0] ** 2 + eye[1] ** 2 - radius**2)
    distance = (-b - root.clamp_min(0).sqrt()) / a
    z = eye[2] + ray[2] * distance
    met = (root > 0) & (distance > 0) & (z > low) & (z < high)
    normal = (
        (eye[0] + ray[0] * distance) / radius,
        (eye[1] + ray[1] * distance) / radius,
        torch.zeros_like(distance),
    )
    return Hit(torch.where(met, distance, torch.inf), normal)


def _cylinder(eye: Point, ray: Point, half: Tensor) -> Hit:
    """Radius half, height 2 half, with its lid."""
    side = _tube(eye, ray, half, torch.zeros_like(half), 2 * half)
    d = torch.where(ray[2].abs() < 1e-6, 1e-6, ray[2])
    lid = (2 * half - eye[2]) / d
    x, y = eye[0] + ray[0] * lid, eye[1] + ray[1] * lid
    met = (lid > 0) & (x * x + y * y < half**2) & (ray[2] < 0)
    up = torch.ones_like(lid)
    return _nearer(side, Hit(torch.where(met, lid, torch.inf), (0 * up, 0 * up, up)))


def _capsule(eye: Point, ray: Point, half: Tensor) -> Hit:
    """A cylinder of three quarters of the width with round ends, as high as the cylinder."""
    radius = 0.7 * half
    top = 2 * half - radius
    hit = _nearer(_tube(eye, ray, radius, radius, top), _ball(eye, ray, radius))
    return _nearer(hit, _ball(eye, ray, radius, top))


def _nearer(a: Hit, b: Hit) -> Hit:
    first = a.distance <= b.distance
    normal = tuple(torch.where(first, x, y) for x, y in zip(a.normal, b.normal, strict=True))
    return Hit(torch.minimum(a.distance, b.distance), normal)  # type: ignore[arg-type]


def rgb(hue: Tensor) -> Tensor:
    """Red, green and blue of full hues in [0, 1], `[n]` -> `[n, 3]`."""
    turn = hue[:, None] * 6 - torch.tensor([0.0, 2.0, 4.0], device=hue.device)
    away = (turn + 3) % 6 - 3  # sixths of a turn from red, green, blue
    return (2 - away.abs()).clamp(0, 1)
