"""Signed distances of shapes in the plane and in space: negative inside. Draw with `coverage`, join with `minimum`.

A point is its coordinates, `(x, y)` or `(x, y, z)`, tensors that broadcast against each other: a column of y and a row
of x make a picture. Numbers of a shape are floats or tensors that broadcast against them; where each picture has its
own, `[n, 1, 1]`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

Number = Tensor | float
Point = Sequence[Tensor]


def coverage(distance: Tensor) -> Tensor:
    """Share of each pixel that a shape covers, 0 to 1, from the signed distance of the pixel's centre in pixels."""
    return (0.5 - distance).clamp(0, 1)


def ball(p: Point, centre: Sequence[Number], radius: Number) -> Tensor:
    """Circle or sphere; exact."""
    return _norm([x - c for x, c in zip(p, centre, strict=True)]) - radius


def box(p: Point, centre: Sequence[Number], half: Sequence[Number], corner: Number = 0.0) -> Tensor:
    """Rectangle or cuboid of the given half sides, its corners rounded with radius `corner`; exact."""
    beyond = [(x - c).abs() - (h - corner) for x, c, h in zip(p, centre, half, strict=True)]
    return _norm([d.clamp_min(0) for d in beyond]) + functools.reduce(torch.maximum, beyond).clamp_max(0) - corner


def ellipsoid(p: Point, centre: Sequence[Number], radii: Sequence[Number]) -> Tensor:
    """Ellipse or ellipsoid; right to first order at the outline, where it has slope 1."""
    scaled = [(x - c) / r for x, c, r in zip(p, centre, radii, strict=True)]
    k = _norm(scaled)
    slope = _norm([s / r for s, r in zip(scaled, radii, strict=True)]) / k.clamp_min(1e-6)
    # The slope is never below that along the longest axis, except at the centre, where it is not defined.
    return (k - 1) / slope.clamp_min(1 / functools.reduce(_larger, radii))


def _total(values: Sequence[Number]) -> Number:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def capsule(
    p: Point, a: Sequence[Number], b: Sequence[Number], radius: Number, end_radius: Number | None = None
) -> Tensor:
    """All points no farther than `radius` from the segment a-b; exact.

    end_radius: the radius at b where it differs; it changes evenly along the segment, and the distance is then right to
    first order in the taper.
    """
    u = [end - start for start, end in zip(a, b, strict=True)]
    d = [x - start for x, start in zip(p, a, strict=True)]
    length = _larger(_total([v * v for v in u]), 1e-12)
    inner = _total([x * v for x, v in zip(d, u, strict=True)])
    along = torch.as_tensor(inner / length).clamp(0, 1)
    reach = radius if end_radius is None else radius + along * (end_radius - radius)
    return _norm([x - along * v for x, v in zip(d, u, strict=True)]) - reach


def triangle(p: Point, centre: Sequence[Number], radius: Number) -> Tensor:
    """Equilateral triangle in a circle of `radius`, its tip towards negative y; exact inside and beside the sides."""
    x, y = (at - c for at, c in zip(p, centre, strict=True))
    return torch.maximum(y, math.sqrt(3) / 2 * x.abs() - y / 2) - radius / 2


def heart(p: Point) -> Tensor:
    """The heart (x^2 + y^2 - 1)^3 = x^2 y^3, its cleft towards positive y; right to first order at the outline."""
    x, y = p
    ring, xx = x * x + y * y - 1, x * x
    # f / |grad f| is a third of the distance where the curve crosses an axis, since f has a triple root there; in the
    # form g = x^2 + y^2 - 1 - x^(2/3) y it is right there, and wrong along x = 0. The larger of both is taken.
    f = ring**3 - xx * y**3
    slope = torch.hypot(6 * x * ring**2 - 2 * x * y**3, 6 * y * ring**2 - 3 * xx * y * y)
    first = f / slope.clamp_min(1e-3)
    root = xx.clamp_min(1e-9) ** (1 / 3)
    g = ring - root * y
    steep = torch.hypot(2 * x - (2 / 3) * y * x / root**2, 2 * y - root)
    second = g / steep.clamp_min(1e-3)
    return torch.where(first.abs() > second.abs(), first, second)


def _norm(parts: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.hypot, parts)


def _larger(a: Number, b: Number) -> Number:
    if isinstance(a, Tensor):
        return a.clamp_min(b)
    return b.clamp_min(a) if isinstance(b, Tensor) else max(a, b)
