"""One scene of the user's own, for planning: a picture with depth and its camera, and a gripper's pose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distk.arrays import open_npz
from distk.errors import DistkError, UsageError
from distk.plugins.rl_control.grasping.method import Grasping
from distk.plugins.rl_control.grasping.shards import MILLIMETRES, rigid_problem

HOLDS = "rgb uint8 [height, width, 3], depth in metres [height, width], K [3, 3] and T_wc [4, 4]"


def one_scene(path: Path, model: Grasping) -> dict[str, Tensor]:
    """A view as a batch of one: `x`, `K`, `T_wc`.

    Raises UsageError for a file that is not there or pictures of another size than the model's, DistkError for what
    does not fit.
    """
    if not path.is_file():
        raise UsageError(f"--rgbd '{path}' does not exist; it is an npz with {HOLDS}.")
    height, width = model.spec.shape[1:]
    with open_npz(path, HOLDS) as file:
        for name, shape in (("rgb", (height, width, 3)), ("depth", (height, width)), ("K", (3, 3)), ("T_wc", (4, 4))):
            found, dtype = file.header(name)
            if found != shape or dtype.kind not in ("u" if name == "rgb" else "uf"):
                raise UsageError(f"--rgbd '{path}': '{name}' is {dtype} {found}; the model reads {shape}.")
        rgb, depth, k, pose = (file.read(name) for name in ("rgb", "depth", "K", "T_wc"))
    depth = depth.astype(np.float32)
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(model.far))
    if float(np.median(depth)) > MILLIMETRES:
        raise DistkError(f"--rgbd '{path}': 'depth' looks like millimetres; divide it by 1000.")
    if problem := rigid_problem(pose.reshape(1, 4, 4)):
        raise DistkError(f"--rgbd '{path}': 'T_wc' {problem[1]}.")
    flat = np.clip(depth, model.near, model.far) / model.far
    x = np.concatenate([rgb.astype(np.float32).transpose(2, 0, 1) / 255, flat[None]])
    made = {"x": x, "K": k.astype(np.float32), "T_wc": pose.astype(np.float32)}
    return {name: torch.from_numpy(value).unsqueeze(0).float() for name, value in made.items()}


def seed_pose(path: Path) -> Tensor:
    """A gripper's pose `[4, 4]` of a JSON file: four rows of four numbers.

    Raises UsageError for anything else.
    """
    try:
        values = np.asarray(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"--seed-pose '{path}' cannot be read as JSON ({error}).") from error
    if values.shape != (4, 4):
        raise UsageError(f"--seed-pose '{path}' holds {values.shape}, not four rows of four numbers.")
    if problem := rigid_problem(values[None]):
        raise UsageError(f"--seed-pose '{path}' {problem[1]}.")
    return torch.from_numpy(values).float()
