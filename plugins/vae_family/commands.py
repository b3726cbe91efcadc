"""Subcommands of the family: `distk assign`, `distk mcf bench`, and those that its methods' modules add."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.errors import NotServed, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from distk import Dataset
    from distk.plugins.vae_family.cascadevae import CascadeVAE

mcf = typer.Typer(no_args_is_help=True, help="The exact solver of cascadevae's discrete code.")

study = typer.Typer(no_args_is_help=True, help="The papers' experiments, from one command each.")

MODULES: tuple[str, ...] = ()
"""Modules of this family with `add(app, study)`: commands of their own and experiments under `distk study`."""


def add(app: typer.Typer) -> None:
    """Register the commands of this module and of `MODULES`."""
    app.command("assign")(assign)
    mcf.callback()(lambda: None)
    mcf.command("bench")(bench)
    app.add_typer(mcf, name="mcf")
    for name in MODULES:
        importlib.import_module(f"distk.plugins.vae_family.{name}").add(app, study)
    if study.registered_commands or study.registered_groups:
        study.callback()(lambda: None)
        app.add_typer(study, name="study")


def assign(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint or run folder; default: the newest run.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Another data set than the one trained on.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: assign.safetensors beside the checkpoint.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Images solved together: a number, or `all`.")] = "64",
    rule: Annotated[str, typer.Option(help="mcf (with the pair cost, as in training) or argmin (each alone).")] = "mcf",
    split: Annotated[str, typer.Option(help="all, train or test.")] = "all",
    rows: Annotated[int | None, typer.Option(help="Only the first so many images.", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Give every image its discrete class, and hold the classes against the labels where there are any.

    Writes `class` [N] int64 and `cost` [N, S] in nats.

    Example: distk assign runs/my-run --rule argmin
    """
    import torch
    from safetensors.torch import save

    from distk import console
    from distk.checkpoint import write_atomic
    from distk.commands import shared
    from distk.plugins.vae_family.cascadevae import CascadeVAE

    path, model, header = shared.opened(checkpoint, device)
    if not isinstance(model, CascadeVAE):
        raise NotServed(f"method '{header.method}' has no discrete code to assign; this command serves cascadevae.")
    if rule not in ("mcf", "argmin"):
        raise UsageError(f"--rule '{rule}' is neither mcf nor argmin.")
    if batch != "all" and not (batch.isdigit() and int(batch) > 0):
        raise UsageError(f"--batch '{batch}' is neither a positive number nor 'all'.")
    dataset = shared.its_data(model, header, data, data_dir)
    chosen = dataset.rows(split)  # type: ignore[arg-type]
    index = torch.arange(len(dataset), device=dataset.device) if chosen is None else chosen
    index = index[:rows]
    cost, labels = _costs(model, dataset, index)
    classes = _solve(model, cost, len(cost) if batch == "all" else int(batch), rule)
    target = shared.beside(path, out, "assign.safetensors")
    write_atomic(target, save({"class": classes.cpu(), "cost": cost.cpu().contiguous()}))
    counts = torch.bincount(classes, minlength=model.classes).tolist()
    table = None
    if labels is not None:
        kinds = max(int(labels.max()) + 1, len(dataset.spec.classes))
        table = torch.bincount(classes * kinds + labels, minlength=model.classes * kinds).view(-1, kinds).tolist()
    if json:
        console.emit_json({"file": str(target), "counts": counts, "contingency": table, "rule": rule, "batch": batch})
        return
    names = dataset.spec.classes or tuple(f"label {k}" for k in range(len(table[0]) if table else 0))
    columns = ["class", "images", *(names if table else ())]
    console.table("", columns, [(k, n, *(table[k] if table else [])) for k, n in enumerate(counts)])
    console.out.print(str(target))


def _costs(model: CascadeVAE, dataset: Dataset, index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Cost [N, S] in nats at z = posterior mean, and the labels where the data set has them."""
    import torch

    from distk.console import progress

    costs, labels = [], []
    with torch.no_grad(), progress("decoding under every class", len(index)) as advance:
        for part in index.split(512):
            batch = dataset.batch(part)
            costs.append(model.cost(model.encoder(batch["x"])[0], batch["x"]))
            labels.append(batch.get("label"))
            advance(len(part))
    return torch.cat(costs), None if labels[0] is None else torch.cat(labels)


def _solve(model: CascadeVAE, cost: Tensor, batch: int, rule: str) -> Tensor:
    import torch

    from distk.plugins.vae_family import mincostflow

    solver: Any = "argmin" if rule == "argmin" else "auto"
    pair_cost = model.config.pair_cost
    # One batch of everything has far more items than exchanges to make: stop when none gains.
    return torch.cat([mincostflow.assign(c, pair_cost, solver, early_exit=True) for c in cost.split(batch)])


def bench(
    n: Annotated[int, typer.Option("--n", help="Items per batch.", min=1, max=4096)] = 64,
    classes: Annotated[int, typer.Option(help="Classes.", min=2, max=256)] = 3,
    spread: Annotated[float, typer.Option(help="Spread of the random costs in nats.", min=0)] = 0.5,
    pair_cost: Annotated[float, typer.Option(help="Nats per pair in one class.", min=0)] = 0.001,
    repeats: Annotated[int, typer.Option(help="Random batches.", min=1, max=10_000)] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Compare the solvers on random costs: the objective must be equal, the time is not.

    Example: distk mcf bench --n 64 --classes 3 --spread 0.5
    """
    from distk import console
    from distk.device import choose_device, describe
    from distk.plugins.vae_family import mincostflow

    chosen = choose_device(device)
    try:
        rows = mincostflow.bench(n, classes, spread, pair_cost, repeats, chosen)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    if json:
        console.emit_json({"device": describe(chosen), "n": n, "classes": classes, "spread": spread, "solvers": rows})
        return
    console.note(f"{repeats} batches on {describe(chosen)}; the objective is in nats, the grid's unit is 1e-4 nat")
    console.table("", list(rows[0]), [list(row.values()) for row in rows])
