"""`distk indepvideo ...`: parts of a state that move alone, and how units correlate across one step."""

from __future__ import annotations

import io
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from safetensors.torch import save
from torch import Tensor

from distk import seeded
from distk.commands.shared import Look, OnRows, scaled, titled
from distk.console import counted
from distk.errors import UsageError
from distk.files import write_atomic
from distk.metric import contents
from distk.plugins.sequence.indepvideo import information
from distk.plugins.sequence.indepvideo.figures import CorrelationMap, alone
from distk.plugins.sequence.indepvideo.method import IndepVideo
from distk.plugins.sequence.indepvideo.metrics import consecutive, given_parts, random_cuts

Partition = Annotated[
    int | None,
    typer.Option(
        "--partition", help="Cut the state into parts at random by this seed; an entangled model has no other.", min=0
    ),
]


def parts_of(model: IndepVideo, partition: int | None) -> list[Tensor]:
    """The units of each factor, or of the parts that a seed cuts. Raises UsageError where there are neither."""
    if partition is not None:
        return random_cuts(model.size, model.parts, 1, partition)[0]
    own = given_parts(model)
    if len(own) < 2:
        raise UsageError(
            "this model has no factors: its transition is over the whole state. Name parts by --partition SEED."
        )
    return own


def independent(
    on: OnRows,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", "-n", help="Clips.", min=1, max=256)] = 8,
    source: Annotated[
        Literal["posterior", "prior", "prior-mean", "interpolate"],
        typer.Option(
            "--source",
            help="What a factor follows: what the clip shows of it; its own transition, drawn or at its mean; or a "
            "straight line through its state, 15 to either side.",
        ),
    ] = "posterior",
    partition: Partition = None,
) -> None:
    """Draw what each factor does: it moves alone, and all others are frozen at the second frame.

    A block of rows per clip: the reconstruction of frames 2 and later with all factors, then a row per factor. Writes a
    PNG and a GIF; clips of vectors go into a safetensors file.

    Example: distk indepvideo independent runs/indepvideo -n 4
    """
    model = on.open().of(IndepVideo, "models of indepvideo")
    dataset = on.dataset()
    parts = parts_of(model, partition)
    if dataset.spec.shape[0] < 3:
        raise UsageError(
            f"clips of {counted(dataset.spec.shape[0], 'frame')} are too short: factors are frozen at the second, and"
            " move later."
        )
    rows = on.rows(dataset, n)
    with torch.no_grad():
        x = dataset.batch(rows)["x"]
        units = [part.to(x.device) for part in parts]
        made = model.independent(x, units, seeded(on.seed, x.device), source)
    change = made.double().var(2, correction=0).flatten(2).sum(2).mean(0).tolist()
    names = ["all", *(f"factor {i}" for i in range(len(parts)))]
    if model.spec.kind == "video":
        files = alone(
            on.target(f"independent-{source}.png"),
            scaled(model, made),
            names,
            titled(on.header, f"moves drawn from the {source}"),
        )
    else:
        path = on.target(f"independent-{source}.safetensors")
        write_atomic(path, save({"clips": made.cpu().contiguous(), "rows": rows.cpu()}))
        files = [path]
    on.report(files, rows=rows.tolist(), source=source, variance_over_time=dict(zip(names, change, strict=True)))


def correlation(
    on: OnRows,
    look: Look = Look(),
    pairs: Annotated[int, typer.Option("--pairs", help="Pairs of consecutive states.", min=10, max=1_000_000)] = 1000,
    partition: Partition = None,
) -> None:
    """Draw how every unit at t correlates with every unit at t + 1, with lines between the factors (Figure 2).

    From posterior draws of test clips. Blocks on the diagonal say that a factor depends on its own past; they show
    linear dependence alone, so that deep transitions may leave an empty map. Writes a PNG, and the numbers as CSV.

    Example: distk indepvideo correlation runs/indepvideo
    """
    model = on.open().of(IndepVideo, "models of indepvideo")
    dataset = on.dataset()
    parts = given_parts(model) if partition is None else parts_of(model, partition)
    with torch.no_grad():
        now, then = consecutive(model, dataset, pairs, on.seed)
    matrix = information.correlation(now, then)
    ratio, mean = information.blocks(matrix, parts)
    order = torch.cat(parts)
    path = on.target("correlation.png")
    drawn = CorrelationMap(matrix.cpu().numpy(), order.numpy(), [len(part) for part in parts])
    write_atomic(path, contents(drawn, path.suffix))
    table = io.StringIO()
    np.savetxt(table, drawn.matrix[np.ix_(drawn.order, drawn.order)], delimiter=",", fmt="%.6g")
    numbers = path.with_suffix(".csv")
    write_atomic(numbers, table.getvalue().encode())
    on.report(
        [path, numbers],
        pairs=len(now),
        units=order.tolist(),
        block_ratio=ratio if ratio == ratio else None,
        mean_abs_correlation=mean,
    )
