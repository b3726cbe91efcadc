"""Tasks on frozen codes: fairness, abstract reasoning, combinations of factors that were never seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from distk import CodeTable, FactorDataset, option
from distk.console import counted
from distk.meaning import count, higher, lower
from distk.plugins.metrics import functional
from distk.plugins.metrics.functional.indicators import indicators
from distk.plugins.metrics.table import (
    BINS,
    TRAIN,
    Config,
    PredictorConfig,
    Scored,
    chosen,
    classes,
    codes,
    draw_split,
    factors,
)

SHARE = "share of the commonest value"


@dataclass(frozen=True)
class FairnessConfig(PredictorConfig):
    """Settings of fairness."""

    predictor: Literal["gbt", "lr"] = option("gbt", "boosted trees, or logistic regression", paper="gbt")
    points: int = option(100, "items of a full grid that are shown with each value of the sensitive factor", min=2)


class Fairness(Scored[FairnessConfig]):
    """Unfairness of what is read from the codes when a sensitive factor changes (Locatello et al. 2019)."""

    headline = "unfairness"
    measures = "tasks on frozen codes"
    together = "factors"
    numbers = {
        "unfairness": lower(
            0,
            1,
            source="Locatello et al. 2019 (fairness), section 4",
            form="dlib's mean_fairness:mean_pred:mean_sens",
            what="total variation of predictions, mean over pairs of factors",
        ),
        "worst": lower(
            0, 1, source="Locatello et al. 2019 (fairness), section 4", form="dlib", what="the largest of any pair"
        ),
        "accuracy": higher(0, 1, chance=SHARE, what="of the predictors, mean over factors"),
    }
    predicts = True
    matrices = {"unfairness_matrix": "heat"}

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: FairnessConfig = self.config
        settings: dict[str, Any] = {"seed": seed, "predictor": config.predictor, "train": TRAIN}
        settings["discrete"] = classes(table, config)
        if table.grid and table.codes_test is None:
            values = codes(table, config, seed)
            result = functional.fairness(values, sizes=table.factor_sizes, points=config.points, **settings)
            how = f"{counted(config.points, 'item')} of the grid with every value of the sensitive factor in turn"
        else:
            parts = draw_split(table, _binned(config), seed)
            result = functional.fairness(*parts, **settings)
            how = "test items by their value of the sensitive factor: no grid, so that nothing else is held still"
        names = list(table.factor_names)
        return {**result, "code_names": names, "factor_names": names, "estimator": f"{config.predictor}; {how}"}


@dataclass(frozen=True)
class ReasoningConfig(Config):
    """Settings of abstract reasoning."""

    answers: Literal["easy", "hard"] = option("easy", "wrong answers at random, or wrong in one factor", paper="easy")
    steps: int = option(1500, "batches that the network learns from", paper="100 000", min=10, max=1_000_000)
    batch: int = option(32, "problems in a batch", paper="32", min=1, max=4096)
    hidden: int = option(64, "width of the network", paper="256 or 512", min=1, max=4096)
    lr: float = option(3e-3, "learning rate of Adam", paper="1e-3, 1e-4 or 1e-5", above=0)
    values: int = option(6, "a factor of more values is coarsened to so many", paper="3 to 10", min=2, max=100)


class Reasoning(Scored[ReasoningConfig]):
    """Abstract visual reasoning on the codes (van Steenkiste et al. 2019): which panel completes the matrix."""

    headline = "accuracy"
    measures = "tasks on frozen codes"
    together = "factors"
    numbers = {
        "accuracy": higher(0, 1, chance=1 / 6, source="van Steenkiste et al. 2019, section 4", form="after all steps"),
        "accuracy_mean": higher(
            0, 1, chance=1 / 6, source="van Steenkiste et al. 2019, section 5", what="over ten looks while it learns"
        ),
        "problems": count("problems", "matrices that the network learnt from"),
    }

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: ReasoningConfig = self.config
        (values,), _ = indicators(codes(table, config, seed), classes(table))
        there: dict[str, Any] = (
            {"sizes": table.factor_sizes} if table.grid else {"factors": factors(table, config.values)}
        )
        settings = {name: getattr(config, name) for name in ("answers", "steps", "batch", "hidden", "lr", "values")}
        result = functional.reasoning(values, seed=seed, **there, **settings)
        how = (
            f"relational network of width {config.hidden}, {counted(config.steps, 'batch', 'batches')},"
            f" {config.answers} answers"
        )
        return {**result, "estimator": how}


@dataclass(frozen=True)
class CombinationsConfig(PredictorConfig):
    """Settings of the score of unseen combinations."""

    predictor: Literal["lr", "gbt"] = option("lr", "logistic regression, or boosted trees")
    share: float = option(0.2, "share of the pairs of values that is kept from the reader", above=0, max=0.9)


class Combinations(Scored[CombinationsConfig]):
    """Are factors still read from the code where their combination was never seen (Montero et al. 2021)?

    With `--fit train --split test`, or test rows in a file, unseen are the test items whose combination no training
    item has, be it among the `--rows` or not; else a share of the pairs of values of every two factors is kept from
    the reader.
    """

    headline = "unseen"
    measures = "tasks on frozen codes"
    together = "factors"
    numbers = {
        "unseen": higher(
            0, 1, chance=SHARE, source="Montero et al. 2021", what="accuracy on combinations that were not seen"
        ),
        "seen": higher(0, 1, chance=SHARE, source="Montero et al. 2021", what="accuracy on those that were seen"),
        "gap": lower(-1, 1, chance=0.0, what="seen - unseen"),
        "unseen_combinations": count("combinations", "that the reader did not see"),
        "test_rows": count("rows", "of unseen combinations"),
    }
    predicts = True
    bars = ("unseen_per_factor", "seen_per_factor")

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: CombinationsConfig = self.config
        settings: dict[str, Any] = {"predictor": config.predictor, "share": config.share, "seed": seed, "train": TRAIN}
        settings["discrete"] = classes(table, config)
        if table.codes_test is not None:
            parts = draw_split(table, _binned(config), seed)
            result = functional.combinations(*parts, known=_known(table), **settings)
            how = "test items whose combination of all factors no training item has"
        else:
            values = codes(table, config, seed)
            picked = chosen(table, 2 * TRAIN, seed)
            truth = factors(table, config.bins or BINS)[picked]
            result = functional.combinations(values[picked], truth, **settings)
            how = f"about {config.share:g} of the pairs of values of every two factors kept from the reader"
        return {**result, "estimator": f"{config.predictor}; {how}"}


def _known(table: CodeTable) -> Tensor | None:
    """Factors int64 `[m, K]` of every training item, of which the table may hold a few; None where they are not known,
    and for factors that are real numbers, of which no two items have the same."""
    data, fit = table.dataset, table.extra.get("fit")
    if fit is None or not isinstance(data, FactorDataset):
        return None
    known = data.truth(data.rows_of(fit))
    columns = [data.factor_names.index(name) for name in table.factor_names]  # fewer where one is left out
    return None if known.is_floating_point() else known[:, columns]


def _binned(config: PredictorConfig) -> PredictorConfig:
    """The same, with continuous factors cut into 20 bins where it is not said how many: both need values."""
    return PredictorConfig(config.code, config.bins or BINS, config.discrete)
