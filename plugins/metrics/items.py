"""Scores that look at labels, items or sequences rather than at codes against factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, can, option
from distk.plugins.metrics import functional
from distk.plugins.metrics.table import Config, Scored, codes, quantities


def labels(table: CodeTable) -> tuple[Tensor, str]:
    """The categorical truth of the items `[N]` int64, and what it is called: the data set's label, else the first
    categorical factor.

    Raises UsageError naming the factors that there are when none is categorical and there is no label.
    """
    categorical = [k for k, kind in enumerate(table.factor_kinds) if kind == "categorical"]
    if table.dataset is not None and table.rows is not None:
        some = torch.arange(0, len(table), max(1, len(table) // 64), device=table.rows.device)
        label = table.dataset.batch(table.rows[some]).get("label")
        if label is not None:
            # A label that is one of the factors need not be read from the items again.
            same = [k for k in categorical if torch.equal(table.needs_factors()[some, k].long(), label.long())]
            if not same:
                return torch.cat([table.dataset.batch(part)["label"] for part in table.rows.split(4096)]), "label"
            categorical = same
    if categorical:
        return table.needs_factors()[:, categorical[0]].long(), table.factor_names[categorical[0]]
    there = ", ".join(table.factor_names) or "none"
    raise UsageError(f"{table.source or 'this data'} has no categorical factor and no label; its factors are: {there}.")


@dataclass(frozen=True)
class ClsAccConfig:
    """Settings of the classification accuracy."""

    disc_index: int | None = option(None, "which discrete code, counted from 1, where there are several", min=1)


class ClsAcc(Scored[ClsAccConfig]):
    """Unsupervised classification accuracy (papers/23): the discrete code against the label."""

    headline = "hungarian"
    matrices = {"contingency": "heat"}

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        columns = [d for d, kind in enumerate(table.kinds) if kind == "categorical"]
        if not columns:
            raise UsageError("this representation has no discrete code to compare with labels.")
        place, there = self.config.disc_index, ", ".join(table.names[d] for d in columns)
        if place is None and len(columns) > 1:
            raise UsageError(f"there are several discrete codes, {there}: choose one with --disc-index 1.")
        if place is not None and place > len(columns):
            raise UsageError(f"disc-index {place} is too large: the discrete codes are {there}.")
        truth, name = labels(table)
        index = table.codes[:, columns[(place or 1) - 1]].round().long()
        result = dict(functional.unsupervised_accuracy(index, truth))
        used, kinds = int(index.unique().numel()), int(truth.unique().numel())
        if used != kinds:
            result["reasons"] = {"hungarian": f"{used} code values meet {kinds} values of {name}: some stay unmatched"}
        return result


class Reconstruction(Metric):
    """Reconstruction errors from posterior means, per pixel and per image, on items of the test split if there are."""

    headline = "mse_pixel"
    higher_is_better = False
    needs_model = True

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset, rows = table.model, table.dataset, table.rows
        assert model is not None
        assert dataset is not None
        assert rows is not None
        if not can(model, "decode"):
            raise UsageError(f"method {type(model).__name__} has no decoder.")
        was_training = model.training
        model.eval()
        totals: dict[str, float] = {}
        low, high = model.spec.range
        try:
            held = dataset.rows("test")
            if held is not None and bool((tested := torch.isin(rows, held)).any()):
                rows = rows[tested]
            for part in rows.split(512):
                x = dataset.batch(part)["x"]
                made = model.decode(model.encode(x)).view_as(x)
                found = functional.reconstruction((x - low) / (high - low), (made - low) / (high - low))
                for key in ("mse_pixel", "bce_pixel", "nll_image"):
                    totals[key] = totals.get(key, 0.0) + found[key] * len(part)
        finally:
            model.train(was_training)
        return {**{key: total / len(rows) for key, total in totals.items()}, "rows_used": [len(rows)]}


@dataclass(frozen=True)
class RecallConfig(Config):
    """Settings of recall@k."""

    ks: tuple[int, ...] = option((1, 2, 4, 8), "numbers of neighbours", min=1)
    distance: Literal["l2", "cosine"] = option("l2", "how far codes are apart")


class Recall(Scored[RecallConfig]):
    """Recall@k (papers/12): is an item of the same label among the k nearest?"""

    headline = "recall@1"

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        truth, name = labels(table)
        picked = _some(table, seed)
        values = codes(table, self.config, seed)[picked]
        result = functional.recall_at_k(values, truth.to(values.device)[picked], self.config.ks, self.config.distance)
        return {**result, "rows_used": [len(picked)], "estimator": f"{self.config.distance} distance, same {name}"}


class BestDimensionAuc(Scored[Config]):
    """Best single-dimension AUC per attribute value (papers/12)."""

    headline = "mean"

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        truth = table.factors if table.factors is not None else labels(table)[0].unsqueeze(1)
        picked = _some(table, seed)
        values, names, left = quantities(codes(table, self.config, seed)[picked], table)
        result = functional.best_dimension_auc(values, truth.to(values.device)[picked])
        reasons = {**left, **result.pop("reasons", {})}
        how = "AUC of one value against the others of its factor, either direction"
        result |= {"code_names": names, "rows_used": [len(picked)], "estimator": how}
        return {**result, "reasons": reasons} if reasons else result


def _some(table: CodeTable, seed: int) -> Tensor:
    """At most 10 000 rows in their order, int64 on the codes' device."""
    picked = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))[:10_000]
    return picked.sort().values.to(table.codes.device)


@dataclass(frozen=True)
class KsgConfig:
    """Settings of the prediction metric."""

    k: int = option(3, "neighbours", min=1)
    variant: Literal[1, 2] = option(1, "estimator 1 or 2 of Kraskov et al. 2004")
    pairs: int = option(5000, "pairs of consecutive frames", min=10)
    blocks: int = option(2, "parts of an unfactored code", min=2)
    partitions: int = option(20, "random partitions of an unfactored code", min=1)


class Ksg(Scored[KsgConfig]):
    """Mutual information of consecutive codes, within and across blocks (papers/13 section 3.1), nats.

    Blocks are the continuous groups with a value per frame. `same` = mean over blocks of I(block at t + 1; itself at
    t), `cross` = mean over ordered pairs of different blocks of I(one at t + 1; the other at t), from posterior draws
    where there is a posterior. A lone group is cut at random; the partition with the largest difference is reported.
    """

    headline = "difference"

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        config: KsgConfig = self.config
        now, then = self._pairs(table, seed)
        size = sum(block.shape[1] for block in now)
        if len(now) == 1 and size < config.blocks:
            raise UsageError(f"a code of {size} dimensions cannot be cut into {config.blocks} blocks.")
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
                f"{twice} of {len(joint)} pairs occur twice: noise of 1e-10 parts them and raises the figure"
            )
        if len(joint) < config.pairs:
            reasons["pairs"] = f"the data have {len(joint)} pairs of consecutive frames"
        how = f"variant {config.variant} of Kraskov et al., k = {config.k}, max norm, nats"
        result |= {"rows_used": [len(joint)], "estimator": how}
        return {**result, "reasons": reasons} if reasons else result

    def _pairs(self, table: CodeTable, seed: int) -> tuple[list[Tensor], list[Tensor]]:
        """Each block at t and at t + 1, `[pairs, size]`; no pair of frames is drawn twice, for a repeated point has its
        neighbour at distance 0."""
        if table.model is None or not any(g.steps > 1 and g.kind == "continuous" for g in table.model.latents):
            raise UsageError("this score needs codes of consecutive frames (protocol P7), which are not here.")
        values = codes(table, Config("sample" if table.std is not None else "mean"), seed)
        moving = [g for g in table.model.latents if g.steps > 1 and g.kind == "continuous"]
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
