"""Scores that sample pairs or groups of items sharing a factor; each is index arithmetic on the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from distk import CodeTable, Metric, option
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import Config, codes, factors, named


@dataclass(frozen=True)
class FactorVaeConfig(Config):
    """Settings of the FactorVAE score."""

    protocol: Literal["dlib", "cascadevae", "disent", "review", "paper"] = option(
        "dlib", "numbers of votes and rows, pruning, and whether fresh votes are scored; see metrics documentation"
    )


def _where(table: CodeTable) -> dict[str, Any]:
    """The table as the array functions want it: a full grid by its sizes, anything else by its factors."""
    if table.grid:
        return {"sizes": table.factor_sizes, "factor_names": table.factor_names}
    return {"factors": factors(table), "factor_names": table.factor_names}


class FactorVae(Metric):
    """FactorVAE score (Kim & Mnih 2018): fix a factor, see which code varies least.

    The first discrete code votes with the Gini variance, under every protocol.
    """

    Config: ClassVar[type] = FactorVaeConfig
    headline = "eval"
    repeats = 5

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values = codes(table, self.config, seed)
        first = next((d for d, kind in enumerate(table.kinds) if kind == "categorical"), None)
        rest = [d for d in range(len(table.names)) if d != first]
        discrete: Tensor | None = None if first is None else values[:, first].round().long()
        protocol = self.config.protocol
        kl = None if table.kl is None else table.kl[rest]
        prune: dict[str, Any] = {}
        if kl is None or bool(kl.isnan().any()):
            # Pruning by KL means nothing without a posterior: fall back to the spread of the codes.
            kl, prune = None, {"prune": "std", "threshold": 0.05} if protocol == "cascadevae" else {}
        result = dict(
            functional.factor_vae(
                values[:, rest], seed=seed, protocol=protocol, discrete=discrete, kl=kl, **prune, **_where(table)
            )
        )
        if prune:
            result["reasons"] = {**result.get("reasons", {}), "active_codes": "no posterior: pruned by std < 0.05"}
        order = [*rest, *([] if first is None else [first])]
        return {**named(result, table), "code_names": [table.names[d] for d in order]}


class BetaVae(Metric):
    """beta-VAE score (Higgins et al. 2017): which factor do the pairs share?"""

    Config: ClassVar[type] = Config
    headline = "eval"
    repeats = 5

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        return functional.beta_vae(codes(table, self.config, seed), seed=seed, **_where(table))


class HigginsChange(Metric):
    """Higgins score of 2016 (papers/08): which factor changed?"""

    Config: ClassVar[type] = Config
    headline = "eval"
    repeats = 5

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        return functional.higgins_change(codes(table, self.config, seed), seed=seed, **_where(table))
