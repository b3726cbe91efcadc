"""What a number is worth: every score has its value at chance and an interval over rows, or says why it has not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from distk import CodeTable, Metric, NoConfig, UsageError
from distk.chance import intervals, measured
from distk.evaluation import build_metric, score
from distk.meaning import count, higher
from distk.registry import registry
from distk.testing import probe_table, synthetic_table

METRICS = [entry.name for entry in registry().entries("metric") if entry.distribution == "distk"]
LESS: dict[str, dict[str, Any]] = {
    "reasoning": {"steps": 10, "hidden": 8},
    "downstream": {"sizes": (10,)},
    "fairness": {"predictor": "lr"},
    "dci": {"predictor": "lasso"},
    "change-one-factor": {"epochs": 20},
    "dci-es": {"probe": "rff"},
    "separability": {"samples": 50, "mixture": 100},
}
"""What need not be learnt well."""
SOME = {"fg-ari", "clsacc", "ari", "recall", "separability", "reasoning", "dci", "dci-es", "change-one-factor"}
"""Scores of the table that must come to a figure here, beside those of codes and factors."""


def test_chance_and_interval_or_the_reason() -> None:
    """On the table that every plugin's metrics are checked on; what asks for another model says so. One test, not one a
    score: how many came to a figure is no matter of which process took which of them."""
    scored = {name for name in METRICS if _came_to_a_figure(name)}
    table = {n for n in METRICS if registry().find("metric", n).plugin == "metrics"}
    assert scored >= SOME
    assert len(scored & table) >= 30, sorted(table - scored)


def _came_to_a_figure(name: str) -> bool:
    cls = registry().find("metric", name).load()
    table = probe_table() if cls.needs_model or cls.needs else synthetic_table()
    result = score(table, name, LESS.get(name, {}), 0, 1, (1, 2))
    if "error" in result:
        assert "Error" not in result["error"], (name, result["error"])
        return False
    key, reasons = cls.headline, result.get("reasons", {})
    chance, interval = (result.get(of, {}) for of in ("baseline", "interval"))
    if key not in chance.get("mean", {}):
        assert reasons["baseline"].startswith("no baseline: "), (name, reasons)
        assert not cls.labelled or "undefined" in reasons["baseline"], (name, reasons)
    if key in interval.get("of", {}):
        low, high = interval["of"][key]
        assert low - 1e-9 <= result[key] <= high + 1e-9, name
    else:
        assert reasons["interval"].startswith("no interval: "), (name, reasons)
    return True


class _Counted(Metric[NoConfig]):
    """The number of rows."""

    headline = "rows"
    numbers = {"rows": count("rows"), "share": higher(0, 1)}
    labelled = True

    def compute(self, table: CodeTable, seed: int) -> dict[str, float]:
        return {"rows": float(len(table)), "share": float(table.codes[:, 0].double().mean())}


class _Undefined(_Counted):
    """Undefined wherever codes belong to other rows."""

    headline = "share"

    def compute(self, table: CodeTable, seed: int) -> dict[str, float]:
        whole = synthetic_table().codes
        same = len(table) == len(whole) and bool(torch.equal(table.codes, whole))
        return {"share": 0.5 if same else math.nan, "sum": float(table.codes.sum())}


def test_a_count_has_no_interval_and_an_undefined_chance_says_so() -> None:
    table = synthetic_table()
    counted, undefined = _Counted(NoConfig()), _Undefined(NoConfig())
    added, why = measured(counted, counted.compute, table, counted.compute(table, 0), (1, 3), 0)
    assert "counts rows" in why["interval"]
    assert "share" in added["interval"]["of"]
    assert "baseline" not in why
    _, why = measured(undefined, undefined.compute, table, undefined.compute(table, 0), (1, 3), 0)
    assert why["baseline"] == "no baseline: 'share' is undefined for shuffled rows"
    assert why["interval"] == "no interval: 'share' is undefined for a half of the rows"


@pytest.mark.parametrize(("step", "refused"), [(1e-9, True), (1e-3, False)])
def test_rounding_is_no_interval(step: float, refused: bool) -> None:
    """A network on several threads gives the same number but for its last digits, whatever the rows."""
    table, runs = synthetic_table(), iter(range(100))
    metric = build_metric("linear-correlation")[1]

    def compute(table: CodeTable, seed: int) -> dict[str, Any]:
        return {"mapc": 0.5 + step * next(runs)}

    if refused:
        with pytest.raises(UsageError, match="chooses the items"):
            intervals(metric, compute, table, {"mapc": 0.5}, 3, 0)
    else:
        low, high = intervals(metric, compute, table, {"mapc": 0.5}, 3, 0)["mapc"]
        assert low < 0.5 < high


def test_few_rows_have_no_interval() -> None:
    table = synthetic_table()
    few = CodeTable(table.codes[:10], table.names, table.kinds)
    metric = build_metric("linear-correlation")[1]
    with pytest.raises(UsageError, match="10 rows of codes, and it takes 20"):
        intervals(metric, metric.compute, few, {"mapc": 0.1}, 2, 0)
