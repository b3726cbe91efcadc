"""Scores of how codes depend on factors, and on each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distk import CodeTable, option
from distk.console import counted
from distk.meaning import count, higher, lower, neither
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import (
    BINS,
    TRAIN,
    Config,
    FactorConfig,
    Scored,
    chosen,
    codes,
    draw,
    quantities,
    whole,
    without,
)


@dataclass(frozen=True)
class IrsConfig(Config):
    """Settings of IRS."""

    bins: int = option(BINS, "equal-width bins of factors with more values, or continuous ones", min=2, max=10_000)
    quantile: float = option(0.99, "quantile that stands for the maximum", paper="1.0", above=0, max=1)


class Irs(Scored[IrsConfig]):
    """Interventional robustness score (Suter et al. 2019)."""

    headline = "irs"
    measures = "one code, one factor (modularity)"
    numbers = {
        "irs": higher(0, 1, source="Suter et al. 2019, eq. 9-11", form="dlib"),
        "codes_used": count("codes", "codes that vary"),
    }
    matrices = {"irs_matrix": "heat"}
    bars = ("irs_per_code",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: IrsConfig = self.config
        values, truth = draw(table, FactorConfig(config.code), seed, continuous=True)
        values, names, left = quantities(values, table)
        how = f"quantile {config.quantile:g} of the deviations within {counted(config.bins, 'bin')}"
        result = functional.irs(values, truth, config.quantile, config.bins)
        return without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": how})


@dataclass(frozen=True)
class UnsupervisedConfig(Config):
    """Settings of the unsupervised scores."""

    bins: int = option(BINS, "equal-width bins per code", min=2, max=10_000)


class Unsupervised(Scored[UnsupervisedConfig]):
    """Dependence among the codes, without labels (Locatello et al. 2019)."""

    headline = "gaussian_total_correlation"
    measures = "dependence among codes, no labels"
    labelled = False
    numbers = {
        "gaussian_total_correlation": lower(0, unit="nats", source="Locatello et al. 2019, appendix", form="dlib"),
        "gaussian_wasserstein_correlation": lower(0, source="Locatello et al. 2019, appendix", form="dlib"),
        "gaussian_wasserstein_correlation_norm": lower(0, source="Locatello et al. 2019, appendix", form="dlib"),
        "mutual_info_score": lower(0, unit="nats", source="Locatello et al. 2019, appendix", form="dlib"),
        "codes_used": count("codes", "codes that vary"),
    }

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(codes(table, self.config, seed), table)
        values = values if whole(table, TRAIN) else values[chosen(table, TRAIN, seed)]
        result = functional.unsupervised(values, self.config.bins)
        how = f"covariance; plug-in information of {counted(self.config.bins, 'bin')}, nats"
        return without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": how})


@dataclass(frozen=True)
class LinearConfig(Config):
    """Settings of the linear-dependence scores."""

    dimensions: int | None = option(None, "true dimension for tdv; default: the number of factors", min=1)


class LinearCorrelation(Scored[LinearConfig]):
    """Linear dependence among the codes (Kageback & Mogren 2016): mapc, cvr, tdv, ud90."""

    headline = "mapc"
    measures = "dependence among codes, no labels"
    labelled = False
    numbers = {
        "mapc": lower(0, 1, source="Kageback & Mogren 2016", form="authors", what="mean absolute correlation of pairs"),
        "cvr": lower(1, source="Kageback & Mogren 2016", form="authors", what="sum of |covariance| over its trace"),
        "cvr_over_p2": lower(0, source="Kageback & Mogren 2016", form="as printed", what="cvr over codes squared"),
        "tdv": higher(0, 1, source="Kageback & Mogren 2016", form="authors", what="variance in the d largest codes"),
        "ud90": lower(
            1, unit="codes", source="Kageback & Mogren 2016", form="authors", whole=True, what="that hold 90 %"
        ),
        "l_sigma": lower(0, source="Kageback & Mogren 2016", form="authors", what="mean |covariance|"),
        "codes_used": count("codes", "codes that vary"),
    }

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(codes(table, self.config, seed), table)
        true = self.config.dimensions or len(table.factor_names) or None
        result = functional.linear_correlation(values, true if true is None else min(true, values.shape[1]))
        return without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": "covariance"})


@dataclass(frozen=True)
class ActiveConfig:
    """Settings of active units."""

    threshold: float = option(functional.ACTIVE, "variance of the posterior mean above which a code is active", min=0)


class ActiveUnits(Scored[ActiveConfig]):
    """Number of active units (Burda et al. 2016)."""

    headline = "active_units"
    measures = "dependence among codes, no labels"
    labelled = False
    numbers = {
        "active_units": neither(0, unit="codes", source="Burda et al. 2016, section 5", form="authors", whole=True),
    }
    bars = ("variance",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(table.codes, table)
        result = functional.active_units(values, self.config.threshold)
        how = f"variance of posterior means above {self.config.threshold:g}"
        return without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": how})
