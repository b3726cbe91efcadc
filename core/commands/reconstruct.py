"""`distk reconstruct`."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from distk import console, options
from distk.commands.own import OwnCommand
from distk.commands.shared import Look, OnRows, item_words, present, titled


def reconstruct(
    on: OnRows,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", "-n", help="How many items.", min=1, max=10_000)] = 10,
) -> None:
    """Draw items above what the model makes of them.

    Example: distk reconstruct runs/my-run --n 12
    """
    model = on.open("reconstruct", "encode", "decode").model
    target = on.shown("reconstruction")
    dataset = on.dataset()
    with torch.no_grad():
        rows = on.rows(dataset, n)
        batch = dataset.items(rows)
        x, decoded = batch["x"], model.decode(model.encode_batch(batch))
    if model.spec.kind == "sentence":
        lines = zip(model.text(x), model.text(decoded), strict=True)
        sentences = [{"source": source, "reconstruction": made} for source, made in lines]
        if on.json:
            on.report([], sentences=sentences)
        for line in sentences if not on.json else []:
            console.say(f"{line['source']}\n  -> {line['reconstruction']}")
        return
    decoded = decoded.view_as(x)
    error = float((decoded.float() - x.float()).pow(2).mean())
    if x.dim() == 5:  # a clip above its reconstruction
        pairs = torch.stack([x, decoded], 1).flatten(0, 1)
        names = [f"{word} {what}" for word in item_words(dataset, rows, batch) for what in ("item", "made")]
        files = present(model, pairs, target, 2, rows=names, title=titled(on.header))
    else:
        heads, title = item_words(dataset, rows, batch), titled(on.header, f"mean squared error {error:.3g}")
        files = present(model, torch.cat([x, decoded]), target, len(x), rows=["item", "made"], heads=heads, title=title)
    on.report(files, mse=error)


command = options.command(reconstruct, "reconstruct", cls=OwnCommand)
