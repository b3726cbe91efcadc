"""The experiment of Ridgeway & Mozer 2017, sections 2 and 3: losses x folds, split by identity, with early stopping."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import Dataset, UsageError, encode_table
from distk.device import Ranks
from distk.embedding import best_dimensions, label_of, recall
from distk.plugins.vae_family.fstat.method import Embedding
from distk.registry import registry
from distk.settings import Settings, resolve, split_options
from distk.study.tables import as_png
from distk.training.loop import build


@dataclass
class Cell:
    """One loss on one fold: recall of unseen identities, and the best dimension's AUC of every attribute value.

    recall: k -> share of the test images. auc: rows (attribute, value, best dimension, AUC) over the whole data set.
    step: of the weights that were kept. stopped: the last step. valid: their Recall@1 on the validation identities.
    """

    loss: str
    fold: int
    step: int
    stopped: int
    valid: float
    recall: dict[int, float]
    auc: list[tuple[str, float, str, float]]


def settings_of(losses: Sequence[str], data: str, values: Mapping[str, Any]) -> list[Settings]:
    """Settings of each loss; each takes those of `values` that it has, and some loss must have each.

    Raises UsageError for a method that is no embedding of this family and for settings that none has.
    """
    dataset = registry().find("dataset", data.partition(":")[0]).load()
    made, unknown = [], dict.fromkeys(values, True)
    for name in losses:
        cls = registry().find("method", name).load()
        if not issubclass(cls, Embedding):
            raise UsageError(f"--losses: '{name}' is none of fstat, triplet, histloss, bindev.")
        kept = {}
        for key, value in values.items():
            try:
                split_options(cls, dataset, {key: value})
            except UsageError:
                continue
            kept[key], unknown[key] = value, False
        made.append(resolve(name, options=split_options(cls, dataset, {**kept, "data": data})))
    for key in (key for key, lost in unknown.items() if lost):
        raise UsageError(f"neither the losses {', '.join(losses)} nor data set '{data}' have the setting '{key}'.")
    return made


def folds_of(dataset: Dataset, folds: int, seed: int) -> list[dict[str, Tensor]]:
    """For each fold the rows of `train`, `val` and `test`; no two of them share an identity.

    The test holds every `folds`-th identity of a permutation, the validation a fifth of the others.
    """
    everything = torch.arange(len(dataset), device=dataset.device)
    kinds, identity = label_of(dataset, everything).unique(return_inverse=True)
    if len(kinds) < 5 * folds:
        raise UsageError(f"{folds} folds need at least {5 * folds} identities; '{dataset.name}' has {len(kinds)}.")
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed))
    found = []
    for fold in range(folds):
        rest = torch.cat([order[i::folds] for i in range(folds) if i != fold])
        rest = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed + 1 + fold))]
        cut = len(rest) // 5
        parts = {"test": order[fold::folds], "val": rest[:cut], "train": rest[cut:]}
        found.append({k: torch.isin(identity, v.to(identity.device)).nonzero()[:, 0] for k, v in parts.items()})
    return found


def view(dataset: Dataset, rows: dict[str, Tensor]) -> Dataset:
    """The same data with other splits; "all" stays all."""
    made = copy.copy(dataset)
    made.__dict__["rows"] = rows.get
    return made


def train_cell(
    settings: Settings,
    dataset: Dataset,
    fold: int,
    ks: Sequence[int],
    every: int,
    patience: int,
    advance: Callable[..., None] = lambda n: None,
) -> tuple[Cell, Embedding]:
    """Train one loss on a view of the data and score the weights that were best on its validation identities.

    every: steps between validations. patience: validations without a better one after which training stops.
    advance: called with steps done. Raises NonFinite, naming the step, for a loss that is no longer a number.
    """
    trainer = build(settings, dataset.device, Ranks(), dataset)
    model = trainer.model
    assert isinstance(model, Embedding)
    best, kept, at, waited = -math.inf, {}, 0, 0
    while trainer.index < settings.train.steps and waited < patience:
        trainer.step()
        advance(1)
        if trainer.index % every and trainer.index < settings.train.steps:
            continue
        trainer.check_health()
        found = recall(encode_table(model, dataset, split="val"), (1,), model.distance)[1]
        waited += 1
        if found > best:
            best, at, waited = found, trainer.index, 0
            kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    advance(settings.train.steps - trainer.index)
    hits = recall(encode_table(model, dataset, split="test"), ks, model.distance)
    areas, _ = best_dimensions(encode_table(model, dataset))
    return Cell(settings.entry.name, fold, at, trainer.index, best, hits, areas), model


def summary(cells: Sequence[Cell], ks: Sequence[int]) -> list[dict[str, Any]]:
    """Per loss: mean and standard error over the folds of Recall@k; mean, median, share above 0.95 of all AUCs."""
    found = []
    for loss in dict.fromkeys(cell.loss for cell in cells):
        own = [cell for cell in cells if cell.loss == loss]
        areas = [area for cell in own for *_, area in cell.auc]
        row: dict[str, Any] = {"loss": loss, "folds": len(own)}
        for k in ks:
            values = [cell.recall[k] for cell in own]
            row[f"recall@{k}"] = statistics.fmean(values)
            row[f"recall@{k}_se"] = statistics.stdev(values) / math.sqrt(len(own)) if len(own) > 1 else math.nan
        row |= {
            "auc_mean": statistics.fmean(areas),
            "auc_median": statistics.median(areas),
            "auc_above_0.95": sum(area > 0.95 for area in areas) / len(areas),
            "auc_median_per_fold": [statistics.median(area for *_, area in cell.auc) for cell in own],
        }
        found.append(row)
    return found


def figure(cells: Sequence[Cell]) -> bytes:
    """Figure 3 of the paper as a PNG: for each loss the distribution of the AUCs over values and folds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = list(dict.fromkeys(cell.loss for cell in cells))
    drawing = Figure(figsize=(2.8 * len(losses), 2.6), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(1, len(losses), sharey=True, squeeze=False)[0]
    for axis, loss in zip(axes, losses, strict=True):
        areas = [area for cell in cells if cell.loss == loss for *_, area in cell.auc]
        axis.hist(areas, bins=[0.5 + i / 20 for i in range(11)], color="#4878a8", edgecolor="white")
        axis.axvline(statistics.median(areas), color="#c04030", linewidth=1)
        axis.set_title(f"{loss} (median {statistics.median(areas):.2f})", fontsize=9)
        axis.set_xlabel("AUC of the best dimension", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("attribute values x folds", fontsize=8)
    return as_png(drawing)
