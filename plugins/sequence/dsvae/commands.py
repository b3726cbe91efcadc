"""`distk dsvae ...`, commands for models of clips: transfer-clips, similarity, generate, judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import Tensor

from distk import Code, Dataset, FactorDataset, Method, choose_device, console, open_dataset
from distk.commands.arguments import DataDir, Device, Json, Seed
from distk.commands.shared import Look, OnRows, beside, forms, present, titled
from distk.console import counted
from distk.errors import UsageError
from distk.options import Without
from distk.plugins.sequence.dsvae.method import DSVAE
from distk.plugins.sequence.judge import FILE, REQUIRED, train_judge
from distk.plugins.sequence.metrics import CELLS, cell_pairs, cosine, encode_halves, halves, training_mean


def _checked(dataset: Dataset, rows: list[int]) -> Tensor:
    for row in rows:
        if not 0 <= row < len(dataset):
            raise UsageError(
                f"there is no clip {row}: data set '{dataset.name}' has the clips 0 to {len(dataset) - 1}."
            )
    return torch.tensor(rows, device=dataset.device)


def _clips(on: OnRows) -> tuple[Method, Dataset, list[str], list[str]]:
    """Model, data, static groups and motion groups of a checkpoint that can encode and decode clips."""
    model = on.open("swap", "encode", "decode").model
    static, moving = halves(model)
    return model, on.dataset(), static, moving


def draw_pairs(dataset: Dataset, n: int, seed: int, split: str, differ: str) -> tuple[Tensor, Tensor]:
    """`n` pairs of rows of a split, int64 `[n]` each, of different clips.

    differ: `both` = pairs that differ in every attribute and in the motion; `any` = whatever is drawn.
    """
    rows = dataset.rows_of(split)
    draw = torch.Generator().manual_seed(seed)
    a = rows[torch.randint(len(rows), (n * 64,), generator=draw).to(rows.device)]
    b = rows[torch.randint(len(rows), (n * 64,), generator=draw).to(rows.device)]
    fits = a != b
    if differ == "both" and isinstance(dataset, FactorDataset):
        fits = (dataset.factors(a) != dataset.factors(b)).all(1)
    a, b = a[fits][:n], b[fits][:n]
    if len(a) < n:
        raise UsageError(f"the {split} split has no {counted(n, 'pair')} that differ in everything; try --differ any.")
    return a, b


def _mix(code_a: Code, code_b: Code, moving: list[str]) -> Code:
    """Static groups of a, motion groups of b."""
    return {**code_a, **{name: code_b[name] for name in moving}}


def transfer_clips(
    on: Annotated[OnRows, Without("data", "data_dir")],
    look: Look = Look(),
    a: Annotated[int | None, typer.Option("--a", help="Clip whose appearance is shown in the motion of --b.")] = None,
    b: Annotated[int | None, typer.Option("--b", help="The other clip.")] = None,
    pairs: Annotated[int, typer.Option("--pairs", help="Without --a and --b: this many random pairs.", min=1)] = 7,
    differ: Annotated[
        Literal["both", "any"], typer.Option("--differ", help="both: pairs that differ in every attribute and motion.")
    ] = "both",
) -> None:
    """Exchange the motion of two clips: rows A, B, A's appearance with B's motion, B's appearance with A's motion.

    Writes a PNG with a row of frames per clip and a GIF. Where the data know the true result of a transfer, its error
    is printed: gain 1 is perfect, 0 no better than copying A or B.

    Example: distk dsvae transfer-clips runs/dsvae --pairs 7 --seed 1 --out transfer.png
    """
    model, dataset, _, moving = _clips(on)
    if (a is None) != (b is None):
        raise UsageError("name both --a and --b, or neither of them.")
    if a is not None and a == b:
        raise UsageError(f"--a and --b are both clip {a}; a transfer needs two different clips.")
    target = beside(on.path, on.out, "transfer.png", *forms(model)[1:])
    first, second = (
        draw_pairs(dataset, pairs, on.seed, on.split, differ)
        if a is None or b is None
        else (_checked(dataset, [a]), _checked(dataset, [b]))
    )
    with torch.no_grad():
        x_a, x_b = dataset.batch(first)["x"], dataset.batch(second)["x"]
        code_a, code_b = model.encode(x_a), model.encode(x_b)
        made = [model.decode(_mix(code_a, code_b, moving)), model.decode(_mix(code_b, code_a, moving))]
    gains = _gains(dataset, first, second, made[0])
    items = torch.stack([x_a, x_b, *made], 1).flatten(0, 1)  # four rows per pair
    names = ("A", "B", "A moving as B", "B moving as A")
    labels = [f"{name}, {a} and {b}" for a, b in zip(first.tolist(), second.tolist(), strict=True) for name in names]
    files = present(model, items, target, 4, rows=labels, title=titled(on.header))
    rows = [[i, j, *g] for i, j, g in zip(first.tolist(), second.tolist(), gains, strict=True)]
    if not on.json:
        console.table("A's appearance with B's motion", ["A", "B", "error", "gain"], rows)
    on.report(files, pairs=[dict(zip(("a", "b", "error", "gain"), row, strict=True)) for row in rows])


def _gains(dataset: Dataset, a: Tensor, b: Tensor, made: Tensor) -> list[tuple[float | None, float | None]]:
    """(mean squared error, gain) of every transfer against the true clip; None where the data do not know it."""
    if not hasattr(dataset, "transfer_target"):
        return [(None, None)] * len(a)
    true = dataset.transfer_target(a, b)
    copies = (dataset.batch(rows)["x"] for rows in (a, b))
    error, copy_a, copy_b = ((x - true).double().pow(2).flatten(1).mean(1).tolist() for x in (made, *copies))
    bases = [min(pair) for pair in zip(copy_a, copy_b, strict=True)]
    return [(e, 1 - e / base if base else None) for e, base in zip(error, bases, strict=True)]


def similarity(
    on: Annotated[OnRows, Without("data", "data_dir", "out")],
    pairs: Annotated[int, typer.Option("--pairs", help="How many pairs of clips.", min=1, max=10_000)] = 12,
) -> None:
    """Cosine similarity of f and of the whole z over pairs of clips (Das & Dandi's table).

    The pairs go round: same appearance with another motion, another appearance with the same motion, both different,
    and the clip itself. A cosine depends on the codes' mean, so each is also given centred on the training mean.

    Example: distk dsvae similarity runs/dsvae --pairs 12
    """
    model, dataset, _, _ = _clips(on)
    compared = _labelled_pairs(dataset, on, pairs)
    used = torch.tensor([[i, j] for i, j, *_ in compared], device=dataset.device).flatten()
    f, z = encode_halves(model, dataset, used)
    mean_f, mean_z = training_mean(model, dataset)
    columns = ["A", "B", "same appearance", "same motion", "cos f", "cos z", "centred f", "centred z"]
    values = [cosine(u[::2], u[1::2]).tolist() for u in (f, z, f - mean_f, z - mean_z)]
    lines = [[*pair, *(v[i] for v in values)] for i, pair in enumerate(compared)]
    if on.json:
        console.emit_json({"pairs": [dict(zip(columns, line, strict=True)) for line in lines]})
    else:
        console.table("", columns, lines)


def _labelled_pairs(dataset: Dataset, on: OnRows, n: int) -> list[tuple[int, int, str, str]]:
    """(row, row, same appearance, same motion) of `n` pairs of clips; any pairs where the data have no such labels."""
    if not (hasattr(dataset, "appearance") and hasattr(dataset, "motion")):
        console.note(f"data set '{dataset.name}' has no labels of appearance and motion: any pairs")
        a, b = draw_pairs(dataset, n, on.seed, on.split, "any")
        return [(i, j, "?", "?") for i, j in zip(a.tolist(), b.tolist(), strict=True)]
    rows = dataset.rows_of(on.split)
    draw = torch.Generator(device=rows.device).manual_seed(on.seed)
    appearance, motion = dataset.appearance(rows), dataset.motion(rows)
    pairs: list[tuple[int, int, str, str]] = []
    for k, cell in enumerate([list(CELLS)[k] for k in (1, 2, 3, 0)]):
        one = cell_pairs(appearance, motion, CELLS[cell], len(range(k, n, 4)), draw)
        same_appearance, same_motion = ("yes" if same else "no" for same in CELLS[cell])
        first, second = (rows[p].tolist() for p in one)
        pairs += [(i, j, same_appearance, same_motion) for i, j in zip(first, second, strict=True)]
    return pairs


def generate(
    on: Annotated[OnRows, Without("data", "data_dir", "split")],
    look: Look = Look(),
    fix: Annotated[
        Literal["f", "z", "none"],
        typer.Option(
            "--fix", help="f: one clip's appearance, motions from the prior; z: the reverse; none: both drawn."
        ),
    ] = "none",
    n: Annotated[int, typer.Option("--n", help="How many clips.", min=1, max=10_000)] = 8,
    row: Annotated[
        int | None, typer.Option("--row", help="The clip whose code is fixed; default: a test clip.")
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="Frames to draw z for.", min=1, max=10_000)] = None,
) -> None:
    """Draw new clips, with the appearance (f) or the motion (z) of a given clip kept.

    Example: distk dsvae generate runs/dsvae --fix f --n 8 --seed 1 --out motions.png
    """
    model, dataset, static, moving = _clips(on)
    if fix == "none" and row is not None:
        raise UsageError("--row names the clip whose code is kept: add --fix f or --fix z.")
    if fix == "z" and frames is not None:
        raise UsageError("--fix z keeps a clip's own frames, so --frames cannot be chosen.")
    target = beside(on.path, on.out, f"generated-{fix}.png", *forms(model)[1:])
    draw = torch.Generator(device=dataset.device).manual_seed(on.seed)
    with torch.no_grad():
        code = _drawn(model, n, draw, frames)
        given: int | None = None
        if fix != "none":
            rows = on.rows(dataset, 1) if row is None else _checked(dataset, [row])
            given = int(rows[0])
            kept = model.encode(dataset.batch(rows)["x"])
            code |= {name: kept[name].expand(n, *kept[name].shape[1:]) for name in (static if fix == "f" else moving)}
        items = model.decode(code)
    files = present(model, items, target, min(n, 8), title=titled(on.header))
    on.report(files, fix=fix, row=given, n=n, frames=items.shape[1])


def _drawn(model: Method, n: int, draw: Any, frames: int | None) -> Code:
    """Codes from the prior, over another number of frames where one is asked for."""
    if not isinstance(model, DSVAE):
        if frames is not None:
            raise UsageError("only dsvae draws clips of another length; leave --frames out.")
        return model.prior(n, draw)
    if frames is not None and model.config.prior == "standard":
        console.warn(
            "the standard prior draws every frame by itself: there is no model of the motion (train --prior learned)"
        )
    return model.prior(n, draw, frames)


def judge_train(
    out: Annotated[Path, typer.Option("--out", "-o", help="The judge's file.")] = Path("judge.safetensors"),
    data: Annotated[str, typer.Option("--data", help="Data set of labelled clips.")] = "sprites-sim",
    data_dir: DataDir = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = 2000,
    batch: Annotated[int, typer.Option("--batch", min=2, help="Clips per batch.")] = 64,
    lr: Annotated[float, typer.Option("--lr", help="Largest learning rate of Adam.")] = 1e-3,
    width: Annotated[int, typer.Option("--width", min=4, max=512, help="Channels of the first convolution.")] = 64,
    size: Annotated[int | None, typer.Option("--size", help="Side of the frames, for --data sprites-sim.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a classifier of motion and attributes on real clips and measure it on the test split.

    Its accuracy stands in its file; `distk eval --metric disagreement --set judge=FILE` wants 0.99 of every head.

    Example: distk dsvae judge --data sprites-sim --out judge.safetensors
    """
    if not 0 < lr < 1:
        raise UsageError(f"--lr {lr} must lie between 0 and 1.")
    if not out.parent.is_dir():
        raise UsageError(f"--out '{out}': the folder '{out.parent}' does not exist.")
    options = {} if size is None else {"size": size}
    dataset = open_dataset(data, options, device=choose_device(device), folder=str(data_dir) if data_dir else None)
    console.note(f"data {dataset.name}: {dataset.origin}")
    try:
        judge = train_judge(dataset, steps, batch, lr, width, seed)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    FILE.save(judge, out)
    if json:
        console.emit_json({"file": str(out), "accuracy": judge.info.accuracy, "steps": steps})
    else:
        console.table("accuracy on the test split", ["head", "accuracy"], list(judge.info.accuracy.items()))
        console.say(out)
    if min(judge.info.accuracy.values()) < REQUIRED:
        console.warn(
            f"some head is below {REQUIRED}, so `disagreement` will refuse this judge: train with more --steps"
        )
