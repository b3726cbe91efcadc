"""Argument types that several commands use. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distk import completing

Checkpoint = Annotated[
    Path | None,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoint or run folder; default: the newest run under ./runs.",
        autocompletion=completing.runs,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", autocompletion=completing.devices)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; default: beside the checkpoint.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of what is drawn.", min=0)]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the data set's files; default: $DISTK_DATA.")
]
DataName = Annotated[
    str | None,
    typer.Option("--data", help="Another data set than the one trained on.", autocompletion=completing.datasets),
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="Which items: all, train, test or another split of the data.",
        autocompletion=completing.splits,
    ),
]
Start = Annotated[
    Literal["data", "prior"] | None,
    typer.Option(
        "--start", help="Where it starts: items (data) or draws (prior). Default: data where there is an encoder."
    ),
]
