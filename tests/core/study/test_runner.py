"""Studies that are no grid of trainings: a runner yields rows, its judge decides on claims of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from distk import DistkError, UsageError, option
from distk.study import engine
from distk.study.claims import HOLDS, UNTESTED, Verdict
from distk.study.plan import plan
from distk.study.protocol import StudyRun, runner
from distk.study.report import check_directions, report, show
from distk.study.status import status

RECIPE = """
title = "Powers"
seeds = 4
[columns]
power = { higher_is_better = true }
seconds = {}
[settings]
base = 2.0
[[variants]]
grid = { exponent = [1, 2] }
[[variants]]
label = "large base"
settings = { base = 3.0 }
[[claims]]
text = "a larger exponent gives more"
better = "exponent=2"
than = "exponent=1"
column = "power"
[[claims]]
text = "powers grow without end"
kind = "growth"
[[claims]]
text = "powers are divine"
kind = "beauty"
[[figures]]
kind = "curve"
x = "exponent"
y = "power"
"""


@dataclass(frozen=True)
class Config:
    base: float = option(2.0, "what is raised", min=0)
    exponent: int = option(1, "to which power", min=0)


calls: list[list[tuple[str, int]]] = []


@runner(Config)
def powers(study: StudyRun):
    calls.append([(v.label, s) for v, s in study.todo()])
    for variant, seed in study.todo():
        settings = study.settings[variant.label]
        yield {"variant": variant.label, "seed": seed, "power": (settings.base + seed) ** settings.exponent}


def grows(claim, rows):
    return Verdict(HOLDS, reason=f"{len(rows)} rows") if claim.kind == "growth" else None


@pytest.fixture
def registered(plugged, tmp_path, monkeypatch):
    """A study `powers` of a plugin, with its recipe, runner and judge."""
    package = tmp_path / "site" / "powers_plugin"
    (package / "studies").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "studies" / "powers.toml").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def register(register) -> None:
        functions = {"runner": "plugged_powers:powers", "judge": "plugged_powers:grows"}
        register("powers", "powers_plugin:studies/powers.toml", "powers of numbers", paper="Nobody 2026", **functions)

    plugged("powers", {"powers": powers, "grows": grows}, distk_register_studies=register)
    calls.clear()


def test_rows_claims_and_figures_of_a_runner(registered, tmp_path) -> None:
    made = plan("powers", out=tmp_path / "out")
    check_directions(made.recipe)
    rows = engine.run(made, quiet=True)
    assert [(r["variant"], r["seed"]) for r in rows[:5]] == [*(("exponent=1", s) for s in range(4)), ("exponent=2", 0)]
    assert [r["power"] for r in rows] == [2, 3, 4, 5, 4, 9, 16, 25, 3, 4, 5, 6]
    told = report(made.out)
    first, second, third = (v for _, v in told.claims)
    assert (first.verdict, first.difference, first.how) == (HOLDS, 10.0, "paired")
    assert (second.verdict, second.reason) == (HOLDS, "12 rows")
    assert (third.verdict, third.reason) == (UNTESTED, "beauty")
    assert {n.variant: n.best for n in told.lines} == {"exponent=1": 5, "exponent=2": 25, "large base": 6}
    assert (made.out / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert status(made.out)["counts"] == {"done": 12}


def test_a_runner_is_told_what_is_done_and_is_not_asked_again(registered, tmp_path) -> None:
    engine.run(plan("powers", out=tmp_path / "out", seeds="2"), quiet=True)
    rows = engine.run(plan("powers", out=tmp_path / "out"), quiet=True)
    assert len(rows) == 12
    assert len(calls[0]) == 6
    assert calls[1] == [(v, s) for v in ("exponent=1", "exponent=2", "large base") for s in (2, 3)]


def test_rows_before_a_failure_are_kept(registered, tmp_path, monkeypatch) -> None:
    import sys

    @runner(Config)
    def breaks(study: StudyRun):
        for i, row in enumerate(powers(study)):
            if i == 5:
                raise DistkError("the power failed.")
            yield row

    monkeypatch.setattr(sys.modules["plugged_powers"], "powers", breaks)
    with pytest.raises(DistkError, match="the power failed"):
        engine.run(plan("powers", out=tmp_path / "out"), quiet=True)
    assert len(report(tmp_path / "out").rows) == 5
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert len(engine.run(plan("powers", out=tmp_path / "out"), quiet=True)) == 12
    assert len(calls[-1]) == 7


def test_settings_of_a_runner_are_checked_and_must_not_change(registered, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"runner 'powers' has no setting 'bass'. Did you mean 'base'"):
        plan("powers", sets=["settings.bass=3"])
    engine.run(plan("powers", out=tmp_path / "out", seeds="1"), quiet=True)
    with pytest.raises(UsageError, match=r"holds 'exponent=1' with settings.base = 2.0, and 5.0 is asked for"):
        engine.run(plan("powers", out=tmp_path / "out", sets=["settings.base=5"]), quiet=True)


def test_a_file_may_use_a_registered_runner_by_name_and_nothing_else(registered, tmp_path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('runner = "powers"\n' + RECIPE.replace("seeds = 4", "seeds = 1"))
    assert [r["power"] for r in engine.run(plan(str(own), out=tmp_path / "out"), quiet=True)] == [2, 4, 3]
    for name in ("os:system", "plugged_powers:powers"):
        own.write_text(f'runner = "{name}"\n' + RECIPE)
        with pytest.raises(UsageError, match=f"unknown study '{name}'"):
            plan(str(own))


def test_a_claim_needs_a_direction_where_no_metric_gives_one(registered, tmp_path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('runner = "powers"\n' + RECIPE.replace("{ higher_is_better = true }", "{}"))
    with pytest.raises(UsageError, match="say 'direction', or 'higher_is_better' of column 'power'"):
        check_directions(plan(str(own)).recipe)


def test_the_best_run_is_chosen_by_another_column(registered, tmp_path, monkeypatch, capsys) -> None:
    """Seed 1 has the smallest error of validation, seed 3 the largest power, and the large base has no error at all."""
    import sys

    @runner(Config)
    def checked(study: StudyRun):
        for row in powers(study):
            error = {} if row["variant"] == "large base" else {"error": (row["seed"] - 1.2) ** 2}
            yield {**row, **error}

    monkeypatch.setattr(sys.modules["plugged_powers"], "powers", checked)
    own = tmp_path / "own.toml"
    chosen = RECIPE.replace("seconds = {}", "error = { higher_is_better = false }")
    own.write_text('runner = "powers"\nbest_by = "error"\n' + chosen)
    made = plan(str(own), out=tmp_path / "out")
    check_directions(made.recipe)
    engine.run(made, quiet=True)
    told = report(made.out)
    best = {n.variant: (n.best, n.best_seed) for n in told.lines if n.column == "power"}
    assert best == {"exponent=1": (3, 1), "exponent=2": (9, 1), "large base": (None, None)}
    assert {n.best_seed for n in told.lines if n.column == "error"} == {1}
    assert told.plain()["table"][0]["best_seed"] == 1
    show(told)
    said = " ".join(capsys.readouterr().err.split())
    assert "'best' is the run that 'error' chooses for all columns (exponent=1: seed 1, exponent=2: seed 1)" in said
    own.write_text('runner = "powers"\nbest_by = "eror"\n' + chosen)
    with pytest.raises(
        UsageError, match=r"'best_by' speaks of a column 'eror', which is not there\. Did you mean 'error'"
    ):
        plan(str(own))
    own.write_text('runner = "powers"\nbest_by = "seconds"\n' + RECIPE)
    with pytest.raises(UsageError, match="'best_by' is 'seconds', of which nobody says whether larger is better"):
        check_directions(plan(str(own)).recipe)


def test_a_row_of_nobody_is_refused(registered, tmp_path, monkeypatch) -> None:
    import sys

    monkeypatch.setattr(
        sys.modules["plugged_powers"], "powers", runner(Config)(lambda study: iter([{"variant": "x", "seed": 0}]))
    )
    with pytest.raises(DistkError, match="gave a row of 'x', no variant"):
        engine.run(plan("powers", out=tmp_path / "out"), quiet=True)


@pytest.mark.parametrize(
    ("path", "functions", "said"),
    [
        ("powers_plugin.studies", {}, "must be registered as 'package.name:studies/file.toml'"),
        ("powers_plugin:../secret.toml", {}, "must be registered as"),
        ("powers_plugin:/etc/x.toml", {}, "must be registered as"),
        ("powers_plugin:a.toml", {"runner": "os.system"}, "must name its functions as 'package.module:function'"),
    ],
)
def test_a_wrong_registration_is_a_fault_of_its_plugin(path: str, functions: dict, said: str) -> None:
    import sys
    import types

    from distk import hookimpl
    from distk.registry import Registry

    module = types.ModuleType("plugged_wrong")
    module.distk_register_studies = hookimpl(lambda register: register("wrong", path, "w", **functions))  # type: ignore[attr-defined]
    sys.modules["plugged_wrong"] = module
    found = Registry()
    found.add("wrong", "plugged_wrong", "dist-wrong", "1")
    assert said in found.plugins["wrong"].error


def test_a_recipe_that_is_not_in_its_package(plugged, tmp_path: Path) -> None:
    plugged("gone", {}, distk_register_studies=lambda register: register("gone", "distk.study:gone.toml", "gone"))
    with pytest.raises(DistkError, match=r"study 'gone' of plugin 'gone' .* cannot be read"):
        plan("gone")
