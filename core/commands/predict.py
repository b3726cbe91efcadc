"""`distk predict`: what comes next, said by a model."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from distk import console, options
from distk.commands.own import OwnCommand
from distk.commands.shared import Look, OnRows, present, titled
from distk.console import counted
from distk.device import seeded
from distk.prediction import continued


def predict(
    on: OnRows,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", "-n", help="Items whose continuation is drawn.", min=1, max=1024)] = 8,
    past: Annotated[
        int | None, typer.Option(help="Frames of a clip that are shown; default: half of them.", min=1)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Frames to predict; default: the others.", min=1)] = None,
) -> None:
    """Draw how a model continues clips, and how they do go on.

    Two rows per clip: what happens, and below it what was predicted. The error of each step stands beside that of
    saying that nothing changes. Where a method predicts something else, this is its own command:
    `distk predict CHECKPOINT --help` shows the options for a checkpoint.

    Example: distk predict runs/dsvae --n 4
    """
    model = on.open("predict", "predict").model
    dataset = on.dataset()
    with torch.no_grad():
        made = continued(model.predict, dataset, n, seeded(on.seed, dataset.device), on.split, past, steps)
    pairs = [torch.cat([made.before, end], 1) for end in (made.truth, made.made)]
    names = [f"{i + 1} {what}" for i in range(len(pairs[0])) for what in ("happens", "predicted")]
    title = titled(on.header, f"{counted(made.before.shape[1], 'frame')} shown")
    files = present(model, torch.stack(pairs, 1).flatten(0, 1), on.shown("predict"), 2, rows=names, title=title)
    errors, still = made.errors.tolist(), made.still.tolist()
    if not on.json:
        rows = [(i + 1, *row) for i, row in enumerate(zip(errors, still, strict=True))]
        console.table(
            f"{counted(len(errors), 'frame')} after {made.before.shape[1]}", ("step", "error", "nothing changes"), rows
        )
    on.report(files, shown=made.before.shape[1], errors=errors, errors_of_no_change=still)


command = options.command(predict, "predict", cls=OwnCommand)
