"""Study `factorvae`: what it would run at both scales."""

from __future__ import annotations

import json

from distk.study.plan import plan
from distk.study.recipe import Recipe


def judgeable(recipe: Recipe) -> int:
    return sum(not claim.untested for claim in recipe.claims)


def test_both_scales_are_sound_and_run_what_they_say() -> None:
    small, paper = plan("factorvae"), plan("factorvae", scale="paper")
    gammas = [f"FactorVAE gamma={g}" for g in (10, 35, 100)]
    assert [v.label for v in small.variants] == [*gammas, *(f"beta-VAE beta={b}" for b in (1, 4, 7, 8))]
    assert small.settings(small.recipe.variant("beta-VAE beta=7"), 0).model.beta == 7
    first = small.settings(small.variants[0], 0)
    assert (first.model.gamma, first.train.steps, first.data_options["size"]) == (10, 1500, 32)
    column = small.recipe.column("factorvae.eval")
    assert small.options(column) == {}
    assert paper.options(column) == {"protocol": "paper", "ignore_factors": ["shape"]}
    one = paper.settings(paper.recipe.variant("FactorVAE gamma=35, 1 update"), 0)
    beta = paper.settings(paper.recipe.variant("beta-VAE beta=7"), 0)
    assert (one.model.gamma, one.model.critic_updates, one.train.steps) == (35, 1, 300_000)
    assert (beta.model.arch, beta.model.lr) == (one.model.arch, one.model.lr), "the paper gives both one network"
    assert (judgeable(small.recipe), judgeable(paper.recipe), len(paper.recipe.claims)) == (8, 11, 12)


def test_show_says_in_what_the_variants_differ(distk_command) -> None:
    code, out, err = distk_command("study", "show", "factorvae", "--json")
    assert code == 0, err
    lines = json.loads(out)["variants"]
    assert [n["settings"]["gamma"] for n in lines[:3]] == [10, 35, 100]
    assert {n["data"] for n in lines} == {"dsprites"}
