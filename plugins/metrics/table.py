"""From a table of codes to the arrays that the scores take: which columns, which rows; and back to names."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, option
from distk.config import C
from distk.console import counted
from distk.metric import Picture
from distk.plugins.metrics.functional import checks
from distk.plugins.metrics.functional.sentences import Names, Unfit, in_words
from distk.plugins.metrics.pictures import of_result

TRAIN, TEST = 10_000, 5_000
"""Rows that disentanglement_lib draws for predictors; other scores take the first number."""
BINS = 20
"""Equal-width bins per code of the published scores."""


@dataclass(frozen=True)
class Config:
    """What stands for the representation of an item."""

    code: Literal["mean", "sample"] = option("mean", "posterior means, or draws from the posterior")


@dataclass(frozen=True)
class FactorConfig(Config):
    """As `Config`, for scores that need discrete factors."""

    bins: int | None = option(None, "cut continuous factors into so many equal-width bins", min=2, max=10_000)


@dataclass(frozen=True)
class PredictorConfig(FactorConfig):
    """As `FactorConfig`, and how a discrete code enters a predictor."""

    discrete: Literal["onehot", "index"] = option(
        "onehot", "a discrete code as indicators of its classes, or as a number, the index of its class"
    )


class Scored(Metric[C]):
    """A score that an array function of `functional` computes; its messages speak of names instead of numbers.

    matrices: keys of `[codes, factors]` arrays to draw -> "hinton" or "heat". bars: keys of vectors to draw.
    together: whether a row takes part only with a value of every factor, or of the label; else arithmetic leaves
    it out for the factor that it lacks.
    """

    labelled = True
    together: ClassVar[Literal["none", "factors", "label"]] = "none"
    matrices: ClassVar[Mapping[str, str]] = {}
    bars: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """As `compute`; a ValueError of an array function becomes a UsageError there."""

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """As `score`, without the factors that cannot be scored: they stand under `reasons`.

        Raises UsageError where none is left.
        """
        source = table.source or "this data"
        table, left = known_rows(table, self.together)
        for k in reversed(row_numbers(table)):
            items = counted(len(table.dataset or ()), "item")
            told = f"{counted(table.factor_sizes[k], 'value')} in the {items} of {source}"
            left[f"factor '{table.factor_names[k]}'"] = f"left out: {told}, as a row's number has"
            table = _without_factor(table, k)
        while True:
            try:
                result = dict(self.score(table, seed))
                break
            except Unfit as error:
                told = error.sentence.named(Names(table.names, table.factor_names, source))
                at = error.factor
                if at is None or len(table.factor_names) < 2:
                    raise UsageError(f"{told}.") from error
                left[f"factor '{table.factor_names[at]}'"] = f"left out: {told}"
                table = _without_factor(table, at)
            except ValueError as error:
                raise UsageError(f"{error}.") from error
        result = {"code_names": list(table.names), "factor_names": list(table.factor_names), **result}
        if "reasons" in result:
            names = Names(result["code_names"], result["factor_names"], source)
            result["reasons"] = {in_words(k, names): in_words(v, names) for k, v in result["reasons"].items()}
        return without(left, result)

    @classmethod
    def pictures(cls, result: Mapping[str, Any]) -> Mapping[str, Picture]:
        """The declared matrices and bars, as far as the result holds them."""
        return of_result(result, cls.matrices, cls.bars)


def row_numbers(table: CodeTable) -> list[int]:
    """Factors of a model's own data that number the items, as an `id` does: more than half of all items have a value of
    their own. None where no other factor would remain. Those of files are left out where they are read."""
    if table.dataset is None or table.grid or getattr(table.dataset, "is_grid", False):
        return []
    most = max(len(table.dataset) // 2, 2)
    kinds = zip(table.factor_kinds, table.factor_sizes, strict=True)
    found = [k for k, (kind, size) in enumerate(kinds) if kind != "continuous" and size > most]
    return found if len(found) < len(table.factor_sizes) else []


def known_rows(table: CodeTable, together: str) -> tuple[CodeTable, dict[str, str]]:
    """The rows that have a value of every factor ("factors") or of the first categorical one ("label"), and what is to
    be said of the others. Raises UsageError where none is left."""
    truth = table.factors
    if truth is None or together == "none" or not truth.is_floating_point():
        return table, {}
    categorical = [k for k, kind in enumerate(table.factor_kinds) if kind == "categorical"]
    columns = categorical[:1] if together == "label" else list(range(truth.shape[1]))
    keep = ~truth[:, columns].isnan().any(1)
    test = None if table.factors_test is None else ~table.factors_test[:, columns].isnan().any(1)
    if bool(keep.all()) and (test is None or bool(test.all())):
        return table, {}
    whose = "every factor" if together == "factors" else f"'{table.factor_names[columns[0]]}'"
    if not bool(keep.any()) or (test is not None and not bool(test.any())):
        raise UsageError(f"no row of {table.source or 'this data'} has a value of {whose}.")
    told = f"{int((~keep).sum()):,} of {counted(len(keep), 'row')} left out, without a value of {whose}"

    def some(values: Tensor | None, mask: Tensor) -> Tensor | None:
        return None if values is None else values[mask.to(values.device)]

    made = replace(
        table,
        codes=table.codes[keep.to(table.codes.device)],
        factors=truth[keep],
        std=some(table.std, keep),
        rows=some(table.rows, keep),
        grid=False,
    )
    if test is not None:
        made = replace(made, codes_test=some(table.codes_test, test), factors_test=some(table.factors_test, test))
    return made, {"rows": told}


def _without_factor(table: CodeTable, k: int) -> CodeTable:
    """The same table without one factor; its rows are then no full grid."""
    keep = [i for i in range(len(table.factor_names)) if i != k]
    test = table.factors_test
    return replace(
        table,
        factors=table.needs_factors()[:, keep],
        factor_names=tuple(table.factor_names[i] for i in keep),
        factor_sizes=tuple(table.factor_sizes[i] for i in keep),
        factor_kinds=tuple(table.factor_kinds[i] for i in keep),
        factors_test=None if test is None else test[:, keep],
        grid=False,
        extra={**table.extra, "left": (*table.extra.get("left", ()), table.factor_names[k])},
    )


def continuous_factors(table: CodeTable) -> list[int]:
    """Columns of the factors that are continuous by their kind, or by values between whole numbers."""
    truth = table.needs_factors()
    return [k for k, kind in enumerate(table.factor_kinds) if kind == "continuous" or checks.fractional(truth[:, k])]


def no_quantities(table: CodeTable) -> dict[int, float | None]:
    """Factors that no regression may take as numbers: None for classes, its period for a circular one, which is its
    number of values, or a whole turn of real numbers."""
    real, kinds = continuous_factors(table), enumerate(table.factor_kinds)
    turns = {k: 2 * math.pi if k in real else float(table.factor_sizes[k]) for k, kind in kinds if kind == "circular"}
    return {**turns, **{k: None for k, kind in enumerate(table.factor_kinds) if kind == "categorical"}}


def codes(table: CodeTable, config: Any, seed: int) -> Tensor:
    """Columns of the representation, `[N, D]`; with `code="sample"` one draw per row, the same for the same seed.

    Raises UsageError when samples are asked for and the codes have no posterior.
    """
    if config.code == "mean":
        return table.codes
    std = deviations(table, config)
    assert std is not None
    noise = torch.randn(table.codes.shape, generator=torch.Generator().manual_seed(seed), dtype=table.codes.dtype)
    return table.codes + noise.to(std.device) * std


def deviations(table: CodeTable, config: Any) -> Tensor | None:
    """None for `code="mean"`, else the posterior's standard deviations `[N, D]`, 0 for columns without a posterior."""
    if config.code == "mean":
        return None
    if table.std is None:
        raise UsageError("sampled codes were asked for, but this representation has no posterior.")
    return table.std.nan_to_num(0.0)


def factors(table: CodeTable, bins: int | None = None) -> Tensor:
    """Factors `[N, K]` on the codes' device; continuous ones cut into `bins` equal-width bins where that is given."""
    return _cut(table.needs_factors(), table.needs_factors(), bins, continuous_factors(table)).to(table.codes.device)


def _cut(truth: Tensor, all_truth: Tensor, bins: int | None, known: Sequence[int]) -> Tensor:
    """Columns of `truth` that are continuous, as `known` or by their values in `all_truth`, as indices of equal-width
    bins between the extremes of `all_truth`."""
    fractional = [k for k in range(truth.shape[1]) if k in known or checks.fractional(all_truth[:, k])]
    if bins is None or not fractional:
        return truth
    truth = truth.double().clone()
    truth[:, fractional] = checks.cut(truth[:, fractional], *checks.extremes(all_truth[:, fractional].double()), bins)
    return truth


def classes(table: CodeTable, config: Any = None) -> list[int]:
    """The columns of codes that are class indices, which array functions call `discrete`; none where the user wants
    them as numbers (`discrete="index"`)."""
    if getattr(config, "discrete", "") == "index":
        return []
    return [d for d, kind in enumerate(table.kinds) if kind == "categorical"]


def quantities(values: Tensor, table: CodeTable) -> tuple[Tensor, list[str], dict[str, str]]:
    """The columns that are quantities, their names, and why others are left out: class indices have no variance."""
    keep = [d for d, kind in enumerate(table.kinds) if kind != "categorical"]
    left = [name for name, kind in zip(table.names, table.kinds, strict=True) if kind == "categorical"]
    if not keep:
        raise UsageError("this representation has only discrete codes, whose indices are not quantities.")
    reasons = {", ".join(left): "discrete code left out: its indices are not quantities"} if left else {}
    return values[:, keep] if left else values, [table.names[d] for d in keep], reasons


def draw(
    table: CodeTable, config: FactorConfig, seed: int, rows: int = TRAIN, continuous: bool = False
) -> tuple[Tensor, Tensor]:
    """(codes, factors) of the rows to score: drawn from a full grid, a shuffle of other data, every row of a file.

    Continuous factors are cut into equal-width bins, 20 where it is not said how many, since information needs classes;
    with `continuous` they stay as they are.
    """
    values, truth = codes(table, config, seed), factors(table, None if continuous else config.bins or BINS)
    if whole(table, rows):
        return values, truth
    picked = chosen(table, rows, seed)
    return values[picked], truth[picked]


def draw_split(
    table: CodeTable, config: FactorConfig, seed: int, continuous: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(codes, factors, codes_test, factors_test) for predictors.

    A file's own test rows serve where it has them. Else two thirds of at most 15 000 rows are for training, those of a
    file in the order of the file. continuous: leave continuous factors as they are.
    """
    values, bins = codes(table, config, seed), None if continuous else config.bins
    if table.codes_test is not None and table.factors_test is not None:
        if config.code == "sample":
            raise UsageError("sampled codes were asked for, but the test rows of this file have no posterior.")
        every = torch.cat([table.needs_factors().double(), table.factors_test.double()])
        parts = [
            *(values, _cut(table.needs_factors(), every, bins, continuous_factors(table))),
            *(table.codes_test, _cut(table.factors_test, every, bins, continuous_factors(table))),
        ]
    else:
        truth = factors(table, bins)
        picked = chosen(table, TRAIN + TEST, seed, predict=True)
        cut = min(TRAIN, len(picked) * 2 // 3)
        parts = [values[picked[:cut]], truth[picked[:cut]], values[picked[cut:]], truth[picked[cut:]]]
    return parts[0], parts[1], parts[2], parts[3]


def whole(table: CodeTable, rows: int, predict: bool = False) -> bool:
    """Whether a file is taken as it is, so that the array function gives the same figure; predictors have their limit,
    and of a full grid rows are drawn."""
    if table.grid and len(table) >= rows:
        return False
    return table.model is None and (len(table) <= rows or not predict)


def chosen(table: CodeTable, rows: int, seed: int, predict: bool = False) -> Tensor:
    """Rows to score, int64 on the codes' device, from a generator on the CPU: one seed, the same rows everywhere."""
    device = table.codes.device
    generator = torch.Generator().manual_seed(seed)
    if table.grid and len(table) >= rows:
        # With replacement from the grid, as published; a small grid would put one item on both sides of a split.
        return table.sample_rows(rows, generator)
    if whole(table, rows, predict):
        return torch.arange(len(table), device=device)
    return torch.randperm(len(table), generator=generator)[:rows].to(device)


def without(left: dict[str, str], result: dict[str, Any]) -> dict[str, Any]:
    """A result with the reasons why some codes are not in it."""
    return {**result, "reasons": {**left, **result.get("reasons", {})}} if left else result
