"""Agreement of two partitions: the adjusted Rand index, of items and of the pixels of pictures made of slots."""

from __future__ import annotations

import torch
from torch import Tensor

from distk.console import counted

from . import checks
from .blocks import most, spans
from .checks import Array, Result
from .solvers import contingency


def adjusted_rand(tables: Tensor) -> Tensor:
    """Adjusted Rand index (Hubert & Arabie 1985) of contingency tables `[..., A, B]`, float64 `[...]`.

    (pairs together in both - expected) / (mean of either - expected), at most 1, 0 for independent partitions. 1 where
    both put everything into one class or every item into its own. NaN for a table without two items.
    """

    def pairs(counts: Tensor) -> Tensor:
        return counts * (counts - 1) / 2

    total = pairs(tables.sum((-2, -1)))
    both = pairs(tables).sum((-2, -1))
    rows, columns = pairs(tables.sum(-1)).sum(-1), pairs(tables.sum(-2)).sum(-1)
    expected = rows * columns / total
    spread = (rows + columns) / 2 - expected
    same = (both == rows) & (both == columns)  # each class of one is a class of the other
    index = (both - expected) / torch.where(spread == 0, 1, spread)
    return torch.where(total == 0, torch.nan, torch.where(same, 1.0, index))


def rand_index(code_index: Array, label: Array) -> Result:
    """Adjusted Rand index of a discrete code [n] and labels [n]: class indices in any order. Key: ari."""
    code, truth = checks.labels_1d(code_index, "code_index"), checks.labels_1d(label, "label")
    truth = truth.to(code.device)
    if len(code) != len(truth):
        raise ValueError(f"code_index has {counted(len(code), 'row')} but label has {len(truth)}")
    if int(truth.max()) == 0:
        raise ValueError("label is constant: there is one partition only")
    return {"ari": float(adjusted_rand(contingency(code, truth, (int(code.max()) + 1, int(truth.max()) + 1))))}


def slots(masks: Array, truth: Array, background: int | None = 0) -> Result:
    """Adjusted Rand index of the pixels' slots against their objects, a picture at a time (Greff et al. 2019).

    masks: slot of each pixel int [n, ...], or weights of S slots float [n, S, ...], of which the largest counts.
    truth: object of each pixel, int [n, ...]. ari is over all pixels, fg_ari over those whose object is not
    `background` (None: fg_ari = ari). Means over the pictures; a picture without two foreground pixels is left out of
    fg_ari. Keys: ari, fg_ari, ari_per_image [n], fg_ari_per_image [n].
    """
    predicted, objects = checks.tensor(masks), checks.tensor(truth)
    weights = predicted.ndim == objects.ndim + 1
    slot_of = predicted[:, 0] if weights and predicted.shape[1] else predicted
    if slot_of.shape != objects.shape or objects.ndim < 2:
        shape = (len(predicted), *predicted.shape[2:]) if weights else predicted.shape
        raise ValueError(f"masks have shape {tuple(shape)} but truth {tuple(objects.shape)}")
    found = []
    for at in spans(len(objects), predicted[:1].numel(), most(objects)):
        some = predicted[at].argmax(1) if weights else predicted[at]
        a, b = some.long().flatten(1).to(objects.device), objects[at].long().flatten(1)
        if bool((b < 0).any()) or bool((a < 0).any()):
            raise ValueError("slots and objects must be numbers from 0")
        everything = torch.ones_like(b, dtype=torch.bool)
        front = everything if background is None else b != background
        found.append(torch.stack([adjusted_rand(_tables(a, b, keep)) for keep in (everything, front)]))
    whole, part = torch.cat(found, 1)
    result: Result = {
        "ari": float(whole.nanmean()),
        "fg_ari": float(part.nanmean()),
        "ari_per_image": checks.array(whole),
        "fg_ari_per_image": checks.array(part),
    }
    empty = int(part.isnan().sum())
    return checks.finish(
        result, {"fg_ari": f"{counted(empty, 'picture')} without two foreground pixels left out"} if empty else {}
    )


def _tables(a: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    """Contingency tables float64 `[n, A, B]` of the pixels `[n, p]` that are kept."""
    n, sizes = len(a), (int(a.max()) + 1, int(b.max()) + 1)
    picture = torch.arange(n, device=a.device)[:, None]
    place = (picture * sizes[0] + a) * sizes[1] + b
    counts = torch.zeros(n * sizes[0] * sizes[1], dtype=torch.float64, device=a.device)
    counts.index_add_(0, place.flatten(), keep.double().flatten())
    return counts.view(n, *sizes)
