"""The value at chance, and intervals over rows, against what is known of both."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from distk import CodeTable, UsageError, evaluate
from distk.chance import half, intervals, shuffled
from distk.cli import main
from distk.evaluation import build_metric, score
from distk.testing import synthetic_table


def classified(generator: torch.Generator, n: int, right: float) -> CodeTable:
    """A discrete code that names one of two classes, rightly with this probability."""
    label = torch.randint(2, (n, 1), generator=generator)
    wrong = torch.rand(n, 1, generator=generator) > right
    code = torch.where(wrong, 1 - label, label).double()
    return CodeTable(code, ["d"], ["categorical"], label, ("class",), (2,), ("categorical",))


def test_the_interval_of_an_accuracy_is_that_of_a_share(generator: torch.Generator) -> None:
    n, halves = 4000, 60
    result = score(classified(generator, n, 0.8), "clsacc", {}, 0, None, (0, halves))
    p = result["hungarian"]
    low, high = result["interval"]["of"]["hungarian"]
    expected = float(student.ppf(0.975, halves - 1)) * math.sqrt(p * (1 - p) / n)
    # A standard deviation from 60 halves is known within 1 / sqrt(2 * 59), 9 %: four of those.
    assert (high - low) / 2 == pytest.approx(expected, rel=4 / math.sqrt(2 * (halves - 1)))
    assert (low + high) / 2 == pytest.approx(p, abs=1e-12)


def test_the_interval_is_students_around_the_score(rng) -> None:
    """Of halves whose scores are given: t(0.975, n - 1) standard deviations to either side, as a table of t has it."""
    values = (0.5 + 0.01 * rng.standard_normal(6)).tolist()
    left = iter(values)
    table = synthetic_table()
    metric = build_metric("mig")[1]
    found = intervals(metric, lambda part, seed: {"mig": next(left)}, table, {"mig": 0.5}, 6, 0)
    wide = 2.570582 * float(np.std(values, ddof=1))  # five degrees of freedom
    assert found["mig"] == pytest.approx([0.5 - wide, 0.5 + wide], rel=1e-6)


def test_shuffled_rows_give_the_value_at_chance(generator: torch.Generator) -> None:
    n, shuffles = 4000, 10
    result = score(classified(generator, n, 0.9), "clsacc", {}, 0, None, (shuffles, 0))
    assert result["hungarian"] > 0.85
    chance = result["baseline"]
    # The better of two assignments: 0.5 plus the mean of |N(0, sd)|.
    sd = 0.5 / math.sqrt(n)
    expected = 0.5 + sd * math.sqrt(2 / math.pi)
    assert chance["mean"]["hungarian"] == pytest.approx(expected, abs=5 * sd / math.sqrt(shuffles))
    assert chance["n"] == shuffles
    assert 0 < chance["std"]["hungarian"] < 4 * sd


def test_shuffling_keeps_the_rows_of_a_table_and_its_grid(generator: torch.Generator) -> None:
    table = synthetic_table()
    moved = shuffled(table, 3)
    assert moved.grid
    assert torch.equal(moved.factors, table.factors)
    assert torch.equal(moved.codes.sort(0).values, table.codes.sort(0).values)
    where = (moved.codes[:, None, :3] == table.codes[None, :, :3]).all(-1).long().argmax(1)
    assert torch.equal(moved.std[:, 0], table.std[where, 0])
    assert float((where == torch.arange(len(table))).double().mean()) < 0.05


def test_a_half_is_half_of_the_rows_that_were_used() -> None:
    table = synthetic_table()
    part = half(table, 100, 1)
    assert (len(part), len(part.factors), len(part.std), part.grid) == (50, 50, 50, False)
    assert len(part.codes.unique(dim=0)) == 50
    assert len(half(table, 10**9, 1)) == len(table) // 2


def test_a_half_takes_along_what_has_a_row_for_each_of_its_own() -> None:
    """As the slots of pictures; what has not stays whole."""
    table = synthetic_table()
    table.extra |= {"slots": table.codes[:, :1].clone(), "told": torch.arange(3)}
    part = half(table, 100, 1)
    assert torch.equal(part.extra["slots"], part.codes[:, :1])
    assert torch.equal(part.extra["told"], torch.arange(3))


def test_halves_of_a_grid_are_not_sorted_by_its_factors(generator: torch.Generator) -> None:
    """Predictors are fitted on the first rows: of a sorted half they would never see the last values of a factor."""
    grid = torch.cartesian_prod(*(torch.arange(n) for n in (2, 5, 40)))
    codes = grid + 0.1 * torch.randn(grid.shape, generator=generator, dtype=torch.float64)
    names = ("a", "b", "c")
    table = CodeTable(codes, list(names), ["continuous"] * 3, grid, names, (2, 5, 40), ("ordinal",) * 3, grid=True)
    part = half(table, len(table), 0)
    assert part.factors is not None
    # Of 200 rows of two equal classes the first 66 hold 33 of each, with a deviation of 3.3.
    assert abs(float(part.factors[:66, 0].double().sum()) - 33) < 5 * 3.3
    low, high = evaluate(table, ["r2"], ci=5)["metrics"]["r2"]["interval"]["of"]["r2"]
    assert 0.8 < low < high <= 1


def test_what_compares_with_nothing_and_what_chooses_its_items_say_so(generator: torch.Generator) -> None:
    found = evaluate(synthetic_table(), ["unsupervised", "mig"], baseline=2, ci=2)["metrics"]
    assert "no factors" in found["unsupervised"]["reasons"]["baseline"]
    assert "baseline" not in found["unsupervised"]
    assert set(found["mig"]["interval"]["of"]) == {"mig", "mig_sup"}
    low, high = found["unsupervised"]["interval"]["of"]["gaussian_total_correlation"]
    assert low == 0.0 < high  # cut at the end of its range
    few = score(classified(generator, 12, 0.9), "clsacc", {}, 0, None, (0, 3))
    assert "it takes 20" in few["reasons"]["interval"]
    with pytest.raises(UsageError, match="at least 2"):
        evaluate(synthetic_table(), ["mig"], ci=1)


def test_chance_and_interval_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, (400, 2))
    np.savez(tmp_path / "codes.npz", codes=factors + 0.1 * rng.normal(size=(400, 2)), factors=factors)
    line = ["distk", "eval", "--codes", str(tmp_path / "codes.npz"), "--metric", "mig"]
    line += ["--baseline", "2", "--ci", "3"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    said = capsys.readouterr().out
    assert "shuffled" in said
    assert "95 %" in said
    assert "↑" in said
    monkeypatch.setattr(sys, "argv", [*line, "--json"])
    with pytest.raises(SystemExit):
        main()
    result = json.loads(capsys.readouterr().out)
    mig = result["metrics"]["mig"]
    assert mig["baseline"]["mean"]["mig"] < 0.1 < 0.8 < mig["mig"]
    assert mig["interval"]["halves"] == 3
    assert "scipy" in result["provenance"]["versions"]
