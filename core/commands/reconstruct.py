"""`distk reconstruct`."""

from __future__ import annotations

from typing import Annotated

import typer

from distk.commands.arguments import Checkpoint, DataDir, DataName, Device, Json, Out, Seed


def reconstruct(
    checkpoint: Checkpoint = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many items.", min=1, max=10_000)] = 10,
    data: DataName = None,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="all, train or test.")] = "test",
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw items above what the model makes of them.

    Example: distk reconstruct runs/my-run --n 12
    """
    import torch

    from distk.commands import shared

    path, model, header = shared.opened(checkpoint, device)
    shared.require(model, header, "reconstruct", "encode", "decode")
    dataset = shared.its_data(model, header, data, data_dir)
    with torch.no_grad():
        x = dataset.batch(shared.choose_rows(dataset, n, seed, split))["x"]
        made = model.decode(model.encode(x))
    target = shared.beside(path, out, f"{path.stem}.reconstruction.png")
    if model.spec.kind == "sentence":
        pairs = zip(model.text(x), model.text(made), strict=True)
        lines = [{"source": a, "reconstruction": b} for a, b in pairs]
        if json:
            shared.report([], True, sentences=lines)
        for line in lines if not json else []:
            typer.echo(f"{line['source']}\n  -> {line['reconstruction']}")
        return
    error = float((made.float() - x.float()).pow(2).mean())
    if x.dim() == 5:  # a clip above its reconstruction
        both = torch.stack([x, made.view_as(x)], 1).flatten(0, 1)
        files = shared.present(model, both, target, 2)
    else:
        both = torch.cat([part for pair in zip(x.split(n), made.view_as(x).split(n), strict=True) for part in pair])
        files = shared.present(model, both, target, n)
    shared.report(files, json, mse=error)
