"""`distk runs`: every run below a folder."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from distk import console
from distk.commands.arguments import Json
from distk.console import counted
from distk.errors import UsageError
from distk.laboratory.index import Runs, runs_below
from distk.laboratory.records import Record, unknown_key
from distk.laboratory.select import chosen, ordered
from distk.run import RUNS

SHOWN = 50
"""Runs that a table shows unless --limit says otherwise."""
SCORES = 6
"""Headline scores that a table shows unless --columns says otherwise."""


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder below which runs lie.")] = RUNS,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE, or with != < <= > >=; repeatable, all must hold. KEY: method, data, seed, step, state, a "
            "setting (beta), a score (dci.disentanglement, dci) or a logged term; * in VALUE stands for anything."
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="KEY to sort by, -KEY from the largest; default: the newest first.")
    ] = "-changed",
    columns: Annotated[
        str | None, typer.Option(help="KEYs to show instead of the headline scores, comma-separated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Show so many at most, 0 for all; a table: 50.", min=0)] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    json: Json = False,
) -> None:
    """List runs with method, data, seed, step, state and scores.

    What each run says is kept in an index and read again only where its files changed.

    Example: distk runs runs/my-run
    Example: distk runs runs/study-my-study --where method=covreg-linear --where "step>=1" --sort -seed --columns lr
    """
    if csv and json:
        raise UsageError("give --csv or --json, not both.")
    if csv and folder.suffix == ".csv" and not folder.exists():
        raise UsageError(f"--csv prints: write distk runs --csv > {folder} to have it in a file.")
    found = runs_below(folder)
    kept = ordered(chosen(found.records, where or (), found.headlines), sort, found.headlines)
    keys = _keys(columns, found)
    cut = limit if limit is not None else 0 if csv or json else SHOWN
    shown = kept[:cut] if cut else kept
    if json:
        console.emit_json({"folder": str(folder), "runs": [r.plain() for r in shown], "found": len(kept)})
    elif csv:
        _print_csv(shown, keys or _scores(kept), found)
    else:
        _print_table(shown, keys, [] if keys else _headline_columns(kept, found), found)
        _print_problems(shown)
        console.note(_count(len(shown), len(kept), len(found.records), folder))


def _keys(columns: str | None, found: Runs) -> list[str]:
    """The columns that were asked for. Raises UsageError for one that no run has."""
    keys = [key.strip() for key in (columns or "").split(",") if key.strip()]
    for key in keys:
        if found.records and all(r.value(key, found.headlines) is None for r in found.records):
            raise UsageError(f"--columns: no run has '{key}'.{unknown_key(key, found.records, found.headlines)}")
    return keys


def _headline_columns(records: list[Record], found: Runs) -> list[str]:
    """The headline of each metric by which most of these runs were scored."""
    counts: dict[str, int] = {}
    for metric, headline in found.headlines.items():
        counts[f"{metric}.{headline}"] = sum(f"{metric}.{headline}" in record.scores for record in records)
    scored = [key for key, count in sorted(counts.items(), key=lambda pair: -pair[1]) if count]
    return scored[:SCORES]


def _scores(records: list[Record]) -> list[str]:
    return sorted({key for record in records for key in record.scores})


def _print_table(records: list[Record], keys: list[str], scores: list[str], found: Runs) -> None:
    """The runs with the columns that were asked for, or with as many headline scores as fit beside each other."""
    if not records:
        return
    rows = []
    for record in records:
        steps = "-" if record.step is None else f"{record.step:,}"
        steps += f" of {record.steps:,}" if record.steps is not None and record.step != record.steps else ""
        fixed = (_name(record, found.folder), record.method, record.data, record.seed, steps, record.state)
        rows.append((*fixed, *(record.value(key, found.headlines) for key in (*keys, *scores))))
    columns = ("run", "method", "data", "seed", "step", "state", *keys, *scores)
    kept = console.fitting(columns, rows, len(columns) - len(scores))
    console.table("", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    if left := [column for i, column in enumerate(columns) if i not in kept]:
        console.note(f"{', '.join(left)}: too wide for this terminal; --columns names what to show, --csv prints all")


def _name(record: Record, folder: Path) -> str:
    """A run's folder as it is called below the folder that was listed."""
    return str(record.path.relative_to(folder)) if record.path != folder else str(record.path)


def _print_problems(records: list[Record]) -> None:
    for record in records:
        if record.problem:
            console.note(f"{record.path}: {record.problem.rstrip('.')}"[:300])


def _count(shown: int, kept: int, all_: int, folder: Path) -> str:
    if not all_:
        return f"no run lies below '{folder}': train one with `distk train`"
    told = f"{kept:,} of {counted(all_, 'run')}" if kept != all_ else counted(all_, "run")
    return told if shown == kept else f"{shown} of {told} shown; --limit 0 shows all"


def _print_csv(records: list[Record], keys: list[str], found: Runs) -> None:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    fixed = ("path", "method", "data", "seed", "step", "steps", "state")
    out.writerow([*fixed, *keys])
    for record in records:
        out.writerow([_cell(record.value(key, found.headlines)) for key in (*fixed, *keys)])
    console.say(text.getvalue().removesuffix("\n"))


def _cell(value: Any) -> Any:
    """A value for CSV: nothing stays empty, a word of a stranger's file carries no control characters."""
    if isinstance(value, str):
        return console.clean(value)
    return "" if value is None else ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
