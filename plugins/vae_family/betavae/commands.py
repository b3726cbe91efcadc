"""`distk betavae capacity`: what a growing capacity buys."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import torch
import typer

from distk import FactorDataset, console, images
from distk.commands.shared import Look, OnModel, scaled, written_to
from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.look import COLUMN
from distk.plugins.vae_family.betavae.factorgen import FactorGen
from distk.run import Run
from distk.sheet import Sheet
from distk.study.tables import as_csv, as_figure, windowless


def capacity(
    on: OnModel,
    look: Look = Look(),
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the curves as a table.")] = None,
    threshold: Annotated[float, typer.Option(help="KL in nats above which a channel is open.", min=0)] = 0.1,
) -> None:
    """Draw where a growing capacity C went: KL of each factor or latent against C and against the reconstruction loss.

    Reads the log of the run. For factorgen a second picture shows the reconstructions kept at some capacities.

    Example: distk betavae capacity runs/factorgen --out fig3.png --csv kl.csv
    """
    model = on.open().model
    target = on.beside("capacity.png")
    if csv is not None:
        csv = written_to(csv, "capacity.csv", option="--csv")  # refused before anything is written
    names = list(model.factor_names) if isinstance(model, FactorGen) else model.latents.columns
    rows = curves(on.path, on.header.step, names)
    opened = opened_at(rows, names, threshold)
    files = [target]
    write_atomic(target, draw_curves(rows, names, target.suffix))
    if isinstance(model, FactorGen):
        files += draw_kept(model, target.with_name(f"{target.stem}.reconstructions{target.suffix}"))
    if csv is not None:
        columns = ["step", "capacity", "reconstruction", *names]
        write_atomic(csv, as_csv(columns, ([f"{row[c]:g}" for c in columns] for row in rows)))
        files.append(csv)
    last = rows[-1]
    order = sorted(names, key=lambda name: (math.inf if opened[name] is None else opened[name], -last[name]))
    if not on.json:
        columns = [
            "factor" if isinstance(model, FactorGen) else "latent",
            f"KL > {threshold:g} from C",
            "KL at the end",
        ]
        console.table("", columns, [(name, opened[name], last[name]) for name in order])
    ends = {"capacity": last["capacity"], "reconstruction": last["reconstruction"]}
    kl = {name: last[name] for name in names}
    on.report(files, threshold=threshold, order=order, opened_at=opened, kl=kl, **ends)


def curves(path: Path, last: int, names: list[str]) -> list[dict[str, float]]:
    """The rows of a run's log up to a step: step, capacity, reconstruction and the KL of each name, nats.

    Raises UsageError when the log beside the checkpoint tells no capacity.
    """
    keys = ["step", "capacity", "reconstruction"]
    # A single latent is logged as `kl`, several as `kl/1`, `kl/2`, ...
    logged = ["kl"] if len(names) == 1 else [f"kl/{i + 1}" for i in range(len(names))]
    rows = []
    for row in Run(path.parent, {}).log:
        values = [row.get(key) for key in (*keys, *logged)]
        sound = all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
        if sound and row["step"] <= last:
            rows.append(dict(zip((*keys, *names), map(float, values), strict=True)))  # type: ignore[arg-type]
    if not rows:
        raise UsageError(
            f"no log of a growing capacity lies beside '{path}': name a run folder of annealedvae or factorgen."
        )
    return rows


def opened_at(rows: list[dict[str, float]], names: list[str], threshold: float) -> dict[str, float | None]:
    """The C in nats from which on each channel's KL is above the threshold; None if it is not in the end.

    In the first steps all channels share the capacity, before those that help little close again: that does not count.
    """
    found: dict[str, float | None] = {}
    for name in names:
        shut = [i for i, row in enumerate(rows) if row[name] <= threshold]
        first = shut[-1] + 1 if shut else 0
        found[name] = rows[first]["capacity"] if first < len(rows) else None
    return found


def draw_curves(rows: list[dict[str, float]], names: list[str], form: str) -> bytes:
    """KL against C (above) and against the reconstruction loss (below), a line per name; contents of a file."""
    figure, panels = windowless(2, 1, COLUMN, 2.1)
    axes = panels[:, 0]
    for k, name in enumerate(names):
        kl, style = [row[name] for row in rows], "-" if k < 10 else "--"
        for axis, key in zip(axes, ("capacity", "reconstruction"), strict=True):
            axis.plot([row[key] for row in rows], kl, style, lw=1.2, label=name, marker="." if len(rows) < 5 else "")
    axes[0].set(xlabel="capacity C, nats", ylabel="KL, nats")
    axes[1].set(xlabel="reconstruction loss, nats per image", ylabel="KL, nats")
    axes[1].invert_xaxis()
    if len(names) <= 12:
        axes[0].legend(fontsize=6, frameon=False)
    return as_figure(figure, form)


def draw_kept(model: FactorGen, target: Path) -> list[Path]:
    """Write the reconstructions that were kept at each mark, below the images themselves; the files written."""
    reached = [i for i, step in enumerate(model.kept_at.tolist()) if step >= 0]
    if not reached or model.spec.kind != "image":
        return []
    labels = [f"C = {model.config.marks[i]:g}" for i in reached]
    parts = [model.kept[i] for i in reached]
    try:
        dataset = model.dataset()
        if isinstance(dataset, FactorDataset):
            parts, labels = [dataset.observe(model.shown), *parts], ["images", *labels]
    except DistkError:
        pass  # the data are gone, or no full grid: the reconstructions stand alone
    items = images.enlarge(scaled(model, torch.cat(parts)))
    return [Sheet(items, len(model.shown), rows=labels, title="reconstructions at some capacities, nats").write(target)]
