"""`distk interpolate`: items on the way from one code to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from torch import Tensor

from distk import images
from distk.commands.shared import OnRows, present, require, scaled
from distk.errors import UsageError
from distk.latents import Code
from distk.method import Method, can

Start = Annotated[
    Literal["data", "prior"] | None,
    typer.Option(help="Ends: items (data) or draws (prior). Default: data where the model has an encoder."),
]


def interpolate(
    on: OnRows,
    a: Annotated[int | None, typer.Option("--a", help="Row of the first item.", min=0)] = None,
    b: Annotated[int | None, typer.Option("--b", help="Row of the second item.", min=0)] = None,
    pairs: Annotated[int, typer.Option(help="How many random pairs, without --a and --b.", min=1, max=1000)] = 5,
    steps: Annotated[int, typer.Option(help="Items on the way, ends included.", min=2, max=1000)] = 8,
    start: Start = None,
) -> None:
    """Draw items on the way between two codes: a row per pair, the ends decoded at either side.

    Continuous groups go straight, a class changes halfway. What the code does not hold, such as a generator's noise,
    is the same along a row.

    Example: distk interpolate runs/my-run --a 3 --b 17 --steps 10
    """
    on.open("interpolate", "decode")
    start = start or ("data" if can(on.model, "encode") else "prior")
    rows: list[list[int]] = []
    with torch.no_grad():
        if start == "data":
            require(on.model, on.header, "interpolate", "encode")
            rows, ends = _ends_of_items(on, a, b, pairs)
        elif a is not None or b is not None:
            raise UsageError("--a and --b name items of the data; with --start prior the ends are drawn by --seed.")
        else:
            ends = on.model.prior(2 * pairs, torch.Generator(device=_device(on.model)).manual_seed(on.seed))
        items = strips(on.model, ends, steps)
    target = on.target("interpolation.png")
    if on.model.spec.kind == "sentence":
        sentences = [on.model.text(strip) for strip in items]
        if on.json:
            on.report([], rows=rows, sentences=sentences)
        for strip in sentences if not on.json else []:
            typer.echo("\n".join([*strip, ""]))
        return
    on.report(_drawn(on.model, items, target), start=start, rows=rows, share=torch.linspace(0, 1, steps).tolist())


def _ends_of_items(on: OnRows, a: int | None, b: int | None, pairs: int) -> tuple[list[list[int]], Code]:
    """Rows of the pairs, and the code of the first items followed by that of the second ones."""
    dataset = on.dataset()
    if (a is None) != (b is None):
        raise UsageError("give both --a and --b, or neither for random pairs.")
    if a is not None and b is not None:
        for name, row in (("--a", a), ("--b", b)):
            if row >= len(dataset):
                raise UsageError(f"{name} {row} is outside the data set's rows 0 to {len(dataset) - 1}.")
        chosen = torch.tensor([[a, b]], device=dataset.device)
    else:
        chosen = on.rows(dataset, 2 * pairs).view(-1, 2)
    code = on.model.encode(dataset.batch(chosen.T.flatten())["x"])
    return chosen.tolist(), on.model.filled(code, on.seed)


def strips(model: Method, ends: Code, steps: int) -> Tensor:
    """Codes of n first items followed by n second ones -> items `[n, steps, ...]` on the way between each pair.

    What `encode` does not give stays that of the first item along a strip.
    """
    n = len(next(iter(ends.values()))) // 2
    first = {name: value[:n] for name, value in ends.items()}
    second = {name: value[n:] for name, value in ends.items()}
    held = {group.name for group in model.latents if not group.walked}
    second = {name: first[name] if name in held else value for name, value in second.items()}
    share = torch.linspace(0, 1, steps, device=next(iter(ends.values())).device)
    items = model.decode(model.interpolate(first, second, share))
    return items.unflatten(0, (steps, n)).transpose(0, 1)


def _drawn(model: Method, items: Tensor, target: Path) -> list[Path]:
    """Write strips `[n, steps, *item]` as a picture with a row per strip; clips are played, a file of one GIF."""
    if items.dim() == 5:
        images.save_png(
            target.with_suffix(".png"), images.grid(images.enlarge(scaled(model, items.flatten(0, 1))), items.shape[1])
        )
        return [target.with_suffix(".png")]
    return present(model, items.flatten(0, 1), target, items.shape[1])


def _device(model: Method) -> torch.device:
    return next(model.parameters()).device
