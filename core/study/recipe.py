"""What a study consists of, as frozen values; `distk.study.parse` makes them from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distk.study.claims import Claim

SECTIONS = ("model", "data", "train", "settings")
"""Where a setting of a variant may stand; `settings` are those of a runner."""
Table = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the results.

    name: its heading. ours: "METRIC.KEY" that fills it, "METRIC:SETTINGS.KEY" (see `distk.asked`), or the runner's name
    for it; empty: only the paper has it. higher: whether larger is better, None where the metric says it.
    options: settings of the metric for this column, and `split`, the rows that it is scored on.
    times: ours is multiplied by this, so that it has the unit of the paper (a share in per cent: 100).
    """

    name: str
    ours: str
    higher: bool | None = None
    unit: str = ""
    options: Table = field(default_factory=dict)
    times: float = 1.0

    @property
    def metric(self) -> str:
        """The metric that fills the column."""
        return self.ours.partition(":" if self.text else ".")[0]

    @property
    def key(self) -> str:
        """Which of the metric's numbers."""
        return self.ours.rpartition(".")[2] if self.text else self.ours.partition(".")[2]

    @property
    def text(self) -> str:
        """The score with its settings, where `ours` has any."""
        return self.ours.rpartition(".")[0] if ":" in self.ours else ""


@dataclass(frozen=True)
class Variant:
    """One line of the study.

    label: its name. method: empty where a runner needs none. preset: the variant's own. model, data, train, settings:
    what differs from the study's. quoted: whose figure it is, for a line that is only printed. point: its place in a
    grid. group: the label that the variants of its grid share. scale: those that it is part of; empty: all.
    """

    label: str
    method: str = ""
    preset: str | None = None
    model: Table = field(default_factory=dict)
    data: Table = field(default_factory=dict)
    train: Table = field(default_factory=dict)
    settings: Table = field(default_factory=dict)
    quoted: str = ""
    point: Table = field(default_factory=dict)
    group: str = ""
    scale: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A printed figure, word for word, and where and under which setting it stands."""

    value: str
    where: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing. kind: "points" (every run, a panel per column), "scatter" (column x against column y, a point with
    error bars per variant) or "curve" (column y against the grid's setting x). columns: of points; of the others the
    y of several panels. panels: a panel for each variant that has a grid of its own."""

    kind: str
    name: str
    columns: tuple[str, ...] = ()
    x: str = ""
    y: str = ""
    panels: bool = False


@dataclass(frozen=True)
class Recipe:
    """A whole study. `equal` names the settings (KEY of the model, SECTION.KEY, or a whole section) that all its
    variants share, as the recipe claims. `model` holds for all variants, `models[METHOD]` for those of one method;
    `forced` wins over all (`--set`): {"model": ..., "data": ..., "train": ..., "settings": ..., METHOD: ...}. best_by:
    the column by which a variant's best run is chosen for all columns; empty: each column's best run is its own."""

    name: str
    title: str
    text: str
    columns: tuple[Column, ...]
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    preset: str | None = None
    model: Table = field(default_factory=dict)
    models: Mapping[str, Table] = field(default_factory=dict)
    data: Table = field(default_factory=dict)
    train: Table = field(default_factory=dict)
    settings: Table = field(default_factory=dict)
    options: Mapping[str, Table] = field(default_factory=dict)
    equal: tuple[str, ...] = ()
    select: Table = field(default_factory=dict)
    best_by: str = ""
    published: Mapping[str, Mapping[str, Published]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    figures: tuple[Figure, ...] = ()
    runner: str = ""
    source: str = ""
    scale: str = ""
    scales: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    forced: Mapping[str, Table] = field(default_factory=dict)

    def column(self, name: str) -> Column:
        """The column of this name."""
        return next(c for c in self.columns if c.name == name)

    def variant(self, label: str) -> Variant:
        """The variant of this name."""
        return next(v for v in self.variants if v.label == label)
