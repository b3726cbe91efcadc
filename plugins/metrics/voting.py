"""Scores that sample groups of items sharing a factor; each is index arithmetic on the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import CodeTable, UsageError, option
from distk.console import counted
from distk.errors import unknown
from distk.meaning import count, higher
from distk.plugins.metrics import functional
from distk.plugins.metrics.functional.voting import PROTOCOLS
from distk.plugins.metrics.table import Config, Scored, classes, deviations, factors


@dataclass(frozen=True)
class VotingConfig(Config):
    """Settings of the scores that sample."""

    bins: int | None = option(None, "cut continuous factors into so many equal-width bins; default: 10", min=2)
    ignore_factors: tuple[str, ...] = option((), "factors that are not asked about, such as shape")


@dataclass(frozen=True)
class FactorVaeConfig(VotingConfig):
    """Settings of the FactorVAE score."""

    protocol: Literal["dlib", "cascadevae", "disent", "review", "paper"] = option(
        "dlib", "numbers of votes and rows, pruning, and whether fresh votes are scored; see metrics documentation"
    )


def where(table: CodeTable, config: VotingConfig) -> dict[str, Any]:
    """The table as the array functions want it: a full grid by its sizes, anything else by its factors."""
    left_out = set(config.ignore_factors)
    if surplus := sorted(left_out - {*table.factor_names, *table.extra.get("left", ())}):
        raise unknown("factor to ignore", surplus[0], table.factor_names)
    if not table.factor_names:
        table.needs_factors()
    if len(set(table.factor_names) - left_out) < 2:
        told = f"'{table.factor_names[0]}' is the only factor" if len(table.factor_names) == 1 else "one factor is left"
        raise UsageError(f"{told}, and a vote among one is always right: this score needs two or more.")
    if table.grid and not left_out:
        return {"sizes": table.factor_sizes, "factor_names": table.factor_names}
    kept = [k for k, name in enumerate(table.factor_names) if name not in left_out]
    return {"factors": factors(table, config.bins)[:, kept], "factor_names": [table.factor_names[k] for k in kept]}


class FactorVae(Scored[FactorVaeConfig]):
    """FactorVAE score (Kim & Mnih 2018): fix a factor, see which code varies least.

    The first discrete code votes with the Gini variance, under every protocol; further ones take no part.
    """

    headline = "eval"
    measures = "one code, one factor (modularity)"
    together = "factors"
    numbers = {
        "train": higher(0, 1, chance="1/K", source="Kim & Mnih 2018, section 4", what="on the votes that train"),
        "eval": higher(0, 1, chance="1/K", source="Kim & Mnih 2018, section 4", form="dlib, or as the protocol says"),
        "codes_used": count("codes", "codes that may vote"),
    }
    repeats = 5
    matrices = {"votes": "heat"}

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        protocol, std = self.config.protocol, deviations(table, self.config)
        discrete = [d for d, kind in enumerate(table.kinds) if kind == "categorical"]
        rest = [d for d in range(len(table.names)) if d not in discrete]
        reasons: dict[str, str] = {}
        if not rest:  # a lone discrete code votes beside a dead column, which never wins
            values, kl = torch.zeros(len(table), 1, device=table.codes.device), None
        else:
            values, kl = table.codes[:, rest], None if table.kl is None else table.kl[rest]
        prune: dict[str, Any] = {}
        if PROTOCOLS[protocol].prune == "kl" and (kl is None or bool(kl.isnan().any())):
            # Pruning by KL means nothing without a posterior: fall back to the spread of the codes.
            kl, prune = None, {"prune": "std", "threshold": 0.05}
            reasons["codes_used"] = "no posterior: pruned by std < 0.05"
        result = dict(
            functional.factor_vae(
                values,
                seed=seed,
                protocol=protocol,
                discrete=self._index(table, discrete),
                kl=None if kl is None or bool(kl.isnan().any()) else kl,
                std=None if std is None or not rest else std[:, rest],
                **prune,
                **where(table, self.config),
            )
        )
        if discrete[1:]:
            reasons[", ".join(table.names[d] for d in discrete[1:])] = "only the first discrete code votes"
        plan = PROTOCOLS[protocol]
        return {
            **result,
            **({"reasons": {**reasons, **result.get("reasons", {})}} if reasons or "reasons" in result else {}),
            "code_names": [table.names[d] for d in rest] + [table.names[d] for d in discrete[:1]]
            if rest
            else ["(none)", table.names[discrete[0]]],
            "draws": [plan.train_votes, plan.eval_votes],
            "estimator": f"votes of {counted(plan.samples, 'row')}, pruning by {prune.get('prune', plan.prune)}",
        }

    @staticmethod
    def _index(table: CodeTable, discrete: list[int]) -> Tensor | None:
        return table.codes[:, discrete[0]].round().long() if discrete else None


@dataclass(frozen=True)
class PairsConfig(VotingConfig):
    """Settings of scores that read from pairs what they share or what changed."""

    discrete: Literal["onehot", "index"] = option(
        "onehot", "how classes of a discrete code differ: by their indicators, or by their indices, taken as numbers"
    )


class BetaVae(Scored[PairsConfig]):
    """beta-VAE score (Higgins et al. 2017): which factor do the pairs share?"""

    headline = "eval"
    measures = "one code, one factor (modularity)"
    together = "factors"
    numbers = {
        "train": higher(0, 1, chance="1/K", source="Higgins et al. 2017", what="on the points that train"),
        "eval": higher(0, 1, chance="1/K", source="Higgins et al. 2017, section 3", form="dlib"),
        "codes_used": count("codes", "codes that vary"),
    }
    repeats = 5

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        std = deviations(table, self.config)
        told: dict[str, Any] = {"std": std, "discrete": classes(table, self.config), **where(table, self.config)}
        result = functional.beta_vae(table.codes, seed=seed, **told)
        how = "mean difference of 64 pairs that share a factor; logistic regression, C = 1"
        return {**result, "draws": [10_000, 5_000], "estimator": how}
