"""`distk covmap`: the covariance of a code as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from distk import console
from distk.commands.arguments import Split
from distk.commands.shared import Look, OnData, titled
from distk.console import counted
from distk.covariance import columns_of, correlation, statistics
from distk.files import write_atomic
from distk.look import COLUMN
from distk.metric import encode_table
from distk.study.tables import as_csv, as_figure, windowless


def covmap(
    on: OnData,
    look: Look = Look(),
    layer: Annotated[str, typer.Option(help="code for all continuous groups, or the name of one.")] = "code",
    split: Split = "all",
    rows: Annotated[int | None, typer.Option(help="At most so many items, drawn once; default: all.", min=2)] = None,
) -> None:
    """Draw the covariance and the correlation of a code's units, and write the covariance as CSV beside it.

    Example: distk covmap runs/my-run --out cov.png
    """
    model = on.open("covmap", "encode").model
    table = encode_table(model, on.dataset(), rows=rows, split=split)
    columns = columns_of(table, layer)
    names = [table.names[i] for i in columns]
    c = torch.cov(table.codes[:, columns].double().T).reshape(len(columns), -1)
    picture = on.beside("cov.png")
    _heat_maps(picture, c.cpu().numpy(), correlation(c).cpu().numpy(), names, titled(on.header))
    matrix = picture.with_suffix(".csv")
    write_atomic(matrix, as_csv(["unit", *names], ([name, *row] for name, row in zip(names, c.tolist(), strict=True))))
    figures = {key: float(value) for key, value in statistics(c).items()}
    if not on.json:
        console.table("", ("figure", "value"), list(figures.items()))
    on.report([picture, matrix], **figures, units=names)


def _heat_maps(target: Path, c: np.ndarray, correlations: np.ndarray, names: Sequence[str], title: str) -> None:
    figure, axes = windowless(2, 1, COLUMN, 2.5)
    for axis, matrix, kind in zip(axes[:, 0], (c, correlations), ("covariance", "correlation"), strict=True):
        limit = 1.0 if kind == "correlation" else max(float(abs(c).max()), 1e-30)
        shown = axis.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        bar = figure.colorbar(shown, ax=axis, shrink=0.8)
        bar.ax.tick_params(labelsize=6)
        axis.set_title(kind, fontsize=8)
        few = len(names) <= 12
        axis.set_xticks(range(len(names)) if few else [], names if few else [], fontsize=6, rotation=90)
        axis.set_yticks(range(len(names)) if few else [], names if few else [], fontsize=6)
        axis.set_xlabel("unit of the code" if few else f"{counted(len(names), 'unit')} of the code", fontsize=7)
    figure.suptitle(title, fontsize=8)
    write_atomic(target, as_figure(figure, target.suffix))
