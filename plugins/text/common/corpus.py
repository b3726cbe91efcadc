"""Labelled sentences: equal shares of the labels in a batch, nouns marked, labels numbered as a model numbers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk import UsageError, option
from distk.plugins.text.common.base import CorpusConfig, CorpusDataset
from distk.plugins.text.common.files import Part
from distk.plugins.text.common.tagger import open_tagger
from distk.plugins.text.common.vocab import PAD


@dataclass(frozen=True)
class TextConfig(CorpusConfig):
    """Settings of corpora with labels."""

    balance: bool = option(True, "equal shares of the labels in training batches: row i has label i mod K")
    tagger: Literal["none", "auto", "perceptron", "textblob", "builtin"] = option(
        "none", "mark nouns in batches; none: only where the data has tags"
    )
    tagger_file: str = option("", "tagger trained by `distk text train-tagger`", place=True)


S = TypeVar("S", bound=TextConfig, default=TextConfig)


class SentenceDataset(CorpusDataset[S]):
    """Labelled sentences. Subclasses define `read`. A batch has `label` int64 `[n]`, -1 in the split `unsup`."""

    def _build(self, parts: dict[str, Part], classes: tuple[str, ...]) -> None:
        super()._build(parts, self._as_model(parts, classes))

    def _as_model(self, parts: dict[str, Part], classes: tuple[str, ...]) -> tuple[str, ...]:
        """Number the labels as the model does, where its names hold theirs, or theirs are numbers of its labels."""
        known = () if self.model is None else tuple(self.model.classes)
        numbers = {str(i): i for i in range(len(known))}
        place = {name: known.index(name) for name in classes if name in known}
        if len(place) < len(classes):
            place = {name: numbers[name] for name in classes if name in numbers}
        if len(place) < len(classes):
            return classes
        for part in parts.values():
            part.labels = [-1 if label < 0 else place[classes[label]] for label in part.labels]
        return known

    def _noun_marker(self) -> Any:
        if self.config.tagger == "none" and not self.config.tagger_file:
            return None
        return open_tagger(self.config.tagger, self.config.tagger_file)

    def _finish(self, parts: Mapping[str, Part], kept: np.ndarray, split: np.ndarray) -> None:
        labels = np.concatenate([np.array(part.labels, np.int64) for part in parts.values()])
        self.label = torch.from_numpy(labels[kept]).to(self.device)
        self.counts = self._counted()

    def _counted(self) -> tuple[int, ...]:
        """Training sentences of each label. Raises UsageError for a label without any, unless a model is to read."""
        rows = self.parts.get("train")
        if rows is None:
            return ()
        found = Counter(self.label[rows].tolist())
        for k, name in enumerate(self.spec.classes):
            if not found[k] and self.model is None:
                raise UsageError(f"label '{name}' has no training sentence.")
        return tuple(found[k] for k in range(len(self.spec.classes)))

    def _groups(self) -> tuple[Tensor, int]:
        many = len(self.spec.classes) if self.config.balance else 0
        return (self.label.clamp(min=0), many) if many > 1 else super()._groups()

    def batch(self, rows: Tensor, widths: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Also `label` int64 `[n]`, and `noun`, bool like x, where nouns are known."""
        batch = {**super().batch(rows, widths), "label": self.label[rows]}
        if self.text.marks is not None:
            batch["noun"] = self.text.flags(rows, batch["x"].shape[1])
        return batch

    def nouns(self, rows: Tensor) -> list[list[bool]] | None:
        """Which words are nouns, as the data says; None where it has no tags."""
        if self.text.marks is None:
            return None
        return [row for part in rows.split(4096) for row in self._noun_rows(part)]

    def _noun_rows(self, rows: Tensor) -> list[list[bool]]:
        batch = self.batch(rows)
        size = ((batch["x"] != PAD).sum(1) - 1).tolist()
        return [row[:n] for row, n in zip(batch["noun"].tolist(), size, strict=True)]
