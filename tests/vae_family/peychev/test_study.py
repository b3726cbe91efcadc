"""`distk study beta`: what is asked for, resuming, figures, and what it says about wrong requests."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from distk import UsageError, open_dataset
from distk.cli import build
from distk.plugins.vae_family.peychev import figures, study
from distk.plugins.vae_family.peychev.study import (
    Grid,
    Job,
    Setting,
    groups,
    parse_fractions,
    parse_range,
    parse_variants,
)
from distk.plugins.vae_family.peychev.study_data import split, subset, svm_accuracy

TINY = ["--hidden", "12", "--batch", "64", "--epochs", "2", "--bn-momentum", "0.1", "--models", "2"]
SHAPES = ["shapes", *TINY, "--betas", "0,4", "--variants", "fc,conv-dn", "--pairs", "120", "--parallel-models", "2"]
SHAPES += [
    "--set",
    "size=16",
    "--set",
    "shapes=square",
    "--set",
    "scales=0,5",
    "--set",
    "rotations=4",
    "--set",
    "positions=8",
]


def distk(*arguments: Any) -> str:
    """What a command prints on stdout; its errors are raised."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        build().main(args=[str(a) for a in arguments], prog_name="distk", standalone_mode=False)
    return out.getvalue()


def beta(*arguments: Any) -> str:
    return distk("study", "beta", *arguments)


def refused(*arguments: Any) -> str:
    with pytest.raises(UsageError) as error:
        beta(*arguments)
    return str(error.value)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


def without_time(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder)]


def test_ranges() -> None:
    assert parse_range("0:5:0.2") == tuple(i / 5 for i in range(26))
    assert len(parse_range("0:4:0.1")) == 41
    assert parse_range("0:4:0.1")[3] == 0.3
    assert parse_range("0,1,4") == (0, 1, 4)
    assert parse_range("2:2:1") == (2,)
    for wrong in ("5:0:0.2", "-1,2", "1,1", "0:1", "0:1:0", "0:1:-1", "a", "", "0:inf:1", "nan", "0:1e9:1e-9"):
        with pytest.raises(UsageError, match="increasing range of values >= 0"):
            parse_range(wrong)
    for wrong in ("0,1", "0.5,1.5"):
        with pytest.raises(UsageError, match="must be in"):
            parse_fractions(wrong)
    with pytest.raises(UsageError, match="conv-dn"):
        parse_variants("fc,vgg")


def test_groups_never_mix_variants_fractions_or_rates() -> None:
    grid = Grid(("fc", "conv"), (0.0, 0.2, 0.4), 5, (0.5, 1.0), parallel=4)
    setting = Setting("shapes", "shapes2d", lr_beta0=3e-5)
    made = groups(grid, setting)
    assert sum(map(len, made)) == len({job for group in made for job in group}) == 2 * 3 * 5 * 2
    for group in made:
        assert 1 <= len(group) <= 4
        assert len({(job.variant, job.fraction, study.rate(setting, job)) for job in group}) == 1


def test_a_study_its_files_and_resuming(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after its first group and resumed, a study ends with the same rows as one that was not."""
    whole, parts = in_folder / "whole", in_folder / "parts"
    found = json.loads(beta(*SHAPES, "--out", whole, "--json"))
    assert found["models"] == 8
    assert len(found["rows"]) == 4
    assert (whole / "fig1.png").stat().st_size > 5000
    assert [float(row["beta"]) for row in rows(whole)] == [0, 0, 4, 4, 0, 0, 4, 4]
    checkpoints = sorted(path.name for path in (whole / "models").iterdir())
    assert len(checkpoints) == 8
    assert "conv-dn_beta4_s1.safetensors" in checkpoints

    add = study.Folder.add

    def dying(self: Any, found: Any) -> None:
        add(self, found)
        raise RuntimeError("killed")

    monkeypatch.setattr(study.Folder, "add", dying)
    with pytest.raises(RuntimeError, match="killed"):
        beta(*SHAPES, "--out", parts)
    monkeypatch.undo()
    assert len(rows(parts)) == 2
    beta(*SHAPES, "--out", parts, "--resume")
    assert without_time(parts) == without_time(whole)
    assert (parts / "fig1.csv").read_text() == (whole / "fig1.csv").read_text()
    before = (parts / "results.csv").read_text()
    beta(*SHAPES, "--out", parts, "--resume")  # nothing is left to do
    assert (parts / "results.csv").read_text() == before

    told = refused(*SHAPES, "--out", parts, "--resume", "--epochs", "3")
    assert "epochs (2 there, 3 here)" in told
    assert "--force" in told
    beta(*SHAPES, "--out", parts, "--resume", "--force", "--epochs", "3")
    assert "holds a study" in refused(*SHAPES, "--out", parts)

    # A checkpoint of the study is one like any other.
    assert "peychev-conv" in distk("info", whole / "models" / "conv-dn_beta4_s1.safetensors")


def test_more_betas_may_be_added(in_folder: Path) -> None:
    small = [*SHAPES, "--variants", "fc", "--models", "1", "--out", in_folder / "s", "--no-keep-models"]
    beta(*small, "--betas", "4")
    first = rows(in_folder / "s")
    beta(*small, "--betas", "0,4", "--resume")
    assert [float(row["beta"]) for row in rows(in_folder / "s")] == [0, 4]
    assert rows(in_folder / "s")[1] == first[0]
    assert not list((in_folder / "s" / "models").iterdir())


def test_mnist_with_digits(in_folder: Path) -> None:
    asked = ["mnist", *TINY, "--data", "digits-aug", "--set", "copies=1", "--set", "test-copies=1", "--betas", "0.1,4"]
    asked += [
        "--fractions",
        "0.3,1",
        "--variants",
        "fc",
        "--parallel-models",
        "4",
        "--codes",
        "both",
        "--svm-max",
        "300",
    ]
    found = json.loads(beta(*asked, "--out", in_folder / "m", "--json"))
    assert len(found["rows"]) == 8  # 2 betas, 2 fractions, 2 kinds of codes
    table = rows(in_folder / "m")
    assert len(table) == 8
    assert {row["svm_rows"] for row in table} == {"300"}
    assert all(0 <= float(row[f"accuracy_{codes}"]) <= 1 for row in table for codes in ("sample", "mean"))
    assert (in_folder / "m" / "fig2.png").exists()
    claims = {claim["claim"] for claim in found["claims"]}
    assert "fc, sample codes: accuracy falls from beta 0.1 to 4" in claims
    shown = beta("summary", in_folder / "m")
    assert "fig2.png" in shown


def test_wrong_requests(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    told = refused("mnist", "--out", "m")
    assert "train-images-idx3-ubyte" in told
    assert "t10k-labels-idx1-ubyte" in told
    assert "--data digits-aug" in told
    tiny = ["mnist", "--data", "digits-aug", "--set", "copies=1", "--fractions", "0.01", "--variants", "fc"]
    assert "examples of class '" in refused(*tiny, "--out", "m2")
    assert not (in_folder / "m2").exists()
    assert "increasing range" in refused("shapes", "--betas", "5:0:0.2")
    assert "opengl" in refused("shapes", "--renderer", "opengl")
    assert "NAME=VALUE" in refused("shapes", "--set", "size")
    assert "holds no study" in refused("summary", in_folder)
    (in_folder / "study.json").write_text("{}")
    assert "damaged" in refused("summary", in_folder)
    (in_folder / "study.json").write_text('{"setting": {"kind": "shapes"}}')
    (in_folder / "results.csv").write_text("a,b\n1,2\n")
    assert "damaged" in refused("summary", in_folder)
    assert "none of sample" in refused("mnist", "--codes", "best")


def test_a_diverged_model_is_recorded_and_left_out(in_folder: Path) -> None:
    out = in_folder / "n"
    beta(*SHAPES, "--out", out, "--variants", "fc", "--betas", "4", "--models", "3")
    table = rows(out)
    table[0] |= {"status": "nan", "disentanglement": "", "recon": ""}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    (out / "results.csv").write_text(text.getvalue())
    found = figures.summary(out)
    assert found["excluded"] == 1
    (row,) = found["rows"]
    assert (row["models"], row["excluded"]) == (2, 1)
    scores = [float(r["disentanglement"]) for r in table[1:]]
    assert row["mean"] == pytest.approx(sum(scores) / 2, rel=1e-4)
    assert row["sd"] == pytest.approx(abs(scores[0] - scores[1]) / math.sqrt(2), rel=1e-3, abs=1e-6)


def test_a_model_that_diverges_while_training(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study._model

    def broken(setting: Setting, job: Job, data: Any) -> Any:
        model = made(setting, job, data)
        if job.seed == 1:
            with torch.no_grad():
                model.encoder[-1].bias.fill_(math.nan)
        return model

    monkeypatch.setattr(study, "_model", broken)
    found = json.loads(beta(*SHAPES, "--out", in_folder / "d", "--variants", "fc", "--betas", "4", "--json"))
    assert [row["status"] for row in rows(in_folder / "d")] == ["ok", "nan"]
    assert rows(in_folder / "d")[1]["disentanglement"] == ""
    assert found["excluded"] == 1
    assert found["rows"][0]["models"] == 1


def test_fractions_are_stratified(generator: torch.Generator) -> None:
    dataset = open_dataset("digits-aug", {"copies": 2})
    data = split(dataset, {})
    assert not bool(torch.isin(data.train, data.validation).any())
    assert len(data.train) + len(data.validation) == len(dataset.rows("train"))
    part = subset(data, 0.25, 3)
    everything = torch.bincount(dataset.batch(data.train)["label"])
    kept = torch.bincount(dataset.batch(part)["label"])
    assert bool(((kept - everything * 0.25).abs() <= 0.5).all())
    assert torch.isin(part, data.train).all()
    assert len(part.unique()) == len(part)
    assert not torch.equal(part, subset(data, 0.25, 4))
    assert torch.equal(subset(data, 1.0, 3), data.train)


def test_the_svm_is_scikit_learns_of_2017(generator: torch.Generator) -> None:
    from sklearn.svm import SVC

    x = torch.randn(300, 16, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    expected = SVC(C=1.0, kernel="rbf", gamma=1 / 16).fit(x[:200].numpy(), y[:200].numpy())
    score = expected.score(x[200:].numpy(), y[200:].numpy())
    assert svm_accuracy(x[:200], y[:200], x[200:], y[200:]) == pytest.approx(score)


def test_claims_on_made_up_curves() -> None:
    table = [
        {"variant": "fc-dn", "beta": b, "mean": 0.4 + 0.2 * min(b, 2) / 2, "sd": 0.05}
        for b in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    ]
    claims = figures.shapes_claims(table)
    assert all(claim["holds"] for claim in claims)
    assert len(claims) == 3
    falling = [{**row, "mean": 1 - row["mean"], "sd": 0.0} for row in table]
    assert not any(claim["holds"] for claim in figures.shapes_claims(falling)[:2])
