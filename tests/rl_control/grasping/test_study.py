"""The judge of the tables' claims, and the published figures against each other."""

import tomllib
from pathlib import Path

import pytest

from distk.plugins.rl_control import grasping
from distk.plugins.rl_control.grasping.bodies import CATEGORIES
from distk.plugins.rl_control.grasping.study import judge
from distk.study.claims import Claim

RECIPE = tomllib.loads((Path(grasping.__file__).parent / "studies" / "grasping.toml").read_text(encoding="utf-8"))
A, B = "geo-aware CNN", "baseline CNN"


def published(seeds=3):
    """The paper's own figures as if they were rows of runs, a little different in each."""
    rows = []
    for label in (A, B):
        figures = {k: float(v) for k, v in RECIPE["published"][label].items() if k != "where"}
        rows += [{"variant": label, "seed": s, **{k: v + 0.001 * s for k, v in figures.items()}} for s in range(seeds)]
    return rows


def verdict(kind, column, rows, **more):
    found = judge(Claim("", better=A, than=B, column=column, kind=kind, **more), rows)
    return found.verdict


def test_the_paper_bears_out_its_own_claims():
    rows = published()
    assert verdict("relative gain", "all success", rows, bound=10.0, relation="about", margin=1.0) == "holds"
    assert verdict("relative gain", "all success", rows, bound=20.0, relation="about", margin=1.0) == "does not hold"
    assert verdict("gains most", "bottle success", rows) == "holds"
    assert verdict("gains most", "cup success", rows) == "does not hold"
    assert verdict("gains least", "bowl success", rows) == "holds"
    assert verdict("gains least", "plate success", rows) == "does not hold"
    assert verdict("drop", "all 30", rows) == "holds"


def test_novel_elevations_that_cost_more():
    rows = [{**row, **({"all 30": row["all 30"] - 5} if row["variant"] == A else {})} for row in published()]
    assert verdict("drop", "all 30", rows) == "does not hold"


def test_runs_that_lack_figures_say_nothing():
    rows = [{k: v for k, v in row.items() if k != "all 60"} for row in published()]
    assert verdict("drop", "all 30", rows) == "too few runs to say"
    assert judge(Claim("", better=A, than=B, column="all 30", kind="something else"), rows) is None
    assert verdict("gains most", "bottle success", published(2)) == "too few runs to say"


@pytest.mark.parametrize("label", [A, B])
def test_published_figures_are_whole(label):
    """Every category at every elevation, and in planning; "all" lies within its categories."""
    figures = RECIPE["published"][label]
    for end in ("15", "45", "30", "60", "success"):
        each = [float(figures[f"{name} {end}"]) for name in CATEGORIES]
        assert min(each) < float(figures[f"all {end}"]) < max(each)


def test_every_claim_speaks_of_columns_that_are_there():
    for claim in RECIPE["claims"]:
        for key in ("column", "than_column"):
            assert key not in claim or claim[key] in RECIPE["columns"]
        assert claim["better"] in {v["label"] for v in RECIPE["variants"]}
