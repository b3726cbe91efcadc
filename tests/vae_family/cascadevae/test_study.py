"""Study `discrete`: what it would run, the verdict on its best run, a tiny run."""

from __future__ import annotations

import csv
import json

import pytest

from distk.plugins.vae_family.cascadevae.study import judge
from distk.study.claims import FAILS, FEW, HOLDS, Claim
from distk.study.plan import plan

BEST = Claim("t", better="a", column="c", kind="the best run", bound=98.0, relation="at least")


def rows(*values: float | None) -> list[dict]:
    others = [{"variant": "b", "seed": 0, "c": 100.0}]
    return [{"variant": "a", "seed": s, "c": value} for s, value in enumerate(values)] + others


def test_both_scales_are_sound_and_run_what_they_say() -> None:
    small, paper = plan("discrete"), plan("discrete", scale="paper")
    assert [v.label for v in small.variants] == ["cascadevae", "jointvae", "factorvae", "betavae"]
    settings = [small.settings(v, 0) for v in small.variants]
    assert {s.model.arch for s in settings[1:]} == {"snu"}
    assert {s.train.steps for s in settings} == {1500}
    assert len({json.dumps(s.data_options, sort_keys=True) for s in settings}) == 1
    assert len(paper.variants) == 9
    joint = paper.settings(paper.recipe.variant("JointVAE m=4"), 3)
    assert (joint.model.z, joint.train.steps, joint.train.batch, joint.train.seed) == (4, 300_000, 64, 3)
    assert (joint.train.eval_every, joint.train.keep) == (10_000, "best:factorvae:protocol=cascadevae")
    assert {c.untested for c in paper.recipe.claims} == {"", "it is asked at --scale small only"}
    assert sum(not c.untested for c in paper.recipe.claims) == 10
    assert sum(not c.untested for c in small.recipe.claims) == 3
    assert "--scale small only" in paper.recipe.claims[-1].untested


def test_the_best_run_is_held_against_its_bound() -> None:
    assert judge(BEST, rows(50.0, 98.5, None, 70.0)).verdict == HOLDS
    found = judge(BEST, rows(50.0, 97.0, 70.0))
    assert (found.verdict, found.difference, found.n) == (FAILS, -1.0, 3)
    assert judge(BEST, rows(99.0, 99.0)).verdict == FEW, "two runs are too few"
    assert judge(Claim("t", better="a", column="c", kind="beauty"), rows(1.0, 2.0, 3.0)) is None


@pytest.mark.slow
def test_a_tiny_run_fills_the_table(distk_command, in_folder) -> None:
    tiny = ["--seeds", 1, "--set", "train.steps=2", "--set", "train.batch=4", "--set", "data.positions=4"]
    arguments = ["study", "run", "discrete", *tiny, "--jobs", 1, "--device", "cpu", "--out", "s"]
    code, out, err = distk_command(*arguments, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [r["variant"] for r in told["runs"]] == ["cascadevae", "jointvae", "factorvae", "betavae"]
    with open("s/results.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert all(1 < float(r["factorvae.eval"]) <= 100 for r in found), "per cent"
    assert [bool(r["clsacc.hungarian"]) for r in found] == [True, True, False, False]
    code, out, err = distk_command(*arguments)
    assert code == 0, err
    assert "4 runs, 4 of them done already" in err
    assert "factorvae.eval, percent" in out
    assert "claims" in out, "a table, whose cells break their words where the terminal ends"
    assert any("at this size cascadevae scores higher than jointvae" in claim["text"] for claim in told["claims"])
