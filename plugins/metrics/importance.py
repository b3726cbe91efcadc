"""DCI and DCI-ES: importances of codes for factors, and how large their readers must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distk import CodeTable, option
from distk.meaning import count, higher, lower, neither
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import (
    TRAIN,
    PredictorConfig,
    Scored,
    classes,
    continuous_factors,
    draw_split,
    no_quantities,
)


@dataclass(frozen=True)
class DciConfig(PredictorConfig):
    """Settings of DCI."""

    predictor: Literal["gbt", "lasso", "rf", "mlp"] = option(
        "gbt", "boosted trees; or, for continuous factors, lasso, rf or mlp (networks, importances by Shapley values)"
    )
    exact: bool = option(False, "scikit-learn's boosting instead of our own, which tries the same splits (minutes)")
    alpha: float = option(0.02, "strength of the lasso", min=0)
    importances: Literal["impurity", "splits"] = option("impurity", "of forests: impurity, or the share of splits")
    hidden: int = option(64, "width of the two layers of the networks", min=1, max=4096)


class Dci(Scored[DciConfig]):
    """Disentanglement, completeness, informativeness (Eastwood & Williams 2018)."""

    headline = "disentanglement"
    measures = "one code, one factor (modularity)"
    numbers = {
        "disentanglement": higher(
            0, 1, source="Eastwood & Williams 2018, eq. 2", form="dlib; authors with lasso, rf, mlp"
        ),
        "completeness": higher(
            0, 1, source="Eastwood & Williams 2018, section 2", form="dlib; authors with lasso, rf, mlp"
        ),
        "informativeness_*": higher(
            None,
            1,
            chance="share of the commonest value",
            form="dlib",
            what="mean accuracy of boosted trees; R2 for factors that are real numbers",
        ),
        "nrmse_*": lower(
            0, chance=1.0, source="Eastwood & Williams 2018, section 2", form="authors", what="error over deviation"
        ),
        "codes_used": count("codes", "codes that vary"),
    }
    predicts = True
    matrices = {"importance": "hinton"}
    bars = ("completeness_per_factor", "informativeness_per_factor", "nrmse_per_factor", "disentanglement_per_code")

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: DciConfig = self.config
        parts = draw_split(table, config, seed, continuous=config.predictor != "gbt")
        jobs = -1 if config.exact and config.predictor == "gbt" and len(parts[0]) >= TRAIN // 2 else 1
        regress = continuous_factors(table) if config.predictor == "gbt" and not config.bins else ()
        settings: dict[str, Any] = {"exact": config.exact, "alpha": config.alpha, "importances": config.importances}
        settings |= {"hidden": config.hidden, "kinds": {} if config.predictor == "gbt" else no_quantities(table)}
        settings["discrete"] = classes(table, config)
        result = functional.dci(*parts, config.predictor, seed, n_jobs=jobs, regress=regress, **settings)
        booster = "scikit-learn's gradient boosting" if config.exact else "gradient boosting, every split tried"
        how = {
            "gbt": booster,
            "lasso": f"lasso, alpha {config.alpha:g}",
            "rf": "random forests",
            "mlp": f"networks, 2 hidden layers of {config.hidden}; Shapley values of their error",
        }[config.predictor]
        return {**result, "rows_used": [len(parts[0]), len(parts[2])], "estimator": how}


@dataclass(frozen=True)
class DciEsConfig(PredictorConfig):
    """Settings of DCI-ES."""

    probe: Literal["rff", "mlp", "rf"] = option(
        "rff", "readers of growing size: random Fourier features, networks, or random forests"
    )


class DciEs(Scored[DciEsConfig]):
    """DCI-ES (Eastwood et al. 2023): how large a reader must be (explicitness), and how large the code is (size)."""

    headline = "explicitness"
    measures = "what can be read from the code (explicitness)"
    together = "factors"
    numbers = {
        "explicitness": higher(
            -1,
            1,
            chance=1.0,
            source="Eastwood et al. 2023, section 4.1",
            form="authors' program",
            what="says nothing without informativeness",
        ),
        "explicitness_relative": higher(
            -1, 1, source="Eastwood et al. 2023, section 4.1", what="of the fall from a constant guess to the best loss"
        ),
        "informativeness": higher(
            None, 1, chance=0.0, source="Eastwood et al. 2023, section 3", what="1 - squared error of the best reader"
        ),
        "disentanglement": higher(0, 1, source="Eastwood & Williams 2018, eq. 2", form="Shapley values of readers"),
        "completeness": higher(0, 1, source="Eastwood & Williams 2018, section 2", form="Shapley values of readers"),
        "size": neither(0, source="Eastwood et al. 2023, section 4.2", what="factors / codes; 1 is as small as can be"),
    }
    predicts = True
    matrices = {"importance": "hinton"}
    bars = ("explicitness_per_factor", "informativeness_per_factor")

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: DciEsConfig = self.config
        parts = draw_split(table, config, seed, continuous=True)
        unordered = [k for k, kind in enumerate(table.factor_kinds) if kind == "categorical"]
        result = functional.dci_es(*parts, config.probe, unordered, seed, classes(table, config))
        reader = {"rff": "random Fourier features", "mlp": "networks of one hidden layer", "rf": "random forests"}
        used = [len(parts[0]), len(parts[2])]
        return {**result, "rows_used": used, "estimator": reader[config.probe]}
