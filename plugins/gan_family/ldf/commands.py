"""`distk ldf ...`: shortcut, pieces, judge, memory. The race against the clock: race.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from distk import choose_device, console, open_dataset, seeded
from distk.commands.arguments import DataDir, Device, Json, Seed
from distk.commands.shared import Look, OnModel, OnRows, present, titled
from distk.commands.shared import report as told
from distk.console import counted
from distk.errors import UsageError
from distk.files import write_atomic
from distk.plugins.gan_family.ldf.figures import MEMORY, memory_figure
from distk.plugins.gan_family.ldf.judge import FILE, train_judge
from distk.plugins.gan_family.ldf.memory import usage
from distk.plugins.gan_family.ldf.method import LDF
from distk.plugins.gan_family.ldf.shared import Shared
from distk.study.tables import as_csv, write_figure

Folder = Annotated[Path, typer.Option("--out", "-o", help="Folder for the table and the figure; made where needed.")]


def shortcut(
    on: OnRows,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", "-n", help="How many items.", min=1, max=1000)] = 10,
) -> None:
    """Draw the same items three times: as they are, through their codes, through the encoder's last hidden layer.

    Good pictures in the third row say nothing about the codes: the shortcut goes around them.

    Example: distk ldf shortcut runs/my-run -n 10
    """
    model = on.open().of(LDF, "ldf")
    dataset = on.dataset()
    with torch.no_grad():
        x = dataset.batch(on.rows(dataset, n))["x"]
        coded, around = model.decode(model.encode(x)), model.shortcut(x)
    rows = {"through the code": coded, "around the code": around}
    errors = {name: float((made - x).square().mean()) for name, made in rows.items()}
    if x.dim() == 5:  # three rows of frames per clip
        clips, names = torch.stack([x, coded, around], 1).flatten(0, 1), ["item", *rows] * len(x)
        files = present(model, clips, on.shown("shortcut"), 3, rows=names, title=titled(on.header))
    else:
        names, made = ["item", *rows], torch.cat([x, coded, around])
        files = present(model, made, on.shown("shortcut"), len(x), rows=names, title=titled(on.header))
    if not on.json:
        console.table("mean squared error per pixel", ("path", "error"), list(errors.items()))
    on.report(files, mse=errors)


def pieces(
    on: OnModel,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", "-n", help="How many pieces.", min=1, max=10_000)] = 64,
    seed: Seed = 0,
) -> None:
    """Draw single pieces from the lower level alone: patches, or frames that belong to no clip.

    They are as good as the codes' distribution is close to the standard normal (`distk eval --metric prior-mmd`).
    Whole items do not depend on it: the upper level makes codes as the encoder gives them.

    Example: distk ldf pieces runs/my-run -n 36
    """
    model = on.open().of(LDF, "ldf")
    with torch.no_grad():
        made = model.loose_pieces(n, seeded(seed, next(model.parameters()).device))
    on.report(present(model, made, on.shown("pieces"), max(1, round(n**0.5)), title=titled(on.header)))


def judge(
    data: Annotated[str, typer.Option(help="Data set of labelled images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the judge; must not exist yet.")],
    steps: Annotated[int, typer.Option(help="Steps of 128 images.", min=1)] = 4000,
    width: Annotated[int, typer.Option(help="Channels of the first convolution.", min=1, max=1024)] = 64,
    data_dir: DataDir = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train the classifier that the scores `classifier-score` and `frechet` ask, and keep it in a file.

    Without a file these scores train one for themselves; a file spares the time, and makes scores of several runs
    comparable: those by two judges are not.

    Example: distk ldf judge --data shapes32 --steps 2000 --width 32 --out judge.safetensors
    """
    if out.exists():
        raise UsageError(f"--out '{out}' exists already; choose another.")
    if not out.parent.is_dir():
        raise UsageError(f"--out '{out}': the folder '{out.parent}' does not exist.")
    dataset = open_dataset(data, device=choose_device(device), folder=data_dir)
    console.note(f"data {dataset.name}: {dataset.origin}")
    made = train_judge(dataset, steps, width, seed=seed)
    FILE.save(made, out)
    told([out], json, judge=made.fingerprint, accuracy=made.info.accuracy, temperature=made.info.temperature)
    if not json:
        console.note(f"judge {made.fingerprint}: right on {made.info.accuracy:.1%} of the test images")


def memory(
    out: Folder = Path("runs/ldf-memory"),
    frames: Annotated[str, typer.Option(help="Numbers of frames, separated by commas.")] = "5,20,80,320",
    side: Annotated[Literal["16", "32", "64"], typer.Option(help="Height and width of a frame.")] = "32",
    clips: Annotated[int, typer.Option(help="Clips in a batch of the joint GAN and of the upper level.", min=2)] = 16,
    pieces: Annotated[int, typer.Option(help="Frames in a batch of the lower level.", min=2)] = 16,
    width: Annotated[float, typer.Option(help="Factor on the networks' channels.", min=0.05, max=16)] = 1.0,
    match: Annotated[
        bool, typer.Option("--match/--no-match", help="Make the joint GAN as large as both levels, which grow, too.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
    look: Look = Look(),
) -> None:
    """Measure what one training step keeps for the way back: the joint GAN, the lower and the upper level.

    Counted are the bytes of all tensors that the graph saves, each storage once, without parameters; on a CUDA device
    also the peak beyond parameters and moments.

    Example: distk ldf memory --frames 5,10,20 --side 16 --clips 2 --pieces 8 --width 0.1
    """
    counts = _numbers(frames)
    target = choose_device(device)
    folder_of(out)
    rows = []
    with console.progress("measuring", len(counts)) as advance:
        for count in counts:
            found = usage(count, int(side), clips, pieces, Shared(width=width), match, target)
            for level, used in found.items():
                rows.append((count, level, used.saved, used.peak, used.parameters))
            advance(1)
    table = out / "memory.csv"
    write_atomic(table, as_csv(MEMORY, rows))
    picture = write_figure(out / "memory.png", memory_figure(rows))
    if not json:
        console.table(
            f"bytes kept by a step ({counted(clips, 'clip')}, {counted(pieces, 'frame')} for the lower level)",
            ("frames", "level", "MB kept", "MB peak", "parameters"),
            [(f, level, _mb(kept), _mb(peak), f"{trained:,}") for f, level, kept, peak, trained in rows],
        )
    told([table, picture], json, rows=[dict(zip(MEMORY, row, strict=True)) for row in rows])


def folder_of(out: Path) -> None:
    """Make the folder of `--out` where it is missing; before the work, which would be lost otherwise."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out '{out}' cannot be a folder: {error.strerror or error}; choose another.") from error


def _mb(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f}"


def _numbers(text: str) -> list[int]:
    """Whole numbers from 1 to 10,000, separated by commas, in order and each once."""
    try:
        found = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        found = []
    if not found or found[0] < 1 or found[-1] > 10_000:
        raise UsageError(f"--frames '{text}' is not understood; write whole numbers from 1 to 10000, as 5,20,80.")
    return found
