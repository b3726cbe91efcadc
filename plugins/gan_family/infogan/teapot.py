"""A teapot as signed distances, and its pictures from any side: the shape that the data set `teapots` renders.

Object axes: x towards the spout, y up, z to the side. Lengths are in half widths of about one body.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from distk.nn import shapes

Point = tuple[Tensor, Tensor, Tensor]

BODY = (0.62, 0.50, 0.62)
"""Half axes of the ellipsoid."""
KNOB, KNOB_RADIUS = (0.0, 0.56, 0.0), 0.11
HANDLE, RING, TUBE = (-0.62, 0.03, 0.0), 0.27, 0.065
"""Centre of the torus in the plane of x and y, radius of its circle, radius of its tube."""
SPOUT, SPOUT_RADII = ((0.42, -0.14, 0.0), (1.0, 0.36, 0.0)), (0.17, 0.07)

VIEW = 1.15
"""Half the width of what the orthographic camera sees."""
DISTANCE, FAR, STEPS, RELAX = 2.0, 4.0, 40, 0.9
"""Where rays start, how far they go, their steps, and the share of the distance that each step takes: the ellipsoid's
distance is right to first order only."""
HIT, SETTLED, SLOPE_STEP = 0.01, 1e-4, 1e-3
LIGHT, AMBIENT = (-0.4, 0.8, 0.45), 0.3
"""Towards the light: along the camera's right, up, along the camera's horizontal direction. It turns with the azimuth,
not with the elevation."""
CHUNK = 1 << 15
"""Rays traced together: on a CPU they stay in its cache."""


def distance(p: Point) -> Tensor:
    """Signed distance of points to the teapot, negative inside; p: coordinates that broadcast."""
    x, y, z = p
    body = shapes.ellipsoid(p, (0.0, 0.0, 0.0), BODY)
    knob = shapes.ball(p, KNOB, KNOB_RADIUS)
    ring = torch.hypot(x - HANDLE[0], y - HANDLE[1]) - RING
    handle = torch.hypot(ring, z - HANDLE[2]) - TUBE
    spout = shapes.capsule(p, *SPOUT, *SPOUT_RADII)
    return torch.minimum(torch.minimum(body, knob), torch.minimum(handle, spout))


def camera(azimuth: Tensor, elevation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Angles in radians `[n]` -> unit vectors `[n, 3]`: towards the camera, to its right, up."""
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    towards = torch.stack([cos_e * sin_a, sin_e, cos_e * cos_a], 1)
    right = torch.stack([cos_a, torch.zeros_like(cos_a), -sin_a], 1)
    up = torch.stack([-sin_e * sin_a, cos_e, -sin_e * cos_a], 1)
    return towards, right, up


def light(azimuth: Tensor) -> Tensor:
    """Unit vectors towards the light `[n, 3]`."""
    length = math.sqrt(sum(v * v for v in LIGHT))
    along, up, ahead = (v / length for v in LIGHT)
    sin_a, cos_a = azimuth.sin(), azimuth.cos()
    return torch.stack([along * cos_a + ahead * sin_a, torch.full_like(cos_a, up), -along * sin_a + ahead * cos_a], 1)


def render(azimuth: Tensor, elevation: Tensor, size: int, supersample: int = 1) -> tuple[Tensor, Tensor]:
    """Poses in radians `[n]` -> (shade, coverage), float32 `[n, size, size]` in [0, 1]: the pictures of a white teapot
    on black, and the share of each pixel that it covers.

    Light is 0.3 everywhere and up to 0.7 more by the cosine of the angle to the light; there are no cast shadows.
    supersample: k averages k x k rays per pixel. Reads from the device while rays come to rest, so not for a step.
    """
    side = size * supersample
    place = (torch.arange(side, device=azimuth.device, dtype=torch.float32) + 0.5) * (2 * VIEW / side) - VIEW
    # Pixels of the top row look at the largest `up`.
    u, v = place.repeat(side), -place.repeat_interleave(side)
    # A ray farther from the axis than this passes the spout, which reaches farthest.
    reach = math.hypot(*SPOUT[1]) + SPOUT_RADII[1]
    near = (u * u + v * v <= reach * reach).nonzero()[:, 0]
    shade = torch.zeros(len(azimuth), side * side, device=azimuth.device)
    cover = torch.zeros_like(shade)
    each = max(1, CHUNK // len(near))
    vectors = [w.float() for w in (*camera(azimuth.double(), elevation.double()), light(azimuth.double()))]
    for part in torch.arange(len(azimuth), device=azimuth.device).split(each):
        lit, hit = _rays(u[near], v[near], *(w[part] for w in vectors))
        shade[part[:, None], near], cover[part[:, None], near] = lit, hit
    return _mean(shade, size, supersample), _mean(cover, size, supersample)


def _mean(values: Tensor, size: int, supersample: int) -> Tensor:
    return values.view(-1, size, supersample, size, supersample).mean((2, 4))


def _rays(u: Tensor, v: Tensor, towards: Tensor, right: Tensor, up: Tensor, lamp: Tensor) -> tuple[Tensor, Tensor]:
    """Places on the camera's plane `[m]` and vectors of n cameras `[n, 3]` -> shade and hit, float32 `[n, m]`."""
    origin = DISTANCE * towards[:, None] + u[:, None] * right[:, None] + v[:, None] * up[:, None]
    n, m, _ = origin.shape
    start, ahead = origin.view(-1, 3), -towards[:, None].expand(n, m, 3).reshape(-1, 3)
    travelled = torch.zeros(n * m, device=u.device)
    rest = torch.full_like(travelled, math.inf)
    moving = torch.arange(n * m, device=u.device)
    for _ in range(STEPS):
        # What no ray can leave or has left behind is no longer followed.
        gap = distance(_along(start[moving], ahead[moving], travelled[moving]))
        rest[moving] = gap
        on = gap > SETTLED
        moving = moving[on]
        travelled[moving] += RELAX * gap[on]
        moving = moving[travelled[moving] <= FAR]
        if not len(moving):
            break
    hit = ((rest.abs() < HIT) & (travelled <= FAR)).nonzero()[:, 0]
    point = _along(start[hit], ahead[hit], travelled[hit])
    facing = (slope(distance, point) * lamp[hit // m]).sum(1).clamp_min(0)
    shade, found = torch.zeros(n * m, device=u.device), torch.zeros(n * m, device=u.device)
    shade[hit] = AMBIENT + (1 - AMBIENT) * facing
    found[hit] = 1.0
    return shade.view(n, m), found.view(n, m)


def _along(start: Tensor, ahead: Tensor, travelled: Tensor) -> Point:
    x, y, z = (start + travelled[:, None] * ahead).unbind(1)
    return x, y, z


def slope(of: Callable[[Point], Tensor], p: Point) -> Tensor:
    """Unit vector along the gradient at points of `[n]` coordinates each, by central differences: `[n, 3]`."""
    parts = []
    for axis in range(3):
        low, high = list(p), list(p)
        low[axis], high[axis] = p[axis] - SLOPE_STEP, p[axis] + SLOPE_STEP
        parts.append(of((high[0], high[1], high[2])) - of((low[0], low[1], low[2])))
    return torch.nn.functional.normalize(torch.stack(parts, 1), dim=1)
