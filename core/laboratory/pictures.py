"""What a page shows of a trained model: its traversal as strips under a slider, and its newest samples."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image as Pillow
from PIL.Image import Image
from torch import Tensor

from distk import images
from distk.console import counted
from distk.errors import DistkError
from distk.fitting import fitting_data
from distk.laboratory.records import CHECKPOINT, Record, regular
from distk.method import Method, can
from distk.models import open_model
from distk.pictures import plain
from distk.traversal import Known, Traversal, known_of, traverse

COLUMNS = 9
"""Values of a latent; the middle one is where the slider stands at first."""
MOST = 24
"""Rows of a traversal; a code of a hundred dimensions is cut to its most informative."""
QUALITY = 80
LARGEST = 128
"""Pixels a side of a picture on the page; larger ones are made smaller."""


@dataclass
class Strip:
    """One latent. data: its pictures side by side, as a data URI. ratio: of one picture, as CSS takes it."""

    label: str
    data: str
    ratio: str


@dataclass
class Texts:
    """One latent of a model of sentences: what the model says at each value."""

    label: str
    texts: list[str]


@dataclass
class Pictured:
    """What is shown of one run. note: why something is not."""

    label: str
    rows: list[Strip] = field(default_factory=list)
    sentences: list[Texts] = field(default_factory=list)
    samples: str = ""
    note: str = ""
    columns: int = COLUMNS

    @property
    def size(self) -> int:
        """Characters of its pictures."""
        return len(self.samples) + sum(len(row.data) for row in self.rows)


def pictured(label: str, record: Record, device: str) -> Pictured:
    """Traversal and samples of a run. Never raises for a model that cannot be shown: the note says why."""
    made = Pictured(label, samples=_newest_samples(record.path / "samples"))
    try:
        model, header = open_model(record.path / CHECKPOINT, device)
        if "traverse" in model.instead or not can(model, "decode"):
            made.note = f"method '{header.method}' has no traversal: `distk traverse` says what it serves instead"
            return made
        batch, known = None, Known()
        if can(model, "encode"):
            dataset = fitting_data(model, header, None, None)
            known = known_of(model, dataset)
            batch = dataset.items(torch.zeros(1, dtype=torch.long, device=dataset.device))
        walk = traverse(model, batch, COLUMNS, known=known, top=MOST)
        _take(made, model, walk)
    except (DistkError, RuntimeError, ValueError) as error:  # a method of somebody else may fail anywhere
        made.note = f"no traversal: {' '.join(str(error).split())[:300]}"
    return made


def _take(made: Pictured, model: Method, walk: Traversal) -> None:
    """Put the rows of a walk onto the page, as pictures or as sentences."""
    for row in walk.rows[:MOST]:
        label = f"{row.block} {row.label}".strip()
        if model.spec.kind == "sentence":
            made.sentences.append(Texts(label, list(model.text(row.items))))
        elif row.items.dim() in (4, 5):
            made.rows.append(_strip(label, model, row.items))
        else:
            made.note = f"items of kind '{model.spec.kind}' are no pictures"
            return
    if len(walk.rows) > MOST:
        made.note = f"the first {MOST} of {counted(len(walk.rows), 'row')}"


def _strip(label: str, model: Method, items: Tensor) -> Strip:
    """Items `[columns, (t,) c, h, w]` in the data's range; of clips their middle frame."""
    low, high = model.spec.range
    items = items[:, items.shape[1] // 2] if items.dim() == 5 else items
    items = images.as_rgb((items - low) / (high - low))
    height, width = items.shape[-2:]
    picture = images.to_pil(torch.cat(list(items), -1))
    scale = min(1.0, LARGEST / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)) * len(items), max(1, round(height * scale)))
        picture = picture.resize(size, Pillow.Resampling.LANCZOS)
    return Strip(label, as_uri(picture), f"{width} / {height}")


def as_uri(picture: Image) -> str:
    """A picture as a data URI, WebP."""
    held = io.BytesIO()
    picture.convert("RGB").save(held, format="WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode()


def _newest_samples(folder: Path) -> str:
    """The newest picture of `samples/` as a data URI; empty without one."""
    for path in sorted(folder.glob("step-*.png"), reverse=True):
        try:
            return shrunk(path, (800, 1200))
        except (OSError, DistkError):
            continue
    return ""


def shrunk(path: Path, size: tuple[int, int]) -> str:
    """A PNG file as a data URI, at most so large. Raises OSError where it cannot be opened, DistkError where it is no
    picture."""
    with regular(path) as opened:
        (pixels,) = plain([(opened, str(path))], "RGB", ("PNG",), 1 << 15)
    picture = Pillow.fromarray(pixels)
    picture.thumbnail(size)
    return as_uri(picture)
