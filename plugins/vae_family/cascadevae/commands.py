"""`distk cascadevae assign` and `distk cascadevae mcf`: the discrete code, and the solver that finds it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import typer
from safetensors.torch import save
from torch import Tensor

from distk import Dataset, console
from distk.commands.arguments import Device, Json, Split
from distk.commands.embed import contingency, show_classes
from distk.commands.shared import OnData
from distk.console import counted, progress
from distk.device import choose_device, describe
from distk.errors import UsageError
from distk.files import write_atomic
from distk.plugins.vae_family.cascadevae import solver
from distk.plugins.vae_family.cascadevae.method import CascadeVAE
from distk.plugins.vae_family.cascadevae.solver_bench import bench


def assign(
    on: OnData,
    batch: Annotated[str, typer.Option(help="Images solved together: a number, or `all`.")] = "64",
    rule: Annotated[
        Literal["mcf", "argmin"], typer.Option(help="mcf: with the pair cost, as in training; argmin: each alone.")
    ] = "mcf",
    split: Split = "all",
    rows: Annotated[int | None, typer.Option(help="Only the first so many images.", min=1)] = None,
) -> None:
    """Give every image its discrete class, and hold the classes against the labels where there are any.

    Writes assign.safetensors with `class` [N] int64 and `cost` [N, S]: nats of the reconstruction under each class.

    Example: distk cascadevae assign runs/my-run --rule argmin
    """
    if batch != "all" and not (batch.isdigit() and int(batch) > 0):
        raise UsageError(f"--batch '{batch}' is neither a positive number nor 'all'.")
    model = on.open().of(CascadeVAE, "cascadevae (`distk embed` gives the classes of other models)")
    dataset = on.dataset()
    cost, labels = _costs(model, dataset, dataset.rows_of(split)[:rows])
    classes = _solve(model, cost, len(cost) if batch == "all" else int(batch), rule)
    target = on.beside("assign.safetensors")
    write_atomic(target, save({"class": classes.cpu(), "cost": cost.cpu().contiguous()}))
    counts = contingency(classes, cost.shape[1], labels, dataset.spec.classes)
    if on.json:
        told = {"counts": counts["counts"], "contingency": counts["contingency"], "rule": rule, "batch": batch}
        console.emit_json({"file": str(target), **told})
        return
    show_classes("", counts, "images")
    console.say(target)


@torch.no_grad()
def _costs(model: CascadeVAE, dataset: Dataset, index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Cost [N, S] in nats of the reconstruction at z = posterior mean, and the labels where the data set has them."""
    costs, labels = [], []
    with progress("costs of every class", len(index)) as advance:
        for part in index.split(512):
            batch = dataset.batch(part)
            x = batch["x"]
            costs.append(model.cost(model.encoder(x)[0], x))
            if "label" in batch:
                labels.append(batch["label"])
            advance(len(part))
    return torch.cat(costs), torch.cat(labels) if labels else None


def _solve(model: CascadeVAE, cost: Tensor, batch: int, rule: str) -> Tensor:
    """The class of every image, int64 `[N]`, solved in batches."""
    name: Literal["argmin", "auto"] = "argmin" if rule == "argmin" else "auto"
    pair_cost = model.config.pair_cost
    # One batch of everything has far more items than exchanges to make: stop when none gains.
    return torch.cat([solver.assign(c, pair_cost, name, early_exit=True) for c in cost.split(batch)])


def mcf(
    n: Annotated[int, typer.Option("--n", help="Items per batch.", min=1, max=4096)] = 64,
    classes: Annotated[int, typer.Option(help="Classes.", min=2, max=256)] = 3,
    spread: Annotated[float, typer.Option(help="Spread of the random costs in nats.", min=0)] = 0.5,
    pair_cost: Annotated[float, typer.Option(help="Nats per pair in one class.", min=0)] = 0.001,
    repeats: Annotated[int, typer.Option(help="Random batches.", min=1, max=10_000)] = 20,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare the solvers on random costs: the objective must be equal, the time is not.

    Example: distk cascadevae mcf --n 64 --classes 3 --spread 0.5
    """
    chosen = choose_device(device)
    try:
        rows = bench(n, classes, spread, pair_cost, repeats, chosen)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    if json:
        console.emit_json({"device": describe(chosen), "n": n, "classes": classes, "spread": spread, "solvers": rows})
        return
    console.note(
        f"{counted(repeats, 'batch', 'batches')} on {describe(chosen)}; the objective is in nats, the grid's unit is"
        " 1e-4 nat"
    )
    console.table("", list(rows[0]), [list(row.values()) for row in rows])
