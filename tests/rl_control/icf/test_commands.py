"""The commands on really trained small models, and the messages for wrong use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distk
from distk import UsageError, open_dataset


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Small trained models: icf of one and of two steps, and icf-discrete."""
    folder = tmp_path_factory.mktemp("runs")
    maze = {"data": "maze", "grid": 4, "size": 12, "device": "cpu", "quiet": True, "encoder": "mlp", "steps": 60}
    one = {"batch": 15, "factors": 16, "lr": 3e-3, "entropy_steps": 40}
    return {
        "one": distk.train("icf", out=folder / "one", **maze, **one).path,
        "two": distk.train("icf", out=folder / "two", steps_per_policy=2, k=3, **maze, **one).path,
        "discrete": distk.train("icf-discrete", out=folder / "discrete", **maze, batch=15, k=3).path,
    }


@pytest.fixture
def distk_command(capsys):
    """Run `distk ...` in this process; returns stdout."""

    def run(*arguments):
        from distk.cli import build

        build().main(args=[str(a) for a in arguments], prog_name="distk", standalone_mode=False)
        return capsys.readouterr().out

    return run


def opened(path):
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return image.format, getattr(image, "n_frames", 1)


@pytest.mark.parametrize("which", ["one", "two", "discrete"])
def test_factors_rollout_predict_plan(runs, which, distk_command, tmp_path):
    run = runs[which]
    found = json.loads(
        distk_command("icf", "factors", run, "--n", 50, "--state", "0,1", "--out", tmp_path / "f.png", "--json")
    )
    assert sum(found["preferred"].values()) == pytest.approx(1)
    assert found["state"] == "row 0, column 1"
    assert len(found["phi"][0]) == {"one": 2, "two": 3, "discrete": 3}[which]
    assert [sum(p) for p in found["probabilities"]] == pytest.approx([1] * len(found["probabilities"]), abs=1e-5)
    assert opened(tmp_path / "f.png") == ("PNG", 1)

    found = json.loads(distk_command("icf", "rollout", run, "--steps", 4, "--out", tmp_path / "r.gif", "--json"))
    assert len(found["actions"]) == 4
    assert opened(found["files"][0])[0] == "GIF"
    assert opened(found["files"][1])[0] == "PNG"

    found = json.loads(distk_command("predict", run, "--n", 3, "--out", tmp_path / "p.png", "--json"))
    assert found["model"].startswith("decoder(T(h, phi))" if which == "two" else "decoder(h + dh)")
    assert found["latent_error"] >= 0

    arguments = ("icf", "plan", run, "--start", "0,0", "--goal", "1,1", "--out", tmp_path / "plan.png")
    found = json.loads(distk_command(*arguments, "--json"))
    env = open_dataset("maze", {"grid": 4, "size": 12})
    place = env.factors(torch.arange(15)).tolist().index([0, 0])
    for sequence in found["order"]:
        for name in sequence.split():
            place = int(env.next_rows[place, env.spec.extra["action_names"].index(name)])
    assert found["reached"] == (env.factors(torch.tensor(place)).tolist() == [1, 1])
    assert "decomposition" in distk_command(*arguments)


def test_the_generic_commands_serve_icf(runs, distk_command, tmp_path):
    result = json.loads(distk_command("eval", runs["one"], "--metric", "icf", "--json"))
    assert 1 <= result["metrics"]["icf"]["modes"] <= result["metrics"]["icf"]["effects"]
    distk_command("traverse", runs["one"], "--out", tmp_path / "t.png")
    distk_command("reconstruct", runs["discrete"], "--out", tmp_path / "r.png")
    assert (tmp_path / "r.png").exists()


def test_phi_from_a_file(runs, distk_command, tmp_path):
    good = tmp_path / "z.json"
    good.write_text("[[0.5, -1.0], [2, 0]]")
    found = json.loads(
        distk_command(
            "icf", "rollout", runs["one"], "--phi-from", good, "--out", tmp_path / "r.gif", "--steps", 2, "--json"
        )
    )
    assert found["z"] == [[0.5, -1.0], [2.0, 0.0]]
    for text, message in (("[1, 2, 3]", "shape"), ("{", "no noise"), ('["a", "b"]', "no noise"), ("[]", "shape")):
        good.write_text(text)
        with pytest.raises(UsageError, match=message):
            distk_command("icf", "rollout", runs["one"], "--phi-from", good, "--out", tmp_path / "r.gif")


@pytest.mark.parametrize("state", ["9,9", "x", "1,2,3", "99", "-1"])
def test_states_that_do_not_exist(runs, distk_command, state):
    with pytest.raises(UsageError, match="write a row from 0 to 14, or 2 values: row, column"):
        distk_command("icf", "factors", runs["one"], f"--state={state}")


def test_another_methods_checkpoint(distk_command, tmp_path):
    run = distk.train("cascadevae", preset="demo", steps=0, device="cpu", quiet=True, out=tmp_path / "run")
    for command in ("icf factors", "icf rollout", "icf predict", "icf plan"):
        with pytest.raises(UsageError, match="this command serves icf and icf-discrete"):
            distk_command(*command.split(), run.path)


def test_from_a_shell(tmp_path):
    """A user's path: train by name with --data, then plan, in real processes, with the newest run found by itself."""
    distk_at = Path(sys.executable).with_name("distk")
    options = "--encoder mlp --grid 4 --size 12 --steps 20 --batch 15 --factors 8 --device cpu"
    train = [distk_at, "train", "icf", "--data", "maze", *options.split()]
    done = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [distk_at, "icf", "plan", "--start", "0,0", "--goal", "7,7"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "has no state 7,7" in done.stderr


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("icf", {"sigma": "big"}, "sigma must be relative, paper or a positive number"),
        ("icf", {"factors": 1}, "below the smallest allowed value 2"),
        ("icf", {"encoder": "conv", "data": "maze", "grid": 5, "size": 15}, "use --encoder mlp"),
        ("icf", {"estimator": "all-actions", "steps_per_policy": 4}, "1,296 sequences.*--estimator reinforce"),
        ("icf", {"data": "dsprites"}, "learns from environment data"),
        ("icf-discrete", {"k": 1}, "below the smallest allowed value 2"),
        ("icf", {"data": "gym"}, "gym:ID|distk\\[gym\\]"),
    ],
)
def test_bad_settings(method, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        distk.train(method, steps=1, batch=4, device="cpu", quiet=True, out=tmp_path / "run", **options)


def test_inner_kernel_with_the_simplex_warns(capsys, tmp_path):
    from distk.plugins.rl_control.icf.method import Config

    Config(kernel="inner", output_map="simplex")
    assert "only increases of h" in capsys.readouterr().err


def test_a_stranger_environment_without_branching():
    """A duck-typed environment of a third party: needs only reset, step, render, and says that it cannot branch."""
    from distk import DataSpec, Source, seeded
    from distk.plugins.rl_control.icf.method import ICF, Config

    class Line:
        device = torch.device("cpu")
        spec = DataSpec("environment", (1, 8, 8), extra={"actions": 2, "branching": False})
        resets = 0

        def reset(self, n, generator):
            self.resets += 1
            return torch.full((n,), 4)

        def step(self, state, action):
            self.valid = (state < 6).float()
            return (state + 2 * action - 1).clamp(0, 7)

        def render(self, state):
            return (torch.arange(8) == state[:, None]).float()[:, None, None, :].expand(-1, 1, 8, -1)

    with pytest.raises(ValueError, match="--estimator reinforce"):
        ICF(Config(estimator="all-actions", encoder="mlp"), Line.spec)
    model = ICF(Config(encoder="mlp", factors=4), Line.spec)
    assert model.estimator == "reinforce"
    env, g = Line(), seeded(0, torch.device("cpu"))
    batches = [model.collect(Source(env, 6, g)) for _ in range(40)]
    assert env.resets == 1
    assert any(0 < float(b["valid"].sum()) < 6 for b in batches)
    assert model.capturable is not True
    with pytest.raises(ValueError, match="Discrete actions"):
        ICF(Config(), DataSpec("environment", (3, 64, 64)))
