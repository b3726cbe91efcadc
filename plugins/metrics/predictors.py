"""Scores of predictors that read factors from codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distk import CodeTable, option
from distk.meaning import higher
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import (
    PredictorConfig,
    Scored,
    classes,
    continuous_factors,
    draw_split,
    no_quantities,
    without,
)


@dataclass(frozen=True)
class SapConfig(PredictorConfig):
    """Settings of SAP."""

    continuous: bool = option(False, "squared correlation instead of the accuracy of a one-code classifier")


class Sap(Scored[SapConfig]):
    """Separated attribute predictability (Kumar et al. 2018); continuous factors by squared correlation."""

    headline = "sap"
    measures = "one factor, one code (compactness)"
    numbers = {"sap": higher(0, 1, chance=0.0, source="Kumar et al. 2018, section 3", form="dlib")}
    predicts = True
    matrices = {"score_matrix": "heat"}
    bars = ("sap_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        given, continuous = self.config, self.config.continuous
        regress = () if given.bins else continuous_factors(table)
        parts = draw_split(table, given, seed, continuous)
        how = "squared correlation" if continuous else "one-code linear SVM, squared hinge, C = 0.01"
        kinds = no_quantities(table) if continuous else {}
        told = {
            f"factor '{table.factor_names[k]}'": "no quantity: its score is the mean over "
            + ("the indicators of its values" if kind is None else "its cosine and sine")
            for k, kind in kinds.items()
        }
        used = [len(parts[0])] if continuous else [len(parts[0]), len(parts[2])]
        settings: dict[str, Any] = {"continuous": continuous, "regress": regress, "kinds": kinds}
        result = functional.sap(*parts, **settings, discrete=classes(table, given))
        return without(told, {**result, "rows_used": used, "estimator": how})


class Explicitness(Scored[PredictorConfig]):
    """Explicitness (Ridgeway & Mozer 2018)."""

    headline = "explicitness_test"
    measures = "what can be read from the code (explicitness)"
    numbers = {
        "explicitness_*": higher(0, 1, chance=0.5, source="Ridgeway & Mozer 2018, section 3", form="dlib", what="AUC"),
    }
    predicts = True
    bars = ("explicitness_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        parts = draw_split(table, self.config, seed)
        used = [len(parts[0]), len(parts[2])]
        how = "multinomial logistic regression, C = 1; AUC one against the rest"
        result = functional.explicitness(*parts, discrete=classes(table, self.config))
        return {**result, "rows_used": used, "estimator": how}


@dataclass(frozen=True)
class DownstreamConfig(PredictorConfig):
    """Settings of the downstream task."""

    sizes: tuple[int, ...] = option((10, 100, 1000, 10_000), "numbers of labelled items", min=1)
    predictor: Literal["lr", "gbt", "svm", "svm_linear"] = option("lr", "logistic regression, boosted trees or an SVM")
    exact: bool = option(False, "scikit-learn's boosting instead of our own, which tries the same splits (minutes)")


class Downstream(Scored[DownstreamConfig]):
    """Accuracy of predicting every factor from N labelled codes (Locatello et al. 2019)."""

    headline = "mean_largest"
    measures = "what can be read from the code (explicitness)"
    numbers = {
        "mean_*": higher(
            0,
            1,
            chance="share of the commonest value",
            source="Locatello et al. 2019",
            form="dlib",
            what="over factors",
        ),
        "min_*": higher(0, 1, source="Locatello et al. 2019", form="dlib", what="accuracy of the worst factor"),
        "efficiency": higher(0, source="Locatello et al. 2019", form="dlib", what="mean_100 / mean_10000"),
    }
    predicts = True

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """`mean_largest`: mean accuracy over factors with the largest number of labels that the data allow."""
        config: DownstreamConfig = self.config
        parts = draw_split(table, config, seed)
        sizes = [n for n in config.sizes if n <= len(parts[0])] or [len(parts[0])]
        settings: dict[str, Any] = {"model": config.predictor, "exact": config.exact, "sizes": sizes, "seed": seed}
        result = dict(functional.downstream(*parts, **settings, discrete=classes(table, config)))
        result["mean_largest"] = float(result["mean"][-1])
        left = [n for n in config.sizes if n not in sizes]
        if left:
            result["reasons"] = {**result.get("reasons", {}), "sizes": f"too few items for {left}"}
        used = [len(parts[0]), len(parts[2])]
        return {**result, "sizes": sizes, "rows_used": used, "estimator": config.predictor}
