"""`distk sample`."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import typer

from distk import console
from distk.commands.arguments import Seed
from distk.commands.shared import Look, OnModel, class_words, present, titled
from distk.device import seeded
from distk.errors import UsageError
from distk.method import Method
from distk.traversal import Known, strips_of, values_of


def sample(
    on: OnModel,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", "-n", help="How many items.", min=1, max=100_000)] = 64,
    class_: Annotated[int | None, typer.Option("--class", help="Hold the categorical code at this class.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Which categorical group or condition --class means, if there are several.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label by name, for methods of labelled data.")] = None,
    grid: Annotated[
        str | None, typer.Option(help="Instead: a row per draw, along which this latent alone changes, as z1 or d.")
    ] = None,
    columns: Annotated[int, typer.Option(help="With --grid: values of a continuous latent.", min=2, max=100)] = 10,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames of each clip, where a method makes clips of any length.", min=1, max=10_000),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Draw new items from the model.

    Example: distk sample runs/my-run --n 64
    Example: distk sample runs/my-run --grid z1 --n 8
    """
    model = on.open("sample", "sample").model
    given: dict[str, int] = {}
    if class_ is not None:
        classes = {g.name: g.size for g in model.latents if g.kind == "categorical"} | dict(model.conditions)
        if group is None and len(classes) != 1:
            raise UsageError(f"--class needs --group, one of: {', '.join(classes) or 'none (no categorical code)'}.")
        chosen = group or next(iter(classes))
        if chosen in model.conditions and not 0 <= class_ < classes[chosen]:
            raise UsageError(f"'{chosen}' has the classes 0 to {classes[chosen] - 1}, not {class_}.")
        given[chosen] = class_
    if label is not None:
        if label not in model.spec.classes:
            raise UsageError(f"--label '{label}' is none of {', '.join(model.spec.classes) or 'no labels'}.")
        given["label"] = model.spec.classes.index(label)
    if frames is not None:
        if not model.any_length:
            raise UsageError(
                f"method '{on.header.method}' does not make clips of any length, so --frames has no meaning."
            )
        if grid is not None:
            raise UsageError("--grid shows clips as long as those of training: leave --frames out.")
        given["frames"] = frames
    generator = seeded(seed, model.device)
    wide = max(1, math.isqrt(n) if math.isqrt(n) ** 2 == n else min(n, 10))
    with torch.no_grad():
        if grid is None:
            items = model.sample(n, generator, **given)
        else:
            strips = strips_of(model, model.prior(n, generator), grid, columns, given)
            items, wide = strips.flatten(0, 1), strips.shape[1]
    if model.spec.kind == "sentence" and on.out is None:
        lines = model.text(items)
        if on.json:
            on.report([], sentences=lines)
        for line in lines if not on.json else []:
            console.say(line)
        return
    groups = {group.name for group in model.latents}
    told = [class_words(model, name, [k])[0] for name, k in given.items() if name in groups]
    words = ", ".join([*told, *([label] if label is not None else [])])
    heads = [] if grid is None else moved_words(model, grid, wide)
    title = titled(on.header, words, f"draws of seed {seed}")
    target = on.shown("samples" if grid is None else f"samples-{grid}")
    rows = [] if grid is None else [f"draw {i + 1}" for i in range(n)]
    on.report(present(model, items, target, wide, rows=rows, heads=heads, title=title))


def moved_words(model: Method, latent: str, columns: int) -> list[str]:
    """What stands above the columns of a strip along one latent: its values, or the names of its classes."""
    for group in model.latents:
        if group.name == latent:
            return class_words(model, latent, range(columns))
        for i in range(group.size if group.kind != "categorical" else 0):
            if f"{group.name}{i + 1}" == latent:
                return [f"{value:.3g}" for value in values_of(model, group, i, columns, None, Known()).tolist()]
    return []
