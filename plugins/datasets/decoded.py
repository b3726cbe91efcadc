"""Pictures of a folder or an archive in a known order, decoded once and kept: for sets that come as one file each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from distk import DistkError, Files
from distk.console import progress
from distk.kept import kept, of_stamp
from distk.pictures import Form, Seen, open_picture, pixels
from distk.plugins.datasets.folder import COUNTED
from distk.tree import ARCHIVES, Entry, Tree

WINDOW = 64
"""Files that are open, or unpacked, at the same time."""


def place(files: Files, *names: str) -> Path | None:
    """The first of `names` (patterns; folders and archives alike) in the user's folders, or the archive or folder that
    the user named itself where it holds none of them; None where the user named no folder and none is there."""
    for folder in files.folders:
        for name in names:
            found = [p for p in sorted(folder.glob(name)) if is_source(p)] if folder.is_dir() else []
            if found:
                return found[0]
    if files.required and is_source(files.folders[0]):
        return files.folders[0]
    return None


def is_source(path: Path) -> bool:
    """Whether a path is a folder or an archive that `distk.tree` reads."""
    return path.is_dir() or (path.is_file() and path.name.lower().endswith(ARCHIVES))


def shown(tree: Tree, entry: Entry) -> str:
    """An entry's name, for messages."""
    return str(tree.root / entry.name)


def decoded(name: str, tree: Tree, entries: Sequence[Entry], form: Form, crop: int = 0) -> tuple[np.ndarray, Seen]:
    """Pictures in the order of `entries`, uint8 `[n, channels, height, width]`, and what was changed in them.

    name: of whose pictures these are. crop: pixels of a square that is cut from the middle first; 0 cuts nothing.
    Pictures are decoded by a thread for each core; many are kept for the next start, with what is to be said of them.
    Raises DistkError naming a file that is no picture, or smaller than what is to be cut.
    """
    key = f"{name} {tree.root.resolve()} {form} {crop}"
    stamp = Tree(tree.root, list(entries)).stamp
    counts = np.zeros(len(COUNTED), np.int64)

    def fill(images: np.ndarray) -> None:
        seen = _read_all(images, tree, entries, form, crop)
        counts[:] = [seen[what] for what in COUNTED]

    shape = (len(entries), form.channels, *form.size)
    images = of_stamp(key, stamp, shape, np.uint8, fill)
    if isinstance(images, np.memmap):

        def note_down(array: np.ndarray) -> None:
            array[:] = counts

        counts = kept(f"{key} counts", {"files": stamp, "version": 1}, counts.shape, np.int64, note_down)
    return images, Seen(dict(zip(COUNTED, counts.tolist(), strict=True)))


def _read_all(images: np.ndarray, tree: Tree, entries: Sequence[Entry], form: Form, crop: int) -> Seen:
    """Fill `images`; what was changed in them."""
    seen, order = Seen(), sorted(range(len(entries)), key=lambda i: entries[i].place)  # an archive is read in one pass

    def one(i: int, content: IO[bytes]) -> Seen:
        images[i], changed = read(content, shown(tree, entries[i]), form, crop)
        return changed

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, progress("reading pictures", len(entries)) as advance:
        for start in range(0, len(order), WINDOW):
            # An archive is no place for two readers at once: its members are unpacked here, and decoded there.
            part = [(i, entries[i].open()) for i in order[start : start + WINDOW]]
            for changed in pool.map(lambda work: one(*work), part):
                seen.update(changed)
            for _, content in part:
                content.close()
            advance(len(part))
    return seen


def read(content: IO[bytes], where: str, form: Form, crop: int = 0) -> tuple[np.ndarray, Seen]:
    """One picture, uint8 `[channels, height, width]`, and what was changed in it; see `decoded`."""
    seen = Seen()
    with open_picture(content, where) as image:
        return pixels(_cut(image, crop, where) if crop else image, where, form, seen), seen


def _cut(image: Image.Image, side: int, where: str) -> Image.Image:
    if min(image.size) < side:
        raise DistkError(f"'{where}' has {image.width}x{image.height} pixels, from which no {side} can be cut.")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
