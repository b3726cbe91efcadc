"""`distk covmap` on a code of several groups, in the program itself."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import distk
from distk.metric import encode_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a code with a discrete part, which has no covariance."""
    sprites = {"data": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 4, "arch": "mlp"}
    quick = {"device": "cpu", "quiet": True, "steps": 2, "batch": 8, "z": 2, "disc": [3]}
    return distk.train("jointvae", out=tmp_path_factory.mktemp("runs") / "run", **quick, **sprites).path


def test_covariance_of_the_continuous_units(run: Path, distk_command) -> None:
    code, out, err = distk_command("covmap", run, "--out", "c.png", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["files"] == ["c.png", "c.csv"]
    assert shown["units"] == ["z1", "z2"]
    model = distk.load(run)
    codes = encode_table(model, model.dataset()).codes[:, :2].double().numpy()
    with open("c.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["unit", "z1", "z2"]
    held = np.array([[float(value) for value in row[1:]] for row in rows])
    assert np.allclose(held, np.cov(codes.T), rtol=1e-6, atol=0)
    assert shown["mapc"] == pytest.approx(abs(np.corrcoef(codes.T)[0, 1]), rel=1e-6)
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


def test_figures_on_the_screen(run: Path, distk_command) -> None:
    code, out, _ = distk_command("covmap", run, "--out", "c.png", "--layer", "z")
    assert code == 0
    assert "mapc" in out
    assert "c.csv" in out


def test_a_group_that_is_not_there(run: Path, distk_command) -> None:
    for layer in ("c", "nothing"):
        code, _, err = distk_command("covmap", run, "--layer", layer)
        assert code == 2
        assert f"there is no layer '{layer}'; there is code, z." in err
