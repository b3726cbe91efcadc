"""Searches against what they must do with a score that is known, and the scores of a model against loops."""

import math

import pytest
import torch

import distk
from distk import UsageError
from distk.device import seeded
from distk.metric import CodeTable
from distk.plugins.rl_control.grasping import planning
from distk.plugins.rl_control.grasping.bodies import rigid, rotations
from distk.plugins.rl_control.grasping.data import Grasps
from distk.plugins.rl_control.grasping.method import Scene
from distk.plugins.rl_control.grasping.metrics import (
    GraspAccuracy,
    GraspPlanning,
    GraspShape,
    balanced,
    overlap,
    predicted,
    shape_scores,
)
from distk.plugins.rl_control.grasping.planning import Settings, planned, search, starts


class Towards:
    """A model whose score is how near the gripper is to a goal; it counts how often it looks."""

    def __init__(self, goal):
        self.goal, self.looks, self.scored = goal, 0, 0

    def look(self, x, camera):
        self.looks += len(x)
        return Scene(x.flatten(1)[:, :1], camera)

    def score(self, scene, pose):
        self.scored += pose.shape[0] * pose.shape[1]
        return -(pose[..., :3, 3] - self.goal).norm(dim=-1) + 0 * scene.state


def views(n=1):
    return {"x": torch.zeros(n, 4, 2, 2), "T_wc": torch.eye(4).expand(n, 4, 4)}


def at(*place, n=1):
    return rigid(torch.eye(3).expand(n, 3, 3), torch.tensor([place]).expand(n, 3))


def test_steps_have_the_length_that_was_asked_for(generator):
    model = Towards(torch.zeros(3))
    settings = Settings(steps=5, directions=7, shift=0.02, turn=15)
    start = rigid(rotations(torch.randn(6, 3, generator=generator)), torch.ones(6, 3))
    found = search(model, views(), torch.zeros(6, dtype=torch.long), start, settings, generator, None)
    assert found.poses.shape == (6, 6, 4, 4)
    assert found.outcomes is None
    move = torch.linalg.inv(found.poses[:, :-1]) @ found.poses[:, 1:]
    assert torch.allclose(move[..., :3, 3].norm(dim=-1), torch.full((6, 5), 0.02), atol=1e-5)
    angle = torch.acos(((move[..., :3, :3].diagonal(dim1=2, dim2=3).sum(-1) - 1) / 2).clamp(-1, 1))
    assert torch.allclose(angle, torch.full((6, 5), math.radians(15)), atol=2e-3)
    rotation = found.poses[..., :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(-1, -2), torch.eye(3).expand(6, 6, 3, 3), atol=1e-5)


def test_the_best_direction_is_taken_even_if_it_is_worse(generator):
    """At the goal every step leads away; with keep the search stays there."""
    model = Towards(torch.zeros(3))
    which = torch.zeros(4, dtype=torch.long)
    away = search(model, views(), which, at(0.0, 0, 0, n=4), Settings(steps=3), generator, None)
    assert torch.allclose(away.scores[:, 1], torch.full((4,), -0.01), atol=1e-6)
    stay = search(model, views(), which, at(0.0, 0, 0, n=4), Settings(steps=3, keep=True), generator, None)
    assert torch.equal(stay.scores, torch.zeros(4, 4))


def test_many_directions_lead_to_the_goal(generator):
    """The score is that of the pose it is said of; of 300 directions one leads nearly straight there."""
    model = Towards(torch.tensor([0.1, 0.0, 0.0]))
    settings = Settings(steps=8, directions=300)
    found = search(model, views(), torch.zeros(5, dtype=torch.long), at(0.0, 0, 0, n=5), settings, generator, None)
    assert torch.allclose(found.scores, -(found.poses[..., :3, 3] - model.goal).norm(dim=-1))
    assert bool((found.scores[:, -1] > -0.03).all())
    assert model.looks == 1
    assert model.scored == 5 * (1 + 8 * 300)


def test_a_search_ends_where_it_succeeds(generator):
    """It stays at its first success; one that succeeds at once never moves; the others go on."""
    model = Towards(torch.tensor([1.0, 0.0, 0.0]))
    tried = []

    def holds(pose):
        tried.append(pose)
        return pose[:, 0, 3] > torch.tensor([-1.0, 0.025, 9.0])

    which, settings = torch.zeros(3, dtype=torch.long), Settings(steps=6, directions=40)
    found = search(model, views(), which, at(0.0, 0, 0, n=3), settings, generator, holds)
    assert found.success.tolist() == [True, True, False]
    assert torch.equal(found.poses[0], at(0.0, 0, 0).expand(7, 4, 4))
    first = int(found.outcomes[1].long().argmax())
    assert 3 <= first <= 5
    assert found.outcomes[1].tolist() == [False] * first + [True] * (7 - first)
    assert torch.equal(found.poses[1, first:], found.poses[1, first].expand(7 - first, 4, 4))
    assert not torch.equal(found.poses[2, 5], found.poses[2, 6])
    assert len(tried) == 7


def test_the_fitted_normal_closes_in(generator):
    """The cross-entropy method: the elites' mean and covariance are what later samples are drawn from."""
    model = Towards(torch.tensor([0.03, -0.02, 0.01]))
    settings = Settings("cem", steps=12)
    found = search(model, views(), torch.zeros(8, dtype=torch.long), at(0.0, 0, 0, n=8), settings, generator, None)
    assert bool((found.scores[:, -1] > -0.004).all())
    fitted = planning._Fitted(Settings("cem", samples=20, elites=4), at(0.0, 0, 0, n=2).double())
    fitted.draw(at(0.0, 0, 0, n=2).double(), generator)
    drawn, score = fitted.drawn.clone(), torch.randn(2, 20, generator=generator)
    fitted.learn(score)
    for n in range(2):
        best = drawn[n, score[n].argsort(descending=True)[:4]]
        assert torch.allclose(fitted.mean[n], best.mean(0))
        covariance = torch.cov(best.T) + torch.diag(fitted.least.square())
        assert torch.allclose(fitted.root[n] @ fitted.root[n].T, covariance, atol=1e-12)


@pytest.mark.parametrize("change", [{"steps": 0}, {"directions": 0}, {"planner": "cem", "elites": 1}])
def test_no_search(change, generator):
    with pytest.raises(UsageError, match="takes one step"):
        search(
            Towards(0), views(), torch.zeros(1, dtype=torch.long), at(0.0, 0, 0), Settings(**change), generator, None
        )


def test_parts_do_not_matter(model_of, grasps, generator, monkeypatch):
    """Scores in parts that fit are those of all at once, each search with its own view."""
    model = model_of()
    data = grasps.viewed(torch.tensor([0, 5, 9]))
    with torch.no_grad():
        scene = model.look(data["x"], data["T_wc"])
        which = torch.tensor([2, 0, 1, 1, 0])
        pose = grasps.pose[:15].view(5, 3, 4, 4)
        whole = planning.scores(model, scene, which, pose, 1)
        monkeypatch.setattr(planning, "POINTS", 1)
        parts = planning.scores(model, scene, which, pose, 1)
        assert torch.allclose(whole, parts, atol=1e-5)
        for n, view in enumerate(which.tolist()):
            one = model.look(data["x"][view : view + 1], data["T_wc"][view : view + 1])
            assert torch.allclose(model.score(one, pose[n : n + 1])[0], whole[n], atol=1e-5)


def test_starts_fail_and_belong_to_their_demonstration(grasps, generator):
    begin = starts(grasps, grasps.rows_of("test"), None, 5, generator)
    scene = grasps.scene[begin.row]
    testing = {i for i, o in enumerate(grasps.meta["objects"]) if o["split"] == "test"}
    assert set(grasps.object_of[scene].tolist()) <= testing
    assert not bool(grasps.label(scene, begin.pose).any())
    names, counts = begin.demo.unique(return_counts=True)
    assert counts.tolist() == [5] * len(names)
    assert len(names) == 4  # two demonstrations of each of two objects
    for pose, demo in zip(begin.pose, begin.demo, strict=True):
        same = (grasps.pose == pose).all(-1).all(-1)
        assert grasps.demo[same].tolist() == [int(demo)]
    assert len(starts(grasps, grasps.rows_of("test"), 1, 3, generator).row) == 3
    assert torch.equal(begin.category, grasps.category_of[scene])


def test_planned_searches_are_tried_by_the_rule(model_of, grasps, generator):
    begin = starts(grasps, grasps.rows_of("test"), None, 4, generator)
    found = planned(model_of("graspcnn"), grasps, begin, Settings(steps=6), generator)
    scene = grasps.scene[begin.row]
    for t in range(7):
        assert torch.equal(found.outcomes[:, t], grasps.label(scene, found.poses[:, t]))
    again = planned(model_of("graspcnn"), grasps, begin, Settings(steps=6), seeded(3, grasps.device))
    same = planned(model_of("graspcnn"), grasps, begin, Settings(steps=6), seeded(3, grasps.device))
    assert torch.equal(again.poses, same.poses)


# Scores


def table_of(model, dataset):
    none = torch.zeros(0, 1)
    return CodeTable(none, ["z"], ["continuous"], model=model, dataset=dataset)


def test_accuracy_is_counted_grasp_by_grasp(model_of, grasps):
    model = model_of()
    score = GraspAccuracy(GraspAccuracy.Config()).compute(table_of(model, grasps), 0)
    rights: dict[str, list[tuple[bool, bool]]] = {}
    with torch.no_grad():
        for row in grasps.rows("test").tolist():
            view = grasps.viewed(torch.tensor([row]))
            scene = model.look(view["x"], view["T_wc"])
            degrees = round(float(view["elevation"]))
            name = grasps.spec.classes[int(view["label"])]
            for g in grasps.grasps_of(int(view["scene"])):
                good = bool(grasps.outcome[g])
                right = (float(model.score(scene, grasps.pose[g].view(1, 1, 4, 4))) > 0) == good
                for key in (
                    "accuracy",
                    f"all_{degrees}",
                    f"{name}_{degrees}",
                    "seen" if degrees in (15, 45) else "novel",
                ):
                    rights.setdefault(key, []).append((right, good))
    assert set(score) == {*rights, "n"}
    assert score["n"] == len(rights["accuracy"])
    for key, pairs in rights.items():
        sides = [[r for r, good in pairs if good is kind] for kind in (True, False)]
        assert score[key] == pytest.approx(sum(sum(s) / len(s) for s in sides) / 2), key


@pytest.mark.parametrize("metric", ["grasp-accuracy", "grasp-planning", "grasp-shape"])
def test_scores_of_a_split_see_its_views_alone(model_of, grasps, metric, monkeypatch):
    """So that a model can be kept by a score of the validation's views; asked for all views, they are the test's."""
    asked = []
    viewed = Grasps.viewed
    monkeypatch.setattr(Grasps, "viewed", lambda self, rows: asked.append(rows) or viewed(self, rows))
    values = {"steps": 1, "starts": 1, "demos": 2} if metric == "grasp-planning" else {}
    for split, seen in (("val", "val"), ("all", "test"), ("test", "test")):
        asked.clear()
        found = distk.evaluate(model_of(), [metric], data=grasps, split=split, **values)
        assert "error" not in found["metrics"][metric]
        scenes = grasps.scene[torch.cat(asked)].unique()
        assert bool(torch.isin(scenes, grasps.scene[grasps.rows_of(seen)]).all()), split
        assert len(scenes)


def test_balanced_accuracy():
    right = torch.tensor([True, True, True, False])
    assert balanced(right, torch.tensor([1.0, 1, 1, 0])) == 0.5
    assert balanced(right, torch.tensor([1.0, 1, 1, 1])) == 0.75
    assert math.isnan(balanced(right[:0], right[:0].float()))


def test_accuracy_in_eval_mode_is_repeatable(model_of, grasps):
    """Dropout is off while a metric scores, and the mode is as it was afterwards."""
    model = model_of().train()
    metric = GraspAccuracy(GraspAccuracy.Config())
    first, second = (metric.compute(table_of(model, grasps), 0) for _ in range(2))
    assert first == second
    assert model.training
    found = predicted(model.eval(), grasps, grasps.rows("val"))
    assert len(found["right"]) == sum(
        len(grasps.grasps_of(int(grasps.scene[r]))) for r in grasps.rows("val")
    )  # fmt: skip


def test_planning_is_the_share_of_searches(model_of, grasps):
    model = model_of("graspcnn")
    config = GraspPlanning.Config(steps=4, starts=3, demos=100)
    score = GraspPlanning(config).compute(table_of(model, grasps), 7)
    draw = seeded(7, grasps.device)
    begin = starts(grasps, grasps.rows_of("test"), 100, 3, draw)
    found = planned(model, grasps, begin, Settings(steps=4), draw).success
    assert score["all"] == pytest.approx(float(found.double().mean()))
    for number, name in enumerate(grasps.spec.classes):
        assert score[name] == pytest.approx(float(found[begin.category == number].double().mean()))
    assert score["n"] == len(found)
    assert 0 <= score["aimless"] <= 1


def test_shapes_are_held_against_the_truth(model_of, grasps):
    """A model whose grid is the truth has all overlaps 1 where the grid itself is looked at."""
    model = model_of()
    batch = grasps.batch(grasps.rows("test")[:3])
    with torch.no_grad():
        scene = model.look(batch["x"], batch["T_wc"])
        true = distk.plugins.rl_control.grasping.method.turned_grid(batch["occupancy"], scene.turn, model.cube)
        known = Scene(scene.state, scene.turn, scene.shape, true)
        best = shape_scores(model, known, batch)
        empty = shape_scores(model, Scene(scene.state, scene.turn, scene.shape, 0 * true), batch)
    assert best["iou"].tolist() == [1.0] * 3
    assert best["local_iou"].tolist() == [1.0] * 3
    assert float(best["mask_iou"].mean()) > 0.3  # voxels of four centimetres
    assert empty["mask_iou"].tolist() == [0.0] * 3
    assert float(empty["iou"].max()) == 0.0
    off = (model.far - batch["depth"])[batch["mask"]].mean()
    assert float(empty["depth_l1"].mean()) == pytest.approx(float(off), rel=0.1)
    score = GraspShape(GraspShape.Config()).compute(table_of(model, grasps), 0)
    assert set(score) == {"iou", "mask_iou", "local_iou", "depth_l1"}
    with pytest.raises(UsageError, match="no shape"):
        GraspShape(GraspShape.Config()).compute(table_of(model_of("graspcnn"), grasps), 0)


def test_overlap():
    a = torch.tensor([[True, True, False], [False, False, False]])
    b = torch.tensor([[True, False, True], [False, False, False]])
    assert overlap(a, b).tolist() == pytest.approx([1 / 3, 1.0])


def test_labels_of_two_engines_are_not_mixed(model_of, grasps):
    model = model_of()
    model.spec = distk.DataSpec("grasp", model.spec.shape, extra={**model.spec.extra, "labels": "mujoco"})
    with pytest.raises(UsageError, match="learnt labels of mujoco"):
        GraspAccuracy(GraspAccuracy.Config()).compute(table_of(model, grasps), 0)
