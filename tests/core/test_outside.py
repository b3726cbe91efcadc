"""Methods of other kinds than ours, from a wheel: trained, killed, taken up again, looked into, scored."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

_spec = importlib.util.spec_from_file_location("installed", Path(__file__).with_name("test_plugins_installed.py"))
assert _spec is not None
installed = importlib.util.module_from_spec(_spec)
assert _spec.loader is not None
_spec.loader.exec_module(installed)

OUTSIDE = installed.ROOT / "tests" / "outside_plugin"
STEPPED = ["outside-qlae", "outside-adagvae", "outside-slowvae", "outside-ivae", "outside-diffae"]
COMMON = ["--device", "cpu", "--batch", "16", "--log-every", "5", "--checkpoint-every", "10"]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fresh environment with wheels of distk and the plugin, and a run of 30 steps of each method in `runs`."""
    folder = tmp_path_factory.mktemp("outside")
    ours = installed.checkout(folder / "distk-source")
    theirs = installed.source(OUTSIDE, folder / "plugin-source")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    for tree in (ours, theirs):
        subprocess.run([*build, str(tree)], check=True, capture_output=True)
    made = installed.Environment(folder)
    installed.install(made, *folder.glob("*.whl"))
    made.env["DISTK_CACHE"] = str(folder / "kept")
    steps = [["train", name, "--steps", "30", "--out", f"runs/{name}", *COMMON, "--json"] for name in STEPPED]
    steps.append(["train", "outside-ica", "--out", "runs/outside-ica", "--device", "cpu", "--eval", "mig"])
    for step, done in zip(steps, made.distk(*steps), strict=True):
        assert done["code"] == 0, (step, done)
    return made


def test_everything_passes_the_checks(env: Any) -> None:
    (done,) = env.distk(["check", "--plugin", "distk_outside", "--checkpoint", "runs/outside-qlae", "--json"])
    told = json.loads(done["out"])
    assert told["failed"] == 0, [row for row in told["checks"] if row["result"] != "passed"]
    names = {row["name"] for row in told["checks"]}
    assert {*STEPPED, "outside-ica", "outside-mcc", "outside-jacobian"} <= names


@pytest.mark.parametrize("name", STEPPED)
def test_a_killed_run_goes_on_bit_for_bit(env: Any, name: str) -> None:
    out = env.work / "killed" / name
    words = [env.bin / "distk", "train", name, "--steps", "30", "--out", out, *COMMON, "--log", "outside"]
    process = subprocess.Popen([str(w) for w in words], cwd=env.work, env=env.env, stderr=subprocess.DEVNULL)
    log, end = out / "log.jsonl", time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= 3:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    env.run(env.bin / "distk", "resume", out)
    straight = load_file(env.work / "runs" / name / "checkpoint.safetensors")
    resumed = load_file(out / "checkpoint.safetensors")
    assert straight.keys() == resumed.keys()
    assert [key for key, value in straight.items() if not value.equal(resumed[key])] == []
    # The logger beside it has every row once, whatever was taken twice.
    rows = [int(row[0]) for row in csv.reader((out / "rows.csv").open())]
    assert rows == [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(5, 31, 5))


def test_pictures_of_every_method(env: Any) -> None:
    steps = []
    for name in [*STEPPED, "outside-ica"]:
        steps += [["traverse", f"runs/{name}", "--json", "--no-gif"], ["reconstruct", f"runs/{name}", "--json"]]
    for name in ("outside-qlae", "outside-adagvae", "outside-slowvae", "outside-ivae"):
        steps.append(["sample", f"runs/{name}", "-n", "4", "--json"])
    steps += [
        ["sample", "runs/outside-ivae", "-n", "4", "--class", "3", "--group", "label", "--json"],
        ["sample", "runs/outside-ivae", "-n", "4", "--class", "10"],
        ["sample", "runs/outside-diffae"],
        ["sample", "runs/outside-ica"],
        ["outside", "report", "runs/outside-ica", "--json"],
        ["outside", "report", "runs/outside-qlae"],
    ]
    told = dict(zip((" ".join(step) for step in steps), env.distk(*steps), strict=True))
    refused = {line: done for line, done in told.items() if done["code"]}
    assert sorted(refused) == [
        "sample runs/outside-diffae",
        "sample runs/outside-ica",
        "sample runs/outside-ivae -n 4 --class 10",
    ]
    assert all("no prior" in refused[f"sample runs/outside-{name}"]["err"] for name in ("diffae", "ica"))
    assert "classes 0 to 9" in refused["sample runs/outside-ivae -n 4 --class 10"]["err"]
    walked = json.loads(told["traverse runs/outside-qlae --json --no-gif"]["out"])
    book = load_file(env.work / "runs/outside-qlae/checkpoint.safetensors")["model/book"]
    which = int(walked["rows"][0].removeprefix("z")) - 1
    assert walked["values"] == pytest.approx(book[which].sort().values.tolist()), "the learned values, nothing between"
    diffused = json.loads(told["traverse runs/outside-diffae --json --no-gif"]["out"])["rows"]
    assert sorted(row.split()[0] for row in diffused) == ["z1", "z2", "z3", "z4"], "its noise is not walked"
    assert json.loads(told["outside report runs/outside-ica --json"]["out"])["method"] == "outside-ica"
    assert "outside-qlae" in told["outside report runs/outside-qlae"]["out"]


def test_scores_of_every_method(env: Any) -> None:
    names = ["outside-qlae", "outside-adagvae", "outside-slowvae", "outside-diffae", "outside-ica"]
    metrics = ["-m", "mig", "-m", "dci", "-m", "outside-mcc", "-m", "outside-jacobian"]
    steps = [["eval", f"runs/{name}", *metrics, "--rows", "500", "--json"] for name in names]
    steps += [["eval", f"runs/{name}", *metrics[:2]] for name in names]
    steps.append(["eval", "runs/outside-ivae", "-m", "recall", "--rows", "400", "--json"])
    told = env.distk(*steps)
    for step, done in zip(steps, told, strict=True):
        assert done["code"] == 0, (step, done)
    for name, done in zip(names, told, strict=False):
        found = json.loads(done["out"])["metrics"]
        assert not [key for key, value in found.items() if "error" in value], (name, found)
        assert 0 <= found["outside-mcc"]["mcc"] <= 1
        assert found["outside-jacobian"]["pixels"] > 1
    assert json.loads(told[-1]["out"])["metrics"]["recall"]["recall@1"] > 0.2, "the codes know the label"
    rows = (env.work / "runs/outside-ica/log.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [0]


def test_several_seeds_and_what_is_refused(env: Any) -> None:
    few = ["--steps", "4", "--device", "cpu", "--batch", "8"]
    steps = [["train", name, "--seeds", "0:2", "--out", f"seeds/{name}", *few, "--json"] for name in STEPPED]
    steps += [
        ["train", "outside-slowvae", "--data", "blobs", "--out", "none/a", *few],
        ["train", "outside-adagvae", "--data", "digits", "--out", "none/b", *few],
        ["train", "outside-ivae", "--data", "blobs", "--out", "none/c", *few],
        ["train", "outside-ica", "--steps", "5", "--out", "none/d"],
        ["plugins"],
    ]
    told = env.distk(*steps)
    for step, done in zip(steps[: len(STEPPED)], told, strict=False):
        assert done["code"] == 0, (step, done)
        assert len(json.loads(done["out"])["runs"]) == 2
    slow, ada, conditional, closed, plugins = told[len(STEPPED) :]
    assert "reads x2, which 'blobs' does not give" in " ".join(slow["err"].split())
    assert "pairs" in slow["err"]
    assert "every combination" in ada["err"]
    assert "label" in conditional["err"]
    assert "--steps 0" in closed["err"]
    assert not (env.work / "none").exists(), "a run that is refused leaves nothing"
    assert "outside report" in " ".join(plugins["out"].split())
