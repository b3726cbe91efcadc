"""Objects as signed distances: bodies of revolution with handles and spouts, and grids read from meshes.

A body is the union of a solid of revolution, given by a closed polygon of (r, z), and of chains of round cones. All
objects are one batch of tensors. Distances are metres, negative inside, exact outside and a lower bound within.
Objects stand upright on z = 0, the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

VERTICES, CONES = 24, 16
CHUNK, CACHED = 1 << 24, 1 << 17
"""Most pairs of a point and an edge at once: on a GPU, and on a CPU, whose cache they should fit."""
NOWHERE = (0.0, 0.0, -10.0, 0.0, 0.0, -9.9, 1e-3, 1e-3)
"""A cone that stands for none: so far below the table that it is never the nearest."""


class Shapes(Protocol):
    """A batch of objects."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Shapes:
        """The same on a device."""

    def only(self, index: int) -> Shapes:
        """One object alone."""

    def distance(self, which: Tensor, points: Tensor) -> Tensor:
        """Objects int64 `[n]`, points in their frames `[n, m, 3]` -> distances `[n, m]`."""

    @property
    def radius(self) -> Tensor:
        """Largest distance of any part from the z axis, and below it the height, metres: `[O, 2]`."""


@dataclass(frozen=True)
class Bodies:
    """polygon: (r, z) `[O, 24, 2]`, metres, closed, padded by its last vertex. cones: two ends and their radii
    `[O, 16, 8]`, padded by `NOWHERE`."""

    polygon: Tensor
    cones: Tensor

    def __len__(self) -> int:
        return len(self.polygon)

    def to(self, device: torch.device) -> Bodies:
        """The same on a device."""
        return Bodies(*(getattr(self, f.name).to(device) for f in fields(self)))

    def only(self, index: int) -> Bodies:
        """One object, without its padding."""
        polygon, cones = self.polygon[index], self.cones[index]
        corners = int((polygon != polygon[-1]).any(1).sum()) + 1
        return Bodies(polygon[None, :corners], cones[None, : int((cones[:, 2] > -5).sum())])

    def distance(self, which: Tensor, points: Tensor) -> Tensor:
        """As `Shapes.distance`."""
        n, m = points.shape[:2]
        most = (CHUNK if points.is_cuda else CACHED) // self.polygon.shape[1]
        rows, columns = max(1, most // max(1, m)), max(1, most)
        found = []
        for part, own in zip(points.split(rows), which.split(rows), strict=True):
            polygon, cones = self.polygon[own], self.cones[own]
            line = []
            for piece in part.split(columns, 1):
                d = revolved(polygon, piece)
                line.append(torch.minimum(d, round_cones(cones, piece)) if cones.shape[1] else d)
            found.append(torch.cat(line, 1))
        return torch.cat(found) if found else points.new_zeros(n, m)

    @property
    def radius(self) -> Tensor:
        """As `Shapes.radius`."""
        ends = torch.cat([self.cones[..., :3], self.cones[..., 3:6]], 1)
        thick = torch.cat([self.cones[..., 6], self.cones[..., 7]], 1)
        there = ends[..., 2] > -5
        wide = torch.where(there, ends[..., :2].norm(dim=-1) + thick, 0.0)
        high = torch.where(there, ends[..., 2] + thick, 0.0)
        own = self.polygon
        return torch.stack([torch.cat([own[..., 0], wide], 1).amax(1), torch.cat([own[..., 1], high], 1).amax(1)], 1)


def revolved(polygon: Tensor, points: Tensor) -> Tensor:
    """Distance of solids of revolution: polygons (r, z) `[n, k, 2]`, points `[n, m, 3]` -> `[n, m]`, exact.

    Edges on the axis are no surface.
    """
    r, z = points[..., :2].norm(dim=-1), points[..., 2]
    a, b = polygon.unsqueeze(1), polygon.roll(-1, 1).unsqueeze(1)  # [n, 1, k, 2]
    edge = b - a
    to_r, to_z = r.unsqueeze(-1) - a[..., 0], z.unsqueeze(-1) - a[..., 1]
    squared = edge.square().sum(-1).clamp_min(1e-14)
    share = ((to_r * edge[..., 0] + to_z * edge[..., 1]) / squared).clamp(0, 1)
    away = (to_r - share * edge[..., 0]).square() + (to_z - share * edge[..., 1]).square()
    axis = (a[..., 0] == 0) & (b[..., 0] == 0)
    nearest = away.masked_fill(axis, torch.inf).amin(-1).sqrt()
    # Inside: an odd number of edges is crossed on the way outwards.
    above_a, above_b = a[..., 1] > z.unsqueeze(-1), b[..., 1] > z.unsqueeze(-1)
    slope = edge[..., 0] / torch.where(edge[..., 1] == 0, 1.0, edge[..., 1])
    crossed = (above_a != above_b) & (r.unsqueeze(-1) < a[..., 0] + to_z * slope)
    inside = crossed.sum(-1) % 2 == 1
    return torch.where(inside, -nearest, nearest)


def round_cones(cones: Tensor, points: Tensor) -> Tensor:
    """Distance of the union of round cones `[n, k, 8]` at points `[n, m, 3]` -> `[n, m]`, exact outside.

    A round cone is the hull of two balls (after I. Quilez), of which neither holds the other.
    """
    a, b, ra, rb = cones[..., None, :, :3], cones[..., None, :, 3:6], cones[..., None, :, 6], cones[..., None, :, 7]
    axis = b - a
    length = axis.norm(dim=-1)
    unit = axis / length.unsqueeze(-1)
    p = points.unsqueeze(2) - a
    along = (p * unit).sum(-1)
    across = (p - along.unsqueeze(-1) * unit).norm(dim=-1)
    sine = (ra - rb) / length
    cosine = (1 - sine.square()).clamp_min(0).sqrt()
    place = cosine * along - sine * across
    at_a = torch.sqrt(along.square() + across.square()) - ra
    at_b = torch.sqrt((along - length).square() + across.square()) - rb
    side = cosine * across + sine * along - ra
    found = torch.where(place < 0, at_a, torch.where(place > cosine * length, at_b, side))
    return found.amin(-1)


@dataclass(frozen=True)
class Grids:
    """Distances on grids, as meshes are kept. values `[O, N, N, N]`, metres, in the order [z, y, x].

    low `[O, 3]`: the first sample's place. spacing `[O]`: metres between samples. Between samples trilinear; outside of
    the grid never more than the distance. pieces `[O, P, C, 3]`, where physics shall try grasps: corners of convex
    pieces that make each object up; shorter ones repeat a corner, and one whose corners are all the same is none.
    """

    values: Tensor
    low: Tensor
    spacing: Tensor
    pieces: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> Grids:
        """The same on a device."""
        return Grids(*(value.to(device) for value in self.arrays().values()))

    def arrays(self) -> dict[str, Tensor]:
        """What there is, by name."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in held.items() if value is not None}

    def only(self, index: int) -> Grids:
        """One object."""
        return Grids(*(value[index : index + 1] for value in self.arrays().values()))

    def distance(self, which: Tensor, points: Tensor) -> Tensor:
        """As `Shapes.distance`."""
        if not points.numel():
            return points.new_zeros(points.shape[:2])
        low, spacing = self.low[which, None], self.spacing[which, None, None]
        last = self.values.shape[1] - 1
        place = (points - low) / spacing
        kept = place.clamp(0, last)
        where = 2 * kept / last - 1
        # Of a single object all places lie in one grid, of which there need be no copy for each of them.
        values, where = (self.values, where.view(1, -1, 3)) if len(self.values) == 1 else (self.values[which], where)
        inner = F.grid_sample(values.unsqueeze(1), where[:, None, None], mode="bilinear", align_corners=True)
        inner = inner.view(points.shape[:2])
        outside = ((place - kept) * spacing).norm(dim=-1)
        # From a point outside the box the surface is no nearer than the box, and no nearer than the value at its rim
        # less the way there.
        return torch.where(outside > 0, torch.maximum(outside, inner - outside), inner)

    @property
    def radius(self) -> Tensor:
        """As `Shapes.radius`: of the grids' boxes."""
        far = self.low + self.spacing[:, None] * (self.values.shape[1] - 1)
        corner = torch.maximum(self.low.abs(), far.abs())
        return torch.stack([corner[:, :2].norm(dim=1), far[:, 2]], 1)


def normals(shapes: Shapes, which: Tensor, points: Tensor, h: float = 5e-4) -> Tensor:
    """Unit gradients of the distance at points `[n, m, 3]`, `[n, m, 3]`, from the corners of a tetrahedron."""
    corners = torch.tensor(
        [[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], device=points.device, dtype=points.dtype
    )
    n, m = points.shape[:2]
    around = (points[:, :, None] + h * corners).view(n, -1, 3)
    values = shapes.distance(which, around).view(n, m, 4, 1)
    return F.normalize((values * corners).sum(2), dim=-1, eps=1e-9)


def turned(yaw: Tensor, shift: Tensor) -> Tensor:
    """Poses of objects on the table, object to world `[n, 4, 4]`: yaw `[n]`, radians, about z, and shift `[n, 2]`."""
    c, s, zero, one = yaw.cos(), yaw.sin(), torch.zeros_like(yaw), torch.ones_like(yaw)
    rows = [(c, -s, zero, shift[:, 0]), (s, c, zero, shift[:, 1]), (zero, zero, one, zero), (zero, zero, zero, one)]
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


def inverse(pose: Tensor) -> Tensor:
    """Inverse of rigid poses `[..., 4, 4]`."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    shift = -(rotation * pose[..., None, :3, 3]).sum(-1)
    top = torch.cat([rotation, shift.unsqueeze(-1)], -1)
    return torch.cat([top, pose[..., 3:, :]], -2)


def moved(pose: Tensor, points: Tensor) -> Tensor:
    """Points `[n, m, 3]` under poses `[n, 4, 4]`."""
    return (pose[:, None, :3, :3] * points.unsqueeze(-2)).sum(-1) + pose[:, None, :3, 3]


def rotations(vector: Tensor) -> Tensor:
    """Rotation matrices `[..., 3, 3]` of rotation vectors `[..., 3]`, radians (Rodrigues)."""
    angle = vector.norm(dim=-1, keepdim=True)
    unit = vector / angle.clamp_min(1e-12)
    x, y, z = unit.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(*vector.shape[:-1], 3, 3)
    s, c = angle.sin().unsqueeze(-1), angle.cos().unsqueeze(-1)
    outer = unit.unsqueeze(-1) * unit.unsqueeze(-2)
    eye = torch.eye(3, device=vector.device, dtype=vector.dtype)
    return c * eye + s * cross + (1 - c) * outer


def rigid(rotation: Tensor, shift: Tensor) -> Tensor:
    """Poses `[..., 4, 4]` of rotations `[..., 3, 3]` and shifts `[..., 3]`."""
    top = torch.cat([rotation, shift.unsqueeze(-1)], -1)
    last = torch.zeros_like(top[..., :1, :])
    last[..., 3] = 1
    return torch.cat([top, last], -2)


# The seven categories

CATEGORIES = ("bottle", "bowl", "cup", "plate", "mug", "sugarbowl", "teapot")
"""In the order of the paper's tables."""


class Draw:
    """Uniform numbers from a generator on the CPU, so that objects are the same on every device."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))


Part = tuple[list[tuple[float, float]], list[tuple[float, ...]]]


def bottle(u: Draw) -> Part:
    """A solid: a cylinder, a shoulder that falls as a cosine, a neck."""
    width, height, neck = u(0.025, 0.038), u(0.16, 0.26), u(0.010, 0.016)
    top, shoulder = height * (1 - u(0.25, 0.40)), height * u(0.10, 0.25)
    curve = [(i / 5, (1 + math.cos(math.pi * i / 5)) / 2) for i in range(6)]
    slope = [(neck + (width - neck) * c, top - shoulder * (1 - s)) for s, c in curve]
    return [(0, 0), (width, 0), *slope, (neck, height), (0, height)], []


def _vessel(u: Draw, ratio: float) -> tuple[list[tuple[float, float]], float, float, float]:
    rim, height, wall = u(0.032, 0.045), u(0.07, 0.12), u(0.003, 0.006)
    base = rim * ratio
    return [(0, 0), (base, 0), (rim, height), (rim - wall, height), (base - wall, wall), (0, wall)], rim, height, wall


def cup(u: Draw) -> Part:
    """A shell whose wall is straight."""
    return _vessel(u, u(0.7, 1.0))[0], []


def loop(
    radius: float, low: float, high: float, reach: float, tube: float, count: int, sign: float = 1.0
) -> list[tuple[float, ...]]:
    """A handle on the x axis: half an ellipse of `count` cones from (radius, low) to (radius, high)."""
    at = [-math.pi / 2 + math.pi * i / count for i in range(count + 1)]
    points = [
        (sign * (radius + reach * math.cos(a)), 0.0, (low + high) / 2 + (high - low) / 2 * math.sin(a)) for a in at
    ]
    return [(*p, *q, tube, tube) for p, q in pairwise(points)]


def mug(u: Draw) -> Part:
    """A shell with a handle of seven cones."""
    profile, rim, height, wall = _vessel(u, u(0.92, 1.0))
    tube, span, reach = u(0.004, 0.007), u(0.45, 0.70) * height, u(0.022, 0.034)
    middle = height / 2
    return profile, loop(rim - wall, middle - span / 2, middle + span / 2, reach + wall, tube, 7)


def bowl(u: Draw) -> Part:
    """A shell whose radius grows as a quarter of a sine."""
    rim, height, wall = u(0.055, 0.085), u(0.045, 0.07), u(0.003, 0.006)
    base = rim * u(0.35, 0.5)
    shares = [i / 8 for i in range(9)]
    outer = [(base + (rim - base) * math.sin(math.pi / 2 * s), height * s) for s in shares]
    inner = [(r - wall, max(z, wall)) for r, z in reversed(outer)]
    return [(0, 0), *outer, *inner, (0, wall)], []


def plate(u: Draw) -> Part:
    """A flat shell with a slanted rim."""
    rim, height, thick = u(0.08, 0.11), u(0.025, 0.04), u(0.003, 0.006)
    base = rim * u(0.55, 0.70)
    return [(0, 0), (base, 0), (rim, height - thick), (rim, height), (base, thick), (0, thick)], []


def _pot(u: Draw, width: float, height: float) -> list[tuple[float, float]]:
    """A barrel with a lid and a knob."""
    barrel = [(width * (0.75 + 0.25 * math.sin(math.pi * (0.15 + 0.7 * i / 5))), height * i / 5) for i in range(6)]
    lid = 0.012 + u(0, 0.006)
    knob = u(0.008, 0.011)
    top = height + lid
    dome = [(0.55 * width, height + 0.6 * lid), (0.5 * knob, top)]
    button = [(knob, top + 0.5 * knob), (knob, top + 1.2 * knob), (0.5 * knob, top + 1.8 * knob), (0, top + 1.8 * knob)]
    return [(0, 0), *barrel, *dome, *button]


def sugarbowl(u: Draw) -> Part:
    """A solid with a lid, a knob and two small handles."""
    width, height = u(0.036, 0.046), u(0.06, 0.08)
    tube = u(0.004, 0.006)
    handles = [c for s in (1.0, -1.0) for c in loop(0.93 * width, 0.3 * height, 0.8 * height, 0.016, tube, 5, s)]
    return _pot(u, width, height), handles


def teapot(u: Draw) -> Part:
    """A solid with a lid, a knob, a handle and a spout of four cones."""
    width, height = u(0.045, 0.058), u(0.075, 0.10)
    handle = loop(0.93 * width, 0.2 * height, 0.9 * height, u(0.028, 0.038), u(0.005, 0.007), 7, -1.0)
    ends = [(0.8 * width, 0.0, 0.3 * height)]
    for i in range(1, 5):
        ends.append((0.8 * width + 0.013 * i, 0.0, 0.3 * height + 0.75 * height * (i / 4) ** 1.3))
    radii = [0.012 - 0.0015 * i for i in range(5)]
    spout = [(*ends[i], *ends[i + 1], radii[i], radii[i + 1]) for i in range(4)]
    return _pot(u, width, height), handle + spout


MAKERS = {
    "bottle": bottle,
    "bowl": bowl,
    "cup": cup,
    "plate": plate,
    "mug": mug,
    "sugarbowl": sugarbowl,
    "teapot": teapot,
}


def packed(parts: list[Part]) -> Bodies:
    """Profiles and cones of objects as one batch, float32 on the CPU."""
    polygons = [[*profile, *[profile[-1]] * (VERTICES - len(profile))] for profile, _ in parts]
    cones = [[*own, *[NOWHERE] * (CONES - len(own))] for _, own in parts]
    return Bodies(torch.tensor(polygons, dtype=torch.float32), torch.tensor(cones, dtype=torch.float32))


def bodies(categories: list[str], seed: int) -> Bodies:
    """One object of each named category, in order. Object i depends on the seed and on i alone."""
    return packed([MAKERS[name](Draw(seed * 1_000_003 + i)) for i, name in enumerate(categories)])
