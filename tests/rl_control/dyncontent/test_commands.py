"""`distk dyncontent plan`, `predict` and `map`: what they say and write, and what they refuse."""

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
from distk.plugins.rl_control.dyncontent.metrics import foretold_nll
from distk.sheet import bare

TINY = {"hidden": 12, "transition_hidden": 6, "batch": 8, "steps": 2, "device": "cpu", "quiet": True}
SMALL = {"count": 60, "second": 40, "held_out": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for method in ("dyncontent", "rce"):
        distk.train(method, out=folder / method, **TINY, **SMALL)
    distk.train("rce", data="transitions", count=40, out=folder / "other", **TINY)
    distk.train("betavae", data="blobs", out=folder / "betavae", steps=1, batch=4, device="cpu", quiet=True)
    return {name: folder / name for name in ("dyncontent", "rce", "other", "betavae")}


def call(*words: object) -> SimpleNamespace:
    """`distk WORDS --device cpu` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["distk", *map(str, words), "--device", "cpu"])
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def test_plan(runs, tmp_path):
    said = call("dyncontent", "plan", runs["dyncontent"], "--runs", 3, "--horizon", 4, "--iterations", 1, "--json",
                "--gif", "--out", tmp_path / "p.png")  # fmt: skip
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert [Path(f).name for f in found["files"]] == ["p.png", "p.npz", "p.gif"]
    with np.load(tmp_path / "p.npz") as held:
        for name in ("x", "y"):
            assert held[f"states_{name}"].shape == (3, 5, 2)
            assert np.abs(held[f"actions_{name}"]).max() <= 3
            starts = held[f"states_{name}"][:, 0]
            assert ((starts >= 3) & (starts <= 7)).all()
            assert found["plans"][name]["cost"] == pytest.approx(held[f"cost_{name}"].mean(), rel=1e-5)
            # The cost by its formula, from what was written.
            away = (held[f"states_{name}"][:, :-1] - 37) / 20
            cost = (away**2).sum((1, 2)) + ((held[f"actions_{name}"] / 20) ** 2).sum((1, 2))
            assert np.allclose(cost, held[f"cost_{name}"], rtol=1e-5)
    with Image.open(tmp_path / "p.gif") as film:
        assert film.n_frames == 5


def test_plan_from_a_place_to_a_place(runs, tmp_path):
    said = call("dyncontent", "plan", runs["rce"], "--runs", 1, "--horizon", 2, "--start", "5,6", "--goal", "5,8",
                "--iterations", 1, "--open-loop", "--out", tmp_path / "q.png")  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "1 plan of 2 moves" in said.stdout
    with np.load(tmp_path / "q.npz") as held:
        assert set(held.files) == {"states_x", "actions_x", "cost_x", "success_x"}
        assert held["states_x"][0, 0].tolist() == [5.0, 6.0]


def test_plans_of_one_seed_are_the_same(runs, tmp_path):
    costs = []
    for name in ("a", "b"):
        said = call("dyncontent", "plan", runs["rce"], "--runs", 2, "--horizon", 2, "--iterations", 1, "--seed", 5,
                    "--json", "--out", tmp_path / f"{name}.png")  # fmt: skip
        costs.append(json.loads(said.stdout)["plans"])
    assert costs[0] == costs[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--start", "20,5"), "--start 20,5 is in an obstacle; the nearest place for the agent is"),
        (("--goal", "0,12"), "--goal 0,12 lies outside 1.5 to 38.5; the nearest place for the agent is 2,12"),
        (("--start", "5"), "--start '5' is not row,column, such as 5,5"),
        (("--goal", "nan,4"), "is not row,column"),
        (("--horizon", "0"), "--horizon"),
        (("--state-cost", "-1"), "must be positive"),
        (("--action-cost", "nan"), "must be positive"),
    ],
)
def test_bad_plans_are_refused_in_a_sentence(runs, words, said):
    found = call("dyncontent", "plan", runs["dyncontent"], *words)
    assert found.returncode == 2
    assert said in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr


def test_only_models_with_a_transition_plan(runs):
    found = call("dyncontent", "plan", runs["betavae"])
    assert found.returncode == 2
    assert "this command serves dyncontent and rce" in " ".join(found.stderr.split())
    found = call("dyncontent", "map", runs["other"])
    assert found.returncode == 2
    assert "acts in the planar world; this model was trained on 'transitions'" in " ".join(found.stderr.split())


def test_predict_is_the_generic_command_too(runs, tmp_path):
    """Its figures are those of the model itself: no action, one action, and nothing changing."""
    said = call("predict", runs["dyncontent"], "--n", 6, "--steps", 2, "--json", "--out", tmp_path / "p.png")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert len(found["errors"]) == len(found["errors_of_no_change"]) == 3
    assert found["errors"][0] == found["errors_of_no_change"][0]
    with bare(tmp_path / "p.png") as picture:
        assert picture.size[1] > 3 * picture.size[0]  # 12 rows of 3
    text = call("dyncontent", "predict", runs["rce"], "--n", 2, "--steps", 1, "--out", tmp_path / "q.png")
    assert text.returncode == 0, text.stderr
    assert "nats if nothing changed" in " ".join(text.stdout.split())


def test_map_and_swap(runs, tmp_path):
    said = call("dyncontent", "map", runs["dyncontent"], "--json", "--out", tmp_path / "m.png")
    assert json.loads(said.stdout)["states"] == 1273
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size[0] == 1020, "three panels in a column of 3.4 inches"
    # A frame of X (row 0) and one of Y (row 60): dynamics of one with the content of the other.
    said = call("swap", runs["dyncontent"], "--group", "content", "--a", 0, "--b", 60, "--out", tmp_path / "s.png")
    assert said.returncode == 0, said.stderr


def test_scores(runs):
    model = distk.load(runs["dyncontent"], "cpu")
    found = distk.evaluate(model, ["planar-table", "latent-map"], runs=2, horizon=2)["metrics"]
    table, chart = found["planar-table"], found["latent-map"]
    data = open_dataset("planar", SMALL)
    batch = data.batch(data.rows("y-test"))
    with torch.no_grad():
        expected = foretold_nll(model, batch["x"], batch["u"], batch["x_next"])
    assert table["prediction_y"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert table["prediction_y_sd"] == pytest.approx(float(expected.std(correction=0)), rel=1e-4)
    assert 0 <= table["success_x"] <= 1
    assert {"alignment", "leak_z", "content_w", "r2_y"} <= set(chart)
    alone = distk.evaluate(distk.load(runs["rce"], "cpu"), ["planar-table"], runs=2, horizon=2)["metrics"][
        "planar-table"
    ]
    assert "prediction_x" in alone
    other = distk.evaluate(distk.load(runs["other"], "cpu"), ["planar-table"])["metrics"]["planar-table"]
    assert "planning_x" in other["reasons"]
