"""A study's table against figures worked out here, and what counts as done."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from distk.study import engine, job
from distk.study.parse import parse
from distk.study.report import summary

RECIPE = """
columns = { up = { higher_is_better = true }, down = { higher_is_better = false } }
runner = "r"
[[variants]]
label = "a"
[[variants]]
label = "b"
"""


def test_mean_deviation_and_best_of_a_column(rng) -> None:
    values = rng.normal(3.0, 2.0, (2, 5)).tolist()
    rows = [{"variant": "a", "seed": n, "up": u, "down": d} for n, (u, d) in enumerate(zip(*values, strict=True))]
    rows.append({"variant": "b", "seed": 0, "up": 7.0, "down": None})
    lines = {(line.variant, line.column): line for line in summary(parse(RECIPE, "r"), rows, ["a", "b"])}
    for column, held, best in (("up", values[0], max), ("down", values[1], min)):
        line = lines["a", column]
        mean = math.fsum(held) / 5
        assert line.mean == pytest.approx(mean, rel=1e-12)
        # Of a sample: over n - 1, as the docstring of Line says.
        assert line.sd == pytest.approx(math.sqrt(math.fsum((v - mean) ** 2 for v in held) / 4), rel=1e-12)
        assert (line.n, line.best, line.best_seed) == (5, best(held), held.index(best(held)))
    alone = lines["b", "up"]
    assert (alone.mean, alone.sd, alone.n, alone.best) == (7.0, None, 1, 7.0)
    assert ("b", "down") not in lines


def test_scores_of_another_step_are_not_those_of_a_finished_job(tmp_path: Path) -> None:
    """A study whose steps grew finds the scores of the shorter run beside its checkpoint."""
    wanted = job.Job("betavae", {"train": {"seed": 0, "steps": 20}}, [{"mig": {}}], select=False)
    scores = {"last": {job.mark("mig", {}): {"mig": 0.5}}}
    for step, whole in ((20, True), (10, False), (30, False), (None, False)):
        (tmp_path / job.SCORES).write_text(json.dumps({**scores, **({"step": step} if step is not None else {})}))
        assert (job.done(tmp_path, wanted) is not None) is whole, step
    (tmp_path / job.SCORES).write_text(json.dumps({"step": 20, "last": {}}))
    assert job.done(tmp_path, wanted) is None
    both = job.Job("betavae", wanted.sections, wanted.scores, select=True)
    (tmp_path / job.SCORES).write_text(json.dumps({"step": 20, **scores}))
    assert job.done(tmp_path, both) is None, "the selected state is not scored yet"


def test_a_run_is_scored_with_its_own_seed(tmp_path: Path, monkeypatch) -> None:
    """The runs of a study draw other votes, as they draw other batches."""
    asked = []
    monkeypatch.setattr(job, "open_model", lambda *a: (None, SimpleNamespace(step=3)))
    monkeypatch.setattr(
        job, "evaluate", lambda model, wanted, seed: asked.append(seed) or {"metrics": {"mig": {"mig": 0.5}}}
    )
    (tmp_path / "checkpoint.safetensors").touch()
    job._score(tmp_path, job.Job("betavae", {"train": {"seed": 41, "steps": 3}}, [{"mig": {}}], select=False))
    assert asked == [41]
    assert json.loads((tmp_path / job.SCORES).read_text())["last"][job.mark("mig", {})] == {"mig": 0.5}


def test_a_row_has_the_unit_of_the_column(tmp_path: Path) -> None:
    """A share in per cent, as a paper prints it, is a hundred times our number."""
    wanted = job.Job("betavae", {"train": {"seed": 0, "steps": 3}}, [{"mig": {}}], select=False)
    wanted.write(tmp_path)
    scores = {"step": 3, "last": {job.mark("mig", {}): {"mig": 0.25}}}
    (tmp_path / job.SCORES).write_text(json.dumps(scores))
    for times, told in ((1.0, 0.25), (100.0, 25.0)):
        column = SimpleNamespace(name="m", ours=True, metric="mig", key="mig", times=times)
        recipe = SimpleNamespace(select={}, columns=[column])
        made = SimpleNamespace(recipe=recipe, options=lambda _: {})
        assert engine.row_of(made, tmp_path, "a", 4) == {"variant": "a", "seed": 4, "m": told}  # type: ignore[arg-type]
