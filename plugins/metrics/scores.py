"""Scores of codes against factors, each an array function of `functional` behind the Metric contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distk import CodeTable, UsageError, option
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import (
    BINS,
    TRAIN,
    Config,
    FactorConfig,
    PredictorConfig,
    Scored,
    chosen,
    codes,
    draw,
    draw_split,
    factors,
    quantities,
)


@dataclass(frozen=True)
class BinsConfig(FactorConfig):
    """Settings of scores from contingency tables."""

    bins: int | None = option(
        None, "equal-width bins per code, 20 by default; continuous factors are cut into as many", min=2, max=10_000
    )


@dataclass(frozen=True)
class MigConfig(BinsConfig):
    """Settings of the mutual information gap."""

    protocol: Literal["dlib", "rmig", "aggregate"] = option(
        "dlib", "20 bins; 10 bins on factors too; or the aggregate posterior without bins (Chen et al. 2018)"
    )
    binning: Literal["width", "quantile"] = option("width", "bins of equal width, or of equal count")


class Mig(Scored[MigConfig]):
    """Mutual information gap (Chen et al. 2018)."""

    headline = "mig"
    matrices = {"mutual_information": "heat"}
    bars = ("mig_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: MigConfig = self.config
        if config.protocol == "aggregate":
            return self._aggregate(table)
        values, truth = draw(table, config, seed)
        ten = config.protocol == "rmig"
        bins = 10 if ten else config.bins or BINS
        result = functional.mig(values, truth, bins, config.binning, 10 if ten else None)
        estimator = f"plug-in information of {bins} bins of equal {config.binning}, nats"
        return {**result, "rows_used": [len(values)], "estimator": estimator}

    def _aggregate(self, table: CodeTable) -> dict[str, Any]:
        """Over all rows, and without categorical factors, as the paper does."""
        if table.std is None:
            raise UsageError("protocol 'aggregate' needs a Gaussian posterior, which this representation lacks.")
        live = ~table.std.isnan().any(0)
        shown = [k for k, kind in enumerate(table.factor_kinds) if kind != "categorical"]
        if not shown or not bool(live.any()):
            raise UsageError("protocol 'aggregate' needs a Gaussian code and a factor that is not categorical.")
        mean, std = table.codes[:, live], table.std[:, live]
        truth = factors(table, self.config.bins)[:, shown]
        result = dict(functional.mig_aggregate(mean, 2 * std.clamp_min(1e-8).log(), truth))
        result["code_names"] = [n for n, keep in zip(table.names, live.tolist(), strict=True) if keep]
        result["factor_names"] = [table.factor_names[k] for k in shown]
        left = [n for n in table.factor_names if n not in result["factor_names"]]
        if left:
            result["reasons"] = {", ".join(left): "categorical factor left out, as in the paper"}
        return {**result, "rows_used": [len(mean)], "estimator": "aggregate posterior by quadrature, nats"}


@dataclass(frozen=True)
class DciConfig(PredictorConfig):
    """Settings of DCI."""

    predictor: Literal["gbt", "lasso", "rf"] = option("gbt", "boosted trees; or, for continuous factors, lasso or rf")
    exact: bool = option(False, "scikit-learn's boosting instead of the fast histogram booster (minutes)")
    alpha: float = option(0.02, "strength of the lasso", min=0)


class Dci(Scored[DciConfig]):
    """Disentanglement, completeness, informativeness (Eastwood & Williams 2018)."""

    headline = "disentanglement"
    matrices = {"importance": "hinton"}
    bars = ("completeness_per_factor", "informativeness_per_factor", "disentanglement_per_code")

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: DciConfig = self.config
        parts, names = draw_split(table, config, seed, continuous=config.predictor != "gbt")
        jobs = -1 if config.exact and config.predictor == "gbt" and len(parts[0]) >= TRAIN // 2 else 1
        result = functional.dci(*parts, config.predictor, seed, exact=config.exact, alpha=config.alpha, n_jobs=jobs)
        booster = "scikit-learn's gradient boosting" if config.exact else "histogram gradient boosting"
        how = {"gbt": booster, "lasso": f"lasso, alpha {config.alpha:g}", "rf": "random forests"}[config.predictor]
        return {**result, "code_names": names, "rows_used": [len(parts[0]), len(parts[2])], "estimator": how}


@dataclass(frozen=True)
class SapConfig(FactorConfig):
    """Settings of SAP."""

    continuous: bool = option(False, "squared correlation instead of the accuracy of a one-code classifier")


class Sap(Scored[SapConfig]):
    """Separated attribute predictability (Kumar et al. 2018)."""

    headline = "sap"
    matrices = {"score_matrix": "heat"}
    bars = ("sap_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        given, continuous = self.config, self.config.continuous
        parts, _ = draw_split(table, PredictorConfig(given.code, given.bins), seed, continuous)
        how = "squared correlation" if continuous else "one-code linear SVM, squared hinge, C = 0.01"
        used = [len(parts[0])] if continuous else [len(parts[0]), len(parts[2])]
        return {**functional.sap(*parts, continuous=continuous), "rows_used": used, "estimator": how}


class Explicitness(Scored[PredictorConfig]):
    """Explicitness (Ridgeway & Mozer 2018)."""

    headline = "explicitness_test"
    bars = ("explicitness_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        parts, names = draw_split(table, self.config, seed)
        used = [len(parts[0]), len(parts[2])]
        how = "multinomial logistic regression, C = 1; AUC one against the rest"
        return {**functional.explicitness(*parts), "code_names": names, "rows_used": used, "estimator": how}


class Modularity(Scored[BinsConfig]):
    """Modularity (Ridgeway & Mozer 2018)."""

    headline = "modularity"
    matrices = {"mutual_information": "heat"}
    bars = ("modularity_per_code",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, truth = draw(table, self.config, seed)
        bins = self.config.bins or BINS
        how = f"plug-in information of {bins} bins of equal width, nats"
        return {**functional.modularity(values, truth, bins), "rows_used": [len(values)], "estimator": how}


@dataclass(frozen=True)
class IrsConfig(Config):
    """Settings of IRS."""

    bins: int = option(BINS, "equal-width bins of factors with more values, or continuous ones", min=2, max=10_000)
    quantile: float = option(0.99, "quantile that stands for the maximum", paper="1.0", above=0, max=1)


class Irs(Scored[IrsConfig]):
    """Interventional robustness score (Suter et al. 2019)."""

    headline = "irs"
    matrices = {"irs_matrix": "heat"}
    bars = ("irs_per_code",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: IrsConfig = self.config
        values, truth = draw(table, FactorConfig(config.code), seed)
        how = f"quantile {config.quantile:g} of the deviations within {config.bins} bins"
        result = functional.irs(values, truth, config.quantile, config.bins)
        return {**result, "rows_used": [len(values)], "estimator": how}


class InfoMec(Scored[FactorConfig]):
    """InfoMEC (Hsu et al. 2023): modularity, compactness, explicitness by information."""

    headline = "infom"
    matrices = {"nmi": "heat"}
    bars = ("infoe_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, truth = draw(table, self.config, seed)
        how = "10 nearest neighbours (Ross 2014), normalised by the factor's entropy"
        return {**functional.info_mec(values, truth, seed=seed), "rows_used": [len(values)], "estimator": how}


@dataclass(frozen=True)
class UnsupervisedConfig(Config):
    """Settings of the unsupervised scores."""

    bins: int = option(BINS, "equal-width bins per code", min=2, max=10_000)


class Unsupervised(Scored[UnsupervisedConfig]):
    """Dependence among the codes, without labels (Locatello et al. 2019)."""

    headline = "gaussian_total_correlation"
    higher_is_better = False

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(codes(table, self.config, seed), table)
        values = values[chosen(table, TRAIN, seed)]
        result = functional.unsupervised(values, self.config.bins)
        how = f"covariance; plug-in information of {self.config.bins} bins, nats"
        return _without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": how})


@dataclass(frozen=True)
class LinearConfig(Config):
    """Settings of the linear-dependence scores."""

    dimensions: int | None = option(None, "true dimension for tdv; default: the number of factors", min=1)


class LinearCorrelation(Scored[LinearConfig]):
    """Linear dependence among the codes (papers/15): mapc, cvr, tdv, ud90."""

    headline = "mapc"
    higher_is_better = False

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(codes(table, self.config, seed), table)
        true = self.config.dimensions or len(table.factor_names) or None
        result = functional.linear_correlation(values, true if true is None else min(true, values.shape[1]))
        return _without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": "covariance"})


@dataclass(frozen=True)
class ActiveConfig:
    """Settings of active units."""

    threshold: float = option(0.01, "variance of the posterior mean above which a code is active", min=0)


class ActiveUnits(Scored[ActiveConfig]):
    """Number of active units (Burda et al. 2016)."""

    headline = "active_units"
    bars = ("variance",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(table.codes, table)
        result = functional.active_units(values, self.config.threshold)
        how = f"variance of posterior means above {self.config.threshold:g}"
        return _without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": how})


@dataclass(frozen=True)
class DownstreamConfig(PredictorConfig):
    """Settings of the downstream task."""

    sizes: tuple[int, ...] = option((10, 100, 1000, 10_000), "numbers of labelled items", min=1)
    predictor: Literal["lr", "gbt", "svm", "svm_linear"] = option("lr", "logistic regression, boosted trees or an SVM")
    exact: bool = option(False, "scikit-learn's boosting instead of the fast histogram booster (minutes)")


class Downstream(Scored[DownstreamConfig]):
    """Accuracy of predicting every factor from N labelled codes (Locatello et al. 2019)."""

    headline = "mean_largest"

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """`mean_largest`: mean accuracy over factors with the largest number of labels that the data allow."""
        config: DownstreamConfig = self.config
        parts, names = draw_split(table, config, seed)
        sizes = [n for n in config.sizes if n <= len(parts[0])] or [len(parts[0])]
        result = dict(functional.downstream(*parts, sizes=sizes, model=config.predictor, exact=config.exact, seed=seed))
        result["mean_largest"] = float(result["mean"][-1])
        left = [n for n in config.sizes if n not in sizes]
        if left:
            result["reasons"] = {**result.get("reasons", {}), "sizes": f"too few items for {left}"}
        used = [len(parts[0]), len(parts[2])]
        return {**result, "code_names": names, "sizes": sizes, "rows_used": used, "estimator": config.predictor}


def _without(left: dict[str, str], result: dict[str, Any]) -> dict[str, Any]:
    """A result with the reasons why some codes are not in it."""
    return {**result, "reasons": {**left, **result.get("reasons", {})}} if left else result
