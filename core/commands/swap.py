"""`distk swap`: exchange one group of the code between two items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distk.commands.arguments import Checkpoint, DataDir, DataName, Device, Json, Out, Seed
from distk.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from distk.method import Method


def swapped(model: Method, a: Tensor, b: Tensor, group: str) -> Tensor:
    """Items a, b `[n, ...]` -> `[n, 4, ...]`: a, b, a with b's group, b with a's group."""
    import torch

    with torch.no_grad():
        code_a, code_b = model.encode(a), model.encode(b)
        mixed = model.latents.swap(code_a, code_b, group)
        made = [model.decode(code).view_as(a) for code in mixed]
    return torch.stack([a, b, *made], 1)


def swap_pairs(
    checkpoint: Path | None,
    a: int | None,
    b: int | None,
    group: str | None,
    pairs: int,
    seed: int,
    out: Path | None,
    device: str,
    json: bool,
    data: str | None = None,
    data_dir: Path | None = None,
    split: str = "test",
) -> None:
    """Draw rows of: item a, item b, a with b's group, b with a's group. See `swap`."""
    import torch

    from distk.commands import shared

    path, model, header = shared.opened(checkpoint, device)
    shared.require(model, header, "swap", "encode", "decode")
    if group is None:
        group = next(iter(model.latents)).name
    model.latents[group]
    dataset = shared.its_data(model, header, data, data_dir)
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
        rows = shared.choose_rows(dataset, 2 * pairs, seed, split).view(-1, 2)
    made = swapped(model, dataset.batch(rows[:, 0])["x"], dataset.batch(rows[:, 1])["x"], group)
    target = shared.beside(path, out, f"{path.stem}.swap-{group}.png")
    files = shared.present(model, made.flatten(0, 1), target, 4)
    shared.report(files, json, group=group, rows=rows.tolist())


def swap(
    checkpoint: Checkpoint = None,
    group: Annotated[str | None, typer.Option(help="Group of the code to exchange; default: the first.")] = None,
    a: Annotated[int | None, typer.Option("--a", help="Row of the first item.")] = None,
    b: Annotated[int | None, typer.Option("--b", help="Row of the second item.")] = None,
    pairs: Annotated[int, typer.Option(help="How many random pairs, without --a and --b.", min=1, max=1000)] = 7,
    data: DataName = None,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="Where random pairs come from: all, train or test.")] = "test",
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Exchange one group of the code between two items: a, b, a with b's group, b with a's group.

    Example: distk swap runs/my-run --group z --pairs 5
    """
    swap_pairs(checkpoint, a, b, group, pairs, seed, out, device, json, data, data_dir, split)
