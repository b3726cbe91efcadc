"""Scores of change: which factor differs within a pair of items?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import CodeTable, option
from distk.meaning import count, higher
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import Scored, classes, deviations
from distk.plugins.metrics.voting import PairsConfig, where


@dataclass(frozen=True)
class HigginsChangeConfig(PairsConfig):
    """Settings of the score of 2016."""

    protocol: Literal["logistic", "peychev"] = option(
        "logistic",
        "logistic: every factor, logistic regression; peychev: categorical factors stay, a probe trained by Adam",
    )
    pairs: int | None = option(
        None,
        "pairs of protocol peychev; default: 50,000, at most ten per row",
        paper="50,000 (code)",
        min=20,
        max=10_000_000,
    )
    epochs: int = option(5000, "most epochs of protocol peychev's probe", min=1)


@dataclass(frozen=True)
class ChangeOneFactorConfig(HigginsChangeConfig):
    """The same, with protocol peychev unless another one is named."""

    protocol: Literal["peychev", "logistic"] = option("peychev", "peychev or logistic, as in higgins-change")


H = TypeVar("H", bound=HigginsChangeConfig, default=HigginsChangeConfig)


class HigginsChange(Scored[H]):
    """Higgins score of 2016: which factor changed?"""

    headline = "eval"
    measures = "one code, one factor (modularity)"
    together = "factors"
    numbers = {
        "train": higher(0, 1, chance="1/K", source="Higgins et al. 2016", what="on the pairs that train"),
        "validation": higher(0, 1, chance="1/K", source="Peychev et al. 2017", what="on the pairs that choose"),
        "eval": higher(0, 1, chance="1/K", source="Higgins et al. 2016", form="textbook; authors with peychev"),
        "codes_used": count("codes", "codes that vary"),
        "collisions": count("pairs", "pairs whose codes do not differ"),
        "probe_epochs": count("epochs"),
    }
    repeats = 5

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config, std = self.config, deviations(table, self.config)
        asked = {**where(table, config), "discrete": classes(table, config)}
        if config.protocol == "peychev":
            fixed = [k for k, kind in enumerate(table.factor_kinds) if kind == "categorical"]
            pairs = config.pairs or max(20, min(50_000, 10 * len(table)))
            sampling: dict[str, Any] = {"fixed": fixed, "pairs": pairs, "epochs": config.epochs}
            result = functional.change_one_factor(
                table.codes, seed=seed, std=std, same=_shows_the_same(table), **sampling, **asked
            )
            how = "normalised difference of a pair that differs in one factor; softmax regression by Adam"
            return {**result, "draws": [pairs], "estimator": how}
        result = functional.higgins_change(table.codes, seed=seed, std=std, **asked)
        how = "normalised difference of a pair that differs in one factor; logistic regression, C = 1"
        return {**result, "draws": [10_000, 5_000], "estimator": how}


class ChangeOneFactor(HigginsChange[ChangeOneFactorConfig]):
    """Change-one-factor accuracy of Peychev et al. (2017): `higgins-change` under their protocol."""

    repeats = 1


def _shows_the_same(table: CodeTable) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Which pairs of rows of the table show identical items; None where the items are not at hand."""
    dataset, own = table.dataset, table.rows
    if dataset is None or own is None:
        return None

    def same(first: Tensor, second: Tensor) -> Tensor:
        found = [torch.zeros(0, dtype=torch.bool)]
        for a, b in zip(first.split(1024), second.split(1024), strict=True):
            one, other = (dataset.batch(own[rows.to(own.device)])["x"].flatten(1) for rows in (a, b))
            found.append((one == other).all(1).cpu())
        return torch.cat(found)

    return same
