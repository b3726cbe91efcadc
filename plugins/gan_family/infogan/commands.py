"""`distk infogan ...`: what one code changes, over several draws; and which code holds which factor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from torch import Tensor

from distk import console, evaluate, images
from distk.commands.arguments import Seed
from distk.commands.shared import Look, OnData, OnModel, scaled, titled
from distk.errors import DistkError, UsageError
from distk.files import write_atomic
from distk.latents import Latent, one_hot
from distk.metric import contents
from distk.plugins.gan_family.infogan.method import InfoGAN
from distk.registry import registry
from distk.sheet import Sheet


def grid(
    on: OnModel,
    look: Look = Look(),
    code: Annotated[str | None, typer.Option(help="Which code, as c1 or d; default: all, a picture each.")] = None,
    rows: Annotated[int, typer.Option(help="Values of a continuous code.", min=2, max=100)] = 10,
    columns: Annotated[int, typer.Option(help="Draws of noise and codes.", min=1, max=100)] = 8,
    seed: Seed = 0,
) -> None:
    """Draw what a code changes: a column per draw of noise and codes, the code rising from bottom to top (Figure 6).

    Everything but the code stays along a column. The range is that of the code's prior; a class has a row each.

    Example: distk infogan grid runs/my-run --code c2 --columns 12
    """
    model = on.open().of(InfoGAN, "models of infogan and infogan-mnist")
    device = next(model.parameters()).device
    with torch.no_grad():
        drawn = model.prior(columns, torch.Generator(device=device).manual_seed(seed))
    names = [name for group in model.latents.scored for name in group.columns]
    if code is not None and code not in names:
        raise UsageError(f"--code '{code}' is none of this model's codes {', '.join(names)}.")
    files: list[Path] = []
    values: dict[str, int] = {}
    for name in names if code is None else [code]:
        made, labels = [], []
        for label, changed in _values(model, name, drawn, rows):
            with torch.no_grad():
                made.append(model.decode(changed))
            labels.append(label)
        big = images.enlarge(scaled(model, torch.cat(made)))
        target = on.target(f"grid-{name}.png")
        if on.out is not None and code is None:
            target = target.with_name(f"{target.stem}-{name}{target.suffix or '.png'}")
        sheet = Sheet(big, columns, rows=labels, title=titled(on.header, "a column per draw"))
        files.append(sheet.write(target))
        values[name] = len(labels)  # a class has a row each, whatever --rows says
    on.report(files, codes=list(values), rows=values, columns=columns, seed=seed)


def _values(model: InfoGAN, name: str, drawn: dict[str, Tensor], rows: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Codes `[columns]` with one of them at each of its values, the highest first, and what to call that."""
    group: Latent = next(group for group in model.latents.scored if name in group.columns)
    value = drawn[group.name]
    if group.kind == "categorical":
        for k in range(group.size):
            index = torch.full((len(value),), k, device=value.device)
            yield f"{name} = {k}", {**drawn, group.name: one_hot(index, group.size)}
        return
    place = group.columns.index(name)
    for at in torch.linspace(group.high, group.low, rows).tolist():
        changed = value.clone()
        changed[:, place] = at
        yield f"{name} = {at:.2f}", {**drawn, group.name: changed}


def hinton(
    on: OnData,
    look: Look = Look(),
    predictor: Annotated[
        Literal["lasso", "rf"], typer.Option(help="lasso: signed weights; rf: a forest's importances.")
    ] = "lasso",
    items: Annotated[int, typer.Option(help="Rows of the training split to fit on, and of the test.", min=20)] = 10_000,
    seed: Seed = 0,
) -> None:
    """Draw which code holds which factor: a Hinton diagram of the regressors' weights (Figure 2).

    The row of a code ends in its disentanglement D, the column of a factor in its completeness C. Serves every model
    with an encoder, on data with factors.

    Example: distk infogan hinton runs/my-run --predictor rf
    """
    model = on.open("eval", "encode").model
    settings: dict[str, Any] = {"data": on.dataset(), "split": "test", "fit": "train", "rows": items, "seed": seed}
    result = evaluate(model, ["dci"], predictor=predictor, **settings)["metrics"]["dci"]
    if "error" in result:
        raise DistkError(result["error"])
    per_code, per_factor = result["disentanglement_per_code"], result["completeness_per_factor"]
    codes = [f"{n}  D {_brief(v)}" for n, v in zip(result["code_names"], per_code, strict=True)]
    factors = [f"{n}  C {_brief(v)}" for n, v in zip(result["factor_names"], per_factor, strict=True)]
    draw = registry().find("metric", "dci").load().pictures
    picture = draw({**result, "code_names": codes, "factor_names": factors, "subject": titled(on.header)})["importance"]
    target = on.target(f"hinton-{predictor}.png")
    files = list(dict.fromkeys([target, target.with_suffix(".svg")]))
    for file in files:
        write_atomic(file, contents(picture, file.suffix))
    if not on.json:
        lines = draw({**result, "code_names": codes})["importance"].text()  # a terminal's columns have no room for C
        console.say(f"{lines}\n{', '.join(factors)}")
    on.report(
        files,
        predictor=predictor,
        codes=result["code_names"],
        factors=result["factor_names"],
        weights=np.asarray(result.get("weights", result["importance"])).tolist(),
        disentanglement=per_code,
        completeness=per_factor,
    )


def _brief(value: float) -> str:
    return f"{value:.2f}" if value == value else "-"
