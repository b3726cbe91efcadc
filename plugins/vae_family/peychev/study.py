"""How beta affects disentanglement and classification, the sweeps of Peychev et al. (2017): beta-shapes, beta-mnist.

A variant is a method, its beta and its other settings; its models train side by side with those of the same network,
fraction of the data and learning rate, `parallel` at a time, and their rows are yielded when the group is done.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from distk import Dataset, UsageError, choose_device, open_dataset, option
from distk.checkpoint import header_for, save
from distk.console import note, progress
from distk.device import initialised
from distk.plugins.vae_family.peychev.ensemble import Ensemble, Member, Outcome, Plan
from distk.plugins.vae_family.peychev.method import NO_KL
from distk.plugins.vae_family.peychev.study_data import (
    MNIST_FILES,
    Data,
    code_table,
    posterior,
    split,
    subset,
    svm_accuracy,
)
from distk.registry import registry
from distk.settings import Settings
from distk.study.plan import folder_name
from distk.study.protocol import Row, StudyRun, runner
from distk.study.recipe import Variant


@dataclass(frozen=True)
class Training:
    """What both studies set."""

    parallel: int = option(8, "models that train side by side, as one stacked program", min=1, max=1024)
    epochs: int = option(500, "at most so many", paper="500 (code)", min=1)
    patience: int = option(5, "epochs in a row without improvement before a model stops", paper="5 (code)", min=0)
    keep_models: bool = option(True, "write a checkpoint per model, into models/")


@dataclass(frozen=True)
class ShapesConfig(Training):
    """Settings of `beta-shapes`."""

    lr_beta0: float | None = option(
        None, "learning rate where beta is 0; none: that of the others", paper="3e-5 (code)", above=0
    )
    pairs: int = option(50_000, "pairs of the score", paper="50,000 (code)", min=20, max=10_000_000)


@dataclass(frozen=True)
class MnistConfig(Training):
    """Settings of `beta-mnist`."""

    fraction: float = option(1.0, "share of the training images, for the autoencoder and the SVM", above=0, max=1)
    codes: Literal["sample", "mean", "both"] = option("sample", "what the SVM gets", paper="sample (code)")
    svm_max: int = option(0, "the SVM learns from at most so many images; 0: all", min=0)


@dataclass(frozen=True)
class Job:
    """One model. lr: its learning rate. options: the runner's settings of its variant."""

    variant: Variant
    seed: int
    settings: Settings
    options: Any

    @property
    def lr(self) -> float:
        """Its learning rate: at beta 0 that of `lr_beta0`, where it is given."""
        other = getattr(self.options, "lr_beta0", None)
        return float(other if other is not None and self.settings.model.beta < NO_KL else self.settings.model.lr)

    @property
    def alike(self) -> tuple[str, ...]:
        """What all models of a group share."""
        model = dataclasses.replace(self.settings.model, beta=0.0, lr=self.lr)
        parts = (self.settings.entry.name, model, self.settings.data, self.settings.data_dir, self.options)
        return (*map(repr, parts), repr(self.settings.data_options), str(self.settings.train.batch))


Score = Callable[[Job, Outcome, torch.Tensor, Data], dict[str, Any]]


@runner(ShapesConfig)
def shapes(study: StudyRun) -> Iterator[Row]:
    """Change-one-factor accuracy of every model's codes."""
    return _rows(study, _disentanglement)


@runner(MnistConfig)
def mnist(study: StudyRun) -> Iterator[Row]:
    """Accuracy of an SVM on every model's codes."""
    return _rows(study, _classification)


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """The models in groups that train side by side: of one network, data and learning rate, `parallel` at most."""
    found = []
    for _, same in itertools.groupby(jobs, key=lambda job: job.alike):
        each = list(same)
        size = each[0].options.parallel
        found += [each[i : i + size] for i in range(0, len(each), size)]
    return found


def _rows(study: StudyRun, score: Score) -> Iterator[Row]:
    """Train and score what is not there yet. A group that is interrupted between two epochs is left out whole."""
    jobs = [Job(v, seed, study.resolve(v, seed), study.settings[v.label]) for v, seed in study.todo()]
    data: Data | None = None
    held: Settings | None = None
    with progress("models", len(jobs)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:

        def watch(epoch: int, left: int) -> None:
            advance(0, f"epoch {epoch}, {left} side by side")
            if study.stop.signal:
                raise _Stopped

        for group in groups(jobs):
            first = group[0].settings
            if data is None or held is None or _source(held) != _source(first):
                data, held = _open(first, study.device), first
            try:
                trained = _train(group, data, watch)
            except _Stopped:
                return
            scored = pool.map(lambda one, data=data: score(one[0], one[1], one[2], data), trained)
            for (job, outcome, _), values in zip(trained, scored, strict=True):
                if job.options.keep_models:
                    _save(study.out, job, outcome, data)
                yield _row(job, outcome, values, len(group))
            advance(len(group), "")


class _Stopped(Exception):
    """The study was asked to stop while a group trained."""


def _source(settings: Settings) -> tuple[Any, ...]:
    return settings.data, settings.data_dir, settings.data_options


def _open(settings: Settings, device: str) -> Data:
    name = settings.data
    dataset = open_dataset(name, settings.data_options, device=choose_device(device), folder=settings.data_dir)
    if getattr(dataset, "stand_in", None) is not None:
        raise UsageError(
            f"no files of {name} were found: name the folder of {MNIST_FILES} with --set data.dir=DIR, or take the "
            "drawn digits with --set data.name=digits-aug."
        )
    note(f"data {dataset.name}: {dataset.origin}")
    return split(dataset)


def _train(
    group: Sequence[Job], data: Data, watch: Callable[[int, int], None]
) -> list[tuple[Job, Outcome, torch.Tensor]]:
    """Train a group; (job, what became of it, the rows it learned from)."""
    rows = [subset(data, getattr(job.options, "fraction", 1.0), job.seed) for job in group]
    models = [_model(job, data.dataset) for job in group]
    members = [Member(model, own, job.seed) for model, own, job in zip(models, rows, group, strict=True)]
    first = group[0]
    plan = Plan(first.settings.train.batch, first.lr, first.options.epochs, first.options.patience)
    outcomes = dict(Ensemble(members, data.dataset, data.validation, plan).train(watch))
    return [(job, outcomes[m], rows[m]) for m, job in enumerate(group)]


def _model(job: Job, dataset: Dataset) -> Any:
    config = dataclasses.replace(job.settings.model, lr=job.lr)
    try:
        with initialised(job.seed, dataset.device):
            return job.settings.method(config, dataset.spec).to(dataset.device)
    except ValueError as error:
        raise UsageError(f"variant '{job.variant.label}' with data '{dataset.name}': {error}.") from error


def _row(job: Job, outcome: Outcome, values: dict[str, Any], size: int) -> Row:
    """A row of results; one of a diverged model has no scores, so that means leave it out."""
    sound = outcome.sound
    return {
        "variant": job.variant.label,
        "seed": job.seed,
        **{name: value if sound else None for name, value in values.items()},
        "recon": outcome.reconstruction if sound else None,
        "kl": outcome.kl if sound else None,
        "diverged": 0 if sound else 1,
        "epochs": outcome.epochs,
        "network": job.variant.group or job.variant.label,
        "beta": job.settings.model.beta,
        "fraction": getattr(job.options, "fraction", 1.0),
        "seconds": outcome.seconds / size,
    }


def _save(out: Path, job: Job, outcome: Outcome, data: Data) -> None:
    """A checkpoint like that of `distk train`, for traverse, eval and the others."""
    settings = job.settings
    source = {"name": settings.data, "options": settings.data_options, "folder": settings.data_dir}
    source["origin"] = data.dataset.origin
    header = header_for(outcome.model, settings.entry, source, outcome.epochs, job.seed, {})
    (out / "models").mkdir(exist_ok=True)
    save(out / "models" / f"{folder_name(job.variant.label)}_s{job.seed}.safetensors", outcome.model, header)


def _disentanglement(job: Job, outcome: Outcome, rows: torch.Tensor, data: Data) -> dict[str, Any]:
    """Change-one-factor accuracy on clean images; the pairs are the same for every model."""
    if not outcome.sound:
        return {"disentanglement": None, "collisions": None}
    metric = registry().find("metric", "change-one-factor").load()
    found = metric(metric.Config(pairs=job.options.pairs)).compute(code_table(outcome.model, data.dataset), 0)
    return {"disentanglement": found["eval"], "collisions": found["collisions"]}


def _classification(job: Job, outcome: Outcome, rows: torch.Tensor, data: Data) -> dict[str, Any]:
    """Accuracy of an SVM on all test codes, taught with the codes of the images that the model learned from."""
    found: dict[str, Any] = {"accuracy_sample": None, "accuracy_mean": None, "svm_rows": None}
    if not outcome.sound:
        return found
    generator = torch.Generator().manual_seed(job.seed)
    most = job.options.svm_max
    if most and len(rows) > most:
        rows = rows[torch.randperm(len(rows), generator=generator)[:most].to(rows.device)]
    taught, tested = posterior(outcome.model, rows, data), posterior(outcome.model, data.test, data)
    for kind in ("sample", "mean"):
        if job.options.codes in (kind, "both"):
            noise = 1.0 if kind == "sample" else 0.0
            x, y = (c[0] + noise * c[1] * torch.randn(c[0].shape, generator=generator) for c in (taught, tested))
            found[f"accuracy_{kind}"] = svm_accuracy(x, taught[2], y, tested[2])
    return {**found, "svm_rows": len(rows)}
