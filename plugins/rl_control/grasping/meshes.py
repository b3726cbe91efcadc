"""Objects from the user's OBJ and STL files, as grids of signed distances. Needs distk[mesh].

The unsigned distance is exact to the nearest of the triangles around the nearest points of the surface; inside is where
a vertical line has crossed the surface an odd number of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial import cKDTree

from distk.console import counted, progress
from distk.errors import DistkError, UsageError
from distk.plugins.rl_control.grasping.bodies import Grids

FORMS = (".obj", ".stl", ".ply", ".off")
LARGEST = 1 << 28
"""Bytes of one file."""
TALLEST, WIDEST = 0.26, 0.13
"""Height, and distance from the middle, that the cube of voxels still holds, metres."""
SAMPLES, NEIGHBOURS = 100_000, 8
MARGIN = 3
"""Samples of the grid beside the object on each side."""
CONCAVE, CORNERS, SEARCHES = 0.05, 64, 60
"""Convex pieces of CoACD: how far a piece may be from convex, in halves of the object's longest side; corners of a
piece; steps of its search for each cut, of which 150 are its default."""
COLUMNS = 1 << 22
"""Most pairs of a column and a triangle at once."""

Up = Literal["z", "y", "x"]


def trimesh() -> Any:
    """The package. Raises UsageError, saying how to install it, where it is missing."""
    try:
        import trimesh as package
    except ImportError as error:
        raise UsageError("meshes need trimesh: pip install 'distk[mesh]'.") from error
    return package


def coacd() -> Any:
    """The package. Raises UsageError, saying how to install it, where it is missing."""
    try:
        import coacd as package
    except ImportError as error:
        raise UsageError(
            "physics needs meshes in convex pieces, which CoACD makes: pip install 'distk[physics]'; --labels "
            "quasistatic needs none."
        ) from error
    return package


@dataclass(frozen=True)
class Reading:
    """How meshes are read. scale: metres of a unit of the file. up: its axis that points up. open: what stands for a
    surface that is not closed: refuse it, or a shell of `wall` metres. samples: of the grid along each side. convex:
    also cut into convex pieces, which physics needs (distk[physics])."""

    scale: float = 1.0
    up: Up = "z"
    open: Literal["refuse", "shell"] = "refuse"
    wall: float = 0.004
    samples: int = 48
    convex: bool = False


def found(folder: Path) -> list[tuple[Path, str]]:
    """Meshes of a folder with their categories: FOLDER/CATEGORY/NAME.obj, or FOLDER/NAME.obj, of category `object`.

    Raises UsageError where there are fewer than two.
    """
    if not folder.is_dir():
        raise UsageError(f"--meshes '{folder}' is no folder; meshes lie in one as CATEGORY/NAME.obj or NAME.obj.")
    paths = sorted(p for p in (*folder.glob("*"), *folder.glob("*/*")) if p.suffix.lower() in FORMS and p.is_file())
    if len(paths) < 2:
        raise UsageError(
            f"--meshes '{folder}' holds {counted(len(paths), 'file')} of {', '.join(FORMS)}; two or more are needed,"
            " since the test's objects are not trained on."
        )
    return [(p, "object" if p.parent == folder else p.parent.name) for p in paths]


def load(path: Path, reading: Reading) -> tuple[np.ndarray, bool]:
    """Triangles `[t, 3, 3]` in metres, upright, standing on z = 0 in the middle of the table; and whether they close.

    Raises DistkError for files that hold no mesh or are no mesh, UsageError for sizes that fit no table.
    """
    package = trimesh()
    if path.stat().st_size > LARGEST:
        raise DistkError(f"'{path}' is larger than {LARGEST >> 20} MiB.")
    try:
        # A file of a stranger: no textures, no other files that it may name.
        mesh = package.load_mesh(path, skip_materials=True, maintain_order=True, resolver=None, process=True)
        corners, faces = np.asarray(mesh.vertices, float), np.asarray(getattr(mesh, "faces", ()), int).reshape(-1, 3)
    except Exception as error:  # readers of meshes raise whatever they meet
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{path}' cannot be read as a mesh ({reason}).") from error
    if not len(faces):
        raise DistkError(f"'{path}' holds {counted(len(corners), 'point')} but no faces, so it has no surface.")
    if not np.isfinite(corners).all():
        raise DistkError(f"'{path}' holds places that are not finite.")
    turn = {"z": [0, 1, 2], "y": [2, 0, 1], "x": [1, 2, 0]}[reading.up]
    corners = corners[:, turn] * reading.scale
    low, high = corners[np.unique(faces)].min(0), corners[np.unique(faces)].max(0)
    corners = corners - [*(low[:2] + high[:2]) / 2, low[2]]
    tall, wide = float(high[2] - low[2]), float(np.linalg.norm(corners[np.unique(faces)][:, :2], axis=1).max())
    if tall > TALLEST or wide > WIDEST:
        hint = "it looks like millimetres: --scale 0.001" if max(tall, wide) > 10 else "make it smaller by --scale"
        raise UsageError(
            f"'{path}' is {tall:.3g} m high and {2 * wide:.3g} m wide; {TALLEST} m and {2 * WIDEST} m fit: {hint}."
        )
    if max(tall, wide) < 0.005:
        raise UsageError(f"'{path}' is {1000 * tall:.2g} mm high: give the metres of its unit by --scale.")
    return corners[faces], bool(mesh.is_watertight)


def distances(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unsigned distance of points `[n, 3]` from triangles `[t, 3, 3]`, `[n]`."""
    package = trimesh()
    areas = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    draw = np.random.default_rng(0)
    which = draw.choice(len(triangles), SAMPLES, p=areas / areas.sum())
    # Every triangle is there at least once, however small.
    which = np.concatenate([which, np.arange(len(triangles))])
    u = draw.random((len(which), 2))
    u = np.where(u.sum(1, keepdims=True) > 1, 1 - u, u)
    own = triangles[which]
    surface = own[:, 0] + u[:, :1] * (own[:, 1] - own[:, 0]) + u[:, 1:] * (own[:, 2] - own[:, 0])
    near = cKDTree(surface).query(points, k=NEIGHBOURS)[1]
    best = np.full(len(points), np.inf)
    for column in range(NEIGHBOURS):
        closest = package.triangles.closest_point(triangles[which[near[:, column]]], points)
        best = np.minimum(best, np.linalg.norm(closest - points, axis=1))
    return best


def inside(triangles: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Whether the points of a grid lie in a closed surface, bool `[z, y, x]`: the surface is crossed an odd number of
    times on the way up."""
    # A little beside the grid, so that no line runs along an edge.
    shift = 1e-7 * np.array([np.pi, np.e])
    columns = np.stack(np.meshgrid(y + shift[1], x + shift[0], indexing="ij"), -1).reshape(-1, 2)[:, ::-1]
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    d = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    keep = np.abs(d) > 1e-18  # upright triangles are crossed by no upright line
    a, b, c, d = a[keep], b[keep], c[keep], d[keep]
    crossed = np.zeros((len(columns), len(z)), int)
    step = max(1, COLUMNS // max(1, len(a)))
    for start in range(0, len(columns), step):
        p = columns[start : start + step, None] - a[None, :, :2]
        s = (p[..., 0] * (c[:, 1] - a[:, 1]) - p[..., 1] * (c[:, 0] - a[:, 0])) / d
        t = (p[..., 1] * (b[:, 0] - a[:, 0]) - p[..., 0] * (b[:, 1] - a[:, 1])) / d
        row, face = np.nonzero((s >= 0) & (t >= 0) & (s + t <= 1))
        height = a[face, 2] + s[row, face] * (b[face, 2] - a[face, 2]) + t[row, face] * (c[face, 2] - a[face, 2])
        np.add.at(crossed, (row + start, np.searchsorted(z, height)), 1) if len(z) else None
    return (crossed.cumsum(1) % 2 == 1).T.reshape(len(z), len(y), len(x))


def solid(path: Path, reading: Reading) -> tuple[np.ndarray, bool]:
    """As `load`. Raises UsageError for a surface that is not closed, too, unless a shell shall stand for it."""
    triangles, closed = load(path, reading)
    if not closed and reading.convex:
        raise UsageError(
            f"'{path}' is not closed, so it has no inside that could be cut into convex pieces for --labels mujoco: "
            "mend it, or take --labels quasistatic."
        )
    if not closed and reading.open == "refuse":
        raise UsageError(
            f"'{path}' is not closed, so it has no inside: mend it, or let a shell of {1000 * reading.wall:g} mm stand "
            "for it by --open shell (--wall)."
        )
    return triangles, closed


def grid_of(triangles: np.ndarray, closed: bool, reading: Reading) -> tuple[np.ndarray, np.ndarray, float]:
    """Signed distances `[N, N, N]` of a surface `[t, 3, 3]` in the order [z, y, x], the place of the first one `[3]`,
    and their spacing, metres."""
    low, high = triangles.min((0, 1)), triangles.max((0, 1))
    count = reading.samples
    spacing = float((high - low).max() + 2 * reading.wall * (not closed)) / (count - 1 - 2 * MARGIN)
    first = (low + high) / 2 - spacing * (count - 1) / 2
    x, y, z = (first[k] + spacing * np.arange(count) for k in range(3))
    points = np.stack(np.meshgrid(z, y, x, indexing="ij"), -1).reshape(-1, 3)[:, ::-1]
    away = distances(triangles, points).reshape(count, count, count)
    if not closed:
        return away - reading.wall / 2, first, spacing
    return np.where(inside(triangles, x, y, z), -away, away), first, spacing


def convex(triangles: np.ndarray) -> list[np.ndarray]:
    """A closed surface `[t, 3, 3]` -> corners `[m, 3]` of each of the convex pieces that it is cut into."""
    package = coacd()
    package.set_log_level("error")
    corners, faces = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    mesh = package.Mesh(corners, faces.reshape(-1, 3))
    made = package.run_coacd(mesh, threshold=CONCAVE, mcts_iterations=SEARCHES, max_ch_vertex=CORNERS, seed=0)
    return [np.asarray(corners, float) for corners, _ in made if len(corners) > 3]


def padded(parts: list[list[np.ndarray]]) -> np.ndarray:
    """Pieces of each object as `bodies.Grids.pieces` holds them, `[O, P, C, 3]`."""
    most, longest = max(map(len, parts)), max(len(piece) for own in parts for piece in own)
    held = np.zeros((len(parts), most, longest, 3))
    for row, own in zip(held, parts, strict=True):
        for place, piece in zip(row, own, strict=False):
            place[:] = piece[0]
            place[: len(piece)] = piece
    return held


def grids(paths: list[Path], reading: Reading) -> Grids:
    """Objects of files as one batch, float32 on the CPU; all files are read before any distance is computed."""
    surfaces = [solid(path, reading) for path in paths]
    parts, pieces = [], []
    if reading.convex:
        coacd()  # said before minutes of work
    with progress("computing distances", len(paths)) as advance:
        for path, (triangles, closed) in zip(paths, surfaces, strict=True):
            parts.append(grid_of(triangles, closed, reading))
            if reading.convex:
                pieces.append(convex(triangles))
                if not pieces[-1]:
                    raise DistkError(f"'{path}' cannot be cut into convex pieces; take --labels quasistatic.")
            advance(1)
    values, low, spacing = zip(*parts, strict=True)
    return Grids(
        torch.from_numpy(np.stack(values)).float(),
        torch.from_numpy(np.stack(low)).float(),
        torch.tensor(spacing).float(),
        torch.from_numpy(padded(pieces)).float() if pieces else None,
    )
