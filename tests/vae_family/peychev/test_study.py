"""The studies beta-shapes and beta-mnist: their recipes, their rows, what resuming and wrong requests do."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from distk import open_dataset
from distk.plugins.vae_family.peychev import study
from distk.plugins.vae_family.peychev.judge import judge
from distk.plugins.vae_family.peychev.study import Job, ShapesConfig, groups
from distk.plugins.vae_family.peychev.study_data import split, subset, svm_accuracy
from distk.study.claims import FAILS, FEW, HOLDS, Claim
from distk.study.plan import plan

TINY = {"settings.epochs": 2, "model.hidden": 12, "model.bn_momentum": 0.1, "train.batch": 64}
SHAPES = {**TINY, "settings.pairs": 120, "data.shapes": ["square"], "data.rotations": 4, "data.positions": 8}
MNIST = {**TINY, "settings.svm_max": 300, "settings.codes": "both", "data.copies": 1, "data.test_copies": 1}


def sets(values: dict[str, Any]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


def without_time(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder)]


def test_the_recipes_have_the_papers_grids() -> None:
    betas = [v.point["beta"] for v in plan("beta-shapes", scale="paper").variants if v.group == "conv-dn"]
    assert betas == [round(0.2 * i, 10) for i in range(26)]
    made = plan("beta-mnist", scale="paper")
    assert len(made.variants) == 2 * 7 * 41
    assert made.settings(made.variants[0], 0).data == "mnist"
    assert [v.group for v in plan("beta-shapes").variants] == [
        n for n in ("fc", "conv", "fc-dn", "conv-dn") for _ in "014"
    ]


def test_groups_never_mix_networks_fractions_or_rates() -> None:
    made = plan("beta-shapes", scale="paper")
    options = ShapesConfig(parallel=4, lr_beta0=3e-5)
    jobs = [Job(v, s, made.settings(v, s), options) for v in made.variants for s in range(5)]
    found = groups(jobs)
    assert [job for group in found for job in group] == jobs
    for group in found:
        assert 1 <= len(group) <= 4
        assert len({(job.variant.group, job.lr) for job in group}) == 1
    assert {job.lr for job in jobs if job.settings.model.beta == 0} == {3e-5}
    assert {job.lr for job in jobs if job.settings.model.beta > 0} == {1e-3}


def test_a_study_its_files_and_resuming(distk_command, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after its second group and resumed, a study ends with the same rows as one that was not; a model that
    diverges has an empty score."""
    made = study._model

    def broken(job: Job, dataset: Any) -> Any:
        model = made(job, dataset)
        if job.variant.label == "fc beta=4" and job.seed == 1:
            with torch.no_grad():
                model.encoder[-1].bias.fill_(math.nan)
        return model

    monkeypatch.setattr(study, "_model", broken)
    line = ("study", "run", "beta-shapes", "--device", "cpu", *sets(SHAPES))
    code, out, err = distk_command(*line, "--json", "--out", "whole")
    assert code == 0, err
    told = json.loads(out)
    assert len(told["runs"]) == 24
    assert (in_folder / "whole/fig1.png").stat().st_size > 5000
    lost = next(row for row in rows(in_folder / "whole") if row["variant"] == "fc beta=4" and row["seed"] == "1")
    assert (lost["disentanglement"], lost["recon"], lost["diverged"]) == ("", "", "1.0")
    mean = next(t for t in told["table"] if (t["variant"], t["column"]) == ("fc beta=4", "disentanglement"))
    assert mean["n"] == 1
    assert "conv-dn-beta=4_s1.safetensors" in [path.name for path in (in_folder / "whole/models").iterdir()]

    train = study._train
    calls: list[int] = []

    def dying(group: Any, *rest: Any) -> Any:
        calls.append(len(group))
        if len(calls) == 3:
            raise RuntimeError("killed")
        return train(group, *rest)

    monkeypatch.setattr(study, "_train", dying)
    code, _, _ = distk_command(*line, "--out", "parts")
    assert code != 0
    assert len(rows(in_folder / "parts")) == sum(calls[:2])
    code, out, err = distk_command(*line, "--out", "parts")
    assert code == 0, err
    assert "disentanglement" in out
    assert without_time(in_folder / "parts") == without_time(in_folder / "whole")
    code, _, err = distk_command(*line, "--set", "settings.epochs=3", "--out", "parts")
    assert code == 2
    assert "holds 'fc beta=0' with settings.epochs = 2, and 3 is asked for" in " ".join(err.split())
    code, out, _ = distk_command("info", "whole/models/conv-dn-beta=4_s1.safetensors")
    assert "peychev-conv" in out


def test_mnist_with_digits(distk_command, in_folder: Path) -> None:
    code, out, err = distk_command(
        "study", "run", "beta-mnist", "--seeds", "1", "--device", "cpu", *sets(MNIST), "--json"
    )
    assert code == 0, err
    found = json.loads(out)["runs"]
    assert len(found) == 16
    assert {row["svm_rows"] for row in found if row["fraction"] == 1} == {300}
    assert all(0 <= row[f"accuracy_{codes}"] <= 1 for row in found for codes in ("sample", "mean"))


def test_wrong_requests(distk_command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTK_DATA", raising=False)
    code, _, err = distk_command("study", "run", "beta-mnist", "--device", "cpu", "--set", "data.name=mnist")
    assert code == 2
    assert "train-images-idx3-ubyte" in err
    assert "data.name=digits-aug" in " ".join(err.split())
    code, _, err = distk_command("study", "show", "beta-mnist", "--set", "settings.codes=best")
    assert code == 2
    assert "best" in err


def test_fractions_are_stratified() -> None:
    dataset = open_dataset("digits-aug", {"copies": 2})
    data = split(dataset)
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


def made_up(sign: float, slow: float = 1.0) -> list[dict[str, Any]]:
    """Curves of three seeds and two fractions: rising to beta 2, then flat; the small fraction is `slow` lower."""
    return [
        {
            "variant": f"{n} {b}",
            "seed": s,
            "network": n,
            "beta": b,
            "fraction": f,
            "score": sign * (0.4 + 0.1 * min(b, 2) * (1 + s))
            + (0.05 if n == "a" else 0)
            - (f < 1) * (slow if n == "a" else 0.5),
        }
        for n in ("a", "b")
        for b in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
        for f in (0.1, 1.0)
        for s in range(3)
    ]


@pytest.mark.parametrize(
    ("kind", "rising", "falling"),
    [
        ("rises: a", HOLDS, FAILS),
        ("flattens: a", HOLDS, FAILS),
        ("spread: a", HOLDS, HOLDS),
        ("rises more: a over b", FAILS, FAILS),
        ("no worse: a than b", HOLDS, HOLDS),
        ("no worse: b than a", FAILS, FAILS),
        ("loses less: a than b", FAILS, FAILS),
        ("loses less: b than a", HOLDS, HOLDS),
    ],
)
def test_claims_on_made_up_curves(kind: str, rising: str, falling: str) -> None:
    claim = Claim("it", kind=kind, column="score", margin=0.01)
    for sign, verdict in ((1.0, rising), (-1.0, falling)):
        found = judge(claim, made_up(sign))
        assert found is not None
        assert found.verdict == verdict, found
    few = judge(claim, [row for row in made_up(1.0) if row["seed"] == 0])
    assert few is not None
    assert few.verdict == FEW
    assert judge(Claim("it", kind="beauty", column="score"), made_up(1.0)) is None
