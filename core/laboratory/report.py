"""Runs and studies as one HTML page that needs no network, or as tables for a paper."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from distk.checkpoint import read_header
from distk.console import clean, counted, progress, warn
from distk.errors import DistkError
from distk.laboratory.charts import charts
from distk.laboratory.compare import Comparison, Group, compare, run_folders
from distk.laboratory.pictures import Pictured, pictured, shrunk
from distk.laboratory.records import CHECKPOINT, Record, state_of
from distk.laboratory.tables import Table, columns_of, latex, markdown, scores_of, settings_of, whole
from distk.study import report as studies
from distk.study import scales, store
from distk.study.claims import FAILS, HOLDS
from distk.training.record import read as history
from distk.version import __version__

BUDGET = 4_000_000
"""Characters that pictures may take together, so that a page stays below 5 MB."""
CHARTS = 60
"""Curves on a page; a method that logs a hundred terms shows the first of them."""
INTERVAL = "[low, high]: 95 per cent bootstrap interval of the mean over seeds; sd: standard deviation."


@dataclass
class Material:
    """What a report is made of. studies: those among the paths. runs: all runs, those of the studies too; None where
    a study has none of its own."""

    studies: list[studies.Report] = field(default_factory=list)
    runs: Comparison | None = None


def gathered(paths: Sequence[Path]) -> Material:
    """Everything below the paths, each a run folder, a checkpoint, a study's folder or a folder of runs.

    Raises DistkError for a path that holds neither a run nor a study.
    """
    made = Material()
    folders: list[Path] = []
    for path in paths:
        if (path / store.FILE).is_file():
            made.studies.append(studies.report(path))
            if (path / "runs").is_dir() and any((path / "runs").iterdir()):
                folders += run_folders([path])
        else:
            folders += run_folders([path])
    if folders:
        made.runs = compare(*folders)
    return made


def tables(material: Material) -> list[Table]:
    """What a paper prints: each study in one table with its claims; scores of runs that belong to none."""
    found = []
    for study in material.studies:
        found.append(whole(study))
        if study.claims:
            rows = [[v.verdict, c.text, studies.spread_of(v), c.where] for c, v in study.claims]
            found.append(Table("Claims", ["verdict", "claim", "difference [interval]", "where"], rows))
    if material.runs is not None and not material.studies:
        found += [each for each in (settings_of(material.runs), scores_of(material.runs)) if each.rows]
    return found


def as_markdown(material: Material) -> str:
    """The tables in Markdown."""
    return markdown(tables(material))


def as_latex(material: Material) -> str:
    """The tables in LaTeX."""
    return latex(tables(material))


def as_html(material: Material, *, pictures: bool = True, device: str = "auto") -> str:
    """One page with everything in it.

    pictures: whether a run of each group is opened and its traversal drawn. What would take the page over 5 MB is left
    out, and the page says so.
    """
    groups = material.runs.groups if material.runs is not None else []
    shown = _pictured(groups, device) if pictures else []
    drawn = charts(groups)[:CHARTS] if groups else []
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = importlib.resources.files("distk.laboratory").joinpath("page.html").read_text(encoding="utf-8")
    empty = Table("", [], [])
    return environment.from_string(text).render(
        title=_title(material),
        about=f"made by distk {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        studies=[_study(each) for each in material.studies],
        runs=_runs(groups),
        settings=settings_of(material.runs) if material.runs is not None else empty,
        scores=scores_of(material.runs) if material.runs is not None else empty,
        interval=INTERVAL,
        labels=[group.label for group in groups],
        curves=drawn,
        pictured=shown,
        provenance=[_provenance(group) for group in groups],
    )


def _title(material: Material) -> str:
    if len(material.studies) == 1:
        return clean(material.studies[0].recipe.title)
    if material.studies:
        return f"{counted(len(material.studies), 'study', 'studies')}"
    count = sum(len(group.records) for group in material.runs.groups) if material.runs is not None else 0
    return f"{count} run{'s' if count != 1 else ''}"


def _study(made: studies.Report) -> dict[str, Any]:
    recipe = made.recipe
    about = ", ".join(
        part for part in (recipe.source, f"scale {recipe.scale}", f"{counted(len(made.rows), 'row')}") if part
    )
    if less := made.instead:
        about += f"; {scales.told(less)}"
    kinds = {HOLDS: "holds", FAILS: "fails"}
    claims = [
        {
            "verdict": verdict.verdict,
            "kind": kinds.get(verdict.verdict, "open"),
            "text": claim.text,
            "spread": studies.spread_of(verdict),
            "where": claim.where,
        }
        for claim, verdict in made.claims
    ]
    figures = [{"name": file.stem, "data": _png(file)} for file in made.files if file.suffix == ".png"]
    return {
        "title": recipe.title,
        "about": about,
        "tables": columns_of(made),
        "claims": claims,
        "figures": [figure for figure in figures if figure["data"]],
    }


def _png(file: Path) -> str:
    try:
        return shrunk(file, (1400, 1400))
    except (OSError, DistkError) as error:
        warn(f"'{file}' is left out of the page ({type(error).__name__})")
        return ""


def _runs(groups: Sequence[Group]) -> Table:
    header = ["group", "method", "data", "seeds", "step", "state"]
    rows = []
    for group in groups:
        first = group.records[0]
        seeds = ", ".join("?" if r.seed is None else str(r.seed) for r in group.records)
        steps = sorted({"-" if r.step is None else f"{r.step:,}" for r in group.records})
        states = sorted({state_of(r) for r in group.records})
        rows.append([group.label, first.method, first.data, seeds, ", ".join(steps), ", ".join(states)])
    return Table("Runs", header, rows)


def _pictured(groups: Sequence[Group], device: str) -> list[Pictured]:
    """The first run of each group that has a checkpoint, as long as there is room on the page."""
    found: list[Pictured] = []
    left = BUDGET
    with progress("traversals", len(groups)) as advance:
        for group in groups:
            record = next((r for r in group.records if (r.path / CHECKPOINT).exists()), None)
            advance(1)
            if record is None:
                continue
            seed = "" if record.seed is None else f", seed {record.seed}"
            if left <= 0:
                found.append(Pictured(f"{group.label}{seed}", note="left out, since the page would pass 5 MB"))
                continue
            made = pictured(f"{group.label}{seed}", record, device)
            if made.size > left:
                made = Pictured(made.label, note="left out, since the page would pass 5 MB")
            left -= made.size
            found.append(made)
    return found


def _provenance(group: Group) -> dict[str, str]:
    """Every setting of a group, where its runs lie, and what the checkpoint says of program and data."""
    first = group.records[0]
    told: dict[str, Any] = {"runs": [str(record.path) for record in group.records], **_of_checkpoint(first)}
    told["settings"] = {**first.recipe, "data": first.data}
    if rows := history(first.path):
        told["record of the first run"] = rows
    return {"label": group.label, "text": json.dumps(told, indent=1, ensure_ascii=False, default=str)}


def _of_checkpoint(record: Record) -> dict[str, Any]:
    try:
        header = read_header(record.path / CHECKPOINT)
    except DistkError:
        return {}
    data = {key: header.data.get(key) for key in ("name", "origin", "folder")}
    latents = [f"{g.get('name')} {g.get('kind')} {g.get('size')}" for g in header.latents if isinstance(g, dict)]
    plugin = f"{header.plugin} of {header.distribution} {header.version}"
    return {"plugin": plugin, "data": data, "latents": latents}
