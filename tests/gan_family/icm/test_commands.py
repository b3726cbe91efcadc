"""`distk icm ...` and its generic neighbours on real files, through the program's own entry point."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distk import checkpoint
from distk.plugins.gan_family.icm.assembly import assembled
from distk.sheet import bare


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the demo with two replicas."""
    import distk

    path = tmp_path_factory.mktemp("icm") / "run"
    settings = {"width": 4, "hidden": 16, "identity_iters": 4, "replicas": 2, "experts": 3}
    distk.train("icm", preset="demo", out=path, quiet=True, steps=8, device="cpu", **settings)
    return path


def grey(path: Path, height: int, width: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(random.getrandbits(64)).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return values


def test_apply_one_expert_to_a_folder_of_images_of_any_size(run_folder: Path, distk_command, in_folder: Path) -> None:
    values = grey(in_folder / "in" / "a.png", 21, 34)
    grey(in_folder / "in" / "deeper" / "a.png", 16, 16)
    code, out, err = distk_command(
        "icm", "apply", run_folder, "--images", "in", "--expert", 2, "--replica", 1, "--out", "o", "--json"
    )
    assert code == 0, err
    files = json.loads(out)["files"]
    assert files == ["o/a.expert2.png", "o/deeper/a.expert2.png"]
    model, _ = checkpoint.load(run_folder / "checkpoint.safetensors")
    model.shown = 1
    with torch.no_grad():
        expected = model.expert(2)(torch.tensor(values)[None, None] / 255)[0, 0, 0]
    made = np.asarray(bare(in_folder / files[0]))
    assert made.shape == (21, 34, 3)
    assert np.abs(made[:, :, 0] / 255 - expected.numpy()).max() < 1 / 255


def test_apply_the_winner_to_data_and_to_images(run_folder: Path, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command(
        "icm", "apply", run_folder, "--mechanism", "mixture", "--n", 8, "--out", "o", "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert len(told["results"]) == 8
    assert all(0 <= r["expert"] < 3 for r in told["results"])
    assert (in_folder / told["files"][0]).exists()
    grey(in_folder / "ok.png", 16, 16)
    assert distk_command("icm", "apply", run_folder, "--images", "ok.png", "--out", "o")[0] == 0


def test_apply_refuses_what_it_cannot_take(run_folder: Path, distk_command, in_folder: Path) -> None:
    grey(in_folder / "large.png", 30, 30)
    colour = np.random.default_rng(random.getrandbits(64)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(colour).save(in_folder / "colour.png")
    (in_folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    for arguments, expected, said in [
        (("--images", "large.png"), 2, "discriminator of 16x16"),
        (("--images", "colour.png"), 2, "--channels 1"),
        (("--images", "bad.png"), 1, "cannot be read"),
        (("--images", "nowhere"), 2, "no image and no folder"),
        (("--images", "large.png", "--expert", "3"), 2, "0 to 2"),
        (("--images", "large.png", "--expert", "1", "--mechanism", "rihgt"), 2, "Did you mean 'right'"),
        (("--images", "large.png", "--data", "digits28"), 2, "not both"),
        (("--replica", "2"), 2, "replicas 0 to 1"),
    ]:
        code, _, err = distk_command("icm", "apply", run_folder, *arguments, "--out", "o")
        assert code == expected, (arguments, err)
        assert said in err
        assert err.count("\n") <= 3
    assert distk_command("icm", "apply", run_folder, "--images", "colour.png", "--channels", 1, "--out", "o")[0] == 0


def test_grid_has_a_row_per_expert(run_folder: Path, distk_command, in_folder: Path) -> None:
    code, out, err = distk_command(
        "icm", "grid", run_folder, "--data", "strokes28", "--n", 5, "--out", "g.png", "--json"
    )
    assert code == 0, err
    assert [s["expert"] for s in json.loads(out)["shifts"]] == [0, 1, 2]
    picture = bare(in_folder / "g.png")
    assert picture.height == 4 * 50 + 2
    assert picture.width == 5 * 50 + 2


def test_list_tells_every_experts_share(run_folder: Path, distk_command) -> None:
    code, out, err = distk_command("icm", "experts", run_folder, "--images", 200, "--json")
    assert code == 0, err
    experts = json.loads(out)["experts"]
    assert sum(e["win_share"] for e in experts) == pytest.approx(1)
    assert set(experts[0]["shares"]) == {"right:2", "up:2", "invert", "noise:0.5"}
    mean = np.mean([[e["shares"][k] for k in e["shares"]] for e in experts], axis=1)
    assert mean == pytest.approx([e["win_share"] for e in experts], abs=0.02)
    assert "matched mechanism" in distk_command("icm", "experts", run_folder, "--images", 50)[1]


def test_experts_are_dropped_exported_added_and_trained_on(run_folder: Path, distk_command, in_folder: Path) -> None:
    original, _ = checkpoint.load(run_folder / "checkpoint.safetensors")
    x = torch.rand(3, 1, 16, 16)

    def outputs(path: str, *numbers: int) -> torch.Tensor:
        with torch.no_grad():
            return checkpoint.load(in_folder / path)[0].experts(x)[:, list(numbers)]

    with torch.no_grad():
        before = original.experts(x)
    assert distk_command("icm", "drop", run_folder, "--expert", 1, "--replica", 1, "--out", "less")[0] == 0
    assert torch.allclose(outputs("less/checkpoint.safetensors", 0, 1), before[:, [3, 5]], atol=1e-6)
    assert distk_command("icm", "export", run_folder, "--expert", 2, "--out", "one.safetensors")[0] == 0
    assert torch.allclose(outputs("one.safetensors", 0), before[:, [2]], atol=1e-6)
    code, out, err = distk_command(
        "icm", "add", "less", "--from", "one.safetensors", "--fresh", 2, "--out", "more", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["experts"] == 5
    assert torch.allclose(outputs("more/checkpoint.safetensors", 0, 1, 2), before[:, [3, 5, 2]], atol=1e-6)
    made, _ = checkpoint.load(in_folder / "more/checkpoint.safetensors")
    assert made.pending.tolist() == [0, 0, 0, 1, 1]
    assert all(torch.equal(v, original.critic.state_dict()[k][1:2]) for k, v in made.critic.state_dict().items())
    # The first four steps only pre-train the fresh ones.
    assert distk_command("resume", "more", "--steps", 4)[0] == 0
    after, _ = checkpoint.load(in_folder / "more/checkpoint.safetensors")
    moved = (after.experts.weight[1] != made.experts.weight[1]).flatten(1).any(1)
    assert moved.tolist() == [False, False, False, True, True]
    assert distk_command("resume", "more", "--steps", 6)[0] == 0
    # A smaller set has nothing to pre-train and competes at once.
    assert checkpoint.read_header(in_folder / "less/checkpoint.safetensors").step == 4
    assert distk_command("resume", "less", "--steps", 6)[0] == 0


def test_taking_apart_refuses_nonsense(run_folder: Path, distk_command, in_folder: Path) -> None:
    import distk

    settings = {"width": 5, "hidden": 16, "identity_iters": 0}
    distk.train("icm", preset="demo", out=in_folder / "other", quiet=True, steps=1, device="cpu", **settings)
    (in_folder / "there").mkdir()
    (in_folder / "there" / "checkpoint.safetensors").write_bytes(b"keep me")
    for arguments, said in [
        (("drop", run_folder, "--out", "a"), "say which experts"),
        (("drop", run_folder, "--expert", 3, "--out", "a"), "0 to 2"),
        (("drop", run_folder, "--expert", 0, "--expert", 1, "--expert", 2, "--out", "a"), "at least one"),
        (("drop", run_folder, "--expert", 0, "--out", "there"), "exists already"),
        (("add", run_folder, "--out", "a"), "say what to add"),
        (("add", run_folder, "--from", "other", "--out", "a"), "width 5"),
        (("export", run_folder, "--expert", 7, "--out", "a"), "0 to 2"),
    ]:
        code, _, err = distk_command("icm", *arguments)
        assert code == 2, (arguments, err)
        assert said in err
    assert (in_folder / "there" / "checkpoint.safetensors").read_bytes() == b"keep me"
    assert not (in_folder / "a").exists()


def test_commands_of_other_methods(run_folder: Path, distk_command, in_folder: Path) -> None:
    for command in ("traverse", "reconstruct", "swap"):
        code, _, err = distk_command(command, run_folder)
        assert code == 2
        assert "distk icm" in err
    code, _, err = distk_command("sample", run_folder, "--n", 4, "--out", "s.png")
    assert code == 0, err
    picture = bare(in_folder / "s.png")
    # Four pairs in two columns; a pair is 16 wide and 32 high, doubled, with 2 pixels between pairs.
    assert picture.size == (2 * (32 + 2) + 2, 2 * (64 + 2) + 2)


def test_eval_writes_every_score(run_folder: Path, distk_command) -> None:
    code, out, err = distk_command(
        "eval",
        run_folder,
        "--metric",
        "icm",
        "--set",
        "images=120",
        "--set",
        "classifier-steps=5",
        "--set",
        "transfer-images=10",
        "--json",
    )
    assert code == 0, err
    result = json.loads(out)["metrics"]["icm"]
    assert np.asarray(result["win_matrix"]).shape == (2, 4, 3)
    assert np.asarray(result["win_matrix"]).sum(2) == pytest.approx(np.ones((2, 4)))
    assert 0 <= result["accuracy"] <= 1
    assert np.asarray(result["mse_per_mechanism"]).shape == (2, 4)
    assert result["mse_before_per_mechanism"][2] > 0.5
    assert {"purity", "specialised", "one_to_one", "winners", "nmi", "transfer_mse", "shifts_undone"} <= set(result)
    _, out, _ = distk_command(
        "eval",
        run_folder,
        "--metric",
        "icm",
        "--set",
        "images=60",
        "--set",
        "classifier-steps=0",
        "--set",
        "generalise=",
        "--json",
    )
    assert "accuracy" in json.loads(out)["metrics"]["icm"]["reasons"]


def test_assembling_keeps_the_order_given(run_folder: Path) -> None:
    model, _ = checkpoint.load(run_folder / "checkpoint.safetensors")
    made = assembled(model, [(model, [2, 0])], 0, 1)
    assert torch.equal(made.experts.weight[0], model.experts.weight[0][[2, 0]])
    assert made.config.number == 2
