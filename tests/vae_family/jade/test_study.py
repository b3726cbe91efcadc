"""Study `jade`: what it would run at both scales, a tiny run."""

from __future__ import annotations

import csv
import json

import pytest

from distk.study.plan import plan


def test_both_scales_are_sound_and_run_what_they_say() -> None:
    small, paper = plan("jade"), plan("jade", scale="paper")
    assert [v.method for v in small.variants] == ["jade-single", "jade-paired", "jade"]
    assert small.seeds == (0, 1, 2)
    settings = [small.settings(v, 0) for v in small.variants]
    assert {(s.data_options["difficulty"], s.train.batch, s.train.steps) for s in settings} == {("easy", 32, 1000)}
    printed = [paper.settings(v, 0) for v in paper.variants]
    assert {(s.data_options["primary"], s.data_options["secondary"]) for s in printed} == {("svhn", "mnist")}
    assert [s.model.alpha_cls for s in printed[2:]] == [1.0, 100.0], "as printed, and the method's own"
    assert [sum(not c.untested for c in made.recipe.claims) for made in (small, paper)] == [6, 8]


@pytest.mark.slow
def test_a_tiny_run_fills_the_table(distk_command, in_folder) -> None:
    tiny = ["--seeds", 1, "--set", "train.steps=2", "--set", "data.test=100", "--set", "data.secondary_size=200"]
    arguments = ["study", "run", "jade", *tiny, "--jobs", 1, "--device", "cpu", "--out", "s"]
    code, out, err = distk_command(*arguments, "--json")
    assert code == 0, err
    with open("s/results.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [r["variant"] for r in found] == ["single classifier", "paired classifier", "JADE"]
    assert all(20 < float(r["error.error_primary"]) <= 100 for r in found), "per cent, untrained"
    assert [bool(r["error.error_secondary"]) for r in found] == [False, True, True]
    assert [bool(r["content-style-variance.content_ratio"]) for r in found] == [False, False, True]
    assert "reads the primary only" in json.loads(out)["empty"][0]
    code, out, err = distk_command(*arguments)
    assert code == 0, err
    assert "32.31 ± 1.56" in out
