"""`distk embed` in the program itself: codes, classes, labels and factors as a file, and what stands on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import distk
from distk import Latent, LatentSpace
from distk.commands import embed
from distk.commands.embed import classes_of, contingency
from distk.embedding import histogram, neighbours
from distk.errors import DistkError, UsageError
from distk.metric import CodeTable


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A few steps of an embedding from labels, of a discrete code, and of a code on data without labels."""
    folder = tmp_path_factory.mktemp("runs")
    quick = {"device": "cpu", "quiet": True, "steps": 2, "batch": 8}
    puppets = {"hidden": 16, "k": 4, "classes_per_batch": 6, "samples_per_class": 4, "data_poses": 2}
    sprites = {"data": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 4, "arch": "mlp"}
    made = {
        "fstat": distk.train("fstat", preset="demo", out=folder / "fstat", **{**quick, "batch": 24}, **puppets),
        "jointvae": distk.train("jointvae", out=folder / "jointvae", **quick, **sprites, z=2, disc=[3]),
        "linear": distk.train("covreg-linear", out=folder / "linear", **quick),
    }
    return {name: run.path for name, run in made.items()}


def test_scores_as_text_and_as_json(runs: dict[str, Path], distk_command) -> None:
    line = ("embed", runs["fstat"], "--score", "--rows", 300, "--ks", "1,5", "--out", "e.safetensors")
    code, out, err = distk_command(*line)
    assert code == 0, err
    assert "recall@1" in out
    assert "best dimension" in out
    assert len([row for row in out.splitlines() if row.startswith(("0.5", "0.6", "0.7", "0.8", "0.9"))]) == 10
    code, out, _ = distk_command(*line, "--json")
    assert code == 0
    shown = json.loads(out)
    assert shown["tensors"]["z"] == [300, 4]
    assert sorted(shown["recall"]) == ["1", "5"]
    assert Path(shown["auc_file"]).read_text().startswith("attribute,value,best_dim,auc\n")


def test_classes_of_a_discrete_code_against_the_labels(runs: dict[str, Path], distk_command) -> None:
    code, out, _ = distk_command("embed", runs["jointvae"], "--out", "e.safetensors", "--json")
    assert code == 0
    held = json.loads(out)["classes"]["c"]
    with safe_open("e.safetensors", "pt") as file:
        classes, label = file.get_tensor("class.c"), file.get_tensor("label")
        z = file.get_tensor("z")
    assert classes.dtype == torch.int64
    assert torch.equal(classes, z[:, 2].long())
    for k, row in enumerate(held["contingency"]):
        assert row == [int(((classes == k) & (label == j)).sum()) for j in range(3)]
    assert held["counts"] == [sum(row) for row in held["contingency"]]
    code, out, _ = distk_command("embed", runs["jointvae"], "--out", "e.safetensors")
    assert code == 0
    assert "ellipse" in out


def test_data_without_labels(runs: dict[str, Path], distk_command) -> None:
    code, out, err = distk_command("embed", runs["linear"], "--rows", 20, "--json")
    assert code == 0, err
    assert (json.loads(out)["tensors"], json.loads(out)["classes"]) == ({"z": [20, 10]}, {})
    assert "has no label" in err


def test_scores_that_nothing_can_give_are_refused_before_the_work(runs: dict[str, Path], distk_command) -> None:
    for words, said in (
        (("linear", "--score"), "--score needs a label or a categorical factor. Data set 'dimred' has no labels;"),
        (("fstat", "--score", "--rows", 5, "--ks", "1,7"), "--ks 7 asks for as many neighbours, but each of 5 items"),
    ):
        code, out, err = distk_command("embed", runs[words[0]], *words[1:], "--out", "e.safetensors")
        assert (code, out) == (2, "")
        assert said in " ".join(err.split())
        assert not Path("e.safetensors").exists()


def test_few_items_have_fewer_neighbours(runs: dict[str, Path], distk_command) -> None:
    code, out, err = distk_command("embed", runs["fstat"], "--score", "--rows", 12, "--json", "--out", "e.safetensors")
    assert code == 0, err
    assert sorted(json.loads(out)["recall"], key=int) == ["1", "5", "10"]


def test_what_can_be_scored_is_scored(runs: dict[str, Path], distk_command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that a code cannot have is a warning where another one can be given, and an error where none can."""

    def refuse(*arguments: object) -> None:
        raise DistkError("only discrete codes.")

    line = ("embed", runs["fstat"], "--score", "--rows", 60, "--json", "--out", "e.safetensors")
    monkeypatch.setattr(embed, "best_dimensions", refuse)
    code, out, err = distk_command(*line)
    assert code == 0, err
    assert "warning: only discrete codes." in err
    assert json.loads(out)["recall"]
    assert json.loads(out)["auc_file"] is None
    assert distk_command(*line[:-3], "--out", "e.safetensors")[0] == 0
    monkeypatch.setattr(embed, "recall", refuse)
    code, out, err = distk_command(*line)
    assert (code, out) == (2, "")
    assert "'e.safetensors' is written, but --score has nothing to say of it: only discrete codes." in " ".join(
        err.split()
    )


def test_a_class_for_every_time_step() -> None:
    """A group with steps has a class per step; its columns lie among those of other groups."""
    space = LatentSpace.of(Latent("z", "continuous", 1), Latent("d", "categorical", 4, steps=3))
    index = torch.randint(4, (5, 3))
    table = CodeTable(torch.cat([torch.randn(5, 1), index.float()], 1), space.columns, space.column_kinds)
    assert torch.equal(classes_of(table, space)["class.d"], index)


def test_contingency_counts_labels_without_names() -> None:
    held = contingency(torch.tensor([0, 2, 2]), 3, torch.tensor([1, 0, 2]), ("a", "b"))
    assert held == {
        "counts": [1, 0, 2],
        "contingency": [[0, 1, 0], [0, 0, 0], [1, 0, 1]],
        "labels": ["a", "b", "label 2"],
    }
    assert contingency(torch.tensor([1]), 2, None, ("a",))["contingency"] is None


def test_a_histogram_holds_both_ends() -> None:
    lines = histogram([0.5, 0.97, 1.0], width=10)
    assert lines[0].split() == ["0.50-0.55", "#####", "1"]
    assert lines[-1].split() == ["0.95-1.00", "##########", "2"]


@pytest.mark.parametrize("text", ["", "1,x", "0", "-1", "1.5"])
def test_numbers_of_neighbours(text: str) -> None:
    assert neighbours("5, 1,5") == [1, 5]
    with pytest.raises(UsageError, match="positive whole numbers"):
        neighbours(text)
