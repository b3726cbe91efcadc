"""`distk swap`: exchange one group of the code between two items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
import typer
from torch import Tensor

from distk.commands.arguments import Start
from distk.commands.shared import Look, OnRows, present, titled
from distk.errors import UsageError
from distk.latents import Code
from distk.method import Method


def swapped(model: Method, a: Mapping[str, Tensor], b: Mapping[str, Tensor], group: str) -> Tensor:
    """Batches of n items -> `[n, 4, ...]`: a, b, a with b's group, b with a's group."""
    with torch.no_grad():
        ends = model.encode_batch(a), model.encode_batch(b)
        if group not in ends[0]:
            raise UsageError(
                f"items are not encoded to '{group}', so they cannot exchange it: swap draws by --start prior."
            )
        mixed = model.latents.swap(*ends, group)
        made = [model.decode(model.changed(code, group)).view_as(a["x"]) for code in mixed]
    return torch.stack([a["x"], b["x"], *made], 1)


def swapped_draws(model: Method, ends: Code, group: str) -> Tensor:
    """Codes of n first items followed by n second ones -> `[n, 4, ...]` as `swapped`, all four decoded."""
    n = len(next(iter(ends.values()))) // 2
    a, b = ({name: value[part] for name, value in ends.items()} for part in (slice(n), slice(n, 2 * n)))
    mixed = [model.changed(code, group) for code in model.latents.swap(a, b, group)]
    return torch.stack([model.decode(code) for code in (a, b, *mixed)], 1)


def swap(
    on: OnRows,
    look: Look = Look(),
    group: Annotated[str | None, typer.Option(help="Group of the code to exchange; default: the first.")] = None,
    a: Annotated[int | None, typer.Option("--a", help="Row of the first item.")] = None,
    b: Annotated[int | None, typer.Option("--b", help="Row of the second item.")] = None,
    pairs: Annotated[int, typer.Option(help="How many random pairs, without --a and --b.", min=1, max=1000)] = 7,
    start: Start = None,
) -> None:
    """Exchange one group of the code between two items: a, b, a with b's group, b with a's group.

    Example: distk swap runs/my-run --group z --pairs 5
    """
    exchange(on, group, a, b, pairs, start, "swap")


def exchange(
    on: OnRows, group: str | None, a: int | None, b: int | None, pairs: int, start: str | None, name: str
) -> None:
    """Draw pairs with a group of their codes exchanged, into a file called `name`-GROUP, and say which it is."""
    model = on.open("swap", "decode").model
    if group is None:
        group = next(iter(model.latents)).name
    model.latents[group]  # an unknown one ends here
    target = on.shown(f"{name}-{group}")
    rows: list[list[int]] = []
    with torch.no_grad():
        if on.starts_at_data(start, "swap", a=a, b=b):
            dataset = on.dataset()
            chosen = on.pairs(dataset, a, b, pairs)
            rows = chosen.tolist()
            made = swapped(model, dataset.items(chosen[:, 0]), dataset.items(chosen[:, 1]), group)
        else:
            made = swapped_draws(model, on.draws(2 * pairs), group)
    heads = ["a", "b", f"a with b's {group}", f"b with a's {group}"]
    names = [f"{a} and {b}" for a, b in rows] or [f"draw {i + 1}" for i in range(len(made))]
    files = present(model, made.flatten(0, 1), target, 4, rows=names, heads=heads, title=titled(on.header))
    on.report(files, group=group, rows=rows)
