"""What came out of a study: our figures beside the published ones, the claims with their verdicts, the drawings."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distk import console
from distk.errors import DistkError, UsageError
from distk.files import read_text, write_atomic
from distk.registered import Registration
from distk.registry import registry
from distk.study import figures, store
from distk.study.claims import UNTESTED, Claim, Verdict, interval, judge
from distk.study.parse import parse
from distk.study.protocol import Row
from distk.study.recipe import Column, Recipe
from distk.study.scales import instead, told
from distk.study.tables import rows_as_csv


@dataclass(frozen=True)
class Line:
    """A variant in one column. sd: sample standard deviation, None for one run. best: of the run that the recipe's
    `best_by` chooses, else of the best run in this column; None where no direction is known. best_seed: that run's.

    low, high: 95 per cent bootstrap interval of the mean over seeds, None below three runs.
    published, published_best: as printed. where: their place and setting in the paper.
    """

    variant: str
    column: str
    mean: float | None
    sd: float | None
    n: int
    best: float | None
    best_seed: int | None = None
    published: str = ""
    published_best: str = ""
    where: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Report:
    """A study's results. files: what was written. conditions: in what the variants differ, a line each."""

    out: Path
    recipe: Recipe
    rows: list[Row]
    lines: list[Line]
    claims: list[tuple[Claim, Verdict]]
    files: list[Path]
    conditions: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def instead(self) -> dict[str, tuple[Any, Any]]:
        """What was done otherwise than published."""
        return instead(self.recipe, sorted({int(row["seed"]) for row in self.rows}))

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return {
            "study": self.recipe.name,
            "title": self.recipe.title,
            "source": self.recipe.source,
            "out": str(self.out),
            "scale": self.recipe.scale,
            "instead": {name: list(values) for name, values in self.instead.items()},
            "conditions": self.conditions,
            "table": [dataclasses.asdict(line) for line in self.lines],
            "claims": [{k: v for k, v in vars(c).items() if v not in ("", None)} | vars(v) for c, v in self.claims],
            "runs": self.rows,
            "files": [str(f) for f in self.files],
        }


def report(out: Path) -> Report:
    """The report of a study's folder, from its results.csv; writes summary.csv and the figures anew.

    Raises DistkError for a folder without a study, or a damaged one.
    """
    held = store.load(out)
    try:
        text = read_text(out / "recipe.toml")
        entry = registry().find("study", held.registered) if held.registered else None
        runner = held.registered if entry is not None and entry.runner else ""
        recipe = parse(text, held.study, scale=held.scale, sets=held.sets, runner=runner)
    except (OSError, UnicodeDecodeError) as error:
        raise DistkError(f"'{out}' has lost its recipe.toml ({error}).") from error
    rows = store.read_rows(held.results)
    names = [v.label for v in recipe.variants]
    names += [label for label in dict.fromkeys(r["variant"] for r in rows) if label not in names]
    lines = summary(recipe, rows, names)
    verdicts = [(claim, verdict(claim, recipe, rows, entry)) for claim in recipe.claims]
    files = [held.results, out / "summary.csv"]
    write_atomic(files[1], _as_csv(lines))
    files += figures.draw(recipe, rows, names, out) if rows else []
    return Report(
        out, recipe, rows, lines, verdicts, files, [held.conditions[n] for n in names if n in held.conditions]
    )


def summary(recipe: Recipe, rows: Sequence[Row], labels: Sequence[str]) -> list[Line]:
    """A line per column and variant, of those that have a number of ours or of the paper's."""
    found = []
    for column in recipe.columns:
        headings = [column.name, *([f"{column.name} (last)"] if recipe.select and column.ours else [])]
        for heading in headings:
            for label in labels:
                line = _line(recipe, column, heading, label, rows)
                if line.n or line.published or line.published_best:
                    found.append(line)
    return found


def _line(recipe: Recipe, column: Column, heading: str, label: str, rows: Sequence[Row]) -> Line:
    values = numbers(rows, label, heading)
    by = recipe.column(recipe.best_by) if recipe.best_by else column
    seed = best_seed(rows, label, recipe.best_by or heading, direction(by))
    best = next(iter(numbers([row for row in rows if row["seed"] == seed], label, heading)), None)
    printed = recipe.published.get(label, {}) if heading == column.name else {}
    figure, top = printed.get(column.name), printed.get(f"{column.name}/best")
    return Line(
        label,
        heading,
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
        len(values),
        best,
        seed if best is not None else None,
        figure.value if figure else "",
        top.value if top else "",
        (figure or top).where if figure or top else "",  # type: ignore[union-attr]
        column.unit,
        *interval(values),
    )


def numbers(rows: Sequence[Row], label: str, column: str) -> list[float]:
    """The numbers of a variant in a column."""
    found = [row.get(column) for row in rows if row["variant"] == label]
    return [float(v) for v in found if isinstance(v, (int, float)) and math.isfinite(v)]


def best_seed(rows: Sequence[Row], label: str, column: str, higher: bool | None) -> int | None:
    """The seed of a variant's best run in a column, the lowest of equals; None where no run has a number or nobody says
    whether larger is better."""
    if higher is None:
        return None
    of = {row["seed"]: numbers([row], label, column) for row in rows if row["variant"] == label}
    found = sorted((-value if higher else value, seed) for seed, values in of.items() for value in values)
    return found[0][1] if found else None


def direction(column: Column) -> bool | None:
    """Whether larger is better in a column: as the recipe says, else as the metric says of this number; None where
    nobody says it."""
    if column.higher is not None or not column.key:
        return column.higher
    try:
        told = registry().find("metric", column.metric).load().meaning(column.key)
    except DistkError:  # a runner's column, or a metric that is gone
        return None
    return told.higher_is_better if told is not None else None


def verdict(claim: Claim, recipe: Recipe, rows: Sequence[Row], entry: Registration | None) -> Verdict:
    """The verdict on one claim, by the engine or by the study's own judge."""
    if claim.judged_here:
        column = recipe.column(claim.column)
        if not column.ours:
            return Verdict(UNTESTED, reason=f"no score of ours is '{column.name}'")
        higher = direction(column)
        if higher is None and undirected(claim):
            return Verdict(UNTESTED, reason=f"nobody says whether larger is better in '{column.name}'")
        return judge(claim, rows, bool(higher))
    told = None
    if not claim.untested and entry is not None and entry.judge:
        told = entry.load_from(entry.judge)(claim, rows)
    if told is not None and not isinstance(told, Verdict):
        raise DistkError(f"the judge of study '{entry.name}' gave no verdict on '{claim.text}'.")  # type: ignore[union-attr]
    return told or Verdict(UNTESTED, reason=claim.untested or claim.kind)


def undirected(claim: Claim) -> bool:
    """Whether a claim needs the direction of its column."""
    return claim.bound is None and claim.kind != "equal" and claim.direction not in ("higher", "lower")


def check_directions(recipe: Recipe) -> None:
    """Raise UsageError for a claim, or a choice of the best run, of which nobody says what better means."""
    if recipe.best_by and direction(recipe.column(recipe.best_by)) is None:
        raise UsageError(
            f"study '{recipe.name}': 'best_by' is '{recipe.best_by}', of which nobody says whether larger is better: "
            "give the column 'higher_is_better'."
        )
    for claim in recipe.claims:
        if claim.judged_here and undirected(claim):
            column = recipe.column(claim.column)
            if column.ours and direction(column) is None:
                raise UsageError(
                    f"study '{recipe.name}', claim '{claim.text}': say 'direction', or 'higher_is_better' of column "
                    f"'{column.name}'."
                )


def _as_csv(lines: Sequence[Line]) -> bytes:
    header = [f.name for f in dataclasses.fields(Line)]
    return rows_as_csv([{k: "" if v is None else v for k, v in vars(line).items()} for line in lines], header)


def show(made: Report) -> None:
    """Print a report."""
    recipe = made.recipe
    rows = [(n.variant, ours(n), n.n, n.best, printed(n), n.where) for n in made.lines]
    for column in dict.fromkeys(line.column for line in made.lines):
        chosen = [row for row, line in zip(rows, made.lines, strict=True) if line.column == column]
        unit = next((line.unit for line in made.lines if line.column == column), "")
        keep = [0, 1, 2, 3, *([4] if any(r[4] for r in chosen) else []), *([5] if any(r[5] for r in chosen) else [])]
        header = ("", "ours: mean [interval] (sd)", "n", "best", "published", "where")
        title = f"{column}, {unit}" if unit else column
        console.table(title, [header[i] for i in keep], [[row[i] for i in keep] for row in chosen])
        console.say()
    if less := made.instead:
        console.note(f"scale {recipe.scale}: {told(less)}")
    if made.conditions:
        show_conditions(made.conditions, console.out)
        console.say()
    if recipe.best_by and made.rows:
        seeds = {line.variant: line.best_seed for line in made.lines if line.best_seed is not None}
        named = ", ".join(f"{variant}: seed {seed}" for variant, seed in seeds.items())
        console.note(f"'best' is the run that '{recipe.best_by}' chooses for all columns ({named})")
    if made.claims:
        cells = [(v.verdict, c.text, spread_of(v), c.where) for c, v in made.claims]
        console.table("claims", ("verdict", "claim", "difference [interval]", "where"), cells)
        console.say()
    if not made.rows:
        console.note(f"study '{recipe.name}' has no results yet")


def show_conditions(lines: Sequence[Mapping[str, Any]], to: Any) -> None:
    """Print in what variants differ; `distk.study.plan.differences` gives the lines."""
    rows = [
        (
            line["variant"],
            line.get("method", ""),
            line.get("parameters"),
            line.get("start"),
            line.get("steps"),
            line.get("data", ""),
            ", ".join(f"{k}={v}" for k, v in line.get("settings", {}).items()),
        )
        for line in lines
    ]
    header = ("variant", "method", "parameters", "initial gain", "steps", "data", "differs in")
    keep = [i for i in range(len(header)) if i != 3 or any(row[3] is not None for row in rows)]
    console.table("", [header[i] for i in keep], [[row[i] for i in keep] for row in rows], to=to)


def ours(line: Line) -> str:
    """Our figure with its interval, where there are three runs, and its standard deviation, where there are two."""
    if line.mean is None:
        return "-"
    told = f" [{line.low:.4g}, {line.high:.4g}]" if line.low is not None else ""
    return f"{line.mean:.4g}{told}" + (f" ({line.sd:.2g})" if line.sd is not None else "")


def printed(line: Line) -> str:
    """The published figures of a line, as printed."""
    best = f"best {line.published_best}" if line.published_best else ""
    return ", ".join(part for part in (line.published, best) if part)


def spread_of(verdict: Verdict) -> str:
    """The difference that a verdict rests on, with its interval, or the reason why there is none."""
    if verdict.difference is None:
        return verdict.reason
    interval = f" [{verdict.low:.3g}, {verdict.high:.3g}]" if verdict.low is not None else ""
    told = f"{verdict.difference:+.3g}{interval}, n = {verdict.n}, {verdict.how}"
    return f"{told}; {verdict.reason}" if verdict.reason else told
