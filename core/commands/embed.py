"""`distk embed`: the codes of a data set as a file, held against labels and attributes."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import save
from torch import Tensor

from distk import console
from distk.commands.arguments import Seed, Split
from distk.commands.shared import OnData
from distk.console import counted
from distk.data import Dataset, FactorDataset
from distk.embedding import best_dimensions, histogram, label_of, neighbours, recall
from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.latents import LatentSpace
from distk.metric import CodeTable, chosen_rows, encode_table
from distk.study.tables import as_csv

KS = "1,5,10,20"
Neighbours = Annotated[str, typer.Option("--ks", help="Numbers of neighbours of Recall@k, comma-separated.")]


def embed(
    on: OnData,
    split: Split = "all",
    rows: Annotated[int | None, typer.Option(help="At most so many items, drawn once; default: all.", min=1)] = None,
    score: Annotated[
        bool,
        typer.Option("--score", help="Also Recall@k of the labels and the best dimension of every attribute value."),
    ] = False,
    ks: Neighbours = KS,
    seed: Seed = 0,
) -> None:
    """Embed a data set: the codes of a trained model, with the labels and factors of the items.

    Writes embedding.safetensors with `z` [N, K] float32, `class.NAME` [N] int64 for every discrete part of the code,
    `std` [N, K] and `kl` [K] of a Gaussian posterior and, where the data have them, `label` [N] and `factors` [N, F];
    with --score also its .auc.csv. --out NAME.npz writes the same as npz, with `codes` for `z`. Either file goes into
    `distk eval --codes`. Classes are counted, against the labels where there are any. Works for every method that
    encodes.

    Example: distk embed runs/my-run --split test --score
    """
    numbers = neighbours(ks)
    model = on.open("embed", "encode").model
    dataset = on.dataset()
    if score:
        numbers = _servable(dataset, len(chosen_rows(dataset, split, rows, seed)), numbers, ks)
    target = on.beside("embedding.safetensors", ".npz")
    table = encode_table(model, dataset, rows=rows, split=split, seed=seed)
    assert table.rows is not None
    tensors = {"z": table.codes.float(), **classes_of(table, model.latents)}
    try:
        tensors["label"] = label_of(dataset, table.rows)
    except UsageError:
        console.note(f"data set '{dataset.name}' has no label")
    if table.factors is not None:
        tensors["factors"] = table.factors
    tensors |= {name: value for name, value in (("std", table.std), ("kl", table.kl)) if value is not None}
    write_atomic(target, _contents({k: v.cpu().contiguous() for k, v in tensors.items()}, table, target.suffix))
    counts = {
        group.name: contingency(tensors[f"class.{group.name}"], group.size, tensors.get("label"), dataset.spec.classes)
        for group in model.latents
        if group.kind == "categorical" and not group.steps
    }
    scores = _scores(table, numbers, getattr(model, "distance", "l2"), target, "label" in tensors) if score else {}
    if on.json:
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        console.emit_json({"file": str(target), "tensors": shapes, "classes": counts, **scores})
        return
    for name, held in counts.items():
        show_classes(name, held)
    if score:
        show_recall([("", scores["recall"])])
        if scores["auc"]:
            show_auc(scores["auc"])
    console.say(target)


def _contents(tensors: dict[str, Tensor], table: CodeTable, suffix: str) -> bytes:
    """A file of codes, as `distk.codefile` reads it."""
    factors = {"factor_names": list(table.factor_names), "factor_kinds": list(table.factor_kinds)}
    words = {"code_names": table.names, "code_kinds": table.kinds, **(factors if "factors" in tensors else {})}
    if suffix.lower() != ".npz":
        return save(tensors, metadata={name: json.dumps(value) for name, value in words.items()})
    held = io.BytesIO()
    arrays: dict[str, Any] = {"codes" if name == "z" else name: value.numpy() for name, value in tensors.items()}
    arrays |= {name: np.array(value) for name, value in words.items()}
    np.savez(held, **arrays)
    return held.getvalue()


def classes_of(table: CodeTable, latents: LatentSpace) -> dict[str, Tensor]:
    """`class.NAME` -> the most probable class of every item, int64 `[N]`; `[N, steps]` for one per time step."""
    found = {}
    for group in latents:
        if group.kind == "categorical":
            index = table.codes[:, [table.names.index(column) for column in group.columns]].long()
            found[f"class.{group.name}"] = index if group.steps else index[:, 0]
    return found


def contingency(index: Tensor, size: int, label: Tensor | None, names: tuple[str, ...]) -> dict[str, Any]:
    """How many items have each class, and each label within it.

    index: classes int64 `[N]` below `size`. label: int64 `[N]`, at least 0, or None. names: of the labels, where known.
    Gives counts `[size]`, contingency `[size, labels]` or None, and the labels' names.
    """
    counts = torch.bincount(index, minlength=size).tolist()
    if label is None:
        return {"counts": counts, "contingency": None, "labels": []}
    kinds = max(int(label.max()) + 1, len(names))
    together = torch.bincount(index * kinds + label, minlength=size * kinds).view(size, kinds)
    labels = [names[k] if k < len(names) else f"label {k}" for k in range(kinds)]
    return {"counts": counts, "contingency": together.tolist(), "labels": labels}


def show_classes(name: str, held: dict[str, Any], what: str = "items") -> None:
    """Print what `contingency` gives, a row per class."""
    shares = held["contingency"] or [[] for _ in held["counts"]]
    rows = [(k, n, *share) for k, (n, share) in enumerate(zip(held["counts"], shares, strict=True))]
    console.table(name, ["class", what, *held["labels"]], rows)


def _servable(dataset: Dataset, items: int, ks: list[int], text: str) -> list[int]:
    """The numbers of neighbours that so many items can have. Raises UsageError, before anything is encoded, where the
    user asked for more, and where nothing is known of the items."""
    if max(ks) >= items and text != KS:
        raise UsageError(
            f"--ks {max(ks)} asks for as many neighbours, but each of {counted(items, 'item')} has {items - 1:,}."
        )
    categorical = isinstance(dataset, FactorDataset) and "categorical" in dataset.factor_kinds
    try:
        label_of(dataset, torch.zeros(1, dtype=torch.long, device=dataset.device))
    except UsageError as error:
        if not categorical:
            raise UsageError(f"--score needs a label or a categorical factor. {_sentence(error)}") from error
    return [k for k in ks if k < items]


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _scores(table: CodeTable, ks: list[int], distance: str, target: Path, labelled: bool) -> dict[str, Any]:
    """Recall@k where there are labels, and the best dimension of every attribute value, also as CSV beside `target`."""
    found: dict[str, Any] = {"distance": distance, "recall": {}, "auc": [], "auc_file": None}
    wrong = []
    try:
        found["auc"], left_out = best_dimensions(table)
    except DistkError as error:  # of discrete codes alone, for one, there is no best dimension
        wrong.append(str(error))
    else:
        for reason in left_out:
            console.note(reason)
        found["auc_file"] = str(target.with_suffix(".auc.csv"))
        write_atomic(target.with_suffix(".auc.csv"), as_csv(("attribute", "value", "best_dim", "auc"), found["auc"]))
    try:
        found["recall"] = recall(table, ks, distance) if labelled and ks else {}
    except DistkError as error:
        wrong.append(str(error))
    if not found["recall"] and found["auc_file"] is None:
        raise UsageError(f"'{target}' is written, but --score has nothing to say of it: {' '.join(wrong)}")
    for reason in wrong:
        console.warn(reason)
    return found


def show_recall(rows: list[tuple[str, dict[int, float]]]) -> None:
    """Print Recall@k, a row per (name, {k: share})."""
    if rows and rows[0][1]:
        console.table(
            "", ["", *(f"recall@{k}" for k in rows[0][1])], [(name, *shares.values()) for name, shares in rows]
        )


def show_auc(areas: list[tuple[str, float, str, float]]) -> None:
    """Print rows (attribute, value, best dimension, AUC), their mean and median, and a histogram."""

    values = [area for *_, area in areas]
    console.table("", ["attribute", "value", "best dimension", "AUC"], areas)
    middle = f"mean {statistics.fmean(values):.3f}, median {statistics.median(values):.3f}"
    console.note(f"AUC of the best dimension: {middle}, above 0.95: {sum(v > 0.95 for v in values) / len(values):.0%}")
    for line in histogram(values):
        console.say(line)
