"""`distk capacity` and `distk tuning`: what a growing capacity buys, and what each latent answers to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.commands.arguments import Checkpoint, DataDir, DataName, Device, Json, Out
from distk.errors import DistkError, UsageError, unknown
from distk.study.tables import as_png, windowless

if TYPE_CHECKING:
    from torch import Tensor

    from distk import FactorDataset, Method
    from distk.plugins.vae_family.betavae.factorgen import FactorGen


# capacity


def capacity(
    checkpoint: Checkpoint = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="PNG; default: capacity.png beside it.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the curves as a table.")] = None,
    threshold: Annotated[float, typer.Option(help="KL in nats above which a channel is open.", min=0)] = 0.1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw where a growing capacity C went: KL of each factor or latent against C and against the reconstruction loss.

    Reads the log of the run. For factorgen a second picture shows the reconstructions kept at some capacities.

    Example: distk capacity runs/factorgen --out fig3.png --csv kl.csv
    """
    from distk import console
    from distk.commands import shared
    from distk.files import write_atomic
    from distk.plugins.vae_family.betavae.factorgen import FactorGen

    path, model, header = shared.opened(checkpoint, device)
    target = shared.beside(path, out, "capacity.png").with_suffix(".png")
    if csv is not None:
        shared.beside(path, csv, "")
    names = list(model.factor_names) if isinstance(model, FactorGen) else model.latents.columns
    rows = curves(path, header.step, names)
    found = opened_at(rows, names, threshold)
    files = [target]
    write_atomic(target, draw_curves(rows, names))
    if isinstance(model, FactorGen):
        files += draw_kept(model, target.with_name(f"{target.stem}.reconstructions.png"))
    if csv is not None:
        columns = ["step", "capacity", "reconstruction", *names]
        lines = [",".join(columns), *(",".join(f"{row[c]:g}" for c in columns) for row in rows)]
        write_atomic(csv, ("\n".join(lines) + "\n").encode())
        files.append(csv)
    order = sorted(names, key=lambda name: (math.inf if found[name] is None else found[name], -rows[-1][name]))
    if json:
        last = {"capacity": rows[-1]["capacity"], "reconstruction": rows[-1]["reconstruction"]}
        console.emit_json(
            {
                "files": [str(f) for f in files],
                "threshold": threshold,
                "order": order,
                "opened_at": found,
                "kl": {name: rows[-1][name] for name in names},
                **last,
            }
        )
        return
    console.table(
        "",
        ["factor" if isinstance(model, FactorGen) else "latent", f"KL > {threshold:g} from C", "KL at the end"],
        [(name, found[name], rows[-1][name]) for name in order],
    )
    for file in files:
        console.out.print(str(file))


def curves(path: Path, last: int, names: list[str]) -> list[dict[str, float]]:
    """The rows of a run's log up to a step: step, capacity, reconstruction and the KL of each name, nats.

    Raises UsageError when the log beside the checkpoint tells no capacity.
    """
    from distk.run import Run

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


def draw_curves(rows: list[dict[str, float]], names: list[str]) -> bytes:
    """KL against C (left) and against the reconstruction loss (right), a line per name; contents of a PNG file."""
    figure, (axes,) = windowless(1, 2, 4.2, 3.2)
    for k, name in enumerate(names):
        kl, style = [row[name] for row in rows], "-" if k < 10 else "--"
        for axis, key in zip(axes, ("capacity", "reconstruction"), strict=True):
            axis.plot([row[key] for row in rows], kl, style, lw=1.2, label=name)
    axes[0].set(xlabel="capacity C, nats", ylabel="KL, nats")
    axes[1].set(xlabel="reconstruction loss, nats per image")
    axes[1].invert_xaxis()
    if len(names) <= 12:
        axes[0].legend(fontsize=7, frameon=False)
    return as_png(figure)


def draw_kept(model: FactorGen, target: Path) -> list[Path]:
    """Write the reconstructions that were kept at each mark, below the images themselves; the files written."""
    import torch

    from distk import FactorDataset, images
    from distk.commands.shared import scaled

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
    sheet = images.grid(items, len(model.shown))
    images.save_png(target, images.labelled(sheet, labels, items.shape[-2]))
    return [target]


# tuning


def tuning(
    checkpoint: Checkpoint = None,
    factors: Annotated[
        str, typer.Option(help="Two factors, comma-separated: along x and along y.", show_default=True)
    ] = "posX,posY",
    fix: Annotated[
        str, typer.Option(help="Values of the other factors, as scale=5,shape=2; default: the middle one of each.")
    ] = "",
    top: Annotated[int | None, typer.Option(help="Only the so many most informative latents.", min=1)] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the means as a table.")] = None,
    data: DataName = None,
    data_dir: DataDir = None,
    out: Out = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw each latent's mean as a heat map over a grid of two factors, most informative latent first.

    A latent that answers to one factor alone has stripes. The table holds its correlation with either factor, and with
    the best direction between the two.

    Example: distk tuning runs/betavae --factors posX,posY --out fig2.png
    """
    from distk import FactorDataset, console
    from distk.commands import shared
    from distk.files import write_atomic
    from distk.traversal import order_by_kl

    path, model, header = shared.opened(checkpoint, device)
    shared.require(model, header, "tuning", "encode")
    dataset = shared.its_data(model, header, data, data_dir)
    if not isinstance(dataset, FactorDataset):
        raise UsageError(f"data set '{dataset.name}' has no known factors, so there is no grid to draw over.")
    target = shared.beside(path, out, f"{path.stem}.tuning.png").with_suffix(".png")
    if csv is not None:
        shared.beside(path, csv, "")
    first, second = _two(dataset, factors)
    values = factor_grid(dataset, first, second, _fixed(dataset, fix, (first, second)))
    means, names = latent_means(model, dataset, values)
    kl = order_by_kl(model, dataset)
    chosen = sorted(range(len(names)), key=lambda i: -kl.get(names[i], 0.0))[:top]
    axes = (dataset.factor_names[first], dataset.factor_names[second])
    shape = (dataset.factor_sizes[second], dataset.factor_sizes[first])
    fits = correlations(means, values[:, [first, second]])
    rows = [(names[i], kl.get(names[i]), *fits[i]) for i in chosen]
    write_atomic(target, draw_maps([means[:, i].view(shape) for i in chosen], rows, axes))
    files = [target]
    if csv is not None:
        pairs = values[:, [first, second]].tolist()
        lines = [",".join((*axes, *names))]
        lines += [",".join(f"{v:g}" for v in (*p, *m)) for p, m in zip(pairs, means.tolist(), strict=True)]
        write_atomic(csv, ("\n".join(lines) + "\n").encode())
        files.append(csv)
    columns = ["latent", "kl", f"corr_{axes[0]}", f"corr_{axes[1]}", "corr_best"]
    if json:
        latents = [dict(zip(columns, row, strict=True)) for row in rows]
        console.emit_json({"files": [str(f) for f in files], "factors": axes, "latents": latents})
        return
    console.table("", columns, rows)
    for file in files:
        console.out.print(str(file))


def _two(dataset: FactorDataset, text: str) -> tuple[int, int]:
    """Places of the two factors that an option names."""
    names = [part.strip() for part in text.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        raise UsageError(f"--factors '{text}': name two different factors, such as --factors posX,posY.")
    first, second = (_place(dataset, name) for name in names)
    for k in (first, second):
        if dataset.factor_sizes[k] < 2:
            raise UsageError(f"factor '{dataset.factor_names[k]}' has one value only, so there is nothing to vary.")
    return first, second


def _place(dataset: FactorDataset, name: str) -> int:
    if name not in dataset.factor_names:
        raise unknown("factor", name, dataset.factor_names)
    return dataset.factor_names.index(name)


def _fixed(dataset: FactorDataset, text: str, varied: tuple[int, int]) -> list[int]:
    """A value of every factor: the middle one, unless `name=value,...` says otherwise."""
    chosen = [size // 2 for size in dataset.factor_sizes]
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not value.strip().isdigit():
            raise UsageError(f"--fix '{part}' is not understood; write FACTOR=NUMBER, such as --fix scale=5.")
        k = _place(dataset, name.strip())
        if k in varied:
            raise UsageError(f"--fix {part}: that factor is one of the two that vary.")
        if int(value) >= dataset.factor_sizes[k]:
            raise UsageError(f"--fix {part}: the values of '{name.strip()}' are 0 to {dataset.factor_sizes[k] - 1}.")
        chosen[k] = int(value)
    return chosen


def factor_grid(dataset: FactorDataset, first: int, second: int, fixed: list[int]) -> Tensor:
    """Factor values int64 `[n2 * n1, K]`: all pairs of two factors, the first one fastest."""
    import torch

    columns, rows = dataset.factor_sizes[first], dataset.factor_sizes[second]
    values = torch.tensor(fixed).repeat(rows * columns, 1)
    values[:, first] = torch.arange(columns).repeat(rows)
    values[:, second] = torch.arange(rows).repeat_interleave(columns)
    return values


def latent_means(model: Method, dataset: FactorDataset, values: Tensor) -> tuple[Tensor, list[str]]:
    """Codes of these factor values in the model's continuous columns: float `[n, D]` on the host, and their names.

    Raises UsageError for a model without continuous latents.
    """
    import torch

    from distk.console import progress

    kept = [i for i, kind in enumerate(model.latents.column_kinds) if kind == "continuous"]
    if not kept:
        raise UsageError("this model's code is discrete: there are no means to draw.")
    parts = []
    with torch.no_grad(), progress("encoding", len(values)) as advance:
        for part in values.split(512):
            code = model.encode(dataset.observe(part))
            parts.append(model.latents.flatten(code)[:, kept].cpu())
            advance(len(part))
    return torch.cat(parts), [model.latents.columns[i] for i in kept]


def correlations(means: Tensor, pair: Tensor) -> list[tuple[float, float, float]]:
    """Per latent: Pearson correlation with the first and second factor, and with the best linear direction of both.

    means: `[n, D]`. pair: `[n, 2]`, a full grid, so that the two factors are uncorrelated. A constant latent has 0.
    """
    import torch

    z, f = means.double(), pair.double()
    z, f = z - z.mean(0), f - f.mean(0)
    norm = z.norm(dim=0) * f.norm(dim=0)[:, None]
    r = torch.where(z.norm(dim=0) > 1e-9, (f.T @ z) / norm.clamp_min(1e-12), torch.zeros_like(norm))
    return [(float(a), float(b), float(torch.hypot(a, b))) for a, b in r.T]


def draw_maps(maps: list[Tensor], rows: list[tuple[Any, ...]], axes: tuple[str, str]) -> bytes:
    """Heat maps `[n2, n1]` with latent and KL above each; blue is negative, red positive. Contents of a PNG file."""
    wide = min(5, len(maps))
    figure, grid = windowless(-(-len(maps) // wide), wide, 2.0, 2.1)
    places = list(grid.flat)
    for place in places[len(maps) :]:
        place.axis("off")
    reach = max(1e-6, *(float(heat.abs().max()) for heat in maps))  # one scale for all: unused latents stay pale
    for place, heat, (name, nats, *_) in zip(places, maps, rows, strict=False):
        place.imshow(heat.numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach, origin="upper", aspect="auto")
        place.set_title(name + ("" if nats is None else f"  KL {nats:.2f}"), fontsize=8)
        place.set(xticks=[], yticks=[], xlabel=axes[0], ylabel=axes[1])
        place.xaxis.label.set_size(7)
        place.yaxis.label.set_size(7)
    return as_png(figure)
