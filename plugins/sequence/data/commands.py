"""`distk data build-lpc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distk import console
from distk.commands.arguments import Json
from distk.console import counted
from distk.plugins.sequence.data import lpc


def build_lpc(
    sheets: Annotated[Path, typer.Option("--sheets", help="Folder with body/0.png ... shoes/1.png.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the npy files; made if need be.")],
    characters: Annotated[
        int | None, typer.Option("--characters", min=1, max=1000, help="Only so many of each split, for a trial.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the npy files of Li & Mandt's Sprites (4.6 GB; 54 files) from Liberated Pixel Cup spritesheets.

    Train with them by `--data lpc-sprites --data-dir OUT`. The sheets themselves serve as well (`--data-dir SHEETS`):
    they are then composed on the device, and nothing needs to be built. The art is CC-BY-SA 3.0 / GPL 3.

    Example: distk data build-lpc --sheets Sprites/lpc --out npy
    """
    files = lpc.build_lpc(sheets, out, characters)
    if json:
        console.emit_json({"files": [str(f) for f in files]})
    else:
        console.say(f"{counted(len(files), 'file')} in {out}")
