"""`distk report`: runs and studies as a page, or as tables for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distk import console
from distk.commands.arguments import Device, Json
from distk.errors import UsageError
from distk.files import write_atomic
from distk.laboratory.report import as_html, as_latex, as_markdown, gathered

SUFFIXES = {"html": ".html", "md": ".md", "latex": ".tex"}


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Run folders, checkpoints, studies, or folders with runs below them."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write; default: report.html in the one folder that is named, else here. Markdown and LaTeX "
            "go to stdout without it.",
        ),
    ] = None,
    format: Annotated[
        Literal["html", "md", "latex"] | None,
        typer.Option(help="html, md or latex; default: as --out ends (.html, .md, .tex), else html."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Open a run of each group and draw its traversal.")
    ] = True,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write runs and studies as one HTML page that needs no network, or as Markdown or LaTeX tables.

    The page holds scores with their intervals, published figures, claims and their verdicts, settings that differ,
    curves, traversals under a slider, samples, and where everything comes from. Of runs that differ in their seed alone
    one is pictured. Numbers are those that `distk eval`, a study or scoring during training left in the run folders.

    Example: distk report runs/my-run
    Example: distk report runs/study-my-study --format md
    """
    form = _format(out, format)
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"--out '{out}': the folder '{out.parent}' does not exist.")
    material = gathered(paths)
    files: list[Path] = []
    text = ""
    if form == "html":
        one = paths[0] if len(paths) == 1 and paths[0].is_dir() else Path()
        files = [out if out is not None else one / "report.html"]
        write_atomic(files[0], as_html(material, pictures=pictures, device=device).encode())
    else:
        text = as_markdown(material) if form == "md" else as_latex(material)
        if out is not None:
            write_atomic(out, text.encode())
            files = [out]
    if json:
        made = material.runs.plain() if material.runs is not None else None
        told = {"studies": [study.plain() for study in material.studies], "runs": made}
        console.emit_json({"files": [str(f) for f in files], "text": "" if files else text, **told})
    elif files:
        console.say(files[0])
        console.note(f"{files[0].stat().st_size / 1e6:.2f} MB")
    else:
        console.say(text.removesuffix("\n"))


def _format(out: Path | None, format: str | None) -> str:
    """The form that is asked for by a word or by the file's name. Raises UsageError where the two disagree."""
    named = next((form for form, suffix in SUFFIXES.items() if out is not None and out.suffix == suffix), None)
    if out is not None and named is None and format is None:
        raise UsageError(f"--out '{out}' ends neither in .html nor in .md nor in .tex: say --format.")
    if named is not None and format is not None and named != format:
        raise UsageError(f"--out '{out}' is no name for --format {format}: end it in {SUFFIXES[format]}.")
    return format or named or "html"
