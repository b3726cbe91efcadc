"""Drawings of a study's results: points by variant, columns against another, columns along a grid."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distk import look
from distk.study.claims import interval
from distk.study.protocol import Row
from distk.study.recipe import Figure, Recipe, Variant
from distk.study.tables import windowless, write_figure

PANELS = 2
"""Panels in a row."""
MOST = 6
"""Variants beyond which a panel takes the whole row."""
DECADES = 100
"""An axis whose values go further than this factor is logarithmic."""


def draw(recipe: Recipe, rows: Sequence[Row], labels: Sequence[str], out: Path) -> list[Path]:
    """Draw every figure of the recipe, or all columns where it names none, into `out`; the files.

    They are PNG, or what `--format` says."""
    wanted = recipe.figures or (Figure("points", "results"),)
    made = []
    for figure in wanted:
        if figure.kind == "points":
            picture = _points(recipe, figure, rows, labels)
        else:
            picture = _lines(recipe, figure, rows)
        made.append(write_figure(out / f"{figure.name}.png", picture))
    return made


def _numbers(rows: Sequence[Row], label: str, column: str) -> list[float]:
    found = [row.get(column) for row in rows if row["variant"] == label]
    return [float(v) for v in found if isinstance(v, (int, float))]


def _bars(groups: Sequence[Sequence[float]]) -> list[list[float]]:
    """Error bars `[2, groups]` below and above each mean: its bootstrap interval, nothing below three runs."""
    ends = [(statistics.fmean(values), *interval(values)) for values in groups]
    down = [0.0 if low is None else mean - low for mean, low, _ in ends]
    return [down, [0.0 if high is None else high - mean for mean, _, high in ends]]


def _points(recipe: Recipe, figure: Figure, rows: Sequence[Row], labels: Sequence[str]) -> Any:
    """A panel per column: every run as a point, their mean and its interval beside them."""
    columns = figure.columns or tuple(c.name for c in recipe.columns if c.ours)
    shown = [label for label in labels if any(_numbers(rows, label, c) for c in columns)]
    across = min(PANELS, len(columns)) if len(shown) <= MOST else 1
    tall = 1.7 + 0.03 * max(map(len, shown), default=0)  # the names stand below, slanting
    picture, grid = windowless(-(-len(columns) // across), across, look.COLUMN / across, tall)
    axes = [axis for row in grid for axis in row]
    for axis in axes[len(columns) :]:
        axis.set_axis_off()
    for axis, column in zip(axes, columns, strict=False):
        for i, label in enumerate(shown):
            values = _numbers(rows, label, column)
            if values:
                axis.plot([i - 0.12] * len(values), values, "o", color="0.6", markersize=4)
                axis.errorbar(i + 0.12, statistics.fmean(values), _bars([values]), fmt="s", color="C0", capsize=4)
        axis.set_title(column)
        axis.set_xticks(range(len(shown)), shown, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
        axis.set_xlim(-0.6, len(shown) - 0.4)
    return picture


def _lines(recipe: Recipe, figure: Figure, rows: Sequence[Row]) -> Any:
    """Scatters or curves: a panel per column y and, where the figure asks for it, per group of variants."""
    along = figure.x if figure.kind == "curve" else None
    groups = _groups(recipe.variants, along)
    names = list(dict.fromkeys(v[0].group for v in groups.values() if v[0].group)) if figure.panels else [""]
    cells = [(y, name) for y in figure.columns or (figure.y,) for name in names or [""]]
    across = min(PANELS, len(cells))
    tall = 2.6 if len(cells) == 1 else 1.7
    picture, grid = windowless(-(-len(cells) // across), across, look.COLUMN / across, tall)
    axes = [axis for row in grid for axis in row]
    for axis in axes[len(cells) :]:
        axis.set_axis_off()
    for axis, (y, name) in zip(axes, cells, strict=False):
        own = {k: v for k, v in groups.items() if not name or v[0].group in (name, "")}
        if along is None:
            _scatter(axis, own, figure.x, y, rows)
        else:
            _curve(axis, own, along, y, rows)
        axis.set_xlabel(figure.x)
        axis.set_ylabel(y)
        axis.set_title(name)
        if figure.panels and not figure.columns and axis is not axes[0]:
            axis.sharey(axes[0])
        if len(cells) > 1:
            axis.tick_params(which="both", labelsize=6)
        if axis.get_legend_handles_labels()[0] and (axis is axes[0] or figure.panels):
            axis.legend(fontsize=6 if len(cells) == 1 else 5)
    return picture


def _scatter(axis: Any, groups: dict[str, list[Variant]], x_column: str, y_column: str, rows: Sequence[Row]) -> None:
    """One column against another, a point with error bars per variant, those of a grid joined."""
    for name, variants in groups.items():
        pairs = [(v, _numbers(rows, v.label, x_column), _numbers(rows, v.label, y_column)) for v in variants]
        pairs = [(v, x, y) for v, x, y in pairs if x and y]
        if not pairs:
            continue
        both = [[x for _, x, _ in pairs], [y for *_, y in pairs]]
        at = [[statistics.fmean(values) for values in axis_values] for axis_values in both]
        bars = [_bars(axis_values) for axis_values in both]
        axis.errorbar(*at, xerr=bars[0], yerr=bars[1], marker="o", capsize=2, linewidth=0.8, label=name)
        for (variant, *_), x, y in zip(pairs, *at, strict=True):
            axis.annotate(
                " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in variant.point.values()),
                (x, y),
                fontsize=7,
            )
    _scale(axis, [statistics.fmean(n) for g in groups.values() for v in g if (n := _numbers(rows, v.label, x_column))])


def _curve(axis: Any, groups: dict[str, list[Variant]], setting: str, column: str, rows: Sequence[Row]) -> None:
    """A column along a setting of a grid, the mean and its interval; a variant outside the grid is a dashed line."""
    for name, variants in groups.items():
        points = [(v.point[setting], _numbers(rows, v.label, column)) for v in variants if setting in v.point]
        points = [(x, y) for x, y in points if y]
        if points:
            means, bars = [statistics.fmean(y) for _, y in points], _bars([y for _, y in points])
            axis.errorbar([x for x, _ in points], means, bars, marker="o", capsize=2, linewidth=0.8, label=name)
        beside = [y for v in variants if setting not in v.point for y in _numbers(rows, v.label, column)]
        if beside:
            axis.axhline(statistics.fmean(beside), color="grey", linewidth=1, linestyle="--", label=name)
    found = [v.point[setting] for g in groups.values() for v in g if setting in v.point]
    _scale(axis, [x for x in found if isinstance(x, (int, float))])


def _scale(axis: Any, across: Sequence[float]) -> None:
    """Logarithmic where positive values go over more than two decades."""
    if across and min(across) > 0 and max(across) > DECADES * min(across):
        axis.set_xscale("log")


def _groups(variants: Sequence[Variant], along: str | None = None) -> dict[str, list[Variant]]:
    """Variants that belong to one line: of one method, and of one place in the grid beside `along`."""
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        if along is None and not variant.point:
            name = variant.label
        else:
            rest = [f"{k}={v}" for k, v in variant.point.items() if along is not None and k != along]
            name = " ".join([variant.group, *rest])
        found.setdefault(name, []).append(variant)
    return found
