"""`distk info`: what a checkpoint holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from distk import checkpoint as files
from distk import console
from distk.commands.arguments import Checkpoint, Json
from distk.run import find_checkpoint


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
        loaded, _ = files.load(path)
        files.save(strip, loaded, header)
        console.note(f"wrote {strip} without the training state")
    values = {
        "checkpoint": str(path),
        "bytes": path.stat().st_size,
        "parameters": count,
        "resumable": any(name.startswith("train/") for name in tensors),
        **vars(header),
    }
    if json:
        console.emit_json(values)
        return
    rows = [
        ("file", f"{path} ({path.stat().st_size:,} bytes)"),
        ("method", f"{header.method}, plugin {header.plugin} of {header.distribution} {header.version}"),
        ("step", f"{header.step:,}, seed {header.seed}, {'resumable' if values['resumable'] else 'stripped'}"),
        ("data", f"{header.data.get('name')}: {header.data.get('origin')}"),
        ("items", f"{header.data['spec']['kind']} {tuple(header.data['spec']['shape'])}"),
        ("latents", ", ".join(f"{g['name']} {g['kind']} {g['size']}" for g in header.latents)),
        ("numbers", f"{count:,} in {len(model)} tensors"),
        ("settings", ", ".join(f"{k}={v}" for k, v in header.config.items())),
    ]
    if header.metrics.get("best"):
        best = header.metrics["best"]
        rows.append(
            ("best", f"{best['metric']} {best['key']} {console.number(best['value'])} at step {best['step']:,}")
        )
    console.table("", ("", ""), rows)
