"""What numbers mean: the tables of all metrics, and the places that read them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distk import CodeTable, Metric, NoConfig, evaluate
from distk.cli import main
from distk.device import Ranks
from distk.evaluation import build_metric
from distk.meaning import count, find, higher, lower, neither
from distk.registry import registry
from distk.settings import resolve
from distk.study import report
from distk.study.recipe import Column, Recipe
from distk.testing import synthetic_table
from distk.training.beginning import build

Program = Callable[..., tuple[object, str, str]]
METRICS = [entry.name for entry in registry().entries("metric") if entry.distribution == "distk"]
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def distk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Run a command line here: (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["distk", *args])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_its_numbers_mean(name: str) -> None:
    cls = registry().find("metric", name).load()
    headline = find(cls.numbers, cls.headline)
    assert headline is not None
    assert cls.higher_is_better == (headline.better != "lower")
    for key, number in cls.numbers.items():
        assert number.better in ("higher", "lower", ""), key
        if number.low is not None and number.high is not None:
            assert number.low < number.high, key
        if isinstance(number.chance, float):
            assert number.low is None or number.chance >= number.low, key
            assert number.high is None or number.chance <= number.high, key


@pytest.mark.parametrize("name", METRICS)
def test_active_has_one_meaning(name: str) -> None:
    """A latent whose posterior mean has a variance above 0.01; what a score itself uses has another word."""
    numbers = registry().find("metric", name).load().numbers
    assert [key for key in numbers if "active" in key] in ([], ["active_units"])


def test_active_units_are_the_same_in_every_metric(seed: int) -> None:
    """On the codes of one Gaussian VAE, whose two latents of four are made to stand still, one of them almost."""
    options = {"model": {"arch": "mlp", "z": 4}, "data": {"name": "blobs", "positions": 16}, "train": {"seed": seed}}
    trainer = build(resolve("betavae", options=options), torch.device("cpu"), Ranks())
    with torch.no_grad():
        last = [m for m in trainer.model.encoder.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.weight[:4] *= torch.tensor([100.0, 100.0, 0.0, 0.0]).unsqueeze(1) / last.weight[:4].norm(
            dim=1, keepdim=True
        )
        last.bias[:4] = 3.0
    found = evaluate(trainer.model, ["active-units", "vae-bound", "tc"], data=trainer.dataset, repeats=1)["metrics"]
    assert {values["active_units"] for values in found.values()} == {2.0}, found


LESS = {"reasoning.steps": 20, "downstream.sizes": (10, 100), "fairness.predictor": "lr"}
"""What need not be learnt well to be named."""


def test_every_number_of_a_result_has_its_meaning() -> None:
    names = [e.name for e in registry().entries("metric") if e.plugin == "metrics"]
    found = evaluate(synthetic_table(), names, repeats=1, on_error="row", **LESS)["metrics"]
    assert sum("error" not in values for values in found.values()) >= 17
    for name, values in found.items():
        if "error" not in values:
            assert set(values["meaning"]) == {k for k, v in values.items() if isinstance(v, (int, float))}, name
    assert found["dci"]["meaning"]["disentanglement"]["better"] == "higher"
    assert found["linear-correlation"]["meaning"]["mapc"]["better"] == "lower"


def test_a_name_of_its_own_goes_before_a_pattern() -> None:
    table = {"mean_*": higher(0, 1), "mean_7": lower(0), "n": count("rows")}
    assert find(table, "mean_7") is table["mean_7"]
    assert find(table, "mean_100") is table["mean_*"]
    assert find(table, "median") is None
    assert (find(table, "n").arrow, table["mean_7"].arrow, table["mean_*"].arrow) == ("", "↓", "↑")
    assert [n.range for n in (*table.values(), neither(None, 1), neither())] == ["0..1", "0..", "0..", "..1", ""]


def test_a_metric_without_a_table_still_has_a_direction() -> None:
    class Old(Metric[NoConfig]):
        headline = "loss"
        higher_is_better = False

    assert Old.meaning("loss").higher_is_better is False
    assert Old.meaning("other") is None
    assert report.direction(Column("x", "absent.key")) is None


@pytest.mark.parametrize(
    ("ours", "best"),
    [
        ("linear-correlation.tdv", 0.9),
        ("linear-correlation.mapc", 0.2),
        ("dci.informativeness_test", 0.9),
        ("dci.nrmse_test", 0.2),
        ("downstream.mean_100", 0.9),
        ("linear-correlation.codes_used", None),
    ],
)
def test_the_best_of_a_column_is_that_of_its_own_number(ours: str, best: float | None) -> None:
    column = Column("c", ours)
    rows = [{"variant": "a", "seed": s, "c": v} for s, v in enumerate((0.2, 0.9, 0.5))]
    (line,) = report.summary(Recipe("s", "s", "", (column,), (0, 1, 2), ()), rows, ["a"])
    assert line.best == best


def test_accuracy_and_error_have_two_names(generator: torch.Generator) -> None:
    f = torch.randint(3, (600, 2), generator=generator)
    c = f + 0.3 * torch.randn(600, 2, generator=generator)
    table = CodeTable(c, ["a", "b"], ["continuous"] * 2, f, ("f", "g"), (3, 3), ("ordinal",) * 2)
    keys = {p: set(build_metric("dci", {"predictor": p})[1].compute(table, 0)) for p in ("gbt", "lasso", "rf")}
    for predictor, held in keys.items():
        read, other = ("informativeness", "nrmse") if predictor == "gbt" else ("nrmse", "informativeness")
        assert {f"{read}_train", f"{read}_test", f"{read}_per_factor"} <= held
        assert not [key for key in held if key.startswith(other)]


def test_the_list_of_numbers(distk: Program) -> None:
    said = json.loads(distk("list", "metrics", "--numbers", "--json")[1])
    assert said["linear-correlation"]["tdv"]["better"] == "higher"
    assert said["mig"]["mig"] == {
        "better": "higher",
        "range": [0, 1],
        "chance": 0.0,
        "source": "Chen et al. 2018, eq. 6",
        "form": "dlib; authors with protocol aggregate",
    }
    assert "nrmse_*" in distk("list", "metrics", "--numbers")[1]
    code, _, said = distk("list", "methods", "--numbers")
    assert code == 2
    assert "belongs to metrics" in said


def test_the_page_of_scores_agrees_with_the_tables() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w@]+)` ([^|]*)\|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 25
    for name, key, rest in rows:
        cls = registry().find("metric", name).load()
        assert key == cls.headline, name
        assert cls.meaning(key).arrow == next((a for a in "↑↓" if a in rest), ""), name
