"""Pictures of objects on a table, by sphere tracing: colour, depth along the camera's axis, and the object's mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distk.plugins.rl_control.grasping.bodies import Draw, Shapes, inverse, moved, normals, turned
from distk.plugins.rl_control.grasping.projection import Cube, middles

FOV = 35.0
LOOK_AT = (0.0, 0.0, 0.08)
DISTANCE = (0.55, 0.65)
NEAR, FAR = 0.24, 0.92
"""Depths between which every such camera sees the whole cube, metres."""
JITTER = 0.02
ITERATIONS, CLOSE = 48, 1e-3
TABLE, SKY = 0.6, 0.85
HUES = 12


@dataclass
class Views:
    """Pictures of n views. rgb uint8 `[n, h, w, 3]`; depth float32 `[n, h, w]`, metres, 0 where nothing was met; mask
    bool `[n, h, w]`; k `[n, 3, 3]`; pose, camera to world, `[n, 4, 4]`."""

    rgb: Tensor
    depth: Tensor
    mask: Tensor
    k: Tensor
    pose: Tensor


def cameras(elevation: Tensor, azimuth: Tensor, distance: Tensor) -> Tensor:
    """Poses `[n, 4, 4]`, camera to world, of cameras that look at the middle of the table; degrees, radians, metres."""
    up = elevation.deg2rad()
    target = torch.tensor(LOOK_AT, device=elevation.device)
    away = torch.stack([up.cos() * azimuth.cos(), up.cos() * azimuth.sin(), up.sin()], -1)
    forward = -away
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], -1)
    down = torch.linalg.cross(forward, right)
    place = target + distance.unsqueeze(-1) * away
    top = torch.stack([right, down, forward, place], -1)
    last = torch.tensor([0.0, 0, 0, 1], device=top.device).expand(len(top), 1, 4)
    return torch.cat([top, last], 1)


def intrinsics(size: int, count: int, device: torch.device) -> Tensor:
    """Intrinsics `[count, 3, 3]` of square pictures with the field of view FOV, in pixels."""
    f = size / 2 / math.tan(math.radians(FOV / 2))
    k = torch.tensor([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1]], device=device)
    return k.expand(count, 3, 3).clone()


def trace(shapes: Shapes, origin: Tensor, ray: Tensor, reach: float) -> Tensor:
    """How far one object is met on rays in its frame: origins and unit directions `[m, 3]` -> metres `[m]`, inf for
    none.

    Rays that leave are dropped as the tracing goes on. reach: no ray is followed farther.
    """
    wide, high = (float(v) for v in shapes.radius[0])
    middle = torch.tensor([0.0, 0.0, high / 2], device=origin.device)
    ball = math.hypot(wide, high / 2) + 0.002
    to = middle - origin
    along = (to * ray).sum(1)
    beside = (to.square().sum(1) - along.square()).clamp_min(0)
    chord = (ball * ball - beside).clamp_min(0).sqrt()
    gone = (along - chord).clamp_min(0)
    found = torch.full_like(gone, torch.inf)
    active = ((beside < ball * ball) & (along + chord > 0)).nonzero().squeeze(1)
    which = torch.zeros(1, dtype=torch.long, device=origin.device)
    for i in range(ITERATIONS):
        if not len(active):
            break
        at = origin[active] + gone[active].unsqueeze(1) * ray[active]
        distance = shapes.distance(which, at.unsqueeze(0))[0]
        near = distance < CLOSE
        # What is still under way at the end and nearly there grazes the surface.
        near = near | (distance < 4 * CLOSE) if i == ITERATIONS - 1 else near
        found[active] = torch.where(near, gone[active], found[active])
        gone[active] += distance.clamp_min(CLOSE / 4)
        active = active[~near & (gone[active] < torch.minimum(along[active] + chord[active], gone.new_tensor(reach)))]
    return found


def render(
    shapes: Shapes, index: int, place: Tensor, pose: Tensor, k: Tensor, size: int, seed: int, noise: bool
) -> Views:
    """Pictures of one object. place: object to world of each view `[n, 4, 4]`. pose, k: of the cameras.

    noise: depth gets noise of 1 mm + 0.5 per cent. The colours, the table's texture and the noise come from the seed.
    """
    device, one = pose.device, shapes.only(index)
    depths = torch.ones(1, device=device)
    at = torch.arange(size, device=device) + 0.5
    x = (at - k[:, 0, 2, None]) / k[:, 0, 0, None]
    y = (at - k[:, 1, 2, None]) / k[:, 1, 1, None]
    shape = (len(k), size, size)
    ray = torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape), depths.expand(shape)], -1).view(
        len(k), -1, 3
    )
    length = ray.norm(dim=-1, keepdim=True)
    ray = (pose[:, None, :3, :3] * (ray / length).unsqueeze(-2)).sum(-1)  # unit, in the world
    origin = pose[:, None, :3, 3].expand_as(ray)
    back = inverse(place)
    own_ray = (back[:, None, :3, :3] * ray.unsqueeze(-2)).sum(-1)
    own_origin = moved(back, origin)
    met = trace(one, own_origin.reshape(-1, 3), own_ray.reshape(-1, 3), 2.0).view(len(k), -1)
    down = ray[..., 2]
    table = torch.where(down < -1e-4, -origin[..., 2] / down.clamp(max=-1e-4), torch.inf)
    mask = met < table
    far = torch.where(mask, met, table)
    flat = torch.where(far.isfinite() & (far < 4.0), far / length.squeeze(-1), 0.0)  # along the axis
    rgb = _colours(one, own_origin, own_ray, met, mask, origin, ray, table, back, seed)
    if noise:
        draw = torch.Generator(device).manual_seed(seed)
        flat = flat + torch.randn(flat.shape, generator=draw, device=device) * (0.001 + 0.005 * flat) * (flat > 0)
    return Views(
        (rgb * 255).round().to(torch.uint8).view(*shape, 3), flat.view(shape).contiguous(), mask.view(shape), k, pose
    )


def _colours(
    one: Shapes, own_origin: Tensor, own_ray: Tensor, met: Tensor, mask: Tensor,
    origin: Tensor, ray: Tensor, table: Tensor, back: Tensor, seed: int,
) -> Tensor:  # fmt: skip
    """Colours in [0, 1] `[n, pixels, 3]`: a lamp above the camera's side, and light from everywhere."""
    u = Draw(seed)
    hue, value = math.floor(u(0, HUES)) / HUES, u(0.4, 0.9)
    tint = torch.tensor([abs((hue * 6 + shift) % 6 - 3) - 1 for shift in (0, 4, 2)], device=ray.device).clamp(0, 1)
    colour = value * (0.35 + 0.65 * tint)
    lamp = F.normalize(torch.tensor([0.4, -0.3, 1.0], device=ray.device), dim=0)
    own_lamp = (back[:, :3, :3] * lamp).sum(-1)  # [n, 3]
    light = torch.full_like(met, 0.35)
    rows = mask.flatten().nonzero().squeeze(1)
    if len(rows):
        points = (own_origin + met.unsqueeze(-1) * own_ray).view(-1, 3)[rows]
        normal = normals(one, torch.zeros(1, dtype=torch.long, device=ray.device), points.unsqueeze(0))[0]
        lamps = own_lamp.repeat_interleave(mask.shape[1], 0)[rows]
        light.view(-1)[rows] = 0.35 + 0.65 * (normal * lamps).sum(1).clamp_min(0)
    ground = origin + table.clamp(max=4.0).unsqueeze(-1) * ray
    waves = sum(
        torch.sin(ground[..., 0] * u(5, 25) + u(0, 6)) * torch.sin(ground[..., 1] * u(5, 25) + u(0, 6))
        for _ in range(3)
    )
    wood = torch.where(table.isfinite() & (table < 4.0), TABLE + 0.03 * waves, SKY)
    return torch.where(mask.unsqueeze(-1), light.unsqueeze(-1) * colour, wood.unsqueeze(-1)).clamp(0, 1)


def occupancy(shapes: Shapes, index: int, place: Tensor, count: int, cube: Cube) -> Tensor:
    """Which voxels an object fills in scenes `[s, 4, 4]`, uint8 `[s, V, V, V]` in the order [z, y, x].

    A voxel whose middle lies within a quarter of its side of the object counts, too: walls are thinner than voxels.
    """
    half, side = cube.side / 2, cube.side / count
    lines = [middles(c - half, c + half, count, place[0, 0]) for c in cube.centre]
    z, y, x = torch.meshgrid(lines[2], lines[1], lines[0], indexing="ij")
    points = torch.stack([x, y, z], -1).view(1, -1, 3).expand(len(place), -1, 3)
    distance = shapes.only(index).distance(
        torch.zeros(len(place), dtype=torch.long, device=place.device), moved(inverse(place), points)
    )
    return (distance < side / 4).view(-1, count, count, count).to(torch.uint8)


def placed(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Poses of an upright object, object to world `[count, 4, 4]`: any yaw, shifted by up to 2 cm along x and y."""
    drawn = torch.rand(count, 3, generator=generator)
    return turned(2 * math.pi * drawn[:, 0], JITTER * (2 * drawn[:, 1:] - 1)).to(device)
