"""Scores of a discrete code or a single code against labels, and of reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import CodeTable, Metric, UsageError, can, option
from distk.console import counted
from distk.device import seeded
from distk.latents import Code
from distk.meaning import higher, lower
from distk.method import Method, eval_mode
from distk.onepass import one_pass
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
class SampleConfig(Config):
    """As `Config`, for scores of all rows."""

    sample: int | None = option(None, "score at most so many rows, drawn without replacement; default: all", min=2)


def rows_of(values: Tensor, picked: Tensor) -> Tensor:
    """The rows that `some_rows` picked; where it is all of them, no copy."""
    return values if len(picked) == len(values) else values[picked]


def some_rows(table: CodeTable, sample: int | None, seed: int) -> tuple[Tensor, dict[str, str]]:
    """All rows, or a sample of them in their order, int64 on the codes' device; and what is to be said of that."""
    if sample is None or sample >= len(table):
        return torch.arange(len(table), device=table.codes.device), {}
    picked = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))[:sample]
    told = {"rows": f"a sample of {sample} of {counted(len(table), 'row')}, as asked for"}
    return picked.sort().values.to(table.codes.device), told


@dataclass(frozen=True)
class ClsAccConfig:
    """Settings of the classification accuracy."""

    disc_index: int | None = option(None, "which discrete code, counted from 1, where there are several", min=1)


class ClsAcc(Scored[ClsAccConfig]):
    """Unsupervised classification accuracy (Jeong & Song 2019): the discrete code against the label."""

    headline = "hungarian"
    measures = "classes found without labels"
    together = "label"
    numbers = {
        "hungarian": higher(0, 1, source="Jeong & Song 2019", form="authors", what="best one-to-one map to labels"),
        "majority": higher(
            0, 1, chance="share of the commonest value", form="textbook", what="purity: commonest label of each value"
        ),
    }
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
            met = f"{counted(used, 'code value')} for {counted(kinds, 'value')} of {name}"
            result["reasons"] = {"hungarian": f"{met}: some stay unmatched"}
        return result


class BestDimensionAuc(Scored[SampleConfig]):
    """Best single-dimension AUC per attribute value (Ridgeway & Mozer 2017)."""

    headline = "mean"
    measures = "one factor, one code (compactness)"
    numbers = {"mean": higher(0.5, 1, chance=0.5, source="Ridgeway & Mozer 2017", form="authors", what="AUC")}

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        truth = table.factors if table.factors is not None else labels(table)[0].unsqueeze(1)
        picked, told = some_rows(table, self.config.sample, seed)
        values, names, left = quantities(rows_of(codes(table, self.config, seed), picked), table)
        result = functional.best_dimension_auc(values, rows_of(truth.to(values.device), picked))
        reasons = {**told, **left, **result.pop("reasons", {})}
        how = "AUC of one value against the others of its factor, either direction"
        result |= {"code_names": names, "rows_used": [len(picked)], "estimator": how}
        return {**result, "reasons": reasons} if reasons else result


@dataclass(frozen=True)
class ReconstructionConfig:
    """Settings of the reconstruction error."""

    code: Literal["mean", "sample"] = option(
        "mean", "decode the posterior mean, or a draw from the posterior as the bound in training does"
    )


class Reconstruction(Metric[ReconstructionConfig]):
    """Reconstruction errors from posterior means or samples, per pixel and per image.

    Of the rows that are asked for those of the test split count, if there are any among them.
    """

    headline = "mse_pixel"
    measures = "items made and bounds"
    numbers = {
        "mse_pixel": lower(0, what="per pixel and channel, of a range of 1"),
        "bce_pixel": lower(0, unit="nats", what="per pixel and channel"),
        "nll_image": lower(0, unit="nats", what="summed over pixels"),
    }
    needs_model = True

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset, rows = table.model, table.dataset, table.rows
        assert model is not None
        assert dataset is not None
        assert rows is not None
        if dataset.spec.kind == "sentence":
            raise UsageError("metric 'reconstruction' measures pixels, and these items are sentences.")
        sample = self.config.code == "sample"
        for able, what in (("decode", "decoder"), *([("posterior", "posterior to sample from")] if sample else [])):
            if not can(model, able):
                raise UsageError(f"method {type(model).__name__} has no {what}.")
        generator = seeded(seed, dataset.device)
        totals: dict[str, float] = {}
        low, high = model.spec.range
        held = dataset.rows("test")
        if held is not None and bool((tested := torch.isin(rows, held)).any()):
            rows = rows[tested]
        with eval_mode(model):
            for part in rows.split(512):
                x = dataset.batch(part)["x"]
                code = _drawn(model, x, generator) if sample else model.encode(x)
                made = model.decode(code).view_as(x)
                errors = functional.reconstruction((x - low) / (high - low), (made - low) / (high - low))
                for key in ("mse_pixel", "bce_pixel", "nll_image"):
                    totals[key] = totals.get(key, 0.0) + errors[key] * len(part)
        return {**{key: total / len(rows) for key, total in totals.items()}, "rows_used": [len(rows)]}


def _drawn(model: Method, x: Tensor, generator: torch.Generator) -> Code:
    """A draw from the posterior of each item; groups without a Gaussian one as `encode` gives them."""
    with one_pass(model):
        code = dict(model.encode(x))
        posterior = model.posterior(x)
    for name, (mean, std) in posterior.items():
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        code[name] = mean + std * noise
    return code
