"""Files that the program wrote when papers had no folders yet: they load, mean the same, and are taken up again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import distk
from distk.checkpoint import load_training, read_header

HERE = Path(__file__).resolve().parents[1] / "fixtures" / "before_the_rooms"
EXPECTED: dict[str, dict[str, Any]] = json.loads((HERE / "expected.json").read_text())
TRAINED = {"accuracy", "accuracy_before", "accuracy_originals"}
"""Of icm's score: what a classifier gets right that the score trains itself, for minutes. It says nothing of the files,
and sums in another order (threads, a newer library) train another one; the figures beside it are compared."""
UNTRAINED = {"icm": {"classifier_steps": 0}}


@pytest.fixture(params=sorted(EXPECTED))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_model_gives_the_same_codes(name: str) -> None:
    expected = EXPECTED[name].get("code")
    if expected is None:
        pytest.skip(f"{name} has no encoder")
    model = distk.load(HERE / name / "checkpoint.safetensors", "cpu")
    with torch.no_grad():
        code = model.encode(model.dataset().batch(torch.arange(4))["x"])
    found = model.latents.flatten(code).double().flatten()[:12]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


REFUSED = {
    "arae": {"reconstruction": "metric 'reconstruction' measures pixels, and these items are sentences."},
}
"""Scores that were numbers then and should have been none."""


def test_a_model_scores_the_same(name: str) -> None:
    scores = EXPECTED[name]["scores"]
    model = distk.load(HERE / name / "checkpoint.safetensors", "cpu")
    options = UNTRAINED.get(name, {})
    found = distk.evaluate(model, list(scores), rows=64, seed=0, on_error="row", **options)["metrics"]
    assert {metric: one["error"] for metric, one in found.items() if "error" in one} == REFUSED.get(name, {})
    for metric, values in scores.items():
        if metric in REFUSED.get(name, {}):
            continue
        for key, value in values.items():
            if key in TRAINED:
                continue
            near = max(1e-4 * abs(value), 2e-6)  # the file holds six decimals
            assert found[metric][key] == pytest.approx(value, abs=near), f"{metric} {key}"


@pytest.mark.parametrize("name", ["covreg-linear", "dsvae", "icm"])
def test_training_goes_on(name: str, distk_command, in_folder: Path) -> None:
    shutil.copytree(HERE / name, in_folder / "run")
    file = in_folder / "run" / "checkpoint.safetensors"
    step = read_header(file).step
    before = distk.load(file, "cpu").state_dict()
    assert int(load_training(file)["step"]) == step
    code, _, err = distk_command("resume", "run", "--steps", step + 2)
    assert code == 0, err
    assert read_header(file).step == step + 2
    after = distk.load(file, "cpu").state_dict()
    assert any(not torch.equal(before[key], value) for key, value in after.items())


LATER = {"icf": {"even": 0.0}}
"""Settings that came later, with the value that changes nothing: a file that lacks them trains as it did."""


def test_a_config_file_trains(name: str, distk_command, in_folder: Path) -> None:
    file = HERE / name / "config.toml"
    line = ("train", name, "--config", file, "--steps", 2, "--device", "cpu", "--out", "run")
    code, _, err = distk_command(*line)
    assert code == 0, err
    header = read_header(in_folder / "run" / "checkpoint.safetensors")
    assert (header.method, header.step) == (name, 2)
    before = read_header(HERE / name / "checkpoint.safetensors").config
    assert {key: value for key, value in header.config.items() if key in before} == before
    assert {key: value for key, value in header.config.items() if key not in before} == LATER.get(name, {})
