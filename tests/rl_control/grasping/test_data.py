"""The made grasps, their format in files, what is refused in it, and the split."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from distk import UsageError
from distk.data import open_dataset
from distk.errors import DistkError
from distk.fitting import differences
from distk.plugins.rl_control.grasping import bodies, generator, gripper, shards
from distk.plugins.rl_control.grasping.data import Config, made
from distk.plugins.rl_control.grasping.projection import composed
from distk.testing import check_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recorded(tiny):
    return made(Config(**tiny), CPU)


@pytest.fixture
def folder(recorded, tmp_path):
    """The tiny grasps as files, three scenes a shard."""
    shards.write(tmp_path / "grasps", recorded, per_shard=3)
    return tmp_path / "grasps"


def test_files_are_what_was_made(recorded, folder, tiny, grasps):
    """Bit for bit, and the data set that reads them has the same batches."""
    assert sorted(p.name for p in folder.iterdir()) == [
        "meta.json", "shapes.npz", "shard-00000.npz", "shard-00001.npz", "shard-00002.npz",
    ]  # fmt: skip
    back = shards.read(folder / "meta.json")
    for mine, theirs in ((recorded.scenes, back.scenes), (recorded.grasps, back.grasps)):
        assert set(mine) == set(theirs)
        for name in mine:
            assert torch.equal(mine[name].double(), theirs[name].double()), name
    assert torch.equal(back.shapes.polygon, recorded.shapes.polygon)
    assert torch.equal(back.shapes.cones, recorded.shapes.cones)
    assert json.loads((folder / "meta.json").read_text()) == recorded.meta
    read = open_dataset("grasps", {"per_view": tiny["per_view"]}, folder=folder)
    rows = torch.arange(len(read))
    one, other = read.batch(rows), grasps.batch(rows)
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert {name: v.tolist() for name, v in read.parts.items()} == {n: v.tolist() for n, v in grasps.parts.items()}


def test_conformance_of_files(folder):
    check_dataset("grasps", data_dir=folder, per_view=4)


def test_shards_are_no_pickles(folder):
    for path in folder.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            assert file.files
            for name in file.files:
                assert file[name].dtype.kind in "biuf"


def test_what_is_made(grasps, recorded):
    """As many successes as failures of each demonstration; labels are those of the rule; views are of their split."""
    outcome, demo = grasps.outcome, grasps.demo
    for number in demo.unique():
        own = outcome[demo == number]
        assert float(own.mean()) == 0.5
        assert len(own) <= 8
        assert len(grasps.grasp_scene[demo == number].unique()) == 1
    assert torch.equal(grasps.label(grasps.grasp_scene, grasps.pose), outcome > 0.5)
    train = grasps.elevation[grasps.rows("train")].unique().tolist()
    assert train == [15.0, 45.0]
    assert grasps.elevation[grasps.rows("test")].unique().tolist() == [15.0, 30.0, 45.0, 60.0]
    held = {name: set(grasps.object_of[grasps.scene[rows]].tolist()) for name, rows in grasps.parts.items()}
    assert not held["train"] & held["test"]
    assert held["val"] == held["train"]
    scenes = {name: set(grasps.scene[rows].tolist()) for name, rows in grasps.parts.items()}
    assert not scenes["train"] & scenes["val"]
    for kind in range(2):
        assert {"train", "test"} == {
            o["split"] for o in recorded.meta["objects"] if o["category"] == grasps.spec.classes[kind]
        }


def test_masks_and_depths_are_of_the_object(grasps):
    """What the mask covers lies on the object's surface, what it does not lies on the table."""
    points = grasps._points().float()
    for row in range(0, len(grasps), 5):
        scene = int(grasps.scene[row])
        own = bodies.inverse(grasps.placed[scene])
        inside = points[row][grasps.mask[row]]
        moved = bodies.moved(own.unsqueeze(0), inside.unsqueeze(0))
        distance = grasps.shapes.distance(grasps.object_of[scene : scene + 1], moved)
        assert float(distance.abs().max()) < 0.004  # a pixel's slant, and half precision
        table = points[row][~grasps.mask[row] & (grasps.depth[row] > 0) & (grasps.depth[row] < 1.0)]
        assert float(table[..., 2].abs().median()) < 1e-3


def test_one_seed_one_world(tiny):
    first, again = (made.__wrapped__(Config(**tiny), CPU) for _ in range(2))
    other = made.__wrapped__(Config(**{**tiny, "data_seed": 1}), CPU)
    for name in first.scenes:
        assert torch.equal(first.scenes[name], again.scenes[name])
    assert torch.equal(first.grasps["grasp_T"], again.grasps["grasp_T"])
    assert not torch.equal(first.scenes["rgb"], other.scenes["rgb"])


def test_proposals_reach_across_the_surface(seed):
    """Closing axes are unit and square to the approach; the middle of the fingers lies in the object or its hollow."""
    draw = torch.Generator().manual_seed(seed)
    shapes = bodies.bodies(["bottle"], 1)
    poses = generator.proposals(shapes.only(0), 128, draw, CPU)
    rotation = poses[:, :3, :3]
    assert torch.allclose(rotation.transpose(1, 2) @ rotation, torch.eye(3).expand(len(poses), 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(len(poses)), atol=1e-5)
    held = generator.demonstrations(shapes, 0, 5, draw, CPU, gripper.holds, "bottle")
    assert bool(gripper.holds(shapes, torch.zeros(5, dtype=torch.long), held).all())


def test_an_object_without_a_surface_above_the_table():
    """A leaf: two millimetres high, so that no finger can stand beside it."""
    flat = bodies.Grids(torch.full((1, 4, 4, 4), 0.05), torch.tensor([[-0.05, -0.05, -0.05]]), torch.tensor([0.03]))
    draw = torch.Generator().manual_seed(0)
    with pytest.raises(UsageError, match="object 'leaf' has no place that fingers could meet"):
        generator.demonstrations(flat, 0, 2, draw, CPU, gripper.holds, "leaf")


def test_objects_that_nothing_holds():
    wide = bodies.packed([([(0, 0), (0.12, 0), (0.12, 0.2), (0, 0.2)], [])] * 2)
    draw = torch.Generator().manual_seed(0)
    with pytest.raises(UsageError, match=r"object 'drum': 0 of [\d,]+ grasps held"):
        generator.demonstrations(wide, 0, 3, draw, CPU, lambda s, w, p: torch.zeros(len(p), dtype=torch.bool), "drum")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"categories": ("cup", "vase")}, "categories are some of"),
        ({"objects": 3}, "too few"),
        ({"train_elevations": (20.0,)}, "no view of a training object has an elevation of 20 degrees"),
    ],
)
def test_settings_that_make_nothing(tiny, options, said):
    changed = {**tiny, **options}
    if "train_elevations" in options:
        # What is made follows the setting; what is read need not.
        dataset = open_dataset("grasps", tiny)
        dataset.config = Config(**changed)
        with pytest.raises(UsageError, match=said):
            dataset._index()
        return
    with pytest.raises(UsageError, match=said):
        open_dataset("grasps", changed)


# What is refused in files


def altered(folder, **changes):
    """Change arrays of the first shard: a function of the array, or None to leave it out."""
    path = folder / "shard-00000.npz"
    with np.load(path) as file:
        held = {name: file[name] for name in file.files}
    for name, change in changes.items():
        if change is None:
            held.pop(name)
        else:
            held[name] = change(held.get(name))
    buffer = io.BytesIO()
    np.savez(buffer, **held)
    path.write_bytes(buffer.getvalue())


def with_row(row, value):
    def change(array):
        array = array.copy()
        array[row] = value
        return array

    return change


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grasp_T": None}, "lacks 'grasp_T'"),
        ({"grasp_T": lambda a: a[:, :3]}, r"'grasp_T' has shape \(\d+, 3, 4\), expected \(G, 4, 4\)"),
        ({"grasp_T": lambda a: a * [1, 1, 1.01, 1]}, "row 0 of 'grasp_T' has a rotation whose columns"),
        ({"grasp_T": lambda a: a * [1, 1, -1, 1]}, "row 0 of 'grasp_T' is left-handed"),
        ({"grasp_T": with_row(2, np.nan)}, "row 2 of 'grasp_T' holds numbers that are not finite"),
        ({"grasp_T": lambda a: a + 1000 * np.eye(4, 4, 3)[None] * [1, 1, 1, 1]}, "poses are in metres"),
        ({"T_wc": lambda a: a * 0}, "row 0 of 'T_wc' has a rotation"),
        ({"depth": lambda a: a * 1000}, "looks like millimetres; add the array depth_scale = 0.001"),
        ({"depth": lambda a: a * 0}, "no depth above 0"),
        ({"depth": lambda a: a[..., 1:]}, "'depth' has shape .* expected .* with W = 32"),
        ({"K": lambda a: a * [[2, 1, 4], [1, 2, 4], [1, 1, 1]]}, "'K' of scene 0, view 0 has its middle at"),
        ({"K": lambda a: a * 0}, "is no camera matrix"),
        ({"grasp_scene": with_row(1, 77)}, "row 1 of 'grasp_scene' is 77; it must be 0 to 2"),
        ({"outcome": with_row(1, 2)}, "row 1 of 'outcome' is 2; it must be 0 to 1"),
        ({"object_id": with_row(0, 9)}, "row 0 of 'object_id' is 9"),
        ({"category": with_row(0, 1)}, "row 0 of 'category' is not that of its object"),
        ({"occupancy": lambda a: a[:, 1:]}, "'occupancy' has shape .* with N = 8"),
        ({"grasp_T": lambda a: a[:0], "grasp_scene": lambda a: a[:0], "outcome": lambda a: a[:0],
          "demo_id": lambda a: a[:0]}, "holds no grasps; leave an empty shard out"),
        ({"mask": None}, "lacks 'mask', which other shards have"),
        ({"rgb": lambda a: a.astype(np.float32)}, "'rgb' has shape"),
        ({"elevation": lambda a: a * np.nan}, "'elevation' holds numbers that are not finite"),
    ],
)  # fmt: skip
def test_bad_shards(folder, changes, said):
    altered(folder, **changes)
    with pytest.raises(DistkError, match=said) as refused:
        open_dataset("grasps", {}, folder=folder)
    assert "\n" not in str(refused.value)


def reworded(folder, change):
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format="other"), "does not say format"),
        (lambda m: m.pop("objects"), "lacks something"),
        (lambda m: m["objects"][0].update(category="vase"), "which is not listed"),
        (lambda m: m["objects"][0].update(split="dev"), "it can be train or test"),
        (lambda m: [o.update(name="one") for o in m["objects"]], "is in both splits"),
        (lambda m: m.update(labels="guess"), "they can be quasistatic"),
        (lambda m: m["voxel"].update(n=1), "is not a count"),
        (lambda m: m.update(near=2.0), "near must lie below far"),
        (lambda m: [o.update(split="train") for o in m["objects"]], "no grasps of test objects"),
    ],
)
def test_bad_meta(folder, change, said):
    reworded(folder, change)
    with pytest.raises(DistkError, match=said):
        open_dataset("grasps", {}, folder=folder)


def test_folders_that_hold_no_grasps(folder, tmp_path):
    with pytest.raises(UsageError, match=r"found none of meta.json"):
        open_dataset("grasps", {}, folder=tmp_path)
    (folder / "meta.json").write_text("[1, 2")
    with pytest.raises(DistkError, match="cannot be read as JSON"):
        open_dataset("grasps", {}, folder=folder)
    for path in folder.glob("shard*"):
        path.unlink()
    with pytest.raises(DistkError):
        open_dataset("grasps", {}, folder=folder)


def test_writing_never_over_anything(recorded, folder):
    with pytest.raises(DistkError, match="name a new folder"):
        shards.write(folder, recorded)


def test_depths_in_millimetres_with_a_scale(folder, grasps):
    altered(folder, depth=lambda a: np.round(a * 1000).astype(np.uint16), depth_scale=lambda a: np.float32(0.001))
    read = open_dataset("grasps", {}, folder=folder)
    assert float((read.depth.float() - grasps.depth.float())[: 3 * read.views].abs().max()) < 1.5e-3


def test_only_one_outcome(recorded, tmp_path):
    ones = torch.ones_like(recorded.grasps["outcome"])
    shards.write(tmp_path / "a", dataclasses.replace(recorded, grasps={**recorded.grasps, "outcome": ones}))
    with pytest.raises(DistkError, match="all grasps of train objects succeed"):
        open_dataset("grasps", {}, folder=tmp_path / "a")


def test_lengths_of_rays_instead_of_depths_are_noticed(folder, capsys):
    def lengths(depth):
        at = (np.arange(32) + 0.5 - 16) / (16 / np.tan(np.radians(35 / 2)))
        return (depth * np.sqrt(1 + at[:, None] ** 2 + at[None] ** 2) * 1.02).astype(np.float32)

    for path in sorted(folder.glob("shard-*")):
        path.rename(folder / "shard-00000.npz.tmp")
        (folder / "shard-00000.npz.tmp").rename(folder / "shard-00000.npz")
        altered(folder, depth=lengths)
        (folder / "shard-00000.npz").rename(path)
    open_dataset("grasps", {}, folder=folder)
    assert "along the camera's axis, not along the ray" in " ".join(capsys.readouterr().err.split())


def test_without_masks_or_objects(folder, recorded, grasps):
    """Masks come from the depth; grasps cannot be tried again without shapes."""
    for path in sorted(folder.glob("shard-*")):
        with np.load(path) as file:
            held = {name: file[name] for name in file.files if name not in ("mask", "object_T", "occupancy")}
        np.savez(path, **held)
    (folder / "shapes.npz").unlink()
    reworded(folder, lambda m: [m.pop(name) for name in ("near", "far")])
    read = open_dataset("grasps", {}, folder=folder)
    both = (read.mask & grasps.mask).sum() / (read.mask | grasps.mask).sum()
    assert float(both) > 0.8  # the lowest 8 mm of each object count as table
    assert read.near < 0.4 < 0.8 < read.far
    assert "occupancy" not in read.batch(torch.arange(2))
    with pytest.raises(UsageError, match="no other grasp of them can be tried"):
        read.label(torch.zeros(1, dtype=torch.long), read.pose[:1])


def test_labels_of_another_engine(grasps):
    with pytest.raises(UsageError, match="labelled by quasistatic"):
        grasps.label(torch.zeros(1, dtype=torch.long), grasps.pose[:1], "mujoco")


def test_unbalanced_draws_follow_the_scene(tiny):
    dataset = open_dataset("grasps", {**tiny, "balanced": False, "per_view": 64})
    dataset.count = torch.tensor([[3, 1]]).expand(dataset.scenes, 2)
    dataset.first = torch.tensor([[0, 3]]).expand(dataset.scenes, 2)
    dataset.outcome[:4] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    batch = dataset.sample(64, torch.Generator().manual_seed(0))
    assert float(batch["outcome"].mean()) == pytest.approx(0.25, abs=0.03)


def test_composed_is_a_product(generator):
    a, b = torch.randn(2, 5, 4, 4, generator=generator, dtype=torch.float64)
    assert torch.allclose(composed(a, b), a @ b, atol=1e-12)


def test_views_of_another_size_do_not_fit(grasps):
    other = dataclasses.replace(grasps.spec, shape=(4, 64, 32))
    (found,) = differences(grasps.spec, other)
    assert found.fatal
    assert str(found) == "height: 32 in the model, 64 in the data"
    labels = dataclasses.replace(grasps.spec, extra={**grasps.spec.extra, "labels": "mujoco"})
    assert [d.what for d in differences(grasps.spec, labels)] == ["labels"]
