"""Figure 3 of Ridgeway & Mozer 2017."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from distk.study.tables import windowless


def distributions(areas: Mapping[str, Sequence[float]]) -> Any:
    """A figure: for each loss the distribution of the AUCs of its best dimensions, over attribute values and folds."""
    drawing, (axes,) = windowless(1, len(areas), 2.8, 2.6)
    for axis, (loss, values) in zip(axes, areas.items(), strict=True):
        axis.hist(values, bins=[0.5 + i / 20 for i in range(11)], color="#4878a8", edgecolor="white")
        axis.axvline(statistics.median(values), color="#c04030", linewidth=1)
        axis.set_title(f"{loss} (median {statistics.median(values):.2f})", fontsize=9)
        axis.set_xlabel("AUC of the best dimension", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("attribute values x folds", fontsize=8)
    return drawing
