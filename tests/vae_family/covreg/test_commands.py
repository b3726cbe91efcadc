"""covreg's experiments as ensembles, and its commands."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
import torch

from distk import UsageError, cli
from distk.plugins.vae_family.covreg import commands
from distk.plugins.vae_family.covreg import study as study
from distk.plugins.vae_family.covreg.method import ConvNet, LinearNet, XorNet
from distk.plugins.vae_family.covreg.penalty import Config
from distk.registry import registry

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

    chosen = study.members(["covreg", "l1act", "covreg-drop"], [0.0, 0.5], range(2))
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


def test_members_share_what_does_not_differ() -> None:
    chosen = study.members(["covreg", "l1act"], [0.0, 0.1], range(2))
    assert [(m.penalty, m.weight, m.seed) for m in chosen] == [
        *(("covreg", 0.0, s) for s in (0, 1)),
        *(("covreg", 0.1, s) for s in (0, 1)),
        *(("l1act", 0.1, s) for s in (0, 1)),
    ]
    rows = [{"penalty": m.penalty, "weight": m.weight, "mse": 1.0} for m in chosen]
    assert {w: len(r) for w, r in study.by_weight(rows, "l1act").items()} == {0.0: 2, 0.1: 2}


def test_curves_are_compared_at_equal_error() -> None:
    def row(name, weight, mse, cvr):
        return {"penalty": name, "weight": weight, "mse": mse, "cvr": cvr}

    rows = [row("covreg", 0, 1e-4, 8), row("covreg", 1, 1e-2, 2), row("l1act", 1, 1e-3, 6), row("l1act", 2, 1e-1, 4)]
    found = study.at_equal_error(rows, "cvr", "covreg", "l1act")
    assert [pytest.approx(t) for t in found] == [(1e-4, 8, 8), (1e-2, 2, 5)]


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
    settings = {"dataset": data, "items": None, "batch": 20, "epochs": 3, "lr": 1e-3, "code": 6, "d": 2}
    rows = study.cifar(study.members(["covreg"], [0.1], range(2)), CPU, settings)
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


@pytest.mark.parametrize(
    ("arguments", "networks"),
    [
        (("--exp", "dimred", "--steps", "20", "--items", "50", "--lambdas", "0,0.1,1"), 10),
        (("--exp", "xor", "--steps", "20", "--lambdas", "0,0.2", "--penalties", "covreg,covreg-drop"), 6),
        (("--exp", "cifar", "--epochs", "1", "--items", "60", "--batch", "20", "--data", "deadleaves"), 4),
    ],
)
def test_studies_write_a_table_and_a_figure(distk, in_folder, monkeypatch, arguments, networks) -> None:
    if "cifar" in arguments:
        monkeypatch.setattr(commands, "LAMBDAS", {"cifar": (0.0, 0.08)})
        arguments = (*arguments, "--penalties", "covreg")
        small = study.open_dataset("deadleaves", {"size": 16, "train": 100, "test": 30})
        monkeypatch.setattr("distk.open_dataset", lambda *_, **__: small)
    out, _ = distk("study", "covreg", *arguments, "--seeds", "2", "--device", "cpu", "--json", "--out", "made")
    told = json.loads(out)
    assert told["networks"] == networks
    assert (in_folder / told["files"][1]).read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((in_folder / told["files"][0]).open()))
    assert len(rows) == networks
    assert told["rows"][0]["penalty"] == "none"
    if "cifar" in arguments:
        assert told["linear_floor"]["mse"] > 0
        assert float(rows[0]["mse"]) > 0


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures take a second or two each."""
    monkeypatch.setattr(commands, "_curves", lambda *_: b"")


@pytest.mark.usefixtures("undrawn")
def test_trained_one_after_another_they_are_the_same(distk, in_folder) -> None:
    line = ("study", "covreg", "--exp", "dimred", "--steps", "10", "--items", "50", "--lambdas", "0,1", "--seeds", "2")
    distk(*line, "--device", "cpu", "--out", "all")
    distk(*line, "--device", "cpu", "--out", "each", "--at-once", "1")
    a, b = (list(csv.DictReader((in_folder / n / "covreg-dimred.csv").open())) for n in ("all", "each"))
    for one, other in zip(a, b, strict=True):
        assert one["penalty"] == other["penalty"]
        assert float(one["mse"]) == pytest.approx(float(other["mse"]), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exp": "mnist"}, "--exp 'mnist' is none of dimred, xor, cifar"),
        ({"lambdas": "0,-1"}, "weights are finite numbers of at least 0"),
        ({"lambdas": "a"}, "write numbers with commas"),
        ({"penalties": "l2"}, "'l2' is none of covreg, covreg-drop, l1act"),
        ({"penalties": ","}, "--penalties names none"),
        ({"lr": 0.0}, r"--lr 0.0 is no positive number"),
        ({"exp": "cifar", "data": "xor"}, "the networks take images"),
        ({"exp": "cifar", "data": "deadleaves", "d": 85}, "--d 85 is more than the 84 units"),
    ],
)
def test_what_a_study_refuses(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        commands.covreg(**options)


@pytest.mark.usefixtures("undrawn")
def test_a_collapsed_layer_fails_a_study(distk, in_folder, monkeypatch) -> None:
    real = study.dimred

    def dead(*arguments):
        rows = real(*arguments)
        rows[-1]["trace"] = 0.0
        return rows

    monkeypatch.setattr(study, "dimred", dead)
    line = ("--steps", "2", "--items", "20", "--lambdas", "0,1", "--seeds", "1", "--penalties", "covreg", "--out", "o")
    _, err = distk("study", "covreg", *line, code=1)
    assert "the coding layer is constant (collapsed) in 1 of 2 networks, the first of them covreg at weight 1" in err
    assert (in_folder / "o/covreg-dimred.csv").exists()
