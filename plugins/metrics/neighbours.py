"""Scores from nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import CodeTable, UsageError, option
from distk.console import counted
from distk.meaning import count, higher, neither
from distk.plugins.metrics import functional
from distk.plugins.metrics.agreement import SampleConfig, labels, rows_of, some_rows
from distk.plugins.metrics.table import Config, FactorConfig, Scored, classes, codes, draw, without


@dataclass(frozen=True)
class RecallConfig(SampleConfig):
    """Settings of recall@k."""

    ks: tuple[int, ...] = option((1, 2, 4, 8), "numbers of neighbours", min=1)
    distance: Literal["l2", "cosine"] = option("l2", "how far codes are apart")
    discrete: Literal["onehot", "index"] = option(
        "onehot", "two classes of a discrete code are as far apart as any others, or as their indices"
    )


class Recall(Scored[RecallConfig]):
    """Recall@k (Ridgeway & Mozer 2017): is an item of the same label among the k nearest?"""

    headline = "recall@1"
    measures = "what can be read from the code (explicitness)"
    together = "label"
    numbers = {
        "recall@1": higher(0, 1, chance="sum of the squared shares of the classes", source="Ridgeway & Mozer 2017"),
        "recall@*": higher(0, 1, source="Ridgeway & Mozer 2017"),
        "items_without_match": count("items", "items whose class has no other member"),
    }

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        truth, name = labels(table)
        picked, told = some_rows(table, self.config.sample, seed)
        values = rows_of(codes(table, self.config, seed), picked)
        asked = self.config.ks, self.config.distance, classes(table, self.config)
        result = functional.recall_at_k(values, truth.to(values.device)[picked], *asked)
        how = f"{self.config.distance} distance, same {name}"
        return without(told, {**result, "rows_used": [len(picked)], "estimator": how})


@dataclass(frozen=True)
class InfoMecConfig(FactorConfig):
    """Settings of InfoMEC."""

    discrete_latents: Literal["kinds", "all", "none"] = option(
        "kinds", "which codes are class indices: those that the method says, every one (quantised latents), or none"
    )


class InfoMec(Scored[InfoMecConfig]):
    """InfoMEC (Hsu et al. 2023): modularity, compactness, explicitness by information."""

    headline = "infom"
    measures = "one code, one factor (modularity)"
    numbers = {
        "infom": higher(None, 1, source="Hsu et al. 2023, eq. 6", form="authors", what="over the active codes"),
        "infoc": higher(None, 1, source="Hsu et al. 2023, eq. 8", form="authors", what="over the active codes"),
        "infoe": higher(
            None, 1, chance=0.0, source="Hsu et al. 2023, eq. 9", form="authors", what="read from all codes"
        ),
        "infoe_pruned": higher(
            None, 1, chance=0.0, source="Hsu et al. 2023, eq. 9", form="pruned", what="read from the active codes"
        ),
        "codes_used": count("codes", "codes whose range is above 1/20 of the largest; discrete ones that vary"),
    }
    matrices = {"nmi": "heat"}
    bars = ("infoe_per_factor",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, truth = draw(table, self.config, seed)
        wanted = self.config.discrete_latents
        kinds = [d for d, kind in enumerate(table.kinds) if kind == "categorical"]
        discrete: bool | list[int] = kinds if wanted == "kinds" else wanted == "all"
        how = "10 nearest neighbours (Ross 2014), discrete codes by counting, over the factor's entropy"
        result = functional.info_mec(values, truth, seed=seed, discrete_latents=discrete)
        return {**result, "rows_used": [len(values)], "estimator": how}


@dataclass(frozen=True)
class KsgConfig:
    """Settings of the prediction metric."""

    k: int = option(3, "neighbours", min=1)
    variant: Literal[1, 2] = option(1, "estimator 1 or 2 of Kraskov et al. 2004")
    pairs: int = option(5000, "pairs of consecutive frames", min=10)
    blocks: int = option(2, "parts of an unfactored code", min=2)
    partitions: int = option(20, "random partitions of an unfactored code", min=1)


class Ksg(Scored[KsgConfig]):
    """Mutual information of consecutive codes, within and across blocks (Whitney & Fergus 2017), nats.

    Blocks are the continuous groups with a value per frame. `same` = mean over blocks of I(block at t + 1; itself at
    t), `cross` = mean over ordered pairs of different blocks of I(one at t + 1; the other at t), from posterior draws
    where there is a posterior. A lone group is cut at random; the partition with the largest difference is reported.
    """

    headline = "difference"
    measures = "dependence among codes, no labels"
    labelled = False
    numbers = {
        "difference": higher(unit="nats", chance=0.0, source="Whitney & Fergus 2017", what="same - cross"),
        "same": neither(unit="nats", source="Kraskov et al. 2004, eq. 8", what="of a block with its own next state"),
        "cross": neither(unit="nats", source="Kraskov et al. 2004, eq. 8", what="with another block's next state"),
    }

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: KsgConfig = self.config
        now, then = self._pairs(table, seed)
        size = sum(block.shape[1] for block in now)
        if len(now) == 1 and size < config.blocks:
            raise UsageError(
                f"a code of {counted(size, 'dimension')} cannot be cut into {counted(config.blocks, 'block')}."
            )
        if len(now) > 1:
            result: dict[str, Any] = dict(self._score(now, then))
        else:
            generator = torch.Generator().manual_seed(seed)
            found = []
            for _ in range(config.partitions):
                parts = torch.randperm(size, generator=generator).to(now[0].device).tensor_split(config.blocks)
                found.append(self._score([now[0][:, p] for p in parts], [then[0][:, p] for p in parts]))
            result = dict(max(found, key=lambda one: one["difference"]))
        joint = torch.cat([*now, *then], 1)
        twice = len(joint) - len(joint.unique(dim=0))
        reasons = {}
        if twice:
            reasons["same"] = (
                f"{twice} of {counted(len(joint), 'pair')} occur twice: noise of 1e-10 parts them and raises the figure"
            )
        if len(joint) < config.pairs:
            reasons["pairs"] = f"the data have {counted(len(joint), 'pair')} of consecutive frames"
        how = f"variant {config.variant} of Kraskov et al., k = {config.k}, max norm, nats"
        result |= {"rows_used": [len(joint)], "estimator": how}
        return {**result, "reasons": reasons} if reasons else result

    def _pairs(self, table: CodeTable, seed: int) -> tuple[list[Tensor], list[Tensor]]:
        """Each block at t and at t + 1, `[pairs, size]`; no pair of frames is drawn twice, for a repeated point has its
        neighbour at distance 0."""
        if table.model is None or not any(g.steps > 1 and g.kind != "categorical" for g in table.model.latents):
            raise UsageError("this score needs codes of consecutive frames, which are not here.")
        values = codes(table, Config("sample" if table.std is not None else "mean"), seed)
        moving = [g for g in table.model.latents if g.steps > 1 and g.kind != "categorical"]
        steps = min(g.steps for g in moving) - 1
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(values) * steps, generator=generator)[: self.config.pairs].to(values.device)
        row, time = drawn // steps, drawn % steps
        now, then, at = [], [], 0
        for group in table.model.latents:
            width = len(group.columns)
            if group in moving:
                block = values[:, at : at + width].view(len(values), group.steps, group.size)
                now.append(block[row, time])
                then.append(block[row, time + 1])
            at += width
        return now, then

    def _score(self, now: list[Tensor], then: list[Tensor]) -> dict[str, float]:
        count = range(len(now))
        table = [[functional.ksg(then[i], now[j], self.config.k, self.config.variant) for j in count] for i in count]
        same = sum(table[i][i] for i in count) / len(now)
        cross = sum(table[i][j] for i in count for j in count if i != j) / (len(now) * (len(now) - 1))
        return {"same": same, "cross": cross, "difference": same - cross}
