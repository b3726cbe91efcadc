"""covreg's experiments as ensembles, and its commands."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
import torch

from distk import cli
from distk.plugins.vae_family.covreg import study
from distk.plugins.vae_family.covreg.judge import at_equal_error, judge
from distk.plugins.vae_family.covreg.method import ConvNet, LinearNet, XorNet
from distk.plugins.vae_family.covreg.penalty import Config
from distk.registry import registry
from distk.study.claims import FAILS, HOLDS, Claim
from distk.study.plan import plan

CPU = torch.device("cpu")


def test_the_convolutional_network_has_the_papers_size() -> None:
    net = ConvNet((3, 32, 32), 84)
    assert sum(p.numel() for p in net.parameters()) == 493_580
    output, layers = net(torch.rand(2, 3, 32, 32))
    assert output.shape == (2, 3, 32, 32)
    assert layers["code"].shape == (2, 84)


@pytest.mark.parametrize("kind", ["linear", "xor", "conv"])
def test_a_member_trains_as_if_it_were_alone(kind) -> None:
    build, shape = {
        "linear": (lambda: LinearNet(6, 4).double(), (6,)),
        "xor": (lambda: XorNet(6).double(), (6,)),
        "conv": (lambda: ConvNet((1, 16, 16), 5).double(), (1, 16, 16)),
    }[kind]
    # In float64, since Adam turns the rounding of a gradient near 0 into a step of full size.
    x = torch.rand(1, 8, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def error(output, items):
        return study.squared(output, items if kind != "xor" else items[..., 0])

    pairs = [("covreg", 0.0), ("covreg", 0.5), ("l1act", 0.5), ("covreg-drop", 0.5)]
    chosen = [study.Member(p, w, s) for p, w in pairs for s in range(2)]
    together = study.Ensemble(chosen, build, 1e-2, CPU)
    for _ in range(10):
        together.step(x, error)
    for i, member in enumerate(chosen):
        alone = study.Ensemble([member], build, 1e-2, CPU)
        for _ in range(10):
            alone.step(x, error)
        for name, value in alone.parameters.items():
            assert torch.allclose(together.parameters[name][i], value[0], atol=1e-7), (member, name)


def test_an_ensembles_loss_is_that_of_a_trained_method(generator) -> None:
    """The study's penalties are the registered ones."""
    h = torch.randn(2, 30, 5, generator=generator, dtype=torch.float64) + 3
    for name, of in study.PENALTIES.items():
        cls = registry().find("penalty", name.removesuffix("-drop")).load()
        config = Config(diag="drop") if name.endswith("-drop") else cls.Config()
        assert of(h).tolist() == pytest.approx([float(cls(config).value({"code": one})) for one in h], rel=1e-10)


def sweep(best: str) -> list[dict]:
    """Curves of three seeds: at equal error penalty `best` has the lower cvr; its own is lowest at weight 0.01."""
    return [
        {
            "variant": f"{name} {weight}",
            "seed": seed,
            "penalty": name if weight else "none",
            "weight": weight,
            "mse": 1e-4 + weight * (1 + seed),
            "cvr": 8.0 if not weight else (2.0 if name == best else 4.0) + abs(weight - 0.01),
        }
        for name in ("covreg", "l1act")
        for weight in (0.0, 0.001, 0.01, 0.1, 1.0)
        for seed in range(3)
        if weight or name == "covreg"
    ]


def test_curves_are_compared_at_equal_error() -> None:
    def row(name, weight, mse, cvr):
        return {"penalty": name, "weight": weight, "mse": mse, "cvr": cvr}

    rows = [row("covreg", 0, 1e-4, 8), row("covreg", 1, 1e-2, 2), row("l1act", 1, 1e-3, 6), row("l1act", 2, 1e-1, 4)]
    found = at_equal_error(rows, "cvr", "covreg", "l1act")
    assert [pytest.approx(t) for t in found] == [(1e-4, 8, 8), (1e-2, 2, 5)]


def test_the_judge_of_sweeps() -> None:
    equal = Claim("it", kind="at equal error: covreg against l1act", column="cvr", direction="lower")
    assert judge(equal, sweep("covreg")).verdict == HOLDS
    assert judge(equal, sweep("l1act")).verdict == FAILS
    assert judge(Claim("it", kind="best weight: covreg", column="cvr", margin=0.1), sweep("covreg")).verdict == HOLDS
    assert judge(Claim("it", kind="best weight: covreg", column="cvr", margin=0.005), sweep("covreg")).verdict == FAILS
    assert judge(Claim("it", kind="beauty", column="cvr"), sweep("covreg")) is None


def test_each_member_keeps_its_best_state(monkeypatch) -> None:
    """The squared error on the images kept back is made up: 3 1 2 for the first member, 2 3 1 for the second."""
    made_up = iter([[3.0, 2.0], [1.0, 3.0], [2.0, 1.0]])
    states, error = [], study._error

    def pretend(ensemble, data, rows, collected=None):
        if collected is not None:
            states.append({k: v.detach().clone() for k, v in ensemble.parameters.items()})
            return error(ensemble, data, rows, collected)
        states.append({k: v.detach().clone() for k, v in ensemble.parameters.items()})
        return torch.tensor(next(made_up))

    monkeypatch.setattr(study, "_error", pretend)
    data = study.open_dataset("deadleaves", {"size": 16, "train": 60, "test": 30})
    images = study.Images(data, batch=20, code=6, lr=1e-3)
    members = [study.Member("covreg", 0.1, s) for s in range(2)]
    rows = images.train(members, CPU, study.ImagesConfig(epochs=3, d=2))
    assert [row["epoch"] for row in rows] == [2, 3]
    *epochs, final = states
    for name, value in final.items():
        assert torch.equal(value[0], epochs[1][name][0])
        assert torch.equal(value[1], epochs[2][name][1])


def test_the_linear_floor_is_that_of_principal_components() -> None:
    data = study.open_dataset("deadleaves", {"size": 16, "train": 200, "test": 10})
    train, _, _ = study._splits(data, 200)
    x = data.batch(train)["x"].flatten(1) * 2 - 1
    x = (x - x.mean(0)).double()
    variance = torch.linalg.svdvals(x).square()
    error, share = study.linear_floor(data, 20)
    assert share == pytest.approx(float(variance[20:].sum() / variance.sum()), rel=0.02)
    assert error == pytest.approx(float(variance[20:].sum()) / x.numel(), rel=0.02)


# Commands


@pytest.fixture
def distk(in_folder, monkeypatch, capsys):
    """`distk("covmap", ..., code=0)`: (stdout, stderr) of a command line in this process, in an empty folder."""

    def call(*line: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["distk", *line])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code, err
        return out, " ".join(err.split())

    return call


def test_train_eval_and_covmap(distk, in_folder) -> None:
    small = ("--items", "60", "--batch", "60", "--steps", "30", "--device", "cpu")
    _, err = distk("train", "covreg-linear", *small, "--penalty-weight", "0.2", "--out", "r")
    assert "penalty covreg: weight 0.2 on code" in err
    assert "encoder per step" not in err
    out, _ = distk("eval", "r", "--metric", "covstats", "--set", "d=4", "--json")
    scores = json.loads(out)["metrics"]["covstats"]
    assert 1 <= scores["cvr"] <= 10
    out, _ = distk("covmap", "r", "--out", "cov.png", "--json")
    shown = json.loads(out)
    assert shown["cvr"] == pytest.approx(scores["cvr"], rel=1e-6)
    assert (in_folder / "cov.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.reader((in_folder / "cov.csv").open()))
    assert rows[0] == ["unit", *(f"code{i}" for i in range(1, 11))]
    matrix = np.array([[float(v) for v in row[1:]] for row in rows[1:]])
    assert np.allclose(matrix, scores["covariance"], rtol=1e-9)
    _, err = distk("covmap", "r", "--layer", "nothing", code=2)
    assert "there is no layer 'nothing'; there is code" in err
    _, err = distk("eval", "r", "--metric", "covstats", "--set", "d=11", code=1)
    assert "d = 11 is more than the 10 units" in err


def test_xor_names_its_layers(distk) -> None:
    _, err = distk("train", "covreg-xor", "--steps", "2", "--device", "cpu", "--out", "r")
    assert "penalty covreg: weight 0.2 on hidden1, hidden2" in err
    _, err = distk("train", "covreg-xor", "--steps", "2", "--penalty-layer", "hidden3", code=2)
    assert "'hidden3'" in err
    assert "Available: code, hidden1, hidden2" in err
    _, err = distk("train", "covreg-linear", "--batch", "1", "--steps", "2", code=2)
    assert "covreg needs at least 2 examples per batch (got 1)" in err


SMALL = {
    "covreg-dimred": ["settings.steps=10", "settings.items=50"],
    "covreg-xor": ["settings.steps=20"],
    "covreg-conv": ["settings.epochs=1", "settings.items=60", "train.batch=20", "data.size=16", "data.test=30"],
}


@pytest.mark.parametrize(("name", "networks"), [("covreg-dimred", 17), ("covreg-xor", 7), ("covreg-conv", 5)])
def test_studies_give_rows_and_figures(distk, in_folder, name, networks) -> None:
    line = ["study", "run", name, "--seeds", "1", "--device", "cpu", "--out", "made"]
    line += [part for given in SMALL[name] for part in ("--set", given)]
    told = json.loads(distk(*line, "--json")[0])
    rows = list(csv.DictReader((in_folder / "made/results.csv").open()))
    assert len(told["runs"]) == len(rows) == networks
    assert rows[0]["penalty"] == "none"
    assert all(float(row["trace"]) > 0 for row in rows)
    for file in told["files"][2:]:
        assert (in_folder / file).read_bytes().startswith(b"\x89PNG")
    before = (in_folder / "made/results.csv").read_text()
    out, _ = distk(*line)  # nothing is left to do
    assert "claims" in out
    assert (in_folder / "made/results.csv").read_text() == before
    _, err = distk(*line, "--set", "settings.weight=3", code=2)
    assert "holds 'without' with settings.weight = 0.0, and 3.0 is asked for" in err


def test_the_recipes_have_the_papers_sizes() -> None:
    assert len(plan("covreg-dimred", scale="paper").variants) == 17
    assert len(plan("covreg-dimred", scale="paper").seeds) == 10
    made = plan("covreg-conv", scale="paper")
    weights = [v.point["settings.weight"] for v in made.variants if v.group == "covreg"]
    assert weights == [round(0.02 * 2**k, 2) for k in range(10)]
    assert made.settings(made.variants[0], 0).data == "cifar10"


def test_trained_one_after_another_they_are_the_same(distk, in_folder) -> None:
    line = ("study", "run", "covreg-dimred", "--seeds", "1", "--device", "cpu", "--set", "settings.steps=10")
    line += ("--set", "settings.items=50")
    distk(*line, "--out", "all")
    distk(*line, "--out", "each", "--set", "settings.at_once=1")
    a, b = (list(csv.DictReader((in_folder / n / "results.csv").open())) for n in ("all", "each"))
    for one, other in zip(a, b, strict=True):
        assert one["variant"] == other["variant"]
        assert float(one["mse"]) == pytest.approx(float(other["mse"]), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("covreg-xor", "settings.weight=-1", "-1.0 is below the smallest allowed value 0"),
        ("covreg-xor", "settings.penalty=l2", "l2"),
        ("covreg-dimred", "settings.lr=0", "0.0 must be above 0"),
        ("covreg-conv", "data.name=xor", "covreg-conv"),
    ],
)
def test_what_a_study_refuses(distk, name, given, message) -> None:
    _, err = distk("study", "show", name, "--set", given, code=2)
    assert message in err


def test_a_collapsed_layer_fails_a_study(distk, in_folder, monkeypatch) -> None:
    real = study.dimred

    def dead(*arguments):
        rows = real(*arguments)
        rows[-1]["trace"] = 0.0
        return rows

    monkeypatch.setattr(study, "dimred", dead)
    line = ("--seeds", "1", "--set", "settings.steps=2", "--set", "settings.items=20", "--out", "o")
    _, err = distk("study", "run", "covreg-dimred", *line, code=1)
    assert "the coding layer is constant (collapsed) in 1 of 17 networks, the first of them l1act weight=1" in err
    assert (in_folder / "o/results.csv").exists()
