"""Several methods, several seeds, one data set: train, score, and say mean, standard deviation and best per metric.

Thin on purpose: every run is an ordinary run folder, which `distk resume`, `traverse` and `eval` take, and what is
finished is not done again when the same command is given twice.
"""

from __future__ import annotations

import json
import math
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distk import UsageError
from distk.checkpoint import read_header
from distk.config import hints, to_toml
from distk.console import note, progress
from distk.evaluation import evaluate
from distk.files import write_atomic
from distk.models import open_model
from distk.registry import registry
from distk.settings import Settings, resolve
from distk.study.tables import as_png, rows_as_csv, windowless
from distk.training.loop import resume
from distk.training.replicas import train_seeds


@dataclass(frozen=True)
class Variant:
    """One line of the comparison: a method under these settings. label: also the name of its folder."""

    label: str
    method: str
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is compared, and how.

    data: section [data] for all; None takes that of the first method's preset. columns: "metric.key" of `evaluate`.
    """

    variants: Sequence[Variant]
    seeds: Sequence[int]
    columns: Sequence[str]
    out: Path
    preset: str | None = None
    data: Mapping[str, Any] | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, variant: Variant, seed: int) -> Settings:
        """Complete settings of one run. Raises UsageError for what the method does not know."""
        data = self.data
        if data is None:
            first = resolve(self.variants[0].method, preset=self._preset(self.variants[0].method))
            data = {"name": first.data, **first.data_options}
        sections = {"model": dict(variant.model), "data": dict(data), "train": {**self.train, "seed": seed}}
        return resolve(variant.method, preset=self._preset(variant.method), options=sections)

    def _preset(self, method: str) -> str | None:
        return self.preset if self.preset in registry().find("method", method).load().presets else None


def run(plan: Plan, quiet: bool = False) -> list[dict[str, Any]]:
    """Train and score everything that is not done yet: rows with `variant`, `method`, `seed`, and a number per column.

    A number that a metric does not give for a method (classification by a method without classes) is NaN.
    Writes results.csv and summary.csv into `plan.out`. Raises UsageError where `plan.out` holds other settings.
    """
    rows = []
    for variant in plan.variants:
        train_variant(plan, variant, quiet)
        with progress(f"scoring {variant.label}", len(plan.seeds), 0, quiet) as advance:
            for seed in plan.seeds:
                rows.append(
                    {"variant": variant.label, "method": variant.method, "seed": seed, **scores(plan, variant, seed)}
                )
                advance(1)
        write_atomic(plan.out / "results.csv", rows_as_csv(rows))
    write_atomic(plan.out / "summary.csv", rows_as_csv([_flat(line) for line in summary(plan, rows)]))
    return rows


def folder(plan: Plan, variant: Variant, seed: int) -> Path:
    """Where the run of one seed lies."""
    return plan.out / variant.label / f"s{seed}"


def train_variant(plan: Plan, variant: Variant, quiet: bool) -> None:
    """Bring the runs of all seeds of one variant to their last step, new ones side by side."""
    fresh = []
    for seed in plan.seeds:
        wanted, path = plan.settings(variant, seed), folder(plan, variant, seed)
        if not path.exists():
            fresh.append(wanted)
            continue
        checkpoint = path / "checkpoint.safetensors"
        header = read_header(checkpoint)
        _same(path, wanted)
        if header.step < wanted.train.steps:
            resume(checkpoint, wanted.train.steps, quiet=quiet)
    if fresh:
        train_seeds(fresh, plan.out / variant.label, quiet)


def _same(path: Path, wanted: Settings) -> None:
    """Raise UsageError unless a run folder was made with these settings (it may be asked to go further)."""
    found = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    asked = tomllib.loads(to_toml(wanted.to_dict(), {"method": wanted.entry.name}))
    for section in ("model", "data", "train"):
        for key in sorted({*found.get(section, {}), *asked[section]} - {"steps", "device", "checkpoint_every"}):
            a, b = found.get(section, {}).get(key), asked[section].get(key)
            if a != b:
                raise UsageError(
                    f"'{path}' was trained with {key} = {a}, and {b} is asked for: give another --out, or remove it."
                )


def scores(plan: Plan, variant: Variant, seed: int) -> dict[str, float]:
    """The columns of one run, read from scores.json where they stand there for this step and these settings."""
    path = folder(plan, variant, seed)
    checkpoint = path / "checkpoint.safetensors"
    mark = {"step": read_header(checkpoint).step, "options": dict(plan.options)}
    held = path / "scores.json"
    found: dict[str, Any] = json.loads(held.read_text()) if held.exists() else {}
    if any(found.get(key) != value for key, value in mark.items()):
        found = {**mark, "metrics": {}}
    missing = list(
        dict.fromkeys(c.partition(".")[0] for c in plan.columns if c.partition(".")[0] not in found["metrics"])
    )
    if missing:
        model, _ = open_model(checkpoint)
        known = {key for name in missing for key in hints(registry().find("metric", name).load().Config)}
        options = {key: value for key, value in plan.options.items() if key in known}
        told = evaluate(model, missing, seed=seed, **options)["metrics"]
        plain = {
            name: {k: v for k, v in result.items() if isinstance(v, (int, float, str))} for name, result in told.items()
        }
        found["metrics"] |= {n: {k: None if v != v else v for k, v in r.items()} for n, r in plain.items()}
        write_atomic(held, json.dumps(found, indent=1).encode())
    values = {}
    for column in plan.columns:
        metric, _, key = column.partition(".")
        value = found["metrics"][metric].get(key)
        if value is None and "error" in found["metrics"][metric]:
            note(f"{variant.label}, seed {seed}: no {metric}, because {found['metrics'][metric]['error']}")
        values[column] = math.nan if value is None else float(value)
    return values


def summary(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per variant: `runs`, and per column (mean, sample standard deviation, best), None where no run has a number."""
    lines = []
    for variant in plan.variants:
        mine = [row for row in rows if row["variant"] == variant.label]
        line: dict[str, Any] = {"variant": variant.label, "runs": len(mine)}
        for column in plan.columns:
            values = [row[column] for row in mine if math.isfinite(row[column])]
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            best = max if higher_is_better(column) else min
            line[column] = (statistics.fmean(values), spread, best(values)) if values else None
        lines.append(line)
    return lines


def higher_is_better(column: str) -> bool:
    """Direction of a column, as its metric says."""
    direction = registry().find("metric", column.partition(".")[0]).load().higher_is_better
    return bool(direction) if direction is not None else True


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if isinstance(value, tuple) or value is None:
            flat |= dict(zip((f"{key} mean", f"{key} std", f"{key} best"), value or (math.nan,) * 3, strict=True))
        else:
            flat[key] = value
    return flat


def draw(plan: Plan, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel per column: every run as a point, mean and standard deviation beside them."""
    panels = len(plan.columns)
    figure, (axes,) = windowless(1, panels, 1 / panels + 0.7 * len(plan.variants), 3.6)
    for axis, column in zip(axes, plan.columns, strict=True):
        for i, variant in enumerate(plan.variants):
            values = [r[column] for r in rows if r["variant"] == variant.label and math.isfinite(r[column])]
            if not values:
                continue
            axis.plot([i - 0.12] * len(values), values, "o", color="0.6", markersize=4)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            axis.errorbar(i + 0.12, statistics.fmean(values), spread, fmt="s", color="C0", capsize=4)
        axis.set_title(column, fontsize=9)
        axis.set_xticks(
            range(len(plan.variants)), [v.label for v in plan.variants], rotation=60, ha="right", fontsize=8
        )
        axis.set_xlim(-0.6, len(plan.variants) - 0.4)
    write_atomic(path, as_png(figure, 110))


def scatter(plan: Plan, rows: Sequence[Mapping[str, Any]], x: str, y: str, path: Path) -> None:
    """One column against another, a point with error bars per variant, joined within each method."""
    figure, ((axis,),) = windowless(1, 1, 5.4, 4)
    lines = summary(plan, rows)
    for method in dict.fromkeys(v.method for v in plan.variants):
        mine = [n for n, v in zip(lines, plan.variants, strict=True) if v.method == method and n[x] and n[y]]
        if not mine:
            continue
        spreads = [[0.0 if math.isnan(n[c][1]) else n[c][1] for n in mine] for c in (x, y)]
        at = [[n[c][0] for n in mine] for c in (x, y)]
        axis.errorbar(*at, xerr=spreads[0], yerr=spreads[1], marker="o", capsize=2, linewidth=0.8, label=method)
        for n in mine:
            axis.annotate(n["variant"].rpartition("-")[2], (n[x][0], n[y][0]), fontsize=7)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.legend(fontsize=8)
    write_atomic(path, as_png(figure, 110))


def check_columns(columns: Sequence[str]) -> None:
    """Raise UsageError for a column whose metric is not registered."""
    for column in columns:
        if "." not in column:
            raise UsageError(f"'{column}' names no number of a metric; write METRIC.KEY, for example clsacc.hungarian.")
        registry().find("metric", column.partition(".")[0])
