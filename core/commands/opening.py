"""What commands that look into a trained model do alike: opening, choosing rows, writing, saying what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from distk import console, images, look
from distk.checkpoint import Header
from distk.console import counted, note
from distk.data import Dataset
from distk.errors import NotServed, UsageError
from distk.files import write_atomic
from distk.fitting import fitting_data
from distk.method import Method, can
from distk.models import open_model
from distk.options import asked
from distk.run import find_checkpoint
from distk.sheet import Sheet
from distk.video import write_clips

SECONDS = 0.15
"""How long a frame of a clip is shown."""


def opened(checkpoint: Path | None, device: str) -> tuple[Path, Method, Header]:
    """The named or newest checkpoint, loaded; says on stderr which one it is."""
    path = find_checkpoint(checkpoint)
    model, header = open_model(path, device)
    note(f"{header.method} at step {header.step:,} from {path}")
    return path, model, header


def its_data(model: Method, header: Header, name: str | None, folder: Path | None) -> Dataset:
    """The data set that the model was trained on, or another one by name, read as the model reads.

    Raises UsageError that names what differs when the model cannot read these items.
    """
    dataset = fitting_data(model, header, name, folder)
    note(f"data {dataset.name}: {dataset.origin}")
    return dataset


def require(model: Method, header: Header, command: str, *abilities: str) -> None:
    """Raise NotServed, naming the commands that do work, unless the model has these abilities."""
    instead = model.instead.get(command)
    if instead is None and all(can(model, ability) for ability in abilities):
        return
    served = {
        "eval": ("encode",),
        "traverse": ("encode", "decode"),
        "reconstruct": ("encode", "decode"),
        "sample": ("sample",),
        "swap": ("encode", "decode"),
        "transfer": ("rewrite",),
        "predict": ("predict",),
    }
    works = [
        name
        for name, needs in served.items()
        if name not in model.instead and (name in model.own_commands or all(can(model, n) for n in needs))
    ]
    works += [instead.removeprefix("distk ")] if instead else []
    raise NotServed(
        f"method '{header.method}' has no `distk {command}`"
        + (f": use `{instead}`." if instead else f"; it serves {', '.join(works) or 'none of the generic commands'}.")
    )


def choose_rows(dataset: Dataset, n: int, seed: int, split: str) -> Tensor:
    """`n` different rows of a split, drawn from `seed`; where nobody asked for so many, as many as there are."""
    rows = dataset.rows(split)
    total = len(dataset) if rows is None else len(rows)
    if n > total and not _asked("n", "pairs", "rows", "over"):
        note(f"the {split} split has {counted(total, 'item')}, so {total:,} are taken instead of {n:,}")
        n = total
    if n > total:
        raise UsageError(f"--n {n} is more than the {counted(total, 'item')} of the {split} split.")
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n].to(dataset.device)
    return drawn if rows is None else rows[drawn]


def _asked(*names: str) -> bool:
    """Whether the user gave one of these options on the command line; true where there is none."""
    given = asked.get()
    return given is None or bool(given & set(names))


def beside(path: Path, out: Path | None, name: str, *also: str) -> Path:
    """`out`, or `name` beside the checkpoint. An `out` that is a folder gets `name`, one without a suffix gets one.

    Raises UsageError for another suffix than that of `name` and those in `also`, and where the folder does not exist.
    """
    return path.with_name(look.formed(name)) if out is None else written_to(out, name, *also)


def written_to(out: Path, name: str, *also: str, option: str = "--out") -> Path:
    """The file that the user's `out` means, by the rules of `beside`. A picture has any suffix of `look.FORMS`."""
    name = look.formed(name)
    if out.is_dir():
        return out / name
    own = Path(name).suffix
    drawn = own in look.FORMS
    if drawn and out.suffix.lower() in look.FORMS:
        look.held_to(out, option)
    suffixes = tuple(dict.fromkeys((own, *(look.FORMS if drawn else ()), *also)))
    if not out.suffix:
        out = out.with_name(out.name + suffixes[0])
    elif out.suffix.lower() not in suffixes:
        known = " or ".join(suffixes)
        raise UsageError(f"{option} '{out}': this is written as {known}, so the name cannot end in '{out.suffix}'.")
    check_folder(out, option)
    return out


def check_folder(out: Path, option: str = "--out") -> None:
    """Raise UsageError where the folder of a file to be written does not exist: asked before anything is opened."""
    if not out.parent.is_dir():
        raise UsageError(f"{option} '{out}': the folder '{out.parent}' does not exist.")


def forms(model: Method) -> tuple[str, ...]:
    """The suffixes that `present` knows for items of a model's kind; the first is that of a file without a name."""
    if model.spec.kind == "sentence":
        return (".txt",)
    if model.spec.kind == "video" and len(model.spec.shape) == 4:
        return (*look.FORMS, ".gif", ".mp4", ".npz")
    return look.FORMS if len(model.spec.shape) == 3 else (".safetensors",)


def present(
    model: Method,
    items: Tensor,
    path: Path,
    columns: int,
    *,
    rows: Sequence[str] = (),
    heads: Sequence[str] = (),
    captions: Sequence[str] = (),
    title: str = "",
) -> list[Path]:
    """Write items of the model's kind where people can look at them: a picture, a picture and GIF, or text; the files.

    rows, heads, captions, title: words of the picture, see `Sheet`; of clips, rows and heads name the clips.
    Clips go to one file where `path` ends in .mp4 (all of them playing side by side) or .npz (each by itself).
    """
    kind = model.spec.kind
    if kind == "sentence":
        path = path.with_suffix(".txt")
        write_atomic(path, ("\n".join(model.text(items)) + "\n").encode())
        return [path]
    if kind == "video" and items.dim() == 5:
        return _present_clips(model, items, path, columns, [*rows], [*heads], title)
    if items.dim() == 4:
        path = path if path.suffix.lower() in look.FORMS else path.with_suffix(".png")
        big = images.enlarge(scaled(model, items))
        return [Sheet(big, columns, rows=rows, heads=heads, captions=captions, title=title).write(path)]

    path = path.with_suffix(".safetensors")
    write_atomic(path, save({"items": items.detach().cpu().contiguous()}))
    return [path]


def _present_clips(
    model: Method, items: Tensor, path: Path, columns: int, rows: list[str], heads: list[str], title: str
) -> list[Path]:
    """Clips `[n, t, c, h, w]` as a row of frames each, and as a film with `columns` of them side by side."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return write_clips(path, scaled(model, items))
    items = images.enlarge(scaled(model, items))
    if suffix == ".mp4":
        return write_clips(path, images.film(items, columns).unsqueeze(0), 1 / SECONDS)
    if heads:  # of clips side by side: each clip's row has its row's and its column's name
        rows = [f"{row} {head}".strip() for row in rows or [""] * (-(-len(items) // len(heads))) for head in heads]
    times = [f"t={t}" for t in range(items.shape[1])]
    picture = path if suffix in look.FORMS else path.with_suffix(".png")
    Sheet(items.flatten(0, 1), items.shape[1], rows=rows, heads=times, title=title).write(picture)
    gif = path.with_suffix(".gif")
    images.save_gif(gif, images.film(items, columns), SECONDS)
    return [picture, gif]


def titled(header: Header, *more: str) -> str:
    """The title of a picture: method, step and seed, and what is shown."""
    return ", ".join([f"{header.method}, step {header.step:,}, seed {header.seed}", *filter(None, more)])


def class_words(model: Method, group: str, classes: Sequence[int]) -> list[str]:
    """What classes of a categorical group, or of a condition, are called in a picture: their names where the method has
    some, else the group with a number."""
    own = getattr(model, "class_names", None)
    names = (
        list(own() or ()) if callable(own) and group in (*(g.name for g in model.latents), *model.conditions) else []
    )
    size = model.conditions.get(group) or model.latents[group].size
    if not names and group in model.conditions and len(model.spec.classes) == size:
        names = list(model.spec.classes)
    return [str(names[k]) if len(names) == size else f"{group}={k}" for k in classes]


def item_words(dataset: Dataset, rows: Tensor, batch: Mapping[str, Tensor]) -> list[str]:
    """What items of a data set are called in a picture: the name of their label where it has one, else their row."""
    label = batch.get("label")
    if isinstance(label, Tensor) and label.dim() == 1 and len(dataset.spec.classes) > 1:
        return [dataset.spec.classes[k] if 0 <= k < len(dataset.spec.classes) else str(k) for k in label.tolist()]
    return [f"{row}" for row in rows.tolist()]


def scaled(model: Method, items: Tensor) -> Tensor:
    """Items in the data's range -> [0, 1]."""
    low, high = model.spec.range
    return (items - low) / (high - low)


def report(files: list[Path], as_json: bool, **values: Any) -> None:
    """Say which files were written: JSON on stdout, or a line each."""
    if as_json:
        console.emit_json({"files": [str(f) for f in files], **values})
    else:
        for file in files:
            console.say(file)
