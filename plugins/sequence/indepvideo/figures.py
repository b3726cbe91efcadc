"""Pictures of indepvideo: the map of correlations across one step (Figure 2), and parts that move alone (Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk import images
from distk.look import COLUMN
from distk.sheet import Sheet
from distk.study.tables import as_figure, windowless


@dataclass
class CorrelationMap:
    """Pearson's r `[units, units]` of each unit at t (downwards) with each at t + 1 (across), white at 0.

    order: the units, part by part. sizes: of the parts, between which lines are drawn.
    """

    matrix: np.ndarray
    order: np.ndarray
    sizes: Sequence[int]

    def _figure(self) -> Any:
        figure, ((axis,),) = windowless(1, 1, COLUMN, 2.7)
        shown = axis.imshow(self.matrix[np.ix_(self.order, self.order)], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        edges = np.cumsum(self.sizes)
        for edge in edges[:-1] - 0.5:
            axis.axhline(edge, color="black", lw=0.8)
            axis.axvline(edge, color="black", lw=0.8)
        middle = edges - np.asarray(self.sizes) / 2 - 0.5
        names = [str(i) for i in range(len(self.sizes))]
        axis.set_xticks(middle, names)
        axis.set_yticks(middle, names)
        axis.set_xlabel("factor at t + 1")
        axis.set_ylabel("factor at t")
        figure.colorbar(shown, ax=axis, label="correlation of units")
        return figure

    def png(self) -> bytes:
        """The contents of a PNG file."""
        return self._written("png")

    def svg(self) -> str:
        """The contents of an SVG file."""
        return self._written("svg").decode()

    def pdf(self) -> bytes:
        """The contents of a PDF file."""
        return self._written("pdf")

    def text(self) -> str:
        """Nothing: a terminal has too few characters."""
        return ""

    def _written(self, form: str) -> bytes:
        return as_figure(self._figure(), f".{form}")


def alone(path: Path, clips: Tensor, names: Sequence[str], title: str = "") -> list[Path]:
    """Clips `[n, rows, t, c, h, w]` in [0, 1], a row of frames for each of `names` per clip: a picture and a GIF.

    Returns the files.
    """
    n, rows = clips.shape[:2]
    big = images.enlarge(clips)
    times = [f"t={t + 1}" for t in range(clips.shape[2])]
    Sheet(big.flatten(0, 2), clips.shape[2], rows=[*names] * n, heads=times, title=title).write(path)
    movie = path.with_suffix(".gif")
    frames = [images.grid(big[:, :, t].flatten(0, 1), rows) for t in range(clips.shape[2])]
    images.save_gif(movie, torch.stack(frames), 0.25)
    return [path, movie]
