"""Figure 3 of Ridgeway & Mozer 2017."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from distk.look import COLUMN
from distk.study.tables import windowless


def distributions(areas: Mapping[str, Sequence[float]]) -> Any:
    """A figure: for each loss the distribution of the AUCs of its best dimensions, over attribute values and folds."""
    across = min(2, len(areas))
    drawing, grid = windowless(-(-len(areas) // across), across, COLUMN / across, 1.6)
    axes = grid.flatten().tolist()
    for axis in axes[len(areas) :]:
        axis.set_axis_off()
    for axis, (loss, values) in zip(axes, areas.items(), strict=False):
        axis.hist(values, bins=[0.5 + i / 20 for i in range(11)], color="#4878a8", edgecolor="white")
        axis.axvline(statistics.median(values), color="#c04030", linewidth=1)
        axis.set_title(f"{loss} (median {statistics.median(values):.2f})")
        axis.set_xlabel("AUC of the best dimension")
        axis.tick_params(labelsize=6)
    axes[0].set_ylabel("attribute values x folds")
    return drawing
