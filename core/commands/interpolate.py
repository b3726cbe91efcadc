"""`distk interpolate`: items on the way from one code to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from distk import console
from distk.commands.arguments import Start
from distk.commands.shared import Look, OnRows, present, titled
from distk.errors import UsageError
from distk.latents import Code
from distk.method import Method


def interpolate(
    on: OnRows,
    look: Look = Look(),
    a: Annotated[int | None, typer.Option("--a", help="Row of the first item.", min=0)] = None,
    b: Annotated[int | None, typer.Option("--b", help="Row of the second item.", min=0)] = None,
    pairs: Annotated[int, typer.Option(help="How many random pairs, without --a and --b.", min=1, max=1000)] = 5,
    steps: Annotated[int, typer.Option(help="Items on the way, ends included.", min=2, max=1000)] = 8,
    group: Annotated[
        str | None, typer.Option(help="Only this group of the code moves, the others stay; default: all of them.")
    ] = None,
    start: Start = None,
) -> None:
    """Draw items on the way between two codes: a row per pair, the ends decoded at either side.

    With --group only that part of the code moves. Continuous groups go straight, a class changes halfway. What the code
    does not hold, such as a generator's noise, is the same along a row.

    Example: distk interpolate runs/my-run --a 3 --b 17 --steps 10
    """
    model = on.open("interpolate", "decode").model
    if group is not None:
        model.latents[group]  # an unknown one ends here
    rows: list[list[int]] = []
    with torch.no_grad():
        if on.starts_at_data(start, "interpolate", a=a, b=b):
            dataset = on.dataset()
            chosen = on.pairs(dataset, a, b, pairs)
            rows = chosen.tolist()
            coded = model.encode_batch(dataset.items(chosen.T.flatten()))
            if group is not None and group not in coded:
                raise UsageError(f"items are not encoded to '{group}': --start prior draws two ends that differ in it.")
            ends = model.filled(coded, on.seed)
        else:
            ends = on.draws(2 * pairs)
        items = strips(model, ends, steps, group)
    target = on.shown("interpolation")
    if model.spec.kind == "sentence":
        sentences = [model.text(strip) for strip in items]
        if on.json:
            on.report([], rows=rows, sentences=sentences)
        for strip in sentences if not on.json else []:
            console.say("\n".join([*strip, ""]))
        return
    title = titled(on.header, f"{group} moves" if group else "")
    on.report(
        _drawn(model, items, target, [f"{one} to {other}" for one, other in rows], title),
        start="data" if rows else "prior",
        rows=rows,
        share=torch.linspace(0, 1, steps).tolist(),
    )


def strips(model: Method, ends: Code, steps: int, only: str | None = None) -> Tensor:
    """Codes of n first items followed by n second ones -> items `[n, steps, ...]` on the way between each pair.

    only: the one group that moves. What `encode` does not give stays that of the first item along a strip otherwise.
    """
    n = len(next(iter(ends.values()))) // 2
    first = {name: value[:n] for name, value in ends.items()}
    second = {name: value[n:] for name, value in ends.items()}
    held = {group.name for group in model.latents if (group.name != only if only else not group.walked)}
    second = {name: first[name] if name in held else value for name, value in second.items()}
    share = torch.linspace(0, 1, steps, device=next(iter(ends.values())).device)
    items = model.decode(model.interpolate(first, second, share))
    return items.unflatten(0, (steps, n)).transpose(0, 1)


def _drawn(model: Method, items: Tensor, target: Path, names: list[str], title: str) -> list[Path]:
    """Write strips `[n, steps, *item]` as a picture with a row per strip; of clips, each is a row of frames."""
    n, steps = items.shape[:2]
    names = names or [f"draw {i + 1}" for i in range(n)]
    shares = [f"{share:.2g}" for share in torch.linspace(0, 1, steps).tolist()]
    if items.dim() == 6:
        names = [f"{name}, {share}" for name in names for share in shares]
        return present(model, items.flatten(0, 1), target, steps, rows=names, title=title)
    return present(model, items.flatten(0, 1), target, steps, rows=names, heads=shares, title=title)
