"""What is wrong is found before anything trains, each time in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from distk import UsageError
from distk.study.checks import preview
from distk.study.plan import differences, plan
from distk.study.report import check_directions

from .conftest import TINY


def planned(folder: Path, text: str, **given):
    path = folder / "study.toml"
    path.write_text(text)
    made = plan(str(path), out=folder / "out", **given)
    check_directions(made.recipe)
    return made, preview(made)


def changed(old: str, new: str) -> str:
    assert old in TINY
    return TINY.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'method = "covreg-linear"',
            'method = "covreg-liner"',
            "unknown method 'covreg-liner'. Did you mean 'covreg-line",
        ),
        (
            "grid = { lr = [0.01] }",
            "grid = { lrr = [0.01] }",
            "variant 'covreg-linear lrr=0.01': method 'covreg-linear' has",
        ),
        ("steps = 40", "stepps = 40", "training has no setting 'stepps'. Did you mean 'steps'?"),
        ("steps = 40", "steps = -1", "is below the smallest allowed value 0"),
        ("items = 64", "itmes = 64", "has no setting 'itmes'. Did you mean 'items'?"),
        ('name = "dimred"', 'name = "dimmed"', "unknown dataset 'dimmed'. Did you mean 'dimred'"),
        ('name = "dimred"\nitems = 64', 'name = "digits"', "learns from"),
        (
            '"covstats.cvr", ',
            '"covstat.cvr", ',
            "column 'covstat.cvr': unknown metric 'covstat'. Did you mean 'covstats'?",
        ),
        (
            '"covstats.mapc"',
            '"covstats.mapp"',
            "unknown number 'mapp' of the metric 'covstats' in column 'covstats.mapp'",
        ),
        ('"covstats.mapc"', '"covstats"', "column 'covstats' names no number of a metric; write METRIC.KEY"),
        ("seeds = 2", 'seeds = 2\npreset = "sketch"', "unknown preset 'sketch' of the methods of study 'study'"),
        (
            "[train]",
            "[options.covstats]\nlayr = 'code'\n[train]",
            "metric 'covstats' has no setting 'layr'. Did you mean",
        ),
        ("[train]", "[options.mig]\nbins = 4\n[train]", "[options.mig] is of a metric that no column uses."),
        ("[train]", "[model.covreg-liner]\nlr = 0.1\n[train]", "[model.covreg-liner] names no method of this study."),
        ("[train]", "[settings]\nx = 1\n[train]", "has [settings], which only runners take."),
        ("seeds = 2", 'seeds = 2\nrunner = "nobody"', "unknown study 'nobody'"),
        ("[train]", '[select]\nby = "mig.mig"\nevery = 5\n[train]', "[select] is by 'mig.mig', which no column shows."),
        (
            "[train]",
            '[select]\nby = "covstats.mapc"\nevery = 5\n[train]',
            "can only be by a metric's headline, here covstats.cvr",
        ),
    ],
)
def test_what_nobody_has_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    claimless = TINY.partition("[published")[0]
    with pytest.raises(UsageError) as caught:
        planned(tmp_path, claimless.replace(old, new, 1))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("betavae.z=3", "--set betavae.z: 'betavae' is no method of this study."),
        ("covreg-linear.zz=3", "method 'covreg-linear' has no setting 'zz'"),
        ("train.seed=3", "have options of their own"),
        ("options.covstats.layr=3", "has no setting 'layr'"),
    ],
)
def test_set_is_checked_like_the_recipe(tmp_path: Path, sets: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(tmp_path, TINY, sets=[sets])
    assert said in str(caught.value)


def test_a_name_that_is_neither_registered_nor_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown study 'nosuch'"):
        plan("nosuch")
    with pytest.raises(UsageError, match=r"recipe '.*absent.toml' does not exist"):
        plan(str(tmp_path / "absent.toml"))
    with pytest.raises(UsageError, match="is no file"):
        plan(str(tmp_path))
    (tmp_path / "large.toml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(UsageError, match="larger than 4 MiB"):
        plan(str(tmp_path / "large.toml"))


def test_settings_come_from_the_recipe_the_variant_and_set_in_that_order(tmp_path: Path) -> None:
    text = changed("[train]", '[model]\nlr = 0.5\n["model"."covreg-linear"]\ncode = 7\n[train]')
    made, _ = planned(tmp_path, text)
    free, grid = made.variants
    assert made.settings(free, 3).train.seed == 3
    assert made.settings(free, 0).model.lr == 0.5
    assert made.settings(grid, 0).model.lr == 0.01, "a variant's own wins"
    assert made.settings(grid, 0).model.code == 7
    assert made.settings(grid, 0).data == "dimred"
    made, _ = planned(tmp_path, text, sets=["covreg-linear.lr=0.25", "train.steps=3", "data.items=32"])
    for variant in made.variants:
        settings = made.settings(variant, 0)
        assert (settings.model.lr, settings.train.steps, settings.data_options["items"]) == (0.25, 3, 32)


def test_without_a_word_about_data_all_learn_from_that_of_the_first(tmp_path: Path) -> None:
    text = TINY.replace('name = "dimred"\n', "").replace("items = 64", "items = 48")
    made, _ = planned(tmp_path, text)
    assert {made.settings(v, 0).data for v in made.variants} == {"dimred"}
    assert {made.settings(v, 0).data_options["items"] for v in made.variants} == {48}


def test_the_differences_are_those_of_the_variants(tmp_path: Path) -> None:
    made, _found = planned(tmp_path, TINY)
    free, grid = differences(made)
    assert free["parameters"] == grid["parameters"] > 100
    assert (free["steps"], free["data"]) == (40, "dimred")
    assert grid["settings"] == {"lr": 0.01}
    assert list(free["settings"]) == ["lr"]


def test_a_claim_that_nobody_can_direct_is_refused_and_a_quoted_line_needs_no_method(tmp_path: Path) -> None:
    text = changed("[[variants]]\nmethod", '[[variants]]\nlabel = "theirs"\nquoted = "Else 2001"\n[[variants]]\nmethod')
    made, _ = planned(tmp_path, text)
    assert [v.label for v in made.variants] == ["free", "covreg-linear lr=0.01"]
    assert [v.label for v in made.recipe.variants] == ["free", "theirs", "covreg-linear lr=0.01"]


CHOSEN = """
seeds = 1
[columns."all factors"]
ours = "factorvae:protocol=cascadevae.eval"
[columns."held out"]
ours = "factorvae.eval"
split = "test"
options = { ignore_factors = ["shape"] }
[columns."reconstruction:code=sample,split=validation.nll_image"]
[select]
by = "held out"
every = 5
on = "validation"
[data]
name = "dsprites"
size = 32
scales = [0, 1, 2, 3]
orientations = 3
positions = 4
holdout = 0.25
[train]
steps = 10
batch = 8
validation = 0.25
[[variants]]
method = "betavae"
model = { arch = "mlp" }
"""


def test_protocols_and_splits_of_columns_and_of_the_choice(tmp_path) -> None:
    from distk.study.checks import preview

    def planned(text: str):
        recipe = tmp_path / "chosen.toml"
        recipe.write_text(text)
        return plan(str(recipe), out=tmp_path / "out")

    made = planned(CHOSEN)
    assert [(c.metric, c.key, made.options(c)) for c in made.recipe.columns] == [
        ("factorvae", "eval", {"protocol": "cascadevae"}),
        ("factorvae", "eval", {"ignore_factors": ["shape"], "split": "test"}),
        ("reconstruction", "nll_image", {"code": "sample", "split": "validation"}),
    ]
    train = made.settings(made.variants[0], 0).train
    assert (train.keep, train.eval_every) == ("best:factorvae:ignore_factors=shape,split=validation", 5)
    assert preview(made).empty == {}
    for old, new, said in (
        ('on = "validation"', 'on = "held"', "unknown split 'held' of data set 'dsprites'"),
        ('split = "test"', 'split = "tset"', "unknown split 'tset' of data set 'dsprites'"),
        ("validation = 0.25", "", "unknown split 'validation' of data set 'dsprites'"),
    ):
        with pytest.raises(UsageError, match=said):
            preview(planned(CHOSEN.replace(old, new, 1)))


def test_a_study_scores_a_column_on_its_own_split(tmp_path, instant) -> None:
    from distk.evaluation import evaluate
    from distk.models import open_model
    from distk.study import engine

    recipe = tmp_path / "chosen.toml"
    recipe.write_text(CHOSEN)
    made = plan(str(recipe), out=tmp_path / "out", device="cpu")
    row = engine.run(made, engine="instant", quiet=True)[0]
    folder = tmp_path / "out" / "runs" / "betavae" / "s0"
    for file, ending in (("best", ""), ("checkpoint", " (last)")):
        model, _ = open_model(folder / f"{file}.safetensors", "cpu")
        for column, text, split in (
            ("held out", "factorvae:ignore=shape", "test"),
            ("all factors", "factorvae:protocol=cascadevae", "all"),
        ):
            alone = evaluate(model, [text], split=split)["metrics"]["factorvae"]["eval"]
            assert row[f"{column}{ending}"] == alone
        drawn = evaluate(model, ["reconstruction:code=sample"], split="validation")["metrics"]["reconstruction"]
        assert row[f"reconstruction:code=sample,split=validation.nll_image{ending}"] == drawn["nll_image"]


COMPARISONS = ("factorvae", "dip", "discrete")
"""The built-in studies that hold different methods against each other under equal conditions, and say so."""


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("study", COMPARISONS)
def test_what_a_comparison_says_to_be_equal_is_equal(study, scale) -> None:
    """Counted here from the resolved settings, without the engine's own check."""
    made = plan(study, scale=scale)
    every = [made.settings(v, 0) for v in made.variants]
    assert {"arch", "lr", "train.steps", "train.batch", "data"} <= set(made.recipe.equal)
    assert len({s.train.steps for s in every}) == len({s.train.batch for s in every}) == 1
    assert len({s.model.lr for s in every}) == 1
    assert len({getattr(s.model, "arch", "snu" if s.entry.name == "cascadevae" else None) for s in every}) == 1
    assert len({(s.data, repr(sorted(s.data_options.items()))) for s in every}) == 1


@pytest.mark.parametrize("size", [32, 64])
def test_cascadevae_has_the_network_that_the_others_call_snu(size) -> None:
    from distk.data import DataSpec
    from distk.plugins.vae_family.networks import SnuDecoder, SnuEncoder, decoder, encoder

    spec = DataSpec("image", (1, size, size))
    pairs = [(SnuEncoder(spec, 3), encoder("snu", spec, 6)), (SnuDecoder(spec, 5), decoder("snu", spec, 5))]
    for own, shared in pairs:
        assert [tuple(p.shape) for p in own.parameters()] == [tuple(p.shape) for p in shared.parameters()]


@pytest.mark.parametrize(
    ("equal", "said"),
    [
        ('["lr"]', "says that its variants are equal in 'lr', but lr is 0.001 of 'free' and 0.01 of"),
        ('["train"]', None),
        ('["train.stepps"]', "'equal' names 'train.stepps', which no variant has. Did you mean 'train.steps'?"),
        ("[1]", "'equal' must name settings"),
    ],
)
def test_a_recipe_is_held_to_what_it_says_to_be_equal(tmp_path, equal, said) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f"equal = {equal}\n{TINY}")
    if said is None:
        assert plan(str(recipe)).recipe.equal == ("train",)
        return
    with pytest.raises(UsageError) as caught:
        plan(str(recipe))
    assert said in str(caught.value)


def test_the_table_of_differences_stays_with_the_results(tmp_path, instant, distk_command) -> None:
    import json

    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.replace("steps = 40", "steps = 2").replace("seeds = 2", "seeds = 1"))
    code, _, err = distk_command("study", "run", recipe, "--engine", "instant", "--out", "out", "--device", "cpu")
    assert code == 0, err
    assert "lr=0.01" in err, "said before it runs"
    code, out, _ = distk_command("study", "report", "out")
    assert "differs in" in out
    assert "lr=0.01" in out
    code, out, _ = distk_command("study", "report", "out", "--json")
    first, second = json.loads(out)["conditions"]
    assert (first["settings"], second["settings"]) == ({"lr": 0.001}, {"lr": 0.01})
    # 10-4-10 without a bias in between: PyTorch's start, +-1/sqrt(fan-in) uniformly, 80 weights
    assert first["start"] == pytest.approx(3**-0.5, abs=0.2)
    assert first["parameters"] == second["parameters"] > 80
