"""class-pairs: two data sets of the same classes, a small labelled primary and a larger secondary, drawn in pairs.

Each draw is an image x of the primary and an image y of the secondary with the same label (JADE, arXiv 1711.09163).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, Files, UsageError, open_dataset, option
from distk.config import hints
from distk.console import counted
from distk.data import Split
from distk.plugins.datasets.digits28 import Digits28
from distk.plugins.datasets.styled_digits import StyledDigits
from distk.registry import registry

PRIMARY, SECONDARY = (3, 32, 32), (1, 28, 28)
"""Shapes that --resize makes."""


@dataclass(frozen=True)
class Config:
    """Which two data sets, and how many labels."""

    primary: str = option("styled-digits", "the data set with few labels", paper="svhn")
    secondary: str = option("digits28", "the data set with many", paper="mnist")
    labels_per_class: int = option(100, "labels of the primary per class", paper="100", min=1)
    val_per_class: int = option(0, "so many of these labels are kept back to choose a model by", min=0)
    secondary_size: int = option(
        45_000, "the first so many training items of the secondary; 0 means all", paper="45,000", min=0
    )
    matched: bool = option(True, "draw y of the same class as x; --no-matched draws it blindly, an ablation")
    draw: int | None = option(None, "seed of the draw of the labelled items; default: the run's", min=0)
    resize: bool = option(False, "bring other images to 3x32x32 (primary) and 1x28x28 (secondary)")
    difficulty: Literal["full", "easy"] = option("full", "of styled-digits")
    test: int = option(10_000, "test images of data sets that are rendered", min=10)

    def __post_init__(self) -> None:
        if self.val_per_class >= self.labels_per_class:
            raise ValueError(
                f"val-per-class {self.val_per_class} leaves nothing of labels-per-class {self.labels_per_class}"
            )


class ClassPairs(Dataset[Config]):
    """Rows are the primary's. `sample` adds the partners from the secondary.

    primary, secondary: the two data sets. The split `validation` has what `val_per_class` keeps back, the
    same of all runs.
    The training split is everything that labels are drawn from; a run's draw of them depends on its seed.
    spec.extra: `secondary`, shape of y; `primary_classes`, `secondary_classes`, names of the classes that occur.
    """

    reads = "the files of both data sets, in DIR or in DIR/<their names>"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.primary, self.secondary = self._open("primary", files), self._open("secondary", files)
        classes = (*self.primary.spec.classes, *self.secondary.spec.classes)
        names = tuple(dict.fromkeys(classes))
        self._renamed = torch.tensor([names.index(c) for c in self.secondary.spec.classes], device=device)
        self._label = _labels(self.primary)
        self._other = self._renamed[_labels(self.secondary)]
        self.parts = {"train": _rows(self.primary, "train"), "test": _rows(self.primary, "test")}
        self._others = {"train": self._apart(), "test": _rows(self.secondary, "test")}
        self._by_class = self._grouped(len(names))
        occurring = [self._occurring(self._label[self.parts["train"]], names)]
        occurring.append(self._occurring(self._other[self._others["train"]], names))
        self._blind = not config.matched or set(occurring[0]) != set(occurring[1])
        self._tables = {split: self._table(rows, len(names)) for split, rows in self._others.items()}
        self._drawn: dict[int, Tensor] = {}
        shapes = (PRIMARY, SECONDARY) if config.resize else (self.primary.spec.shape, self.secondary.spec.shape)
        extra = {
            "secondary": list(shapes[1]),
            "primary_classes": occurring[0],
            "secondary_classes": occurring[1],
            "names": [self.primary.name, self.secondary.name],
        }
        self.spec = DataSpec("image", tuple(shapes[0]), classes=names, extra=extra)
        held = {"train": torch.cat([rest for _, rest in self._by_class]), "test": self.parts["test"]}
        kept = torch.cat([kept for kept, _ in self._by_class])
        held |= {"validation": kept} if len(kept) else {}
        self.parts = {name: rows.sort().values for name, rows in held.items()}
        self.origin = (
            f"primary {self.primary.name}, {counted(config.labels_per_class, 'label')} per class"
            f" ({self.primary.origin}); secondary {self.secondary.name}, {len(self._others['train']):,} training items"
            f" ({self.secondary.origin})"
        )

    # Opening

    def _open(self, role: Literal["primary", "secondary"], files: Files) -> Dataset:
        name: str = getattr(self.config, role)
        base = name.partition(":")[0]
        cls: Any = registry().find("dataset", base).load()
        if base in ("class-pairs", files.name):
            raise UsageError(f"--{role} '{name}' is made of two data sets itself: name one with labels.")
        known = hints(cls.Config)
        if role == "primary" and self.config.difficulty != "full" and "difficulty" not in known:
            raise UsageError(f"--difficulty {self.config.difficulty} is for styled-digits; '{base}' is as it is.")
        options: dict[str, Any] = {"difficulty": self.config.difficulty, "test": self.config.test}
        options = {key: value for key, value in options.items() if key in known}
        if cls is Digits28 and self.config.secondary_size and role == "secondary":
            # Render no more than is used, after _apart has taken away what the primary is made of.
            options["train"] = min(60_000, 2 * self.config.secondary_size + 1200)
        folder = files.folder_of(name)
        made = open_dataset(name, options, device=self.device, folder=folder)
        if getattr(made, "stand_in", None) is not None:
            looked = ", ".join(f"'{f}'" for f in Files(made.name, folder, cls.reads).folders) or "no folder"
            raise UsageError(
                f"--{role} {name}: its files {cls.reads} were not found (looked at {looked}): name their folder with "
                "--data-dir, or train without a download: --primary styled-digits --secondary digits28."
            )
        if made.spec.kind != "image" or not made.spec.classes or made.spec.range != (0.0, 1.0):
            raise UsageError(f"--{role} {name}: images in [0, 1] with classes are needed, as in mnist or svhn.")
        _rows(made, "train"), _rows(made, "test")  # before all labels are asked for, which may mean rendering a lot
        return made

    def _apart(self) -> Tensor:
        """Training rows of the secondary, without originals that the primary is rendered from, cut to size."""
        rows = _rows(self.secondary, "train")
        if isinstance(self.primary, StyledDigits) and isinstance(self.secondary, Digits28):
            used = torch.zeros(1 << 11, dtype=torch.bool, device=self.device)
            used[self.primary.which] = True
            rows = rows[~used[self.secondary.which[rows]]]
        return rows[: self.config.secondary_size or None]

    def _grouped(self, classes: int) -> list[tuple[Tensor, Tensor]]:
        """For each class of the primary that occurs: rows kept for validation, rows to draw labels from."""
        train, config = self.parts["train"], self.config
        label = self._label[train]
        found = []
        for c in range(classes):
            rows = train[label == c]
            if not len(rows):
                continue
            if len(rows) < config.labels_per_class:
                raise UsageError(
                    f"--labels-per-class {config.labels_per_class}: class '{self.primary.spec.classes[c]}' of "
                    f"'{self.primary.name}' has only {len(rows)} training items."
                )
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).to(self.device)
            found.append((rows[order[: config.val_per_class]], rows[order[config.val_per_class :]]))
        return found

    def _occurring(self, labels: Tensor, names: tuple[str, ...]) -> list[str]:
        counts = torch.bincount(labels, minlength=len(names)).tolist()
        return [name for name, count in zip(names, counts, strict=True) if count]

    def _table(self, rows: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows sorted by class, and per class where they start and how many they are (blindly: all of them)."""
        label = self._other[rows]
        order = rows[label.argsort(stable=True)]
        count = torch.bincount(label, minlength=classes)
        start = count.cumsum(0) - count
        if self._blind:
            start, count = torch.zeros_like(start), torch.full_like(count, len(rows))
        return order, start, count

    # Drawing

    def bucket(self, step: int, seed: int) -> Hashable:
        """The seed that the labelled items are drawn with. They are drawn here, on the host, and kept."""
        chosen = seed if self.config.draw is None else self.config.draw
        self.labelled(chosen)
        return chosen

    def labelled(self, seed: int) -> Tensor:
        """The labelled rows of a run, int64 `[classes * (labels_per_class - val_per_class)]`."""
        if seed not in self._drawn:
            draw = torch.Generator().manual_seed(seed)
            n = self.config.labels_per_class - self.config.val_per_class
            parts = [rest[torch.randperm(len(rest), generator=draw)[:n].to(self.device)] for _, rest in self._by_class]
            self._drawn[seed] = torch.cat(parts)
        return self._drawn[seed]

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` pairs: `x`, `label` of the primary, `y`, `y_label` of the secondary; see `batch`.

        From the training split only a run's labelled items are drawn; its seed is `bucket`.
        """
        if split == "train":
            seed = bucket if isinstance(bucket, int) else self.config.draw or 0
            rows = self.labelled(seed)
            rows = rows[torch.randint(len(rows), (n,), generator=generator, device=self.device)]
        else:
            rows = self.sample_rows(n, generator, split)
        item = self.batch(rows)
        order, start, count = self._tables["test" if split == "test" else "train"]
        uniform = torch.rand(n, generator=generator, device=self.device)
        count = count[item["label"]]
        place = start[item["label"]] + torch.minimum((uniform * count).long(), count - 1)
        other = self.secondary_batch(order[place])
        return {**item, "y": other["x"], "y_label": other["label"]}

    def __len__(self) -> int:
        return len(self.primary)

    def secondary_rows(self, split: Split) -> Tensor:
        """Rows of the secondary that belong to a split, int64 `[n]`; all of them for "all"."""
        return self._others.get(split, torch.arange(len(self.secondary), device=self.device))

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, *spec.shape]` in [0, 1], `label` int64 `[n]`, an index into `spec.classes`."""
        item = self.primary.batch(rows)
        return {"x": self._resized(item["x"], self.spec.shape), "label": item["label"]}

    def secondary_batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Items of the secondary, as `batch`; `x` is `[n, *spec.extra["secondary"]]`."""
        item = self.secondary.batch(rows)
        x = self._resized(item["x"], tuple(self.spec.extra["secondary"]))
        return {"x": x, "label": self._renamed[item["label"]]}

    def _resized(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if not self.config.resize or x.shape[1:] == shape:
            return x
        if x.shape[1] != shape[0]:
            x = x.mean(1, keepdim=True).expand(-1, shape[0], -1, -1)
        return F.interpolate(x, size=shape[1:], mode="bilinear", antialias=True).clamp(0, 1)


def _rows(dataset: Dataset, split: Split) -> Tensor:
    rows = dataset.rows(split)
    if rows is None:
        raise UsageError(f"data set '{dataset.name}' has no {split} split, which class-pairs needs.")
    return rows


def _labels(dataset: Dataset) -> Tensor:
    """Labels of all items, int64 `[N]`."""
    held = getattr(dataset, "label", None)
    if isinstance(held, Tensor) and held.shape == (len(dataset),):
        return held
    parts = torch.arange(len(dataset), device=dataset.device).split(4096)
    return torch.cat([dataset.batch(part)["label"] for part in parts])
