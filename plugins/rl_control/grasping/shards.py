"""Grasps in files: `meta.json`, `shard-00000.npz` and on, and `shapes.npz`, numpy arrays without pickle. Shards may be
HDF5 files with the same arrays, too.

Metres, degrees of elevation, the world's z up. What each array holds stands in docs/formats.md.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk.arrays import Hdf5, Npz, open_arrays, open_npz
from distk.errors import DistkError
from distk.files import write_atomic
from distk.plugins.rl_control.grasping.bodies import Bodies, Grids, Shapes

FORMAT, VERSION = "distk-grasps", 1
ENDINGS = (".npz", ".h5", ".hdf5")
META, SHAPES = "meta.json", "shapes.npz"
ENGINES = ("quasistatic", "mujoco", "vr", "real")
HOLDS = "meta.json, shard-*.npz (or .h5) and, where grasps can be tried again, shapes.npz"
LARGEST_META = 1 << 24
MILLIMETRES = 10.0
"""Depths with a median above this, in metres, are taken for millimetres."""


@dataclass
class Recorded:
    """Scenes and grasps. meta: as `meta.json`. scenes, grasps: arrays by the names of the format. shapes: the objects,
    where they are known, so that other grasps of them can be tried."""

    meta: dict[str, Any]
    scenes: dict[str, Tensor]
    grasps: dict[str, Tensor]
    shapes: Shapes | None = None


SCENES: dict[str, tuple[str, str]] = {
    "rgb": ("S,V,H,W,3", "u"),
    "depth": ("S,V,H,W", "uf"),
    "mask": ("S,V,H,W", "bu"),
    "K": ("S,V,3,3", "f"),
    "T_wc": ("S,V,4,4", "f"),
    "elevation": ("S,V", "f"),
    "occupancy": ("S,N,N,N", "bu"),
    "object_id": ("S", "iu"),
    "category": ("S", "iu"),
    "object_T": ("S,4,4", "f"),
}
"""Name -> its axes, and the kinds of numbers that it may be."""
GRASPS: dict[str, tuple[str, str]] = {
    "grasp_scene": ("G", "iu"),
    "grasp_T": ("G,4,4", "f"),
    "outcome": ("G", "bu"),
    "demo_id": ("G", "iu"),
    "grasp_width": ("G", "f"),
}
OPTIONAL = ("mask", "occupancy", "object_T", "demo_id", "grasp_width", "depth_scale")


def vacant(folder: Path) -> None:
    """Raise DistkError for a folder that holds something already, or a file of that name."""
    if folder.exists() and not folder.is_dir():
        raise DistkError(f"'{folder}' is a file; name a new folder for the grasps.")
    taken = next(folder.iterdir(), None) if folder.exists() else None
    if taken is not None:
        raise DistkError(f"'{folder}' holds '{taken.name}' already; name a new folder for the grasps.")


def write(folder: Path, made: Recorded, per_shard: int = 64) -> list[Path]:
    """Write grasps as a folder of `per_shard` scenes a file; the files written.

    Raises DistkError for a folder that holds something already, and where nothing can be written.
    """
    vacant(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DistkError(f"cannot write to '{folder}': {error.strerror or error}.") from error
    count, files = len(made.scenes["rgb"]), []
    belongs = made.grasps["grasp_scene"].long()
    for number, start in enumerate(range(0, count, per_shard)):
        stop = min(start + per_shard, count)
        rows = ((belongs >= start) & (belongs < stop)).nonzero().squeeze(1)
        arrays = {name: value[start:stop] for name, value in made.scenes.items()}
        arrays |= {name: value[rows] for name, value in made.grasps.items()}
        arrays["grasp_scene"] = arrays["grasp_scene"] - start
        files.append(folder / f"shard-{number:05d}.npz")
        _save(files[-1], arrays)
    if isinstance(made.shapes, Bodies):
        files.append(folder / SHAPES)
        _save(files[-1], {"polygon": made.shapes.polygon, "cones": made.shapes.cones})
    elif isinstance(made.shapes, Grids):
        files.append(folder / SHAPES)
        _save(files[-1], made.shapes.arrays())
    # Last, so that a folder with it is complete.
    files.append(folder / META)
    write_atomic(files[-1], (json.dumps(made.meta, indent=1) + "\n").encode())
    return files


def _save(path: Path, arrays: dict[str, Tensor]) -> None:
    buffer = io.BytesIO()
    held = {name: value.cpu().numpy() for name, value in arrays.items()}
    if "depth" in held:
        held["depth"] = held["depth"].astype(np.float32)
    np.savez_compressed(buffer, **held)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read(meta_path: Path) -> Recorded:
    """Read a folder by its `meta.json`. Tensors are on the CPU; depth is float32 metres, 0 where it is missing.

    Raises DistkError, naming shard, array and row, for whatever does not fit the format.
    """
    meta, folder = _meta(meta_path), meta_path.parent
    paths = sorted(path for ending in ENDINGS for path in folder.glob(f"shard-*{ending}"))
    if not paths:
        raise DistkError(f"'{folder}' has no shard-*.npz (or .h5) beside '{META}'.")
    for one, other in pairwise(paths):
        if one.stem == other.stem:
            raise DistkError(f"'{folder}' holds both '{one.name}' and '{other.name}': leave one of them.")
    scenes: list[dict[str, Tensor]] = []
    grasps: list[dict[str, Tensor]] = []
    start = 0
    for path in paths:
        both = _shard(path, meta)
        for parts, like in zip((scenes, grasps), both, strict=True):
            if parts:
                _same_form(path, parts[0], like, paths[0])
            parts.append(like)
        grasps[-1]["grasp_scene"] = grasps[-1]["grasp_scene"] + start
        start += len(scenes[-1]["rgb"])
    all_scenes, all_grasps = (
        {key: torch.cat([part[key] for part in parts]) for key in parts[0]} for parts in (scenes, grasps)
    )
    _whole(folder, meta, all_scenes, all_grasps)
    shapes = _shapes(folder / SHAPES, len(meta["objects"])) if (folder / SHAPES).exists() else None
    return Recorded(meta, all_scenes, all_grasps, shapes)


def _same_form(path: Path, first: dict[str, Tensor], other: dict[str, Tensor], first_path: Path) -> None:
    for key in sorted(set(first) | set(other)):
        if key not in first or key not in other:
            lacks = path if key not in other else first_path
            raise DistkError(f"'{lacks}' lacks '{key}', which other shards have.")
        if first[key].shape[1:] != other[key].shape[1:]:
            shown = [tuple(value[key].shape[1:]) for value in (other, first)]
            raise DistkError(f"'{path}': '{key}' holds {shown[0]} each, those of '{first_path.name}' {shown[1]}.")


def _meta(path: Path) -> dict[str, Any]:
    """`meta.json`, checked."""
    try:
        if path.stat().st_size > LARGEST_META:
            raise DistkError(f"'{path}' is larger than {LARGEST_META:,} bytes.")
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DistkError(f"'{path}' cannot be read as JSON ({error}).") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT or meta.get("version") != VERSION:
        raise DistkError(f"'{path}' does not say format '{FORMAT}', version {VERSION}.")
    try:
        categories = [str(name) for name in meta["categories"]]
        objects = [
            {"name": str(o["name"]), "category": str(o["category"]), "split": str(o["split"])} for o in meta["objects"]
        ]
        voxel: dict[str, Any] = {
            "n": int(meta["voxel"]["n"]),
            "side": float(meta["voxel"]["side"]),
            "centre": [float(v) for v in meta["voxel"]["centre"]],
        }
        labels = str(meta["labels"])
        span = {key: float(meta[key]) for key in ("near", "far") if key in meta}
    except (KeyError, TypeError, ValueError) as error:
        raise DistkError(f"'{path}' lacks something or holds it in another form: {error}.") from error
    if not objects or not categories or len(set(categories)) < len(categories):
        raise DistkError(f"'{path}' needs objects, and categories that differ.")
    splits: dict[str, str] = {}
    for o in objects:
        if o["category"] not in categories:
            raise DistkError(f"'{path}': object '{o['name']}' is of category '{o['category']}', which is not listed.")
        if o["split"] not in ("train", "test"):
            raise DistkError(f"'{path}': object '{o['name']}' is in split '{o['split']}'; it can be train or test.")
        if splits.setdefault(o["name"], o["split"]) != o["split"]:
            raise DistkError(
                f"'{path}': object '{o['name']}' is in both splits, so the test would see training objects."
            )
    if labels not in ENGINES:
        raise DistkError(f"'{path}': labels are '{labels}'; they can be {', '.join(ENGINES)}.")
    if not 2 <= voxel["n"] <= 256 or not voxel["side"] > 0 or len(voxel["centre"]) != 3:
        raise DistkError(f"'{path}': voxel {voxel} is not a count of 2 to 256, a side in metres and a centre.")
    if span and not 0 <= span.get("near", 0.0) < span.get("far", np.inf):
        raise DistkError(f"'{path}': near must lie below far, both in metres.")
    return {**meta, "categories": categories, "objects": objects, "voxel": voxel, "labels": labels, **span}


def _array(file: Npz | Hdf5, path: Path, name: str, form: str, kinds: str, sizes: dict[str, int]) -> np.ndarray:
    """One array, held against its axes; axes with letters get their size where they first occur."""
    shape, dtype = file.header(name)
    axes = form.split(",")
    expected = "(" + ", ".join(axes) + ")"
    if len(shape) != len(axes) or dtype.kind not in kinds:
        raise DistkError(f"shard '{path}': '{name}' has shape {shape} of {dtype}, expected {expected}.")
    for axis, size in zip(axes, shape, strict=True):
        wanted = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
        if size != wanted:
            told = "" if axis.isdigit() else f" with {axis} = {wanted}"
            raise DistkError(f"shard '{path}': '{name}' has shape {shape}, expected {expected}{told}.")
    return file.read(name)


def _shard(path: Path, meta: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scenes and grasps of one file, checked."""
    sizes: dict[str, int] = {"N": meta["voxel"]["n"]}
    with open_arrays(path, HOLDS) as file:
        held = [
            {
                name: _array(file, path, name, form, kinds, sizes)
                for name, (form, kinds) in table.items()
                if name in file.names or name not in OPTIONAL
            }
            for table in (SCENES, GRASPS)
        ]
        scale = float(np.asarray(file.read("depth_scale")).reshape(-1)[0]) if "depth_scale" in file.names else None
    scenes, grasps = held
    for axis, what in (("S", "scenes"), ("V", "views"), ("G", "grasps")):
        if not sizes[axis]:
            raise DistkError(f"shard '{path}' holds no {what}; leave an empty shard out.")
    scenes["depth"] = _depth(path, scenes["depth"], scale)
    _cameras(path, scenes, sizes)
    _poses(path, "T_wc", scenes["T_wc"])
    _poses(path, "grasp_T", grasps["grasp_T"])
    if "object_T" in scenes:
        _poses(path, "object_T", scenes["object_T"])
    for name, table, most in (
        ("grasp_scene", grasps, sizes["S"]),
        ("outcome", grasps, 2),
        ("object_id", scenes, len(meta["objects"])),
        ("category", scenes, len(meta["categories"])),
    ):
        values = table[name].astype(np.int64)
        wrong = np.flatnonzero((values < 0) | (values >= most))
        if len(wrong):
            raise DistkError(
                f"shard '{path}': row {wrong[0]} of '{name}' is {values[wrong[0]]}; it must be 0 to {most - 1}."
            )
    named = [meta["categories"].index(o["category"]) for o in meta["objects"]]
    wrong = np.flatnonzero(np.asarray(named)[scenes["object_id"].astype(np.int64)] != scenes["category"])
    if len(wrong):
        raise DistkError(f"shard '{path}': row {wrong[0]} of 'category' is not that of its object in '{META}'.")
    return _tensors(scenes, SCENES), _tensors(grasps, GRASPS)


def _tensors(arrays: dict[str, np.ndarray], table: dict[str, tuple[str, str]]) -> dict[str, Tensor]:
    """As tensors, in one type for each name."""
    found = {}
    for name, (_, kinds) in table.items():
        if name in arrays:
            dtype = {"f": np.float32, "uf": np.float32, "iu": np.int64, "u": np.uint8, "bu": np.uint8}[kinds]
            found[name] = torch.from_numpy(np.ascontiguousarray(arrays[name].astype(dtype)))
    return found


def _depth(path: Path, depth: np.ndarray, scale: float | None) -> np.ndarray:
    """Metres as float32, 0 where there is none."""
    metres = depth.astype(np.float32) * np.float32(1.0 if scale is None else scale)
    metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))
    known = metres[metres > 0]
    if not len(known):
        raise DistkError(f"shard '{path}': 'depth' holds no depth above 0 at all.")
    if float(np.median(known)) > MILLIMETRES:
        raise DistkError(
            f"shard '{path}': 'depth' has the median {np.median(known):.0f}: it looks like millimetres; add the array "
            "depth_scale = 0.001."
        )
    return metres


def _cameras(path: Path, scenes: dict[str, np.ndarray], sizes: dict[str, int]) -> None:
    """Raise DistkError for intrinsics that belong to no picture of this size."""
    k = scenes["K"]
    bad = ~np.isfinite(k).all((2, 3)) | (k[..., 0, 0] <= 0) | (k[..., 1, 1] <= 0)
    outside = (k[..., 0, 2] > sizes["W"]) | (k[..., 1, 2] > sizes["H"]) | (k[..., 0, 2] < 0) | (k[..., 1, 2] < 0)
    for wrong, why in ((bad, "is no camera matrix"), (outside, "")):
        rows = np.argwhere(wrong)
        if len(rows):
            scene, view = rows[0]
            why = why or (
                f"has its middle at ({k[scene, view, 0, 2]:g}, {k[scene, view, 1, 2]:g}), outside of pictures of "
                f"{sizes['W']} x {sizes['H']}: scale K with the pictures"
            )
            raise DistkError(f"shard '{path}': 'K' of scene {scene}, view {view} {why}.")
    if not np.isfinite(scenes["elevation"]).all():
        raise DistkError(f"shard '{path}': 'elevation' holds numbers that are not finite.")


def rigid_problem(poses: np.ndarray) -> tuple[int, str] | None:
    """What is wrong with poses `[n, 4, 4]`, as (row, words), or None where all are rigid, right-handed and in
    metres."""
    flat = poses.astype(np.float64)
    finite = np.isfinite(flat).all((1, 2))
    if not finite.all():
        return int(np.argmin(finite)), "holds numbers that are not finite"
    rotation = flat[:, :3, :3]
    off = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max((1, 2))
    for wrong, why in (
        (off >= 1e-3, "has a rotation whose columns are not unit and square to each other"),
        (np.linalg.det(rotation) < 0, "is left-handed (its determinant is -1)"),
        (np.abs(flat[:, 3] - np.array([0, 0, 0, 1.0])).max(1) > 1e-6, "does not end with the row 0 0 0 1"),
        (np.abs(flat[:, :3, 3]).max(1) > 20, "lies more than 20 metres away; poses are in metres"),
    ):
        rows = np.flatnonzero(wrong)
        if len(rows):
            return int(rows[0]), why
    return None


def _poses(path: Path, name: str, poses: np.ndarray) -> None:
    """Raise DistkError, naming the row, for poses that are not rigid, right-handed and in metres."""
    if problem := rigid_problem(poses.reshape(-1, 4, 4)):
        raise DistkError(f"shard '{path}': row {problem[0]} of '{name}' {problem[1]}.")


def _whole(folder: Path, meta: dict[str, Any], scenes: dict[str, Tensor], grasps: dict[str, Tensor]) -> None:
    """Raise DistkError where a split has no grasps, or grasps of one outcome only."""
    test = torch.tensor([o["split"] == "test" for o in meta["objects"]])
    which = test[scenes["object_id"]][grasps["grasp_scene"]]
    for split, rows in (("train", ~which), ("test", which)):
        outcomes = grasps["outcome"][rows]
        if not len(outcomes):
            raise DistkError(f"'{folder}' has no grasps of {split} objects.")
        if int(outcomes.min()) == int(outcomes.max()):
            kind = "succeed" if int(outcomes.min()) else "fail"
            raise DistkError(f"'{folder}': all grasps of {split} objects {kind}, so that nothing can be told apart.")


def _shapes(path: Path, objects: int) -> Shapes:
    """Objects as they were written, checked."""
    with open_npz(path, "polygon and cones, or values, low and spacing") as file:
        sizes = {"O": objects}
        if "polygon" in file.names:
            arrays = [
                _array(file, path, name, form, "f", sizes) for name, form in (("polygon", "O,P,2"), ("cones", "O,C,8"))
            ]
            shapes: Shapes = Bodies(*(torch.from_numpy(a.astype(np.float32)) for a in arrays))
        else:
            forms = {"values": "O,N,N,N", "low": "O,3", "spacing": "O"}
            forms |= {"pieces": "O,P,C,3"} if "pieces" in file.names else {}
            arrays = [_array(file, path, name, form, "f", sizes) for name, form in forms.items()]
            shapes = Grids(*(torch.from_numpy(a.astype(np.float32)) for a in arrays))
    if not all(bool(np.isfinite(a).all()) for a in arrays):
        raise DistkError(f"'{path}' holds numbers that are not finite.")
    return shapes
