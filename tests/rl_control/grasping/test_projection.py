"""Projections against ray-by-ray loops, closed forms and turned worlds."""

import math

import numpy as np
import pytest
import torch

from distk.plugins.rl_control.grasping import projection
from distk.plugins.rl_control.grasping.bodies import rigid, rotations
from distk.plugins.rl_control.grasping.projection import (
    BOX_DEPTH,
    BOX_WIDTH,
    Cube,
    camera_points,
    composed,
    global_view,
    halved,
    largest,
    local_view,
    sampled,
    stops,
    view_frame,
)
from distk.plugins.rl_control.grasping.scenes import cameras, intrinsics

CUBE = Cube((0.02, -0.01, 0.13), 0.30)


def trilinear(grid, point, cube):
    """One value of one grid [z, y, x] at one world point, with zeros outside, written out in numpy."""
    n = len(grid)
    place = [(p - c) / cube.side * n + n / 2 - 0.5 for p, c in zip(point, cube.centre, strict=True)]
    low = [math.floor(v) for v in place]
    total = 0.0
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                x, y, z = low[0] + dx, low[1] + dy, low[2] + dz
                weight = math.prod(1 - abs(p - v) for p, v in zip(place, (x, y, z), strict=True))
                if all(0 <= v < n for v in (x, y, z)):
                    total += weight * grid[z, y, x]
    return total


def ray_by_ray(values, depths, far):
    """Depth and silhouette of one ray, as the chain of probabilities that it is."""
    free, depth = 1.0, 0.0
    for value, d in zip(values, depths, strict=True):
        value = min(max(value, 0.0), projection.FULL)
        depth += free * value * d
        free *= 1 - value
    return depth + free * far, 1 - free


@pytest.fixture
def grid(generator):
    return torch.rand(2, 8, 8, 8, generator=generator, dtype=torch.float64) ** 3


@pytest.fixture
def camera(generator):
    drawn = torch.rand(2, 3, generator=generator)
    pose = cameras(90 * drawn[:, 0], 6 * drawn[:, 1], 0.5 + 0.1 * drawn[:, 2])
    return pose.double()


def test_global_view_is_a_loop_over_rays(grid, camera):
    k, size, samples = intrinsics(6, 2, torch.device("cpu")).double(), (6, 5), 7
    k[:, 0, 2] -= 0.5
    depth, mask = global_view(grid, k, camera, size, CUBE, 0.3, 0.9, samples)
    _, hard = global_view(grid, k, camera, size, CUBE, 0.3, 0.9, samples, "max")
    depths = [0.3 + (i + 0.5) * 0.6 / samples for i in range(samples)]
    for n in range(2):
        for i in range(size[0]):
            for j in range(size[1]):
                ray = np.array([(j + 0.5 - k[n, 0, 2]) / k[n, 0, 0], (i + 0.5 - k[n, 1, 2]) / k[n, 1, 1], 1.0])
                points = [camera[n].numpy() @ np.append(d * ray, 1.0) for d in depths]
                values = [trilinear(grid[n].numpy(), p[:3], CUBE) for p in points]
                expected = ray_by_ray(values, depths, 0.9)
                assert abs(float(depth[n, i, j]) - expected[0]) < 1e-10
                assert abs(float(mask[n, i, j]) - expected[1]) < 1e-10
                assert abs(float(hard[n, i, j]) - max(values)) < 1e-10


@pytest.mark.parametrize("kind", ["orthographic", "perspective"])
def test_local_view_is_a_loop_over_rays(grid, generator, kind):
    pose = rigid(
        rotations(torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)),
        torch.tensor([0.0, 0, 0.13]) + 0.05 * torch.randn(2, 3, 3, generator=generator, dtype=torch.float64),
    )
    size, samples = 4, 5
    depth, mask = local_view(grid, pose, size, CUBE, samples, kind)
    assert depth.shape == (2, 3, size, size)
    depths = [(i + 0.5) * BOX_DEPTH / samples for i in range(samples)]
    for n in range(2):
        for g in range(3):
            for i in range(size):
                for j in range(size):
                    x, y = (((v + 0.5) / size - 0.5) for v in (j, i))
                    values = []
                    for d in depths:
                        wide = BOX_WIDTH if kind == "orthographic" else d * 2 * math.tan(math.pi / 6)
                        point = pose[n, g].numpy() @ np.array([x * wide, y * wide, d, 1.0])
                        values.append(trilinear(grid[n].numpy(), point[:3], CUBE))
                    expected = ray_by_ray(values, depths, BOX_DEPTH)
                    assert abs(float(depth[n, g, i, j]) - expected[0]) < 1e-10
                    assert abs(float(mask[n, g, i, j]) - expected[1]) < 1e-10


def test_gradients(grid, camera, generator):
    k = intrinsics(4, 2, torch.device("cpu")).double()
    small = grid[:, ::2, ::2, ::2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: global_view(v, k, camera, (4, 4), CUBE, 0.3, 0.9, 5), small)
    turn = (0.3 * torch.randn(2, 1, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    shift = (torch.tensor([0.0, 0, 0.1]) + 0.01 * torch.rand(2, 1, 3, generator=generator)).double().requires_grad_()

    def between(v, w, t):
        return local_view(v, rigid(rotations(w), t), 3, CUBE, 4)

    # Interpolated values have kinks at the middles of voxels: so small a step hardly ever goes across one.
    assert torch.autograd.gradcheck(between, (small, turn, shift), eps=1e-8)


def test_probabilities_sum_to_one(generator):
    occupied = torch.rand(3, 9, 4, 5, generator=generator, dtype=torch.float64)
    occupied[0, 2] = 1.0
    occupied[1] = 0.0
    stop, escape = stops(occupied)
    assert torch.allclose(stop.sum(1) + escape, torch.ones_like(escape), atol=1e-12)
    assert bool((stop >= 0).all())
    assert torch.equal(escape[1], torch.ones_like(escape[1]))
    assert float(escape[0].max()) < 1.1e-6
    assert torch.equal(largest(occupied), occupied.max(1).values)


def test_a_full_cube_as_the_pinhole_sees_it():
    """Depth of the face within a bin and half a voxel, the silhouette's area within 3 %."""
    count, half, away, size, samples = 32, 0.075, 0.5, 128, 64
    cube = Cube((0.0, 0.0, 0.0), 0.30)
    steps = ((torch.arange(count) + 0.5) / count - 0.5) * cube.side
    line = (steps.abs() < half).float()
    grid = (line[:, None, None] * line[None, :, None] * line[None, None, :]).unsqueeze(0)
    pose = torch.eye(4).unsqueeze(0)
    pose[0, 2, 3] = -away
    k = intrinsics(size, 1, torch.device("cpu"))
    depth, mask = global_view(grid, k, pose, (size, size), cube, 0.24, 0.8, samples)
    assert abs(float(depth[0, size // 2, size // 2]) - (away - half)) <= (0.8 - 0.24) / samples + cube.side / count / 2
    expected = (2 * half * float(k[0, 0, 0]) / (away - half)) ** 2
    assert abs(float((mask > 0.5).sum()) / expected - 1) < 0.03


def test_turning_the_world_changes_nothing(generator):
    """Grid, camera and gripper turned together by a quarter about the vertical through the cube."""
    grid = torch.rand(1, 8, 8, 8, generator=generator)
    pose = cameras(torch.tensor([35.0]), torch.tensor([0.7]), torch.tensor([0.6]))
    gripper = rigid(
        rotations(torch.randn(1, 2, 3, generator=generator)), 0.1 * torch.rand(1, 2, 3, generator=generator)
    )
    k = intrinsics(8, 1, torch.device("cpu"))
    cube = Cube((0.0, 0.0, 0.13), 0.30)
    quarter = rigid(rotations(torch.tensor([[0.0, 0, math.pi / 2]])), torch.zeros(1, 3))
    # x -> y, y -> -x: the voxel [z, y, x] goes to [z, x, -y].
    turned = grid.transpose(2, 3).flip(3)
    before = global_view(grid, k, pose, (8, 8), cube, 0.24, 0.92, 16)
    after = global_view(turned, k, composed(quarter, pose), (8, 8), cube, 0.24, 0.92, 16)
    inside = local_view(grid, gripper, 6, cube, 8)
    moved = local_view(turned, composed(quarter.unsqueeze(1), gripper), 6, cube, 8)
    for one, other in (*zip(before, after, strict=True), *zip(inside, moved, strict=True)):
        assert torch.allclose(one, other, atol=1e-5)
        assert float(one.std()) > 1e-3


def test_half_the_rows_are_the_same_camera(generator):
    """A pixel of the small picture looks where the corner between four of the large one looks."""
    k = intrinsics(8, 1, torch.device("cpu"))
    pose = torch.eye(4).unsqueeze(0)
    depths = torch.ones(1)
    large = camera_points(k, pose, (8, 8), depths)[0, 0]
    small = camera_points(halved(k), pose, (4, 4), depths)[0, 0]
    corners = (large[::2, ::2] + large[1::2, ::2] + large[::2, 1::2] + large[1::2, 1::2]) / 4
    assert torch.allclose(small, corners, atol=1e-6)


def test_the_view_frame_looks_ahead_at_every_elevation(generator):
    """Rigid, about the cube's vertical; the camera comes to lie at -y, wherever it stood."""
    centre = (0.03, -0.02, 0.1)
    elevation = torch.tensor([0.0, 20.0, 60.0, 89.9, 90.0])
    azimuth = 6 * torch.rand(5, generator=generator)
    pose = cameras(elevation, azimuth, torch.full((5,), 0.6))
    turn = view_frame(pose, centre)
    eye = torch.eye(3).expand(5, 3, 3)
    assert torch.allclose(turn[:, :3, :3] @ turn[:, :3, :3].transpose(1, 2), eye, atol=1e-6)
    assert torch.allclose(torch.linalg.det(turn[:, :3, :3]), torch.ones(5), atol=1e-6)
    point = torch.tensor([*centre, 1.0])
    assert torch.allclose(turn @ point, point.expand(5, 4), atol=1e-6)
    right = (turn @ pose)[:, :3, 0]
    assert torch.allclose(right, torch.tensor([1.0, 0, 0]).expand(5, 3), atol=1e-5)
    ahead = (turn @ pose)[:3, :3, 2]
    assert bool((ahead[:, 1] > 0.4).all())


def test_samples_outside_are_nothing():
    grid = torch.ones(1, 4, 4, 4)
    points = torch.tensor([[[0.02, -0.01, 0.13], [1.0, 0, 0], [0, 0, -5.0]]])
    assert sampled(grid, points, CUBE).tolist() == [[1.0, 0.0, 0.0]]
