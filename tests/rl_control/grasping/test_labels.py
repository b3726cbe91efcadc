"""Signed distances against closed forms, pictures against marching, and the quasi-static rule on boxes."""

import math

import numpy as np
import pytest
import torch

from distk.plugins.rl_control.grasping import bodies, engines, generator, gripper, scenes
from distk.plugins.rl_control.grasping.bodies import (
    CATEGORIES,
    NOWHERE,
    Bodies,
    Grids,
    inverse,
    normals,
    revolved,
    rigid,
    rotations,
    round_cones,
)
from distk.plugins.rl_control.grasping.projection import Cube

CPU = torch.device("cpu")


class Box:
    """One cuboid that stands on the table: half sides `[3]`, metres."""

    def __init__(self, *half):
        self.half = torch.tensor(half)

    def __len__(self):
        return 1

    def only(self, index):
        return self

    def distance(self, which, points):
        q = (points - torch.tensor([0.0, 0.0, float(self.half[2])])).abs() - self.half
        return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)

    @property
    def radius(self):
        return torch.tensor([[float(self.half[:2].norm()), 2 * float(self.half[2])]])


def from_above(depth, turn=0.0, shift=0.0, height=0.1):
    """A gripper that comes straight down until its palm is `height - depth` above... the fingers' tips at height."""
    z = torch.tensor([0.0, 0.0, -1.0])
    x = torch.tensor([math.cos(turn), math.sin(turn), 0.0])
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], -1)
    place = torch.tensor([shift * math.cos(turn), shift * math.sin(turn), height + gripper.FINGER[2] - depth])
    return rigid(rotation, place).unsqueeze(0)


ZERO = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize(
    ("width", "expected"), [(0.04, True), (0.080, True), (0.0825, True), (0.086, False), (0.12, False)]
)
def test_a_box_is_held_where_it_fits_between_the_fingers(width, expected):
    box = Box(width / 2, 0.03, 0.05)
    assert bool(gripper.holds(box, ZERO, from_above(0.04))) is expected
    assert bool(gripper.free(box, ZERO, from_above(0.04))) is expected


def test_collisions():
    box = Box(0.02, 0.03, 0.05)
    assert not bool(gripper.free(box, ZERO, from_above(0.04, shift=0.025)))  # a finger in the box
    assert not bool(gripper.free(box, ZERO, from_above(0.055)))  # the palm on the box
    flat = Box(0.02, 0.03, 0.01)
    assert bool(gripper.free(flat, ZERO, from_above(0.0195, height=0.02)))
    assert not bool(gripper.free(flat, ZERO, from_above(0.0215, height=0.02)))  # fingertips in the table


def test_what_stands_between_the_fingers_must_not_stand_in_the_palm():
    """Necks and walls come against the middle of the palm: of 10 mm, of 3 mm along it, of 3 mm across it."""
    for half in ((0.005, 0.005), (0.0015, 0.03), (0.03, 0.0015)):
        box = Box(*half, 0.05)
        assert bool(gripper.free(box, ZERO, from_above(0.049))), half
        assert not bool(gripper.free(box, ZERO, from_above(0.052))), half


def test_little_between_the_fingers_is_not_enough():
    """5 x 9 places, 6 mm apart along the approach: the two lowest rows alone are 10, one row is 5."""
    box = Box(0.02, 0.03, 0.05)
    touched = gripper.contacts(box, ZERO, from_above(0.008))
    assert touched.tolist() == [[10, 10]]
    assert bool(gripper.holds(box, ZERO, from_above(0.008)))
    assert gripper.contacts(box, ZERO, from_above(0.003)).tolist() == [[5, 5]]
    assert not bool(gripper.holds(box, ZERO, from_above(0.003)))
    assert gripper.contacts(box, ZERO, from_above(-0.01)).tolist() == [[0, 0]]


def test_fingers_are_alike(generator):
    """Half a turn about the approach exchanges them, and changes no label."""
    shapes = bodies.bodies(list(CATEGORIES), 3)
    which, poses = every_pose(shapes, generator, 24)  # one in nine holds, near ones alike
    swapped = poses * torch.tensor([-1.0, -1.0, 1.0, 1.0])  # the same frame with x and y turned round
    label = gripper.holds(shapes, which, poses)
    assert torch.equal(label, gripper.holds(shapes, which, swapped))
    assert 0 < int(label.sum()) < len(label)
    assert torch.equal(gripper.contacts(shapes, which, poses), gripper.contacts(shapes, which, swapped).flip(1))
    points = gripper.shell(CPU).double()
    turned = points * torch.tensor([-1.0, -1.0, 1.0])
    assert float(torch.cdist(points, turned).amin(1).max()) < 1e-7


def every_pose(shapes, draw, proposals):
    """Four poses near each of some proposals, of which a shape may have fewer; and the shape of each."""
    each = [generator.near_poses(generator_proposals(shapes, i, draw)[:proposals], 4, draw) for i in range(7)]
    which = torch.cat([torch.full((4 * len(poses),), i) for i, poses in enumerate(each)])
    return which, torch.cat(each).flatten(0, 1)


def generator_proposals(shapes, index, draw):
    return generator.proposals(shapes.only(index), 64, draw, CPU)


def test_one_by_one_is_together(generator):
    """A label does not depend on what else is labelled, nor on the padding."""
    shapes = bodies.bodies(list(CATEGORIES), 1)
    which, poses = every_pose(shapes, generator, 2)
    together = gripper.holds(shapes, which, poses)
    alone = [gripper.holds(shapes.only(int(w)), ZERO, p.unsqueeze(0)) for w, p in zip(which, poses, strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_nothing_to_label():
    assert gripper.holds(Box(0.02, 0.02, 0.02), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4, 4)).shape == (0,)


# Distances


def test_revolved_cylinder_and_sphere(generator):
    """Exact for a cylinder; a sphere of 22 edges lies between the inscribed and the circumscribed one."""
    points = 0.2 * torch.randn(1, 500, 3, generator=generator, dtype=torch.float64)
    cylinder = torch.tensor([[[0.0, -0.1], [0.07, -0.1], [0.07, 0.1], [0.0, 0.1]]], dtype=torch.float64)
    q = torch.stack([points[..., :2].norm(dim=-1) - 0.07, points[..., 2].abs() - 0.1], -1)
    exact = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)
    assert torch.allclose(revolved(cylinder, points), exact, atol=1e-12)
    at = torch.linspace(-math.pi / 2, math.pi / 2, 23, dtype=torch.float64)
    ball = 0.1 * torch.stack([at.cos(), at.sin()], -1).unsqueeze(0)
    ball[0, [0, -1], 0] = 0
    off = revolved(ball, points) - (points.norm(dim=-1) - 0.1)
    assert float(off.min()) > -1e-12
    assert float(off.max()) < 0.1 * (1 - math.cos(math.pi / 44)) + 1e-12


def test_padding_and_the_axis_change_nothing(generator):
    """Repeated last corners are no edges, and inside a solid the axis is no surface."""
    corners = [[0.0, 0.0], [0.05, 0.0], [0.05, 0.2], [0.0, 0.2]]
    bare = torch.tensor([corners])
    padded = torch.tensor([corners + [corners[-1]] * 20])
    points = 0.2 * torch.randn(1, 300, 3, generator=generator)
    assert torch.equal(revolved(bare, points), revolved(padded, points))
    assert float(revolved(bare, torch.tensor([[[0.0, 0.0, 0.1]]]))) == pytest.approx(-0.05)


def test_round_cones_are_hulls_of_two_balls(generator):
    """The least distance from balls whose middle and radius go evenly from one end to the other."""
    draw = torch.rand(4, 8, generator=generator, dtype=torch.float64)
    cones = torch.cat([0.2 * draw[:, :6] - 0.1, 0.01 + 0.01 * draw[:, 6:]], 1)
    points = 0.2 * torch.randn(1, 200, 3, generator=generator, dtype=torch.float64)
    share = torch.linspace(0, 1, 4001, dtype=torch.float64).view(-1, 1, 1)
    middle = cones[:, :3] + share * (cones[:, 3:6] - cones[:, :3])
    radius = (cones[:, 6] + share.squeeze(-1) * (cones[:, 7] - cones[:, 6]))[..., None]
    for i in range(4):
        brute = ((points[0] - middle[:, i, None]).norm(dim=-1) - radius[:, i]).amin(0)
        found = round_cones(cones[None, i : i + 1], points)[0]
        assert torch.allclose(found, brute, atol=2e-6)
    union = round_cones(cones.unsqueeze(0), points)
    each = torch.stack([round_cones(cones[None, i : i + 1], points) for i in range(4)])
    assert torch.equal(union, each.amin(0))


def test_slopes_are_one(generator):
    """Outside every object, away from where two surfaces are equally near."""
    shapes = bodies.bodies(list(CATEGORIES), 5)
    points = torch.rand(7, 400, 3, generator=generator).double() * torch.tensor([0.3, 0.3, 0.3]) - 0.15
    points[..., 2] += 0.15
    exact = Bodies(shapes.polygon.double(), shapes.cones.double())
    which = torch.arange(7)
    points.requires_grad_()
    distance = exact.distance(which, points)
    slope = torch.autograd.grad(distance.sum(), points)[0].norm(dim=-1)
    outside = distance > 0.005
    assert float((slope[outside] - 1).abs().quantile(0.99)) < 1e-6
    normal = normals(exact, which, points.detach())
    assert torch.allclose(normal.norm(dim=-1), torch.ones_like(distance), atol=1e-6)


def test_objects_are_as_their_category_says():
    """Sizes within the ranges; a vessel is hollow, a bottle is not; all fit into the cube of voxels."""
    kinds = list(CATEGORIES) * 5
    shapes = bodies.bodies(kinds, 11)
    for name, (wide, high), i in zip(kinds, shapes.radius.tolist(), range(len(kinds)), strict=True):
        middle = shapes.distance(torch.tensor([i]), torch.tensor([[[0.0, 0.0, 0.6 * high]]]))
        assert (float(middle) > 0) == (name in ("cup", "mug", "bowl", "plate"))
        assert wide < 0.13
        assert high < 0.28
        if name == "bottle":
            assert 0.16 <= high <= 0.26
            assert 0.025 <= wide <= 0.038
        if name == "plate":
            assert 0.08 <= wide <= 0.11
            assert 0.025 <= high <= 0.04
    again = bodies.bodies(kinds[:3], 11)
    assert torch.equal(again.polygon, shapes.polygon[:3])
    assert not torch.equal(bodies.bodies(kinds[:3], 12).polygon, again.polygon)


def test_cones_that_stand_for_none_are_far_away():
    bare = bodies.packed([([(0, 0), (0.05, 0), (0.05, 0.1), (0, 0.1)], [])])
    assert torch.equal(bare.cones[0], torch.tensor(NOWHERE).expand(16, 8))
    points = torch.rand(1, 50, 3)
    assert torch.equal(bare.distance(ZERO, points), bare.only(0).distance(ZERO, points))
    assert bare.only(0).polygon.shape[1] == 4
    assert bare.only(0).cones.shape[1] == 0


def test_grids_are_the_distance_they_were_made_from(generator):
    box = Box(0.03, 0.04, 0.05)
    count, spacing, low = 41, 0.004, torch.tensor([[-0.08, -0.08, -0.03]])
    line = torch.arange(count) * spacing
    z, y, x = torch.meshgrid(line - 0.03, line - 0.08, line - 0.08, indexing="ij")
    values = box.distance(ZERO, torch.stack([x, y, z], -1).view(1, -1, 3)).view(1, count, count, count)
    grids = Grids(values, low, torch.tensor([spacing]))
    points = torch.tensor([-0.08, -0.08, -0.03]) + 0.16 * torch.rand(1, 400, 3, generator=generator)
    exact = box.distance(ZERO, points)
    assert float((grids.distance(ZERO, points) - exact).abs().max()) < spacing
    away = torch.tensor([[[0.5, 0.1, 0.2], [0.0, 0.0, -1.0]]])
    bound, true = grids.distance(ZERO, away), box.distance(ZERO, away)
    assert bool((bound <= true + 1e-6).all())
    assert bool((bound > 0.3).all())
    assert grids.radius.shape == (1, 2)


# Poses


def test_rotations_and_inverses(generator):
    vector = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    assert torch.allclose(rotations(vector), torch.linalg.matrix_exp(cross), atol=1e-12)
    assert torch.equal(rotations(torch.zeros(1, 3)), torch.eye(3).unsqueeze(0))
    pose = rigid(rotations(vector), vector)
    eye = torch.eye(4, dtype=torch.float64).expand(50, 4, 4)
    assert torch.allclose(inverse(pose) @ pose, eye, atol=1e-12)


def test_what_is_near_has_the_noise_that_was_asked_for(generator):
    pose = rigid(rotations(torch.randn(2, 3, generator=generator)), torch.randn(2, 3, generator=generator))
    near = generator_near(pose, 20000, generator)
    shift = near[..., :3, 3] - pose[:, None, :3, 3]
    assert torch.allclose(shift.std((0, 1)), torch.full((3,), 0.012), rtol=0.03)
    angle = torch.acos(
        ((pose[:, None, :3, :3].transpose(2, 3) @ near[..., :3, :3]).diagonal(dim1=2, dim2=3).sum(-1) - 1).clamp(-2, 2)
        / 2
    )
    assert float(angle.square().mean()) == pytest.approx(3 * 0.2**2, rel=0.05)


def generator_near(pose, count, draw):
    return generator.near_poses(pose, count, draw)


# Pictures


def test_tracing_is_marching(generator):
    """Depth of a mug by small steps along each ray, float64, against sphere tracing; and the mask is what is met."""
    shapes = bodies.bodies(["mug"], 2)
    size = 24
    pose = scenes.cameras(torch.tensor([40.0]), torch.tensor([1.0]), torch.tensor([0.4]))
    k = scenes.intrinsics(size, 1, CPU)
    place = torch.eye(4).unsqueeze(0)
    views = scenes.render(shapes, 0, place, pose, k, size, 0, noise=False)
    at = torch.arange(size) + 0.5
    ray = torch.stack(
        [((at - size / 2) / k[0, 0, 0]).expand(size, size), ((at - size / 2) / k[0, 0, 0])[:, None].expand(size, size),
         torch.ones(size, size)], -1,
    )  # fmt: skip
    depths = torch.arange(0.2, 0.6, 5e-4)
    points = (pose[0, :3, :3] @ (ray.view(-1, 1, 3) * depths.view(1, -1, 1)).unsqueeze(-1)).squeeze(-1) + pose[0, :3, 3]
    inside = shapes.distance(ZERO, points.view(1, -1, 3)).view(size * size, -1) < scenes.CLOSE
    first = depths[inside.long().argmax(1)].view(size, size)
    met = inside.any(1).view(size, size)
    both = met & views.mask[0]
    assert int(met.sum()) > 40
    # Rays that pass within a millimetre may count either way.
    assert float((met ^ views.mask[0]).float().mean()) < 0.01
    assert float((views.depth[0] - first)[both].abs().max()) < 3e-3
    table = ~views.mask[0] & (views.depth[0] > 0)
    back = (pose[0, :3, :3] @ (ray * views.depth[0].unsqueeze(-1)).unsqueeze(-1)).squeeze(-1) + pose[0, :3, 3]
    assert float(back[..., 2][table].abs().max()) < 1e-5


def test_occupancy_is_in_the_world_and_thick_enough():
    """A plate of 4 mm in voxels of 19 mm is there, at its place, and nothing is where nothing is."""
    shapes = bodies.bodies(["plate", "bottle"], 0)
    place = scenes.placed(3, torch.Generator().manual_seed(1), CPU)
    cube = Cube()
    grid = scenes.occupancy(shapes, 1, place, 32, cube)
    assert grid.shape == (3, 32, 32, 32)
    steps = ((torch.arange(32) + 0.5) / 32 - 0.5) * cube.side
    for scene in range(3):
        z, y, x = (grid[scene] > 0).nonzero().float().T
        centre = torch.stack([steps[x.long()].mean(), steps[y.long()].mean()])
        assert torch.allclose(centre, place[scene, :2, 3], atol=0.004)
        high = steps[int(z.max())] + cube.centre[2]
        assert abs(float(high) - float(shapes.radius[1, 1])) < cube.side / 32
    assert int(scenes.occupancy(shapes, 0, place, 16, cube).sum()) > 3 * 30


def test_cameras_look_at_the_middle():
    pose = scenes.cameras(torch.tensor([15.0, 90.0]), torch.tensor([0.3, 2.0]), torch.tensor([0.6, 0.5]))
    rotation = pose[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(2, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(2), atol=1e-6)
    target = torch.tensor([*scenes.LOOK_AT, 1.0])
    seen = torch.linalg.inv(pose) @ target
    assert torch.allclose(seen[:, :3], torch.tensor([[0, 0, 0.6], [0, 0, 0.5]]), atol=1e-6)
    assert float(pose[0, 2, 3]) == pytest.approx(0.08 + 0.6 * math.sin(math.radians(15)), abs=1e-6)
    assert bool((pose[0, 2, 1] < 0).all())  # down in the picture is down in the world


# Physics


def test_both_engines_mostly_agree():
    """On 210 grasps near 42 demonstrations of 21 objects; `distk grasping check-labels` tries more: 92.6 % of 672.

    Grasps near one demonstration stand or fall together, so that the error is that of a mean over demonstrations.
    Labels that have nothing to do with each other agree in half of the grasps.
    """
    pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'distk[physics]'")
    physics = engines.engine("mujoco")
    agree = []
    for index in range(21):
        name = CATEGORIES[index % 7]
        draw = torch.Generator().manual_seed(index)
        shapes = bodies.bodies([name], index)
        held = generator.demonstrations(shapes, 0, 2, draw, CPU, gripper.holds, name)
        poses = generator.near_poses(held, 5, draw).flatten(0, 1)
        which = torch.zeros(len(poses), dtype=torch.long)
        agree.append((gripper.holds(shapes, which, poses) == physics(shapes, which, poses)).double().view(2, 5).mean(1))
    each = torch.cat(agree)
    error = float(each.std() / len(each) ** 0.5)
    assert float(each.mean()) == pytest.approx(0.926, abs=4 * error)
    assert float(each.mean()) - 4 * error > 0.5


def test_pieces_fill_what_they_stand_for():
    """Volumes of the convex pieces against the profile's own: of a cup's wall and floor, and of a bottle."""
    spatial = pytest.importorskip("scipy.spatial")
    physics = pytest.importorskip("distk.plugins.rl_control.grasping.physics")
    for name in ("cup", "bowl", "plate", "bottle", "sugarbowl"):
        one = bodies.bodies([name], 4).only(0)
        ring = one.polygon[0].double().numpy()
        total = sum(spatial.ConvexHull(piece).volume for piece in physics.pieces(ring))
        r, z = ring.T
        after = np.roll(ring, -1, 0)
        # Pappus: 2 pi times the integral of r over the profile's area, by Green's theorem.
        exact = abs(np.sum((r**2 + r * after[:, 0] + after[:, 0] ** 2) * (after[:, 1] - z)) * math.pi / 3)
        assert total == pytest.approx(exact, rel=0.12), name


def test_both_fingers_must_meet_it(monkeypatch):
    """Lines that meet an object do so from both ends, so that the rule is tried on counts that no object gives."""
    box = Box(0.02, 0.03, 0.05)
    for counts, expected in (([45, 8], True), ([45, 7], False), ([7, 45], False)):
        monkeypatch.setattr(gripper, "contacts", lambda s, w, p, c=counts: torch.tensor([c]))
        assert bool(gripper.holds(box, ZERO, from_above(0.04))) is expected
