"""Recipes: what they may say, and the one sentence that answers everything else."""

from __future__ import annotations

import pytest

from distk import UsageError
from distk.study.layers import layered
from distk.study.parse import parse, seeds_of
from distk.study.plan import folders, parse_seeds

HEAD = """
title = "T"
columns = ["mig.mig", "dci.disentanglement"]
"""
VARIANTS = """
[[variants]]
label = "A"
method = "betavae"
[[variants]]
label = "B"
method = "betavae"
model = { beta = 2.0 }
"""
BASE = HEAD + VARIANTS
CLAIM = '[[claims]]\ntext = "t"\nbetter = "A"\nthan = "B"\ncolumn = "mig.mig"\n'
BOUND = '[[claims]]\ntext = "t"\nbetter = "A"\ncolumn = "mig.mig"\nbound = 1.0\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colums = []", "study 's' has an unknown key 'colums'. Did you mean 'columns'?"),
        ("source = 3", "'source' must be text, found 3."),
        ("seeds = 0", "'seeds' must be a number of seeds"),
        ("seeds = [1, 1]", "'seeds' must be a number of seeds"),
        ("seeds = true", "'seeds' must be a whole number or a list, found True."),
        ("train = { seed = 3 }", "'seed' in [train] has no meaning"),
        ("options = { mig = 3 }", "[options.mig] must be a table, found 3."),
        ("runner = 3", "'runner' must be text, found 3."),
    ],
)
def test_what_the_top_may_not_say(text: str, said: str) -> None:
    refused(f"{HEAD}{text}\n{VARIANTS}", said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[variants]]\nmethod = "vae"\nmodle = { z = 3 }',
            "variant 'vae' has an unknown key 'modle'. Did you mean 'mo",
        ),
        ('[[variants]]\nlabel = "A"\nmethod = "vae"', "study 's' has two variants 'A': give each a label of its own."),
        ('[[variants]]\nmethod = "vae"\ngrid = { beta = 3 }', "the grid's 'beta' must be a list of values, found 3."),
        ('[[variants]]\npreset = "demo"', "variant 3 needs a method."),
        ('[published.C]\n"mig.mig" = "1"', "[published] speaks of a variant 'C', which is not there."),
        ('[published.A]\n"mig.mgi" = "1"', "speaks of a column 'mig.mgi', which is not there. Did you mean 'mig.mig'?"),
        ('[published.A]\n"mig.mig" = [1]', "'mig.mig' must be the figure as printed, found [1]."),
        (CLAIM.replace('"A"', '"C"'), "claim 1 speaks of a variant 'C', which is not there."),
        (CLAIM.replace("mig.mig", "mig.gap"), "claim 1 speaks of a column 'mig.gap', which is not there."),
        (CLAIM + 'bound = 1.0\nrelation = "above"', "claim 1 needs one of 'than', 'than_column' and 'bound'"),
        (CLAIM + 'kind = "equal"', "claim 1: equal needs a 'margin'"),
        (CLAIM + 'kind = "not much worse"', "not much worse needs a 'margin'"),
        (CLAIM + 'margin = -1.0\nkind = "equal"', "'margin' must be a number from 0"),
        (CLAIM + 'direction = "up"', "'direction' must be higher, lower or equal, found 'up'."),
        (CLAIM + 'sentence = "x"', "claim 1 has an unknown key 'sentence'."),
        (BOUND + 'relation = "abov"', "Did you mean 'above'?"),
        (BOUND + 'relation = "about"', "claim 1: about needs a 'margin'"),
        ('[[claims]]\ntext = "t"', "claim 1 needs 'better' and 'column', or 'untested'"),
        ('[[claims]]\nbetter = "A"\ncolumn = "mig.mig"', "claim 1 needs a 'text'."),
        ('[[figures]]\nkind = "pie"', "figure 1: 'kind' must be points, scatter or curve, found 'pie'."),
        ('[[figures]]\nkind = "scatter"\nx = "mig.mig"', "a scatter needs 'x' and 'y'"),
        ('[[figures]]\nkind = "scatter"\nx = "mig.mig"\ny = "z"', "figure 1 speaks of a column 'z'"),
        ('[[figures]]\nkind = "curve"\nx = "beta"\ny = "mig.mig"', "speaks of a setting of a grid 'beta'"),
        ('[[figures]]\nname = "../../x"', "'name' must be letters, digits, - and _"),
        ("[[figures]]\n[[figures]]", "another figure is called 'results', too"),
        ('[select]\nby = "mig.mig"', "[select] needs 'by' (a column, or METRIC.KEY) and 'every'"),
        ("[scale.small]\nvariants = []", "[scale.small] has an unknown key 'variants'."),
        ("[scale.small]\nseeds = -1", "'seeds' must be a number of seeds"),
        ("[[variants]", "study 's' is no TOML:"),
    ],
)
def test_what_a_section_may_not_say(text: str, said: str) -> None:
    refused(BASE + text, said)


def refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, "s", scale="paper")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_must_be_there_and_each_once() -> None:
    refused(VARIANTS, "study 's' names no columns")
    refused('columns = ["mig.mig", "mig.mig"]' + VARIANTS, "names the column 'mig.mig' twice")
    refused("columns = [3]" + VARIANTS, "a column must be text, found 3.")
    refused('columns = ["seed"]' + VARIANTS, "a column cannot be called 'seed'")


def test_a_grid_is_every_combination_and_settings_go_where_they_belong() -> None:
    grid = '[[variants]]\nmethod = "vae"\ngrid = { beta = [1, 4.0], "train.batch" = [8, 16], "data.size" = [32] }'
    found = parse(BASE + grid, "s").variants[2:]
    assert [v.label for v in found] == [f"vae beta={b} batch={n} size=32" for b in (1, 4) for n in (8, 16)]
    assert found[3].model == {"beta": 4.0}
    assert found[3].train == {"batch": 16}
    assert found[3].data == {"size": 32}
    assert found[3].point == {"beta": 4.0, "train.batch": 16, "data.size": 32}


SCALES = """
[data]
name = "dsprites"
size = 64
[train]
steps = 100
batch = 8
[model]
z = 10
[model.betavae]
arch = "mlp"
[scale.small]
seeds = 3
train = { steps = 5 }
data = { size = 32 }
model = { betavae = { arch = "fc" } }
[scale.other]
data = { name = "shapes2d" }
"""


def test_scales_change_sections_and_small_is_the_default() -> None:
    small, paper, other = (parse(BASE + SCALES, "s", scale=s) for s in (None, "paper", "other"))
    assert (small.scale, paper.scale, other.scale) == ("small", "paper", "other")
    assert (small.train, small.seeds) == ({"steps": 5, "batch": 8}, (0, 1, 2))
    assert (paper.train, paper.seeds) == ({"steps": 100, "batch": 8}, (0,))
    assert small.data == {"name": "dsprites", "size": 32}
    assert other.data == {"name": "shapes2d"}, "another data set's settings mean nothing to this one"
    assert (small.model, small.models) == ({"z": 10}, {"betavae": {"arch": "fc"}})
    assert parse(BASE, "s").scale == "paper"
    with pytest.raises(
        UsageError, match=r"has no scale 'smal': it has other and paper and small. Did you mean 'small'"
    ):
        parse(BASE + SCALES, "s", scale="smal")
    with pytest.raises(UsageError, match="has no scale 'small'"):
        parse(BASE, "s", scale="small")


def test_a_mistake_in_a_scale_that_is_not_asked_for_shows_too() -> None:
    with pytest.raises(UsageError, match="'seeds' must be"):
        parse(BASE + '[scale.small]\nseeds = 1\n[scale.paper]\nseeds = "many"', "s", scale="small")


def test_set_wins_over_everything_and_is_read_as_toml() -> None:
    recipe = parse(BASE, "s", sets=["train.steps=7", "betavae.arch=mlp", "options.mig.bins=9", "data.scales=[1, 2]"])
    assert recipe.forced == {"train": {"steps": 7}, "betavae": {"arch": "mlp"}, "data": {"scales": [1, 2]}}
    assert recipe.options == {"mig": {"bins": 9}}
    for wrong in ("steps=7", "train.steps", "=3", "options.mig=3"):
        with pytest.raises(UsageError, match="is not understood"):
            parse(BASE, "s", sets=[wrong])


def test_columns_as_the_paper_calls_them() -> None:
    columns = """
[columns]
"Transfer" = { ours = "mig.mig", unit = "percent", ours_unit = "share", higher_is_better = false }
"Humans" = { ours = "", unit = "1 to 5" }
"mig.mig" = "mig.mig"
"""
    transfer, humans, plain = parse(columns + VARIANTS, "s").columns
    assert (transfer.metric, transfer.key, transfer.times, transfer.higher) == ("mig", "mig", 100.0, False)
    assert (humans.ours, plain.ours, plain.times, plain.higher) == ("", "mig.mig", 1.0, None)


def test_seeds_by_number_list_and_range() -> None:
    assert seeds_of(3, "x") == (0, 1, 2)
    assert seeds_of([5, 2], "x") == (5, 2)
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("4:6") == (4, 5)
    for wrong in ("", "0", "-1", "3:3", "5:2", "a", "1:2:3", "1.5", "9" * 30):
        with pytest.raises(UsageError, match="is not understood"):
            parse_seeds(wrong)


def test_every_label_has_a_folder_of_its_own_inside_the_study() -> None:
    labels = ["a b", "a/b", "A b", "../..", "", "é", "beta=4.0"]
    found = folders(labels)
    assert len({name.lower() for name in found.values()}) == len(labels)
    assert not any("/" in name or name.startswith(".") for name in found.values())
    assert found["beta=4.0"] == "beta=4.0"


def test_another_data_set_drops_the_settings_of_the_one_before() -> None:
    assert layered([{"name": "a", "x": 1}, {"y": 2}]) == {"name": "a", "x": 1, "y": 2}
    assert layered([{"name": "a", "x": 1}, {"name": "b", "y": 2}]) == {"name": "b", "y": 2}
    assert layered([{"name": "a:u", "x": 1}, {"name": "a:v"}]) == {"name": "a:v", "x": 1}


SCALED = f"""{HEAD}
[scale.small]
seeds = 2
select = {{ by = "mig.mig", every = 5 }}
[[variants]]
label = "A"
method = "betavae"
[[variants]]
label = "B"
method = "betavae"
model = {{ beta = 2.0 }}
scale = "paper"
[[variants]]
label = "B"
method = "betavae"
model = {{ beta = 3.0 }}
scale = "small"
[[variants]]
label = "C"
method = "betavae"
grid = {{ beta = [4.0] }}
scale = "paper"
[published."C beta=4"]
"mig.mig" = "1"
{CLAIM}
{CLAIM.replace('"B"', '"C beta=4"')}
{BOUND}relation = "above"
scale = "paper"
"""


def test_a_variant_and_a_claim_may_belong_to_one_scale() -> None:
    small, paper = parse(SCALED, "s"), parse(SCALED, "s", scale="paper")
    assert [(v.label, v.model.get("beta")) for v in small.variants] == [("A", None), ("B", 3.0)]
    assert [(v.label, v.model.get("beta")) for v in paper.variants] == [("A", None), ("B", 2.0), ("C beta=4", 4.0)]
    only = "it is asked at --scale paper only"
    assert [c.untested for c in small.claims] == ["", only, only]
    assert [c.untested for c in paper.claims] == ["", "", ""]
    assert small.select == {"by": "mig.mig", "every": 5}
    assert paper.select == {}


def test_a_variant_and_a_claim_may_belong_to_several_scales() -> None:
    text = SCALED.replace('scale = "paper"', 'scale = ["large", "paper"]')
    text = text.replace("[scale.small]", "[scale.large]\nseeds = 4\n[scale.small]", 1)
    for scale in ("large", "paper"):
        recipe = parse(text, "s", scale=scale)
        assert [v.label for v in recipe.variants] == ["A", "B", "C beta=4"]
        assert [c.untested for c in recipe.claims] == ["", "", ""]
    only = "it is asked at --scale large or paper only"
    assert [c.untested for c in parse(text, "s", scale="small").claims] == ["", only, only]
    refused(text.replace('scale = "small"', 'scale = ["small", "large"]', 1), "study 's' has two variants 'B'")
    refused(text.replace('["large", "paper"]', '["large", 3]', 1), "'scale' must be the name of a scale, or a list of")


def test_a_scale_that_is_not_there_and_a_label_that_two_have_are_refused() -> None:
    refused(SCALED.replace('scale = "small"', 'scale = "smal"', 1), "study 's' has no scale 'smal': it has paper and")
    refused(SCALED.replace('scale = "small"', 'scale = "paper"', 1), "study 's' has two variants 'B'")
    refused(SCALED.replace('scale = "small"\n', "", 1), "study 's' has two variants 'B'")
