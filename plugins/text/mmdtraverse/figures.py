"""Figure 2: codes on their first two principal components by label and topic, and moved ones among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk.look import COLUMN
from distk.study.tables import as_csv, as_figure, windowless

COLOURS = ("#c0392b", "#2471a3", "#7d3c98", "#1e8449", "#b9770e", "#5d6d7e")
MARKS = "os^DvP"


def principal(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `[h]` and the two directions `[2, h]` of largest variance of codes `[n, h]`, in float64.

    A direction points to where its largest entry is positive, so that pictures of one model do not turn over.
    """
    codes = codes.double()
    mean = codes.mean(0)
    axes = torch.linalg.svd(codes - mean, full_matrices=False)[2][:2]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return mean, axes * largest.sign()


@dataclass
class Drawn:
    """Points of the picture. at: `[n, 2]`. label, topic: int64 `[n]`. text: the sentences. kind: of each of them code,
    from or to: an unmoved code, one that was moved, and where to (with the label that was wanted)."""

    at: Tensor
    label: Tensor
    topic: Tensor
    text: list[str]
    kind: list[str]

    def rows(self, labels: Sequence[str], words: Sequence[str]) -> bytes:
        """The points as CSV."""
        held = zip(self.kind, self.label.tolist(), self.topic.tolist(), self.at.tolist(), self.text, strict=True)
        return as_csv(
            ("kind", "label", "topic", "x", "y", "sentence"),
            [(kind, labels[k], words[t], x, y, text) for kind, k, t, (x, y), text in held],
        )

    def picture(self, labels: Sequence[str], words: Sequence[str], form: str = ".png", title: str = "") -> bytes:
        """The points in the form of a suffix: a colour for each label, a mark for each topic, arrows for moves."""
        figure, panels = windowless(1, 1, COLUMN, 3.2)
        axes = panels[0, 0]
        for k, name in enumerate(labels):
            for t, word in enumerate(words):
                of = (self.label == k) & (self.topic == t)
                of &= torch.tensor([kind == "code" for kind in self.kind])
                x, y = self.at[of].T.tolist()
                style = {"c": COLOURS[k % len(COLOURS)], "marker": MARKS[t % len(MARKS)]}
                axes.scatter(x, y, s=8, alpha=0.35, linewidths=0, label=f"{name}, {word}", **style)
        self._moves(axes)
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second principal component")
        figure.legend(loc="outside lower center", fontsize=6, frameon=False, ncols=2)
        return as_figure(figure, form, title=title)

    def _moves(self, axes: Any) -> None:
        """Bold points of moved codes, before and after."""
        starts = [i for i, kind in enumerate(self.kind) if kind == "from"]
        ends = [i for i, kind in enumerate(self.kind) if kind == "to"]
        for a, b in zip(starts, ends, strict=True):
            for i in (a, b):
                style = {
                    "c": COLOURS[int(self.label[i]) % len(COLOURS)],
                    "marker": MARKS[int(self.topic[i]) % len(MARKS)],
                }
                axes.scatter(*self.at[i].tolist(), s=30, edgecolors="black", linewidths=0.8, zorder=3, **style)
            arrow = {"arrowstyle": "->", "lw": 0.8, "shrinkA": 3, "shrinkB": 3}
            axes.annotate("", self.at[b].tolist(), self.at[a].tolist(), arrowprops=arrow, zorder=4)
