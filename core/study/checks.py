"""Whether the columns of a study can be filled, and how large its models are, before anything trains."""

from __future__ import annotations

import fnmatch
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from distk.asked import from_settings
from distk.data import Dataset
from distk.device import Ranks
from distk.errors import UsageError, nearest, unknown
from distk.evaluation import evaluate, metric_settings
from distk.registry import registry
from distk.study.plan import Plan
from distk.study.recipe import Column
from distk.study.timing import Expected
from distk.training.beginning import build, opened
from distk.training.loop import check_evaluation
from distk.training.trainer import Trainer

ROWS = 512
"""Items on which a metric is tried."""


@dataclass
class Preview:
    """What is known before training. sizes: parameters by variant. empty: column -> why no variant may fill it.
    expected: seconds of a step by variant, where they were measured."""

    sizes: dict[str, int] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)
    expected: Expected = field(default_factory=Expected)


def preview(made: Plan, timed: bool = False) -> Preview:
    """Build every variant's model once, on the CPU, and try the columns that are not known to exist.

    timed: also train a few steps of each variant, to say how long the study will take on this CPU.
    Raises UsageError, each time one sentence, for a column whose metric is not registered or does not give that number,
    a setting that the metric does not have, an option for a metric that no column uses, and a method that does not
    learn from these data. A metric that fails on every untrained model leaves its columns open (`empty`).
    """
    grid = made.runner is None
    columns = [c for c in made.recipe.columns if c.ours] if grid else []
    for column in columns:
        _registered(made, column)
    if grid:
        _options_used(made)
    elif made.recipe.options:
        first = next(iter(made.recipe.options))
        raise UsageError(f"study '{made.recipe.name}' scores in a way of its own: [options.{first}] would do nothing.")
    open_ = {c.name: c for c in columns if not _declared(c)}
    gives: dict[str, set[str]] = {}
    found = Preview()
    sets: dict[str, Dataset] = {}
    for variant in made.variants:
        if not variant.method or (not grid and not variant.model and not made.recipe.model):
            continue  # a runner brings networks of its own
        trainer, data = _built(made, variant.label, sets)
        model = trainer.model.eval()
        found.sizes[variant.label] = sum(p.numel() for p in model.parameters())
        made.starts[variant.label] = initial_gain(model)
        for name, column in list(open_.items()):
            result = _tried(made, column, model, data)
            if "error" in result:
                found.empty[name] = result["error"]
            elif column.key in result:
                del open_[name]
            else:
                gives.setdefault(name, set()).update(k for k, v in result.items() if isinstance(v, (int, float)))
        if timed and grid:
            model.train()
            found.expected.measure(variant.label, variant.method, trainer)
    for name, column in open_.items():
        if name in gives:
            raise unknown(f"number of the metric '{column.metric}' in column '{name}'", column.key, gives[name])
    made.sizes = found.sizes
    found.empty = {name: why for name, why in found.empty.items() if name in open_}
    return found


def initial_gain(model: nn.Module) -> float | None:
    """How large a model's weights are, before any step: the median over its weight matrices and kernels of their root
    mean square times the square root of the fan-in, to two digits; None where it has none.

    PyTorch's own start gives 0.58 (a uniform distribution up to 1 / sqrt(fan-in)), He's 1.4, Glorot's about 1.
    """
    found = [
        float(p.detach().square().mean().sqrt()) * math.sqrt(math.prod(p.shape[1:]))
        for p in model.parameters()
        if p.dim() > 1 and p.numel()
    ]
    return round(statistics.median(found), 2) if found else None


def _registered(made: Plan, column: Column) -> None:
    metric, key = column.metric, column.key
    if not key:
        raise UsageError(
            f"column '{column.name}' names no number of a metric; write METRIC.KEY, for example clsacc.hungarian."
        )
    try:
        metric_settings(metric, made.options(column))
    except UsageError as error:
        raise UsageError(f"column '{column.name}': {error}") from error


def _options_used(made: Plan) -> None:
    recipe = made.recipe
    used = {n for c in recipe.columns if c.ours for n in _names(c.metric)}
    for name in recipe.options:
        if name not in used:
            raise UsageError(
                f"study '{recipe.name}': [options.{name}] is of a metric that no column uses.{nearest(name, used)}"
            )


def _names(metric: str) -> tuple[str, ...]:
    entry = registry().find("metric", metric)
    return (entry.name, *entry.aliases)


def _declared(column: Column) -> bool:
    """Whether the metric says that it gives this number: its headline, or one of its `numbers` and `keys`.

    Raises UsageError where it lists its numbers and this is none of them.
    """
    cls = registry().find("metric", column.metric).load()
    if column.key == cls.headline:
        return True
    known = cls.declared()
    if known and not any(fnmatch.fnmatchcase(column.key, pattern) for pattern in known):
        raise unknown(f"number of the metric '{column.metric}' in column '{column.name}'", column.key, known)
    return bool(known)


def _built(made: Plan, label: str, sets: dict[str, Dataset]) -> tuple[Trainer, Dataset]:

    settings = made.settings(made.recipe.variant(label), made.seeds[0])
    device = torch.device("cpu")
    mark = repr((settings.data, settings.data_dir, sorted(settings.data_options.items()), settings.train.validation))
    if mark not in sets:
        sets.clear()  # one at a time: they may be large
        sets[mark] = opened(settings, device)
    try:
        check_evaluation(settings.train, sets[mark])
        scored = made.recipe.columns if made.runner is None else ()  # a runner's columns are no metrics
        for split in {str(made.options(c)["split"]) for c in scored if c.ours and "split" in made.options(c)}:
            sets[mark].rows(split)
        trainer = build(settings, device, Ranks(), sets[mark])
    except UsageError as error:
        raise UsageError(f"variant '{label}': {error}") from error
    return trainer, sets[mark]


def _tried(made: Plan, column: Column, model: Any, data: Dataset) -> Mapping[str, Any]:
    """What a metric gives for an untrained model."""
    name, options = metric_settings(column.metric, made.options(column))
    with torch.random.fork_rng(devices=[]):
        return evaluate(model, [from_settings(name, options)], data=data, rows=min(ROWS, len(data)), repeats=1)[
            "metrics"
        ][options.get("label") or name]
