"""The beginning of a run: the data set and the method held against each other, the model, and what it starts with."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from distk import checkpoint, evaluation, places
from distk.asked import Asked, asked
from distk.config import flag
from distk.console import counted, note
from distk.data import Dataset, open_dataset
from distk.device import Ranks, channels_last, initialised, stream
from distk.errors import DistkError, UsageError
from distk.memory import afford
from distk.method import Method, eval_mode
from distk.registered import Registration
from distk.registry import registry
from distk.settings import Settings, TrainConfig
from distk.training.soundness import check_items
from distk.training.trainer import Trainer


def build(settings: Settings, device: torch.device, ranks: Ranks, dataset: Dataset | None = None) -> Trainer:
    """Data set (or the one given), model and trainer of these settings.

    Raises UsageError when the method does not take this kind of data, DistkError for items that are not what the data
    set says.
    """
    if dataset is None:
        dataset = opened(settings, device)
    _refuse_unfit(settings, dataset)
    if device.type == "cpu":
        item = 4 * math.prod(dataset.spec.shape)
        # An item, what is made of it, and the gradient: no method gets along with less.
        what, n = (
            f"a batch of {counted(settings.train.batch, 'item')} of {list(dataset.spec.shape)}",
            settings.train.batch,
        )
        afford(3 * n * item, what, "use a smaller --batch")
    check_items(dataset)
    with initialised(settings.train.seed, device):
        try:
            model = settings.method(settings.model, dataset.spec).to(device)
        except ValueError as error:
            raise UsageError(f"method '{settings.entry.name}' with data '{dataset.name}': {error}") from error
    if device.type == "cpu" and not model.closed_form:
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        count = counted(sum(parameter.numel() for parameter in learnt), "parameter")
        size = sum(parameter.numel() * parameter.element_size() for parameter in learnt)
        # Beside the parameters themselves: a gradient, and as a rule two moments.
        afford(3 * size, f"training {count}", "make the network smaller")
    turned = settings.train.channels_last
    if turned == "on" or (turned == "auto" and settings.train.precision != "fp32"):
        channels_last(model)
    model.opens = lambda: dataset  # as `open_model` does for a trained one
    model.accepts(dataset)
    _refuse_small(settings, model, ranks)
    # For layers that draw from the global generator, such as dropout.
    torch.manual_seed(stream(settings.train.seed, "layers"))
    return Trainer(model.train(), dataset, settings.train, ranks)


def _refuse_small(settings: Settings, model: Method, ranks: Ranks) -> None:
    """Raise UsageError for a batch of which a process gets too few items."""
    least = model.least_batch * ranks.world
    if settings.train.batch < least and not model.closed_form:
        among = f" over {counted(ranks.world, 'process', 'processes')}" if ranks.world > 1 else ""
        raise UsageError(
            f"method '{settings.entry.name}' learns from batches of {counted(least, 'item')} or more{among}: use"
            f" --batch {least}."
        )


def opened(settings: Settings, device: torch.device) -> Dataset:
    """The data set of these settings, with the rows taken out of training that `--validation` keeps back.

    Raises UsageError where files are missing and these settings do not take a stand-in for them (preset `paper`).
    """
    dataset = open_dataset(
        settings.data, settings.data_options, device=device, folder=settings.data_dir, where=settings.train.data_on
    )
    if dataset.stand_in is not None and not settings.train.stand_in:
        raise UsageError(
            f"preset 'paper' wants the real '{dataset.name}', whose files were not found: it reads {dataset.reads}. "
            "Name their folder with --data-dir, or take what stands in for them with --stand-in."
        )
    if settings.train.validation:
        dataset.keep_back(settings.train.validation)
    return dataset


def _refuse_unfit(settings: Settings, dataset: Dataset) -> None:
    """Raise UsageError for a data set that does not hold what the method learns from, and say which would."""
    cls, name = settings.method, settings.entry.name
    if dataset.spec.kind not in cls.kinds:
        makers = [
            f"--data {entry.name}:{dataset.name}"
            for entry, made in _attributes("makes")
            if made.get(dataset.spec.kind) in cls.kinds
        ]
        raise UsageError(
            f"method '{name}' learns from {' or '.join(cls.kinds)} data; "
            f"'{dataset.name}' holds {dataset.spec.kind} data{': take ' if makers else ''}{' or '.join(makers)}."
        )
    if cls.reads == ("x",):
        return
    bucket = dataset.bucket(0, settings.train.seed)
    held = dataset.sample(1, torch.Generator(dataset.device).manual_seed(0), bucket=bucket)
    lacking = [key for key in cls.reads if key not in held]
    if lacking:
        serving = [entry.name for entry, gives in _attributes("gives") if set(lacking) <= set(gives)]
        cure = f"use --data {' or '.join(serving)}" if serving else "no installed data set gives it"
        raise UsageError(
            f"method '{name}' reads {' and '.join(lacking)}, which '{dataset.name}' does not give "
            f"(it gives {', '.join(held)}): {cure}."
        )


def _attributes(name: str) -> Iterator[tuple[Registration, Any]]:
    """Every registered data set with an attribute of its class; a plugin that cannot be imported serves nobody."""
    for entry in registry().entries("dataset"):
        with contextlib.suppress(DistkError):
            yield entry, getattr(entry.load(), name, {})


def begin(trainer: Trainer) -> None:
    """What a fresh run begins with: the tensors of `--init-from`, which what `initialise` computes does not replace."""
    held = checkpoint.tensors(Path(trainer.config.init_from)) if trainer.config.init_from else {}
    taken = _take(trainer, held)
    trainer.initialise()
    if held:
        _take(trainer, held)
        own = trainer.model.state_dict()
        note(f"{len(taken)} of {counted(len(own), 'tensor')} begin as in {trainer.config.init_from}")
        left = [name for name in own if name not in taken]
        if left:
            note(f"not there, or of another shape: {', '.join(left[:8])}{' ...' if len(left) > 8 else ''}")


def _take(trainer: Trainer, held: dict[str, torch.Tensor]) -> set[str]:
    """Copy the tensors that agree with the model's in name and shape; their names. Raises UsageError if none does."""
    own = trainer.model.state_dict()
    fitting = {n: v for n, v in held.items() if n in own and own[n].shape == v.shape}
    if held and not fitting:
        raise UsageError(
            f"--init-from '{trainer.config.init_from}': none of its {counted(len(held), 'tensor')} has the name and"
            f" shape of a tensor of the model, such as {next(iter(own))} {list(own[next(iter(own))].shape)}."
        )
    with torch.no_grad():
        for name, value in fitting.items():
            own[name].copy_(value)
    return set(fitting)


def check_kept(trainer: Trainer, kept: Sequence[Asked]) -> None:
    """A score of --keep that this method on these data can never give is found before the first step."""
    for one in kept:
        given = evaluation.named_options(
            trainer.config.eval_option, [*(o.metric for o in asked(trainer.config.eval)), one.metric]
        )
        own = {k.removeprefix(f"{one.metric}."): v for k, v in given.items() if k.startswith(f"{one.metric}.")}
        devices = [trainer.device] if trainer.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), eval_mode(trainer.model):
            options = {**own, **one.settings}
            why = evaluation.never(trainer.model, one.metric, trainer.dataset, options, one.split or "all")
        if why:
            raise UsageError(f"--keep {trainer.config.keep} would never keep anything: {why}")


def score_files(config: TrainConfig, source: str = "") -> None:
    """Remember the files that settings of scores name; of those that the checkpoint `source` names, raise UsageError
    for what the user never named."""
    wanted = asked([*config.eval, *filter(None, [config.keep.partition(":")[2]])])
    shared = evaluation.named_options(config.eval_option, list(dict.fromkeys(one.metric for one in wanted)))
    given = [(*option.rpartition(".")[::2], value) for option, value in shared.items()]
    for metric, key, value in [*given, *((one.metric, k, v) for one in wanted for k, v in one.settings.items())]:
        for _, place in places.settings(registry().find("metric", metric).load().Config, {key: value}):
            if source:
                places.check(place, source, f"distk eval --metric {metric} {flag(key)}")
            places.name(place)
