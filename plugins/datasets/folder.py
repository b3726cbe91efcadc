"""Anybody's pictures: a folder of them, a single one, or a zip or tar archive, read once and kept as bytes.

DIR/*.png                       pictures without classes
DIR/CLASS/*.png                 classes, one for each folder
DIR/train/..., DIR/test/...     splits (train, val, test), with or without classes below
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, DistkError, Files, UsageError, option, permuted_split
from distk.console import counted, progress
from distk.kept import kept, of_stamp
from distk.pictures import SERIAL, SUFFIXES, Fitting, Form, Seen, colour, frames_of, read_frames, read_many
from distk.stored import Stored
from distk.tree import Entry, Tree, opened

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folders at the top that are splits, by what the split is then called."""
MANY = 1000
"""Files that are not looked through anew at every start."""
SHOWN = 3
"""Files that a sentence names."""
COUNTED = ("sized", "deep", "transparent", "turned", "space", "greyed", "coloured", "opaque", "several")
"""What is kept of `Seen`, in this order."""


@dataclass(frozen=True)
class Config:
    """What the pictures become."""

    size: int = option(64, "height in pixels, and width unless --width says another", min=4, max=1024)
    width: int | None = option(None, "width in pixels, where it is not the height", min=4, max=1024)
    fit: Fitting = option("crop", "another shape is cut to the middle, padded with the background, or stretched")
    channels: Literal[1, 2, 3, 4] = option(3, "1 grey, 2 grey and opacity, 3 colour, 4 colour and opacity")
    background: str = option("white", "what transparent pictures are laid over: a colour's name or #rrggbb")
    frames: Literal["all", "first"] = option("all", "of a GIF, TIFF or WebP with several frames all, or the first")
    on_bad: Literal["stop", "skip"] = option("stop", "a damaged file ends the reading, or is left out and counted")
    test: float = option(
        0.1, "share of the pictures kept for the test split, where no folders name it", above=0, max=0.9
    )


class Folder(Dataset[Config]):
    """Pictures below a folder, in sorted order. All frames of a file are in the same split."""

    counted = True
    reads = "a folder, zip or tar of PNG, JPEG, GIF, BMP, WebP, TIFF or PPM pictures, or one of them"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        if not files.required:
            raise UsageError("data set 'folder' needs the folder of images: add --data-dir DIR.")
        root = files.folders[0]
        self.form = Form(
            (config.size, config.width or config.size), config.channels, config.fit, colour(config.background)
        )
        with opened(root, SUFFIXES) as tree:
            if not tree.entries:
                left = "; ".join(tree.left_out())
                raise UsageError(f"'{root}' holds no images ({', '.join(sorted(SUFFIXES))}){left and ': '}{left}.")
            reader = Reader(tree, self.form, config)
            images = reader.images()
        self.told = (*tree.left_out(), *reader.told)
        self.images = Stored(images, device, files.where)
        self.stored = (self.images,)
        split, inside = _splits(reader.entries)
        self._classes(inside, reader.owner)
        self.spec = DataSpec("image", tuple(images.shape[1:]), classes=self.classes)
        self.origin = f"{counted(len(images), 'image')} below {root}"
        self._parts(split, reader.owner)

    def _classes(self, inside: Sequence[tuple[str, ...]], owner: np.ndarray) -> None:
        """Labels where every picture lies in a folder and there are several folders; `owner`: the file of each row."""
        parents = [parts[0] if len(parts) > 1 else "" for parts in inside]
        found = sorted(set(parents))
        self.classes = tuple(found) if len(found) > 1 and "" not in found else ()
        self.label = None
        if self.classes:
            number = {name: i for i, name in enumerate(found)}
            self.label = torch.tensor([number[parents[i]] for i in owner], device=self.device)
        elif len(found) > 1:
            loose = parents.count("")
            self.told += (f"no classes, since {loose:,} of {counted(len(parents), 'file')} outside any sub-folder",)

    def _parts(self, split: Sequence[str] | None, owner: np.ndarray) -> None:
        of_file = torch.from_numpy(owner).long()
        if split is not None:
            rows = torch.arange(len(owner))
            names = [name for name in dict.fromkeys(SPLITS.values()) if name in split]
            which = torch.tensor([names.index(name) for name in split])[of_file]
            self.parts = {name: rows[which == i].to(self.device) for i, name in enumerate(names)}
        elif len(files := torch.unique(of_file)) > 1:
            # A file's frames are alike, so that it is files that are drawn for the test.
            drawn, parts = permuted_split(len(files), self.config.test, 0, torch.device("cpu")), {}
            for name, chosen in drawn.items():
                taken = torch.zeros(int(files[-1]) + 1, dtype=torch.bool)
                taken[files[chosen]] = True
                parts[name] = taken[of_file].nonzero()[:, 0].to(self.device)
            self.parts = parts

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, channels, height, width]` in [0, 1]; `label` int64 `[n]` where subfolders name classes."""
        batch = {"x": self.images[rows].float() / 255}
        return batch if self.label is None else {**batch, "label": self.label[rows]}


class Reader:
    """Decodes the pictures of a tree. entries: those that are read. owner: int32 `[rows]`, the entry of each row, since
    a file may hold several frames. told: what was left out and changed."""

    def __init__(self, tree: Tree, form: Form, config: Config) -> None:
        self.tree, self.form, self.config = tree, form, config
        self.told: list[str] = []
        self.entries = tree.entries
        self.frames = np.ones(len(self.entries), np.int32)
        doubtful = SERIAL - {".png"} if config.frames == "all" else frozenset()
        if config.on_bad == "skip" or any(entry.suffix in doubtful for entry in self.entries):
            self._survey(doubtful)
        self.owner = np.repeat(np.arange(len(self.entries), dtype=np.int32), self.frames)
        self.name = f"folder {tree.root.resolve()} {form} {config.frames} {config.on_bad}"

    def _where(self, entry: Entry) -> str:
        return self.tree.root.name if entry.name == self.tree.root.name else str(self.tree.root / entry.name)

    def _in_order(self) -> list[int]:
        """Places of the entries as they lie in their archive."""
        return sorted(range(len(self.entries)), key=lambda i: self.entries[i].place)

    def _survey(self, doubtful: frozenset[str]) -> None:
        """How many frames each file has; damaged ones are left out where the user says so."""
        bad: list[str] = []

        def fill(frames: np.ndarray) -> None:
            with progress("looking at images", len(self.entries)) as advance:
                for i in self._in_order():
                    frames[i] = self._count(self.entries[i], doubtful, bad)
                    advance(1)

        frames = np.empty(len(self.entries), np.int32)
        if len(self.entries) < MANY:
            fill(frames)
        else:
            about = {"files": self.tree.stamp, "version": 1}
            name = f"frames {self.tree.root.resolve()} {self.config.frames} {self.config.on_bad}"
            frames = kept(name, about, (len(self.entries),), np.int32, fill)
        damaged = [entry.name for entry, n in zip(self.entries, frames, strict=True) if n == 0]
        if damaged:
            shown = ", ".join(damaged[:SHOWN]) + (", ..." if len(damaged) > SHOWN else "")
            self.told.append(f"{counted(len(damaged), 'damaged file')} left out: {shown}")
            if len(damaged) == len(self.entries):
                raise DistkError(
                    f"no file below '{self.tree.root}' can be read as an image: {bad[0] if bad else shown}"
                )
        several = frames > 1
        if several.any():
            pictures = int(frames[several].sum())
            self.told.append(
                f"{counted(int(several.sum()), 'file')} of several frames read as {counted(pictures, 'picture')}"
            )
        self.entries = [entry for entry, n in zip(self.entries, frames, strict=True) if n]
        self.frames = frames[frames > 0]

    def _count(self, entry: Entry, doubtful: frozenset[str], bad: list[str]) -> int:
        where = self._where(entry)
        try:
            n = frames_of(entry.open(), where) if entry.suffix in doubtful else 1
            if self.config.on_bad == "skip":
                for _ in read_frames(entry.open(), where, replace(self.form, size=(4, 4)), Seen(), n):
                    pass
        except DistkError as error:
            if self.config.on_bad == "stop":
                raise self._with_hint(error) from error
            bad.append(str(error))
            return 0
        return n

    def _with_hint(self, error: DistkError) -> DistkError:
        hint = " Leave damaged files out with --on-bad skip." if len(self.entries) > 1 else ""
        return DistkError(f"{error}{hint}")

    def images(self) -> np.ndarray:
        """uint8 `[rows, channels, height, width]`; of many kept for the next start, with what is to be said of them."""
        seen, first = Seen(), np.cumsum(self.frames) - self.frames
        counts = np.full(len(COUNTED), -1, np.int64)

        def fill(images: np.ndarray) -> None:
            with progress("reading images", len(self.entries)) as advance:
                order = self._in_order()
                files = ((self.entries[i].open(), self._where(self.entries[i]), int(self.frames[i])) for i in order)
                at, before = -1, 0
                try:
                    for k, picture in read_many(files, self.form, seen):
                        advance(k - max(at, 0))
                        at, before = k, before + 1 if k == at else 0
                        images[first[order[k]] + before] = picture
                except DistkError as error:
                    raise self._with_hint(error) from error
            counts[:] = [seen[key] for key in COUNTED]

        shape = (int(self.frames.sum()), self.form.channels, *self.form.size)
        images = of_stamp(self.name, self.tree.stamp, shape, np.uint8, fill)
        if isinstance(images, np.memmap):

            def note_down(array: np.ndarray) -> None:
                array[:] = counts

            about = {"files": self.tree.stamp, "version": 1}
            counts = kept(f"{self.name} counts", about, counts.shape, np.int64, note_down)
        self._tell(Counter(dict(zip(COUNTED, counts.tolist(), strict=True))))
        return images

    def _tell(self, counts: Counter[str]) -> None:
        if counts["sized"] < 0:  # the pictures were kept, but what was said of them is gone
            self.told.append("what was changed in the pictures was said when they were first read")
            return
        self.told += Seen(counts).told(self.form)


def _splits(entries: Sequence[Entry]) -> tuple[list[str] | None, list[tuple[str, ...]]]:
    """The split of each file, or None where folders do not say it; and what is left of its path."""
    inside = [entry.parts for entry in entries]
    while len({parts[0] for parts in inside}) == 1 and all(len(parts) > 2 for parts in inside):
        inside = [parts[1:] for parts in inside]  # one folder holds everything, as in many archives
    tops = [parts[0].lower() if len(parts) > 1 else "" for parts in inside]
    given = {SPLITS.get(top) for top in tops}
    if None in given or "train" not in given or len(given) < 2:
        return None, inside
    return [SPLITS[top] for top in tops], [parts[1:] for parts in inside]
