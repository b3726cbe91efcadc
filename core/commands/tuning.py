"""`distk tuning`: what each latent answers to, over a grid of two factors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from distk import console
from distk.commands.shared import Look, OnData, titled, written_to
from distk.console import progress
from distk.data import FactorDataset
from distk.errors import UsageError, unknown
from distk.files import write_atomic
from distk.look import COLUMN
from distk.method import Method
from distk.study.tables import as_csv, as_figure, windowless
from distk.traversal import known_of


def tuning(
    on: OnData,
    look: Look = Look(),
    factors: Annotated[
        str, typer.Option(help="Two factors, comma-separated: along x and along y.", show_default=True)
    ] = "posX,posY",
    fix: Annotated[
        str, typer.Option(help="Values of the other factors, as scale=5,shape=2; default: the middle one of each.")
    ] = "",
    top: Annotated[int | None, typer.Option(help="Only the so many most informative latents.", min=1)] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the means as a table.")] = None,
) -> None:
    """Draw each latent's mean as a heat map over a grid of two factors, most informative latent first.

    A latent that answers to one factor alone has stripes. The table holds its correlation with either factor, and with
    the best direction between the two.

    Example: distk tuning runs/betavae --factors posX,posY --out fig2.png
    """
    model = on.open("tuning", "encode").model
    dataset = on.dataset()
    if not isinstance(dataset, FactorDataset):
        raise UsageError(f"data set '{dataset.name}' has no known factors, so there is no grid to draw over.")
    target = on.target("tuning.png")
    if csv is not None:
        csv = written_to(csv, "tuning.csv", option="--csv")  # refused before anything is computed
    first, second = _two(dataset, factors)
    values = factor_grid(dataset, first, second, _fixed(dataset, fix, (first, second)))
    means, names = latent_means(model, dataset, values)
    kl = known_of(model, dataset).kl
    chosen = sorted(range(len(names)), key=lambda i: -kl.get(names[i], 0.0))[:top]
    axes = (dataset.factor_names[first], dataset.factor_names[second])
    shape = (dataset.factor_sizes[second], dataset.factor_sizes[first])
    pair = values[:, [first, second]]
    fits = correlations(means, pair)
    rows = [(names[i], kl.get(names[i]), *fits[i]) for i in chosen]
    ticks = tuple(("0", str(dataset.factor_sizes[k] - 1)) for k in (first, second))
    maps = [means[:, i].view(shape) for i in chosen]
    write_atomic(target, draw_maps(maps, rows, axes, target.suffix, titled(on.header), (ticks[0], ticks[1])))
    files = [target]
    if csv is not None:
        lines = ([f"{v:g}" for v in (*p, *m)] for p, m in zip(pair.tolist(), means.tolist(), strict=True))
        write_atomic(csv, as_csv([*axes, *names], lines))
        files.append(csv)
    columns = ["latent", "kl", f"corr_{axes[0]}", f"corr_{axes[1]}", "corr_best"]
    if not on.json:
        console.table("", columns, rows)
    on.report(files, factors=axes, latents=[dict(zip(columns, row, strict=True)) for row in rows])


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
    columns, rows = dataset.factor_sizes[first], dataset.factor_sizes[second]
    values = torch.tensor(fixed).repeat(rows * columns, 1)
    values[:, first] = torch.arange(columns).repeat(rows)
    values[:, second] = torch.arange(rows).repeat_interleave(columns)
    return values


def latent_means(model: Method, dataset: FactorDataset, values: Tensor) -> tuple[Tensor, list[str]]:
    """Codes of these factor values in the model's continuous columns: float `[n, D]` on the host, and their names.

    Raises UsageError for a model without continuous latents.
    """
    kept = [i for i, kind in enumerate(model.latents.column_kinds) if kind != "categorical"]
    if not kept:
        raise UsageError("this model's code is discrete: there are no means to draw.")
    parts = []
    with torch.no_grad(), progress("encoding", len(values)) as advance:
        for part in values.split(512):
            batch = dataset.items(dataset.index(part)) if dataset.is_grid else {"x": dataset.observe(part)}
            code = model.encode_batch(batch)
            parts.append(model.latents.flatten(code)[:, kept].cpu())
            advance(len(part))
    return torch.cat(parts), [model.latents.columns[i] for i in kept]


def correlations(means: Tensor, pair: Tensor) -> list[tuple[float, float, float]]:
    """Per latent: Pearson correlation with the first and second factor, and with the best linear direction of both.

    means: `[n, D]`. pair: `[n, 2]`, a full grid, so that the two factors are uncorrelated. A constant latent has 0.
    """
    z, f = means.double(), pair.double()
    z, f = z - z.mean(0), f - f.mean(0)
    norm = z.norm(dim=0) * f.norm(dim=0)[:, None]
    r = torch.where(z.norm(dim=0) > 1e-9, (f.T @ z) / norm.clamp_min(1e-12), torch.zeros_like(norm))
    return [(float(a), float(b), float(torch.hypot(a, b))) for a, b in r.T]


def draw_maps(
    maps: list[Tensor],
    rows: list[tuple[Any, ...]],
    axes: tuple[str, str],
    form: str,
    title: str = "",
    ticks: tuple[Sequence[str], Sequence[str]] | None = None,
) -> bytes:
    """Heat maps `[n2, n1]` with latent and KL above each; blue is negative, red positive, one scale for all. Contents
    of a file whose suffix is `form`. ticks: the names of the first and the last value along each axis."""
    wide = min(3, len(maps))
    figure, grid = windowless(-(-len(maps) // wide), wide, COLUMN / wide, 1.3)
    places = list(grid.flat)
    for place in places[len(maps) :]:
        place.axis("off")
    reach = max(1e-6, *(float(heat.abs().max()) for heat in maps))  # one scale for all: unused latents stay pale
    for i, (place, heat, (name, nats, *_)) in enumerate(zip(places, maps, rows, strict=False)):
        shown = place.imshow(heat.numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach, origin="upper", aspect="auto")
        place.set_title(name + ("" if nats is None else f"\nKL {nats:.2f} nats"), fontsize=6)
        place.set(xticks=[], yticks=[])
        if ticks is not None:
            place.set_xticks([0, heat.shape[1] - 1], ticks[0], fontsize=6)
            place.set_yticks([0, heat.shape[0] - 1], ticks[1] if i % wide == 0 else ["", ""], fontsize=6)
        place.set_xlabel(axes[0], fontsize=7)
        place.set_ylabel(axes[1] if i % wide == 0 else "", fontsize=7)
    bar = figure.colorbar(shown, ax=places, fraction=0.05, pad=0.02)
    bar.set_label("mean of the latent", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    if title:
        figure.suptitle(title, fontsize=8)
    return as_figure(figure, form)
