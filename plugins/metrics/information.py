"""Scores from the information between codes and factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distk import CodeTable, UsageError, option
from distk.console import counted
from distk.meaning import count, higher
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import BINS, FactorConfig, Scored, classes, draw, factors


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
    measures = "one factor, one code (compactness)"
    numbers = {
        "mig": higher(0, 1, chance=0.0, source="Chen et al. 2018, eq. 6", form="dlib; authors with protocol aggregate"),
        "mig_sup": higher(0, 1, source="Li et al. 2020", form="textbook", what="the gap over factors, mean over codes"),
        "codes_used": count("codes", "codes that vary"),
    }
    matrices = {"mutual_information": "heat"}
    bars = ("mig_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: MigConfig = self.config
        if config.protocol == "aggregate":
            return self._aggregate(table)
        values, truth = draw(table, config, seed)
        ten = config.protocol == "rmig"
        bins = 10 if ten else config.bins or BINS
        result = functional.mig(values, truth, bins, config.binning, 10 if ten else None, classes(table))
        estimator = f"plug-in information of {counted(bins, 'bin')} of equal {config.binning}, nats"
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


class Modularity(Scored[BinsConfig]):
    """Modularity (Ridgeway & Mozer 2018)."""

    headline = "modularity"
    measures = "one code, one factor (modularity)"
    numbers = {
        "modularity": higher(0, 1, source="Ridgeway & Mozer 2018, eq. 2", form="dlib"),
        "modularity_informative": higher(
            0, 1, source="Ridgeway & Mozer 2018, eq. 2", form="textbook", what="over codes that tell of any factor"
        ),
        "codes_used": count("codes", "codes that tell of any factor"),
    }
    matrices = {"mutual_information": "heat"}
    bars = ("modularity_per_code",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, truth = draw(table, self.config, seed)
        bins = self.config.bins or BINS
        how = f"plug-in information of {counted(bins, 'bin')} of equal width, nats"
        result = functional.modularity(values, truth, bins, discrete=classes(table))
        return {**result, "rows_used": [len(values)], "estimator": how}
