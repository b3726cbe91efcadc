"""`distk data NAME`: look into a data set, draw it, export it, hold a renderer against the official file."""

# No `from __future__ import annotations`: typer reads annotations that are made from local values.
import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk import console, options
from distk.commandline import LazyGroup
from distk.commands.arguments import Device, Json, Split
from distk.errors import UsageError
from distk.registered import Registration
from distk.registry import registry

if TYPE_CHECKING:
    from distk.data import Dataset

PICTURED = {"environment", "image", "video"}
"""Tags of data sets whose items can be drawn."""
LOOKED_AT, LISTED = 1000, 100
"""Items whose values are looked at, and classes that are counted one by one."""


class DataGroup(LazyGroup):
    """Every registered data set is a command with its own settings; plugins may add commands beside them."""

    place = "data"

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(entry.name for entry in registry().entries("dataset"))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A data set's command with its summary only: listing must not import it."""
        for entry in registry().entries("dataset"):
            if cmd_name.partition(":")[0] in (entry.name, *entry.aliases):
                return typer.core.TyperCommand(entry.name, help=entry.summary)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if super().get_command(ctx, args[0]) is not None:
            return super().resolve_command(ctx, args)
        entry = registry().find("dataset", args[0].partition(":")[0])
        return args[0], _dataset_command(entry, args[0]), args[1:]


app = typer.Typer(
    cls=DataGroup,
    no_args_is_help=True,
    help="Look into a data set: what it holds, a picture.\n\nExample: distk data dsprites --preview shapes.png",
)
app.callback()(lambda: None)


def _dataset_command(entry: Registration, name: str) -> Any:
    from distk.commands.shared import Look

    config = entry.load().Config

    def run(
        data_dir: Annotated[
            str | None, typer.Option(help="Folder of the data set's own files; default: $DISTK_DATA.")
        ] = None,
        preview: Annotated[
            Path | None,
            typer.Option(help="Draw items into this PNG, SVG or PDF (clips also as GIF, sentences as text)."),
        ] = None,
        n: Annotated[int, typer.Option("--n", "-n", help="Items in the preview.", min=1, max=1024)] = 64,
        split: Split = "all",
        seed: Annotated[int, typer.Option(help="Seed of the items in the preview.", min=0)] = 0,
        export: Annotated[
            Path | None, typer.Option(help="Write the data set's official file, where it has a writer.")
        ] = None,
        compare: Annotated[Path | None, typer.Option(help="Hold the renderer against the official file.")] = None,
        stats: Annotated[bool, typer.Option("--stats", help="Count what the data set knows of itself.")] = False,
        device: Device = "auto",
        json: Json = False,
        look: Look = Look(),
        **values: Any,
    ) -> None:
        from distk.data import open_dataset
        from distk.device import choose_device

        chosen = options.given(config, values, taken, "data_")
        dataset = open_dataset(name, chosen, device=choose_device(device), folder=data_dir)
        facts = _facts(dataset)
        if preview is not None:
            facts["preview"] = _preview(dataset, preview, n, split, seed)
        if export is not None:
            _able(dataset, "export", entry.name)(export)
            facts["export"] = str(export)
        if compare is not None:
            facts["compare"] = _able(dataset, "compare", entry.name)(compare)
        if stats:
            facts["stats"] = _able(dataset, "stats", entry.name)()
        if json:
            console.emit_json(facts)
            return
        rows = [
            (k, v if isinstance(v, (int, str)) else ", ".join(console.number(part) for part in v))
            for k, v in facts.items()
            if k not in ("compare", "stats", "class counts", "told")  # `open_dataset` has said what is told
        ]
        console.table("", ("", ""), rows)
        if counts := facts.get("class counts"):
            held = list(counts.values())
            columns = ("class", *counts)
            console.table("items by class", columns, [(name, *(part[name] for part in held)) for name in held[0]])
        for title, key in (("against the official file", "compare"), ("counts", "stats")):
            if found := facts.get(key):
                console.table(title, tuple(found[0]), [tuple(r.values()) for r in found])

    # A setting `split` of the data becomes --data-split, as in train.
    taken = {*inspect.signature(run).parameters, "form", "format", "dpi"}
    own = options.parameters(config, f"Data: {entry.name}", taken, "data_")
    drawn = f" --preview {entry.name}.png" if PICTURED & set(entry.tags) else ""
    help_text = f"{entry.summary}.\n\nExample: distk data {name}{drawn}"
    return options.command(run, entry.name, own, help_text)


def _able(dataset: "Dataset", ability: str, name: str) -> Any:
    if not hasattr(dataset, ability):
        able = [e.name for e in registry().entries("dataset") if hasattr(e.load(), ability)]
        raise UsageError(f"data set '{name}' has no --{ability}; those that have: {', '.join(able)}.")
    return getattr(dataset, ability)


def _facts(dataset: "Dataset") -> dict[str, Any]:
    from distk.data import FactorDataset

    facts: dict[str, Any] = {
        "data": dataset.name,
        "origin": dataset.origin,
        "items": len(dataset),
        "kind": dataset.spec.kind,
        "shape": list(dataset.spec.shape),
        "range": list(dataset.spec.range),
    }
    for split in dataset.splits:
        rows = dataset.rows(split)
        if rows is not None:
            facts[split] = len(rows)
    if dataset.spec.kind in ("image", "video", "vector"):
        facts["values"] = _span(dataset)
    if dataset.spec.classes:
        facts["classes"] = list(dataset.spec.classes)
        facts |= _class_counts(dataset)
    if isinstance(dataset, FactorDataset):
        named = zip(dataset.factor_names, dataset.factor_sizes, dataset.factor_kinds, strict=True)
        facts["factors"] = [f"{name} {size} ({kind})" for name, size, kind in named]
    return facts | ({"told": list(dataset.told)} if dataset.told else {})


def _span(dataset: "Dataset") -> list[float]:
    """Smallest and largest value of up to a thousand items, spread evenly over the data."""
    import torch

    rows = torch.linspace(0, len(dataset) - 1, min(len(dataset), LOOKED_AT), dtype=torch.float64).long()
    x = dataset.batch(rows.to(dataset.device))["x"]
    return [float(x.min()), float(x.max())]


def _class_counts(dataset: "Dataset") -> dict[str, Any]:
    """Items of each class, by split, where the data hold their labels; nothing where there are too many classes."""
    import torch

    label, classes = getattr(dataset, "label", None), dataset.spec.classes
    if not isinstance(label, torch.Tensor) or label.shape != (len(dataset),) or len(classes) > LISTED:
        return {}
    parts = {"all": label, **{part: label[rows] for part, rows in dataset.parts.items()}}
    parts = {part: held[held >= 0] for part, held in parts.items()}  # -1 is no label
    return {
        "class counts": {
            part: dict(zip(classes, torch.bincount(held, minlength=len(classes)).tolist(), strict=False))
            for part, held in parts.items()
        }
    }


def _preview(dataset: "Dataset", path: Path, n: int, split: str, seed: int) -> list[str]:
    from distk import images
    from distk.commands.shared import choose_rows, item_words, written_to
    from distk.files import write_atomic
    from distk.sheet import Sheet

    total = len(dataset) if dataset.rows(split) is None else len(dataset.rows(split))  # type: ignore[arg-type]
    rows = choose_rows(dataset, min(n, total), seed, split)
    batch = dataset.batch(rows)
    x = batch["x"]
    low, high = dataset.spec.range
    path = written_to(path, "preview.txt" if hasattr(dataset, "preview") else "preview.png", option="--preview")
    if hasattr(dataset, "preview"):
        write_atomic(path, dataset.preview(rows).encode())
        return [str(path)]
    if dataset.spec.kind == "video" and x.dim() == 5:
        x = images.enlarge((x - low) / (high - low))
        words = item_words(dataset, rows, batch)[:12]
        Sheet(
            x[:12].flatten(0, 1),
            x.shape[1],
            rows=words,
            heads=[f"t={t}" for t in range(x.shape[1])],
            title=f"{dataset.name}, {split} split",
        ).write(path)
        images.save_gif(path.with_suffix(".gif"), images.film(x, math.isqrt(len(x))), 0.15)
        return [str(path), str(path.with_suffix(".gif"))]
    if x.dim() != 4:
        raise UsageError(f"data set '{dataset.name}' holds {dataset.spec.kind} data, which has no picture.")
    x = images.enlarge((x - low) / (high - low))
    words = item_words(dataset, rows, batch)
    title = f"{dataset.name}, {split} split: {'labels' if 'label' in batch and dataset.spec.classes else 'rows'} below"
    return [str(Sheet(x, max(1, math.isqrt(len(x))), captions=words, title=title).write(path))]
