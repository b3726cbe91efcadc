"""`distk mvae ...`: scenes as sets of objects: build, klmap, count, swap, traverse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from distk import CodeTable, console
from distk.checkpoint import Header
from distk.commands.shared import Look, OnData, OnRows, titled
from distk.config import from_dict
from distk.console import counted
from distk.errors import UsageError
from distk.files import write_atomic
from distk.nn import kl_to_prior
from distk.plugins.vae_family.mvae.figures import draw, images_of, read_image
from distk.plugins.vae_family.mvae.method import MVAE, Objects
from distk.plugins.vae_family.mvae.metrics import CountConfig, ObjectCount, peaks
from distk.plugins.vae_family.mvae.slots import build_up

Scenes = Annotated[int, typer.Option("--n", "-n", help="How many scenes.", min=1, max=100)]
Image = Annotated[Path | None, typer.Option("--image", help="A picture of one's own instead, of the model's size.")]


def swap(
    on: OnRows,
    look: Look = Look(),
    pairs: Annotated[int, typer.Option(help="How many random pairs, without --a and --b.", min=1, max=100)] = 8,
    rank: Annotated[int, typer.Option(help="Which object, 0 being the one with the largest KL.", min=0)] = 0,
    a_slot: Annotated[int | None, typer.Option(help="Object of A; default: --rank.", min=0)] = None,
    b_slot: Annotated[int | None, typer.Option(help="Object of B; default: --rank.", min=0)] = None,
    a: Annotated[int | None, typer.Option("--a", help="Row of scene A.", min=0)] = None,
    b: Annotated[int | None, typer.Option("--b", help="Row of scene B.", min=0)] = None,
    a_image: Annotated[Path | None, typer.Option(help="A picture as scene A.")] = None,
    b_image: Annotated[Path | None, typer.Option(help="A picture as scene B.")] = None,
) -> None:
    """Exchange an object between scenes: inputs A and B, both reconstructions, A with B's object, B with A's object.

    `distk swap --group object1` is the same for one rank, in the generic layout.

    Example: distk mvae swap runs/my-run --pairs 8 --rank 0
    """
    model = on.open().of(MVAE, "mvae")
    asked = (("--a-slot", a_slot), ("--b-slot", b_slot))
    i, j = (_slot(model, *(("--rank", rank) if slot is None else (name, slot))) for name, slot in asked)
    rows: list[list[int]] = []
    if a_image is not None or b_image is not None:
        if a_image is None or b_image is None or a is not None or b is not None:
            raise UsageError("give both --a-image and --b-image, without --a and --b.")
        x_a, x_b = (read_image(file, model) for file in (a_image, b_image))
    else:
        dataset = on.dataset()
        both = on.pairs(dataset, a, b, pairs)
        rows = both.tolist()
        x_a, x_b = (images_of(dataset, both[:, k]) for k in (0, 1))
    with torch.no_grad():
        images = (x_a, x_b, *exchange(model, x_a, x_b, i, j))
    names = ("input A", "input B", "A again", "B again", f"A with B's {j}", f"B with A's {i}")
    target = on.target("objects.png")
    draw(target, dict(zip(names, images, strict=True)), titled(on.header))
    on.report([target], rows=rows, a_slot=i, b_slot=j)


def exchange(model: MVAE, x_a: Tensor, x_b: Tensor, i: int, j: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images `[n, c, s, s]` -> reconstructions of A and B, A with object j of B for its i, B with i of A for its j."""
    z_a, z_b = model.objects(x_a).mean, model.objects(x_b).mean
    mixed_a, mixed_b = z_a.clone(), z_b.clone()
    mixed_a[:, i], mixed_b[:, j] = z_b[:, j], z_a[:, i]
    first, second, third, fourth = (model.logits(z).sigmoid() for z in (z_a, z_b, mixed_a, mixed_b))
    return first, second, third, fourth


def build(
    on: OnRows,
    look: Look = Look(),
    steps: Annotated[int | None, typer.Option(help="Up to so many objects; default: all.", min=1)] = None,
    n: Scenes = 8,
    over: Annotated[int, typer.Option(help="Scenes to average the errors over; 0 for none.", min=0)] = 500,
    image: Image = None,
) -> None:
    """Decode scenes from their 1, 2, ... objects with the largest KL (Figure 4), and measure what each one adds.

    Example: distk mvae build runs/my-run --steps 3
    """
    model = on.open().of(MVAE, "mvae")
    last = model.slots if steps is None else steps
    if last > model.slots:
        raise UsageError(f"--steps {last}: the model has {counted(model.slots, 'object')}.")
    dataset = on.dataset() if image is None or over else None
    if image is not None:
        x = read_image(image, model)
    else:
        assert dataset is not None
        x = images_of(dataset, on.rows(dataset, n))
    with torch.no_grad():
        features = model.features(model.objects(x).mean)
        images = [model.render(model.pool(features[:, : k + 1])).sigmoid() for k in range(last)]
    target = on.target("build.png")
    labels = [counted(k + 1, "object") for k in range(last)]
    draw(target, {"input": x, **dict(zip(labels, images, strict=True))}, titled(on.header))
    errors: dict[str, Any] = {}
    if dataset is not None and over:
        split = dataset.rows(on.split)
        total = len(dataset) if split is None else len(split)
        errors = build_up(model, dataset, on.rows(dataset, min(over, total)))
        if not on.json:
            console.table(
                "", ("objects", "nats above the floor"), [(k + 1, float(e)) for k, e in enumerate(errors["excess"])]
            )
            if "change" in errors:
                console.note(f"change of the error from k = count on: {errors['change']:.1%}")
    on.report([target], **errors)


def traverse(
    on: OnRows,
    look: Look = Look(),
    slot: Annotated[int, typer.Option(help="Which object, 0 being the one with the largest KL.", min=0)] = 0,
    dims: Annotated[str, typer.Option(help="`all`, or numbers from 0: 0,3,5.")] = "all",
    range_: Annotated[str, typer.Option("--range", help="Lowest and highest value, LOW:HIGH.")] = "-2.25:2.25",
    steps: Annotated[int, typer.Option(help="Values per dimension.", min=2, max=100)] = 7,
    row: Annotated[int | None, typer.Option(help="Row of the scene; default: drawn by --seed.", min=0)] = None,
    image: Image = None,
) -> None:
    """Move each dimension of one object while the others stay at their posterior means: a row per dimension.

    Example: distk mvae traverse runs/my-run --slot 0 --range=-2.25:2.25 --steps 7
    """
    model = on.open().of(MVAE, "mvae")
    _slot(model, "--slot", slot)
    chosen, (low, high) = _dims(dims, model.dims), _range(range_)
    if image is not None:
        x = read_image(image, model)
    else:
        dataset = on.dataset()
        if row is not None and row >= len(dataset):
            raise UsageError(f"--row {row} is outside the data set's rows 0 to {len(dataset) - 1}.")
        x = images_of(dataset, on.rows(dataset, 1) if row is None else torch.tensor([row]))
    values = torch.linspace(low, high, steps, device=x.device)
    with torch.no_grad():
        objects = model.objects(x)
        nats = kl_to_prior(objects.mean, objects.logvar)[0, slot].tolist()
        sheet = {}
        for d in chosen:
            z = objects.mean.repeat(steps, 1, 1)
            z[:, slot, d] = values
            sheet[f"{d}  KL {nats[d]:.2f}"] = model.logits(z).sigmoid()
        head = torch.full((steps, *x.shape[1:]), 0.35, device=x.device)
        head[:2] = torch.cat([x, model.logits(objects.mean).sigmoid()])
    target = on.target(f"slot{slot}.png")
    draw(target, {"input, again": head, **sheet}, titled(on.header), [f"{value:.2g}" for value in values.tolist()])
    on.report([target], slot=slot, dims=chosen, values=values, kl=[nats[d] for d in chosen])


def klmap(on: OnRows, look: Look = Look(), n: Scenes = 8, image: Image = None) -> None:
    """Show where the objects are: input, KL of every cell, the cells that are kept, reconstruction.

    After `distk mvae count` it also says how many objects each scene has by the threshold found there.

    Example: distk mvae klmap runs/my-run --n 8
    """
    model = on.open().of(MVAE, "mvae")
    if image is not None:
        x = read_image(image, model)
    else:
        dataset = on.dataset()
        x = images_of(dataset, on.rows(dataset, n))
    grid, size = model.config.grid, model.spec.shape[-1]
    with torch.no_grad():
        objects = model.objects(x)
        again = model.logits(objects.mean).sigmoid()
    kl = objects.map.view(-1, 1, grid, grid)
    kept = torch.zeros_like(objects.map).scatter_(1, objects.cells, 1.0).view_as(kl)
    shades = [F.interpolate(part, size=(size, size)).expand(-1, 3, -1, -1) for part in (kl / kl.max(), kept)]
    target = on.target("klmap.png")
    seen = x.expand(-1, 3, -1, -1)
    rows = {"input": seen, f"KL, 0 to {float(kl.max()):.1f} nats": shades[0], "kept": 0.6 * seen + 0.4 * shades[1]}
    draw(target, {**rows, "again": again.expand(-1, 3, -1, -1)}, titled(on.header))
    counts = _counts(on.path, on.header, objects)
    if counts is not None and not on.json:
        console.say(f"objects counted: {', '.join(map(str, counts))}")
    cells = [[divmod(c, grid) for c in row] for row in objects.cells.tolist()]
    on.report([target], kl=kl[:, 0], cells=cells, counts=counts)


def _counts(path: Path, header: Header, objects: Objects) -> list[int] | None:
    """Counts by the threshold that `distk mvae count` stored for this checkpoint, if it did."""
    try:
        stored = json.loads(path.with_name(f"{path.stem}.count.json").read_text())
        if stored["step"] != header.step:
            return None
        kl = objects.kl if stored["scope"] == "slots" else peaks(objects.map) if stored["nms"] else objects.map
        return (kl > float(stored["threshold"])).sum(1).tolist()
    except (OSError, ValueError, KeyError, TypeError):
        return None


def count(
    on: OnData,
    train: Annotated[int, typer.Option(help="At most so many train scenes, for the threshold.", min=1)] = 6400,
    test: Annotated[int, typer.Option(help="At most so many test scenes.", min=1)] = 12_800,
    scope: Annotated[Literal["map", "slots"], typer.Option(help="Count among all cells, or the kept ones.")] = "map",
    nms: Annotated[bool, typer.Option("--nms", help="Count only cells that are not below a neighbour.")] = False,
) -> None:
    """Count objects as the cells with a KL above a threshold, chosen on train scenes and tested on others.

    The threshold belongs to this checkpoint and is kept beside it, as <checkpoint>.count.json, with the step.

    Example: distk mvae count runs/my-run --scope map
    """
    model = on.open().of(MVAE, "mvae")
    dataset = on.dataset()
    settings = {"scope": scope, "nms": nms, "train": train, "test": test}
    metric = ObjectCount(from_dict(CountConfig, settings, "count"))
    names = model.latents.columns
    table = CodeTable(torch.zeros(0, len(names)), names, model.latents.column_kinds, model=model, dataset=dataset)
    result = console.jsonable(dict(metric.compute(table, 0)))
    target = on.target("count.json")
    held = {**result, "scope": scope, "nms": nms, "step": on.header.step, "data": dataset.origin}
    write_atomic(target, (json.dumps(held, indent=2) + "\n").encode())
    if on.json:
        console.emit_json({"file": str(target), **held})
        return
    keys = ("threshold", "train_accuracy", "accuracy", "majority", "bias")
    console.table("", ("", "value"), [(key.replace("_", " "), result[key]) for key in keys])
    confusion = result["confusion"]
    columns = ["objects", *(f"said {k}" for k in range(len(confusion))), "more"]
    console.table("", columns, [(k, *row) for k, row in enumerate(confusion)])
    console.say(target)


def _slot(model: MVAE, name: str, slot: int) -> int:
    if slot >= model.slots:
        raise UsageError(f"{name} {slot}: the model's objects are 0 to {model.slots - 1}.")
    return slot


def _dims(text: str, size: int) -> list[int]:
    if text == "all":
        return list(range(size))
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < size for part in parts):
        raise UsageError(f"--dims '{text}': write `all`, or numbers from 0 to {size - 1} such as 0,3.")
    return [int(part) for part in parts]


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        span = (float(low), float(high))
    except ValueError:
        raise UsageError(f"--range '{text}' is not understood; write LOW:HIGH, for example --range=-2:2.") from None
    if not -1e6 < span[0] < span[1] < 1e6:
        raise UsageError(f"--range '{text}': the first value must be below the second, both finite.")
    return span
