"""`distk info`: what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from distk import checkpoint as files
from distk import console, results
from distk.commands.arguments import Checkpoint, Json
from distk.commands.shared import written_to
from distk.console import counted
from distk.errors import DistkError
from distk.registry import registry
from distk.run import find_checkpoint
from distk.training import record


def _scores(path: Path) -> list[dict[str, Any]]:
    """The headline of every score that `distk eval` wrote beside a checkpoint, and whether it is of other weights."""
    found: list[dict[str, Any]] = []
    held = []
    for file in results.beside(path):
        try:
            held.append(results.read(file))
        except DistkError as error:  # what a checkpoint holds does not depend on what lies beside it
            console.warn(str(error))
    weights = results.digest(files.tensors(path)) if held else ""
    for metric, values in ((name, v) for each in held for name, v in each.get("metrics", {}).items()):
        key = _headline(str(values.get("metric", metric)), values)
        if "error" in values or key not in values:
            continue
        of = values.get("measured")
        told = {k: of.get(k) if isinstance(of, dict) else None for k in ("data", "split", "step")}
        is_stale = results.stale(values, weights)
        found.append({"metric": metric, "key": key, "value": values[key], **told, "stale": is_stale})
    return found


def _headline(metric: str, values: Mapping[str, Any]) -> str | None:
    """The key of a result that stands for its metric; the first number where the metric is not installed here."""
    cls = registry().loaded("metric", metric)
    if cls is not None:
        return str(cls.headline)
    return next((key for key, value in values.items() if isinstance(value, float)), None)


RECORDED = 6
"""Rows of the record that are shown, the newest."""


def _happened(row: Mapping[str, Any]) -> str:
    """A row of a run's record in one line."""
    parts = [str(row.get("at")), f"step {row.get('step')}", *(str(row[k]) for k in ("outcome", "why") if row.get(k))]
    parts += [f"on {row['host']}"] if row.get("host") else []
    parts += [f"commit {str(row['commit'])[:12]}"] if row.get("commit") else []
    return ", ".join(parts) + (f": {row['command']}" if row.get("command") else "")


def info(
    checkpoint: Checkpoint = None,
    strip: Annotated[
        Path | None, typer.Option(help="Also write a copy without the training state to this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what a checkpoint holds: method, settings, data, latents, size.

    Example: distk info runs/my-run --strip model.safetensors
    """
    path = find_checkpoint(checkpoint)
    header = files.read_header(path)
    tensors = files.sizes(path)
    model = {name: shape for name, shape in tensors.items() if name.startswith("model/")}
    count = sum(math.prod(shape) for shape in model.values())
    if strip is not None:
        strip = written_to(strip, "model.safetensors", option="--strip")
        loaded, _ = files.load(path)
        files.save(strip, loaded, header)
        console.note(f"wrote {strip} without the training state")
    values: dict[str, Any] = {
        "checkpoint": str(path),
        "bytes": path.stat().st_size,
        "parameters": count,
        "resumable": any(name.startswith("train/") for name in tensors),
        **vars(header),
    }
    rows_of_record = values["record"] = record.read(path.parent)
    scores = values["scores"] = _scores(path)
    if json:
        console.emit_json(values)
        return
    rows = [
        ("file", f"{path} ({counted(path.stat().st_size, 'byte')})"),
        ("method", f"{header.method}, plugin {header.plugin} of {header.distribution} {header.version}"),
        ("step", f"{header.step:,}, seed {header.seed}, {'resumable' if values['resumable'] else 'stripped'}"),
        ("data", f"{header.data.get('name')}: {header.data.get('origin')}"),
        ("items", f"{header.data['spec']['kind']} {tuple(header.data['spec']['shape'])}"),
        ("latents", ", ".join(f"{g['name']} {g['kind']} {g['size']}" for g in header.latents)),
        ("numbers", f"{count:,} in {counted(len(model), 'tensor')}"),
        ("settings", ", ".join(f"{k}={v}" for k, v in header.config.items())),
    ]
    for score in scores:
        when = f"step {score['step']:,}" if isinstance(score["step"], int) else "an unknown step"
        of = f"{score['split']} of {score['data']}, {when}{', STALE: of other weights' if score['stale'] else ''}"
        rows.append(("score", f"{score['metric']} {score['key']} {console.number(score['value'])} ({of})"))
    if isinstance(header.metrics.get("threads"), int):
        rows.append(("threads", f"{header.metrics['threads']} on the CPU"))
    changes = header.metrics.get("changes")
    for change in changes if isinstance(changes, list) else ():
        if isinstance(change, dict):
            told = [change.get(key) for key in ("step", "setting", "old", "new")]
            rows.append(("changed", "at step {}: {} {} -> {}".format(*told)))
    if isinstance(ended := header.metrics.get("ended"), dict):
        rows.append(("ended", f"before its last step, {ended.get('why')}"))
    for row in rows_of_record[-RECORDED:]:
        rows.append((str(row.get("event")), _happened(row)))
    if header.metrics.get("best"):
        best = header.metrics["best"]
        rows.append(
            ("best", f"{best['metric']} {best['key']} {console.number(best['value'])} at step {best['step']:,}")
        )
    console.table("", ("", ""), rows)
