"""`distk jade ...`: content of one image in the style of another, and what each half of the code says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from distk import Code, Dataset, console, images, seeded
from distk.commands.arguments import Seed
from distk.commands.shared import Look, OnData, OnModel, titled
from distk.console import counted
from distk.errors import UsageError
from distk.evaluation import evaluate
from distk.files import write_atomic
from distk.look import formed
from distk.metric import contents
from distk.options import Without
from distk.plugins.vae_family.jade.method import Jade
from distk.plugins.vae_family.jade.metrics import ContentStyleVariance
from distk.sheet import Sheet
from distk.study.tables import as_csv

Role = Literal["primary", "secondary"]
Of = Annotated[str, typer.Option("--of", help="primary or secondary, or the data set's name.")]
On = Annotated[OnData, Without("data")]
SPLITS = "jade, which splits content from style"


def transfer(
    on: On,
    look: Look = Look(),
    content: Annotated[str, typer.Option(help="primary or secondary; or rows of it, as primary:12,40.")] = "primary",
    style: Annotated[str, typer.Option(help="The same for the style. Its data set's decoder draws.")] = "secondary",
    n: Annotated[int, typer.Option("--n", "-n", help="Random test images where no rows are named.", min=1)] = 8,
    seed: Seed = 0,
) -> None:
    """Draw every content image (a row each) in every style (a column each); the two may come from both data sets.

    Example: distk jade transfer runs/my-run --content primary:3,17 --style secondary
    """
    model, dataset = on.open().of(Jade, SPLITS), on.dataset()
    (content_of, content_rows), (style_of, style_rows) = (
        _chosen(dataset, text, n, seed + i) for i, text in enumerate((content, style))
    )
    a, b = _items(dataset, content_of, content_rows), _items(dataset, style_of, style_rows)
    with torch.no_grad():
        code_a, code_b = model.encode(a["x"]), model.encode(b["x"])
        pairs = {
            "content": code_a["content"].repeat_interleave(len(style_rows), 0),
            "style": code_b["style"].repeat(len(content_rows), 1),
        }
        mixed = decoded(model, pairs, style_of)
        right = float((model.classify(mixed).argmax(1) == a["label"].repeat_interleave(len(style_rows))).float().mean())
    sheet = torch.cat([_square(b["x"][:1]).new_full((1, 3, 32, 32), images.MARGIN), _square(b["x"])])
    for x, row in zip(_square(a["x"]), _square(mixed).split(len(style_rows)), strict=True):
        sheet = torch.cat([sheet, x[None], row])
    target = on.target("transfer.png")
    heads = ["", *(f"style {row}" for row in style_rows.tolist())]
    names = ["", *(f"content {row}" for row in content_rows.tolist())]
    title = titled(on.header, f"content of {content_of}, style of {style_of}")
    Sheet(images.enlarge(sheet), len(style_rows) + 1, rows=names, heads=heads, title=title).write(target)
    rows = {"content": {"of": content_of, "rows": content_rows.tolist()}}
    rows["style"] = {"of": style_of, "rows": style_rows.tolist()}
    on.report([target], **rows, class_kept=right)


def traverse(
    on: On,
    look: Look = Look(),
    part: Annotated[Literal["content", "style"], typer.Option(help="content or style.")] = "content",
    of: Of = "primary",
    row: Annotated[int | None, typer.Option(help="Row of the image to start from; default: drawn.", min=0)] = None,
    columns: Annotated[int, typer.Option(help="Values per latent.", min=2, max=100)] = 10,
    reach: Annotated[float, typer.Option(help="Values go from -REACH to REACH.", min=0.01)] = 2.0,
    seed: Seed = 0,
) -> None:
    """Draw what each dimension of one half of the code does, in images of either data set.

    Example: distk jade traverse runs/my-run --part style --of secondary
    """
    model, dataset = on.open().of(Jade, SPLITS), on.dataset()
    role, rows = _chosen(dataset, of if row is None else f"{_role(dataset, of)}:{row}", 1, seed)
    x = _items(dataset, role, rows)["x"]
    values = torch.linspace(-reach, reach, columns, device=x.device)
    with torch.no_grad():
        base = model.encode(x)
        sheet = [_square(x), _square(decoded(model, base, role))]
        sheet.append(sheet[0].new_full((columns - 2, 3, 32, 32), images.MARGIN))
        size = model.latents[part].size
        for i in range(size):
            moved = {name: value.expand(columns, -1).clone() for name, value in base.items()}
            moved[part][:, i] = values
            sheet.append(_square(decoded(model, moved, role)))
    target = on.target(f"traverse-{part}.png")
    labels = ["input, reconstruction", *(f"{part}{i + 1}" for i in range(size))]
    big = images.enlarge(torch.cat(sheet))
    heads = [f"{value:.2g}" for value in values.tolist()]
    Sheet(big, columns, rows=labels, heads=heads, title=titled(on.header, f"{role} row {int(rows[0])}")).write(target)
    on.report([target], of=role, row=int(rows[0]), values=values.tolist())


def sample(
    on: OnModel,
    look: Look = Look(),
    class_: Annotated[str | None, typer.Option("--class", help="Name of a class; default: a row of each.")] = None,
    of: Of = "primary",
    n: Annotated[int, typer.Option("--n", "-n", help="Images of each class.", min=1, max=10_000)] = 10,
    seed: Seed = 0,
) -> None:
    """Draw new images of a class: its mean content, a style from the prior.

    Example: distk jade sample runs/my-run --class 3 --of secondary
    """
    model = on.open().of(Jade, SPLITS)
    names = model.spec.classes
    if class_ is not None and class_ not in names:
        raise UsageError(f"--class '{class_}' is none of {', '.join(names)}.")
    chosen = range(len(names)) if class_ is None else [names.index(class_)]
    role = _role(model, of)
    generator = seeded(seed, model.device)
    with torch.no_grad():
        codes = [model.drawn(n, generator, c, "x" if role == "primary" else "y") for c in chosen]
        drawn = torch.cat([_square(decoded(model, code, role)) for code in codes])
    target = on.target(f"samples-{role}.png")
    shown = [names[c] for c in chosen]
    Sheet(images.enlarge(drawn), n, rows=shown, title=titled(on.header, f"draws of {role}")).write(target)
    on.report([target], of=role, classes=[names[c] for c in chosen])


def variance(on: On, look: Look = Look(), of: Of = "primary", seed: Seed = 0) -> None:
    """Write Figure 2: variance within classes (fixed_content.csv), over all images (all.csv), and a heat map.

    They go into the folder --out; default: that of the checkpoint.

    Example: distk jade variance runs/my-run
    """
    model, dataset = on.open().of(Jade, SPLITS), on.dataset()
    name = "content-style-variance"
    result = evaluate(model, [name], data=dataset, seed=seed, of=_role(dataset, of))["metrics"][name]
    if "error" in result:
        raise UsageError(result["error"])
    folder = on.out or on.path.parent
    if not folder.is_dir():
        raise UsageError(f"--out '{folder}': that folder does not exist.")
    names, drawn = result["code_names"], formed("variance.png")
    files = {
        "fixed_content.csv": _csv(["class", *names], zip(dataset.spec.classes, result["fixed_content"], strict=False)),
        "all.csv": _csv(["variance", *names], [("all", result["all"])]),
        drawn: contents(ContentStyleVariance.pictures(result)["variance"], Path(drawn).suffix),
    }
    for file, held in files.items():
        write_atomic(folder / file, held)
    scores = {key: result[key] for key in ("content_ratio", "style_ratio", "ratio", "probe_content", "probe_style")}
    if not on.json:
        console.table("", ("score", "value"), list(scores.items()))
    on.report([folder / file for file in files], **scores)


def _role(held: Dataset | Jade, text: str) -> Role:
    """primary or secondary, also by the data set's name."""
    names = [str(name) for name in held.spec.extra.get("names", ())]
    for i, role in enumerate(("primary", "secondary")):
        if text == role or (text in names and names.index(text) == i):
            return role  # type: ignore[return-value]
    raise UsageError(f"'{text}' is neither primary nor secondary" + "".join(f", nor {name}" for name in names) + ".")


def _chosen(dataset: Any, text: str, n: int, seed: int) -> tuple[Role, Tensor]:
    """`primary:3,17` -> the rows named there; `primary` -> n random rows of its test split."""
    name, colon, listed = text.partition(":")
    role = _role(dataset, name)
    total = len(dataset) if role == "primary" else len(dataset.secondary)
    if not colon:
        rows = dataset.rows("test") if role == "primary" else dataset.secondary_rows("test")
        if n > len(rows):
            raise UsageError(f"--n {n} is more than the {counted(len(rows), 'test image')} of the {role}.")
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n]
        return role, rows[order.to(rows.device)]
    numbers = [int(part) if part.isdecimal() and part.isascii() else -1 for part in listed.split(",")]
    if any(not 0 <= number < total for number in numbers) or len(numbers) > 1000:
        raise UsageError(f"'{text}': write up to 1,000 row numbers from 0 to {total - 1}, as {role}:3,17.")
    return role, torch.tensor(numbers, device=dataset.device)


def _items(dataset: Any, role: Role, rows: Tensor) -> dict[str, Tensor]:
    return dataset.batch(rows) if role == "primary" else dataset.secondary_batch(rows)


def decoded(model: Jade, code: Code, role: Role) -> Tensor:
    """Code -> images of the primary or the secondary."""
    return model.decode(code) if role == "primary" else model.decode_secondary(code)


def _square(x: Tensor) -> Tensor:
    """Images of either data set -> `[n, 3, 32, 32]` on the CPU, the smaller ones framed in black."""
    border = (32 - x.shape[-1]) // 2
    return images.as_rgb(F.pad(x, (border,) * 4))


def _csv(header: list[str], rows: Iterable[tuple[str, Sequence[float]]]) -> bytes:
    """A table of named rows of numbers."""
    return as_csv(header, ([name, *(f"{float(v):.6g}" for v in values)] for name, values in rows))
