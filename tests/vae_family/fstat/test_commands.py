"""`distk train fstat` and `distk embed`, through the program's own entry point."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

SMALL = {"hidden": 16, "k": 4, "classes_per_batch": 6, "samples_per_class": 4, "device": "cpu", "data_poses": 2}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps on small puppets."""
    import distk

    path = tmp_path_factory.mktemp("fstat") / "run"
    distk.train("f-statistic", preset="demo", out=path, quiet=True, steps=6, batch=24, **SMALL)
    return path


def test_embed_writes_codes_labels_and_factors(run_folder: Path, distk_command, in_folder: Path) -> None:
    code, out, _ = distk_command(
        "embed", run_folder, "--split", "test", "--out", "emb.safetensors", "--score", "--json", "--device", "cpu"
    )
    assert code == 0
    told = json.loads(out)
    with safe_open(in_folder / "emb.safetensors", framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}
        assert json.loads(file.metadata()["factor_names"])[0] == "body"
    rows = 135 * 2  # every fifth of 672 identities, two poses
    assert {name: tuple(t.shape) for name, t in held.items()} == {
        "z": (rows, 4),
        "label": (rows,),
        "factors": (rows, 7),
    }
    assert sorted(told["recall"], key=int) == ["1", "5", "10", "20"]
    # Recall is that of the identity: with two pictures each, from the distances themselves.
    far = torch.cdist(held["z"], held["z"]).fill_diagonal_(torch.inf)
    hit = (held["label"][far.argmin(1)] == held["label"]).double().mean()
    assert told["recall"]["1"] == pytest.approx(float(hit), abs=3 / rows)  # but for ties in the last digit
    with open(told["auc_file"], newline="") as file:
        areas = list(csv.DictReader(file))
    assert len(areas) == 16  # 3 + 4 + 1 + 1 + 1 + 1 + 5 nonredundant values
    assert all(0.5 <= float(row["auc"]) <= 1 for row in areas)
    assert {row["attribute"] for row in areas} == {"body", "armor", "arms", "greaves", "weapon", "gender", "hair"}
    assert {row["best_dim"] for row in areas} <= {"z1", "z2", "z3", "z4"}


def test_what_an_embedding_cannot_do_is_said(run_folder: Path, distk_command) -> None:
    for command in ("sample", "reconstruct", "traverse"):
        code, _, err = distk_command(command, run_folder)
        assert code == 2
        assert f"method 'fstat' has no `distk {command}`: use `distk embed`." in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["fstat", "--d", "30"], "d (30) must be between 1 and the embedding size (22)"),
        (["fstat", "--d", "0"], "d (0) must be between 1 and the embedding size (22)"),
        (["fstat", "--samples-per-class", "1"], "below the smallest allowed value 2"),
        (["triplet", "--classes-per-batch", "1"], "below the smallest allowed value 2"),
        (["fstat", "--data", "digits", "--label", "factors"], "data set 'digits' has no factors;"),
        (["fstat", "--data", "digits", "--size", "8"], "at least 13x13 pixels, not 8x8"),
        (["fstat", "--data", "puppets", "--size", "30", "--encoder", "mlp"], "does not take image data"),
        (["bindev", "--data", "dsprites", "--label", "y"], "none of identity, factors"),
    ],
)
def test_wrong_settings_are_one_sentence(options: list[str], words: str, distk_command, in_folder: Path) -> None:
    code, _, err = distk_command("train", *options, "--steps", 1, "--device", "cpu")
    assert code == 2
    assert words in " ".join(err.split())
    assert not (in_folder / "runs").exists()  # found wanting before a run folder is made


def test_losses_of_other_data_train_too(distk_command, in_folder: Path) -> None:
    """Ten classes are fewer than a batch asks for, and a label is enough."""
    options = ["--data", "digits", "--size", "16", "--hidden", "8", "--steps", "2", "--device", "cpu"]
    for method in ("histogram", "binomial-deviance"):
        code, _, err = distk_command("train", method, *options, "--out", in_folder / method)
        assert code == 0, err
    code, out, _ = distk_command("embed", in_folder / "histogram", "--rows", 50, "--json")
    assert code == 0
    assert json.loads(out)["tensors"] == {"z": [50, 22], "label": [50], "factors": [50, 1]}
