"""Every recipe that plugins bring, at each of its scales: it plans, and its claims can be judged as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from distk.errors import UsageError
from distk.registry import registry
from distk.study.parse import parse
from distk.study.plan import plan, planned, read
from distk.study.report import check_directions

STUDIES = [entry.name for entry in registry().entries("study") if entry.plugin != "foldiak"]


@pytest.mark.parametrize("name", STUDIES)
def test_a_recipe_plans_at_every_scale_and_says_what_better_means(name: str) -> None:
    scales = {*plan(name).recipe.scales, "paper"}
    for scale in sorted(scales):
        made = plan(name, scale=scale)
        check_directions(made.recipe)
        assert made.recipe.source, "a recipe says whose table it is"
        assert made.recipe.variants or made.runner is not None


@pytest.mark.parametrize("name", STUDIES)
def test_figures_and_claims_of_a_recipe_say_where_the_paper_has_them(name: str) -> None:
    recipe = plan(name, scale="paper").recipe
    for label, figures in recipe.published.items():
        assert all(figure.where for figure in figures.values()), label
    assert [claim.text for claim in recipe.claims if not (claim.where or claim.evidence or claim.note)] == []
    texts = [claim.text for claim in recipe.claims]
    assert len(set(texts)) == len(texts)


def test_a_claim_without_a_direction_is_noticed() -> None:
    text, name, entry = read("counting")
    lacking = text.replace('than_column = "always the most frequent count"', 'than_column = "elbo"')
    lacking = lacking.replace("object-count.accuracy", "object-count.threshold").replace(
        "higher_is_better = true\n", ""
    )
    made = planned(parse(lacking, name), entry, None, (0,))
    with pytest.raises(UsageError, match="say 'direction'"):
        check_directions(made.recipe)


def test_the_table_of_recipes_counts_what_they_hold() -> None:
    text = (Path(__file__).parents[3] / "docs" / "studies.md").read_text(encoding="utf-8")
    table = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.count("|") == 6]
    told = {cells[0]: [int(cell) for cell in cells[2:]] for cells in table if cells[-1].isdigit()}
    held = {}
    for name in STUDIES:
        recipe = plan(name, scale="paper").recipe
        printed = sum(len(figures) for figures in recipe.published.values())
        held[name] = [printed, len(recipe.claims), sum(bool(claim.untested) for claim in recipe.claims)]
    totals = [sum(column) for column in zip(*held.values(), strict=True)]
    assert told == {**held, "all": totals}
