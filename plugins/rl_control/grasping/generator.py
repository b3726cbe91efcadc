"""Grasps made rather than recorded: objects on a table, pictures of them, grasps that hold, and grasps near those."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distk.console import counted, progress
from distk.errors import UsageError
from distk.plugins.rl_control.grasping import gripper, scenes
from distk.plugins.rl_control.grasping.bodies import Shapes, normals, rigid, rotations
from distk.plugins.rl_control.grasping.projection import Cube, composed
from distk.plugins.rl_control.grasping.shards import FORMAT, VERSION, Recorded

CANDIDATES = 4
"""Grasps tried near a demonstration for each one that is kept."""
THICKEST = 0.082
SHIFT, TURN = 0.012, 0.2
"""Standard deviations of what is near: metres along each axis, radians of the rotation vector."""
ROUNDS, PROPOSED = 80, 96

Label = Callable[[Shapes, Tensor, Tensor], Tensor]
"""Objects int64 `[n]`, gripper poses in their frames `[n, 4, 4]` -> whether each grasp holds, bool `[n]`."""


@dataclass(frozen=True)
class Plan:
    """What is made. scenes: of each object. azimuths: views of each elevation and scene. demos: grasps of each object
    that hold and near which others are drawn. kept: of those, half of them successes. size: of the square pictures."""

    scenes: int
    azimuths: int
    size: int
    voxels: int
    demos: int
    kept: int
    elevations: tuple[float, ...]
    train_elevations: tuple[float, ...]
    noise: bool
    seed: int


def split_of(categories: list[str], seed: int) -> list[str]:
    """`train` or `test` for each object: of every category a fifth, at least one, is kept for the test.

    Raises UsageError for a category of one object.
    """
    found = ["train"] * len(categories)
    for name in sorted(set(categories)):
        rows = [i for i, other in enumerate(categories) if other == name]
        if len(rows) < 2:
            raise UsageError(f"category '{name}' has one object; one for training and one for the test are needed.")
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        for i in order[: max(1, round(len(rows) / 5))]:
            found[rows[i]] = "test"
    return found


def make(
    shapes: Shapes, names: list[str], categories: list[str], plan: Plan, device: torch.device,
    label: Label = gripper.holds, labels: str = "quasistatic",
) -> Recorded:  # fmt: skip
    """Scenes, pictures and balanced grasps of all objects. Same arguments, same result on one kind of device.

    label, labels: what says whether a grasp holds, and its name. Raises UsageError for an object that the gripper
    cannot hold in any way that was tried.
    """
    cube, split = Cube(), split_of(categories, plan.seed)
    known = list(dict.fromkeys(categories))
    parts: list[dict[str, Tensor]] = []
    grasps: list[dict[str, Tensor]] = []
    demos = 0
    with progress("making grasps", len(shapes)) as advance:
        for index, name in enumerate(names):
            draw = torch.Generator().manual_seed(plan.seed * 7919 + index)
            place = scenes.placed(plan.scenes, draw, device)
            training = split[index] == "train"
            parts.append(_pictured(shapes, index, place, plan, training, draw, cube, device))
            parts[-1]["category"] = torch.full((plan.scenes,), known.index(categories[index]))
            held = demonstrations(shapes, index, plan.demos, draw, device, label, name)
            pose, outcome, near = around(shapes, index, held, plan.kept, draw, device, label)
            scene = near % plan.scenes
            grasps.append(
                {
                    "grasp_scene": (scene + index * plan.scenes).int(),
                    "grasp_T": composed(place[scene], pose),
                    "outcome": outcome.to(torch.uint8),
                    "demo_id": (near + demos).int(),
                }
            )
            demos += plan.demos
            advance(1)
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "categories": known,
        "objects": [{"name": n, "category": c, "split": s} for n, c, s in zip(names, categories, split, strict=True)],
        "gripper": {"opening": gripper.OPENING, "finger": list(gripper.FINGER), "palm": list(gripper.PALM)},
        "voxel": {"n": plan.voxels, "side": cube.side, "centre": list(cube.centre)},
        "near": scenes.NEAR,
        "far": scenes.FAR,
        "labels": labels,
        "generator": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(plan).items()},
        "seed": plan.seed,
    }  # fmt: skip
    return Recorded(meta, joined(parts), joined(grasps), shapes)


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Dicts of one form -> one, joined along the first axis."""
    return {key: torch.cat([part[key].to(parts[0][key].device) for part in parts]) for key in parts[0]}


def _pictured(
    shapes: Shapes, index: int, place: Tensor, plan: Plan, training: bool, draw: torch.Generator, cube: Cube,
    device: torch.device,
) -> dict[str, Tensor]:  # fmt: skip
    """The scenes of one object: pictures, cameras, occupancy."""
    count = len(plan.elevations) * plan.azimuths
    each = plan.train_elevations if training else plan.elevations
    elevation = torch.tensor(each)[torch.arange(count) % len(each)].repeat(len(place))
    drawn = torch.rand(len(elevation), 2, generator=draw)
    distance = scenes.DISTANCE[0] + (scenes.DISTANCE[1] - scenes.DISTANCE[0]) * drawn[:, 1]
    pose = scenes.cameras(elevation, 2 * math.pi * drawn[:, 0], distance).to(device)
    k = scenes.intrinsics(plan.size, len(pose), device)
    seed = int(torch.randint(2**31, (), generator=draw))
    views = scenes.render(shapes, index, place.repeat_interleave(count, 0), pose, k, plan.size, seed, plan.noise)
    by_scene = (len(place), count)
    return {
        "rgb": views.rgb.view(*by_scene, *views.rgb.shape[1:]),
        "depth": views.depth.view(*by_scene, *views.depth.shape[1:]),
        "mask": views.mask.view(*by_scene, *views.mask.shape[1:]),
        "K": k.view(*by_scene, 3, 3),
        "T_wc": pose.view(*by_scene, 4, 4),
        "elevation": elevation.view(by_scene).to(device),
        "occupancy": scenes.occupancy(shapes, index, place, plan.voxels, cube),
        "object_id": torch.full((len(place),), index, dtype=torch.int32),
        "object_T": place,
    }


def demonstrations(
    shapes: Shapes, index: int, count: int, draw: torch.Generator, device: torch.device, label: Label, name: str
) -> Tensor:
    """`count` grasps of one object that hold, gripper to object `[count, 4, 4]`.

    Two opposite places of the surface, the closing axis across them, the approach from above rather than from below.
    Raises UsageError where too few hold.
    """
    one, found, tried = shapes.only(index), [], 0
    for _ in range(ROUNDS):
        poses = proposals(one, PROPOSED, draw, device)
        tried += len(poses)
        if not len(poses):
            continue
        which = torch.full((len(poses),), 0, device=device)
        good = label(one, which, poses)
        found += list(poses[good.nonzero().squeeze(1)])
        if len(found) >= count:
            return torch.stack(found[:count])
    if not tried:
        raise UsageError(
            f"object '{name}' has no place that fingers could meet: no surface 3 mm or more above the table was found."
        )
    raise UsageError(
        f"object '{name}': {len(found)} of {counted(tried, 'grasp')} held, {count} are needed; is it wider than the "
        f"gripper's {1000 * gripper.OPENING:g} mm everywhere?"
    )


def proposals(one: Shapes, count: int, draw: torch.Generator, device: torch.device) -> Tensor:
    """Grasps across the surface of a single object, which need not hold, `[at most count, 4, 4]`."""
    wide, high = (float(v) for v in one.radius[0])
    which = torch.zeros(1, dtype=torch.long, device=device)
    box = torch.rand(8 * count, 3, generator=draw).to(device)
    points = torch.stack([wide * (2 * box[:, 0] - 1), wide * (2 * box[:, 1] - 1), high * box[:, 2]], 1).unsqueeze(0)
    for _ in range(3):
        points = points - one.distance(which, points).unsqueeze(-1) * normals(one, which, points)
    near = (one.distance(which, points).abs() < 5e-4) & (points[..., 2] > 0.003)
    rows = near[0].nonzero().squeeze(1)[:count]
    if not len(rows):
        return points.new_zeros(0, 4, 4)
    points = points[0, rows]
    normal = normals(one, which, points.unsqueeze(0))[0]
    noise = torch.randn(len(rows), 7, generator=draw).to(device)
    closing = F.normalize(-normal + 0.08 * noise[:, :3], dim=1)
    # Into the object in steps of a millimetre, until it is left again.
    steps = torch.arange(1, round(1000 * THICKEST) + 1, device=device) / 1000
    along = points[:, None] + steps[None, :, None] * closing[:, None]
    left = one.distance(which, along.view(1, -1, 3)).view(len(rows), -1) > 0
    thick = steps[left.long().argmax(1)]
    centre = points + thick[:, None] / 2 * closing
    bias = torch.tensor([0.0, 0.0, 0.7], device=device)
    way = F.normalize(noise[:, 3:6], dim=1) - bias
    approach = F.normalize(way - (way * closing).sum(1, keepdim=True) * closing, dim=1)
    depth = 0.020 + 0.025 * torch.rand(len(rows), generator=draw).to(device)
    rotation = torch.stack([closing, torch.linalg.cross(approach, closing), approach], -1)
    poses = rigid(rotation, centre - depth[:, None] * approach)
    return poses[(left.any(1)).nonzero().squeeze(1)]


def near_poses(pose: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """`count` poses near each of n, `[n, count, 4, 4]`: shifted and turned by normal noise."""
    noise = torch.randn(len(pose), count, 6, generator=draw).to(pose.device)
    rotation = (pose[:, None, :3, :3].unsqueeze(-1) * rotations(TURN * noise[..., :3]).unsqueeze(-3)).sum(-2)
    return rigid(rotation, pose[:, None, :3, 3] + SHIFT * noise[..., 3:])


def around(
    shapes: Shapes, index: int, held: Tensor, kept: int, draw: torch.Generator, device: torch.device, label: Label
) -> tuple[Tensor, Tensor, Tensor]:
    """Grasps near demonstrations `[d, 4, 4]`, as many failures as successes of each demonstration, at most `kept`.

    Poses `[g, 4, 4]`, outcomes bool `[g]`, and the demonstration of each, int64 `[g]`.
    """
    one, half = shapes.only(index), kept // 2
    poses = near_poses(held, CANDIDATES * kept, draw)
    good = torch.zeros(poses.shape[:2], dtype=torch.bool, device=device)
    tried = torch.zeros(len(held), dtype=torch.long, device=device)
    # Round by round, as most demonstrations have enough of both kinds long before their last candidate.
    for start in range(0, CANDIDATES * kept, kept):
        so_far = good[:, :start].sum(1)
        lacking = ((so_far < half) | (tried - so_far < half)).nonzero().squeeze(1)
        own = poses[lacking, start : start + kept]
        which = torch.zeros(own.shape[0] * own.shape[1], dtype=torch.long, device=device)
        good[lacking, start : start + kept] = label(one, which, own.flatten(0, 1)).view(own.shape[:2])
        tried[lacking] += kept
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for demo in range(len(held)):
        own_good = good[demo, : int(tried[demo])]
        both = [(own_good == kind).nonzero().squeeze(1) for kind in (True, False)]
        most = min(half, *(len(rows) for rows in both))
        rows = torch.cat([part[:most] for part in both])
        found.append((poses[demo, rows], good[demo, rows], torch.full((len(rows),), demo, device=device)))
    pose, outcome, near = (torch.cat(column) for column in zip(*found, strict=True))
    return pose, outcome, near
