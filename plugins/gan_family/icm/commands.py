"""`distk icm ...`: use the experts of an `icm` model, and look at them. Taking sets of them apart: assembly.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from distk import console
from distk import images as pictures
from distk.commands.arguments import Seed
from distk.commands.shared import Look, OnData, OnModel, choose_rows, titled
from distk.device import seeded
from distk.errors import DistkError, UsageError
from distk.look import chosen as chosen_look
from distk.look import formed
from distk.options import Without
from distk.pictures import plain
from distk.plugins.gan_family.icm.mechanisms import Mixture, parse
from distk.plugins.gan_family.icm.method import ICM
from distk.plugins.gan_family.icm.metrics import best_shift, observe, specialisation
from distk.sheet import Sheet

LARGEST = 8_000_000
"""Pixels of an image that an expert is applied to; its activations take some hundred bytes per pixel."""

Replica = Annotated[int, typer.Option("--replica", help="Which of the replicas trained side by side.", min=0)]
Mechanism = Annotated[
    str | None,
    typer.Option(help="Transform the images first: a mechanism such as right:2, or `mixture` for the model's own."),
]


def apply(
    on: OnData,
    look: Look = Look(),
    images: Annotated[Path | None, typer.Option(help="An image, or a folder of images, of any size.")] = None,
    expert: Annotated[str, typer.Option(help="Number of an expert, or `winner`.")] = "winner",
    mechanism: Mechanism = None,
    channels: Annotated[
        int | None, typer.Option(help="1 turns colour images grey for a model of grey ones.", min=1, max=1)
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many images of a data set.", min=1, max=10_000)] = 16,
    replica: Replica = 0,
    seed: Seed = 0,
) -> None:
    """Put images through one expert, or each through the one that wins it.

    A single expert takes any size; the winner is chosen by the discriminator, which takes the trained size. Results go
    into the folder --out; default: `experts` beside the checkpoint. Images of --images stay images, as PNG.

    Example: distk icm apply runs/my-run --images scans/ --expert 3 --out cleaned/
    """
    model = with_experts(on, replica)
    chosen = _number(model, expert)
    folder = on.out if on.out is not None else on.path.parent / "experts"
    if images is None:
        results = _applied_to_data(on, model, folder, chosen, mechanism, n, seed)
    elif on.data is not None:
        raise UsageError("give --images or --data, not both.")
    elif chosen_look().suffix not in ("", ".png") or chosen_look().dpi:
        raise UsageError("what becomes of --images is PNG of the same size: leave out --format and --dpi.")
    else:
        results = []
        for file, image in _read_all(images, model.spec.shape[0], channels):
            moved = _transform(model, image.unsqueeze(0).to(model.device), mechanism, seed)
            outputs, winners = _through(model, moved, chosen, str(file))
            inside = file.relative_to(images).parent if images.is_dir() else Path()
            make_folder(folder / inside)
            target = folder / inside / f"{file.stem}.expert{winners[0]}.png"
            pictures.save_png(target, outputs[0])
            results.append({"image": str(file), "expert": winners[0], "file": str(target)})
    files = [Path(name) for name in dict.fromkeys(str(result["file"]) for result in results)]
    on.report(files, results=results)


def _applied_to_data(
    on: OnData, model: ICM, folder: Path, chosen: int | None, mechanism: str | None, n: int, seed: int
) -> list[dict[str, Any]]:
    """One picture of `n` images of the data set above what the experts make of them; a result per image."""
    dataset = on.dataset()
    rows = choose_rows(dataset, n, seed, "test")
    moved = _transform(model, dataset.batch(rows)["x"], mechanism, seed)
    outputs, winners = _through(model, moved, chosen, f"data set '{dataset.name}'")
    make_folder(folder)
    target = folder / formed(f"{dataset.name}.expert{'s' if chosen is None else chosen}.png")
    pairs = torch.cat([moved, outputs], 2)  # each image above its output
    Sheet(pictures.enlarge(pairs), min(len(rows), 16), captions=[f"expert {winner}" for winner in winners]).write(
        target
    )
    return [
        {"row": row, "expert": winner, "file": str(target)} for row, winner in zip(rows.tolist(), winners, strict=True)
    ]


def grid(
    on: OnData,
    look: Look = Look(),
    mechanism: Mechanism = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Images, one per column.", min=1, max=100)] = 12,
    replica: Replica = 0,
    seed: Seed = 0,
) -> None:
    """Draw what every expert makes of the same images: a row per expert, a column per image (Figure 2).

    Also says which whole shift, in pixels, comes closest to what each expert does.

    Example: distk icm grid runs/my-run --data strokes28
    """
    model = with_experts(on, replica)
    dataset = on.dataset()
    x = dataset.batch(choose_rows(dataset, n, seed, "test"))["x"]
    moved = _transform(model, x, mechanism, seed)
    with torch.no_grad():
        outputs = model.experts(moved)[:, _shown(model)]
    shifts = [best_shift(moved, outputs[:, j], model.config.depth + 1) for j in range(model.number)]
    rows = torch.cat([moved.unsqueeze(1), outputs], 1).transpose(0, 1).flatten(0, 1)
    big = pictures.enlarge(rows)
    labels = ["input", *(f"expert {j}" for j in range(model.number))]
    target = on.target("experts.png")
    Sheet(big, len(moved), rows=labels, title=titled(on.header, f"replica {replica}" if replica else "")).write(target)
    if not on.json:
        named = "; ".join(f"{j}: right {dx}, down {dy}" for j, (dx, dy) in enumerate(shifts))
        console.note(f"closest shift of each expert, in pixels: {named}")
    on.report([target], shifts=[{"expert": j, "right": s[0], "down": s[1]} for j, s in enumerate(shifts)])


def experts(
    on: Annotated[OnModel, Without("out")],
    images: Annotated[int, typer.Option(help="Test images to compete for.", min=1)] = 1000,
    replica: Replica = 0,
    seed: Seed = 0,
) -> None:
    """List the experts: what share of the mixture each wins, and which mechanism it is matched to.

    Example: distk icm experts runs/my-run --json
    """
    found = census(with_experts(on, replica), images, seed)
    if on.json:
        console.emit_json({"experts": found})
        return
    rows = [
        (
            e["expert"],
            f"{e['win_share']:.1%}",
            e["mechanism"] or "-",
            f"{e['mechanism_share']:.1%}" if e["mechanism"] else "-",
        )
        for e in found
    ]
    console.table("", ["expert", "wins of all", "matched mechanism", "wins of it"], rows)


# Models and images


def with_experts(on: OnModel, replica: int) -> ICM:
    """The model of method icm that `on` names, showing one of its replicas."""
    model = on.open().of(ICM, "icm")
    if replica >= model.replicas:
        raise UsageError(f"--replica {replica}: '{on.path}' holds the replicas 0 to {model.replicas - 1}.")
    model.shown = replica
    return model


def _shown(model: ICM) -> slice:
    """The shown replica's experts on the axis of all experts."""
    return slice(model.shown * model.number, (model.shown + 1) * model.number)


def _number(model: ICM, text: str) -> int | None:
    """None stands for the winner."""
    if text == "winner":
        return None
    if not text.isdecimal() or int(text) >= model.number:
        raise UsageError(f"--expert '{text}' is neither `winner` nor a number from 0 to {model.number - 1}.")
    return int(text)


def _transform(model: ICM, x: Tensor, mechanism: str | None, seed: int) -> Tensor:
    """Images under a mechanism, under the model's mixture (mechanisms taking turns), or as they are."""
    if mechanism is None:
        return x
    try:
        mixture = model.mixture if mechanism == "mixture" else Mixture(parse([mechanism])).to(x.device)
    except ValueError as error:
        raise UsageError(f"--mechanism: {error}.") from error
    which = torch.arange(len(x), device=x.device) % len(mixture)
    return mixture(x, which, torch.randn(x.shape, generator=seeded(seed, x.device), device=x.device))


def _through(model: ICM, x: Tensor, chosen: int | None, where: str) -> tuple[Tensor, list[int]]:
    """Outputs like x, and which expert made each."""
    with torch.no_grad():
        if chosen is not None:
            return model.expert(chosen)(x)[:, 0], [chosen] * len(x)
        if tuple(x.shape[1:]) != tuple(model.spec.shape):
            raise UsageError(
                f"{where} has images of {x.shape[-2]}x{x.shape[-1]} pixels; the winner is chosen by a discriminator "
                f"of {model.spec.shape[1]}x{model.spec.shape[2]}: choose one expert with --expert N."
            )
        restored, winner = model.restore(x)
        return restored[:, model.shown], winner[:, model.shown].tolist()


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it. Raises DistkError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DistkError(f"cannot make the folder '{folder}': {error.strerror or error}.") from error


def _read_all(path: Path, model_channels: int, asked: int | None) -> Iterator[tuple[Path, Tensor]]:
    suffixes = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
    if path.is_file():
        files = [path]
    else:
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not files:
        raise UsageError(f"--images '{path}' is no image and no folder with images.")
    for file in files:
        yield file, _read(file, model_channels, asked)


def _read(path: Path, model_channels: int, asked: int | None) -> Tensor:
    """Float `[channels, h, w]` in [0, 1].

    Raises UsageError for colour where the model takes grey, DistkError for a file that is no sound image.
    """
    (array,) = plain([(path, str(path))], "RGB")
    if array.shape[0] * array.shape[1] > LARGEST:
        height, width = array.shape[:2]
        raise DistkError(f"'{path}' has {width}x{height} pixels; at most {LARGEST:,} are taken.")
    values = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255
    if model_channels != 1:
        return values
    if bool((values == values[:1]).all()):
        return values[:1]
    if asked is None:
        raise UsageError(f"'{path}' is in colour and the model takes grey images: add --channels 1.")
    return (values * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)


def census(model: ICM, images: int, seed: int) -> list[dict[str, Any]]:
    """What each expert of the shown replica wins on test images, and which mechanism it undoes."""
    with torch.no_grad():
        seen = observe(model, model.dataset(), images, seed, None)
    winner = seen["winner"][:, model.shown : model.shown + 1]
    matching = specialisation(winner, seen["mechanism"], len(model.mixture), model.number)
    shares, expert_of = matching["win_matrix"][0], matching["expert_of"][0].tolist()
    experts = []
    for j in range(model.number):
        k = expert_of.index(j) if j in expert_of else None
        if k is not None and shares[k, j] == 0:  # the assignment fills up with experts that win nothing
            k = None
        experts.append(
            {
                "expert": j,
                "win_share": float((winner[:, 0] == j).double().mean()),
                "mechanism": model.mixture.mechanisms[k].name if k is not None else "",
                "mechanism_share": float(shares[k, j]) if k is not None else 0.0,
                "shares": {m.name: float(s) for m, s in zip(model.mixture.mechanisms, shares[:, j], strict=True)},
            }
        )
    return experts
