"""`distk study covreg`: the paper's experiments."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.commands.arguments import DataDir, Device, Json
from distk.errors import DistkError, UsageError
from distk.study.tables import as_png, rows_as_csv, windowless

if TYPE_CHECKING:
    pass

NAMES = {"mapc": "MAPC", "cvr": "CVR", "tdv": "TdV", "ud90": "UD90", "mse": "squared error", "weight": "weight"}
SHOWN = {
    "dimred": ("mapc", "cvr", "tdv", "ud90", "trace", "mse"),
    "xor": ("active1", "active2", "minimal", "solved", "trace", "error"),
    "cifar": ("mapc", "cvr", "tdv", "ud90", "trace", "mse", "epoch"),
}
LAMBDAS = {
    "dimred": (0.0, *(10 ** (-3 + 3 * k / 7) for k in range(8))),
    "xor": (0.0, 0.05, 0.2),
    # Printed as "[0.0, 0.2, ..., 10.24]", of which only this reading holds 10.24 and the 0.08 of the table.
    "cifar": (0.0, *(0.02 * 2**k for k in range(10))),
}


def covreg(
    exp: Annotated[str, typer.Option("--exp", help="dimred, xor or cifar.")] = "dimred",
    lambdas: Annotated[str | None, typer.Option(help="Weights, comma-separated; default: the paper's.")] = None,
    seeds: Annotated[int, typer.Option(help="Networks per penalty and weight.", min=1, max=100_000)] = 5,
    penalties: Annotated[str, typer.Option(help="Of covreg, covreg-drop (no diagonal), l1act.")] = "covreg,l1act",
    steps: Annotated[
        int | None, typer.Option(help="Steps of dimred (default 10,000) and xor (8,000).", min=1, show_default=False)
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the images of cifar.", min=1)] = 100,
    items: Annotated[
        int | None,
        typer.Option(help="Training items; default: 1,000 for dimred, all for cifar.", min=10, show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(help="Batch size of cifar.", min=2)] = 100,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate of Adam; default: 1e-3, for xor 1e-2.", show_default=False)
    ] = None,
    d: Annotated[int, typer.Option(help="Units that TdV counts in cifar; in dimred these are its factors.")] = 4,
    data: Annotated[str, typer.Option(help="Images for cifar.")] = "cifar10",
    data_dir: DataDir = None,
    at_once: Annotated[
        int | None,
        typer.Option(help="Networks trained at once; 1: one after another. Default: all.", min=1, show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default: runs/study-covreg-EXP.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train an experiment's networks at every weight, penalty and seed, side by side; write a CSV and a figure.

    dimred: Figures 1 and 2; xor: section 4.2; cifar: Table 1 and Figures 3 and 4.

    Example: distk study covreg --exp dimred --seeds 2 --steps 2000
    """
    from distk import choose_device, console
    from distk.device import describe
    from distk.plugins.vae_family.covreg import study as study

    if exp not in SHOWN:
        raise UsageError(f"--exp '{exp}' is none of {', '.join(SHOWN)}.")
    if lr is not None and not 0 < lr < math.inf:
        raise UsageError(f"--lr {lr} is no positive number.")
    names = list(dict.fromkeys(name for name in penalties.split(",") if name))
    if not names:
        raise UsageError("--penalties names none; there are covreg, covreg-drop and l1act.")
    chosen = study.members(names, _weights(lambdas, exp), range(seeds))
    device_ = choose_device(device)
    settings: dict[str, Any] = {"steps": steps or (8000 if exp == "xor" else 10_000), "epochs": epochs, "batch": batch}
    settings |= {"lr": lr or (1e-2 if exp == "xor" else 1e-3), "items": items or (1000 if exp == "dimred" else None)}
    floor = None
    if exp == "cifar":
        floor = _images(settings, data, data_dir, d, device_)
    began, rows = time.monotonic(), []
    size = at_once or len(chosen)
    for first in range(0, len(chosen), size):
        rows += getattr(study, exp)(chosen[first : first + size], device_, settings)
    seconds = time.monotonic() - began
    folder = out or Path("runs") / f"study-covreg-{exp}"
    files = _write(folder, exp, rows, names)
    summary = _summary(rows, names, SHOWN[exp])
    equal = study.at_equal_error(rows, "cvr", *names[:2]) if exp != "xor" and len(names) > 1 else []
    if json:
        told = {
            "files": [str(f) for f in files],
            "networks": len(chosen),
            "seconds": round(seconds, 2),
            "rows": summary,
        }
        told |= {"device": describe(device_), "cvr_at_equal_error": equal, "linear_floor": floor}
        console.emit_json({"experiment": exp, **told})
    else:
        console.note(f"{len(chosen)} networks in {seconds:.1f} s on {describe(device_)}")
        console.table("", list(summary[0]), [list(row.values()) for row in summary])
        if equal:
            console.table("CVR at equal squared error", ("squared error", *names[:2]), equal)
        for file in files:
            console.out.print(str(file))
    _refuse_collapsed(rows)


def _weights(text: str | None, exp: str) -> list[float]:
    """The weights of `--lambdas`, in order, each once."""
    if text is None:
        return list(LAMBDAS[exp])
    try:
        found = sorted({float(part) for part in text.split(",") if part})
    except ValueError:
        raise UsageError(f"--lambdas '{text}' is not understood; write numbers with commas, as 0,0.05,0.2.") from None
    if not found or not all(0 <= w < math.inf for w in found):
        raise UsageError(f"--lambdas '{text}': weights are finite numbers of at least 0.")
    return found


def _images(settings: dict[str, Any], name: str, folder: Path | None, d: int, device: Any) -> dict[str, float]:
    """Open the images of cifar into `settings`; what the best linear code would leave of them."""
    from distk import console, open_dataset
    from distk.plugins.vae_family.covreg import study as study
    from distk.plugins.vae_family.covreg.method import ConvConfig

    dataset = open_dataset(name, device=device, folder=folder)
    if dataset.spec.kind != "image" or len(dataset.spec.shape) != 3 or min(dataset.spec.shape[1:]) < 16:
        raise UsageError(f"--data {name}: the networks take images of at least 16x16 pixels.")
    code = ConvConfig().code
    if not 1 <= d <= code:
        raise UsageError(f"--d {d} is more than the {code} units of the layer." if d > code else f"--d {d} is below 1.")
    settings |= {"dataset": dataset, "d": d, "code": code}
    console.note(f"data {dataset.name}: {dataset.origin}")
    error, share = study.linear_floor(dataset, code, min(settings["items"] or 10_000, 10_000))
    console.note(
        f"{code} principal components leave a squared error of {error:.4f}, {100 * share:.1f} % of the variance"
    )
    return {"mse": error, "share": share}


def _summary(rows: Sequence[Mapping[str, Any]], names: Sequence[str], keys: Sequence[str]) -> list[dict[str, Any]]:
    """A row of means over seeds for each penalty and weight."""
    from distk.plugins.vae_family.covreg.study import by_weight, mean

    return [
        {"penalty": name if w else "none", "weight": w, "seeds": len(group), **{k: mean(group, k) for k in keys}}
        for i, name in enumerate(names)
        for w, group in by_weight(rows, name).items()
        if w or not i
    ]


def _refuse_collapsed(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise DistkError where a network's coding layer is constant: its figures mean nothing."""
    from distk.plugins.vae_family.covreg.metrics import COLLAPSED

    dead = [row for row in rows if not row["trace"] > 0]
    if dead:
        first = dead[0]
        where = f"{first['penalty']} at weight {first['weight']:g}, seed {first['seed']}"
        raise DistkError(f"{COLLAPSED} in {len(dead)} of {len(rows)} networks, the first of them {where}.")


# Files


def _write(folder: Path, exp: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Path]:
    from distk.files import write_atomic

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DistkError(f"cannot make the folder '{folder}': {error.strerror or error}.") from error
    table, figure = folder / f"covreg-{exp}.csv", folder / f"covreg-{exp}.png"
    write_atomic(table, rows_as_csv(rows))
    write_atomic(figure, _xor_figure(rows, names) if exp == "xor" else _curves(rows, names))
    return [table, figure]


def _curves(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    """MAPC, CVR, TdV and UD90 against the weight (above) and against the squared error (below); means, and bars of
    one standard error. The dashed line is weight 0."""
    from distk.plugins.vae_family.covreg.study import by_weight, mean

    keys = ("mapc", "cvr", "tdv", "ud90")
    figure, axes = windowless(2, len(keys), 3.1, 2.3)
    for name, (line, key), colour in ((n, p, c) for n, c in zip(names, COLOURS, strict=False) for p in enumerate(keys)):
        groups = by_weight(rows, name)
        for axis, x in ((axes[0, line], "weight"), (axes[1, line], "mse")):
            points = [(mean(g, x), mean(g, key), _error_of(g, key)) for w, g in groups.items() if w]
            points = sorted(p for p in points if p[0] > 0)
            if points:
                across, up, bars = zip(*points, strict=True)
                axis.errorbar(across, up, bars, marker="o", ms=3, lw=1.2, capsize=2, color=colour, label=name)
            _scale(axis, [mean(g, x) for other in names for w, g in by_weight(rows, other).items() if w])
            axis.set_xlabel(NAMES[x], fontsize=8)
            axis.set_ylabel(NAMES[key], fontsize=8)
            axis.tick_params(which="both", labelsize=6)
            if name == names[0] and 0.0 in groups:
                axis.axhline(mean(groups[0.0], key), color="grey", lw=1, ls="--", label="weight 0")
    axes[0, 0].legend(fontsize=7)
    return as_png(figure, 90)


def _scale(axis: Any, values: Sequence[float]) -> None:
    """Logarithmic over more than a decade, else linear; with room on both sides, also around a single value."""
    from matplotlib.ticker import MaxNLocator

    values = [v for v in values if v > 0]
    if not values:
        return
    low, high = min(values), max(values)
    if high > 10 * low:
        axis.set_xscale("log")
        axis.set_xlim(low / 1.6, high * 1.6)
    else:
        room = 0.1 * (high - low) or 0.5 * high
        axis.set_xlim(low - room, high + room)
        axis.xaxis.set_major_locator(MaxNLocator(4))


COLOURS = ("tab:blue", "tab:orange", "tab:green")


def _error_of(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Standard error of a mean over seeds."""
    import statistics

    return statistics.stdev(row[key] for row in rows) / math.sqrt(len(rows)) if len(rows) > 1 else 0.0


def _xor_figure(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    """Active units of both layers, and the shares of minimal networks and of solved problems, for each weight."""
    from distk.plugins.vae_family.covreg.study import by_weight, mean

    panels = (("active1", "active units, layer 1"), ("active2", "active units, layer 2"))
    panels += (("minimal", "share with 2 and 1 active"), ("solved", "share that solves XOR"))
    figure, axes = windowless(1, len(panels), 3.1, 2.4)
    for axis, (key, title) in zip(axes[0], panels, strict=True):
        for i, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
            groups = by_weight(rows, name)
            width = 0.8 / len(names)
            places = [k + (i - (len(names) - 1) / 2) * width for k in range(len(groups))]
            axis.bar(places, [mean(g, key) for g in groups.values()], width, color=colour, label=name)
            axis.set_xticks(range(len(groups)), [f"{w:g}" for w in groups], fontsize=7)
        axis.set_ylim(0, 1 if key in ("minimal", "solved") else None)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("weight", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return as_png(figure, 90)
