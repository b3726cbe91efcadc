"""`distk cascadevae assign` and `distk cascadevae mcf`: the discrete code, and the solver that finds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.errors import NotServed, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from distk import Dataset, Method


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
    rule: Annotated[
        str | None,
        typer.Option(
            help="cascadevae: mcf (default; with the pair cost, as in training) or argmin (each alone). "
            "jointvae: argmax of the posterior."
        ),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Which discrete variable, where there are several.")] = None,
    split: Annotated[str, typer.Option(help="all, train or test.")] = "all",
    rows: Annotated[int | None, typer.Option(help="Only the first so many images.", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Give every image its discrete class, and hold the classes against the labels where there are any.

    Writes `class` [N] int64 and `cost` [N, S] in nats: of the reconstruction under each class (cascadevae), or
    -log q(class | image) (jointvae).

    Example: distk assign runs/my-run --rule argmin
    """
    import torch
    from safetensors.torch import save

    from distk import console
    from distk.commands import shared
    from distk.files import write_atomic

    path, model, header = shared.opened(checkpoint, device)
    rules = _rules(model, header.method)
    rule = rule or rules[0]
    if rule not in rules:
        raise UsageError(f"--rule '{rule}' is no rule of {header.method}: {' or '.join(rules)}.")
    group = _discrete_group(model, group)
    if batch != "all" and not (batch.isdigit() and int(batch) > 0):
        raise UsageError(f"--batch '{batch}' is neither a positive number nor 'all'.")
    dataset = shared.its_data(model, header, data, data_dir)
    chosen = dataset.rows(split)  # type: ignore[arg-type]
    index = torch.arange(len(dataset), device=dataset.device) if chosen is None else chosen
    index = index[:rows]
    cost, labels = _costs(model, dataset, index, group)
    classes = _solve(model, cost, len(cost) if batch == "all" else int(batch), rule)
    target = shared.beside(path, out, "assign.safetensors")
    write_atomic(target, save({"class": classes.cpu(), "cost": cost.cpu().contiguous()}))
    sizes = cost.shape[1]
    counts = torch.bincount(classes, minlength=sizes).tolist()
    table = None
    if labels is not None:
        kinds = max(int(labels.max()) + 1, len(dataset.spec.classes))
        table = torch.bincount(classes * kinds + labels, minlength=sizes * kinds).view(-1, kinds).tolist()
    if json:
        console.emit_json({"file": str(target), "counts": counts, "contingency": table, "rule": rule, "batch": batch})
        return
    names = dataset.spec.classes or tuple(f"label {k}" for k in range(len(table[0]) if table else 0))
    columns = ["class", "images", *(names if table else ())]
    console.table("", columns, [(k, n, *(table[k] if table else [])) for k, n in enumerate(counts)])
    console.out.print(str(target))


def _rules(model: Method, name: str) -> tuple[str, ...]:
    """How this model's discrete code can be assigned, the default first. Raises NotServed where there is none."""
    from distk.plugins.vae_family.cascadevae.method import CascadeVAE
    from distk.plugins.vae_family.jointvae.method import JointVAE

    if isinstance(model, CascadeVAE):
        return ("mcf", "argmin")
    if isinstance(model, JointVAE):
        return ("argmax",)
    raise NotServed(f"method '{name}' has no discrete code to assign; this command serves cascadevae and jointvae.")


def _discrete_group(model: Method, wanted: str | None) -> str:
    """The named discrete variable, or the only one there is."""
    names = [g.name for g in model.latents if g.kind == "categorical"]
    if wanted is None and len(names) > 1:
        raise UsageError(f"there are several discrete variables: add --group with one of {', '.join(names)}.")
    if wanted is not None and wanted not in names:
        raise UsageError(f"--group '{wanted}' is no discrete variable; there is {', '.join(names)}.")
    return wanted or names[0]


def _costs(model: Any, dataset: Dataset, index: Tensor, group: str) -> tuple[Tensor, Tensor | None]:
    """Cost [N, S] in nats, and the labels where the data set has them.

    cascadevae: of the reconstruction at z = posterior mean. jointvae: -log q(class | image).
    """
    import torch

    from distk.console import progress
    from distk.plugins.vae_family.jointvae.method import JointVAE

    costs, labels = [], []
    with torch.no_grad(), progress("costs of every class", len(index)) as advance:
        for part in index.split(512):
            batch = dataset.batch(part)
            x = batch["x"]
            encoded = isinstance(model, JointVAE)
            costs.append(-model.log_posterior(x, group) if encoded else model.cost(model.encoder(x)[0], x))
            labels.append(batch.get("label"))
            advance(len(part))
    return torch.cat(costs), None if labels[0] is None else torch.cat(labels)


def _solve(model: Any, cost: Tensor, batch: int, rule: str) -> Tensor:
    import torch

    from distk.plugins.vae_family.cascadevae import solver as mincostflow

    if rule == "argmax":
        return cost.argmin(1)
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
    from distk.plugins.vae_family.cascadevae import solver as mincostflow

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
