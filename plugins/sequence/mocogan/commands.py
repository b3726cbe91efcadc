"""`distk mocogan grid`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import typer

from distk import Code, seeded
from distk.commands.arguments import Seed
from distk.commands.shared import Look, OnModel, present, titled
from distk.errors import UsageError
from distk.plugins.sequence.mocogan.metrics import content_and_motion, crossed


def grid(
    on: OnModel,
    look: Look = Look(),
    rows: Annotated[int, typer.Option(help="Motions.", min=1, max=100)] = 6,
    columns: Annotated[int, typer.Option(help="Contents.", min=1, max=100)] = 6,
    frames: Annotated[
        int | None, typer.Option(help="Frames of each clip; default: as trained.", min=1, max=10_000)
    ] = None,
    fix: Annotated[
        Literal["none", "content", "motion"],
        typer.Option(help="Instead: one content in as many motions as there are places, or the reverse."),
    ] = "none",
    seed: Seed = 0,
) -> None:
    """Draw clips, a row per motion (its path and its category) and a column per content (Figure 1a).

    Serves every method with a content code per clip and a motion code per frame. The PNG has a row of frames for each
    clip, row by row of the grid; the GIF (or .mp4, where --out says so) plays the grid.

    Example: distk mocogan grid runs/mocogan --rows 4 --columns 4
    Example: distk mocogan grid runs/mocogan --fix content --frames 24
    """
    model = on.open("sample", "sample", "decode").model
    content_and_motion(model)
    if frames is not None and not model.any_length:
        raise UsageError(f"method '{on.header.method}' does not make clips of any length: leave --frames out.")
    draw = seeded(seed, next(model.parameters()).device)
    length: dict[str, Any] = {} if frames is None else {"frames": frames}
    places = rows * columns
    motions, contents = {"none": (rows, columns), "content": (places, 1), "motion": (1, places)}[fix]

    def drawn(n: int) -> Code:
        prior: Any = model.prior  # of a method of any length it takes the length
        code: Code = prior(n, draw, **length)
        return code

    with torch.no_grad():
        items = model.decode(crossed(model, drawn(motions), drawn(contents)))
    name = "grid" if fix == "none" else f"grid-{fix}"
    names = [f"motion {i + 1}, content {j + 1}" for i in range(motions) for j in range(contents)]
    files = present(model, items, on.shown(name), columns, rows=names, title=titled(on.header))
    on.report(files, rows=rows, columns=columns, frames=items.shape[1], fix=fix)
