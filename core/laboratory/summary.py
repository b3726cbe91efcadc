"""One picture of a run: what each code knows of each factor, how much it weighs, the scores with chance and interval.

One picture of many runs: how their scores rank them, by Spearman's correlation of every pair of scores, as studies of
the field show which scores agree. Both are made of what `distk eval` left in the run folders; nothing is scored here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from distk import results
from distk.console import counted
from distk.errors import DistkError, UsageError
from distk.laboratory.records import CHECKPOINT, Record
from distk.look import COLUMN
from distk.registry import registry
from distk.study.tables import as_figure, windowless

NEEDED = "distk eval RUN -m mig -m dci --baseline 5 --ci 20"
FEWEST = 4
"""Runs below which a rank correlation says nothing."""
MOST = 30
"""Scores in one picture."""
SMALL, TITLE = 6, 8
"""Points of words at the size of a column."""


def scored(path: Path) -> dict[str, dict[str, Any]]:
    """The results of `distk eval` beside a checkpoint: metric -> result, on the model's own data.

    Raises UsageError, with the command that makes them, where there are none.
    """
    found = results.read(path.with_name(f"{path.stem}.eval.json")).get("metrics", {})
    sound = {name: values for name, values in found.items() if "error" not in values}
    if not sound:
        raise UsageError(f"'{path.parent}' holds no scores to draw: {NEEDED.replace('RUN', str(path.parent))}")
    return sound


def summary(found: Mapping[str, Mapping[str, Any]], title: str, form: str) -> bytes:
    """The picture of one run, in the form of a suffix. found: as `scored`.

    Information and importance are drawn where some score has them; each score is a dot in its range, its interval a
    line, its value at chance a hollow mark.
    """
    matrices = [m for m in (_matrix(found, "mutual_information"), _matrix(found, "importance")) if m is not None]
    rows = _rows(found)
    if not rows and not matrices:
        raise UsageError(f"these scores have neither a number nor a matrix to draw: {NEEDED}")
    parts = len(matrices) + bool(rows)
    tall = [max(1.4, 0.12 * min(len(m[1]), 24) + 1.0) for m in matrices] + [0.16 * len(rows) + 0.7] * bool(rows)
    figure, grid = windowless(parts, 1, COLUMN, sum(tall) / parts, height_ratios=tall)
    axes = list(grid[:, 0])
    for axis, (name, codes, factors, values, unit) in zip(axes, matrices, strict=False):
        _heat(figure, axis, name, codes, factors, values, unit)
    if rows:
        _dots(axes[-1], rows)
    figure.suptitle(title, fontsize=TITLE)
    return as_figure(figure, form)


def _matrix(
    found: Mapping[str, Mapping[str, Any]], key: str
) -> tuple[str, list[str], list[str], np.ndarray, str] | None:
    """The first matrix of this name: (title, codes, factors, values [D, K], unit)."""
    for metric, values in found.items():
        matrix = values.get(key)
        codes, factors = values.get("code_names"), values.get("factor_names")
        if not isinstance(matrix, list) or not isinstance(codes, list) or not isinstance(factors, list):
            continue
        array = np.array([[math.nan if v is None else v for v in row] for row in matrix], dtype=float)
        if array.shape == (len(codes), len(factors)) and array.size:
            known = np.isfinite(array).any(0)  # constant factors have nothing to show
            told = "mutual information" if key == "mutual_information" else "importance for predicting"
            names = [name for name, some in zip(factors, known, strict=True) if some]
            return f"{told} ({metric})", codes, names, array[:, known], "nats" if "mutual" in key else "share"
    return None


def _rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The headline of every metric as a row: label, value, range, chance, interval."""
    made = []
    for label, values in found.items():
        try:
            cls = registry().find("metric", str(values.get("metric", label))).load()
        except DistkError:  # of a plugin that is not here
            continue
        key = cls.headline
        value = values.get(key)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        meaning = cls.meaning(key)
        low, high = (None, None) if meaning is None else (meaning.low, meaning.high)
        chance = (values.get("baseline") or {}).get("mean", {}).get(key)
        between = (values.get("interval") or {}).get("of", {}).get(key)
        row = {"label": label if label == key else f"{label}, {key}", "value": float(value), "low": low, "high": high}
        made.append({**row, "chance": chance, "interval": held_within(between, low, high)})
    return made


def held_within(interval: Any, low: float | None, high: float | None) -> tuple[float, float] | None:
    """An interval, its ends not beyond what the number can be; None where there is none."""
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        return None
    if not all(isinstance(end, (int, float)) and math.isfinite(end) for end in interval):
        return None
    first, last = float(interval[0]), float(interval[1])
    if low is not None and math.isfinite(low):
        first, last = max(first, low), max(last, low)
    if high is not None and math.isfinite(high):
        first, last = min(first, high), min(last, high)
    return first, last


def _heat(
    figure: Any, axis: Any, name: str, codes: Sequence[str], factors: Sequence[str], values: np.ndarray, unit: str
) -> None:
    shown = axis.imshow(values, cmap="viridis", vmin=0, vmax=max(float(np.nanmax(values)), 1e-9), aspect="auto")
    axis.set_xticks(range(len(factors)), factors, rotation=60, ha="right", rotation_mode="anchor", fontsize=SMALL)
    few = len(codes) <= 24
    axis.set_yticks(range(len(codes)) if few else [], codes if few else [], fontsize=SMALL)
    axis.set_ylabel("code" if few else f"{counted(len(codes), 'code')}", fontsize=SMALL + 1)
    axis.set_xlabel("factor", fontsize=SMALL + 1)
    axis.set_title(name, fontsize=SMALL + 1)
    bar = figure.colorbar(shown, ax=axis)
    bar.set_label(unit, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)


def _dots(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Scores that lie in 0..1 on one axis; the value of every score beside it, of others only that."""
    for i, row in enumerate(rows):
        unit = (row["low"], row["high"]) == (0, 1) or 0 <= row["value"] <= 1
        if unit:
            axis.plot([0, 1], [i, i], color="0.85", linewidth=4, solid_capstyle="butt", zorder=1)
            if row["interval"] is not None:
                axis.plot(row["interval"], [i, i], color="C0", linewidth=1.2, zorder=2)
            if isinstance(row["chance"], (int, float)):
                # A mark at the end of the range is whole; one far below it, as of an R2, would lie over the names.
                look = {"markerfacecolor": "none", "markersize": 3.5, "clip_on": not -0.05 <= row["chance"] <= 1}
                axis.plot([row["chance"]], [i], "D", color="C3", zorder=3, **look)
            axis.plot([row["value"]], [i], "o", color="C0", markersize=3.5, zorder=4, clip_on=False)
        axis.text(1.04, i, f"{row['value']:.3g}", fontsize=SMALL, va="center")
    axis.set_yticks(range(len(rows)), [row["label"] for row in rows], fontsize=SMALL)
    axis.set(xlim=(-0.03, 1.28), ylim=(len(rows) - 0.4, -0.6))
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=SMALL)
    parts = ["dot: score"]
    parts += ["line: interval"] if any(row["interval"] for row in rows) else []
    parts += ["diamond: chance"] if any(isinstance(row["chance"], (int, float)) for row in rows) else []
    axis.set_xlabel(",\n".join([", ".join(parts[:2]), *parts[2:]]), fontsize=SMALL)
    axis.set_title("scores", fontsize=SMALL + 1)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(left=False)


# Many runs


def rank_correlations(
    records: Sequence[Record], metrics: Sequence[str] = ()
) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """(scores, Spearman's correlation `[S, S]` over the runs that have both, their number `[S, S]`, what was left
    out and why). A score of which less is better counts the other way round, so that 1 means that two scores agree.

    metrics: METRIC or METRIC.KEY; without them the headline of every metric.
    Raises UsageError for too few runs, or scores that they share.
    """
    names = _names(records, metrics)
    left: list[str] = []
    columns: dict[str, np.ndarray] = {}
    for name in names:
        values = np.array([record.scores.get(name, math.nan) for record in records], dtype=float)
        known = np.isfinite(values)
        if known.sum() < FEWEST:
            left.append(f"{name}: {int(known.sum())} of {counted(len(records), 'run')} have it, and it takes {FEWEST}")
        elif len(np.unique(values[known])) < 2:
            left.append(f"{name}: all runs have the same value")
        else:
            columns[name] = -values if _lower_is_better(name) else values
    if len(columns) < 2:
        why = f" ({'; '.join(left)})" if left else ""
        raise UsageError(f"fewer than two scores can be held against each other over these runs{why}.")
    size = len(columns)
    correlation, counts = np.full((size, size), math.nan), np.zeros((size, size), int)
    held = list(columns.values())
    for i in range(size):
        for j in range(size):
            both = np.isfinite(held[i]) & np.isfinite(held[j])
            counts[i, j] = both.sum()
            if counts[i, j] >= FEWEST:
                a, b = rankdata(held[i][both]), rankdata(held[j][both])
                if a.std() > 0 and b.std() > 0:
                    correlation[i, j] = np.corrcoef(a, b)[0, 1]
    return list(columns), correlation, counts, left


def _names(records: Sequence[Record], metrics: Sequence[str]) -> list[str]:
    there = list(dict.fromkeys(name for record in records for name in record.scores))
    if metrics:
        found = []
        for metric in metrics:
            own = [name for name in there if name == metric or name == f"{metric}.{_headline(metric)}"]
            if not own:
                raise UsageError(f"none of these runs has the score '{metric}': {', '.join(there[:MOST]) or 'none'}.")
            found += own
        return list(dict.fromkeys(found))
    chosen = [name for name in there if name.partition(".")[2] == _headline(name.partition(".")[0])]
    return (chosen or there)[:MOST]


def _headline(metric: str) -> str:
    cls = registry().loaded("metric", metric)
    return "" if cls is None else str(cls.headline)


def _lower_is_better(name: str) -> bool:
    metric, _, key = name.partition(".")
    cls = registry().loaded("metric", metric)
    meaning = None if cls is None else cls.meaning(key)
    return meaning is not None and meaning.better == "lower"


def drawn_ranks(names: Sequence[str], correlation: np.ndarray, counts: np.ndarray, title: str, form: str) -> bytes:
    """The matrix of rank correlations, numbers of 100 in its cells, in the form of a suffix."""
    side = max(2.6, 0.28 * len(names) + 1.3)
    figure, grid = windowless(1, 1, side + 0.5, side)
    axis = grid[0, 0]
    shown = axis.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    words = [name.replace(".", "\n", 1) if len(name) > 18 else name for name in names]
    axis.set_xticks(range(len(names)), words, rotation=90, fontsize=SMALL)
    axis.set_yticks(range(len(names)), words, fontsize=SMALL)
    for (i, j), value in np.ndenumerate(correlation):
        if math.isfinite(value):
            ink = "white" if abs(value) > 0.6 else "black"
            axis.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=SMALL, color=ink)
    bar = figure.colorbar(shown, ax=axis, shrink=0.8)
    bar.set_label("rank correlation; cells: times 100", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    runs = sorted({int(n) for n in counts[np.isfinite(correlation)]})
    told = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    axis.set_title(f"{title}{told} runs", fontsize=TITLE)
    return as_figure(figure, form)


def checkpoint_of(path: Path) -> Path:
    """The checkpoint of a run folder, or the path itself."""
    return path / CHECKPOINT if path.is_dir() else path
