"""Every score from the command line: on a file of anybody's codes, and on a trained model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distk import train
from distk.codefile import table_from_arrays
from distk.errors import DistkError
from distk.plugins.metrics import functional as fn
from distk.registry import registry

METRICS = [entry.name for entry in registry().entries("metric") if entry.plugin == "metrics"]
ITEMS = {"reconstruction", "elbo", "prediction", "ksg"}
"""Scores that look at items or at what follows in time: a file of codes has neither."""
REFUSED = {**dict.fromkeys(ITEMS - {"ksg"}, "needs a checkpoint"), "ksg": "consecutive frames"}
LESS = ["--set", "reasoning.steps=20", "--set", "downstream.sizes=10,100", "--set", "fairness.predictor=lr"]


TINY = {"z": 3, "size": 16, "positions": 4, "scales": (1, 4), "rotations": 4}
"""A grid of 3 x 2 x 4 x 4 x 4 images."""


def _file(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    sizes = (2, 3, 5)
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, 3)
    factors = rng.permutation(np.tile(grid, (30, 1)))
    codes = np.concatenate([factors + 0.1 * rng.normal(size=factors.shape), factors[:, 1:2]], 1)
    objects = rng.integers(0, 3, (len(codes), 4, 4))
    kinds = ["continuous"] * 3 + ["categorical"]
    arrays = {"codes": codes, "factors": factors, "std": np.full_like(codes, 0.1), "code_kinds": kinds}
    arrays["factor_kinds"] = ["categorical", "ordinal", "ordinal"]
    np.savez(path, **arrays, slots=objects, objects=objects)
    return path


def _check(name: str, values: dict[str, Any]) -> None:
    cls = registry().find("metric", name).load()
    assert "error" not in values, (name, values)
    headline = values[cls.headline]
    assert isinstance(headline, float), name
    assert math.isfinite(headline), name
    number = cls.meaning(cls.headline)
    assert number is not None, name
    assert number.low is None or headline >= number.low - 1e-9, name
    assert number.high is None or headline <= number.high + 1e-9, name


def test_a_file_of_codes(tmp_path: Path, seed: int, distk_command) -> None:
    path = _file(tmp_path / "codes.npz", seed)
    line = [word for name in METRICS for word in ("--metric", name)]
    code, out, _ = distk_command("eval", "--codes", path, *line, *LESS, "--repeats", 1, "--json")
    assert code == 0
    found = json.loads(out)["metrics"]
    assert set(found) == set(METRICS)
    for name in METRICS:
        if name in REFUSED:
            assert REFUSED[name] in found[name]["error"], name
        else:
            _check(name, found[name])


def test_a_trained_model(tmp_path: Path, distk_command) -> None:
    run = train("betavae", data="shapes2d", steps=3, batch=8, out=str(tmp_path / "run"), quiet=True, **TINY)
    line = [word for name in METRICS for word in ("--metric", name)]
    code, out, _ = distk_command("eval", run.path, *line, *LESS, "--repeats", 1, "--no-plots", "--json")
    assert code == 0
    found = json.loads(out)["metrics"]
    lacking = {"clsacc", "ari", "fg-ari", "prediction", "ksg"}  # a discrete code, slots, frames
    failed = {name: found[name]["error"] for name in METRICS if "error" in found[name]}
    assert set(failed) <= lacking, failed
    for name in set(METRICS) - set(failed):
        _check(name, found[name])


@pytest.mark.parametrize("predictor", ["lr", "gbt"])
def test_combinations_that_training_never_saw(predictor: str, tmp_path: Path, distk_command) -> None:
    """Of a trained model, with factors of many values: both readers end, and what is unseen is what was left out."""
    where = {"of": "shapes2d", "without": "shape=triangle,x=8-15"}
    run = train("betavae", data="skewed", steps=2, batch=8, z=4, out=str(tmp_path / "run"), quiet=True, **where)
    line = ["--metric", "combinations", "--set", f"combinations.predictor={predictor}", "--rows", 400, "--no-plots"]
    code, out, _ = distk_command("eval", run.path, *line, "--fit", "train", "--split", "test", "--json")
    assert code == 0
    found = json.loads(out)["metrics"]["combinations"]
    assert 0 < found["test_rows"] <= 400
    assert 0 <= found["unseen"] <= 1
    # Few rows of training are read, but what all of them showed is not unseen: nothing of this split is.
    code, out, _ = distk_command("eval", run.path, *line, "--fit", "train", "--split", "train", "--seed", 1, "--json")
    assert "none is unseen" in json.loads(out)["metrics"]["combinations"]["error"]
    if predictor == "lr":
        code, out, _ = distk_command("eval", run.path, *line, "--rows", 1000, "--json")
        assert code == 0
        assert json.loads(out)["metrics"]["combinations"]["unseen_combinations"] > 0


def test_slots_of_a_file(tmp_path: Path, seed: int, distk_command) -> None:
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, 3, (6, 5, 5))
    weights = rng.random((6, 4, 5, 5))
    np.savez(tmp_path / "s.npz", slots=weights, objects=objects)
    code, out, _ = distk_command("eval", "--codes", tmp_path / "s.npz", "--metric", "fg-ari", "--json")
    assert code == 0
    expected = fn.slots(torch.from_numpy(weights), torch.from_numpy(objects))
    found = json.loads(out)["metrics"]["fg-ari"]
    assert found["fg_ari"] == pytest.approx(expected["fg_ari"])
    assert found["ari"] == pytest.approx(expected["ari"])
    table = table_from_arrays(tmp_path / "s.npz")
    share = (weights.argmax(1)[:, None] == np.arange(4)[:, None, None]).mean((2, 3))
    np.testing.assert_allclose(table.codes, share)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"slots": np.zeros((3, 4, 4), int)}, "go together"),
        ({"slots": np.zeros((3, 4, 4), int), "objects": np.zeros((3, 4, 5), int)}, "expected [n, height, width]"),
        ({"slots": np.full((3, 4, 4), -1), "objects": np.zeros((3, 4, 4), int)}, "whole numbers from 0"),
        ({"slots": np.full((3, 2, 4, 4), np.nan), "objects": np.zeros((3, 4, 4), int)}, "finite"),
        ({"slots": np.full((3, 4, 4), 10**9), "objects": np.zeros((3, 4, 4), int)}, "at most"),
        ({"slots": np.array([["a"]]), "objects": np.zeros((1, 1), int)}, "whole numbers from 0"),
        (
            {"slots": np.zeros((3, 4, 4), int), "objects": np.zeros((3, 4, 4), int), "codes": np.zeros((2, 1))},
            "'objects' 3",
        ),
    ],
)
def test_wrong_slots_are_one_sentence(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DistkError) as error:
        table_from_arrays(tmp_path / "s.npz")
    assert told in str(error.value)
