"""Falcor3D and Isaac3D (Nie et al. 2020): a living room and a kitchen with a robot, every combination of their factors.

As published: `Falcor3D_down128/images/000000.png` to `233279.png`, and `Isaac3D_down128/images/000000.png` to
`737279.png`, 128x128 (1024x1024 and 512x512 in the archives of full size). A picture's number counts its factors, the
last one fastest. Beside the pictures lie labels, a numpy array of each picture's factors from 0 to 1.

Of Isaac3D the published text and the published program name the factors in two orders. That of the program is used: the
factors of sizes 8, 5, 4, 4 come second to fifth in it, as in the sum that the text gives for a picture's number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option, permuted_split
from distk.console import counted
from distk.pictures import Form
from distk.plugins.datasets.arrayfile import read_npy
from distk.plugins.datasets.decoded import decoded, place, shown
from distk.stored import Stored
from distk.tree import Entry, Tree, opened

LABELS = ("labels.npy", "train-rec.labels")
LARGEST = 1 << 28
"""Bytes of the labels."""
OFF = 0.01
"""How far a label may lie from the value that it stands for."""


@dataclass(frozen=True)
class Config:
    """What the pictures become, and what is held out."""

    size: Literal[64, 32, 128, 256] = option(64, "height and width in pixels, by Lanczos' filter")
    holdout: float = option(0.0, "share of the images, drawn once for all, that only the split `test` holds", min=0)

    def __post_init__(self) -> None:
        if self.holdout >= 1:
            raise ValueError(f"holdout {self.holdout} leaves nothing to train on; it must be below 1")


class Numbered(FactorDataset[Config]):
    """Pictures whose file names count every combination of the factors. title: of the official folders."""

    counted = True
    title = ""

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        root = place(
            files, *(f"{form}{end}" for form in (self.title, f"{self.title}_*") for end in ("", ".zip", ".tar*"))
        )
        if root is None:
            raise UsageError(
                f"data set '{files.name}' is not drawn: put {self.reads} into a folder and add --data-dir FOLDER."
            )
        with opened(root, {".png", ".npy", ".labels"}) as tree:
            entries = self._pictures(root, tree)
            self.told += self._held_against_labels(tree)
            images, _ = decoded(files.name, tree, entries, Form((config.size, config.size)))
        self.pixels = Stored(images, device, files.where)
        self.stored, self.origin = (self.pixels,), f"{counted(len(images), 'picture')} read from {root}"
        self.spec = DataSpec("image", tuple(images.shape[1:]))
        self.parts = permuted_split(len(self), config.holdout, 0, device) if config.holdout else {}

    def _pictures(self, root: Path, tree: Tree) -> list[Entry]:
        """The pictures by their number. Raises DistkError where one is missing or there twice."""
        count = math.prod(self.factor_sizes)
        found: dict[int, Entry] = {}
        for entry in tree.entries:
            stem = Path(entry.name).stem
            if entry.suffix != ".png" or not stem.isdecimal() or int(stem) >= count:
                continue
            if int(stem) in found:
                raise DistkError(
                    f"'{root}' holds two pictures of the number {stem}; name the folder of one form of the set."
                )
            found[int(stem)] = entry
        if len(found) < count:
            first = next(i for i in range(count) if i not in found)
            raise DistkError(
                f"'{root}' holds {len(found):,} of {counted(count, 'picture')}; the first that is missing is"
                f" {first:06}.png."
            )
        return [found[i] for i in range(count)]

    def _held_against_labels(self, tree: Tree) -> tuple[str, ...]:
        """What is to be said where the labels beside the pictures say other factors than the numbers do."""
        entry = next((entry for entry in tree.entries if entry.parts[-1] in LABELS), None)
        if entry is None:
            return ()
        where = shown(tree, entry)
        with entry.open() as file:
            labels = read_npy(file, where, LARGEST)
        sizes = np.array(self.factor_sizes)
        if labels.shape != (math.prod(self.factor_sizes), len(sizes)) or labels.dtype.kind != "f":
            return (f"'{where}' is {labels.dtype} {labels.shape}, not the factors of every picture, and was left out",)
        wrong = np.zeros(len(labels), bool)
        for start in range(0, len(labels), 1 << 16):
            rows = np.arange(start, min(start + (1 << 16), len(labels)))
            levels = np.stack(np.unravel_index(rows, self.factor_sizes), 1)
            wrong[rows] = (np.abs(labels[rows] - levels / np.maximum(sizes - 1, 1)) > OFF).any(1)
        if not wrong.any():
            return ()
        return (
            f"'{where}' gives other factors than the published order of the pictures, first to "
            f"{int(wrong.argmax()):06}.png; the order of the pictures is used",
        )

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], `factors` int64 `[n, K]`."""
        return {"x": self.pixels[rows].float() / 255, "factors": self.factors(rows)}


class Falcor3D(Numbered):
    """Factors lighting_intensity 5, lighting_x-dir, lighting_y-dir, lighting_z-dir 6, camera_x-pos, camera_y-pos,
    camera_z-pos 6."""

    title = "Falcor3D"
    reads = "Falcor3D_down128 (images/000000.png to 233279.png), a folder or its zip"
    factor_names = (
        "lighting_intensity",
        "lighting_x-dir",
        "lighting_y-dir",
        "lighting_z-dir",
        "camera_x-pos",
        "camera_y-pos",
        "camera_z-pos",
    )
    factor_kinds = ("ordinal",) * 7
    factor_sizes = (5, 6, 6, 6, 6, 6, 6)


class Isaac3D(Numbered):
    """Factors object_shape 3, robot_x-move 8, robot_y-move 5, camera_height 4, object_scale 4, lighting_intensity 4,
    lighting_y-dir 6, object_color 4, wall_color 4."""

    title = "Isaac3D"
    reads = "Isaac3D_down128 (images/000000.png to 737279.png), a folder or its zip"
    factor_names = (
        "object_shape",
        "robot_x-move",
        "robot_y-move",
        "camera_height",
        "object_scale",
        "lighting_intensity",
        "lighting_y-dir",
        "object_color",
        "wall_color",
    )
    factor_kinds = ("categorical", *["ordinal"] * 6, "categorical", "categorical")
    factor_sizes = (3, 8, 5, 4, 4, 4, 6, 4, 4)
