"""What a score is worth: its value at chance, and how far another sample of rows would move it.

Neither is the spread over evaluation seeds, which draw votes or splits from the same rows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from distk.console import counted
from distk.errors import DistkError, UsageError
from distk.metric import CodeTable, Metric

LEVEL = 0.95
FEWEST = 20
"""Rows below which no interval is made from their halves."""
Compute = Callable[[CodeTable, int], Mapping[str, Any]]


def shuffled(table: CodeTable, seed: int) -> CodeTable:
    """The table with codes that belong to other rows: every factor keeps its values, and a grid stays one."""
    generator = torch.Generator().manual_seed(seed)

    def moved(values: Tensor | None, order: Tensor) -> Tensor | None:
        return None if values is None else values[order.to(values.device)]

    order = torch.randperm(len(table), generator=generator)
    codes, std = table.codes[order.to(table.codes.device)], moved(table.std, order)
    test = table.codes_test
    if test is not None:
        test = moved(test, torch.randperm(len(test), generator=generator))
    return replace(table, codes=codes, std=std, codes_test=test)


def half(table: CodeTable, rows: int, seed: int) -> CodeTable:
    """Half of `rows` rows of the table, without replacement: they are no grid. In their order, except those of a grid,
    which lie sorted by its factors: predictors are fitted on the first rows and tested on the last."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> Tensor:
        chosen = torch.randperm(count, generator=generator)[: min(rows, count) // 2]
        return chosen if table.grid else chosen.sort().values

    def of(values: Tensor | None, index: Tensor) -> Tensor | None:
        return None if values is None else values[index.to(values.device)]

    index = some(len(table))
    made = replace(
        table,
        codes=table.codes[index.to(table.codes.device)],
        factors=of(table.factors, index),
        std=of(table.std, index),
        rows=of(table.rows, index),
        grid=False,
        extra={key: of(held, index) if _of_rows(held, table) else held for key, held in table.extra.items()},
    )
    if table.codes_test is not None:
        index = some(len(table.codes_test))
        made = replace(made, codes_test=of(table.codes_test, index), factors_test=of(table.factors_test, index))
    return made


def _of_rows(held: object, table: CodeTable) -> bool:
    """Whether it has a row for each of the table's, as the slots of pictures have."""
    return isinstance(held, Tensor) and held.ndim > 0 and len(held) == len(table)


def baseline(metric: Metric, compute: Compute, table: CodeTable, n: int, seed: int) -> dict[str, Any]:
    """The same score with shuffled rows, `n` times: {"n", "mean": {key: value}, "std": {key: value}}.

    Raises UsageError for a metric that compares codes with nothing.
    """
    if not metric.labelled:
        raise UsageError("no baseline: this score compares codes with no factors, so that shuffling them says nothing")
    runs = [compute(shuffled(table, seed + i), seed + i) for i in range(n)]
    values = _by_key(runs)
    return {
        "n": n,
        "mean": {key: statistics.fmean(found) for key, found in values.items()},
        "std": {key: statistics.stdev(found) if n > 1 else math.nan for key, found in values.items()},
    }


def intervals(
    metric: Metric, compute: Compute, table: CodeTable, result: Mapping[str, Any], n: int, seed: int
) -> dict[str, list[float]]:
    """Where another sample of as many rows would put each number, in 95 of 100 cases: {key: [low, high]}.

    From `n` halves of the rows that the score used, drawn without replacement: half of the rows, taken of all, vary
    about the whole as much as all of them about the truth (Politis, Romano & Wolf 1999). Rows drawn with replacement,
    as a bootstrap draws them, would be each other's nearest neighbours and stand on both sides of a split. The halves'
    own mean does not count, so that a bias which depends on the number of rows does no harm; the interval is Student's
    around the score, cut at the ends of its range.

    Raises UsageError where the score does not depend on the rows of the table, or has too few of them.
    """
    from scipy.stats import t as student

    used = sum(result.get("rows_used", ())) or len(table)
    if not len(table) or used < FEWEST:
        raise UsageError(
            f"no interval: {counted(used, 'row') if len(table) else 'no rows'} of codes, and it takes {FEWEST}"
        )
    runs = [compute(half(table, used, seed + i), seed) for i in range(n)]
    if all(_alike(run, runs[0]) for run in runs) and n > 1:
        told = "as where a score chooses the items that it looks at by itself"
        raise UsageError(f"no interval: every half of the rows gives the same, {told}")
    reach = float(student.ppf((1 + LEVEL) / 2, n - 1))
    found = {}
    for key, values in _by_key(runs).items():
        middle, number = result.get(key), metric.meaning(key)
        if number is None or number.whole or not isinstance(middle, float) or not math.isfinite(middle):
            continue
        wide = reach * statistics.stdev(values)
        low, high = middle - wide, middle + wide
        found[key] = [
            low if number.low is None else max(low, number.low),
            high if number.high is None else min(high, number.high),
        ]
    return found


def _because(what: str, error: Exception) -> str:
    told = str(error).rstrip(".")
    return told if told.startswith("no ") else f"no {what}: {told}"


def _without(metric: Metric, result: Mapping[str, Any]) -> str:
    """Why the headline has no interval, where other numbers may have one."""
    key, number = metric.headline, metric.meaning(metric.headline)
    if number is not None and number.whole:
        return f"no interval: '{key}' counts {number.unit or 'whole things'}, which half of the rows do not halve"
    if not math.isfinite(result.get(key, math.nan)):
        return f"no interval: '{key}' is undefined"
    return f"no interval: '{key}' is undefined for a half of the rows"


def _plain(run: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in run.items() if isinstance(value, float)}


def _alike(run: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs gave the same numbers but for the rounding of a network that works on several threads."""
    one, two = _plain(run), _plain(other)
    pairs = ((one[key], two[key]) for key in one.keys() & two.keys())
    same = all(math.isclose(a, b, rel_tol=1e-6) or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
    return one.keys() == two.keys() and same


def _by_key(runs: list[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The finite numbers of several runs by key; one that is not finite everywhere is left out."""
    plain = [_plain(run) for run in runs]
    keys = [key for key in plain[0] if all(math.isfinite(run.get(key, math.nan)) for run in plain)]
    return {key: [run[key] for run in plain] for key in keys}


def measured(
    metric: Metric,
    compute: Compute,
    table: CodeTable,
    result: Mapping[str, Any],
    counts: tuple[int, int],
    seed: int,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `baseline` and `intervals` add to a result for (shuffles, halves), and the reasons for what they cannot."""
    added: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if counts[0]:
        try:
            added["baseline"] = made = baseline(metric, compute, table, counts[0], seed)
            if metric.headline not in made["mean"]:
                reasons["baseline"] = f"no baseline: '{metric.headline}' is undefined for shuffled rows"
        except (DistkError, ValueError, ArithmeticError, RuntimeError) as error:
            reasons["baseline"] = _because("baseline", error)
    if counts[1]:
        try:
            found = intervals(metric, compute, table, result, counts[1], seed)
            added["interval"] = {"level": LEVEL, "halves": counts[1], "of": found}
            if metric.headline not in found:
                reasons["interval"] = _without(metric, result)
        except (DistkError, ValueError, ArithmeticError, RuntimeError) as error:
            reasons["interval"] = _because("interval", error)
    return added, reasons
