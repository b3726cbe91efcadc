"""`distk compare`: runs held against each other."""

from __future__ import annotations

import json as plain_json
from pathlib import Path
from typing import Annotated, Any

import typer

from distk import console
from distk.commands.arguments import Json
from distk.commands.shared import Look
from distk.errors import UsageError
from distk.files import write_atomic
from distk.laboratory.compare import Comparison, Group, drawn
from distk.laboratory.compare import compare as held_together
from distk.laboratory.spread import Spread
from distk.look import FORMS, chosen, held_to


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, checkpoints, or folders with runs below them, as a study's.")
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Show the scores of this metric alone, every number of it; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also draw the logged curves into this PNG, SVG or PDF.")
    ] = None,
    json: Json = False,
    look: Look = Look(),
) -> None:
    """Hold runs against each other: settings that differ, scores, curves.

    Runs that differ in their seed alone are one group; from three runs its figures carry a 95 per cent bootstrap
    interval over seeds. Of two groups the difference is shown, seed by seed where the seeds are the same. The numbers
    are those that `distk eval`, a study or scoring during training left in the run folders.

    Example: distk compare runs/my-run runs/other-run
    """
    if out is not None:
        held_to(out)
        out = out.with_suffix(chosen().suffix) if not out.suffix and chosen().suffix else out
        if out.suffix.lower() not in FORMS:
            raise UsageError(f"--out '{out}': curves are drawn as {', '.join(FORMS)}, so its name must end in one.")
        if not out.parent.is_dir():
            raise UsageError(f"--out '{out}': the folder '{out.parent}' does not exist.")
    made = held_together(*runs, metrics=metric or ())
    if out is not None:
        write_atomic(out, drawn(made, out.suffix.lower()))
    if json:
        console.emit_json({**made.plain(), "files": [str(out)] if out is not None else []})
        return
    _print(made, all_numbers=bool(metric))
    if out is not None:
        console.say(out)


def _print(made: Comparison, all_numbers: bool) -> None:
    groups = made.groups
    rows = [(g.label, g.records[0].method, _seeds(g.records), _steps(g.records)) for g in groups]
    console.table("", ("group", "method", "seeds", "step"), rows)
    console.say()
    header = [group.label for group in groups]
    if made.settings:
        own = [(name.removeprefix("model."), *map(_setting, values)) for name, values in made.settings.items()]
        console.table("settings that differ", ("", *header), own)
    else:
        console.say("the settings are the same" if len(groups) > 1 else "one group of runs")
    console.say()
    shown = [name for name in made.scores if all_numbers or _headline(name, made)] or list(made.scores)
    if not shown:
        console.note("none of these runs was scored: `distk eval RUN --metric NAME` does it")
        return
    two = bool(made.differences)
    table = [
        (name, *map(_figure, made.scores[name], made.groups), *(_told(made, name) if two else ())) for name in shown
    ]
    console.table("scores", ("", *header, *(("difference",) if two else ())), table)
    if len(shown) < len(made.scores):
        console.note(f"{len(made.scores) - len(shown)} further numbers: --metric NAME shows those of a metric")
    if any(s is not None and s.low is not None for each in made.scores.values() for s in each):
        console.note("[low, high]: 95 per cent bootstrap interval of the mean over seeds; * it leaves out 0")


def _figure(found: Spread | None, group: Group) -> str:
    """A figure, with the number of its runs where some of the group were not scored."""
    if found is None:
        return "-"
    return str(found) if found.n == len(group.records) else f"{found}, n = {found.n}"


def _told(made: Comparison, name: str) -> tuple[str]:
    found = made.differences.get(name)
    return ("-" if found is None else f"{found}{' *' if found.clear else ''}",)


def _headline(name: str, made: Comparison) -> bool:
    metric, _, key = name.partition(".")
    return made.headlines.get(metric) == key


def _seeds(records: Any) -> str:
    return ", ".join("?" if record.seed is None else str(record.seed) for record in records[:12]) + (
        f", ... ({len(records)})" if len(records) > 12 else ""
    )


def _steps(records: Any) -> str:
    return ", ".join(sorted({"-" if record.step is None else f"{record.step:,}" for record in records}))


def _setting(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else plain_json.dumps(value)
