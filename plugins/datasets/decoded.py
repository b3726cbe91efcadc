"""Pictures of a folder or an archive in a known order, decoded once and kept: for sets that come as one file each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from distk import Files
from distk.console import progress
from distk.kept import kept, of_stamp
from distk.pictures import Form, Seen, read_many
from distk.plugins.datasets.folder import COUNTED
from distk.tree import ARCHIVES, Entry, Tree

WINDOW = 64
"""Files of each core that are open, or unpacked, at the same time."""


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


def decoded(name: str, tree: Tree, entries: Sequence[Entry], form: Form) -> tuple[np.ndarray, Seen]:
    """Pictures in the order of `entries`, uint8 `[n, channels, height, width]`, and what was changed in them.

    name: of whose pictures these are. They are decoded by a process for each core; many are kept for the next start,
    with what is to be said of them. Raises DistkError naming a file that is no picture, or smaller than what is to be
    cut.
    """
    key = f"{name} {tree.root.resolve()} {form}"
    stamp = Tree(tree.root, list(entries)).stamp
    counts = np.zeros(len(COUNTED), np.int64)

    def fill(images: np.ndarray) -> None:
        seen = _read_all(images, tree, entries, form)
        counts[:] = [seen[what] for what in COUNTED]

    shape = (len(entries), form.channels, *form.size)
    images = of_stamp(key, stamp, shape, np.uint8, fill)
    if isinstance(images, np.memmap):

        def note_down(array: np.ndarray) -> None:
            array[:] = counts

        counts = kept(f"{key} counts", {"files": stamp, "version": 1}, counts.shape, np.int64, note_down)
    return images, Seen(dict(zip(COUNTED, counts.tolist(), strict=True)))


def _read_all(images: np.ndarray, tree: Tree, entries: Sequence[Entry], form: Form) -> Seen:
    """Fill `images`; what was changed in them."""
    seen, order = Seen(), sorted(range(len(entries)), key=lambda i: entries[i].place)  # an archive is read in one pass

    def some(share: list[tuple[int, IO[bytes]]]) -> Seen:
        changed = Seen()
        files = ((content, shown(tree, entries[i]), 1) for i, content in share)
        for k, picture in read_many(files, form, changed):
            images[share[k][0]] = picture
        return changed

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool, progress("reading pictures", len(entries)) as advance:
        for start in range(0, len(order), WINDOW * cores):
            # An archive is no place for two readers at once: its members are unpacked here, and decoded there.
            part = [(i, entries[i].open()) for i in order[start : start + WINDOW * cores]]
            for changed in pool.map(some, [part[k::cores] for k in range(min(cores, len(part)))]):
                seen.update(changed)
            for _, content in part:
                content.close()
            advance(len(part))
    return seen
