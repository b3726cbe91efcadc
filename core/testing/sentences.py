"""Conformance of text: what holds for data of kind `sentence` beyond what holds for all data."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from distk.console import counted
from distk.data import Dataset, DataSpec
from distk.device import seeded


def sentence_checks(dataset: Dataset, again: Callable[[DataSpec], Dataset]) -> dict[str, Callable[[], None]]:
    """Checks by name. again: opens the data set once more for a model with this description."""
    return {
        "ids are of the vocabulary, padding at the end": partial(_ids, dataset),
        "further columns are as the spec describes them": partial(_columns, dataset),
        "a bucket fixes every shape": partial(_shapes, dataset),
        "a model reads its own text as before": partial(_same_again, dataset, again),
    }


def _ids(dataset: Dataset) -> None:
    x = dataset.batch(torch.arange(min(64, len(dataset)), device=dataset.device))["x"]
    size = len(dataset.spec.extra["vocab"])
    assert x.dtype == torch.long, f"x is {x.dtype}, ids are int64"
    assert dataset.spec.range == (0.0, size - 1.0), f"the range is {dataset.spec.range}, the vocabulary has {size}"
    _sound(x, size, "x")


def _sound(ids: Tensor, size: int, name: str) -> None:
    assert 0 <= int(ids.min()) <= int(ids.max()) < size, f"'{name}' has ids outside its vocabulary"
    padding = ids == 0
    assert not bool((padding[:, :-1] & ~padding[:, 1:]).any()), f"'{name}' has padding within a sentence"


def _columns(dataset: Dataset) -> None:
    rows = torch.arange(min(64, len(dataset)), device=dataset.device)
    batch = dataset.batch(rows)
    for name, told in dataset.spec.extra.get("columns", {}).items():
        assert name in batch, f"the spec has a column '{name}', a batch has {sorted(batch)}"
        values = batch[name]
        if "classes" in told:
            assert values.shape == rows.shape, f"'{name}' is {tuple(values.shape)}, a class for each sentence"
            assert -1 <= int(values.min()) <= int(values.max()) < len(told["classes"]), f"'{name}' has other classes"
        else:
            wanted = (len(rows), told["max_len"] + 1)
            assert values.shape == wanted, f"'{name}' is {tuple(values.shape)}, the spec says {wanted}"
            _sound(values, len(told["vocab"]), name)


def _shapes(dataset: Dataset) -> None:
    for bucket in {dataset.bucket(step, 0) for step in range(40)}:
        first, second = (dataset.sample(8, seeded(s, dataset.device), bucket=bucket) for s in (1, 2))
        for name in first:
            assert first[name].shape == second[name].shape, f"bucket {bucket}: '{name}' changes its shape"


def _same_again(dataset: Dataset, again: Callable[[DataSpec], Dataset]) -> None:
    spec = DataSpec.from_dict(json.loads(json.dumps(dataset.spec.to_dict())))
    other = again(spec)
    assert other.spec.to_dict() == spec.to_dict(), "the description is another one"
    rows = torch.arange(len(dataset), device=dataset.device)
    assert len(other) == len(dataset), f"{counted(len(other), 'sentence')}, and {len(dataset)} before"
    first, second = dataset.batch(rows), other.batch(rows)
    for name, values in first.items():
        assert torch.equal(values, second[name]), f"'{name}' is read in another way"
