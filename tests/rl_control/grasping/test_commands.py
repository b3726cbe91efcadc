"""`distk grasping ...`: what the commands say and write, and what they refuse."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import distk
from distk import cli
from distk.data import open_dataset
from distk.errors import UsageError
from distk.plugins.rl_control.grasping import bodies, engines, shards
from distk.plugins.rl_control.grasping.gripper import holds
from distk.plugins.rl_control.grasping.projection import composed


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny, small) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for method in ("grasping", "graspcnn"):
        distk.train(method, out=folder / method, steps=2, batch=2, device="cpu", quiet=True, **small, **tiny)
    distk.train("betavae", data="blobs", out=folder / "betavae", steps=1, batch=4, device="cpu", quiet=True)
    return {name: folder / name for name in ("grasping", "graspcnn", "betavae")}


def call(*words: object) -> SimpleNamespace:
    """`distk WORDS --device cpu` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["distk", *map(str, words), "--device", "cpu"])
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return SimpleNamespace(code=code, out=out.getvalue(), err=" ".join(err.getvalue().split()))


SIZES = ("--scenes", 1, "--azimuths", 1, "--size", 32, "--voxels", 8, "--demos", 2, "--grasps", 8)


def test_make_data_and_train_on_it(tmp_path, small):
    made = call("grasping", "make-data", "--objects", 4, "--categories", "cup,mug", *SIZES, "--json", "--out",
                tmp_path / "g")  # fmt: skip
    assert made.code == 0, made.err
    told = json.loads(made.out)
    assert told["labels"] == "quasistatic"
    assert told["objects"] == 4
    assert told["successes"] * 2 == told["grasps"]
    data = open_dataset("grasps", {}, folder=tmp_path / "g")
    assert len(data.outcome) == told["grasps"]
    assert data.spec.shape == (4, 32, 32)
    again = call("grasping", "make-data", "--objects", 4, "--categories", "cup,mug", *SIZES, "--out", tmp_path / "g")
    assert again.code == 1
    assert "name a new folder" in again.err
    run = distk.train("grasping", data_dir=str(tmp_path / "g"), per_view=4, out=tmp_path / "r", steps=1, batch=2,
                      device="cpu", quiet=True, **small)  # fmt: skip
    assert distk.load(run.checkpoint, "cpu").spec.extra["labels"] == "quasistatic"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--objects", 4), "4 objects are too few for 7 categories"),
        (("--categories", "cup,jug"), "categories are some of"),
        (("--grasps", 2, "--demos", 2), "are less than two for each of --demos 2"),
        (("--meshes", "/nowhere"), "is no folder"),
        (("--scale", 0), "--scale"),
    ],
)
def test_data_that_cannot_be_made(tmp_path, words, said):
    found = call("grasping", "make-data", *words, "--out", tmp_path / "g")
    assert found.code == 2
    assert said in found.err
    assert not (tmp_path / "g").exists()


def test_mujoco_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    found = call("grasping", "make-data", "--labels", "mujoco", *SIZES, "--out", tmp_path / "g")
    assert found.code == 2
    assert "pip install 'distk[physics]'" in found.err


def test_pieces_are_written_and_read_again(corner, tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'distk[physics]'")
    out = tmp_path / "grasps"
    sizes = ("--grasps", 4, "--demos", 1, "--scenes", 1, "--azimuths", 1, "--size", 32, "--voxels", 8)
    made = call("grasping", "make-data", "--meshes", corner, "--labels", "mujoco", *sizes, "--out", out)
    assert made.code == 0, made.err
    with np.load(out / "shapes.npz") as held:
        assert held["pieces"].shape[0] == 2
    read = shards.read(out / "meta.json")
    assert read.meta["labels"] == "mujoco"
    pose = torch.eye(4).unsqueeze(0)
    assert engines.engine("mujoco")(read.shapes, torch.zeros(1, dtype=torch.long), pose).shape == (1,)
    bare = bodies.Grids(read.shapes.values, read.shapes.low, read.shapes.spacing)
    with pytest.raises(UsageError, match="objects in convex pieces, which these have not"):
        engines.engine("mujoco")(bare, torch.zeros(1, dtype=torch.long), pose)


def test_plan(runs, tmp_path, tiny):
    said = call("grasping", "plan", runs["grasping"], "--demos", 3, "--repeats", 2, "--steps", 4, "--plot", "--json",
                "--out", tmp_path / "p.json")  # fmt: skip
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [Path(f).name for f in found["files"]] == ["p.json", "p.png"]
    plans = json.loads((tmp_path / "p.json").read_text())
    assert len(plans) == 6 == found["plans"]["all"]["searches"]
    data = open_dataset("grasps", tiny)
    for one in plans:
        outcomes = [step["outcome"] for step in one["steps"]]
        assert outcomes[0] is False
        assert True not in outcomes[:-1]
        assert len(outcomes) == 5 or outcomes[-1] is True
        pose = torch.tensor([step["pose"] for step in one["steps"]])
        scene = torch.full((len(pose),), one["scene"])
        own = composed(torch.linalg.inv(data.placed[scene]), pose)
        assert holds(data.shapes, data.object_of[scene], own).tolist() == outcomes
        assert one["category"] == one["object"].split("-")[0]
    share = np.mean([one["steps"][-1]["outcome"] for one in plans])
    assert found["plans"]["all"]["success"] == pytest.approx(share, abs=1e-4)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size[1] > 6 * 150
    text = call("grasping", "plan", runs["graspcnn"], "--demos", 1, "--repeats", 2, "--steps", 2, "--planner", "cem",
                "--out", tmp_path / "q.json")  # fmt: skip
    assert text.code == 0, text.err
    assert "2 searches" in text.out


def scene_files(folder, tiny):
    """One view as a file of the user's, and a pose."""
    data = open_dataset("grasps", tiny)
    row = int(data.rows("test")[0])
    np.savez(
        folder / "s.npz", rgb=data.rgb[row].numpy(), depth=data.depth[row].float().numpy(), K=data.k[row].numpy(),
        T_wc=data.camera[row].numpy(),
    )  # fmt: skip
    (folder / "p.json").write_text(json.dumps(data.pose[0].tolist()))
    return data, row


def test_plan_in_one_scene_of_the_user(runs, tmp_path, tiny):
    data, row = scene_files(tmp_path, tiny)
    said = call("grasping", "plan", runs["grasping"], "--rgbd", tmp_path / "s.npz", "--seed-pose", tmp_path / "p.json",
                "--steps", 3, "--json", "--plot", "--out", tmp_path / "o.json")  # fmt: skip
    assert said.code == 0, said.err
    (one,) = json.loads((tmp_path / "o.json").read_text())
    assert [step["outcome"] for step in one["steps"]] == [None] * 4
    model = distk.load(runs["grasping"], "cpu").eval()
    view = data.viewed(torch.tensor([row]))
    with torch.no_grad():
        score = model.score(model.look(view["x"], view["T_wc"]), data.pose[:1].unsqueeze(0))
    assert one["steps"][0]["score"] == pytest.approx(float(score), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rgb": np.zeros((16, 16, 3), np.uint8)}, "the model reads (32, 32, 3)"),
        ({"depth": np.full((32, 32), 600.0, np.float32)}, "looks like millimetres"),
        ({"T_wc": np.ones((4, 4), np.float32)}, "'T_wc' has a rotation"),
        ({"K": None}, "lacks 'K'"),
        ({"pose": [[1, 2]]}, "not four rows of four numbers"),
        ({"pose": np.diag([1.0, 1, -1, 1]).tolist()}, "is left-handed"),
        ({"pose": "none"}, "cannot be read as JSON"),
    ],
)
def test_scenes_that_do_not_fit(runs, tmp_path, tiny, change, said):
    scene_files(tmp_path, tiny)
    if "pose" in change:
        (tmp_path / "p.json").write_text(json.dumps(change["pose"]) if change["pose"] != "none" else "{")
    else:
        with np.load(tmp_path / "s.npz") as file:
            held = {**{name: file[name] for name in file.files}, **change}
        np.savez(tmp_path / "s.npz", **{name: value for name, value in held.items() if value is not None})
    found = call("grasping", "plan", runs["grasping"], "--rgbd", tmp_path / "s.npz", "--seed-pose", tmp_path / "p.json",
                 "--out", tmp_path / "o.json")  # fmt: skip
    assert found.code in (1, 2)
    assert said in found.err
    assert "Traceback" not in found.err


def test_reconstruct_is_the_generic_command_too(runs, tmp_path):
    said = call("reconstruct", runs["grasping"], "--n", 3, "--json", "--out", tmp_path / "r.png")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [Path(f).name for f in found["files"]] == ["r.png", "r.npz"]
    assert {"iou", "mask_iou", "local_iou", "depth_l1"} <= set(found)
    with np.load(tmp_path / "r.npz") as held:
        assert held["occupancy"].shape == (3, 8, 8, 8)
        assert 0 <= held["occupancy"].min() <= held["occupancy"].max() <= 1
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.size[0] > 1.5 * picture.size[1]
    text = call("grasping", "reconstruct", runs["grasping"], "--n", 2, "--out", tmp_path / "t.png")
    assert text.code == 0, text.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grasping", "reconstruct", "graspcnn"), "the baseline has no shape to draw"),
        (("grasping", "plan", "betavae"), "this command serves grasping and graspcnn"),
        (("grasping", "plan", "grasping", "--labels", "mujoco"), "labelled by quasistatic"),
        (("grasping", "plan", "grasping", "--rgbd", "x.npz"), "needs both --rgbd and --seed-pose"),
        (("traverse", "grasping"), "has no `distk traverse`"),
        (("sample", "grasping"), "has no `distk sample`"),
    ],
)
def test_what_is_refused(runs, words, said):
    words = tuple(runs.get(word, word) if i == (1 if words[0] in ("traverse", "sample") else 2) else word
                  for i, word in enumerate(words))  # fmt: skip
    found = call(*words)
    assert found.code == 2, found.err
    assert said in found.err


def test_eval(runs, tmp_path):
    said = call("eval", runs["grasping"], "--metric", "grasp-accuracy", "--metric", "grasp-shape", "--json", "--out",
                tmp_path / "e.json")  # fmt: skip
    assert said.code == 0, said.err
    found = json.loads(said.out)["metrics"]
    assert {"all_15", "cup_60", "seen", "novel"} <= set(found["grasp-accuracy"])
    assert 0 <= found["grasp-shape"]["iou"] <= 1
