"""The losses against float64 and loops, the frames against turned worlds, and what the presets say."""

import math

import numpy as np
import pytest
import torch

from distk.device import Ranks
from distk.plugins.rl_control.grasping.bodies import rigid, rotations
from distk.plugins.rl_control.grasping.method import Scene, cross_entropy, pooled, turned_grid
from distk.plugins.rl_control.grasping.networks import START, TRUNK, Voxels, pose_numbers
from distk.plugins.rl_control.grasping.projection import Cube, composed
from distk.settings import resolve
from distk.source import Source
from distk.testing import check_dataset, check_method
from distk.training.loop import build


def test_conformance_of_both_stages_and_of_variants(tiny, small):
    model = {**small, "shape_share": 0.2, "supervise_3d": 1.0, "silhouette": "max", "local_camera": "perspective"}
    check_method("grasping", batch=2, model=model, data=tiny)


def test_conformance_of_the_data(tiny):
    check_dataset("grasps", **tiny)


def test_what_the_paper_says():
    """768 units; 101 objects of 7 categories, about 150K grasps, 10 to 20 attempts each, 100 grasps near each."""
    settings = resolve("grasping", preset="paper")
    data = settings.data_options
    assert settings.model.units == 768
    assert data["objects"] == 101
    assert 10 <= data["demos"] <= 20
    assert data["kept"] == 100
    assert data["objects"] * data["demos"] * data["kept"] == 151_500
    assert (data["scenes"], data["azimuths"], data["size"], data["voxels"]) == (8, 4, 128, 32)
    assert data["per_view"] * settings.train.batch == 16 * 64
    assert settings.train.steps == 150_000
    assert resolve("graspcnn", preset="paper").data_options == data


class Logged:
    """A step that keeps what is logged."""

    def __init__(self, batch):
        self.batch, self.logged = batch, {}

    def log(self, name, value):
        self.logged[name] = float(value.detach())


@pytest.fixture
def batch(grasps, generator):
    found = grasps.sample(3, generator)
    rows = grasps.other_views(found["row"], grasps.drawn_views(len(found["row"]), 2, generator))
    views = grasps.viewed(rows.flatten())
    for name in ("K", "T_wc", "depth", "mask"):
        found[f"{name}_others"] = views[name].view(3, 2, *views[name].shape[1:])
    return found


def test_shape_losses_are_their_formulas(model_of, batch):
    """Depth: mean over the object's pixels over the cube's side, then over views; silhouette: cross-entropy."""
    model = model_of()
    with torch.no_grad():
        scene = model.look(batch["x"], batch["T_wc"])
        depth, mask = model.shape_terms(scene, batch)
        seen_depth, seen_mask = (v.double().numpy() for v in model.seen_from(scene, batch))
    true, there = batch["depth"].double().numpy(), (batch["mask"] & (batch["depth"] > 0)).numpy()
    by_view, crossed = [], []
    for n in range(3):
        off, weight = 0.0, 0.0
        for i in range(16):
            for j in range(16):
                block = np.s_[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                inside = there[block]
                if inside.any():
                    off += abs(seen_depth[n, i, j] - true[block][inside].mean()) * inside.mean()
                    weight += inside.mean()
                p = min(max(seen_mask[n, i, j], 1e-6), 1 - 1e-6)
                share = batch["mask"].numpy()[block].mean()
                crossed.append(-share * math.log(p) - (1 - share) * math.log(1 - p))
        by_view.append(off / weight / model.cube.side)
    assert float(depth) == pytest.approx(np.mean(by_view), rel=1e-5)
    assert float(mask) == pytest.approx(np.mean(crossed), rel=1e-5)


def test_losses_add_up(model_of, batch):
    """The outcome's cross-entropy and a tenth of depth and silhouette, each the mean over the view and two others."""
    model = model_of(keep_shape=0.3, depth=2.0, mask=0.5, supervise_3d=0.7)
    step = Logged(batch)
    with torch.no_grad():
        total = model.outcome_objective(step)
        scene = model.look(batch["x"], batch["T_wc"])
        logits = model.score(scene, batch["pose"])
        p = torch.sigmoid(logits.double())
        outcome = -(batch["outcome"] * p.log() + (1 - batch["outcome"]) * (1 - p).log()).mean()
        terms = [model.shape_terms(scene, batch)]
        for i in range(2):
            other = {name: batch[f"{name}_others"][:, i] for name in ("K", "T_wc", "depth", "mask")}
            terms.append(model.shape_terms(scene, other))
        depth, mask = (float(torch.stack(column).mean()) for column in zip(*terms, strict=True))
        true = turned_grid(batch["occupancy"], scene.turn, model.cube).double()
        solid = scene.logits.double().sigmoid()
        solid = -(true * solid.log() + (1 - true) * (1 - solid).log()).mean()
    right = (logits > 0) == (batch["outcome"] > 0.5)
    assert step.logged["accuracy"] == pytest.approx(float(right.float().mean()))
    assert step.logged["outcome"] == pytest.approx(float(outcome), rel=1e-5)
    assert step.logged["shape.depth"] == pytest.approx(depth, rel=1e-6)
    assert step.logged["shape.mask"] == pytest.approx(mask, rel=1e-6)
    assert step.logged["shape.occupancy"] == pytest.approx(float(solid), rel=1e-5)
    expected = float(outcome) + 0.3 * (2 * depth + 0.5 * mask + 0.7 * float(solid))
    assert float(total) == pytest.approx(expected, rel=1e-5)
    shape = Logged(batch)
    with torch.no_grad():
        alone = model.shape_objective(shape)
    assert float(alone) == pytest.approx(2 * depth + 0.5 * mask + 0.7 * float(solid), rel=1e-5)


def test_pixels_without_depth_teach_the_silhouette_alone(generator):
    depth = torch.rand(1, 4, 4, generator=generator) + 0.5
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    depth[0, 0, 0] = 0.0
    mean, known, there = pooled(depth, mask)
    assert float(mean[0, 0, 0]) == pytest.approx(float(depth[0, :2, :2].sum() / 3), rel=1e-6)
    assert known[0, 0].tolist() == [0.75, 1.0]
    assert torch.equal(there, torch.ones(1, 2, 2))


def test_cross_entropy(generator):
    p, t = torch.rand(2, 50, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.binary_cross_entropy(p, t, reduction="none")
    assert torch.allclose(cross_entropy(p, t), expected, atol=1e-12)
    assert cross_entropy(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).tolist() == pytest.approx(
        [-math.log(1e-6)] * 2, rel=0.01
    )


def test_turning_the_world_changes_no_score(model_of, batch, generator):
    """Objects, cameras and grippers turned together about the cube's vertical: the picture is the same, and so is all
    that is told from it. In the world's frame it is not."""
    angle = float(6 * torch.rand((), generator=generator))
    turn = rigid(rotations(torch.tensor([[0.0, 0, angle]])), torch.zeros(1, 3))
    turned = {**batch, "T_wc": composed(turn, batch["T_wc"]), "pose": composed(turn.unsqueeze(1), batch["pose"])}
    turned["T_wc_others"] = composed(turn.unsqueeze(1), batch["T_wc_others"])
    for frame, same in (("view", True), ("world", False)):
        model = model_of(frame=frame)
        torch.nn.init.normal_(model.decoder.last.weight, std=3.0)  # a grid that is not empty
        with torch.no_grad():
            results = []
            for b in (batch, turned):
                scene = model.look(b["x"], b["T_wc"])
                others = {name: b[f"{name}_others"][:, 0] for name in ("K", "T_wc", "depth", "mask")}
                results.append((model.score(scene, b["pose"]), *model.seen_from(scene, others)))
        close = all(torch.allclose(a, b, atol=2e-4) for a, b in zip(*results, strict=True))
        assert close is same, frame


def test_a_grasp_is_scored_alone(model_of, batch):
    """Its score depends on no other grasp and on no other view; the same pose has the same score."""
    model = model_of()
    with torch.no_grad():
        scene = model.look(batch["x"], batch["T_wc"])
        together = model.score(scene, batch["pose"])
        for n in range(3):
            one = model.look(batch["x"][n : n + 1], batch["T_wc"][n : n + 1])
            for g in range(2):
                alone = model.score(one, batch["pose"][n : n + 1, g : g + 1])
                assert float(alone) == pytest.approx(float(together[n, g]), abs=1e-5)
        again = composed(batch["pose"], torch.eye(4).expand(3, 1, 4, 4))
        assert torch.equal(model.score(scene, again), together)


def test_the_gripper_sees_its_depth_as_a_share_of_the_box(model_of, batch):
    from distk.plugins.rl_control.grasping.projection import BOX_DEPTH

    model, seen = model_of(), []
    model.local_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        scene = model.look(batch["x"], batch["T_wc"])
        model.score(scene, batch["pose"])
        depth, mask = model.fingers(scene, batch["pose"])
    assert torch.allclose(seen[0][:, 0], depth.flatten(0, 1) / BOX_DEPTH)
    assert torch.allclose(seen[0][:, 1], mask.flatten(0, 1))
    assert 0.1 < float(seen[0][:, 0].max()) < 1.5


def test_the_outcome_teaches_the_shape_through_the_fingers(model_of, batch):
    """Gradients of the outcome alone reach the decoder by the gripper's view, and the state by the predictor."""
    model = model_of(keep_shape=0.0)
    torch.nn.init.normal_(model.decoder.last.weight, std=3.0)
    model.outcome_objective(Logged(batch)).backward()
    for module in (model.decoder, model.shape_encoder, model.state_encoder, model.pose_encoder, model.local_encoder):
        assert sum(float(p.grad.abs().sum()) for p in module.parameters()) > 0
    scene = model.look(batch["x"], batch["T_wc"])
    grid = scene.grid.detach().requires_grad_()
    model.score(Scene(scene.state, scene.turn, scene.shape, grid), batch["pose"]).sum().backward()
    assert float(grid.grad.abs().sum()) > 0


def test_stages(tiny, small):
    """Of 12 steps the first 8 change the shape alone; the baseline has one stage."""
    options = {"model": small, "data": tiny, "train": {"batch": 2, "device": "cpu", "steps": 12}}
    trainer = build(resolve("grasping", options=options), torch.device("cpu"), Ranks())
    assert [(o.name, o.window, o.clip) for o in trainer.objectives] == [
        ("shape", (0, 8), 5.0),
        ("loss", (8, None), 5.0),
    ]
    held = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.step()
    changed = {n.split(".")[0] for n, p in trainer.model.named_parameters() if not torch.equal(p, held[n])}
    assert changed == {"shape_encoder", "decoder"}
    base = build(resolve("graspcnn", options=options), torch.device("cpu"), Ranks())
    assert [(o.name, o.window) for o in base.objectives] == [("loss", None)]


def test_batches(grasps, model_of, generator):
    """Grasps belong to the view's scene, half of them successes; the others show the same scene."""
    batch = model_of().collect(Source(grasps, 64, generator))
    assert torch.equal(batch["outcome"].mean(1), torch.full((64,), 0.5))
    place = {tuple(p.flatten().tolist()): int(s) for p, s in zip(grasps.pose, grasps.grasp_scene, strict=True)}
    label = {tuple(p.flatten().tolist()): float(o) for p, o in zip(grasps.pose, grasps.outcome, strict=True)}
    for n in range(64):
        for g in range(4):
            key = tuple(batch["pose"][n, g].flatten().tolist())
            assert place[key] == int(batch["scene"][n])
            assert label[key] == float(batch["outcome"][n, g])
    assert batch["depth_others"].shape == (64, 2, 32, 32)
    drawn = grasps.other_views(batch["row"], grasps.drawn_views(len(batch["row"]), 200, generator))
    assert torch.equal(grasps.scene[drawn], batch["scene"].unsqueeze(1).expand(-1, 200))
    assert set((drawn % grasps.views).flatten().tolist()) == set(range(grasps.views))
    assert "depth_others" not in model_of("graspcnn").collect(Source(grasps, 4, generator))


def test_networks_are_as_large_as_they_should_be(model_of, generator):
    """Numbers of parameters by hand; the matched baseline has as many as the model with shape, within 2 per cent."""
    full, base, matched = model_of(), model_of("graspcnn"), model_of("graspcnn", match_params=True)
    counts = [sum(p.numel() for p in model.parameters()) for model in (full, base, matched)]
    assert counts[1] < counts[0]
    assert counts[2] == pytest.approx(counts[0], rel=0.02)
    assert counts[2] >= counts[0]
    decoder = Voxels(768, 32, 1.0)
    by_hand = 768 * 4096 + 4096 + 64 * (512 * 256 + 256 * 128 + 128 * 64 + 64) + 2 * (256 + 128 + 64) + 1
    assert sum(p.numel() for p in decoder.parameters()) == by_hand
    assert decoder(torch.randn(2, 768, generator=generator)).shape == (2, 32, 32, 32)
    assert float(decoder.last.bias) == START
    first = model_of(width=1.0).state_encoder[0]
    assert (first.out_channels, first.kernel_size, first.stride) == (TRUNK[0], (5, 5), (2, 2))


def test_pose_numbers(generator):
    cube = Cube((0.1, -0.2, 0.3), 0.3)
    pose = rigid(rotations(torch.randn(4, 3, generator=generator)), torch.randn(4, 3, generator=generator))
    numbers = pose_numbers(pose, cube)
    assert torch.equal(numbers[:, :9], pose[:, :3, :3].reshape(4, 9))
    assert torch.allclose(numbers[:, 9:], 10 * (pose[:, :3, 3] - torch.tensor(cube.centre)))


def test_turned_grids(generator):
    """By a quarter, voxel by voxel; there and back is the grid again, where nothing left the cube."""
    grid = (torch.rand(1, 8, 8, 8, generator=generator) > 0.5).float()
    cube = Cube((0.0, 0.0, 0.13), 0.30)
    turn = rigid(rotations(torch.tensor([[0.0, 0, math.pi / 2]])), torch.zeros(1, 3))
    turned = turned_grid(grid, turn, cube)
    assert torch.equal(turned, grid.transpose(2, 3).flip(3))
    assert torch.equal(turned_grid(turned, turn.transpose(1, 2), cube), grid)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"voxels": 12}, "16, 32"), ({"size": 33}, "even number of rows"), ({"size": 17}, "even number of rows")],
)
def test_data_that_it_cannot_read(tiny, small, change, said):
    options = {"model": small, "data": {**tiny, **change}, "train": {"batch": 2, "device": "cpu", "steps": 2}}
    with pytest.raises(Exception, match=said):
        build(resolve("grasping", options=options), torch.device("cpu"), Ranks())
