"""Exact, differentiable projections of an occupancy grid: what a camera sees of it, and what a gripper has between its
fingers. Nothing is learnt here; gradients flow to the grid and to the pose.

A grid `[n, V, V, V]` is stored [z, y, x] and fills a cube of the world. Every ray takes D samples in equal steps of
depth and reads them by ray consistency (Tulsiani et al. 2017): the ray stops at a sample with the probability that
it is occupied and that all samples before it are free. `largest` is the flattening of Yan et al. 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FULL = 1 - 1e-6
"""Occupancy above which a voxel counts as this full, so that its logarithm stays finite."""
BOX_WIDTH, BOX_DEPTH = 0.10, 0.08
"""The gripper's working volume in metres: x and y of the box, and how far it reaches from the palm."""
FOV = 60.0
"""Degrees, of the virtual camera at the palm."""


@dataclass(frozen=True)
class Cube:
    """Where a grid lies in the world: its centre and side in metres."""

    centre: tuple[float, float, float] = (0.0, 0.0, 0.13)
    side: float = 0.30

    def normal(self, points: Tensor) -> Tensor:
        """World points `[..., 3]` -> the same in [-1, 1]^3 where they lie in the cube."""
        # Three numbers one by one: a captured step cannot copy a list from the host.
        moved = [2 * (points[..., k] - self.centre[k]) / self.side for k in range(3)]
        return torch.stack(moved, -1)


def sampled(grid: Tensor, points: Tensor, cube: Cube) -> Tensor:
    """Trilinear values of grids `[n, V, V, V]` at world points `[n, ..., 3]`, 0 outside; float `[n, ...]`."""
    where = cube.normal(points)
    flat = where.reshape(len(grid), 1, 1, -1, 3)
    values = F.grid_sample(grid.unsqueeze(1), flat, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values.view(points.shape[:-1])


def stops(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Samples `[..., D, h, w]` along rays -> probability of stopping at each, same shape, and of passing `[..., h, w]`.

    They sum to 1 over the samples and the escape.
    """
    occupied = occupied.clamp(0, FULL)
    free = torch.log1p(-occupied).cumsum(-3)
    before = torch.cat([torch.zeros_like(free[..., :1, :, :]), free[..., :-1, :, :]], -3)
    return occupied * before.exp(), free[..., -1, :, :].exp()


def seen(occupied: Tensor, depths: Tensor, far: float) -> tuple[Tensor, Tensor]:
    """Samples `[..., D, h, w]` at depths `[D]` -> expected depth, metres, and silhouette in [0, 1], both `[..., h, w]`.

    A ray that passes counts as stopping at `far`.
    """
    stop, escape = stops(occupied)
    return (stop * depths[:, None, None]).sum(-3) + escape * far, 1 - escape


def largest(occupied: Tensor) -> Tensor:
    """Silhouette as the largest value on each ray: `[..., D, h, w]` -> `[..., h, w]` (Yan et al. 2016)."""
    return occupied.amax(-3)


def middles(near: float, far: float, count: int, like: Tensor) -> Tensor:
    """Depths of `count` samples: middles of equal intervals between near and far, metres, `[count]`."""
    steps = torch.arange(count, device=like.device, dtype=like.dtype)
    return near + (steps + 0.5) * (far - near) / count


def camera_points(k: Tensor, pose: Tensor, size: tuple[int, int], depths: Tensor) -> Tensor:
    """Points on the rays through the middles of pixels, in the world: `[n, D, h, w, 3]`.

    k: intrinsics in pixels of this size `[n, 3, 3]`. pose: camera to world `[n, 4, 4]`, OpenCV's axes (x right, y down,
    z forward). size: (height, width). depths: along the camera's axis, not along the ray, `[D]`.
    """
    height, width = size
    rows = torch.arange(height, device=k.device, dtype=k.dtype) + 0.5
    columns = torch.arange(width, device=k.device, dtype=k.dtype) + 0.5
    x = (columns - k[:, 0, 2, None]) / k[:, 0, 0, None]
    y = (rows - k[:, 1, 2, None]) / k[:, 1, 1, None]
    shape = (len(k), height, width)
    ray = torch.stack(
        [x[:, None].expand(shape), y[:, :, None].expand(shape), torch.ones_like(x[:, None]).expand(shape)], -1
    )
    return _moved(pose, ray[:, None] * depths[:, None, None, None])


def gripper_points(
    pose: Tensor, size: int, depths: Tensor, camera: Literal["orthographic", "perspective"] = "orthographic"
) -> Tensor:
    """Points between the fingers, in the world: `[n, g, D, size, size, 3]`, columns along x, rows along y.

    pose: gripper to world `[n, g, 4, 4]`, x closes, z approaches, the origin in the middle of the palm's face.
    depths: along the approach, `[D]`, metres.
    """
    at = (torch.arange(size, device=pose.device, dtype=pose.dtype) + 0.5) / size - 0.5
    across = at * BOX_WIDTH if camera == "orthographic" else at * 2 * math.tan(math.radians(FOV / 2))
    spread = torch.ones_like(depths) if camera == "orthographic" else depths
    shape = (len(depths), size, size)
    x = (across[None, None, :] * spread[:, None, None]).expand(shape)
    y = (across[None, :, None] * spread[:, None, None]).expand(shape)
    return _moved(pose, torch.stack([x, y, depths[:, None, None].expand(shape)], -1))


def _moved(pose: Tensor, points: Tensor) -> Tensor:
    """Points `[(b or 1), ..., 3]` or `[..., 3]` of frames `[*batch, 4, 4]` -> the same in the world `[*batch, ...,
    3]`."""
    batch = pose.dim() - 2
    dims = 4  # D, height, width, coordinate
    rotation = pose[..., :3, :3].reshape(*pose.shape[:batch], *([1] * (dims - 1)), 3, 3)
    shift = pose[..., :3, 3].reshape(*pose.shape[:batch], *([1] * (dims - 1)), 3)
    # Three products and sums, since a matrix product would run in reduced precision under autocast and TF32.
    turned = (rotation * points.unsqueeze(-2)).sum(-1)
    return turned + shift


def global_view(
    grid: Tensor,
    k: Tensor,
    pose: Tensor,
    size: tuple[int, int],
    cube: Cube,
    near: float,
    far: float,
    samples: int,
    flatten: Literal["ray", "max"] = "ray",
) -> tuple[Tensor, Tensor]:
    """Depth in metres and silhouette of grids `[n, V, V, V]` as cameras see them, each float `[n, height, width]`.

    flatten: how the silhouette is read, by ray consistency or as the largest value on the ray.
    """
    depths = middles(near, far, samples, grid)
    occupied = sampled(grid, camera_points(k, pose, size, depths), cube)
    depth, mask = seen(occupied, depths, far)
    return depth, largest(occupied) if flatten == "max" else mask


def local_view(
    grid: Tensor,
    pose: Tensor,
    size: int,
    cube: Cube,
    samples: int,
    camera: Literal["orthographic", "perspective"] = "orthographic",
) -> tuple[Tensor, Tensor]:
    """Depth (metres from the palm) and silhouette between the fingers of grippers `[n, g, 4, 4]`, `[n, g, size, size]`.

    The g grippers of a grid read one copy of it.
    """
    depths = middles(0.0, BOX_DEPTH, samples, grid)
    occupied = sampled(grid, gripper_points(pose, size, depths, camera), cube)
    return seen(occupied, depths, BOX_DEPTH)


def halved(k: Tensor) -> Tensor:
    """Intrinsics `[n, 3, 3]` of a picture -> of the same picture with half as many rows and columns."""
    first = k[:, :2] / 2
    return torch.cat([first, k[:, 2:]], 1)


def view_frame(pose: Tensor, centre: tuple[float, float, float]) -> Tensor:
    """World to view frame `[n, 4, 4]` of cameras `[n, 4, 4]`: turned about the vertical through `centre` so that y
    points away from the camera and x to its right.

    A single picture does not show from which side of the table it was taken, so whatever is to be told from it (the
    grid, the gripper's pose) is told in this frame.
    """
    # Forward and up of the picture lie in one vertical plane; their sum is horizontal enough at every elevation.
    ahead = pose[:, :2, 2] - pose[:, :2, 1]
    ahead = ahead / ahead.norm(dim=1, keepdim=True).clamp_min(1e-6)
    c, s = ahead[:, 1], ahead[:, 0]
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    x0, y0 = centre[0], centre[1]
    rows = [
        torch.stack([c, -s, zero, x0 - c * x0 + s * y0], -1),
        torch.stack([s, c, zero, y0 - s * x0 - c * y0], -1),
        torch.stack([zero, zero, one, zero], -1),
        torch.stack([zero, zero, zero, one], -1),
    ]
    return torch.stack(rows, 1)


def composed(a: Tensor, b: Tensor) -> Tensor:
    """Products of poses `[..., 4, 4]` that broadcast, in full precision whatever the settings of matrix products."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)
