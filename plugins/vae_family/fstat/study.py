"""The experiment of Ridgeway & Mozer 2017, sections 2 and 3: losses x folds, split by identity, with early stopping.

A row of the study is a loss on a fold. Seed s is fold `s % folds` of split `s // folds`: with five folds the seeds 0 to
4 are one cross-validation, 5 to 9 another, of another permutation of the identities.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distk import Dataset, UsageError, encode_table, open_dataset, option
from distk.console import counted, note, progress
from distk.device import Ranks, choose_device
from distk.embedding import best_dimensions, label_of, recall
from distk.errors import DistkError
from distk.files import write_atomic
from distk.plugins.vae_family.fstat.figures import distributions
from distk.plugins.vae_family.fstat.method import Embedding
from distk.settings import Settings
from distk.study.protocol import Row, StudyRun, runner
from distk.study.tables import as_csv, write_figure
from distk.training.beginning import build

KS = (1, 5, 10, 20)
"""Neighbours of Recall@k."""
AREAS = ("variant", "seed", "attribute", "value", "best_dim", "auc")
"""Columns of auc.csv."""


@dataclass(frozen=True)
class Config:
    """Settings of the runner."""

    folds: int = option(5, "folds over the identities", paper="5", min=2, max=20)
    first_seed: int = option(0, "seed of the first split and of the training on its folds", min=0)
    every: int = option(250, "steps between validations", min=1)
    patience: int = option(20, "validations without a better one before a run stops", min=1)


@dataclass
class Cell:
    """One loss on one fold: recall of unseen identities, and the best dimension's AUC of every attribute value.

    recall: k -> share of the test images. auc: rows (attribute, value, best dimension, AUC) over the whole data set.
    step: of the weights that were kept. stopped: the last step. valid: their Recall@1 on the validation identities.
    """

    step: int
    stopped: int
    valid: float
    recall: dict[int, float]
    auc: list[tuple[str, float, str, float]]

    def row(self) -> Row:
        """The columns of results.csv; shares as per cent."""
        areas = [area for *_, area in self.auc]
        return {
            **{f"recall@{k}": 100 * hits for k, hits in self.recall.items()},
            "auc mean": statistics.fmean(areas),
            "auc median": statistics.median(areas),
            "auc above 0.95": 100 * sum(area > 0.95 for area in areas) / len(areas),
            "step": self.step,
            "stopped": self.stopped,
            "validation recall@1": 100 * self.valid,
        }


@runner(Config)
def losses(study: StudyRun) -> Iterator[Row]:
    """A row per loss and fold. Keeps auc.csv and auc.png (Figure 3) beside the results, for the runs that are done."""
    todo = study.todo()
    steps = {v.label: study.resolve(v, 0).train.steps for v, _ in todo}
    device = choose_device(study.device)
    opened: dict[str, Dataset] = {}
    with progress("training", sum(steps[v.label] for v, _ in todo)) as advance:
        for variant, seed in sorted(todo, key=lambda pair: pair[1]):
            settings, config = study.resolve(variant, seed), study.settings[variant.label]
            repeat, fold = divmod(seed, config.folds)
            first = config.first_seed + repeat
            settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=first))
            mark = repr((settings.data, settings.data_dir, sorted(settings.data_options.items())))
            if mark not in opened:
                opened.clear()  # one at a time: they may be large
                opened[mark] = open_dataset(
                    settings.data, settings.data_options, device=device, folder=settings.data_dir
                )
            part = folds_of(opened[mark], config.folds, first)[fold]
            cell = train_cell(
                settings,
                view(opened[mark], part),
                config.every,
                config.patience,
                advance,
                lambda: bool(study.stop.signal),
            )
            if cell is None:  # asked to stop: half a run is worth nothing
                return
            _keep(study.out, variant.label, seed, cell)
            done = f"fold {fold}, {variant.label}: step {cell.step} of {cell.stopped}"
            note(f"{done}, validation recall@1 {cell.valid:.3f}, test recall@{KS[0]} {cell.recall[KS[0]]:.3f}")
            yield {"variant": variant.label, "seed": seed, **cell.row()}


def _keep(out: Path, label: str, seed: int, cell: Cell) -> None:
    """Put a run's AUCs into auc.csv, in place of an earlier one of this variant and seed, and draw them all."""
    path = out / "auc.csv"
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        held = [
            line for line in csv.DictReader(io.StringIO(text)) if (line["variant"], line["seed"]) != (label, str(seed))
        ]
        rows = [tuple(line[name] for name in AREAS) for line in held] + [(label, seed, *area) for area in cell.auc]
        areas: dict[str, list[float]] = {}
        for name, *_, area in rows:
            areas.setdefault(str(name), []).append(float(area))
    except (OSError, ValueError, KeyError) as error:
        raise DistkError(f"'{path}' is no table of AUCs ({type(error).__name__}): remove it.") from error
    write_atomic(path, as_csv(AREAS, rows))
    write_figure(out / "auc.png", distributions(areas))


def folds_of(dataset: Dataset, folds: int, seed: int) -> list[dict[str, Tensor]]:
    """For each fold the rows of `train`, `val` and `test`; no two of them share an identity.

    The test holds every `folds`-th identity of a permutation, the validation a fifth of the others.
    """
    everything = torch.arange(len(dataset), device=dataset.device)
    kinds, identity = label_of(dataset, everything).unique(return_inverse=True)
    if len(kinds) < 5 * folds:
        raise UsageError(
            f"{counted(folds, 'fold')} need at least {counted(5 * folds, 'identity', 'identities')}; '{dataset.name}'"
            f" has {len(kinds)}."
        )
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
    every: int,
    patience: int,
    advance: Callable[..., None] = lambda n: None,
    stopped: Callable[[], bool] = lambda: False,
    ks: Sequence[int] = KS,
) -> Cell | None:
    """Train one loss on a view of the data and score the weights that were best on its validation identities.

    every: steps between validations. patience: validations without a better one after which training stops.
    advance: called with steps done. stopped: asked before every step; None is returned where it says yes.
    Raises NonFinite, naming the step, for a loss that is no longer a number, and UsageError for another kind of method.
    """
    trainer = build(settings, dataset.device, Ranks(), dataset)
    model = trainer.model
    if not isinstance(model, Embedding):
        raise UsageError(f"method '{settings.entry.name}' is none of fstat, triplet, histloss, bindev.")
    best, kept, at, waited = -math.inf, {}, 0, 0
    while trainer.index < settings.train.steps and waited < patience:
        if stopped():
            return None
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
    return Cell(at, trainer.index, best, hits, areas)
