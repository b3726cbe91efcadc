"""Embeddings held against what is known of the items: neighbours of one label, attributes on one dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from distk.console import progress
from distk.data import Dataset
from distk.errors import DistkError, UsageError
from distk.evaluation import score
from distk.metric import CodeTable
from distk.registry import registry


def label_of(dataset: Dataset, rows: Tensor) -> Tensor:
    """The label of every row, int64 `[n]`. Raises UsageError, naming data sets that have one, where there is none."""
    held = getattr(dataset, "label", None)
    if isinstance(held, Tensor) and held.shape == (len(dataset),):  # no need to draw or read the items for it
        return held[rows].long()
    parts = []
    with progress("reading labels", len(rows)) as advance:
        for part in rows.split(4096):
            found = dataset.batch(part).get("label")
            if found is None or found.dim() != 1:
                raise UsageError(f"data set '{dataset.name}' has no labels; {having('labels')} have them.")
            parts.append(found.long())
            advance(len(part))
    return torch.cat(parts)


def having(tag: str) -> str:
    """Names of the registered data sets of images or vectors with this tag, for a message."""
    named = [e.name for e in registry().entries("dataset") if {"image", "vector"} & set(e.tags) and tag in e.tags]
    return ", ".join(named) or "no data set here"


def recall(table: CodeTable, ks: Sequence[int], distance: str) -> dict[int, float]:
    """Recall@k of the table's own labels (not of a factor), through the registered metric."""
    bare = replace(table, factors=None, factor_names=(), factor_sizes=(), factor_kinds=())
    result = _score(bare, "recall", {"ks": tuple(ks), "distance": distance})
    return {k: float(result[f"recall@{k}"]) for k in ks}


def best_dimensions(table: CodeTable) -> tuple[list[tuple[str, float, str, float]], list[str]]:
    """(attribute, value, best dimension, AUC) of every nonredundant attribute value, and what was left out and why."""
    result = _score(table, "best-dimension-auc", {})
    names = table.factor_names or ("label",)
    columns = ("attribute", "value", "best_dimension", "auc")
    rows = [
        (names[int(attribute)], float(value), result["code_names"][int(best)], float(area))
        for attribute, value, best, area in zip(*(result[c] for c in columns), strict=True)
    ]
    return rows, [f"{key}: {text}" for key, text in result.get("reasons", {}).items()]


def _score(table: CodeTable, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    result = score(table, name, options, 0, 1)
    if "error" in result:
        raise DistkError(f"{name}: {result['error']}")
    return result


def histogram(areas: Sequence[float], width: int = 40) -> list[str]:
    """Lines of a histogram of AUCs from 0.5 to 1 for a terminal; the longest bar has `width` characters."""
    counts = [0] * 10
    for area in areas:
        counts[min(9, max(0, int((area - 0.5) / 0.05)))] += 1
    most = max(counts) or 1
    return [
        f"{0.5 + i / 20:.2f}-{0.55 + i / 20:.2f} {'#' * round(width * n / most):{width}} {n}"
        for i, n in enumerate(counts)
    ]


def neighbours(text: str) -> list[int]:
    """Numbers of neighbours of an option such as "1,5,10", sorted. Raises UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--ks '{text}' is no list of positive whole numbers such as 1,5,10,20.")
    return sorted({int(part) for part in parts})
