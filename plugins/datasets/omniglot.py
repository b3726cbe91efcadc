"""Omniglot (Lake, Salakhutdinov & Tenenbaum 2015): handwritten characters of many alphabets, 20 drawers each.

Reads `images_background.zip` and its like, or the folder that such an archive unpacks to:
`<part>/<alphabet>/characterNN/<drawing>_<drawer>.png`, 105x105, dark ink on white. Nothing is unpacked to disk.
"""

from __future__ import annotations

import functools
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, DistkError, Files, UsageError, option, permuted_split
from distk.console import counted, progress, warn_once
from distk.pictures import plain
from distk.plugins.datasets.strokes28 import Config as StrokesConfig
from distk.plugins.datasets.strokes28 import Strokes28

MEMBER = re.compile(r"(?:^|/)([^/]+)/(character\d{2})/([^/]+)\.png$")
PARTS = ("background", "evaluation", "background_small1", "background_small2")
LARGEST_PNG, MOST_IMAGES, LARGEST_SIDE = 1 << 16, 200_000, 1024
"""Bytes of one file, number of files and side in pixels that are read; Omniglot has 700, 32,460 and 105."""


@dataclass(frozen=True)
class Config:
    """Which part, and how large the pictures are."""

    size: int = option(28, "height and width in pixels, averaged over areas", min=12, max=105)
    part: Literal["auto", "background", "evaluation", "background_small1", "background_small2"] = option(
        "auto", "which part; auto takes the first that is there, in this order"
    )


class Omniglot(Dataset[Config]):
    """Bright ink on black; the label is the character. A fifth of the drawings are the test split.

    Without files the stand-in `strokes28` takes its place.
    """

    reads = "images_background.zip or another part, or the folder unpacked from it"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.stand_in: Strokes28 | None = None
        path = _find(files, [part for part in PARTS if config.part in ("auto", part)])
        if path is None:
            made = Strokes28(StrokesConfig(size=config.size), device, files)
            warn_once(
                f"no Omniglot files found, so '{files.name}' is the stand-in strokes28; name them with --data-dir."
            )
            self.stand_in, self.spec, self.parts = made, made.spec, made.parts
            self.origin = f"no Omniglot files found: stand-in strokes28, {made.origin}"
            return
        images, names = _read(path, config.size)
        classes = sorted(set(names))
        number = {name: i for i, name in enumerate(classes)}
        self.images = torch.from_numpy(images).unsqueeze(1).to(device)
        self.label = torch.tensor([number[name] for name in names], device=device)
        self.spec = DataSpec("image", (1, config.size, config.size), classes=tuple(classes))
        self.origin = f"{counted(len(images), 'drawing')} of {counted(len(classes), 'character')} read from {path}"
        self.parts = permuted_split(len(images), 0.2, 0, device) if len(images) > 1 else {}

    def __len__(self) -> int:
        return len(self.stand_in or self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `label` int64 `[n]`."""
        if self.stand_in is not None:
            return self.stand_in.batch(rows)
        return {"x": self.images.index_select(0, rows).float() / 255, "label": self.label[rows]}


def _find(files: Files, parts: list[str]) -> Path | None:
    """An archive, a folder of alphabets, or None. The user may also name the folder of alphabets itself."""
    if files.required and next(files.folders[0].glob("*/character*/*.png"), None) is not None:
        return files.folders[0]
    return files.find(*(f"images_{part}{suffix}" for part in parts for suffix in (".zip", "")))


def _read(path: Path, size: int) -> tuple[np.ndarray, list[str]]:
    """All drawings in sorted order: uint8 `[n, size, size]`, ink 255, and `alphabet/characterNN` of each.

    Raises DistkError for a damaged archive or image, or one that is larger than any drawing can be.
    """
    members = _from_zip(path) if path.is_file() else _from_folder(path)
    images, names = [], []

    def drawings() -> Iterator[tuple[IO[bytes], str]]:
        for name, content in members:
            matched = MEMBER.search(name)
            assert matched is not None
            names.append(f"{matched[1]}/{matched[2]}")
            if len(content) > LARGEST_PNG:
                raise DistkError(f"'{path}: {name}' is too large for a drawing.")
            yield io.BytesIO(content), f"{path}: {name}"

    with progress("reading drawings", 32_460) as advance:
        for picture in plain(drawings(), "L", ("PNG",), LARGEST_SIDE):
            images.append(_averaged(picture, size))
            advance(1)
    if not images:
        raise UsageError(f"'{path}' holds no <alphabet>/characterNN/<name>.png, which is how Omniglot is stored.")
    return np.stack(images), names


def _from_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted((e for e in archive.infolist() if MEMBER.search(e.filename)), key=lambda e: e.filename)
            _check_count(path, len(entries))
            for entry in entries:
                parts = entry.filename.split("/")
                if ".." in parts or entry.filename.startswith(("/", "\\")):
                    raise DistkError(f"'{path}' has the member '{entry.filename}' that points outside the archive.")
                if entry.file_size > LARGEST_PNG:
                    raise DistkError(f"'{path}': member '{entry.filename}' is too large for a drawing.")
                with archive.open(entry) as file:
                    yield entry.filename, file.read(LARGEST_PNG + 1)
    except (
        zipfile.BadZipFile,
        UnicodeError,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise DistkError(f"cannot read the archive '{path}': {reason}.") from error


def _from_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    root = path.resolve()
    files = sorted(p for p in path.rglob("character*/*.png") if MEMBER.search(p.as_posix()))
    _check_count(path, len(files))
    for file in files:
        try:
            if not file.resolve().is_relative_to(root):
                raise DistkError(f"'{file}' is a link that points outside '{path}'.")
            with file.open("rb") as opened:
                yield file.relative_to(path.parent).as_posix(), opened.read(LARGEST_PNG + 1)
        except OSError as error:
            raise DistkError(f"cannot read '{file}': {error.strerror or error}.") from error


def _check_count(path: Path, count: int) -> None:
    if count > MOST_IMAGES:
        raise DistkError(f"'{path}' holds {counted(count, 'drawing')}; more than {MOST_IMAGES:,} are refused.")


def _averaged(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[h, w]`, dark ink -> uint8 `[size, size]`, ink bright, the mean over the area of each pixel."""
    ink = 1 - picture.astype(np.float64) / 255
    height, width = ink.shape
    return np.rint(255 * _cover(height, size) @ ink @ _cover(width, size).T).astype(np.uint8)


@functools.cache
def _cover(side: int, size: int) -> np.ndarray:
    """Share of each of `size` output pixels that each of `side` input pixels covers: `[size, side]`, rows sum to 1."""
    edges = np.arange(size + 1) * side / size
    ends, starts = np.minimum(edges[1:, None], np.arange(1, side + 1)), np.maximum(edges[:-1, None], np.arange(side))
    return np.clip(ends - starts, 0, None) * size / side
