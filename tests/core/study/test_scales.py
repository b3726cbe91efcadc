"""A study says what it does otherwise than as it was published: every registered one, in every form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distk.registry import registry
from distk.study.parse import parse
from distk.study.plan import plan
from distk.study.scales import instead, told

RECIPE = """
title = "t"
columns = ["mig.mig"]
seeds = 10
[train]
steps = 5000
[data]
name = "blobs"
[[variants]]
label = "a"
method = "betavae"
scale = "paper"
grid = { beta = [1.0, 2.0, 4.0] }
[[variants]]
label = "a"
method = "betavae"
scale = "small"
grid = { beta = [1.0] }
[scale.small]
seeds = 2
train = { steps = 10, batch = 8 }
model = { z = 4 }
"""


def test_what_a_scale_changes_is_told_with_both_values() -> None:
    found = instead(parse(RECIPE, "t"))
    wanted = {"seeds": (2, 10), "train.steps": (10, 5000), "train.batch": (8, None), "model.z": (4, None)}
    assert found == {**wanted, "variants": (1, 3)}
    assert told(found).startswith(
        "seeds 2 instead of 10, train.steps 10 instead of 5,000, train.batch 8 instead of the"
    )
    assert instead(parse(RECIPE, "t"), [0, 1, 2])["seeds"] == (3, 10)
    assert "seeds" not in instead(parse(RECIPE, "t"), range(10))
    assert instead(parse(RECIPE, "t", scale="paper")) == {}
    own = parse(RECIPE, "t", scale="paper", sets=["train.steps=7", "betavae.lr=0.1", "train.batch=64"])
    assert instead(own) == {"train.steps": (7, 5000), "train.batch": (64, None), "betavae.lr": (0.1, None)}


@pytest.mark.parametrize("name", [entry.name for entry in registry().entries("study")])
def test_every_study_below_the_published_size_says_in_what(name, in_folder) -> None:
    made = plan(name)
    if made.recipe.scale == "paper":
        pytest.skip("it runs as published")
    assert instead(made.recipe), f"scale {made.recipe.scale} of {name} changes nothing"


def test_the_sizes_of_the_two_studies_that_did_not_say_it() -> None:
    dimred = instead(plan("covreg-dimred").recipe)
    assert dimred == {"seeds": (5, 10), "settings.items": (1000, 10_000)}
    shapes = instead(plan("beta-shapes").recipe)
    assert shapes["seeds"] == (2, 5)
    assert shapes["settings.epochs"] == (4, 500)
    assert shapes["variants"] == (12, 104)
    assert shapes["data.size"] == (16, None)


def test_it_is_shown_and_stands_in_the_report(distk_command) -> None:
    code, out, err = distk_command("study", "show", "covreg-dimred", "--json")
    assert code == 0
    assert json.loads(out)["instead"] == {"seeds": [5, 10], "settings.items": [1000, 10000]}
    assert "here seeds 5 instead of 10, settings.items 1,000 instead of 10,000" in " ".join(err.split())
    few = ("--seeds", 1, "--set", "settings.steps=2", "--set", "settings.items=20", "--out", "r", "--device", "cpu")
    code, out, err = distk_command("study", "run", "covreg-dimred", *few, "--json")
    assert code == 0, err
    assert json.loads(out)["instead"]["seeds"] == [1, 10]
    code, out, err = distk_command("study", "report", "r")
    assert "scale small: seeds 1 instead of 10, settings.steps 2 instead of 10,000, settings.items 20" in " ".join(
        err.split()
    )
    code, _, err = distk_command("report", "r", "--out", "page.html")
    assert code == 0, err
    assert "seeds 1 instead of 10" in Path("page.html").read_text(encoding="utf-8")
