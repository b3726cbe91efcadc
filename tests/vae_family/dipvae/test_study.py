"""Study `dip`: what it would run at both scales."""

from __future__ import annotations

import json

from distk.study.plan import plan


def test_both_scales_are_sound_and_run_what_they_say() -> None:
    small, paper = plan("dip"), plan("dip", scale="paper")
    betas = [f"beta-VAE beta={b}" for b in (1, 4, 16)]
    assert [v.label for v in small.variants] == [*(f"DIP-VAE lambda_od={x}" for x in (1, 5, 20)), *betas]
    assert {small.settings(v, 0).data for v in small.variants} == {"dsprites"}
    assert small.settings(small.variants[1], 0).model.lambda_od == 5
    assert [v.label for v in paper.variants][-1] == "beta-VAE beta=60"
    settings = [paper.settings(v, 0) for v in paper.variants]
    assert len({(s.model.arch, s.model.lr, s.model.z, s.train.batch, s.train.steps) for s in settings}) == 1
    assert paper.recipe.published["beta-VAE beta=60"]["betavae.eval"].value == "95.7"
    asked = [claim.text for claim in small.recipe.claims if not claim.untested]
    assert len(asked) == 6
    assert sum(not claim.untested for claim in paper.recipe.claims) == 13 == len(paper.recipe.claims)


def test_celeba_is_of_one_network_and_scored_on_the_test_split() -> None:
    made = plan("dip-celeba")
    labels = ["VAE", "beta-VAE beta=4", "beta-VAE beta=8", "DIP-VAE"]
    assert [v.label for v in made.variants] == labels
    settings = [made.settings(v, 0) for v in made.variants]
    assert {s.data for s in settings} == {"celeba"}
    assert len({(s.model.arch, s.model.lr, s.model.z, s.train.batch, s.train.steps) for s in settings}) == 1
    assert [getattr(s.model, "beta", None) for s in settings] == [1, 4, 8, None]
    assert {made.options(c).get("split") for c in made.recipe.columns} == {"test"}
    assert not any(claim.untested for claim in made.recipe.claims)


def test_show_says_in_what_the_variants_differ(distk_command) -> None:
    code, out, err = distk_command("study", "show", "dip", "--json")
    assert code == 0, err
    lines = json.loads(out)["variants"]
    assert [n["settings"].get("beta") for n in lines[3:]] == [1, 4, 16]


def test_at_the_papers_size_a_tenth_is_held_out_and_scored() -> None:
    made = plan("dip", scale="paper")
    assert {made.settings(v, 0).data_options["holdout"] for v in made.variants if not v.quoted} == {0.1}
    scored = [c for c in made.recipe.columns if c.ours]
    assert {made.options(c).get("split") for c in scored} == {"test"}
