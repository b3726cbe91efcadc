"""Discrete codes: whatever their classes are called, a score stays what it is, and readers find them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import Lasso
from sklearn.svm import LinearSVC
from torch import Tensor

from distk import CodeTable, UsageError, evaluate
from distk.codetable import table_of
from distk.evaluation import build_metric
from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional.indicators import indicators, summed
from distk.plugins.metrics.functional.shapley import sage
from distk.plugins.metrics.table import PredictorConfig
from distk.registry import registry

METRICS = [entry.name for entry in registry().entries("metric") if entry.plugin == "metrics"]
LESS: Mapping[str, Any] = {
    "reasoning.steps": 20,
    "downstream.sizes": (10, 100),
    "change-one-factor.epochs": 50,
    "clsacc.disc_index": 1,
}
READERS = [
    *[("dci", {"predictor": p}) for p in ("gbt", "lasso", "rf", "mlp")],
    *[("dci-es", {"probe": p}) for p in ("rff", "rf")],
    *[("downstream", {"predictor": p, "sizes": (100,)}) for p in ("lr", "gbt", "svm", "svm_linear")],
    *[("fairness", {"predictor": p}) for p in ("gbt", "lr")],
    *[("combinations", {"predictor": p}) for p in ("lr", "gbt")],
    *[("r2", {"predictor": p}) for p in ("linear", "mlp")],
    *[("sap", {"continuous": c}) for c in (False, True)],
    *[("mig", {"protocol": "rmig"}), ("mig", {"binning": "quantile"}), ("recall", {"distance": "cosine"})],
    ("higgins-change", {"protocol": "logistic"}),
]
"""Every way in which a score may read a code beside its default."""
NO_TABLE = {"elbo", "prediction", "reconstruction", "ksg", "fg-ari"}
"""They look at items, at frames or at slots."""


def _table(generator: torch.Generator, grid: bool = False, classes: int = 6) -> CodeTable:
    """Two discrete codes, the first a noisy copy of a factor, and two of numbers, over factors of 6, 3 and 2 values."""
    sizes = (6, 3, 2)
    rows = torch.cartesian_prod(*[torch.arange(s) for s in sizes])
    if not grid:
        rows = rows[torch.randint(len(rows), (600,), generator=generator)]
    n = len(rows)
    drawn = torch.randint(classes, (n, 2), generator=generator)
    index = torch.where(torch.rand(n, generator=generator) < 0.15, drawn[:, 0], rows[:, 0])
    smooth = rows[:, 1:].double() + 0.4 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    codes = torch.cat([smooth[:, :1], index[:, None].double(), drawn[:, 1:].double(), smooth[:, 1:]], 1)
    kinds = ["continuous", "categorical", "categorical", "continuous"]
    names, factor_kinds = ["a", "k", "l", "b"], ("categorical", "ordinal", "ordinal")
    return CodeTable(
        codes, names, kinds, rows, ("f", "g", "h"), sizes, factor_kinds, grid=grid, std=torch.full_like(codes, 0.1)
    )


def _renamed(table: CodeTable, generator: torch.Generator) -> CodeTable:
    """The same codes, their classes under other numbers."""
    codes = table.codes.clone()
    for d, kind in enumerate(table.kinds):
        if kind == "categorical":
            codes[:, d] = torch.randperm(40, generator=generator).double()[codes[:, d].long()]
    return replace(table, codes=codes)


def _same(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.get("error") == other.get("error"), name
    assert ("error" in one) == (name in NO_TABLE), (name, one.get("error"))
    numbers = {key: value for key, value in one.items() if isinstance(value, float)}
    assert numbers == pytest.approx({key: other[key] for key in numbers}, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("grid", [False, True])
def test_renaming_classes_changes_no_score(grid: bool, generator: torch.Generator) -> None:
    table = _table(generator, grid)
    names = [name for name in METRICS if name != "tad"]  # which asks for two factors of two values
    if grid:  # 36 rows: what asks for more rows is asked about above
        names = ["factorvae", "betavae", "higgins-change", "change-one-factor", "z-max", "fairness", "reasoning"]
    less = {key: value for key, value in LESS.items() if key.partition(".")[0] in names}
    one, other = (
        evaluate(each, names, repeats=1, on_error="row", **less)["metrics"]
        for each in (table, _renamed(table, generator))
    )
    for name in names:
        _same(name, one[name], other[name])


@pytest.mark.parametrize(("name", "settings"), READERS)
def test_renaming_classes_changes_no_reader(name: str, settings: dict[str, Any], generator: torch.Generator) -> None:
    """More classes than bins, too, which equal widths and quantiles would put together."""
    table = _table(generator, classes=25)
    options = {f"{name}.{key}": value for key, value in settings.items()}
    one, other = (
        evaluate(each, [name], repeats=1, **options)["metrics"][name] for each in (table, _renamed(table, generator))
    )
    _same(name, one, other)


def test_every_setting_that_takes_indices_is_there_and_changes_something(generator: torch.Generator) -> None:
    """`discrete=index` is what it was: the number of a class."""
    table = _table(generator)
    takers = [n for n in METRICS if "discrete" in build_metric(n)[1].config.__dataclass_fields__]
    assert {"dci", "dci-es", "sap", "explicitness", "downstream", "fairness", "combinations", "mcc", "r2"} < set(takers)
    assert {"recall", "betavae", "higgins-change", "change-one-factor"} < set(takers)
    for name in set(takers) - {"betavae"}:  # which is at its ceiling either way
        how = ({"discrete": kind, **_less(name)} for kind in ("index", "onehot"))
        index, by_class = (build_metric(name, settings)[1].compute(table, 0) for settings in how)
        told = [{k: v for k, v in each.items() if isinstance(v, float)} for each in (index, by_class)]
        assert told[0] != pytest.approx(told[1], abs=1e-6, nan_ok=True), name
    assert PredictorConfig().discrete == "onehot"


def _less(name: str) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in LESS.items() if key.startswith(f"{name}.")}


def test_readers_find_classes_without_an_order(generator: torch.Generator) -> None:
    """A discrete code is the factor under other names: by indicators all of it is read, by their numbers not."""
    f = torch.randint(5, (900, 2), generator=generator)
    codes = torch.stack([torch.tensor([2, 0, 4, 1, 3])[f[:, 0]].double(), f[:, 1].double()], 1)
    table = CodeTable(codes, ["k", "z"], ["categorical", "continuous"], f, ("f", "g"), (5, 5), ("ordinal",) * 2)
    read = {
        "sap": ("score_matrix", lambda m: m[0, 0]),
        "explicitness": ("explicitness_per_factor", lambda v: v[0]),
        "mcc": ("correlation", lambda m: m[0, 0]),
        "r2": ("r2_per_factor", lambda v: v[0]),
        "downstream": ("accuracy", lambda m: m[-1, 0]),
    }
    for name, (key, of) in read.items():
        told = {
            kind: of(build_metric(name, {"discrete": kind, "sizes": (200,)})[1].compute(table, 0)[key])
            for kind in ("onehot", "index")
        }
        assert told["onehot"] > 0.97, name
        if name in ("sap", "mcc", "r2"):  # a regression of several outputs parts the numbers of a line anyway
            assert told["index"] < 0.9, name
    found = build_metric("dci", {"predictor": "lasso"})[1].compute(table, 0)
    assert found["importance"].shape == (2, 2)
    assert found["code_names"] == ["k", "z"]
    assert found["nrmse_per_factor"][0] < 0.1
    assert found["codes_used"] == 2
    assert np.isnan(found["weights"][0]).all()
    assert found["disentanglement"] > 0.95
    es = build_metric("dci-es", {})[1].compute(table, 0)
    assert es["size"] == 1
    assert es["importance"].shape == (2, 2)


# Each against a computation of its own


def _arrays(generator: torch.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class indices and a number [600, 2], factors of 4 and 3 values, and the codes by indicators, in any order."""
    table = _table(generator, classes=5)
    codes = table.codes[:, [1, 0]].numpy()
    onehot = (codes[:, :1] == np.unique(codes[:, 0])).astype(float)
    assert table.factors is not None
    return codes, table.factors.numpy(), np.concatenate([onehot, codes[:, 1:]], 1)


def test_sap_by_scikit_learn(generator: torch.Generator) -> None:
    codes, factors, wide = _arrays(generator)
    found = fn.sap(codes[:400], factors[:400], codes[400:], factors[400:], discrete=[0])
    for k in range(3):
        machine = LinearSVC(C=0.01, class_weight="balanced", dual=False, tol=1e-8).fit(
            wide[:400, :-1], factors[:400, k]
        )
        # Classes that are equally likely for two values are decided by rounding: a few rows of 200 each way.
        assert found["score_matrix"][0, k] == pytest.approx(machine.score(wide[400:, :-1], factors[400:, k]), abs=0.03)
    plain = fn.sap(codes[:400, 1:], factors[:400], codes[400:, 1:], factors[400:])
    np.testing.assert_array_equal(found["score_matrix"][1], plain["score_matrix"][0])


def test_squared_correlation_is_the_share_of_variance_between_classes(generator: torch.Generator) -> None:
    codes, factors, _ = _arrays(generator)
    found = fn.sap(codes, factors, continuous=True, discrete=[0])["score_matrix"]
    groups = [factors[codes[:, 0] == value, 1] for value in np.unique(codes[:, 0])]
    between = sum(len(g) * (g.mean() - factors[:, 1].mean()) ** 2 for g in groups)
    assert found[0, 1] == pytest.approx(between / len(factors) / factors[:, 1].var(), abs=1e-9)
    assert found[1, 1] == pytest.approx(np.corrcoef(codes[:, 1], factors[:, 1])[0, 1] ** 2, abs=1e-9)


def test_sap_regresses_on_no_class_index_of_a_factor(generator: torch.Generator) -> None:
    """A categorical factor by its indicators, whatever its values are called; said in a sentence."""
    table = _table(generator)
    assert table.factors is not None
    other = table.factors.clone()
    other[:, 0] = torch.randperm(6, generator=generator)[other[:, 0]]
    told = [
        evaluate(each, ["sap"], continuous=True)["metrics"]["sap"] for each in (table, replace(table, factors=other))
    ]
    np.testing.assert_allclose(told[0]["score_matrix"], told[1]["score_matrix"], atol=1e-9)
    assert "mean over the indicators of its values" in told[0]["reasons"]["factor 'f'"]
    codes, truth = table.codes.numpy()[:, [0]], table.factors.numpy()[:, 0]
    own = [np.corrcoef(codes[:400, 0], truth[:400] == value)[0, 1] ** 2 for value in range(6)]
    found = fn.sap(codes[:400], truth[:400, None], continuous=True, kinds={0: None})
    assert found["score_matrix"][0, 0] == pytest.approx(np.mean(own), abs=1e-9)


def test_mcc_takes_the_mean_of_each_class(generator: torch.Generator) -> None:
    codes, factors, _ = _arrays(generator)
    cut = slice(0, 400), slice(400, None)
    found = fn.mcc(codes[cut[0]], factors[cut[0]], codes[cut[1]], factors[cut[1]], [0])
    for k in range(3):
        means = {v: factors[:400][codes[:400, 0] == v, k].mean() for v in np.unique(codes[:400, 0])}
        score = np.array([means[v] for v in codes[400:, 0]])
        expected = abs(np.corrcoef(score, factors[400:, k])[0, 1])
        assert found["correlation"][0, k] == pytest.approx(expected, abs=1e-9)


def test_importances_of_indicators_are_summed(generator: torch.Generator) -> None:
    codes, factors, wide = _arrays(generator)
    parts = codes[:400], factors[:400], codes[400:], factors[400:]
    scaled = (wide[:400] - wide[:400].mean(0)) / wide[:400].std(0)
    lasso = fn.dci(*parts, "lasso", discrete=[0])
    trees = fn.dci(*parts, exact=True, discrete=[0])
    curvature = np.linalg.eigvalsh(scaled.T @ scaled / len(scaled))
    # Where scikit-learn stops, at a gap of `tol`, a weight is off by so much at most along the flattest direction.
    near = scaled.shape[1] * np.sqrt(2e-12 / curvature[curvature > 1e-9].min())
    assert near < 1e-4
    for k in range(3):
        target = (factors[:400, k] - factors[:400, k].mean()) / factors[:400, k].std()
        weight = np.abs(Lasso(0.02, tol=1e-12, max_iter=100_000).fit(scaled, target).coef_)
        assert lasso["importance"][:, k] == pytest.approx([weight[:-1].sum(), weight[-1]], abs=near)
        model = GradientBoostingClassifier(random_state=0).fit(wide[:400], factors[:400, k])
        share = model.feature_importances_
        # Equal splits are chosen by chance, and the indicators stand in another order.
        assert trees["importance"][:, k] == pytest.approx([share[:-1].sum(), share[-1]], abs=0.03)
    assert lasso["codes_used"] == 2


def test_shapley_values_of_codes_of_several_columns(rng: np.random.Generator) -> None:
    """All orders of three codes of which one has two columns, of a reader that is no sum."""
    x, y = torch.from_numpy(rng.normal(size=(40, 4))), torch.from_numpy(rng.normal(size=(40, 1, 1)))

    def read(part: Tensor) -> Tensor:
        return (part[:, 0] * part[:, 1] + part[:, 2] * part[:, 3])[:, None, None]

    found = sage(read, x, y, rows=40, others=40, owner=[0, 0, 1, 2])
    columns = [[0, 1], [2], [3]]

    def error(known: tuple[int, ...]) -> float:
        index = [m for code in known for m in columns[code]]
        total = 0.0
        for row in range(40):
            mixed = x.clone()
            mixed[:, index] = x[row, index]
            total += float((read(mixed).mean() - y[row, 0, 0]) ** 2)
        return total / 40

    values = np.zeros(3)
    for order in itertools.permutations(range(3)):
        for place, code in enumerate(order):
            values[code] += (error(order[:place]) - error(order[: place + 1])) / 6
    np.testing.assert_allclose(found[:, 0], values, atol=1e-9)


def test_indicators(generator: torch.Generator) -> None:
    """In order of the first row, so that no reader sees another table when classes change their names."""
    codes = torch.tensor([[1.5, 7.0], [2.5, 3.0], [3.5, 7.0], [4.5, 0.0]])
    (made, other), owner = indicators(codes, [1], torch.tensor([[9.0, 3.0], [8.0, 5.0]]))
    assert owner == [0, 1, 1, 1]
    assert made.tolist() == [[1.5, 1, 0, 0], [2.5, 0, 1, 0], [3.5, 1, 0, 0], [4.5, 0, 0, 1]]
    assert other.tolist() == [[9.0, 0, 1, 0], [8.0, 0, 0, 0]]
    assert summed(torch.arange(4.0)[:, None], owner).tolist() == [[0.0], [6.0]]
    same, plain = indicators(codes, [])
    assert same[0] is codes
    assert plain == [0, 1]
    with pytest.raises(ValueError, match="between whole numbers"):
        indicators(codes, [0])


def test_a_class_index_has_no_posterior_whatever_a_file_says(generator: torch.Generator) -> None:
    table = _table(generator)
    assert table.std is not None
    keep = [d for d, kind in enumerate(table.kinds) if kind == "continuous"]
    names, kinds = ([values[d] for d in keep] for values in (table.names, table.kinds))
    plain = replace(table, codes=table.codes[:, keep], std=table.std[:, keep], names=names, kinds=kinds)
    both = [evaluate(each, ["separability"], repeats=1)["metrics"]["separability"] for each in (table, plain)]
    assert both[0]["code_names"] == names
    assert both[0]["wsepin"] == both[1]["wsepin"]
    deviations = torch.full_like(table.codes, 0.1).numpy()
    held = {"codes": table.codes.numpy(), "code_kinds": table.kinds, "std": deviations}
    read = table_of(held)
    assert read.std is not None
    assert read.std.isnan().all(0).tolist() == [kind == "categorical" for kind in table.kinds]
    assert (deviations == 0.1).all(), "the user's own array is left alone"
    aggregate = {"mig.protocol": "aggregate"}
    one, other = (evaluate(each, ["mig"], **aggregate)["metrics"]["mig"]["mig"] for each in (table, plain))
    assert one == other


def test_scores_of_variances_leave_classes_out(generator: torch.Generator) -> None:
    table = _table(generator)
    for name in ("irs", "linear-correlation", "unsupervised", "best-dimension-auc"):
        told = evaluate(table, [name])["metrics"][name]
        assert told["code_names"] == ["a", "b"], name
        assert "not quantities" in told["reasons"]["k, l"]
    alone = replace(table, codes=table.codes[:, 1:2], names=["k"], kinds=["categorical"], std=None)
    with pytest.raises(UsageError, match="only discrete codes"):
        build_metric("irs")[1].compute(alone, 0)
