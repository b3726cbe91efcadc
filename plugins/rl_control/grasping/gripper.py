"""The gripper, and whether a grasp holds: a quasi-static rule, batched on the device.

Two fingers of 10 x 20 x 50 mm with 84 mm between them, on a palm of 130 x 25 x 20 mm. Frame: x closes, z approaches,
y = z x x, the origin in the middle of the palm's face. Poses are taken in the object's frame, z = 0 being the table.

A grasp holds if nothing of the open gripper touches the object or the table, and if both fingers meet the object on
at least 8 of 45 places each when they close. Friction is left out on purpose: the object slides and turns between the
fingers, and a test of the first contacts' friction cones agrees less with physics.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from distk.plugins.rl_control.grasping.bodies import Shapes, moved

OPENING = 0.084
FINGER = (0.010, 0.020, 0.050)
PALM = (0.130, 0.025, 0.020)
TOUCH = 0.0005
"""How deep a point may lie in the object or the table before it counts as a collision, metres."""
MEETS = 0.001
"""Distance at which a closing pad has met the object, metres."""
NEEDED = 8
STEPS, FACTOR = 14, 0.9
TRAVEL = OPENING - MEETS / 2
BLOCK = 1 << 19
"""Most points whose distance is taken at once."""


@functools.cache
def shell(device: torch.device) -> Tensor:
    """Points on the surface of the open gripper, `[423, 3]`, metres; a half turn about z maps them onto each other."""
    inner, (thick, wide, long) = OPENING / 2, FINGER
    tip = [
        (inner + thick * i / 4, -wide / 2 + wide * j / 4, long) for i in range(5) for j in range(5)
    ]  # dense, since walls of 3 mm come in here
    rim = [(0.0, -0.5), (0.0, 0.0), (0.0, 0.5), (0.5, -0.5), (0.5, 0.5), (1.0, -0.5), (1.0, 0.0), (1.0, 0.5)]
    sides = [(inner + thick * a, wide * b, 0.01 * k) for k in range(5) for a, b in rim]
    finger = tip + sides
    fingers = [(sign * x, sign * y, z) for sign in (1, -1) for x, y, z in finger]
    palm = [(PALM[0] * (i / 6 - 0.5), PALM[1] * b, z) for i in range(7) for b in (-0.5, 0.5) for z in (0.0, -PALM[2])]
    # Dense, since necks, knobs and walls come against it: along its edges alone, a bottle's neck stood in the palm.
    face = [(PALM[0] * (i / 52 - 0.5), PALM[1] * (j / 4 - 0.5), 0.0) for i in range(53) for j in range(5)]
    return torch.tensor(fingers + palm + face, device=device)


@functools.cache
def pads(device: torch.device) -> tuple[Tensor, Tensor]:
    """Starts `[90, 3]` of the rays in which the pads move when they close, and their directions `[90, 3]`."""
    y = torch.linspace(-0.0095, 0.0095, 5)
    z = torch.linspace(0.001, 0.049, 9)
    grid = torch.cartesian_prod(y, z)
    starts, directions = [], []
    for sign in (1.0, -1.0):
        starts.append(torch.cat([torch.full((45, 1), sign * OPENING / 2), sign * grid[:, :1], grid[:, 1:]], 1))
        directions.append(torch.tensor([-sign, 0.0, 0.0]).expand(45, 3))
    return torch.cat(starts).to(device), torch.cat(directions).to(device)


def free(shapes: Shapes, which: Tensor, pose: Tensor) -> Tensor:
    """Whether the open gripper touches neither object nor table: objects `[n]`, poses `[n, 4, 4]` -> bool `[n]`."""
    points = moved(pose, shell(pose.device).to(pose.dtype).expand(len(pose), -1, -1))
    above = (points[..., 2] >= -TOUCH).all(1)
    return above & (shapes.distance(which, points) >= -TOUCH).all(1)


def contacts(shapes: Shapes, which: Tensor, pose: Tensor) -> Tensor:
    """On how many of its 45 places each closing pad meets the object, int64 `[n, 2]`."""
    starts, directions = pads(pose.device)
    start = moved(pose, starts.to(pose.dtype).expand(len(pose), -1, -1))
    ray = (pose[:, None, :3, :3] * directions.to(pose.dtype)[None, :, None]).sum(-1)
    start, ray = start.flatten(0, 1), ray.flatten(0, 1)
    which = which.repeat_interleave(len(starts))
    gone = torch.zeros_like(start[:, 0])
    hit = torch.zeros_like(gone, dtype=torch.bool)
    rows = torch.arange(len(gone), device=gone.device)
    for _ in range(STEPS):
        # Most rays are through after a few steps; only the others go on.
        at = start[rows] + gone[rows].unsqueeze(-1) * ray[rows]
        distance = shapes.distance(which[rows], at.unsqueeze(1)).squeeze(1)
        met = distance < MEETS
        hit[rows] = met
        gone[rows] += FACTOR * distance.clamp_min(MEETS / 2)
        rows = rows[(~met & (gone[rows] < TRAVEL)).nonzero().squeeze(1)]
        if not len(rows):
            break
    return hit.view(-1, 2, 45).sum(2)


@torch.no_grad()
def holds(shapes: Shapes, which: Tensor, pose: Tensor) -> Tensor:
    """Whether grasps hold: objects int64 `[n]`, gripper poses in the objects' frames `[n, 4, 4]` -> bool `[n]`."""
    step = max(1, BLOCK // 90)
    found = [_block(shapes, w, p) for w, p in zip(which.split(step), pose.split(step), strict=True)]
    return torch.cat(found)


def _block(shapes: Shapes, which: Tensor, pose: Tensor) -> Tensor:
    good = free(shapes, which, pose)
    # About half of all grasps end here, and closing is what costs.
    rows = good.nonzero().squeeze(1)
    if len(rows):
        good[rows] = (contacts(shapes, which[rows], pose[rows]) >= NEEDED).all(1)
    return good
