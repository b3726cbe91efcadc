"""Meshes as grids of distances: closed forms, real files, and what is refused."""

import sys

import numpy as np
import pytest
import torch

from distk import UsageError
from distk.errors import DistkError
from distk.plugins.rl_control.grasping import bodies, engines, meshes
from distk.plugins.rl_control.grasping.meshes import Reading, distances, found, grid_of, grids, inside, load, solid

trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed: pip install 'distk[mesh]'")
COARSE = Reading(samples=24)


@pytest.fixture
def box(tmp_path):
    trimesh.creation.box((0.06, 0.08, 0.1)).export(tmp_path / "box.stl")
    return tmp_path / "box.stl"


def test_a_box_is_exact(box):
    values, low, spacing = grid_of(*solid(box, COARSE), COARSE)
    x, y, z = (low[k] + spacing * np.arange(24) for k in range(3))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    q = np.stack([abs(x) - 0.03, abs(y) - 0.04, abs(z - 0.05) - 0.05], -1)
    exact = np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0)
    assert np.abs(values - exact).max() < 1e-7  # STL holds float32


def test_inside_needs_no_orientation(generator):
    """Parity of crossings: the same for faces turned round, and right for a body with a hollow."""
    outer = trimesh.creation.icosphere(subdivisions=3, radius=0.1)
    hollow = trimesh.creation.icosphere(subdivisions=3, radius=0.05)
    triangles = np.concatenate([outer.triangles, hollow.triangles])
    line = np.linspace(-0.12, 0.12, 17)
    z, y, x = np.meshgrid(line, line, line, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    sure = (np.abs(r - 0.1) > 0.002) & (np.abs(r - 0.05) > 0.002)
    expected = (r < 0.1) & (r > 0.05)
    for order in (triangles, triangles[:, ::-1]):
        assert np.array_equal(inside(order, line, line, line)[sure], expected[sure])
    away = distances(outer.triangles, np.stack([x, y, z], -1).reshape(-1, 3)).reshape(r.shape)
    assert np.abs(away - np.abs(r - 0.1)).max() < 0.0015  # a polyhedron for a ball


def test_upright_and_in_the_middle(box, tmp_path):
    triangles, closed = load(box, Reading(up="y", scale=0.5))
    assert closed
    assert np.allclose(triangles.min((0, 1)), [-0.025, -0.015, 0], atol=1e-7)
    assert np.allclose(triangles.max((0, 1)), [0.025, 0.015, 0.04], atol=1e-7)


@pytest.mark.parametrize(
    ("scale", "said"), [(1000.0, "it looks like millimetres: --scale 0.001"), (5.0, "make it smaller by --scale"),
                        (0.001, "give the metres of its unit by --scale")]
)  # fmt: skip
def test_units(box, scale, said):
    with pytest.raises(UsageError, match=said):
        load(box, Reading(scale=scale))


def test_surfaces_that_are_not_closed(tmp_path):
    whole = trimesh.creation.cylinder(0.04, 0.1)
    up = whole.face_normals[:, 2] < 0.9
    trimesh.Trimesh(whole.vertices, whole.faces[up]).export(tmp_path / "open.obj")
    with pytest.raises(UsageError, match="is not closed"):
        solid(tmp_path / "open.obj", COARSE)
    shell = Reading(samples=24, open="shell", wall=0.006)
    values, low, spacing = grid_of(*solid(tmp_path / "open.obj", shell), shell)
    made = bodies.Grids(torch.from_numpy(values)[None].float(), torch.from_numpy(low)[None].float(),
                        torch.tensor([spacing]).float())  # fmt: skip
    points = torch.tensor([[[0.0, 0.0, 0.05], [0.0, 0.0, 0.0], [0.039, 0.0, 0.05]]])
    middle, floor, wall = made.distance(torch.zeros(1, dtype=torch.long), points)[0].tolist()
    assert middle > 0.03
    assert floor < 0
    assert wall < 0.002


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.obj", "v 0 0 0\nv 1 0 0\n", "no faces"),
        ("a.obj", "", "mesh|faces"),
        ("a.stl", "solid nothing\nendsolid nothing\n", "mesh|faces"),
        ("a.stl", "\x00" * 40, "mesh|faces"),
        ("a.ply", "ply\nformat ascii 1.0\nelement vertex many\n", "mesh|faces"),
    ],
)
def test_files_without_a_surface(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DistkError, match=said) as refused:
        load(tmp_path / name, Reading())
    assert "\n" not in str(refused.value)


def test_one_grid_for_all_places_and_no_places(generator):
    """A single object's distances are those that it has among others; of no places there are none."""
    values = torch.rand(3, 7, 7, 7, generator=generator)
    both = bodies.Grids(values, torch.rand(3, 3, generator=generator), torch.rand(3, generator=generator) + 0.1)
    points = 2 * torch.rand(5, 11, 3, generator=generator) - 0.5
    for index in range(3):
        alone = both.only(index).distance(torch.zeros(5, dtype=torch.long), points)
        assert torch.allclose(both.distance(torch.full((5,), index), points), alone, atol=1e-6)
        assert both.only(index).distance(torch.zeros(0, dtype=torch.long), points[:0]).shape == (0, 11)
        assert both.distance(torch.zeros(0, dtype=torch.long), points[:0]).shape == (0, 11)
    assert both.distance(torch.zeros(5, dtype=torch.long), points[:, :0]).shape == (5, 0)


def test_all_files_are_read_before_the_first_is_computed(tmp_path, box, monkeypatch):
    """The last file's fault is said at once, not after minutes of the others'."""
    (tmp_path / "z.obj").write_text("v 0 0 0\n")

    def never(*_):
        raise AssertionError("computed")

    monkeypatch.setattr(meshes, "grid_of", never)
    with pytest.raises(DistkError, match=r"z\.obj"):
        grids([box, tmp_path / "z.obj"], COARSE)


def test_folders(tmp_path, box):
    with pytest.raises(UsageError, match="holds 1 file "):
        found(tmp_path)
    (tmp_path / "cup").mkdir()
    box.rename(tmp_path / "cup" / "a.STL")
    (tmp_path / "cup" / "b.obj").write_text("")
    (tmp_path / "readme.txt").write_text("")
    assert [(p.name, kind) for p, kind in found(tmp_path)] == [("a.STL", "cup"), ("b.obj", "cup")]


def test_without_the_extra(box, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(UsageError, match=r"pip install 'distk\[mesh\]'"):
        load(box, Reading())


@pytest.mark.parametrize(
    ("name", "high", "hollow"), [("bowl.stl", 0.070, True), ("ycb_006_mustard_bottle.obj", 0.191, False)]
)
def test_real_objects(real, name, high, hollow):
    """A bowl has a hollow, a bottle has none; both stand on the table."""
    path = real(f"meshes/{name}")
    made = grids([path], Reading(samples=32))
    which = torch.zeros(1, dtype=torch.long)
    middle = made.distance(which, torch.tensor([[[0.0, 0.0, 0.75 * high]]]))
    assert (float(middle) > 0.01) is hollow
    below = made.distance(which, torch.tensor([[[0.0, 0.0, -0.004]]]))
    assert 0 < float(below) < 0.02
    assert meshes.load(path, Reading())[0][..., 2].max() == pytest.approx(high, abs=0.002)


def test_a_real_surface_that_is_not_closed(real):
    path = real("meshes/teapot.obj")
    with pytest.raises(UsageError, match="smaller by --scale"):
        load(path, Reading())
    _, closed = load(path, Reading(scale=0.03, up="y"))
    if closed:
        pytest.skip("this teapot is closed")
    with pytest.raises(UsageError, match="is not closed"):
        solid(path, Reading(scale=0.03, up="y"))


# Convex pieces, and physics on meshes


def test_convex_pieces_fill_what_they_stand_for(corner):
    spatial = pytest.importorskip("scipy.spatial")
    triangles, closed = load(corner / "corner.obj", COARSE)
    assert closed
    parts = meshes.convex(triangles)
    assert len(parts) > 1, "an L is not convex"
    assert sum(spatial.ConvexHull(part).volume for part in parts) == pytest.approx(0.05 * 0.0020, rel=0.02)
    low, high = triangles.min((0, 1)), triangles.max((0, 1))
    assert all((part >= low - 1e-4).all() and (part <= high + 1e-4).all() for part in parts)


def test_physics_holds_a_mesh_as_it_holds_the_box_that_it_is(corner):
    pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'distk[physics]'")
    shapes = grids([corner / "box.obj", corner / "corner.obj"], Reading(samples=24, convex=True))
    assert shapes.only(1).pieces.shape[0] == 1
    down = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    high, beside, into = down.clone(), down.clone(), down.clone()
    high[2, 3], beside[2, 3], into[2, 3] = 0.13, 0.13, 0.13
    beside[0, 3], into[0, 3] = 0.2, 0.025
    holds = engines.engine("mujoco")(shapes, torch.zeros(3, dtype=torch.long), torch.stack([high, beside, into]))
    assert holds.tolist() == [True, False, False]


def test_open_meshes_have_no_convex_pieces(tmp_path):
    whole = trimesh.creation.cylinder(0.04, 0.1)
    trimesh.Trimesh(whole.vertices, whole.faces[whole.face_normals[:, 2] < 0.9]).export(tmp_path / "open.obj")
    with pytest.raises(UsageError, match="cut into convex pieces for --labels mujoco"):
        solid(tmp_path / "open.obj", Reading(convex=True, open="shell"))


def test_without_coacd_the_command_that_installs_it_is_said(box, monkeypatch):
    monkeypatch.setitem(sys.modules, "coacd", None)
    with pytest.raises(UsageError, match=r"pip install 'distk\[physics\]'"):
        grids([box, box], Reading(samples=24, convex=True))
