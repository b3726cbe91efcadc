"""The metrics `infogan` and `dci-gap`: whether codes can be read from the model's own images, and what regressors read
from the codes of the data, for known and for unseen combinations of factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from distk import Code, CodeTable, Dataset, Metric, UsageError, encode_table, option, seeded
from distk.meaning import Number, higher, lower, neither
from distk.method import Method, eval_mode
from distk.plugins.gan_family.infogan.method import InfoGAN
from distk.plugins.metrics import functional

BATCH = 256


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    images: int = option(4096, "images to generate", min=16)


class InfoGANScore(Metric[Config]):
    """What Q reads from images that the model made of known codes, in eval mode.

    code_r2: 1 - squared error / variance of each continuous code, mean over codes; code_r2_per_code `[K]`.
    class_accuracy: share of classes that Q's most probable one hits, mean over categorical codes.
    mi_bound: H(c) + E[log q(c | G(n, c))], nats: at most the mutual information of codes and images, and this at most
    H(c). smallest_deviation, largest_deviation: of Q, over images and codes.
    """

    headline = "code_r2"
    numbers = {
        "code_r2": higher(None, 1, chance=0.0, what="Q's reading of continuous codes"),
        "class_accuracy": higher(0, 1, chance="1 / classes", what="Q's reading of categorical codes"),
        "mi_bound": higher(unit="nats", source="Chen et al. 2016, eq. 5", what="bound on I(c; G(z, c))"),
        "code_entropy": neither(unit="nats", what="the most that mi_bound can be"),
        "smallest_deviation": neither(0, what="of Q, over images and codes"),
        "largest_deviation": neither(0, what="of Q, over images and codes"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model of another method."""
        model = table.model
        if not isinstance(model, InfoGAN):
            raise UsageError("metric 'infogan' scores models of the methods infogan and infogan-mnist.")
        generator = seeded(seed, next(model.parameters()).device)
        with torch.no_grad(), eval_mode(model):
            drawn = model.prior(self.config.images, generator)
            features = torch.cat([model.trunk(model.as_drawn(model.decode(code))) for code in _parts(drawn)])
            mean, log_variance, logits = model.read(features)
            bound = model.entropy() + float(model.log_likelihood(drawn, features).double().sum(1).mean())
        result: dict[str, Any] = {"mi_bound": bound, "code_entropy": model.entropy()}
        if model.config.codes:
            truth = drawn["c"].double()
            each = 1 - (mean.double() - truth).square().mean(0) / truth.var(0, correction=0)
            deviation = (0.5 * log_variance).exp()
            result |= {"code_r2": float(each.mean()), "code_r2_per_code": each.cpu().numpy()}
            result |= {"smallest_deviation": float(deviation.min()), "largest_deviation": float(deviation.max())}
        else:
            result |= {"code_r2": float("nan"), "reasons": {"code_r2": "the model has no continuous code"}}
        if logits:
            names = [group.name for group in model.latents if group.kind == "categorical"]
            hits = [(of.argmax(1) == drawn[n].argmax(1)).double().mean() for n, of in zip(names, logits, strict=True)]
            result["class_accuracy"] = float(torch.stack(hits).mean())
        return result


def _parts(code: Code) -> Iterator[Code]:
    """A code in parts of BATCH items."""
    for start in range(0, len(next(iter(code.values()))), BATCH):
        yield {name: value[start : start + BATCH] for name, value in code.items()}


@dataclass(frozen=True)
class GapConfig:
    """Which regressors, and how many rows they see."""

    predictor: Literal["lasso", "rf"] = option("lasso", "lasso, or random forests of 10 trees")
    alpha: float = option(0.02, "strength of the lasso", min=0)
    importances: Literal["impurity", "splits"] = option("impurity", "of forests: impurity, or the share of splits")
    items: int = option(10_000, "training rows for the regressors; half as many of each other split", min=20)


USED = 0.05
"""Share of all importance for a factor from which a code counts as holding it, and of all importance below which a code
counts as redundant. Eastwood & Williams count by eye."""


class GapDci(Metric[GapConfig]):
    """DCI of regressors fitted on training rows, and their errors on known and on unseen combinations of factors.

    Codes and factors are standardised by the training rows. Errors are root mean squares over the standard deviation of
    the rows that are scored: 1 is the error of their mean, and a regressor can be worse. Keys: nrmse_test, nrmse_gap,
    nrmse_validation (means over factors), disentanglement, completeness; each factor's and each code's own as
    nrmse_test.FACTOR, nrmse_gap.FACTOR, completeness.FACTOR, disentanglement.CODE; rmse_gap.FACTOR over the training
    rows' deviation; codes_for.FACTOR, redundant_codes: see USED. A forest's depth is that of the smallest error on the
    validation rows.
    """

    headline = "nrmse_gap"
    numbers = {
        "nrmse_*": lower(0, chance=1.0, source="Eastwood & Williams 2017", form="authors", what="error over deviation"),
        "rmse_gap.*": lower(0, what="error over the training rows' deviation"),
        "disentanglement": higher(0, 1, source="Eastwood & Williams 2017", form="authors"),
        "disentanglement.*": higher(0, 1, what="of one code"),
        "completeness": higher(0, 1, source="Eastwood & Williams 2017", form="authors"),
        "completeness.*": higher(0, 1, what="of one factor"),
        "redundant_codes": Number("lower", 0, unit="codes", whole=True, what="with less than 5 % of all importance"),
        "codes_for.*": neither(0, unit="codes", whole=True, what="with 5 % or more of the importance for a factor"),
    }
    needs_model = True
    needs = ("encode",)
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for data without factors or without the splits."""
        model, dataset = table.model, table.dataset
        assert model is not None
        assert dataset is not None
        splits: list[str] = [split for split in ("train", "validation", "test", "gap") if split in dataset.splits]
        if not {"train", "test"} <= set(splits) or not dataset.parts:
            raise UsageError(f"data set '{dataset.name}' has no splits to fit on and to test on.")
        rows = {split: self._encoded(model, dataset, split, seed) for split in splits}
        # A forest's depth is chosen on the last ninth of the rows that it is given: the validation rows.
        fitted = _with_validation(rows) if self.config.predictor == "rf" else rows["train"]
        names = rows["train"].names, rows["train"].factor_names
        further = {split: (rows[split].codes, rows[split].needs_factors()) for split in splits if split != "train"}
        try:
            found = functional.dci(
                *(fitted.codes, fitted.needs_factors(), *further["test"], self.config.predictor, seed),
                alpha=self.config.alpha,
                importances=self.config.importances,
                further=further,
                discrete=[d for d, kind in enumerate(rows["train"].kinds) if kind == "categorical"],
            )
        except ValueError as error:
            raise UsageError(f"{error}.") from error
        return _told(found, *names, gap="gap" in splits, of=f"data set '{dataset.name}'")

    def _encoded(self, model: Method, dataset: Dataset, split: str, seed: int) -> CodeTable:
        items = self.config.items if split == "train" else max(10, self.config.items // 2)
        return encode_table(model, dataset, rows=items, split=split, seed=seed)


def _with_validation(rows: Mapping[str, CodeTable]) -> CodeTable:
    """Training rows, and behind them validation rows that make a ninth of all."""
    train, held = rows["train"], rows.get("validation")
    if held is None:
        return train
    count = min(len(held), len(train) // 8)
    codes = torch.cat([train.codes[: 8 * count], held.codes[:count]])
    factors = torch.cat([train.needs_factors()[: 8 * count], held.needs_factors()[:count]])
    return CodeTable(codes, train.names, train.kinds, factors, train.factor_names)


def _told(found: Mapping[str, Any], codes: Sequence[str], factors: Sequence[str], gap: bool, of: str) -> dict[str, Any]:
    """The result of `functional.dci` under names: of each factor and each code."""
    importance = np.nan_to_num(np.asarray(found["importance"]))
    shares = importance / np.maximum(importance.sum(0), 1e-300)
    told: dict[str, Any] = {
        "nrmse_test": found["nrmse_test"],
        "nrmse_gap": found.get("nrmse_gap", float("nan")),
        "nrmse_validation": found.get("nrmse_validation", float("nan")),
        "disentanglement": found["disentanglement"],
        "completeness": found["completeness"],
        "redundant_codes": float((importance.sum(1) < USED * importance.sum()).sum()),
    }
    vectors = {
        "nrmse_test": "nrmse_per_factor",
        "nrmse_gap": "nrmse_gap_per_factor",
        "rmse_gap": "rmse_gap_per_factor",
        "completeness": "completeness_per_factor",
    }
    for key, vector in vectors.items():
        if vector in found:
            told |= {f"{key}.{factor}": float(v) for factor, v in zip(factors, found[vector], strict=True)}
    told |= {f"disentanglement.{c}": float(v) for c, v in zip(codes, found["disentanglement_per_code"], strict=True)}
    told |= {f"codes_for.{f}": float(n) for f, n in zip(factors, (shares >= USED).sum(0), strict=True)}
    kept = {key: found[key] for key in ("importance", "weights", "code_weight") if key in found}
    reasons = dict(found.get("reasons", {}))
    if not gap:
        reasons["nrmse_gap"] = f"{of} has no split 'gap'; teapots have one with gap = paper"
    return {**told, **kept, "code_names": list(codes), "factor_names": list(factors), "reasons": reasons}
