"""`distk jade ...`: content of one image in the style of another, and what each half of the code says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distk.commands.arguments import Checkpoint, DataDir, Device, Json, Out, Seed
from distk.errors import NotServed, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from distk import Code, Dataset
    from distk.plugins.vae_family.jade.method import Jade

Role = Literal["primary", "secondary"]
Of = Annotated[str, typer.Option("--of", help="primary or secondary, or the data set's name.")]


def transfer(
    checkpoint: Checkpoint = None,
    content: Annotated[str, typer.Option(help="primary or secondary; or rows of it, as primary:12,40.")] = "primary",
    style: Annotated[str, typer.Option(help="The same for the style. Its data set's decoder draws.")] = "secondary",
    n: Annotated[int, typer.Option("--n", "-n", help="Random test images where no rows are named.", min=1)] = 8,
    data_dir: DataDir = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw every content image (a row each) in every style (a column each); the two may come from both data sets.

    Example: distk jade transfer runs/my-run --content primary:3,17 --style secondary
    """
    import torch

    from distk import images
    from distk.commands import shared

    path, model, dataset = opened(checkpoint, device, data_dir)
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
        made = decoded(model, pairs, style_of)
        right = float((model.classify(made).argmax(1) == a["label"].repeat_interleave(len(style_rows))).float().mean())
    sheet = torch.cat([_square(b["x"][:1]).new_full((1, 3, 32, 32), images.MARGIN), _square(b["x"])])
    for x, row in zip(_square(a["x"]), _square(made).split(len(style_rows)), strict=True):
        sheet = torch.cat([sheet, x[None], row])
    target = shared.beside(path, out, f"{path.stem}.transfer.png").with_suffix(".png")
    images.save_png(target, images.grid(images.enlarge(sheet), len(style_rows) + 1))
    rows = {"content": {"of": content_of, "rows": content_rows.tolist()}}
    rows["style"] = {"of": style_of, "rows": style_rows.tolist()}
    shared.report([target], json, **rows, class_kept=right)


def traverse(
    checkpoint: Checkpoint = None,
    part: Annotated[str, typer.Option(help="content or style.")] = "content",
    of: Of = "primary",
    row: Annotated[int | None, typer.Option(help="Row of the image to start from; default: drawn.", min=0)] = None,
    columns: Annotated[int, typer.Option(help="Values per latent.", min=2, max=100)] = 10,
    reach: Annotated[float, typer.Option(help="Values go from -REACH to REACH.", min=0.01)] = 2.0,
    data_dir: DataDir = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw what each dimension of one half of the code does, in images of either data set.

    Example: distk jade traverse runs/my-run --part style --of secondary
    """
    import torch

    from distk import images
    from distk.commands import shared

    if part not in ("content", "style"):
        raise UsageError(f"--part '{part}' is neither content nor style.")
    path, model, dataset = opened(checkpoint, device, data_dir)
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
    target = shared.beside(path, out, f"{path.stem}.traverse-{part}.png").with_suffix(".png")
    labels = ["input, reconstruction", *(f"{part}{i + 1}" for i in range(size))]
    big = images.enlarge(torch.cat(sheet))
    images.save_png(target, images.labelled(images.grid(big, columns), labels, big.shape[-2]))
    shared.report([target], json, of=role, row=int(rows[0]), values=values.tolist())


def sample(
    checkpoint: Checkpoint = None,
    class_: Annotated[str | None, typer.Option("--class", help="Name of a class; default: a row of each.")] = None,
    of: Of = "primary",
    n: Annotated[int, typer.Option("--n", "-n", help="Images of each class.", min=1, max=10_000)] = 10,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw new images of a class: its mean content, a style from the prior.

    Example: distk jade sample runs/my-run --class 3 --of secondary
    """
    import torch

    from distk import images, seeded
    from distk.commands import shared

    path, model, _ = opened(checkpoint, device, None, data=False)
    names = model.spec.classes
    if class_ is not None and class_ not in names:
        raise UsageError(f"--class '{class_}' is none of {', '.join(names)}.")
    chosen = range(len(names)) if class_ is None else [names.index(class_)]
    role = _role(model, of)
    generator = seeded(seed, next(model.parameters()).device)
    with torch.no_grad():
        codes = [model.drawn(n, generator, c, "x" if role == "primary" else "y") for c in chosen]
        made = torch.cat([_square(decoded(model, code, role)) for code in codes])
    target = shared.beside(path, out, f"{path.stem}.samples-{role}.png").with_suffix(".png")
    images.save_png(target, images.grid(images.enlarge(made), n))
    shared.report([target], json, of=role, classes=[names[c] for c in chosen])


def variance(
    checkpoint: Checkpoint = None,
    of: Of = "primary",
    data_dir: DataDir = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default: beside the checkpoint.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write Figure 2: variance within classes (fixed_content.csv), over all images (all.csv), and a heat map.

    Example: distk jade variance runs/my-run --out figure2
    """
    from distk import console
    from distk.evaluation import evaluate
    from distk.files import write_atomic
    from distk.plugins.vae_family.jade.metrics import ContentStyleVariance

    path, model, dataset = opened(checkpoint, device, data_dir)
    name = "content-style-variance"
    found = evaluate(model, [name], data=dataset, seed=seed, of=_role(dataset, of))["metrics"][name]
    if "error" in found:
        raise UsageError(found["error"])
    folder = out or path.parent
    if not folder.is_dir():
        raise UsageError(f"--out '{folder}': that folder does not exist.")
    names = found["code_names"]
    files = {
        "fixed_content.csv": _csv(["class", *names], zip(dataset.spec.classes, found["fixed_content"], strict=False)),
        "all.csv": _csv(["variance", *names], [("all", found["all"])]),
        "variance.png": ContentStyleVariance.pictures(found)["variance"].png(),
    }
    for file, held in files.items():
        write_atomic(folder / file, held)
    told = {key: found[key] for key in ("content_ratio", "style_ratio", "ratio", "probe_content", "probe_style")}
    if json:
        console.emit_json({"files": [str(folder / file) for file in files], **told})
        return
    console.table("", ("score", "value"), list(told.items()))
    for file in files:
        console.out.print(str(folder / file))


# Helpers


def opened(checkpoint: Path | None, device: str, folder: Path | None, data: bool = True) -> tuple[Path, Jade, Any]:
    """Path, model and (where wanted) data set of a checkpoint of method jade.

    Raises NotServed for another method's.
    """
    from distk.commands import shared
    from distk.plugins.vae_family.jade.method import Jade

    path, model, header = shared.opened(checkpoint, device)
    if not isinstance(model, Jade):
        raise NotServed(f"{header.method} has no decoder that splits content from style; train jade.")
    return path, model, shared.its_data(model, header, None, folder) if data else None


def _role(held: Dataset | Jade, text: str) -> Role:
    """primary or secondary, also by the data set's name."""
    names = [str(name) for name in held.spec.extra.get("names", ())]
    for i, role in enumerate(("primary", "secondary")):
        if text == role or (text in names and names.index(text) == i):
            return role  # type: ignore[return-value]
    raise UsageError(f"'{text}' is neither primary nor secondary" + "".join(f", nor {name}" for name in names) + ".")


def _chosen(dataset: Any, text: str, n: int, seed: int) -> tuple[Role, Tensor]:
    """`primary:3,17` -> the rows named there; `primary` -> n random rows of its test split."""
    import torch

    name, colon, listed = text.partition(":")
    role = _role(dataset, name)
    total = len(dataset) if role == "primary" else len(dataset.secondary)
    if not colon:
        rows = dataset.rows("test") if role == "primary" else dataset.secondary_rows("test")
        if n > len(rows):
            raise UsageError(f"--n {n} is more than the {len(rows):,} test images of the {role}.")
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
    import torch.nn.functional as F

    from distk.images import as_rgb

    border = (32 - x.shape[-1]) // 2
    return as_rgb(F.pad(x, (border,) * 4))


def _csv(header: list[str], rows: Any) -> bytes:
    from distk.study.tables import as_csv

    return as_csv(header, ([name, *(f"{float(v):.6g}" for v in values)] for name, values in rows))
