"""`distk swap`: exchange one group of the code between two items."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from torch import Tensor

from distk.commands.shared import OnRows, present
from distk.errors import UsageError
from distk.method import Method


def swapped(model: Method, a: Tensor, b: Tensor, group: str) -> Tensor:
    """Items a, b `[n, ...]` -> `[n, 4, ...]`: a, b, a with b's group, b with a's group."""
    with torch.no_grad():
        code_a, code_b = model.encode(a), model.encode(b)
        mixed = model.latents.swap(code_a, code_b, group)
        made = [model.decode(code).view_as(a) for code in mixed]
    return torch.stack([a, b, *made], 1)


def swap(
    on: OnRows,
    group: Annotated[str | None, typer.Option(help="Group of the code to exchange; default: the first.")] = None,
    a: Annotated[int | None, typer.Option("--a", help="Row of the first item.")] = None,
    b: Annotated[int | None, typer.Option("--b", help="Row of the second item.")] = None,
    pairs: Annotated[int, typer.Option(help="How many random pairs, without --a and --b.", min=1, max=1000)] = 7,
) -> None:
    """Exchange one group of the code between two items: a, b, a with b's group, b with a's group.

    Example: distk swap runs/my-run --group z --pairs 5
    """
    model = on.open("swap", "encode", "decode").model
    if group is None:
        group = next(iter(model.latents)).name
    model.latents[group]  # an unknown one ends here
    dataset = on.dataset()
    if (a is None) != (b is None):
        raise UsageError("give both --a and --b, or neither for random pairs.")
    if a is not None and b is not None:
        for name, row in (("--a", a), ("--b", b)):
            if not 0 <= row < len(dataset):
                raise UsageError(f"{name} {row} is outside the data set's rows 0 to {len(dataset) - 1}.")
        if a == b:
            raise UsageError(f"--a and --b are both {a}: name two different rows.")
        rows = torch.tensor([[a, b]], device=dataset.device)
    else:
        rows = on.rows(dataset, 2 * pairs).view(-1, 2)
    made = swapped(model, dataset.batch(rows[:, 0])["x"], dataset.batch(rows[:, 1])["x"], group)
    files = present(model, made.flatten(0, 1), on.target(f"swap-{group}.png"), 4)
    on.report(files, group=group, rows=rows.tolist())
