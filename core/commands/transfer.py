"""`distk transfer`: items under another class, a group of the code exchanged, or the method's own transfer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
import typer
from torch import Tensor

from distk import options
from distk.commands.own import OwnCommand
from distk.commands.shared import Look, OnRows, class_words, item_words, present, titled
from distk.commands.swap import exchange
from distk.errors import UsageError
from distk.latents import one_hot
from distk.method import Method


def transfer(
    on: OnRows,
    look: Look = Look(),
    image: Annotated[
        list[int] | None,
        typer.Option("--image", help="Row of an item to show under every class of a discrete code; repeatable."),
    ] = None,
    class_: Annotated[int | None, typer.Option("--class", help="Show the items under this class only.")] = None,
    a: Annotated[int | None, typer.Option("--a", help="Row of the first item of a pair.")] = None,
    b: Annotated[int | None, typer.Option("--b", help="Row of the second item of a pair.")] = None,
    group: Annotated[str | None, typer.Option(help="Group of the code: the classes, or what pairs exchange.")] = None,
    pairs: Annotated[int, typer.Option(help="How many random pairs or items.", min=1, max=1000)] = 7,
) -> None:
    """Show items under another class, or exchange a group of the code; rewrite sentences with another label.

    --image A draws item A and then what it would be under each class of a discrete code; --a I --b J exchange a group
    of the code between two items.

    Where the method has a transfer of its own, this is that command: `distk transfer CHECKPOINT --help` shows the
    options for a checkpoint.

    Example: distk transfer runs/aae-s --image 12 --class 2
    Example: distk transfer runs/arae "the food was awful ." --to positive
    """
    if image or class_ is not None:
        _draw_classes(on, image or [], class_, group, pairs)
    else:
        exchange(on, group, a, b, pairs, None, "transfer-pairs")


def under_classes(model: Method, batch: Mapping[str, Tensor], group: str, classes: list[int]) -> Tensor:
    """A batch of n items -> `[n, 1 + len(classes), ...]`: the item, then its code decoded under each of the classes."""
    with torch.no_grad():
        x, code = batch["x"], model.encode_batch(batch)
        like = code[group]
        made = [x]
        for k in classes:
            chosen = one_hot(torch.full(like.shape[:-1], k, device=like.device), model.latents[group].size)
            made.append(model.decode({**code, group: chosen}).view_as(x))
    return torch.stack(made, 1)


def _draw_classes(on: OnRows, image: list[int], class_: int | None, group: str | None, n: int) -> None:
    """Draw a row per item: the item, and what it would be under each class of a categorical group."""
    model = on.open("swap", "encode", "decode").model
    groups = [g.name for g in model.latents if g.kind == "categorical"]
    if group is None and len(groups) != 1:
        raise UsageError(f"--class needs --group, one of: {', '.join(groups) or 'none (no categorical code)'}.")
    group = group or groups[0]
    if group not in groups:
        raise UsageError(f"--group '{group}' has no classes; these have: {', '.join(groups) or 'none'}.")
    size = model.latents[group].size
    if class_ is not None and not 0 <= class_ < size:
        names = getattr(model, "class_names", tuple)() or tuple(map(str, range(size)))
        listed = ", ".join(str(k) if name == str(k) else f"{k} ({name})" for k, name in enumerate(names))
        raise UsageError(f"there is no class {class_}; the classes of '{group}' are {listed}.")
    dataset = on.dataset()
    for row in image:
        if not 0 <= row < len(dataset):
            raise UsageError(f"--image {row} is outside the data set's rows 0 to {len(dataset) - 1}.")
    rows = torch.tensor(image, device=dataset.device) if image else on.rows(dataset, n)
    classes = list(range(size)) if class_ is None else [class_]
    batch = dataset.items(rows)
    made = under_classes(model, batch, group, classes)
    heads = ["item", *class_words(model, group, classes)]
    names, target = item_words(dataset, rows, batch), on.shown(f"transfer-{group}")
    files = present(model, made.flatten(0, 1), target, made.shape[1], rows=names, heads=heads, title=titled(on.header))
    on.report(files, group=group, rows=rows.tolist(), classes=classes)


command = options.command(transfer, "transfer", cls=OwnCommand)
