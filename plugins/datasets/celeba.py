"""CelebA (Liu et al. 2015): 202,599 pictures of faces with 40 attributes, which are yes or no.

The official files: `img_align_celeba.zip` (or the folder that it holds) with `000001.jpg` and so on, 178x218;
`list_attr_celeba.txt`, whose first line is the number of pictures, its second the names of the attributes, and every
further one a picture's name and 1 or -1 for each; `list_eval_partition.txt`, a picture's name and 0, 1 or 2 for
training, validation and test. The same two lists as `.csv`, as they are passed on elsewhere, are read as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option, permuted_split
from distk.console import counted
from distk.files import read_bytes
from distk.pictures import Form
from distk.plugins.datasets.decoded import decoded, place
from distk.stored import Stored
from distk.tree import opened

PICTURES = ("img_align_celeba.zip", "img_align_celeba", "*/img_align_celeba.zip", "*/img_align_celeba")
ATTRIBUTES, PARTITION = "list_attr_celeba", "list_eval_partition"
PARTS = ("train", "val", "test")
WHOLE, MOST = 202_599, 1 << 10
"""Pictures of the official set; attributes that are believed."""
LARGEST = 1 << 28
"""Bytes of a list."""


@dataclass(frozen=True)
class Config:
    """What the pictures become."""

    size: int = option(64, "height and width in pixels, by Lanczos' filter", min=8, max=218)
    crop: int = option(178, "side of the square that is cut from the middle of each picture first", min=8, max=178)
    channels: Literal[1, 3] = option(3, "1 for grey, 3 for colour")
    label: str = option("", "attribute that becomes the label as well, such as Smiling")


class CelebA(FactorDataset[Config]):
    """Factors are the 40 attributes, 0 for no and 1 for yes, as the file names them; splits are the published ones."""

    counted = True
    reads = f"img_align_celeba.zip or img_align_celeba, {ATTRIBUTES}.txt and {PARTITION}.txt"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        pictures, listed = place(files, *PICTURES), _list_of(files, ATTRIBUTES)
        if pictures is None or listed is None:
            raise UsageError(f"data set 'celeba' is not drawn: put {self.reads} into a folder, add --data-dir FOLDER.")
        names, self.factor_names, yes = attributes(listed)
        self.factor_sizes = (2,) * len(self.factor_names)
        self.factor_kinds = ("categorical",) * len(self.factor_names)
        number = {name: i for i, name in enumerate(names)}
        with opened(pictures, {".jpg", ".png"}) as tree:
            entries = [entry for entry in tree.entries if entry.parts[-1] in number]
            if not entries:
                raise UsageError(f"'{pictures}' holds none of the pictures that '{listed}' names, as '{names[0]}'.")
            form = Form((config.size, config.size), config.channels, crop=config.crop)
            images, _ = decoded("celeba", tree, entries, form)
        found = [entry.parts[-1] for entry in entries]
        if len(set(found)) < len(found):
            raise DistkError(f"'{pictures}' holds pictures of one name in several folders.")
        self.table = torch.from_numpy(yes[[number[name] for name in found]]).to(device)
        self.pixels = Stored(images, device, files.where)
        self.stored = (self.pixels,)
        self.parts = self._parts(files, found)
        self.chosen = self._label(config.label)
        classes = ("no", "yes") if self.chosen is not None else ()
        self.spec = DataSpec("image", tuple(images.shape[1:]), classes=classes)
        part = "" if len(found) == WHOLE else f", a part of its {WHOLE:,}"
        self.origin = f"{counted(len(found), 'picture')} read from {pictures}{part}"
        if (spare := len(tree.entries) - len(found)) > 0:
            self.told += (f"{counted(spare, 'picture')} left out that '{listed.name}' does not name",)

    def _label(self, name: str) -> int | None:
        if name and name not in self.factor_names:
            raise UsageError(f"--label '{name}' is no attribute; there are {', '.join(self.factor_names)}.")
        return self.factor_names.index(name) if name else None

    def _parts(self, files: Files, found: list[str]) -> dict[str, Tensor]:
        path = _list_of(files, PARTITION)
        if path is None:
            self.told += (f"no {PARTITION}.txt: a tenth of the pictures, drawn at random, is the split test",)
            return permuted_split(len(found), 0.1, 0, self.device) if len(found) > 1 else {}
        part = partition(path)
        if missing := next((name for name in found if name not in part), None):
            raise DistkError(f"'{path}' does not say whether '{missing}' is for training.")
        which = np.array([part[name] for name in found])
        rows = {name: torch.from_numpy(np.flatnonzero(which == k)).to(self.device) for k, name in enumerate(PARTS)}
        return {name: at for name, at in rows.items() if len(at)}

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, channels, size, size]` in [0, 1], `factors` int64 `[n, 40]` of 0 and 1; `label` int64 `[n]`
        with `--label`."""
        factors = self.factors(rows)
        batch = {"x": self.pixels[rows].float() / 255, "factors": factors}
        return batch if self.chosen is None else {**batch, "label": factors[:, self.chosen]}


def _list_of(files: Files, stem: str) -> Path | None:
    """A list, in the folder, in one below it (Anno, Eval), or beside the archive that the user named."""
    folders = [folder if folder.is_dir() else folder.parent for folder in files.folders]
    for folder in folders:
        for name in (f"{stem}.txt", f"{stem}.csv", f"*/{stem}.txt", f"*/{stem}.csv"):
            if found := sorted(folder.glob(name)):
                return found[0]
    return None


def _lines(path: Path) -> list[str]:
    try:
        text = read_bytes(path, LARGEST, link=True).decode("utf-8", "replace")
    except OSError as error:
        raise DistkError(f"'{path}' cannot be read: {' '.join(str(error).split())[:200]}.") from error
    return [line for line in text.replace(",", " ").splitlines() if line.strip()]


def attributes(path: Path) -> tuple[list[str], tuple[str, ...], np.ndarray]:
    """Names of the pictures, names of the attributes, and int64 `[pictures, attributes]` of 0 and 1.

    Raises DistkError for a list of another form, with its line.
    """
    lines = _lines(path)
    count = int(lines.pop(0)) if lines and lines[0].strip().isdecimal() else None
    head = lines.pop(0).split() if lines else []
    names = tuple(head[1:] if head[:1] == ["image_id"] else head)
    if not 0 < len(names) <= MOST or len(set(names)) < len(names) or not lines:
        raise DistkError(f"'{path}' is no list of attributes: expected their names, then a line for each picture.")
    if count is not None and count != len(lines):
        raise DistkError(f"'{path}' says that it lists {counted(count, 'picture')}, and lists {len(lines):,}.")
    pictures, values = [], np.empty((len(lines), len(names)), np.int64)
    for i, line in enumerate(lines):
        picture, *cells = line.split()
        if len(cells) != len(names) or not set(cells) <= {"1", "-1"}:
            raise DistkError(f"'{path}': '{picture[:40]}' must have {counted(len(names), 'value')}, each 1 or -1.")
        values[i] = [cell == "1" for cell in cells]
        pictures.append(picture)
    if len(set(pictures)) < len(pictures):
        raise DistkError(f"'{path}' lists a picture twice.")
    return pictures, names, values


def partition(path: Path) -> dict[str, int]:
    """The split of each picture: 0 training, 1 validation, 2 test. Raises DistkError for a list of another form."""
    found = {}
    for line in _lines(path):
        name, *cells = line.split()
        if name == "image_id":
            continue
        if len(cells) != 1 or cells[0] not in ("0", "1", "2"):
            raise DistkError(f"'{path}': '{name[:40]}' must be followed by 0, 1 or 2.")
        found[name] = int(cells[0])
    return found
