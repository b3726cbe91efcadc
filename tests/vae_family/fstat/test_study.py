"""Study `fstat`: losses over folds of unseen identities, by the runner behind `distk study run fstat`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from distk import UsageError, open_dataset
from distk.embedding import label_of
from distk.plugins.vae_family.fstat.study import folds_of

TINY = [
    *("--set", "data.poses=2"),
    *("--set", "model.hidden=16"),
    *("--set", "model.k=12"),
    *("--set", "model.classes_per_batch=6"),
    *("--set", "model.samples_per_class=2"),
    *("--set", "train.steps=2"),
    *("--set", "settings.every=2"),
    *("--device", "cpu", "--out", "s", "--json"),
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_losses_are_compared_over_folds_and_what_is_done_is_not_done_again(distk_command, in_folder: Path) -> None:
    code, out, err = distk_command("study", "run", "fstat", "--seeds", 1, *TINY)
    assert code == 0, err
    assert [(r["variant"], r["seed"]) for r in json.loads(out)["runs"]] == [
        ("F-statistic", 0),
        ("triplet", 0),
        ("histogram", 0),
        ("F-statistic d=5", 0),
        ("F-statistic d=10", 0),
    ]
    first = rows_of(in_folder / "s" / "auc.csv")
    assert len(first) == 5 * 16, "16 attribute values of each loss"
    areas = [float(line["auc"]) for line in first if line["variant"] == "triplet"]
    row = rows_of(in_folder / "s" / "results.csv")[1]
    assert float(row["auc mean"]) == pytest.approx(sum(areas) / 16)
    assert float(row["auc above 0.95"]) == pytest.approx(100 * sum(area > 0.95 for area in areas) / 16)
    assert 0 <= float(row["recall@1"]) <= float(row["recall@5"]) <= 100
    assert float(row["step"]) == float(row["stopped"]) == 2
    assert (in_folder / "s" / "auc.png").read_bytes()[:4] == b"\x89PNG"

    code, out, err = distk_command("study", "run", "fstat", "--seeds", 2, *TINY)
    assert code == 0, err
    assert "5 of 10 rows to do" in err
    told = json.loads(out)
    assert len(told["runs"]) == 10
    second = rows_of(in_folder / "s" / "auc.csv")
    assert second[: len(first)] == first
    assert len(second) == 2 * len(first)
    line = next(n for n in told["table"] if (n["variant"], n["column"]) == ("triplet", "recall@1"))
    assert line["n"] == 2
    printed = next(n for n in told["table"] if n["column"] == "recall@1 on CUHK03")
    assert (printed["published"], printed["mean"]) == ("90.5% ± 0.4%", None)


def test_settings_that_are_wrong_are_one_sentence(distk_command, in_folder: Path) -> None:
    for option, words in (
        ("fstat.beta-h=3", "beta-h"),
        ("settings.folds=1", "folds"),
        ("vae.z=3", "'vae' is no method"),
    ):
        code, _, err = distk_command("study", "run", "fstat", "--set", option)
        assert code == 2, err
        assert words in " ".join(err.split())
    assert not (in_folder / "runs").exists()


def test_only_embeddings_take_part(distk_command, in_folder: Path) -> None:
    Path("other.toml").write_text(
        'runner = "fstat"\n[columns."recall@1"]\nhigher_is_better = true\n[data]\nname = "puppets"\nsize = 30\n'
        'poses = 2\n[train]\nsteps = 1\nbatch = 4\n[[variants]]\nmethod = "vae"\nmodel = { arch = "mlp" }\n'
    )
    code, _, err = distk_command("study", "run", "other.toml", "--device", "cpu")
    assert code == 2, err
    assert "method 'vae' is none of fstat, triplet, histloss, bindev" in " ".join(err.split())


def test_folds_share_no_identity_and_cover_all() -> None:
    data = open_dataset("puppets", {"size": 30, "poses": 2}, device=torch.device("cpu"))
    label = label_of(data, torch.arange(len(data)))
    parts = folds_of(data, 5, 3)
    for part in parts:
        sets = [set(label[rows].tolist()) for rows in part.values()]
        assert sum(map(len, sets)) == len(set().union(*sets)) == len(label.unique())
        assert len(sets[1]) == (len(sets[1]) + len(sets[2])) // 5
    tested = [set(label[part["test"]].tolist()) for part in parts]
    assert len(set().union(*tested)) == sum(map(len, tested)) == len(label.unique())
    assert folds_of(data, 5, 4)[0]["test"].tolist() != parts[0]["test"].tolist()
    with pytest.raises(UsageError, match="folds need at least"):
        folds_of(data, 200, 0)
