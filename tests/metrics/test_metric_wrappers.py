"""The metrics against the array functions on the same rows, on grids, other data and sampled codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distk import CodeTable, UsageError, evaluate
from distk.evaluation import build_metric, score
from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional.sentences import Column, Columns, Names, Sentence, in_words
from distk.plugins.metrics.table import chosen, row_numbers
from distk.testing import synthetic_table


def table_of(codes: torch.Tensor, factors: torch.Tensor, **more) -> CodeTable:
    """A table as a file of codes gives it."""
    k, d = factors.shape[1], codes.shape[1]
    return CodeTable(
        codes,
        [f"z{i}" for i in range(d)],
        more.pop("kinds", ["continuous"] * d),
        factors,
        tuple("abcdef"[:k]),
        tuple(int(c.max()) + 1 for c in factors.T),
        ("ordinal",) * k,
        **more,
    )


@pytest.fixture
def loose(generator) -> CodeTable:
    """600 rows that are no grid: three factors, two of them coded, one code of noise."""
    factors = torch.stack([torch.randint(s, (600,), generator=generator) for s in (3, 4, 5)], 1)
    codes = torch.cat([factors[:, :2].double(), torch.zeros(600, 1)], 1)
    return table_of(codes + 0.1 * torch.randn(codes.shape, generator=generator, dtype=torch.float64), factors)


def run(name: str, table: CodeTable, seed: int = 0, **options):
    return build_metric(name, options)[1].compute(table, seed)


def same(result, expected) -> None:
    for key, value in expected.items():
        if key != "reasons":
            np.testing.assert_allclose(result[key], value, rtol=1e-12, atol=1e-12, equal_nan=True, err_msg=key)


def test_scores_of_given_rows_are_those_of_the_array_functions(loose) -> None:
    c, f = loose.codes, loose.factors
    same(run("mig", loose), fn.mig(c, f))
    same(run("mig", loose, bins=7), fn.mig(c, f, 7))
    same(run("mig", loose, protocol="rmig"), fn.mig(c, f, 10, "width", 10))
    same(run("mig", loose, binning="quantile"), fn.mig(c, f, binning="quantile"))
    same(run("modularity", loose), fn.modularity(c, f))
    same(run("irs", loose, quantile=1.0), fn.irs(c, f, 1.0))
    same(run("infomec", loose, seed=3), fn.info_mec(c, f, seed=3))
    same(run("unsupervised", loose), fn.unsupervised(c))
    same(run("linear-correlation", loose), fn.linear_correlation(c, 3))
    same(run("active-units", loose), fn.active_units(c))
    same(run("best-dimension-auc", loose), fn.best_dimension_auc(c, f))
    # Without test rows, the array functions split as the wrapper does.
    same(run("sap", loose), fn.sap(c, f))
    same(run("sap", loose, continuous=True), fn.sap(c[:400], f[:400], continuous=True))
    same(run("explicitness", loose), fn.explicitness(c, f))
    same(run("dci", loose, predictor="lasso"), fn.dci(c, f, predictor="lasso"))
    few = run("downstream", loose, sizes=(50, 5000))
    assert few["mean_50"] == fn.downstream(c, f, sizes=(50,))["mean_50"] == few["mean_largest"]
    assert few["reasons"]["sizes"] == "too few items for [5000]"


def test_boosted_dci_of_given_rows(loose, seed) -> None:
    small = table_of(loose.codes[:120], loose.factors[:120])
    same(run("dci", small, seed), fn.dci(small.codes, small.factors, seed=seed))
    exact = run("dci", small, seed, exact=True)
    assert exact["estimator"].startswith("scikit-learn")
    assert abs(exact["disentanglement"] - run("dci", small, seed)["disentanglement"]) < 0.05


def test_sampled_protocols_by_grid_and_by_table(loose, seed) -> None:
    grid = synthetic_table(seed)
    only = {"sizes": grid.factor_sizes}
    shape = grid.codes[:, 4].long()
    expected = fn.factor_vae(grid.codes[:, :4], seed=seed, discrete=shape, **only)
    same(run("factorvae", grid, seed), expected)
    assert run("factorvae", grid, seed)["code_names"] == ["z1", "z2", "z3", "z4", "d"]
    votes = run("factorvae", grid, seed, protocol="cascadevae")
    expected = fn.factor_vae(
        grid.codes[:, :4], seed=seed, protocol="cascadevae", discrete=shape, kl=grid.kl[:4], **only
    )
    same(votes, expected)
    assert votes["eval"] > 0.99
    same(run("factorvae", loose, seed), fn.factor_vae(loose.codes, seed=seed, factors=loose.factors))
    assert run("factorvae", loose, seed, protocol="cascadevae")["reasons"]["codes_used"].startswith("no posterior")
    same(run("higgins-change", grid, seed), fn.higgins_change(grid.codes, seed=seed, discrete=[4], **only))
    same(run("higgins-change", loose, seed), fn.higgins_change(loose.codes, seed=seed, factors=loose.factors))


def test_beta_vae_by_table(loose, seed) -> None:
    same(run("betavae", loose, seed), fn.beta_vae(loose.codes, seed=seed, factors=loose.factors))


def test_a_large_grid_is_sampled_as_published(seed) -> None:
    grid = torch.cartesian_prod(*(torch.arange(s) for s in (6, 50, 51)))
    codes = torch.cat([grid[:, 1:].double(), grid[:, :1] + 0.3 * grid[:, 1:2]], 1)
    table = table_of(codes, grid, grid=True)
    rows = torch.randint(len(grid), (10_000,), generator=torch.Generator().manual_seed(seed))
    result = run("mig", table, seed)
    same(result, fn.mig(codes[rows], grid[rows]))
    assert result["rows_used"] == [10_000]
    rows = torch.randint(len(grid), (15_000,), generator=torch.Generator().manual_seed(seed))
    a, b = rows[:10_000], rows[10_000:]
    expected = fn.dci(codes[a], grid[a], codes[b], grid[b], predictor="lasso")
    same(run("dci", table, seed, predictor="lasso"), expected)


def test_a_long_file_is_used_whole_but_by_predictors(generator) -> None:
    factors = torch.randint(3, (16_000, 1), generator=generator)
    table = table_of(factors.double(), factors)
    assert torch.equal(chosen(table, 10_000, 0), torch.arange(16_000))
    some = chosen(table, 15_000, 0, predict=True)
    assert len(some) == len(some.unique()) == 15_000
    assert not torch.equal(some, some.sort().values)


def test_test_rows_of_a_file_are_used(loose) -> None:
    table = table_of(loose.codes[:300], loose.factors[:300])
    table.codes_test, table.factors_test = loose.codes[300:], loose.factors[300:]
    parts = (loose.codes[:300], loose.factors[:300], loose.codes[300:], loose.factors[300:])
    result = run("dci", table, predictor="lasso")
    same(result, fn.dci(*parts, predictor="lasso"))
    assert result["rows_used"] == [300, 300]
    same(run("explicitness", table), fn.explicitness(*parts))
    assert run("explicitness", table)["explicitness_test"] != run("explicitness", loose)["explicitness_test"]
    same(run("mig", table), fn.mig(*parts[:2]))


def test_sampled_codes_follow_their_seed_and_the_posterior(loose, seed) -> None:
    with pytest.raises(UsageError, match="no posterior"):
        run("mig", loose, code="sample")
    loose.std = torch.full_like(loose.codes, 0.5)
    first, again, other = (run("mig", loose, s, code="sample")["mig"] for s in (seed, seed, seed + 1))
    assert first == again != other
    assert first < run("mig", loose)["mig"] - 0.05
    noisy = run("linear-correlation", loose, seed, code="sample")
    assert noisy["l_sigma"] > run("linear-correlation", loose, seed)["l_sigma"] + 0.05
    loose.std = torch.zeros_like(loose.codes)
    same(run("factorvae", loose, seed, code="sample"), {"eval": run("factorvae", loose, seed)["eval"]})


def test_sampling_draws_fresh_noise_for_every_row_that_is_drawn(seed) -> None:
    """Four items whose codes are noise: noise frozen into the table would tell them apart, fresh noise cannot."""
    codes, std = torch.zeros(4, 2, dtype=torch.float64), torch.ones(4, 2)
    fresh = fn.factor_vae(codes, (2, 2), seed, std=std)
    assert abs(fresh["eval"] - 0.5) < 0.1
    assert fresh["codes_used"] == 2
    fresh = fn.beta_vae(codes, (2, 2), seed, std=std, pairs=16, train_points=2000, eval_points=1000)
    assert abs(fresh["eval"] - 0.5) < 0.1
    fresh = fn.higgins_change(codes, (2, 2), seed, std=std, train_points=2000, eval_points=1000)
    assert abs(fresh["eval"] - 0.5) < 0.1
    with pytest.raises(ValueError, match="std must be"):
        fn.beta_vae(codes, (2, 2), seed, std=std[:, :1])


def test_a_discrete_code_enters_predictors_by_indicators_or_as_an_index(generator) -> None:
    """The classes of d are no order of the factor: only indicators let a linear predictor read it."""
    factor = torch.randint(5, (900, 2), generator=generator)
    d = torch.tensor([2, 0, 4, 1, 3])[factor[:, 0]]
    codes = torch.stack([d.double(), factor[:, 1] + 0.01 * torch.randn(900, generator=generator)], 1)
    table = table_of(codes, factor, kinds=["categorical", "continuous"])
    index, onehot = run("dci", table, predictor="lasso", discrete="index"), run("dci", table, predictor="lasso")
    assert index["code_names"] == onehot["code_names"] == ["z0", "z1"]
    assert index["importance"].shape == onehot["importance"].shape == (2, 2)
    assert onehot["nrmse_per_factor"][0] < 0.1
    assert index["nrmse_per_factor"][0] > 0.6
    assert run("explicitness", table)["explicitness_test"] > 0.99
    left = run("linear-correlation", table)
    assert (left["code_names"], left["codes_used"]) == (["z1"], 1.0)
    assert "not quantities" in left["reasons"]["z0"]


def test_continuous_factors_need_bins_or_the_lasso(generator) -> None:
    factors = torch.rand(900, 2, generator=generator, dtype=torch.float64)
    table = table_of(factors + 0, factors)
    error = score(table, "explicitness", {}, 0, None)["error"]
    assert "factor 'b' is continuous" in error
    assert "--bins" in error
    assert "predictor=lasso" in error
    # Scores from information cut them into as many bins as the codes.
    for name in ("mig", "modularity"):
        assert run(name, table)[name] == pytest.approx(run(name, table, bins=20)[name], abs=1e-12)
    assert run("mig", table)["mig"] > 0.85
    assert run("infomec", table)["infom"] > 0.9
    # Predictors of real numbers regress: a code that is the factor explains all of it, the other one nothing.
    sap = run("sap", table)
    assert sap["score_matrix"] == pytest.approx(np.corrcoef(factors[:600].T) ** 2, abs=1e-9)
    dci = run("dci", table)
    assert dci["informativeness_per_factor"].min() > 0.99
    assert dci["disentanglement"] > 0.98
    everything = table_of(factors @ torch.tensor([[1.0, 1], [1, -1]], dtype=torch.float64), factors)
    assert run("dci", everything)["disentanglement"] < 0.2
    assert run("dci", table, predictor="lasso")["disentanglement"] > 0.99
    assert run("mig", table, bins=10)["mig"] > 0.9
    assert run("explicitness", table, bins=4)["explicitness_test"] > 0.9
    assert run("irs", table)["irs"] > 0.8
    assert run("factorvae", table)["eval"] > 0.95
    # The same cut for training and for test rows: between the extremes of both.
    table.codes_test, table.factors_test = 3 * factors, 3 * factors
    assert run("sap", table, bins=10)["rows_used"] == [900, 900]


def test_a_factor_that_cannot_be_scored_takes_no_other_with_it(generator) -> None:
    whole = torch.randint(4, (300, 1), generator=generator).double()
    noisy = torch.rand(300, 1, generator=generator, dtype=torch.float64)
    table = table_of(torch.cat([whole, noisy], 1), torch.cat([whole, noisy], 1))
    many = table_of(torch.cat([whole, noisy], 1), torch.cat([whole.long(), torch.arange(300)[:, None]], 1))
    for scored, why in ((table, "is continuous"), (many, "has 200 values")):
        alone = table_of(scored.codes, scored.factors[:, :1])
        found, expected = run("explicitness", scored), run("explicitness", alone)
        assert found["explicitness_test"] == expected["explicitness_test"]
        assert found["factor_names"] == ["a"]
        assert why in found["reasons"]["factor 'b'"]
    assert "has 300 values" in run("mig", many)["reasons"]["factor 'b'"]
    assert run("mig", many)["mig"] == run("mig", table_of(many.codes, many.factors[:, :1]))["mig"]


def test_messages_name_factors_codes_and_data(loose) -> None:
    loose.factors[:, 1] = 2
    assert run("mig", loose)["reasons"]["mig"] == "factor 'b' is constant: dropped"
    loose.codes[:, 2] = 0.5
    assert run("irs", loose)["reasons"]["irs_per_code"] == "constant codes z2 left out"
    alone = table_of(torch.arange(40.0)[:, None], torch.stack([torch.arange(40), torch.arange(40)], 1) // 20)
    alone.source = "data set 'celeba'"
    error = score(alone, "higgins-change", {}, 0, 1)["error"]
    assert error == "data set 'celeba' has no two items that differ only in factor 'a'; this score compares such pairs."
    loose.codes[3, 1] = math.nan
    assert score(loose, "dci", {}, 0, 1)["error"] == "codes contains NaN or inf, first in code 'z1'."


def test_a_sentence_reads_with_numbers_or_with_names() -> None:
    names = Names(["x", "y", "z"], ["shape", "size"])
    one = Sentence("{} is constant: dropped", Column("factor", 1))
    several = Sentence("constant {} left out", Columns("code", (0, 2)))
    assert (one, several) == ("factor 1 is constant: dropped", "constant codes [0, 2] left out")
    both = Sentence.joined([one, "", "and a text of {braces}", several])
    assert both == "factor 1 is constant: dropped; and a text of {braces}; constant codes [0, 2] left out"
    assert in_words(both, names) == (
        "factor 'size' is constant: dropped; and a text of {braces}; constant codes x, z left out"
    )
    beyond = Sentence("{}", Column("factor", 2))
    assert (in_words(beyond, names), in_words("factor 1", names)) == ("factor 2", "factor 1")


def test_factors_left_out_of_the_question_do_not_shift_the_names(loose) -> None:
    """With the first factor ignored, the second is column 0 of what is sampled, and is called by its own name."""
    loose.factors[:, 1] = 2
    reasons = run("factorvae", loose, ignore_factors=("a",))["reasons"]
    assert "factor 'b'" in reasons
    assert "factor 'a'" not in reasons


def test_undefined_numbers_have_a_reason_and_repeats_a_spread(loose) -> None:
    one = table_of(loose.codes, loose.factors[:, :1])
    result = score(one, "modularity", {}, 0, None)
    assert math.isnan(result["modularity"])
    assert result["reasons"]["modularity"] == "undefined for a single factor"
    result = score(loose, "higgins-change", {}, 5, 3)
    assert (result["repeats"], result["seeds"]) == (3, [5, 6, 7])
    singles = [score(loose, "higgins-change", {}, s, 1)["eval"] for s in (5, 6, 7)]
    assert result["eval"] == pytest.approx(np.mean(singles))
    assert result["eval_std"] == pytest.approx(np.std(singles, ddof=1))
    assert "repeats" not in score(loose, "mig", {}, 0, None)


def test_options_go_to_the_metrics_that_know_them(loose) -> None:
    said = evaluate(loose, ["mig", "factorvae", "active-units"], repeats=1, protocol="cascadevae")["metrics"]
    assert said["factorvae"]["settings"]["protocol"] == "cascadevae"
    assert said["mig"]["settings"]["protocol"] == "dlib"
    assert said["mig"]["reasons"]["settings"] == "protocol 'cascadevae' is unknown here: the default is used"
    assert "reasons" not in said["active-units"]
    with pytest.raises(UsageError, match="'cascade' is none of dlib, cascadevae"):
        evaluate(loose, ["factorvae"], protocol="cascade")
    with pytest.raises(UsageError, match=r"has no setting 'protocoll'. Did you mean 'protocol'\?"):
        evaluate(loose, ["factorvae"], protocoll="cascadevae")
    with pytest.raises(UsageError, match="below the smallest"):
        evaluate(loose, ["mig", "irs"], bins=1)
    assert build_metric("ksg", {"variant": "2"})[1].config.variant == 2


def test_aggregate_mig_leaves_categorical_factors_out(loose) -> None:
    loose.std = torch.full_like(loose.codes, 0.2)
    loose.factor_kinds = ("categorical", "ordinal", "ordinal")
    result = run("mig", loose, protocol="aggregate")
    expected = fn.mig_aggregate(loose.codes, 2 * loose.std.log(), loose.factors[:, 1:])
    same(result, expected)
    assert result["factor_names"] == ["b", "c"]
    assert "categorical" in result["reasons"]["a"]


def test_the_label_of_the_data_comes_before_its_factors() -> None:
    """Pairs of neighbours share an identity; the first categorical factor is constant over long stretches instead."""

    class Pairs:
        name = "pairs"
        config = None
        origin = ""

        def __init__(self, labelled: bool) -> None:
            self.labelled = labelled

        def __len__(self):
            return 60

        def batch(self, rows):
            return {"x": rows.float()[:, None], **({"label": rows // 2} if self.labelled else {})}

    rows = torch.arange(60)
    where = {"factors": torch.stack([rows // 20], 1), "factor_names": ("tone",), "factor_sizes": (3,)}
    codes = (rows // 2).float()[:, None] + 0.1 * (rows % 2)[:, None]
    for labelled, of in ((True, "label"), (False, "tone")):
        made = CodeTable(
            codes, ["z1"], ["continuous"], **where, factor_kinds=("categorical",), dataset=Pairs(labelled), rows=rows
        )
        found = score(made, "recall", {"ks": (1,)}, 0, None)
        assert found["estimator"].endswith(f"same {of}")
        assert found["recall@1"] == 1.0


def test_a_factor_that_is_not_asked_about(generator) -> None:
    """Two of three factors are coded; the score of the third is chance, and left out it costs nothing."""
    sizes = (3, 4, 10)
    grid = torch.cartesian_prod(*(torch.arange(s) for s in sizes))
    noise = torch.randn(120, 1, generator=generator)
    codes = torch.cat([grid[:, 1:].float(), noise], 1)
    where = {"factor_names": ("shape", "x", "y"), "factor_sizes": sizes, "grid": True}
    table = CodeTable(codes, ["a", "b", "c"], ["continuous"] * 3, grid, **where, factor_kinds=("ordinal",) * 3)
    for name in ("factorvae", "betavae", "higgins-change"):
        found = score(table, name, {"ignore_factors": ("shape",)}, 0, 1)
        key = build_metric(name)[1].headline
        assert found[key] > 0.99, (name, found)
    assert "error" in score(table, "factorvae", {"ignore_factors": ("colour",)}, 0, 1)


def test_what_a_metric_needs_of_a_model_is_asked_for_in_one_place(loose, monkeypatch) -> None:
    from distk import Method
    from distk.plugins.metrics.information import Mig

    class Blind(Method):
        def encode(self, x):
            return {"z": x}

    monkeypatch.setattr(Mig, "needs", ("decode", "posterior"))
    assert "needs a checkpoint" in score(loose, "mig", {}, 0, 1)["error"]
    loose.model = Blind.__new__(Blind)
    error = score(loose, "mig", {}, 0, 1)["error"]
    assert error == "metric 'mig' needs a method that can decode and posterior, which Blind cannot."


class Items:
    """What a score asks of the data behind a table: how many items there are, and whether they are a full grid."""

    is_grid = False

    def __len__(self) -> int:
        return 600


@pytest.mark.parametrize(
    "name", ["mig", "sap", "dci", "irs", "modularity", "explicitness", "unsupervised", "dcimig", "r2"]
)
def test_a_factor_that_numbers_the_items_is_left_out_by_name(loose: CodeTable, name: str) -> None:
    """Of a model's own data; the score is that of the table without it. A real number is no number of a row."""
    numbered = torch.cat([torch.arange(600)[:, None], loose.factors], 1)
    table = table_of(loose.codes, numbered, dataset=Items())
    result = run(name, table)
    assert "as a row's number has" in result["reasons"]["factor 'a'"]
    assert "600 values in the 600 items" in result["reasons"]["factor 'a'"]
    plain = run(name, table_of(loose.codes, loose.factors))
    same(
        {k: v for k, v in result.items() if isinstance(v, float)},
        {k: v for k, v in plain.items() if isinstance(v, float)},
    )
    table.factor_kinds = ("continuous", *table.factor_kinds[1:])
    assert not row_numbers(table)
    alone = table_of(loose.codes, numbered[:, :1], dataset=Items())
    assert not row_numbers(alone), "what would leave nothing to score"
