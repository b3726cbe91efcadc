"""Seeds side by side: each replica is the run trained alone. And the profile of a step."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from distk import Dataset, DataSpec, Latent, LatentSpace, Method, Objective, adam, checkpoint
from distk.data import Files
from distk.device import own_randomness, randomness
from distk.errors import DistkError, UsageError
from distk.settings import TrainConfig, resolve
from distk.training import loop, profile, replicas, signals
from distk.training.trainer import Trainer

_spec = importlib.util.spec_from_file_location("soak", Path(__file__).parents[3] / "benchmarks" / "soak.py")
soak = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(soak)

CPU = torch.device("cpu")
SMALL = {
    "model": {"z": 2, "hidden": 8, "warmup": 4, "relieve_every": 2},
    "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 6},
    "train": {"batch": 8, "device": "cpu", "log_every": 3, "steps": 7},
}


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    soak.warm()


def seeds(*wanted: int, **train):
    return [resolve("cascadevae", options={**SMALL, "train": {**SMALL["train"], **train, "seed": s}}) for s in wanted]


def test_side_by_side_each_replica_is_the_run_trained_alone(tmp_path) -> None:
    together = seeds(3, 4, 5)
    runs = replicas.side_by_side(together, [tmp_path / f"s{s}" for s in (3, 4, 5)], CPU, quiet=True)
    for one, run in zip(together, runs, strict=True):
        loop.train(one, tmp_path / f"alone{one.train.seed}", quiet=True)
        assert soak.differences(tmp_path / f"alone{one.train.seed}", run.path) == []
    weights = [checkpoint.load(run.checkpoint)[0].state_dict()["encoder.body.0.weight"] for run in runs]
    assert not torch.equal(weights[0], weights[1])


class Forked(soak.Process):
    """Stands in for subprocess.Popen: the same command in a fork of this process, which has torch imported already."""

    def __init__(self, command: list[str], env: dict[str, str], **_) -> None:
        super().__init__(command[3:], Path.cwd(), **env)

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@pytest.mark.parametrize("real", [pytest.param(True, marks=pytest.mark.slow), False], ids=["started", "forked"])
def test_in_processes_each_replica_is_the_run_trained_alone(tmp_path, monkeypatch, real) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if not real:
        monkeypatch.setattr(replicas.forks, "begun", lambda environment, modules: None)
        monkeypatch.setattr(replicas.subprocess, "Popen", Forked)
    runs = replicas.train_seeds(seeds(0, 1), tmp_path / "many", quiet=True)
    assert [run.path for run in runs] == [tmp_path / "many/s0", tmp_path / "many/s1"]
    for one, run in zip(seeds(0, 1), runs, strict=True):
        loop.train(one, tmp_path / f"alone{one.train.seed}", quiet=True)
        assert soak.differences(tmp_path / f"alone{one.train.seed}", run.path) == []


def test_a_replica_that_fails_is_named_and_the_others_finish(tmp_path, monkeypatch) -> None:
    begun = loop.start

    def start(settings, *arguments):
        session = begun(settings, *arguments)
        if settings.train.seed == 1:
            loss = session.trainer.objectives[0].loss
            session.trainer.objectives[0].loss = lambda step: loss(step) * torch.nan
        return session

    monkeypatch.setattr(replicas, "start", start)
    with pytest.raises(DistkError, match=r"1 of 3 seeds failed\. seed 1: objective 'loss' became non-finite at step 0"):
        replicas.side_by_side(seeds(0, 1, 2), [tmp_path / f"s{s}" for s in range(3)], CPU, quiet=True)
    for s, step in ((0, 7), (1, 0), (2, 7)):
        assert checkpoint.read_header(tmp_path / f"s{s}/checkpoint.safetensors").step == step


def test_a_stopped_set_of_seeds_can_be_resumed_one_by_one(tmp_path, monkeypatch) -> None:
    many = seeds(0, 1, steps=50)
    taken = loop.steps

    def steps(session):
        for _ in taken(session):
            if session.trainer.index == 3:
                session.stop.signal = signal.SIGTERM
            yield

    monkeypatch.setattr(replicas, "steps", steps)
    with pytest.raises(signals.Interrupted) as stopped:
        replicas.side_by_side(many, [tmp_path / "s0", tmp_path / "s1"], CPU, quiet=True)
    assert stopped.value.exit_code == 143
    assert str(stopped.value).count("distk resume") == 2
    for one in seeds(0, 1):
        folder = tmp_path / f"s{one.train.seed}"
        assert 2 <= checkpoint.read_header(folder / "checkpoint.safetensors").step < 6
        loop.resume(folder, steps=7, quiet=True)
        loop.train(one, tmp_path / f"alone{one.train.seed}", quiet=True)
        assert not [d for d in soak.differences(tmp_path / f"alone{one.train.seed}", folder) if "log" not in d]


@pytest.mark.slow
def test_a_signal_reaches_the_processes_of_all_seeds(tmp_path) -> None:
    train = ["train", *soak.SMALL, "--steps", "100000", "--seeds", "0:2", "--out", "many"]
    process = soak.Process(train, tmp_path)
    deadline = time.monotonic() + 400
    while not all((tmp_path / f"many/s{s}/checkpoint.safetensors").exists() for s in (0, 1)):
        assert process.poll() is None, process.said()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(200) == 143, process.said()
    said = " ".join(process.said().split())
    assert "distk resume many/s0" in said
    assert "distk resume many/s1" in said


def test_a_kill_of_the_parent_leaves_no_settings_behind(tmp_path) -> None:
    """Killed while its processes start: nothing lies in the folder for temporary files, and a run's folder is clean as
    soon as somebody takes it."""
    passing = tmp_path / "passing"
    passing.mkdir()
    train = ["train", *soak.SMALL, "--steps", "4", "--seeds", "0:2", "--out", "many"]
    process = soak.Process(train, tmp_path, TMPDIR=str(passing))
    deadline = time.monotonic() + 200
    while not list((tmp_path / "many").glob("s*/.config.toml.*.tmp")):
        assert process.poll() is None, process.said()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert not list(passing.iterdir())
    time.sleep(1)  # its processes end with it
    begun = (tmp_path / "many/s0/checkpoint.safetensors").exists()  # a child that was quicker than we looked
    words = ["resume", "many/s0"] if begun else ["train", *soak.SMALL, "--steps", "4", "--out", "many/s0"]
    again = soak.Process(words, tmp_path)
    assert again.wait(200) == 0, again.said()
    assert not list((tmp_path / "many" / "s0").glob(".config*"))


def test_a_seed_whose_folder_cannot_be_written_is_named_and_the_others_finish(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(replicas, "own_folder", _refusing(tmp_path / "s1", replicas.own_folder))
    with pytest.raises(DistkError, match=r"1 of 2 seeds failed\. seed 1: cannot write to run folder '.*s1': No space"):
        replicas.in_processes(seeds(0, 1, steps=2), [tmp_path / "s0", tmp_path / "s1"], quiet=True)
    assert checkpoint.read_header(tmp_path / "s0/checkpoint.safetensors").step == 2
    assert not list((tmp_path / "s0").glob(".config*"))


def _refusing(place: Path, real):
    def make(path: Path) -> None:
        if path == place:
            raise OSError(28, "No space left on device")
        real(path)

    return make


class Numbers(Dataset):
    def __init__(self) -> None:
        super().__init__(None, CPU, Files("n", None, ""))
        self.name, self.origin, self.spec = "numbers", "test", DataSpec("vector", (6,))

    def __len__(self) -> int:
        return 100

    def batch(self, rows):
        return {"x": rows[:, None].float().expand(-1, 6) / 100}


class Dropping(Method):
    """A network with dropout, which draws from the global generator."""

    latents = LatentSpace.of(Latent("z", "continuous", 1))

    def __init__(self) -> None:
        super().__init__(None, DataSpec("vector", (6,)))
        self.net = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3, bias=False))

    def objectives(self):
        loss = lambda step: self.net(step.batch["x"]).square().mean()  # noqa: E731
        return [Objective("l", loss, self.parameters(), adam(0.1))]


def test_replicas_do_not_share_the_global_generator() -> None:
    def make(seed: int) -> Trainer:
        torch.manual_seed(seed)
        return Trainer(Dropping().train(), Numbers(), TrainConfig(batch=4, device="cpu", seed=seed))

    alone = []
    for seed in (0, 1):
        trainer = make(seed)
        for _ in range(4):
            trainer.step()
        alone.append(trainer.model.net[0].weight.detach().clone())
    pairs = []
    for seed in (0, 1):
        trainer = make(seed)
        pairs.append((trainer, randomness(CPU)))
    for _ in range(4):
        for trainer, states in pairs:
            with own_randomness(states, CPU):
                trainer.step()
    for (trainer, _), weight in zip(pairs, alone, strict=True):
        assert torch.equal(trainer.model.net[0].weight, weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "3"], "write A:B, for example 0:5"),
        (["--seeds", "5:2"], "write A:B"),
        (["--seeds", "0:2", "--seed", "1"], "--seed and --seeds exclude each other"),
    ],
)
def test_wrong_seeds_are_one_sentence(in_folder, monkeypatch, capsys, arguments, message) -> None:
    from distk.cli import main

    monkeypatch.setattr(sys, "argv", ["distk", "train", "cascadevae", *arguments])
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_seeds_under_torchrun_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="without torchrun"):
        replicas.train_seeds(seeds(0, 1))


def test_seeds_as_json_are_one_document(in_folder, monkeypatch, capsys) -> None:
    from distk.cli import main

    monkeypatch.setattr(replicas, "in_processes", lambda s, f, q: replicas.side_by_side(s, f, CPU, q))
    monkeypatch.setattr(sys, "argv", ["distk", "train", *soak.SMALL, "--steps", "4", "--seeds", "6:8", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = json.loads(capsys.readouterr().out)
    assert [(run["seed"], run["step"]) for run in said["runs"]] == [(6, 4), (7, 4)]
    assert all(re.search(rf"-s{run['seed']}$", run["run"]) for run in said["runs"])


# The profile


def test_the_floor_counts_every_multiply_add_of_a_step() -> None:
    class Plain(Dropping):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3, bias=False))

    trainer = Trainer(Plain(), Numbers(), TrainConfig(batch=4, device="cpu"))
    found = profile.floor(trainer)
    # Forward, the weights' gradients, and the input's gradient of the second layer only.
    assert found["multiply_adds"] == 4 * (6 * 5 + 5 * 3) * 2 + 4 * 5 * 3
    assert found["bytes"] > 4 * 4 * (6 * 5 + 5 * 3), "at least the weights are read"
    assert found["floor_ms"] == max(found["arithmetic_ms"], found["memory_ms"]) > 0


@pytest.fixture(scope="module")
def found() -> dict:
    return profile.profile(seeds(0)[0], steps=5)


def test_the_profile_says_where_the_time_goes(found, capsys) -> None:
    names = [row["name"] for row in found["parts"]]
    assert {"batch", "loss", "backward", "optimizer"} <= set(names)
    assert sum(row["share"] for row in found["parts"]) == pytest.approx(1, abs=0.1)
    assert all(0 <= row["share"] < 1 for row in found["parts"] + found["operations"])
    assert any("conv" in row["name"] for row in found["operations"])
    assert found["floor"]["times_floor"] > 0.05
    assert found["steps"] == 5
    profile.show(found)
    said = capsys.readouterr().out
    for word in ("loss", "backward", "multiply-adds", "bytes moved", "times as long"):
        assert word in said


def test_the_profile_keeps_no_run(found, in_folder, monkeypatch, capsys) -> None:
    from distk.cli import main

    monkeypatch.setattr(profile, "profile", lambda settings: {**found, "batch": settings.train.batch})
    monkeypatch.setattr(sys, "argv", ["distk", "train", *soak.SMALL, "--profile", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = json.loads(capsys.readouterr().out)
    assert said["method"] == "cascadevae"
    assert said["batch"] == 8
    assert said["step_ms"] > 0
    assert not (in_folder / "runs").exists()
