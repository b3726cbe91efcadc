"""The command line, in real processes, as a user meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distk.sheet import bare

SMALL = [
    *("--z", "2", "--hidden", "8", "--warmup", "4", "--relieve-every", "2", "--size", "32", "--scales", "5"),
    *("--orientations", "1", "--positions", "6", "--batch", "8", "--log-every", "2", "--device", "cpu"),
]


def distk(*arguments: str | Path, cwd: Path, code: int = 0, **env: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **env}
    environment.pop("DISTK_DATA", None)
    done = subprocess.run(
        [sys.executable, "-m", "distk", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def words(text: str) -> str:
    """Text without rich's boxes and line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with one small finished run under ./runs."""
    folder = tmp_path_factory.mktemp("cli")
    done = distk(
        "train",
        "cascadevae",
        *SMALL,
        "--steps",
        "8",
        "--eval",
        "clsacc",
        "--eval-every",
        "4",
        "--keep",
        "best:clsacc",
        "--json",
        cwd=folder,
    )
    said = json.loads(done.stdout)
    assert said["step"] == 8
    assert "rendered on the device" in done.stderr
    return folder


def run_folder(folder: Path) -> Path:
    return next((folder / "runs").iterdir())


def test_the_run_folder_is_complete(trained) -> None:
    run = run_folder(trained)
    assert re.fullmatch(r"cascadevae-\d{8}-\d{6}-s0", run.name)
    assert {"config.toml", "log.jsonl", "checkpoint.safetensors", "best.safetensors", "samples"} <= {
        p.name for p in run.iterdir()
    }
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert {"loss", "reconstruction", "kl/1", "rate", "seconds"} <= set(rows[0])
    assert "clsacc/hungarian" in rows[1]
    assert "class/1" in rows[-1]
    assert "class/1" not in rows[0]


def test_config_toml_runs_again_to_the_same_weights(trained, tmp_path) -> None:
    run = run_folder(trained)
    distk("train", "cascadevae", "--config", run / "config.toml", "--out", tmp_path / "again", cwd=trained)
    ours, theirs = (p / "checkpoint.safetensors" for p in (run, tmp_path / "again"))
    from distk import checkpoint

    a, b = (checkpoint.load(p)[0].state_dict() for p in (ours, theirs))
    assert all((a[k] == b[k]).all() for k in a)


def test_eval_json(trained) -> None:
    done = distk(
        "eval", "--metric", "dci", "-m", "factorvae", "-m", "clsacc", "--protocol", "cascadevae", "--json", cwd=trained
    )
    said = json.loads(done.stdout)
    assert set(said) == {"checkpoint", "metrics", "provenance"}
    assert {"disentanglement", "completeness", "informativeness_test"} <= set(said["metrics"]["dci"])
    assert said["metrics"]["factorvae"]["settings"]["protocol"] == "cascadevae"
    assert said["metrics"]["factorvae"]["repeats"] == 5
    assert 0 <= said["metrics"]["clsacc"]["hungarian"] <= 1
    assert said["provenance"]["data"] == "dsprites"
    assert "newest" in done.stderr or "checkpoint.safetensors" in done.stderr
    assert (run_folder(trained) / "checkpoint.eval.json").exists()
    again = distk(
        "eval", "--metric", "dci", "-m", "factorvae", "-m", "clsacc", "--protocol", "cascadevae", "--json", cwd=trained
    )
    assert json.loads(again.stdout)["metrics"] == said["metrics"], "the cached table gives the same figures"


def test_pictures(trained, tmp_path) -> None:
    from PIL import Image

    distk("traverse", "--columns", "5", "--out", tmp_path / "t.png", cwd=trained)
    distk("reconstruct", "--n", "4", "--out", tmp_path / "r.png", cwd=trained)
    distk("sample", "--class", "2", "-n", "9", "--out", tmp_path / "s.png", cwd=trained)
    distk("swap", "--group", "d", "--pairs", "2", "--out", tmp_path / "w.png", cwd=trained)
    with bare(tmp_path / "t.png") as picture:
        # A header row and three classes of two latents each, of 64-pixel cells.
        assert picture.height == 2 + 7 * (64 + 2)
        assert len(picture.convert("L").getcolors(100_000)) > 2
    with Image.open(tmp_path / "t.gif") as movie:
        assert movie.n_frames == 8
    with bare(tmp_path / "r.png") as picture:
        assert picture.size == (2 + 4 * 66, 2 + 2 * 66)
    with bare(tmp_path / "s.png") as picture:
        assert picture.size == (2 + 3 * 66, 2 + 3 * 66)


def test_info_list_data_and_assign(trained, tmp_path) -> None:
    said = json.loads(distk("info", "--json", "--strip", tmp_path / "s.safetensors", cwd=trained).stdout)
    assert (said["method"], said["step"], said["resumable"]) == ("cascadevae", 8, True)
    assert json.loads(distk("info", tmp_path / "s.safetensors", "--json", cwd=trained).stdout)["resumable"] is False
    listed = json.loads(distk("list", "--json", cwd=trained).stdout)
    assert {"method", "dataset", "metric"} <= set(listed)
    assert any(e["name"] == "cascadevae" and e["distribution"] == "distk" for e in listed["method"])
    facts = json.loads(distk("data", "digits", "--preview", tmp_path / "d.png", "--json", cwd=trained).stdout)
    assert (facts["items"], facts["train"]) == (1797, 1197)
    assert (tmp_path / "d.png").stat().st_size > 1000
    said = json.loads(
        distk(
            "cascadevae", "assign", "--rule", "argmin", "--out", tmp_path / "a.safetensors", "--json", cwd=trained
        ).stdout
    )
    assert sum(said["counts"]) == 3 * 36
    assert np.array(said["contingency"]).sum() == 3 * 36
    bench = json.loads(distk("cascadevae", "mcf", "--repeats", "2", "--json", cwd=trained).stdout)
    exact = {row["grid_objective"] for row in bench["solvers"] if row["solver"] != "argmin"}
    assert len(exact) == 1


def test_codes_of_anybodys_model(tmp_path, generator) -> None:
    import torch

    factors = torch.randint(4, (600, 2), generator=generator)
    codes = factors.double() + 0.01 * torch.randn(600, 2, generator=generator)
    np.savez(tmp_path / "c.npz", codes=codes.numpy(), factors=factors.numpy())
    said = json.loads(
        distk("eval", "--codes", "c.npz", "--metric", "mig", "-m", "reconstruction", "--json", cwd=tmp_path).stdout
    )
    assert said["metrics"]["mig"]["mig"] > 0.95
    assert "needs a checkpoint" in said["metrics"]["reconstruction"]["error"]
    distk("eval", "--codes", "c.npz", "--metric", "mig", "-m", "reconstruction", "--strict", cwd=tmp_path, code=1)


WRONG = [
    (
        ["train", "cascadvae"],
        2,
        "unknown method 'cascadvae'. Did you mean 'cascadevae'? `distk list method` shows all.",
    ),
    (["train", "betavae", "--data", "."], 2, "'.' is a file or a folder: say which data set reads it by --data NAME"),
    (["tran", "cascadevae"], 2, "Did you mean 'train'?"),
    (["train", "cascadevae", "--setps", "3"], 2, "No such option: --setps"),
    (["train", "cascadevae", "--steps", "many"], 2, "--steps: 'many' is not a whole number"),
    (["train", "cascadevae", "--steps", "-1"], 2, "below the smallest allowed value 0"),
    (["train", "cascadevae", "--z", "0"], 2, "--z: 0 is below the smallest allowed value 1"),
    (["train", "cascadevae", "--data", "dspirtes"], 2, "Did you mean 'dsprites'?"),
    (["train", "cascadevae", "--data-dir", "nowhere"], 2, "nowhere' does not exist"),
    (["train", "cascadevae", "--preset", "demmo"], 2, "unknown preset 'demmo' of 'cascadevae'. Did you mean 'demo'?"),
    (["train", "cascadevae", "--config", "no.toml"], 2, "config file 'no.toml' does not exist"),
    (["train", "cascadevae", "--device", "cuda:9"], 2, "--device cuda:9"),
    (["train", "cascadevae", "--keep", "worst:dci"], 2, "write --keep best:METRIC"),
    (["train", "cascadevae", "--eval", "dcl"], 2, "Did you mean 'dci'?"),
    (["train", "cascadevae", "--warmup", "30000"], 2, "multiple of relieve-every"),
    (["eval", "--metric", "dci"], 2, "no checkpoint was named and there is no run"),
    (["eval", "missing.safetensors", "--metric", "dci"], 1, "checkpoint 'missing.safetensors' does not exist"),
    (["traverse", "foreign.safetensors"], 1, "distk did not write"),
    (["info", "notes.txt"], 1, "truncated or not a safetensors"),
    (["eval", "--codes", "notes.txt", "--metric", "mig"], 1, "notes.txt"),
]


def prepare(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, folder / "foreign.safetensors")
    (folder / "notes.txt").write_text("just some notes")


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=[" ".join(a) for a, _, _ in WRONG])
def test_wrong_input_is_one_sentence(in_folder, monkeypatch, capsys, arguments, code, message) -> None:
    from distk.cli import main

    prepare(in_folder)
    monkeypatch.setattr(sys, "argv", ["distk", *arguments])
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("DISTK_DATA", raising=False)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code
    said = capsys.readouterr().err
    assert message in words(said)
    assert "Traceback" not in said
    assert not (in_folder / "runs").exists(), "nothing is left behind"


def test_wrong_input_in_a_real_process(tmp_path) -> None:
    prepare(tmp_path)
    for arguments, code, message in (WRONG[0], WRONG[-3]):
        assert message in words(distk(*arguments, cwd=tmp_path, code=code).stderr)
    done = subprocess.run(
        [sys.executable, "-m", "distk", "info", "notes.txt", "--debug"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Traceback" in done.stderr


def test_interrupt_saves_and_resume_gives_the_same_weights(trained, tmp_path) -> None:
    """SIGINT in the middle, then resume: bit for bit the weights of a run that was never stopped."""
    many = ["train", "cascadevae", *SMALL, "--steps", "400", "--seed", "5"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    distk(*many, "--out", straight, cwd=tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distk", *many, "--out", str(stopped)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    _until((stopped / "log.jsonl"), 10)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"distk resume {stopped}" in words(said)
    distk("resume", stopped, cwd=tmp_path)
    _same_weights(straight, stopped)
    logged = [[json.loads(line) for line in (p / "log.jsonl").read_text().splitlines()] for p in (straight, stopped)]
    last = [{k: v for k, v in rows[-1].items() if k not in ("seconds", "rate")} for rows in logged]
    assert last[0] == last[1]


def test_a_killed_run_leaves_a_checkpoint_that_resumes(tmp_path) -> None:
    many = ["train", "cascadevae", *SMALL, "--steps", "300", "--checkpoint-every", "20"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    distk(*many, "--out", straight, cwd=tmp_path)
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as `distk` here: more threads sum in another order
    command = [sys.executable, "-m", "distk", *many, "--out", str(killed)]
    process = subprocess.Popen(command, cwd=tmp_path, env=one_thread)
    _until((killed / "log.jsonl"), 15)
    process.kill()
    process.wait(timeout=60)
    distk("resume", killed, cwd=tmp_path)
    _same_weights(straight, killed)
    steps = [json.loads(line)["step"] for line in (killed / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)), "no log row is there twice"


def _until(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count("\n") >= lines:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not grow to {lines} lines")


def _same_weights(a: Path, b: Path) -> None:
    from safetensors.torch import load_file

    first, second = (load_file(p / "checkpoint.safetensors") for p in (a, b))
    assert set(first) == set(second)
    differing = [k for k in first if not (first[k] == second[k]).all()]
    assert not differing, differing


def test_a_run_folder_is_neither_overwritten_nor_shared(trained, tmp_path) -> None:
    run = run_folder(trained)
    done = distk("train", "cascadevae", *SMALL, "--steps", "2", "--out", run, cwd=trained, code=2)
    assert "already holds a run" in words(done.stderr)
    import fcntl

    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = distk("resume", run, "--steps", "10", cwd=trained, code=1)
    assert "in use by another process" in words(done.stderr)


def test_a_divergent_run_names_step_and_objective_and_keeps_the_checkpoint(tmp_path) -> None:
    done = distk(
        "train", "cascadevae", *SMALL, "--steps", "60", "--lr", "1e6", "--out", tmp_path / "r", cwd=tmp_path, code=1
    )
    assert re.search(r"objective 'loss' became non-finite at step \d+: lower the learning rate", words(done.stderr))


def test_python_says_the_same(trained) -> None:
    import torch

    import distk as library

    model = library.load(run_folder(trained), device="cpu")
    data = library.dataset("dsprites", device="cpu")
    images = data.observe(torch.tensor([[0, 5, 0, 16, 16], [2, 0, 39, 0, 31]]))
    assert images.shape == (2, 1, 64, 64)
    assert set(images.unique().tolist()) == {0.0, 1.0}
    x = model.dataset().batch(torch.arange(4))["x"]
    code = model.encode(x)
    assert set(code) == {"z", "d"}
    assert model.decode(code).shape == x.shape
    assert library.evaluate(model, ["dci"])["metrics"]["dci"]["disentanglement"] >= 0
