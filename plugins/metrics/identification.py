"""Scores of nonlinear ICA and causal representation learning: mcc, r2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from distk import CodeTable, UsageError, option
from distk.meaning import higher
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import Config, PredictorConfig, Scored, classes, draw_split

NO_NUMBERS = {"categorical": "its values have no order", "circular": "its last value is next to its first"}


@dataclass(frozen=True)
class NumbersConfig(Config):
    """What stands for an item, and which factors are quantities."""

    factors: Literal["ordered", "all"] = option(
        "ordered", "leave out categorical and circular factors, or take the index of their value as a number"
    )
    discrete: Literal["onehot", "index"] = option(
        "onehot", "a discrete code by its classes, or as a number, the index of its class"
    )


def quantities(table: CodeTable, config: NumbersConfig) -> tuple[CodeTable, dict[str, str]]:
    """The table with those factors alone that are numbers, and why others are left out.

    Raises UsageError where none is left.
    """
    truth = table.needs_factors()
    kinds = dict(zip(table.factor_names, table.factor_kinds, strict=True))
    keep = [k for k, n in enumerate(table.factor_names) if config.factors == "all" or kinds[n] not in NO_NUMBERS]
    if not keep:
        raise UsageError("no factor is an ordered quantity: --set factors=all takes the indices of their values.")
    left = {
        f"factor '{name}'": f"left out: {NO_NUMBERS[kind]}; --set factors=all takes its index"
        for k, (name, kind) in enumerate(kinds.items())
        if k not in keep
    }
    chosen = replace(
        table,
        factors=truth[:, keep],
        factor_names=tuple(table.factor_names[k] for k in keep),
        factor_sizes=tuple(table.factor_sizes[k] for k in keep),
        factor_kinds=tuple(table.factor_kinds[k] for k in keep),
        factors_test=None if table.factors_test is None else table.factors_test[:, keep],
        grid=table.grid and len(keep) == len(kinds),
    )
    return chosen, left


class Mcc(Scored[NumbersConfig]):
    """Mean correlation coefficient of the factors and the codes matched to them (Hyvarinen & Morioka 2016).

    Matched on the training rows, measured on the test rows: `pearson`, `spearman` (any monotone scale), `weak` (of
    canonical variates: up to a linear map, Khemakhem et al. 2020).
    """

    headline = "pearson"
    measures = "one factor, one code (compactness)"
    numbers = {
        "pearson": higher(0, 1, chance=0.0, source="Hyvarinen & Morioka 2016", form="matched on train, scored on test"),
        "spearman": higher(0, 1, chance=0.0, source="Hyvarinen & Morioka 2016", what="of ranks"),
        "weak": higher(-1, 1, chance=0.0, source="Khemakhem et al. 2020, appendix", what="of canonical variates"),
        "*_train": higher(0, 1, what="on the rows that chose the matching, as the papers print it"),
    }
    predicts = True
    matrices = {"correlation": "heat"}

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        numbers, left = quantities(table, self.config)
        parts = draw_split(numbers, PredictorConfig(self.config.code), seed, continuous=True)
        result = dict(functional.mcc(*parts, classes(table, self.config)))
        used = [len(parts[0]), len(parts[2])]
        result |= {"factor_names": list(numbers.factor_names), "rows_used": used}
        result["reasons"] = {**left, **result.pop("reasons", {})}
        return {**result, "estimator": "|correlation|, matched one to one on the training rows"}


@dataclass(frozen=True)
class R2Config(NumbersConfig):
    """Settings of r2."""

    predictor: Literal["linear", "mlp"] = option("linear", "least squares, or a network of two hidden layers")
    hidden: int = option(128, "width of the network's layers", min=1, max=4096)
    passes: int = option(100, "most passes of the network over its rows", min=1, max=10_000)


class R2(Scored[R2Config]):
    """R^2 of regressing factors on codes: identifiability up to a linear map, or with `mlp` up to a smooth one."""

    headline = "r2"
    measures = "what can be read from the code (explicitness)"
    numbers = {
        "r2": higher(None, 1, chance=0.0, source="von Kugelgen et al. 2021, section 5", what="mean over factors, test"),
        "r2_train": higher(None, 1, what="on the rows that were fitted"),
    }
    predicts = True
    bars = ("r2_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config = self.config
        numbers, left = quantities(table, config)
        parts = draw_split(numbers, PredictorConfig(config.code), seed, continuous=True)
        settings: dict[str, Any] = {
            "hidden": config.hidden,
            "passes": config.passes,
            "discrete": classes(table, config),
        }
        result = dict(functional.r2(*parts, config.predictor, seed, **settings))
        used = [len(parts[0]), len(parts[2])]
        result |= {"factor_names": list(numbers.factor_names), "rows_used": used}
        result["reasons"] = {**left, **result.pop("reasons", {})}
        how = "least squares" if config.predictor == "linear" else f"network, 2 hidden layers of {config.hidden}"
        return {**result, "estimator": how}
