"""Scores of codes against factors, each an array function of `functional` behind the Metric contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from distk import CodeTable, Metric, UsageError, option
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import TRAIN, Config, PredictorConfig, codes, draw, draw_split, named


@dataclass(frozen=True)
class MigConfig(Config):
    """Settings of the mutual information gap."""

    protocol: Literal["dlib", "rmig", "aggregate"] = option(
        "dlib", "20 bins; 10 bins on factors too; or the aggregate posterior without bins (Chen et al. 2018)"
    )
    bins: int = option(20, "equal-width bins per code", min=2, max=10_000)
    binning: Literal["width", "quantile"] = option("width", "bins of equal width, or of equal count")


class Mig(Metric):
    """Mutual information gap (Chen et al. 2018)."""

    Config: ClassVar[type] = MigConfig
    headline = "mig"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: MigConfig = self.config
        if config.protocol == "aggregate":
            if table.std is None:
                raise UsageError("protocol 'aggregate' needs a Gaussian posterior, which this representation lacks.")
            live = ~table.std.isnan().any(0)
            mean, std = table.codes[:, live], table.std[:, live]
            result = functional.mig_aggregate(mean, 2 * std.clamp_min(1e-8).log(), table.needs_factors())
            names = [n for n, keep in zip(table.names, live.tolist(), strict=True) if keep]
            return {**result, "code_names": names, "factor_names": list(table.factor_names)}
        values, truth = draw(table, config, seed, TRAIN)
        ten = config.protocol == "rmig"
        result = functional.mig(values, truth, 10 if ten else config.bins, config.binning, 10 if ten else None)
        return named(result, table)


@dataclass(frozen=True)
class DciConfig(PredictorConfig):
    """Settings of DCI."""

    predictor: Literal["gbt", "lasso", "rf"] = option("gbt", "boosted trees; or, for continuous factors, lasso or rf")
    exact: bool = option(False, "scikit-learn's boosting instead of the fast histogram booster (minutes)")
    alpha: float = option(0.02, "strength of the lasso", min=0)


class Dci(Metric):
    """Disentanglement, completeness, informativeness (Eastwood & Williams 2018)."""

    Config: ClassVar[type] = DciConfig
    headline = "disentanglement"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: DciConfig = self.config
        parts = draw_split(table, config, seed)
        result = functional.dci(*parts, config.predictor, seed, exact=config.exact, alpha=config.alpha)
        return named(result, table)


@dataclass(frozen=True)
class SapConfig(Config):
    """Settings of SAP."""

    continuous: bool = option(False, "squared correlation instead of the accuracy of a one-code classifier")


class Sap(Metric):
    """Separated attribute predictability (Kumar et al. 2018)."""

    Config: ClassVar[type] = SapConfig
    headline = "sap"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        parts = draw_split(table, PredictorConfig(self.config.code), seed)
        return named(functional.sap(*parts, continuous=self.config.continuous), table)


class Explicitness(Metric):
    """Explicitness (Ridgeway & Mozer 2018)."""

    Config: ClassVar[type] = PredictorConfig
    headline = "explicitness_test"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        return named(functional.explicitness(*draw_split(table, self.config, seed)), table)


@dataclass(frozen=True)
class BinsConfig(Config):
    """Settings of scores from contingency tables."""

    bins: int = option(20, "equal-width bins per code", min=2, max=10_000)


class Modularity(Metric):
    """Modularity (Ridgeway & Mozer 2018)."""

    Config: ClassVar[type] = BinsConfig
    headline = "modularity"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, truth = draw(table, self.config, seed, TRAIN)
        return named(functional.modularity(values, truth, self.config.bins), table)


@dataclass(frozen=True)
class IrsConfig(BinsConfig):
    """Settings of IRS."""

    quantile: float = option(0.99, "quantile that stands for the maximum", paper="1.0", above=0, max=1)


class Irs(Metric):
    """Interventional robustness score (Suter et al. 2019)."""

    Config: ClassVar[type] = IrsConfig
    headline = "irs"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, truth = draw(table, self.config, seed, TRAIN)
        return named(functional.irs(values, truth, self.config.quantile, self.config.bins), table)


class InfoMec(Metric):
    """InfoMEC (Hsu et al. 2023): modularity, compactness, explicitness by information."""

    Config: ClassVar[type] = Config
    headline = "infom"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        return named(functional.info_mec(*draw(table, self.config, seed, TRAIN), seed=seed), table)


class Unsupervised(Metric):
    """Dependence among the codes, without labels (Locatello et al. 2019)."""

    Config: ClassVar[type] = BinsConfig
    headline = "gaussian_total_correlation"
    higher_is_better = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values = codes(table, self.config, seed)
        picked = _spread(len(values), TRAIN, seed).to(values.device)
        return functional.unsupervised(values[picked], self.config.bins)


@dataclass(frozen=True)
class LinearConfig(Config):
    """Settings of the linear-dependence scores."""

    dimensions: int | None = option(None, "true dimension for tdv; default: the number of factors", min=1)


class LinearCorrelation(Metric):
    """Linear dependence among the codes (papers/15): mapc, cvr, tdv, ud90."""

    Config: ClassVar[type] = LinearConfig
    headline = "mapc"
    higher_is_better = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values = codes(table, self.config, seed)
        true = self.config.dimensions or len(table.factor_names) or None
        return functional.linear_correlation(values, true if true is None else min(true, values.shape[1]))


@dataclass(frozen=True)
class ActiveConfig:
    """Settings of active units."""

    threshold: float = option(0.01, "variance of the posterior mean above which a code is active", min=0)


class ActiveUnits(Metric):
    """Number of active units (Burda et al. 2016)."""

    Config: ClassVar[type] = ActiveConfig
    headline = "active_units"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        return {**functional.active_units(table.codes, self.config.threshold), "code_names": list(table.names)}


@dataclass(frozen=True)
class DownstreamConfig(PredictorConfig):
    """Settings of the downstream task."""

    sizes: tuple[int, ...] = option((10, 100, 1000, 10_000), "numbers of labelled items", min=1)
    predictor: Literal["lr", "gbt", "svm", "svm_linear"] = option("lr", "logistic regression, boosted trees or an SVM")


class Downstream(Metric):
    """Accuracy of predicting every factor from N labelled codes (Locatello et al. 2019)."""

    Config: ClassVar[type] = DownstreamConfig
    headline = "mean_largest"

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """`mean_largest`: mean accuracy over factors with the largest number of labels that the data allow."""
        parts = draw_split(table, self.config, seed)
        sizes = [n for n in self.config.sizes if n <= len(parts[0])] or [len(parts[0])]
        result = dict(functional.downstream(*parts, sizes=sizes, model=self.config.predictor, seed=seed))
        result["mean_largest"] = float(result["mean"][-1])
        left = [n for n in self.config.sizes if n not in sizes]
        if left:
            result["reasons"] = {**result.get("reasons", {}), "sizes": f"too few items for {left}"}
        return named(result, table)


def _spread(total: int, rows: int, seed: int) -> torch.Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:rows]
