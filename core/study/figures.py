"""Drawings of a study's results: points by variant, one column against another, a column along a grid."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distk.files import write_atomic
from distk.study.protocol import Row
from distk.study.recipe import Figure, Recipe, Variant
from distk.study.tables import as_png, windowless

DPI = 110
PANELS = 4
"""Panels in a row."""


def draw(recipe: Recipe, rows: Sequence[Row], labels: Sequence[str], out: Path) -> list[Path]:
    """Draw every figure of the recipe, or all columns where it names none, as PNG into `out`; the files."""
    wanted = recipe.figures or (Figure("points", "results"),)
    made = []
    for figure in wanted:
        if figure.kind == "points":
            picture = _points(recipe, figure, rows, labels)
        else:
            picture = (_scatter if figure.kind == "scatter" else _curve)(recipe, figure, rows)
        path = out / f"{figure.name}.png"
        write_atomic(path, as_png(picture, DPI))
        made.append(path)
    return made


def _numbers(rows: Sequence[Row], label: str, column: str) -> list[float]:
    found = [row.get(column) for row in rows if row["variant"] == label]
    return [float(v) for v in found if isinstance(v, (int, float))]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _points(recipe: Recipe, figure: Figure, rows: Sequence[Row], labels: Sequence[str]) -> Any:
    """A panel per column: every run as a point, mean and standard deviation beside them."""
    columns = figure.columns or tuple(c.name for c in recipe.columns if c.ours)
    shown = [label for label in labels if any(_numbers(rows, label, c) for c in columns)]
    across = min(PANELS, len(columns))
    picture, grid = windowless(-(-len(columns) // across), across, 1 + 0.4 * max(3, len(shown)), 3.6)
    axes = [axis for row in grid for axis in row]
    for axis in axes[len(columns) :]:
        axis.set_axis_off()
    for axis, column in zip(axes, columns, strict=False):
        for i, label in enumerate(shown):
            values = _numbers(rows, label, column)
            if values:
                axis.plot([i - 0.12] * len(values), values, "o", color="0.6", markersize=4)
                axis.errorbar(i + 0.12, statistics.fmean(values), _spread(values), fmt="s", color="C0", capsize=4)
        axis.set_title(column, fontsize=9)
        axis.set_xticks(range(len(shown)), shown, rotation=60, ha="right", fontsize=8)
        axis.set_xlim(-0.6, len(shown) - 0.4)
    return picture


def _scatter(recipe: Recipe, figure: Figure, rows: Sequence[Row]) -> Any:
    """One column against another, a point with error bars per variant, those of a grid joined."""
    picture, ((axis,),) = windowless(1, 1, 5.4, 4)
    for name, variants in _groups(recipe.variants).items():
        chosen = [v for v in variants if _numbers(rows, v.label, figure.x) and _numbers(rows, v.label, figure.y)]
        if not chosen:
            continue
        values = [[_numbers(rows, v.label, column) for v in chosen] for column in (figure.x, figure.y)]
        at = [[statistics.fmean(numbers) for numbers in line] for line in values]
        bars = [[_spread(numbers) for numbers in line] for line in values]
        axis.errorbar(*at, xerr=bars[0], yerr=bars[1], marker="o", capsize=2, linewidth=0.8, label=name)
        for variant, x, y in zip(chosen, *at, strict=True):
            place = (f"{value:g}" if isinstance(value, float) else str(value) for value in variant.point.values())
            axis.annotate(" ".join(place), (x, y), fontsize=7)
    return _labelled(picture, axis, figure)


def _curve(recipe: Recipe, figure: Figure, rows: Sequence[Row]) -> Any:
    """A column along a setting of a grid, mean and standard deviation."""
    picture, ((axis,),) = windowless(1, 1, 5.4, 4)
    for name, variants in _groups(recipe.variants, figure.x).items():
        points = [(v.point[figure.x], _numbers(rows, v.label, figure.y)) for v in variants if figure.x in v.point]
        points = [(x, y) for x, y in points if y]
        if points:
            means, bars = [statistics.fmean(y) for _, y in points], [_spread(y) for _, y in points]
            axis.errorbar([x for x, _ in points], means, bars, marker="o", capsize=2, linewidth=0.8, label=name)
    return _labelled(picture, axis, figure)


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


def _labelled(picture: Any, axis: Any, figure: Figure) -> Any:
    axis.set_xlabel(figure.x)
    axis.set_ylabel(figure.y)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    return picture
