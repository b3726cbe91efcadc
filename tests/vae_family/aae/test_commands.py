"""AAE-S on the command line: transfer, samples and traversals by class, what is refused; and the transfer of clips."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from distk import UsageError
from distk.settings import resolve
from distk.sheet import bare

SMALL = {"size": 32, "scales": [5], "orientations": 1, "positions": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from distk.training.loop import train

    options = {
        "model": {"arch": "mlp", "z": 2, "disc_width": 16},
        "data": {"name": "dsprites", **SMALL},
        "train": {"steps": 3, "batch": 8, "device": "cpu"},
    }
    return train(resolve("aae-s", options=options), tmp_path_factory.mktemp("aae") / "run", quiet=True).path


def distk(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """stdout of a command of the program."""
    from distk.cli import build as program

    program().main(args=[str(a) for a in arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_transfer_shows_an_item_under_every_class(run: Path, tmp_path: Path, capsys: Any) -> None:

    from distk.commands.transfer import under_classes
    from distk.models import open_model

    out = tmp_path / "t.png"
    found = json.loads(distk(capsys, "transfer", run, "--image", 5, "--image", 40, "--out", out, "--json"))
    assert (found["group"], found["rows"], found["classes"]) == ("y", [5, 40], [0, 1, 2])
    assert bare(Path(out)).size == (4 * 66 + 2, 2 * 66 + 2)  # the item and three classes, enlarged to 64 pixels
    one = json.loads(distk(capsys, "transfer", run, "--image", 5, "--class", 2, "--out", out, "--json"))
    assert one["classes"] == [2]
    model, _ = open_model(run / "checkpoint.safetensors", "cpu")
    x = model.dataset().batch(torch.tensor([5, 40]))["x"]
    made = under_classes(model, {"x": x}, "y", [2])
    code = {"z": model.encode(x)["z"], "y": F.one_hot(torch.tensor([2, 2]), 3).float()}
    assert torch.equal(made[:, 0], x)
    assert torch.equal(made[:, 1], model.decode(code))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("transfer", "--class", 3), r"no class 3; the classes of 'y' are 0 \(square\), 1 \(ellipse\), 2 \(heart\)"),
        (("sample", "--class", 7), r"no class 7; the classes are 0 \(square\), 1 \(ellipse\), 2 \(heart\)"),
        (("transfer", "--image", 48), "--image 48 is outside the data set's rows 0 to 47"),
        (("transfer", "--image", 0, "--group", "z"), "'z' has no classes"),
        (("reconstruct",), "use `distk transfer --image ROW`"),
    ],
)
def test_commands_refuse_in_one_sentence(run: Path, capsys: Any, arguments: Any, message: str) -> None:
    name, *rest = arguments
    with pytest.raises(UsageError, match=message):
        distk(capsys, name, run, *rest)


def test_samples_of_a_class_and_a_block_per_class(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert "s.png" in distk(capsys, "sample", run, "-n", 4, "--class", 1, "--out", tmp_path / "s.png")
    rows = json.loads(distk(capsys, "traverse", run, "--out", tmp_path / "t.png", "--no-gif", "--json"))["rows"]
    assert sorted(rows) == ["y=0 z1", "y=0 z2", "y=1 z1", "y=1 z2", "y=2 z1", "y=2 z2"]


def test_accuracy_is_refused_and_the_prior_is_measured(run: Path) -> None:
    from distk.evaluation import evaluate
    from distk.models import open_model

    model, _ = open_model(run / "checkpoint.safetensors", "cpu")
    found = evaluate(model, ["clsacc", "prior-mmd", "factorvae"], repeats=1)["metrics"]
    assert found["clsacc"] == {"error": "aae-s is given the class; it does not infer one."}
    assert math.isfinite(found["prior-mmd"]["mmd2"])
    # The given class takes no part in the vote: its column is constant, and so masked.
    assert found["factorvae"]["used"][-1] == False  # noqa: E712


def test_transfer_of_clips_is_the_method_s_own_command(tmp_path: Path, capsys: Any) -> None:
    from distk.training.loop import train

    options = {
        "model": {"f_dim": 3, "z_dim": 2, "hidden": 8, "frame_dim": 8},
        "data": {"name": "vector-clips"},
        "train": {"steps": 2, "batch": 8, "device": "cpu"},
    }
    path = train(resolve("dsvae", options=options), tmp_path / "run", quiet=True).path
    own = json.loads(
        distk(capsys, "dsvae", "transfer-clips", path, "--a", 1, "--b", 4, "--out", tmp_path / "a.png", "--json")
    )
    same = json.loads(distk(capsys, "transfer", path, "--a", 1, "--b", 4, "--out", tmp_path / "b.png", "--json"))
    assert own["pairs"] == same["pairs"]
    assert len(same["pairs"]) == 1
    with pytest.raises(UsageError, match="`distk transfer` is `distk dsvae transfer-clips`, which has no --group"):
        distk(capsys, "transfer", path, "--a", 1, "--b", 4, "--group", "f")
