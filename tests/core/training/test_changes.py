"""Taking up a run: what may change and what is refused, a finished run, a moved folder, data that lie elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distk
from distk import UsageError, checkpoint
from distk.config import hints
from distk.settings import TrainConfig
from distk.training.changes import MAY_CHANGE, settings_of
from distk.training.loop import resume

Call = Callable[..., tuple[int, str, str]]
TINY = {"positions": 6, "size": 32, "steps": 4, "batch": 4, "log_every": 2, "device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of betavae, 4 steps of 4."""
    return distk.train("betavae", data="blobs", beta=2.0, out=tmp_path_factory.mktemp("runs") / "r", **TINY).path


@pytest.fixture
def run(trained: Path, in_folder: Path) -> Path:
    shutil.copytree(trained, "run")
    return Path("run")


def header(run: Path) -> checkpoint.Header:
    return checkpoint.read_header(run / "checkpoint.safetensors")


def edit(run: Path, old: str, new: str) -> None:
    text = (run / "config.toml").read_text()
    assert old in text
    (run / "config.toml").write_text(text.replace(old, new))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("more", [(), ("--steps", 4)])
def test_a_finished_run_says_so(
    distk_command: Call, run: Path, form: tuple[str, ...], more: tuple[object, ...]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, err = distk_command("resume", run, *more, *form)
    assert code == 0
    assert "the run in 'run' is finished: it stands at its last step, 4; `distk resume run --steps N`" in words(err)
    if form:
        assert json.loads(out)["step"] == 4
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("left", ["", ".step-0000004.png.0123456789abcdef.tmp"])
def test_a_finished_run_gets_the_picture_that_a_kill_prevented(distk_command: Call, run: Path, left: str) -> None:
    """Killed after its last checkpoint, and before or while the picture of it was written."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert run / "samples" / "step-0000004.png" in before
    (run / "samples" / "step-0000004.png").unlink()
    if left:
        (run / "samples" / left).write_bytes(b"half")
    code, _, err = distk_command("resume", run)
    assert code == 0
    assert "is finished" in words(err)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_fewer_steps_than_are_done_are_refused(distk_command: Call, run: Path) -> None:
    code, out, err = distk_command("resume", run, "--steps", 3)
    assert (code, out) == (2, "")
    assert "--steps 3: the run stands at step 4 already" in words(err)
    edit(run, "steps = 4", "steps = 1")
    code, _, err = distk_command("resume", run)
    assert code == 2
    assert "'run/config.toml' says steps = 1: the run stands at step 4 already" in words(err)


def test_what_was_trained_cannot_change(distk_command: Call, run: Path) -> None:
    for old, new, said in (
        ("beta = 2.0", "beta = 20.0", "model.beta = 20.0"),
        ("batch = 4", "batch = 5", "train.batch = 5"),
        ("positions = 6", "positions = 7", "data.positions = 7"),
        ("seed = 0", "seed = 1", "train.seed = 1"),
    ):
        edit(run, old, new)
        code, _, err = distk_command("resume", run, "--steps", 6)
        assert code == 2, err
        assert f"'run/config.toml' says {said}" in words(err)
        edit(run, new, old)
    for given in ("model.beta=3", "seed=4", "train.batch=9", "data.positions=5"):
        code, _, err = distk_command("resume", run, "--steps", 6, "--set", given)
        assert code == 2, err
        assert "cannot change in a run" in words(err)
    assert header(run).step == 4
    code, _, err = distk_command("resume", run, "--steps", 6, "--set", "log-every=none")
    assert code == 2
    assert "log-every" in err


def test_a_broken_or_foreign_config_is_refused(distk_command: Call, run: Path) -> None:
    for text, why in (
        ("[model", "cannot be read"),
        ('method = "cascadevae"\n', "is of method 'cascadevae'"),
        ("[model]\nnonsense = 1\n", "nonsense"),
    ):
        (run / "config.toml").write_text(text)
        code, _, err = distk_command("resume", run, "--steps", 6)
        assert code == 2, err
        assert why in words(err)
        assert "config.toml" in err


def test_what_may_change_takes_effect_and_is_recorded(distk_command: Call, run: Path) -> None:
    """By options and by the file alike: the log has the rows, checkpoint, config.toml and `distk info` the change."""
    code, _, err = distk_command("resume", run, "--steps", 6, "--set", "log-every=1", "--set", "model.lr=0.001")
    assert code == 0, err
    assert "changed from step 4 on: model.lr 0.0005 -> 0.001" in words(err)
    rows = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert rows == [2, 4, 5, 6]
    edit(run, "steps = 6", "steps = 8")
    edit(run, "eval = []", 'eval = ["active-units"]')
    assert distk_command("resume", run)[0] == 0
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert (last["step"], "active-units/active_units" in last) == (8, True)
    told = header(run)
    assert (told.train["steps"], told.config["lr"]) == (8, 0.001)
    settings = {(change["step"], change["setting"]) for change in told.metrics["changes"]}
    assert settings == {
        (4, "train.steps"),
        (4, "train.log_every"),
        (4, "model.lr"),
        (6, "train.steps"),
        (6, "train.eval"),
    }
    assert "lr = 0.001" in (run / "config.toml").read_text()
    out = words(distk_command("info", run)[1])
    assert "at step 4: model.lr 0.0005 -> 0.001" in out
    assert "at step 6: train.steps 6 -> 8" in out
    assert distk_command("resume", run)[0] == 0, "the file and the checkpoint agree again"


def test_another_learning_rate_moves_the_weights_by_it(run: Path) -> None:
    """Adam's first step after a rate of nothing: the weights stay, bit for bit."""
    still = checkpoint.tensors(run / "checkpoint.safetensors")
    resume(run, 5, quiet=True, changes={"model": {"lr": 1e-30}})
    moved = checkpoint.tensors(run / "checkpoint.safetensors")
    assert all(torch.equal(still[name], value) for name, value in moved.items())
    resume(run, 6, quiet=True, changes={"model": {"lr": 1e-3}})
    again = checkpoint.tensors(run / "checkpoint.safetensors")
    assert not all(torch.equal(still[name], value) for name, value in again.items())


def test_an_interrupted_run_goes_on_without_a_change(run: Path) -> None:
    before = (run / "config.toml").read_bytes()
    resume(run, 6, quiet=True)
    assert settings_of(header(run), run / "checkpoint.safetensors").train.steps == 6
    assert (run / "config.toml").read_bytes() != before, "the longer run is in the file, too"
    (run / "config.toml").unlink()
    resume(run, 7, quiet=True)
    assert not (run / "config.toml").exists()


def test_every_setting_that_may_change_is_one_and_the_arithmetic_is_none() -> None:
    assert set(hints(TrainConfig)) >= MAY_CHANGE
    assert not MAY_CHANGE & {"batch", "seed", "precision", "penalty", "penalty_weight", "penalty_layer", "init_from"}


# ------------------------------------------------------------------------------------------- folders that move


def test_a_run_folder_can_be_moved_and_copied(distk_command: Call, run: Path) -> None:
    Path("elsewhere/deep").mkdir(parents=True)
    shutil.copytree(run, "copy")
    run.rename("elsewhere/deep/moved")
    for folder in ("copy", "elsewhere/deep/moved"):
        for words_ in (["resume", folder, "--steps", 6], ["eval", folder, "-m", "active-units"], ["info", folder]):
            code, _, err = distk_command(*words_)
            assert code == 0, err
    first, second = (checkpoint.tensors(Path(f) / "checkpoint.safetensors") for f in ("copy", "elsewhere/deep/moved"))
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_a_relative_data_dir_is_found_from_everywhere(
    distk_command: Call, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file and the checkpoint name the whole path; where the data have moved, --data-dir says so for good."""
    Path("mine").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(f"mine/{i}.png")
    line = ["train", "betavae", "--data", "folder", "--data-dir", "mine", "--size", 32, "--out", "run"]
    code, _, err = distk_command(*line, "--steps", 1, "--batch", 4, "--device", "cpu")
    assert code == 0, err
    whole = str((in_folder / "mine").resolve())
    assert f'dir = "{whole}"' in Path("run/config.toml").read_text()
    assert header(Path("run")).data["folder"] == whole
    Path("other").mkdir()
    monkeypatch.chdir("other")
    assert resume(Path("../run"), 2, quiet=True).log[-1]["step"] == 2
    Path("../mine").rename("../data")
    monkeypatch.chdir("..")
    code, _, err = distk_command("resume", "run", "--steps", 3)
    assert code != 0
    assert "mine" in err
    code, _, err = distk_command("resume", "run", "--steps", 3, "--data-dir", "data")
    assert code == 0, err
    assert header(Path("run")).data["folder"] == str((in_folder / "data").resolve())
    assert distk_command("resume", "run", "--steps", 4)[0] == 0


def test_the_python_call_refuses_alike(run: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.beta cannot change"):
        resume(run, 9, quiet=True, changes={"model": {"beta": 3.0}})


def test_another_number_of_threads_is_said_and_the_number_recorded(distk_command: Call, run: Path) -> None:
    threads = torch.get_num_threads()
    assert header(run).metrics["threads"] == threads
    assert "which order sums" not in distk_command("resume", run, "--steps", 5)[2]
    try:
        torch.set_num_threads(threads + 1)
        err = distk_command("resume", run, "--steps", 6)[2]
    finally:
        torch.set_num_threads(threads)
    assert f"this run had {threads} thread{'s' if threads > 1 else ''} and goes on with {threads + 1}" in words(err)
    assert f"OMP_NUM_THREADS={threads}" in err
    assert header(run).metrics["threads"] == threads + 1
    assert f"{threads + 1} on the CPU" in distk_command("info", run)[1]


def test_a_device_is_named_as_for_training(distk_command: Call, run: Path) -> None:
    """And is kept, as any setting that changes."""
    code, _, err = distk_command("resume", run, "--steps", 6, "--device", "gpu")
    assert code == 2
    assert "--device 'gpu' is not a device; use auto, cpu, cuda or cuda:N." in words(err)
    code, _, err = distk_command("resume", run, "--steps", 6, "--device", "auto")
    assert code == 0
    assert "changed from step 4 on: train.device cpu -> auto" in words(err)
    assert header(run).train["device"] == "auto"
