"""Runs held against each other: settings that differ, scores with their intervals, curves.

Runs that differ in their seed alone are one group, whose figures carry an interval.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distk.errors import DistkError, UsageError, unknown
from distk.laboratory.index import folders_below, headlines_of
from distk.laboratory.records import LOG, Record, last_rows, read, state_of
from distk.laboratory.spread import Difference, Spread, band, difference, spread
from distk.look import COLUMN
from distk.study.tables import as_figure, windowless

WHOLE_LOG = 64 << 20
"""Bytes of a log that we agree to read for its curves."""
POINTS = 400
"""Points of a curve, thinned evenly where there are more."""
ACROSS = 3
SEEDED = re.compile(r"s\d+")
"""Folders of a study's runs, of which the folder above has the name."""
NOT_CURVES = ("step", "seconds", "rate")


@dataclass(frozen=True)
class Group:
    """Runs of one method and one set of settings, which differ in their seed. label: what tells it from the others."""

    label: str
    records: list[Record]

    def by_seed(self, score: str) -> dict[int, float]:
        """Seed -> number; of runs without a seed, or with one that was there already, the place in the group."""
        found: dict[int, float] = {}
        for i, record in enumerate(self.records):
            if score in record.scores:
                seed = record.seed if record.seed is not None and record.seed not in found else -1 - i
                found[seed] = record.scores[score]
        return found


@dataclass(frozen=True)
class Comparison:
    """What differs between groups of runs.

    settings: SECTION.KEY (and "method") -> a value for each group, of those that differ. scores: METRIC.KEY -> a figure
    for each group, None where it has none. differences: METRIC.KEY -> second group less the first, where there are two.
    headlines: metric -> its headline.
    """

    groups: list[Group]
    settings: dict[str, list[Any]]
    scores: dict[str, list[Spread | None]]
    differences: dict[str, Difference]
    headlines: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return {
            "groups": [
                {"label": g.label, "runs": [{**r.plain(), "state": state_of(r)} for r in g.records]}
                for g in self.groups
            ],
            "settings": self.settings,
            "scores": {k: [None if s is None else vars(s) for s in v] for k, v in self.scores.items()},
            "differences": {k: {**vars(v), "clear": v.clear} for k, v in self.differences.items()},
        }


def compare(*paths: str | Path, metrics: Sequence[str] = ()) -> Comparison:
    """Hold runs against each other.

    paths: run folders, checkpoints, or folders with runs below them, such as those of a study. metrics: show the
    numbers of these alone. Raises DistkError for a path without a run or a metric by which no run was scored.
    """
    records = [read(folder) for folder in run_folders(paths)]
    groups = grouped(records)
    scored = {score.partition(".")[0] for record in records for score in record.scores}
    for name in metrics:
        if name not in scored:
            hint = f" Score them with `distk eval RUN --metric {name}`."
            raise (
                DistkError(f"none of these runs was scored by '{name}'.{hint}")
                if not scored
                else unknown("score of these runs", name, scored)
            )
    names = sorted({s for r in records for s in r.scores if not metrics or s.partition(".")[0] in metrics})
    values = {name: [group.by_seed(name) for group in groups] for name in names}
    return Comparison(
        groups,
        _differing(groups),
        {name: [spread(list(v.values())) if v else None for v in each] for name, each in values.items()},
        {name: difference(*each) for name, each in values.items() if len(groups) == 2 and all(each)},
        headlines_of(scored),
    )


def run_folders(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders that paths name, each once. Raises DistkError for a path without a run."""
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise DistkError(f"'{path}' is not there: name a run folder, a checkpoint, or a folder of runs.")
        below = folders_below(path) if path.is_dir() else [path.parent]
        if not below or (path.is_file() and path.suffix != ".safetensors"):
            raise DistkError(f"'{path}' holds no run: name a run folder, a checkpoint, or a folder of runs.")
        found += below
    return list(dict.fromkeys(found))


def grouped(records: Sequence[Record]) -> list[Group]:
    """Groups in the order in which their first runs were named."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(json.dumps([record.recipe, record.data], sort_keys=True, default=str), []).append(record)
    groups = [Group("", list(each)) for each in found.values()]
    labels = _labels(groups)
    return [Group(label, group.records) for label, group in zip(labels, groups, strict=True)]


def _labels(groups: Sequence[Group]) -> list[str]:
    """What groups are called: by the folder that their runs share, or a lone run's own; longer where two are alike."""
    parts = [_shared(group.records) for group in groups]
    for length in range(1, 6):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label} ({i + 1})" for i, label in enumerate(labels)]


def _shared(records: Sequence[Record]) -> tuple[str, ...]:
    """The parts of a folder that runs share; runs side by side in one folder are named by the first of them."""
    paths = [record.path.resolve().parts for record in records]
    if len(paths) == 1:
        parts = paths[0]
        seeded = SEEDED.fullmatch(parts[-1])
        return parts[:-1] if seeded and len(parts) > 2 else parts
    study = all(path[:-1] == paths[0][:-1] and SEEDED.fullmatch(path[-1]) for path in paths)
    return paths[0][:-1] if study else (*paths[0][:-1], f"{paths[0][-1]} and {len(paths) - 1} more")


def _differing(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Settings in which groups differ; None where a group's method does not have one."""
    recipes = [{**group.records[0].recipe, "data.name": group.records[0].data} for group in groups]
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    found = {name: [recipe.get(name) for recipe in recipes] for name in names}
    return {name: values for name, values in found.items() if any(v != values[0] for v in values[1:])}


# Curves


def curves(record: Record) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Logged term -> (steps, values) of a run, float `[rows]`; scores taken during training are among them."""
    rows = [row for row in last_rows(record.path / LOG, WHOLE_LOG) if isinstance(row.get("step"), int)]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in dict.fromkeys(key for row in rows for key in row if key not in NOT_CURVES):
        pairs = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))]
        if len(pairs) > 1:
            steps, values = np.array(pairs, dtype=float).T
            keep = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).round().astype(int))
            found[name] = steps[keep], values[keep]
    return found


def joint(group: Group, term: str, held: Mapping[Path, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray] | None:
    """(steps `[points]`, values `[runs, points]`) of a term at the steps that all runs of a group logged; None without.

    held: the curves of each run, by its folder.
    """
    own = [held[record.path][term] for record in group.records if term in held[record.path]]
    if not own:
        return None
    steps = own[0][0]
    for other, _ in own[1:]:
        steps = np.intersect1d(steps, other)
    if len(steps) < 2:
        return None
    return steps, np.stack([values[np.isin(at, steps)] for at, values in own])


def drawn(made: Comparison, suffix: str = ".png") -> bytes:
    """The curves of all groups as a PNG, SVG or PDF: a panel per logged term, with the mean over runs, and its interval
    as a band.

    Raises UsageError where no run logged anything.
    """
    held = {record.path: curves(record) for group in made.groups for record in group.records}
    terms = list(dict.fromkeys(term for each in held.values() for term in each))
    if not terms:
        raise UsageError("none of these runs logged two rows, so there are no curves to draw.")
    across = min(ACROSS, len(terms))
    picture, grid = windowless(-(-len(terms) // across), across, COLUMN / across, 1.6 if across > 1 else 2.4)
    axes = [axis for row in grid for axis in row]
    for axis in axes[len(terms) :]:
        axis.set_axis_off()
    for axis, term in zip(axes, terms, strict=False):
        for i, group in enumerate(made.groups):
            found = joint(group, term, held)
            if found is not None:
                mean, low, high = band(found[1])
                axis.plot(found[0], mean, color=f"C{i % 10}", linewidth=1, label=f"{group.label} (n={len(found[1])})")
                axis.fill_between(found[0], low, high, color=f"C{i % 10}", alpha=0.2, linewidth=0)
        axis.set_title(term)
        axis.set_xlabel("step")
        axis.tick_params(labelsize=6)
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize=6, frameon=False)
    return as_figure(picture, suffix)
