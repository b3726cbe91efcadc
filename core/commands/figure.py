"""`distk figure`: a run's scores in one picture, or how scores agree over many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from distk import completing, console
from distk.checkpoint import read_header
from distk.commands.arguments import Json
from distk.commands.shared import Look, report, titled, written_to
from distk.files import write_atomic
from distk.laboratory import summary
from distk.laboratory.compare import run_folders
from distk.laboratory.records import read
from distk.look import formed
from distk.run import find_checkpoint


def figure(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="One run, or several: run folders, or folders with runs below them. Default: the newest run.",
            autocompletion=completing.runs,
        ),
    ] = None,
    look: Look = Look(),
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="Only this score, as METRIC or METRIC.KEY; repeatable.",
            autocompletion=completing.metrics,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: beside the checkpoint; of several runs ./ranks.png.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw a run's scores as one picture; of several runs, how their scores rank them.

    One run: what each code knows of each factor, how much it weighs in predicting it, and the scores, with their value
    at chance and their interval where `distk eval --baseline 5 --ci 20` measured them.

    Several: Spearman's rank correlation between scores, over at least four runs. A score of which less is better counts
    the other way round. Nothing is scored here: the numbers are those that `distk eval` and studies left behind.

    Example: distk figure runs/my-run --format pdf
    Example: distk figure runs/study-mine -m mig -m modularity --out ranks.svg
    """
    folders = run_folders(runs) if runs else [find_checkpoint(None).parent]
    if len(folders) == 1:
        _one(runs[0] if runs else folders[0], metric or [], out, json)
        return
    records = [read(folder) for folder in folders]
    names, correlation, counts, left = summary.rank_correlations(records, metric or [])
    target = written_to(out, "ranks.png") if out is not None else Path(formed("ranks.png"))
    write_atomic(target, summary.drawn_ranks(names, correlation, counts, "Scores over ", target.suffix))
    for sentence in left:
        console.note(f"left out, {sentence}")
    if not json:
        rows = [(name, *(float(v) for v in row)) for name, row in zip(names, correlation, strict=True)]
        console.table("rank correlation", ("", *names), rows)
    table: dict[str, Any] = {"scores": names, "correlation": correlation, "runs": np.asarray(counts), "left_out": left}
    report([target], json, **table)


def _one(path: Path, metrics: list[str], out: Path | None, json: bool) -> None:
    """The picture of one run."""
    checkpoint = find_checkpoint(path)
    found = summary.scored(checkpoint)
    wanted = {name.partition(".")[0] for name in metrics}
    chosen = {name: values for name, values in found.items() if not wanted or name in wanted}
    name = f"{checkpoint.stem}.summary.png"
    target = checkpoint.with_name(formed(name)) if out is None else written_to(out, name)
    data = sorted({str(values.get("measured", {}).get("data")) for values in chosen.values()})
    title = titled(read_header(checkpoint), *data)
    write_atomic(target, summary.summary(chosen, title, target.suffix))
    report([target], json, scores=list(chosen))
