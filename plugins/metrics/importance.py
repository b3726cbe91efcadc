"""DCI: importances of codes for factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distk import CodeTable, option
from distk.meaning import count, higher, lower
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import TRAIN, PredictorConfig, Scored, continuous_factors, draw_split


@dataclass(frozen=True)
class DciConfig(PredictorConfig):
    """Settings of DCI."""

    predictor: Literal["gbt", "lasso", "rf"] = option("gbt", "boosted trees; or, for continuous factors, lasso or rf")
    exact: bool = option(False, "scikit-learn's boosting instead of our own, which tries the same splits (minutes)")
    alpha: float = option(0.02, "strength of the lasso", min=0)
    importances: Literal["impurity", "splits"] = option("impurity", "of forests: impurity, or the share of splits")


class Dci(Scored[DciConfig]):
    """Disentanglement, completeness, informativeness (Eastwood & Williams 2018)."""

    headline = "disentanglement"
    measures = "one code, one factor (modularity)"
    numbers = {
        "disentanglement": higher(0, 1, source="Eastwood & Williams 2018, eq. 2", form="dlib; authors with lasso, rf"),
        "completeness": higher(0, 1, source="Eastwood & Williams 2018, section 2", form="dlib; authors with lasso, rf"),
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
        parts, names = draw_split(table, config, seed, continuous=config.predictor != "gbt")
        jobs = -1 if config.exact and config.predictor == "gbt" and len(parts[0]) >= TRAIN // 2 else 1
        regress = continuous_factors(table) if config.predictor == "gbt" and not config.bins else ()
        settings: dict[str, Any] = {"exact": config.exact, "alpha": config.alpha, "importances": config.importances}
        result = functional.dci(*parts, config.predictor, seed, n_jobs=jobs, regress=regress, **settings)
        booster = "scikit-learn's gradient boosting" if config.exact else "gradient boosting, every split tried"
        how = {"gbt": booster, "lasso": f"lasso, alpha {config.alpha:g}", "rf": "random forests"}[config.predictor]
        return {**result, "code_names": names, "rows_used": [len(parts[0]), len(parts[2])], "estimator": how}
