"""Figures 2, 3b and 6 of the paper, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from torch import Tensor

from distk import look
from distk.console import counted
from distk.errors import UsageError
from distk.plugins.rl_control.icf.explore import FactorSample
from distk.study.tables import windowless, write_figure

COLOURS = "tab10"


def _plane(points: np.ndarray) -> tuple[np.ndarray, str]:
    """Points in two dimensions as they are, in more by their two main axes."""
    if points.shape[1] == 2:
        return points, ""
    centred = points - points.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T, " (PCA)"


def factors(path: Path, found: FactorSample) -> None:
    """Changes h' - h with their density, coloured by action (2a); h over all states (2b); phi of one state (3b).

    Raises UsageError for codes of one dimension.
    """
    if found.h.shape[1] < 2:
        raise UsageError("a code of one dimension cannot be drawn in a plane; train with --k 2 or more.")
    figure, panels = windowless(3, 1, look.COLUMN, 2.6)
    left, middle, right = panels[:, 0]
    dh, how = _plane(found.dh.cpu().numpy())
    _density(left, dh)
    palette = mpl.colormaps[COLOURS]
    action = found.dh_action.cpu().numpy()
    for a, name in enumerate(found.names):
        if (action == a).any():
            left.scatter(*dh[action == a].T, s=5, color=palette(a % 10), label=name, edgecolors="k", linewidths=0.2)
    left.legend(fontsize=6, title="action taken", title_fontsize=6)
    left.set_title(f"h' - h, {counted(len(dh), 'factor')} over all states{how}")

    h, how = _plane(found.h.cpu().numpy())
    colour = found.facts[:, 0].cpu().numpy() if found.facts is not None else None
    shown = middle.scatter(*h.T, s=12, c=colour, cmap="viridis")
    if found.facts is not None:
        figure.colorbar(shown, ax=middle, label=found.fact_names[0])
        if len(h) <= 64:
            for place, values in zip(h, found.facts.tolist(), strict=True):
                middle.annotate(",".join(map(str, values[:2])), place, fontsize=5)
    middle.set_title(f"h of all states{how}")

    phi, how = _plane(found.phi.cpu().numpy())
    best = found.probabilities.argmax(-1).cpu().numpy()
    right.scatter(*phi.T, s=5, c=[palette(b % 10) for b in best])
    right.set_title(f"phi of one state, coloured by preferred action{how}")
    for axis in (left, middle, right):
        axis.set_aspect("equal", "datalim")
        axis.tick_params(labelsize=6)
    write_figure(path, figure)


def _density(axis: Any, points: np.ndarray) -> None:
    """Contours of a Gaussian kernel density estimate; nothing where the points do not span a plane."""
    from scipy.stats import gaussian_kde

    spread = points.std(0)
    if len(points) < 10 or spread.min() < 1e-6 * max(spread.max(), 1e-12):
        return
    try:
        density = gaussian_kde(points.T, bw_method=0.2)
    except np.linalg.LinAlgError:  # all on one line
        return
    low, high = points.min(0) - spread, points.max(0) + spread
    x, y = np.meshgrid(np.linspace(low[0], high[0], 80), np.linspace(low[1], high[1], 80))
    axis.contourf(x, y, density(np.stack([x.ravel(), y.ravel()])).reshape(x.shape), 12, cmap="Blues")


def policies(path: Path, frames: Tensor, probabilities: Tensor, actions: list[int], names: list[str]) -> None:
    """Frames above heat maps: a row per factor, a column per action, the followed policy first, its action boxed."""
    steps = min(len(actions), 10)
    width = max(look.COLUMN, 0.55 * steps)  # so many names of actions have no room in a column
    shape = probabilities.shape[1]
    tall = [0.9, 0.3 + 0.07 * shape]
    figure, axes = windowless(2, steps, width / steps, sum(tall) / 2 + 0.3, height_ratios=tall)
    for t in range(steps):
        top, bottom = axes[0, t], axes[1, t]
        top.imshow(frames[t].clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy())
        top.set_axis_off()
        top.set_title(f"t={t}\n{names[actions[t]]}", fontsize=6)
        bottom.imshow(probabilities[t].cpu().numpy(), vmin=0, vmax=1, cmap="magma", aspect="auto")
        bottom.add_patch(mpl.patches.Rectangle((actions[t] - 0.5, -0.5), 1, 1, fill=False, edgecolor="lime"))
        bottom.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
        bottom.set_yticks([])
    axes[1, 0].set_ylabel("factors", fontsize=7)
    write_figure(path, figure)
