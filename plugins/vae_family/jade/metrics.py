"""Scores of `jade` and its baselines: `error`, `validation-error` and `content-style-variance`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from distk import CodeTable, Dataset, Method, Metric, UsageError, option
from distk.console import progress
from distk.look import COLUMN
from distk.meaning import count, higher, lower
from distk.method import eval_mode
from distk.plugins.vae_family.jade.method import Jade, JadeSingle
from distk.study.tables import as_figure, windowless

Role = Literal["primary", "secondary"]


@dataclass(frozen=True)
class ErrorConfig:
    """What is classified."""

    of: Literal["test", "train"] = option("test", "split; train is everything that labels are drawn from")


class ClassificationError(Metric[ErrorConfig]):
    """1 - accuracy, on the posterior means and without dropout.

    error_primary: on the primary (or another data set of its shape). error_secondary: on the secondary, for methods
    that read it. images, images_secondary: how many were classified.
    """

    headline = "error_primary"
    numbers = {
        "error_primary": lower(0, 1, chance="1 - share of the commonest class"),
        "error_secondary": lower(0, 1, chance="1 - share of the commonest class"),
        "images*": count("images"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model that is no classifier, and for data without labels."""
        model, dataset = _classifier(table)
        found: dict[str, Any] = {}
        rows = _split(dataset, self.config.of, "primary")
        found["error_primary"], found["images"] = _error(model, dataset, rows, "primary"), len(rows)
        if not hasattr(dataset, "secondary"):
            return found
        if type(model) is JadeSingle:
            return {
                **found,
                "error_secondary": float("nan"),
                "reasons": {"error_secondary": "it reads the primary only"},
            }
        rows = _split(dataset, self.config.of, "secondary")
        return {**found, "error_secondary": _error(model, dataset, rows, "secondary"), "images_secondary": len(rows)}


class ValidationError(Metric):
    """`error` on the primary's labels that `--val-per-class` kept back: the test images have no part in it.

    For `--keep best:validation-error`.
    """

    headline = "error_validation"
    numbers = {
        "error_validation": lower(0, 1, chance="1 - share of the commonest class"),
        "images": count("images"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError where nothing was kept back."""
        model, dataset = _classifier(table)
        rows = dataset.rows("validation") if "validation" in dataset.splits else None
        if rows is None:
            raise UsageError("no labels were kept back to validate on: train with --val-per-class 10.")
        return {"error_validation": _error(model, dataset, rows, "primary"), "images": len(rows)}


def _classifier(table: CodeTable) -> tuple[Any, Dataset]:
    if not hasattr(table.model, "classify") or table.dataset is None:
        raise UsageError("this score needs a method that classifies, such as jade, jade-paired or jade-single.")
    return table.model, table.dataset


def _split(dataset: Any, split: str, role: Role) -> Tensor:
    """Rows of a split; of the primary, or of a data set without a secondary, all rows where it has no splits."""
    if role == "secondary":
        return dataset.secondary_rows(split)
    return dataset.rows_of(split)


def items(dataset: Any, rows: Tensor, role: Role) -> dict[str, Tensor]:
    """`x` and `label` of rows of the primary or the secondary. Raises UsageError for data without labels."""
    batch = dataset.secondary_batch(rows) if role == "secondary" else dataset.batch(rows)
    if "label" not in batch:
        raise UsageError(f"data set '{dataset.name}' has no labels.")
    return batch


@torch.no_grad()
def _error(model: Any, dataset: Dataset, rows: Tensor, role: Role) -> float:
    wrong = torch.zeros((), device=dataset.device)
    renamed = _renamed(model, dataset)
    with eval_mode(model), progress("classifying", len(rows)) as advance:
        for part in rows.split(500):
            batch = items(dataset, part, role)
            wrong += (model.classify(batch["x"]).argmax(1) != renamed[batch["label"]]).sum()
            advance(len(part))
    return float(wrong) / len(rows)


def _renamed(model: Method, dataset: Dataset) -> Tensor:
    """Label of the data set -> the model's class of that name, -1 where it knows none: such items count as errors."""
    known = list(model.spec.classes)
    names = dataset.spec.classes
    return torch.tensor([known.index(n) if n in known else -1 for n in names], device=dataset.device)


@dataclass(frozen=True)
class VarianceConfig:
    """What is looked at."""

    of: Role = option("primary", "whose images are encoded")
    per_class: int = option(500, "test images of each class, at most", paper="500", min=2)
    images: int = option(2500, "random test images, at most", paper="2,500", min=10)


class ContentStyleVariance(Metric[VarianceConfig]):
    """Figure 2: how much each latent varies while the class stays, against how much it varies over all images.

    fixed_content: `[classes, D]` variance of the means within a class over `all`, their variance over random images
    `[D]`; D content dimensions, then style. content_ratio, style_ratio: means of it. ratio: content_ratio over
    style_ratio, 1 where nothing is separated. probe_content, probe_style: accuracy in naming the class from either half
    by logistic regression on half of the images, tested on the others; chance is the largest class.
    """

    headline = "ratio"
    numbers = {
        "ratio": lower(0, chance=1.0, what="content_ratio / style_ratio"),
        "content_ratio": lower(0, what="variance within a class over all"),
        "style_ratio": higher(0, what="variance within a class over all"),
        "probe_content": higher(0, 1, chance="share of the commonest class"),
        "probe_style": lower(0, 1, chance="share of the commonest class"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a method without content and style, and for classes of fewer than two images."""
        model, dataset = table.model, table.dataset
        if not isinstance(model, Jade) or dataset is None:
            raise UsageError("metric 'content-style-variance' scores models of method 'jade'.")
        if self.config.of == "secondary" and not hasattr(dataset, "secondary"):
            raise UsageError(f"data set '{dataset.name}' has no secondary.")
        codes, label = _encoded(model, dataset, self.config.of, seed)
        k = model.config.content
        within = []
        for c in range(len(dataset.spec.classes)):
            mine = codes[label == c][: self.config.per_class]
            within.append(mine.var(0) if len(mine) >= 2 else torch.full((codes.shape[1],), torch.nan))
        if sum(not bool(v.isnan().any()) for v in within) < 2:
            raise UsageError("fewer than two classes have two test images: no variance within a class.")
        some, some_label = codes[: self.config.images], label[: self.config.images]
        total = some.var(0)
        fixed = torch.stack(within) / total.clamp_min(1e-12)
        content, style = (float(part.nanmean()) for part in fixed.split([k, fixed.shape[1] - k], 1))
        result: dict[str, Any] = {
            "ratio": content / style,
            "content_ratio": content,
            "style_ratio": style,
            "probe_content": _probe(some[:, :k], some_label),
            "probe_style": _probe(some[:, k:], some_label),
            "fixed_content": fixed.numpy(),
            "all": total.numpy(),
            "code_names": model.latents.columns,
        }
        return result

    @classmethod
    def pictures(cls, result: Mapping[str, Any]) -> Mapping[str, HeatMap]:
        """The heat map of Figure 2."""
        fixed, total = (np.asarray(result[key], dtype=float) for key in ("fixed_content", "all"))
        return {"variance": HeatMap(fixed, total, list(result["code_names"]))}


@torch.no_grad()
def _encoded(model: Jade, dataset: Dataset, of: Role, seed: int) -> tuple[Tensor, Tensor]:
    """Means of all test images in random order `[N, D]`, content first, and labels `[N]`, on the CPU."""
    rows = _split(dataset, "test", of)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)]
    codes, labels = [], []
    with eval_mode(model), progress("encoding", len(rows)) as advance:
        for part in rows.split(500):
            batch = items(dataset, part, of)
            codes.append(model.infer(batch["x"])[0].cpu())
            labels.append(batch["label"].cpu())
            advance(len(part))
    return torch.cat(codes), torch.cat(labels)


def _probe(codes: Tensor, label: Tensor) -> float:
    """Test accuracy of a linear classifier of standardised codes; half of them train it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    half = len(codes) // 2
    if half < 2 or len(label[:half].unique()) < 2:
        return float("nan")
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(codes[:half], label[:half])
    return float(fitted.score(codes[half:], label[half:]))


class HeatMap:
    """Figure 2: a row of the variances over all images above a row per class. `fixed` `[C, D]`, `total` `[D]`."""

    def __init__(self, fixed: np.ndarray, total: np.ndarray, names: list[str]) -> None:
        self.fixed, self.total, self.names = fixed, total, names

    def png(self) -> bytes:
        """The contents of a PNG file."""
        return self._drawn(".png")

    def svg(self) -> str:
        """The contents of an SVG file."""
        return self._drawn(".svg").decode()

    def pdf(self) -> bytes:
        """The contents of a PDF file."""
        return self._drawn(".pdf")

    def text(self) -> str:
        """Mean of the ratio over classes, one line per latent."""
        mean = np.nanmean(self.fixed, 0)
        return "\n".join(
            f"{n:>12} {v:6.3f} {'#' * round(20 * min(v, 2.0))}" for n, v in zip(self.names, mean, strict=True)
        )

    def _drawn(self, form: str) -> bytes:
        tall = [1, len(self.fixed)]
        figure, ((top,), (bottom,)) = windowless(2, 1, COLUMN, 1.4, sharex=True, height_ratios=tall)
        top.imshow(self.total[None], aspect="auto", cmap="viridis", vmin=0)
        top.set_yticks([0], ["all images"])
        shown = bottom.imshow(
            self.fixed, aspect="auto", cmap="viridis", vmin=0, vmax=max(1.0, float(np.nanmax(self.fixed)))
        )
        bottom.set_yticks(range(len(self.fixed)), [f"class {c}" for c in range(len(self.fixed))])
        bottom.set_xticks(range(len(self.names)), self.names, rotation=90)
        figure.colorbar(shown, ax=[top, bottom], label="variance within the class / over all images")
        top.set_title("variance of the posterior means")
        return as_figure(figure, form)
