"""Curves as the coordinates of an SVG, so that a page shows them in its own colours, light and dark."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distk.laboratory.compare import Group, curves, joint
from distk.laboratory.spread import band

WIDTH, HEIGHT = 380, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24
"""Margins that hold the numbers of the axes."""
TICKS = 4
POINTS = 150
"""Points of a line; more cannot be told apart at this size."""


@dataclass(frozen=True)
class Line:
    """One group's curve. points, band: coordinates as SVG takes them; band is empty where there is no interval."""

    colour: int
    points: str
    band: str


@dataclass(frozen=True)
class Chart:
    """One logged term of all groups. marks: horizontal lines with their number. ends: first and last step."""

    term: str
    lines: list[Line]
    marks: list[dict[str, Any]]
    ends: list[dict[str, Any]]
    width: int = field(default=WIDTH)
    height: int = field(default=HEIGHT)


def charts(groups: list[Group]) -> list[Chart]:
    """A chart for each term that any of the groups logged at two steps or more."""
    held: dict[Path, Any] = {record.path: curves(record) for group in groups for record in group.records}
    terms = dict.fromkeys(term for each in held.values() for term in each)
    made = []
    for term in terms:
        found = {i: told for i, group in enumerate(groups) if (told := joint(group, term, held)) is not None}
        if found:
            made.append(_chart(term, found))
    return made


def _chart(term: str, found: dict[int, tuple[np.ndarray, np.ndarray]]) -> Chart:
    lines = {i: (steps, *band(values), len(values)) for i, (steps, values) in found.items()}
    lows, highs = [line[2] for line in lines.values()], [line[3] for line in lines.values()]
    ticks = nice(min(float(low.min()) for low in lows), max(float(high.max()) for high in highs))
    first = min(float(line[0][0]) for line in lines.values())
    last = max(float(line[0][-1]) for line in lines.values())

    def at(steps: np.ndarray, values: np.ndarray) -> list[str]:
        x = LEFT + (steps - first) / max(last - first, 1e-12) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (values - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - TOP - BOTTOM)
        return [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)]

    drawn = []
    for i, (steps, mean, low, high, runs) in lines.items():
        keep = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).round().astype(int))
        there, back = at(steps[keep], low[keep]), at(steps[keep], high[keep])[::-1]
        drawn.append(Line(i % 10, " ".join(at(steps[keep], mean[keep])), " ".join(there + back) if runs > 2 else ""))
    heights = [HEIGHT - BOTTOM - i / (len(ticks) - 1) * (HEIGHT - TOP - BOTTOM) for i in range(len(ticks))]
    marks = [
        {"x1": LEFT, "x2": WIDTH - RIGHT, "y": round(y, 1), "text": f"{tick:.4g}"}
        for tick, y in zip(ticks, heights, strict=True)
    ]
    ends = [
        {"x": LEFT, "y": HEIGHT - 6, "anchor": "start", "text": f"{first:,.0f}"},
        {"x": WIDTH - RIGHT, "y": HEIGHT - 6, "anchor": "end", "text": f"step {last:,.0f}"},
    ]
    return Chart(term, drawn, marks, ends)


def nice(low: float, high: float) -> list[float]:
    """Evenly spaced round numbers, the first at or below `low` and the last at or above `high`."""
    if high <= low:
        width = abs(low) or 1.0
        low, high = low - 0.5 * width, low + 0.5 * width
    rough = (high - low) / TICKS
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, last + 1)]
