"""`distk traverse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from distk import console, images
from distk.commands.arguments import Start
from distk.commands.shared import Look, OnRows, class_words, scaled, titled
from distk.errors import UsageError
from distk.method import Method
from distk.sheet import Sheet
from distk.traversal import Known, Row, Traversal, known_of
from distk.traversal import traverse as walk


def traverse(
    on: OnRows,
    look: Look = Look(),
    row: Annotated[
        int | None, typer.Option(help="Row of the item to start from; default: drawn by --seed.", min=0)
    ] = None,
    columns: Annotated[int, typer.Option(help="Values per latent.", min=2, max=100)] = 10,
    span: Annotated[
        str | None, typer.Option(help="Lowest and highest value, LOW:HIGH; default: each latent's own.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Only the so many most informative latents.", min=1)] = None,
    start: Start = None,
    gif: Annotated[bool, typer.Option("--gif/--no-gif", help="Also write a GIF that sweeps all latents.")] = True,
) -> None:
    """Draw what each latent does: a row per latent, the most informative first, a block per class of a discrete code.

    Example: distk traverse runs/my-run --columns 12 --span=-3:3
    """
    model = on.open("traverse", "decode").model
    known = Known()
    batch, at = None, None
    if on.starts_at_data(start, "traverse", row=row):
        dataset = on.dataset()
        chosen = on.rows(dataset, 1) if row is None else torch.tensor([on.one_of(dataset, row, "--row")])
        known = known_of(model, dataset)
        batch, at = dataset.items(chosen.to(dataset.device)), int(chosen[0])
    made = walk(model, batch, columns, known=known, span=_span(span), top=top, seed=on.seed)
    target = on.target("traversal.png")
    if model.spec.kind == "sentence":
        lines = {f"{r.block} {r.label}".strip(): model.text(r.items) for r in made.rows}
        if on.json:
            on.report([], row=at, rows=lines)
        for label, sentences in lines.items() if not on.json else []:
            console.say(label + "".join(f"\n  {s}" for s in dict.fromkeys(sentences)))
        return
    files = draw(model, made, target, gif, titled(on.header, on.model.spec.kind if at is None else f"row {at}"))
    on.report(
        files,
        row=at,
        kl=known.kl,
        values=made.values,
        rows=[f"{r.block} {r.label}".strip() for r in made.rows],
    )


def _block(model: Method, block: str) -> str:
    """A block of a traversal, such as `d=2`, by the name of its class."""
    group, _, number = block.partition("=")
    return class_words(model, group, [int(number)])[0] if number.isdigit() else block


def _beneath(model: Method, row: Row, columns: int) -> list[str]:
    """What stands below the pictures of a row: its values, or the classes that it shows."""
    if row.values:
        words = [f"{value:.2g}" for value in row.values]
    else:
        group, _, span = row.label.rpartition(" ")
        first, _, last = span.partition("..")
        words = class_words(model, group, range(int(first), int(last) + 1)) if last.isdigit() else []
    return [*words, *[""] * (columns - len(words))]


def _span(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        span = (float(low), float(high))
    except ValueError:
        raise UsageError(f"--span '{text}' is not understood; write LOW:HIGH, for example --span=-3:3.") from None
    if not span[0] < span[1]:
        raise UsageError(f"--span '{text}': the first value must be below the second.")
    return span


def draw(model: Method, made: Traversal, target: Path, gif: bool, title: str = "") -> list[Path]:
    """Write the grid as a picture, and the sweep as GIF: each frame shows all latents at one value (or a clip playing).

    Values stand above the columns where all latents run through the same ones, else below each picture.
    """

    def still(items: Tensor) -> Tensor:
        """`[n, (t,) c, h, w]` in [0, 1], enlarged; of clips the middle frame."""
        items = scaled(model, items)
        return images.enlarge(items[:, items.shape[1] // 2] if items.dim() == 5 else items)

    if made.reconstruction.dim() not in (3, 4):
        raise UsageError(f"a traversal of {model.spec.kind} data has no picture; use --json.")
    columns = made.columns
    head = torch.stack([made.reconstruction] if made.input is None else [made.input, made.reconstruction])
    parts = [still(row.items) for row in made.rows]
    top = torch.ones((columns, *still(head).shape[1:]))
    top[: len(head)] = still(head).cpu()
    labels = [
        "a draw" if made.input is None else "input, reconstruction",
        *(f"{_block(model, row.block)}  {row.label}".strip() for row in made.rows),
    ]
    runs = {tuple(f"{value:.2g}" for value in row.values) for row in made.rows if row.values}
    shared: list[str] = list(*runs) if len(runs) == 1 and all(row.values for row in made.rows) else []
    beneath = [["", *([""] * (columns - 1))], *(_beneath(model, row, columns) for row in made.rows)]
    sheet = Sheet(
        torch.cat([top, *(p.cpu() for p in parts)]),
        columns,
        rows=labels,
        heads=shared,
        captions=[] if shared else [text for row in beneath for text in row],
        title=title,
    )
    sheet.write(target)
    if not gif:
        return [target]
    movie = target.with_suffix(".gif")
    wide = max(1, round(len(parts) ** 0.5))
    if made.reconstruction.dim() == 4:
        clips = torch.stack([row.items[i] for row in made.rows for i in (0, columns // 2, columns - 1)])
        images.save_gif(movie, images.film(images.enlarge(scaled(model, clips)), 3), 0.15)
    else:
        there_and_back = [*range(columns), *range(columns - 2, 0, -1)]
        frames = [images.grid(torch.stack([p[i] for p in parts]), wide) for i in there_and_back]
        images.save_gif(movie, torch.stack(frames), 0.12)
    return [target, movie]
