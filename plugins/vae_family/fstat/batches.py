"""Class-balanced batches: some classes, and some images of each, drawn on the device with static shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distk import Dataset, FactorDataset, UsageError
from distk.console import warn
from distk.data import Split
from distk.embedding import having, label_of

LABEL = "label"
LARGE = 1024
"""Classes of more images than this are drawn from without a key for every image."""


@dataclass
class Labelling:
    """Rows of a data set sorted by class, for one label or one attribute.

    name: of the attribute, or "label". order: int64 `[N]` rows, class after class. start, count: int64 `[V]`, where a
    class begins in `order` and how many rows it has. largest: the largest count.
    """

    name: str
    order: Tensor
    start: Tensor
    count: Tensor
    largest: int

    def draw(self, classes: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows int64 `[C, samples]` of C = min(classes, V) different classes, no row twice, and their mask.

        mask: float32 `[C, samples]`, 0 in the places that a class of fewer images leaves empty; such a place holds some
        row of the class.
        """
        device = self.order.device
        known = len(self.count)
        chosen = torch.rand(known, generator=generator, device=device).topk(min(classes, known)).indices
        start, count = self.start[chosen, None], self.count[chosen, None]
        place = torch.arange(samples, device=device)
        if self.largest <= max(LARGE, samples):
            keys = torch.rand(len(chosen), max(self.largest, samples), generator=generator, device=device)
            keys = torch.where(torch.arange(keys.shape[1], device=device) < count, keys, -1.0)
            drawn = keys.topk(samples, dim=1).indices
        else:
            # Sorted draws from count - samples + 1 places, spread by their rank: different, and as good as uniform.
            free = (count - samples + 1).clamp_min(1)
            drawn = (torch.rand(len(chosen), samples, generator=generator, device=device) * free).long()
            drawn = drawn.minimum(free - 1).sort(1).values + place
        mask = (place < count).float()
        return self.order[start + drawn % count], mask


def labellings(dataset: Dataset, split: Split, label: str, strict: bool) -> list[Labelling]:
    """The labelling by the data's own label (`identity`), or one per attribute (`factors`), of a split's rows.

    strict: a class with a single image is an error, not left out.
    Raises UsageError for data without labels or factors, or with fewer than two classes of two images.
    """
    rows = dataset.rows_of(split)
    if label == "factors":
        if not isinstance(dataset, FactorDataset):
            raise UsageError(f"data set '{dataset.name}' has no factors; {having('factors')} have them.")
        table = dataset.factors(rows)
        found = [_sorted(name, rows, table[:, k], strict, dataset.name) for k, name in enumerate(dataset.factor_names)]
    else:
        found = [_sorted(LABEL, rows, label_of(dataset, rows), strict, dataset.name)]
    usable = [one for one in found if one is not None]
    if not usable:
        what = "attribute with two values" if label == "factors" else "two classes"
        raise UsageError(f"data set '{dataset.name}' has no {what} of at least 2 images each in its training split.")
    return usable


def _sorted(name: str, rows: Tensor, values: Tensor, strict: bool, data: str) -> Labelling | None:
    """The labelling of one attribute without classes of a single image; None where fewer than two classes are left."""
    ordered, index = values.sort(stable=True)
    kinds, count = ordered.unique_consecutive(return_counts=True)
    start = count.cumsum(0) - count
    alone = kinds[count < 2].tolist()
    if alone:
        classes = f"class {alone[0]} has 1 image" if len(alone) == 1 else f"classes {_few(alone)} have 1 image each"
        where = f"'{data}'" if name == LABEL else f"attribute '{name}' of '{data}'"
        message = f"{where}: {classes}; at least 2 per class are needed"
        if strict:
            raise UsageError(f"{message}.")
        warn(f"{message} (dropped; use --strict to fail)")
    keep = count >= 2
    if int(keep.sum()) < 2:
        return None
    return Labelling(name, rows[index], start[keep], count[keep], int(count.max()))


def _few(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:5]))
    return shown if len(values) <= 5 else f"{shown} and {len(values) - 5} more"
