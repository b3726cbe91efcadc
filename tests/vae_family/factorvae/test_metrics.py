"""The metric `tc`: each estimator against closed forms and plain loops; the command line of factorvae and dipvae."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import CodeTable, UsageError, cli
from distk.evaluation import build_metric, score
from distk.plugins.vae_family.factorvae.metrics import aggregate_tc, gaussian_tc, mws_tc


def table(
    mean: Tensor, std: Tensor | None = None, kl: Tensor | None = None, kinds: list[str] | None = None
) -> CodeTable:
    d = mean.shape[1]
    return CodeTable(mean, [f"z{i + 1}" for i in range(d)], kinds or ["continuous"] * d, std=std, kl=kl)


def exact(cov: Tensor) -> float:
    return 0.5 * float(cov.diagonal().log().sum() - torch.logdet(cov))


def gaussian_codes(generator: torch.Generator, n: int, d: int = 3) -> tuple[Tensor, Tensor, float]:
    """Means and standard deviations `[n, d]` of a linear Gaussian encoder of Gaussian data, and the TC of its codes."""
    mix = 0.6 * torch.randn(d, d, generator=generator).double() + torch.eye(d)
    std = 0.4 + 0.4 * torch.rand(d, generator=generator).double()
    cov = mix @ mix.T + torch.diag(std**2)
    return torch.randn(n, d, generator=generator).double() @ mix.T, std.expand(n, d).clone(), exact(cov)


def test_gaussian_estimate_is_the_closed_form(generator) -> None:
    mix = torch.randn(4, 4, generator=generator).double()
    x = torch.randn(500, 4, generator=generator).double()
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), (x - x.mean(0)).T, upper=False).T
    z = white @ mix.T * torch.tensor([1.0, 100.0, 0.01, 1.0])
    assert gaussian_tc(z) == pytest.approx(exact(mix @ mix.T), rel=1e-6)
    constant = torch.cat([z, torch.full((500, 1), 3.0)], 1)
    assert gaussian_tc(constant) == pytest.approx(gaussian_tc(z), rel=1e-12)
    assert gaussian_tc(z[:, :1]) == 0.0
    assert gaussian_tc(torch.cat([z[:, :2], z[:, :1]], 1)) > 10  # a copy: infinite but for rounding


def test_sampled_codes_of_a_linear_gaussian_encoder(generator) -> None:
    """Gaussian and aggregate estimates agree with the exact figure, on all items and on a part of them."""
    mean, std, truth = gaussian_codes(generator, 20_000)
    for options in ({}, {"components": 2000, "points": 2000}):
        found = score(table(mean, std), "tc", options, seed=0, repeats=None)
        assert found["gaussian"] == pytest.approx(truth, abs=0.12)
        # 500 points: their mean strays by sd / sqrt(500), the sd of the pointwise ratio being below 1.2 here.
        assert found["aggregate"] == pytest.approx(truth, abs=0.35)
        assert "discriminator" not in found
        assert found["mws"] > truth + 10  # (D - 1) log N = 19.8 nats of constants


def test_aggregate_against_a_plain_loop(generator) -> None:
    k, d, total = 7, 3, 11
    mean, std = torch.randn(k, d, generator=generator).double(), 0.3 + torch.rand(k, d, generator=generator).double()
    z = mean[:5] + std[:5] * torch.randn(5, d, generator=generator)

    def density(x: float, m: float, s: float) -> float:
        return math.exp(-0.5 * ((x - m) / s) ** 2) / s / math.sqrt(2 * math.pi)

    for n in (total, k):
        values = []
        for i in range(5):
            weight = [1 / n if j == i else (n - 1) / n / (k - 1) for j in range(k)]
            each = np.array(
                [[density(float(z[i, c]), float(mean[j, c]), float(std[j, c])) for c in range(d)] for j in range(k)]
            )
            joint = float(np.dot(weight, each.prod(1)))
            values.append(math.log(joint) - sum(math.log(float(np.dot(weight, each[:, c]))) for c in range(d)))
        assert aggregate_tc(z, mean, std, n) == pytest.approx(np.mean(values), rel=1e-9)


def test_minibatch_weighted_sampling_against_a_plain_loop(generator) -> None:
    b, d, n = 6, 3, 1000
    mean, std = torch.randn(b, d, generator=generator).double(), 0.3 + torch.rand(b, d, generator=generator).double()
    z = mean + std * torch.randn(b, d, generator=generator)
    normal = torch.distributions.Normal(mean, std)
    for i in range(b):
        each = normal.log_prob(z[i]).exp()
        joint = float(each.prod(1).sum() / (b * n))
        margins = [float(each[:, j].sum() / (b * n)) for j in range(d)]
        expected = math.log(joint) - sum(map(math.log, margins))
        assert float(mws_tc(z, mean, std, n)[i]) == pytest.approx(expected, rel=1e-9)


def test_collapsed_codes_score_zero_and_say_why(generator) -> None:
    mean, std = 0.01 * torch.randn(50, 3, generator=generator), torch.ones(50, 3)
    found = score(table(mean, std, kl=torch.full((3,), 0.01).double()), "tc", {}, seed=0, repeats=None)
    assert [found[k] for k in ("gaussian", "mws", "aggregate", "active_units")] == [0.0] * 4
    assert "no dimension is active" in found["reasons"]["gaussian"]
    found = score(table(torch.randn(50, 1, generator=generator)), "tc", {}, seed=0, repeats=None)
    assert found["gaussian"] == 0.0
    assert "it has one dimension" in found["reasons"]["gaussian"]


def test_codes_without_a_posterior_and_discrete_codes(generator) -> None:
    codes = torch.randn(400, 3, generator=generator)
    found = score(table(codes, kinds=["continuous", "continuous", "categorical"]), "tc", {}, seed=0, repeats=None)
    assert found["gaussian"] == pytest.approx(gaussian_tc(codes[:, :2]), rel=1e-6)
    assert math.isnan(found["mws"])
    assert "posterior" in found["reasons"]["aggregate"]
    assert found["reasons"]["z3"].startswith("left out")
    assert found["code_names"] == ["z1", "z2"]
    metric = build_metric("tc")[1]
    with pytest.raises(UsageError, match="only discrete ones"):
        metric.compute(table(codes, kinds=["categorical"] * 3), 0)


SMALL = [
    *("--preset", "demo", "--steps", "4", "--batch", "32", "--z", "3", "--positions", "6", "--log-every", "2"),
    *("--device", "cpu", "--arch", "mlp", "--out", "run"),
]


@pytest.fixture(scope="module")
def program():
    """The command line, built once: every build adds all commands to it."""
    return cli.build()


@pytest.fixture
def distk(program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_folder: Path):
    """`distk("eval", "run", code=0)` -> (stdout, stderr in one line), in an empty working folder."""

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["distk", *arguments])
        monkeypatch.setattr(cli, "build", lambda: program)
        stopped = 0
        try:
            cli.main()
        except SystemExit as error:
            stopped = int(error.code or 0)
        told = capsys.readouterr()
        assert stopped == code, told.err
        return told.out, " ".join(told.err.split())

    return call


def last_row(folder: Path) -> dict[str, float]:
    return json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[-1])


def test_factorvae_on_the_command_line(distk, in_folder) -> None:
    distk("train", "fvae", *SMALL, "--critic-width", "16")
    assert {"vae", "critic", "critic_accuracy", "tc", "reconstruction", "kl/3"} <= set(last_row(in_folder))
    found = json.loads(distk("eval", "run", "--metric", "tc", "--json")[0])["metrics"]["tc"]
    assert {"gaussian", "aggregate", "mws", "discriminator", "active_units"} <= set(found)
    assert "total correlation of one dimension is zero" in distk("train", "factorvae", "--z", "1", code=2)[1]


def test_dipvae_on_the_command_line(distk, in_folder) -> None:
    distk("train", "dipvae-ii", *SMALL, "--lambda-od", "5", "--cov-decay", "0.5")
    assert {"loss", "dip", "covariances", "variances", "reconstruction", "kl/3"} <= set(last_row(in_folder))
    distk("resume", "run", "--steps", "6")
    assert last_row(in_folder)["step"] == 6
    one = ("train", "dipvae", "--preset", "demo", "--batch", "1", "--steps", "1", "--device", "cpu")
    assert "method 'dipvae' learns from batches of 2 items or more: use --batch 2" in distk(*one, code=2)[1]
