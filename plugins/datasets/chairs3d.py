"""3D chairs (Aubry et al. 2014): 1,393 chairs, each rendered from 2 heights and 31 sides, 86,366 pictures.

The official archive `rendered_chairs.tar` holds `rendered_chairs/CHAIR/renders/image_NNN_pPPP_tTTT_rRRR.png`, 600x600
in colour on white: PPP is the height of the camera in degrees (20, 30), TTT how far it went around, in degrees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, UsageError, option
from distk.console import counted
from distk.pictures import Form
from distk.plugins.datasets.decoded import decoded, place
from distk.stored import Stored
from distk.tree import Entry, opened

PLACES = ("rendered_chairs.tar*", "rendered_chairs.zip", "rendered_chairs", "*/rendered_chairs")
NAME = re.compile(r"image_\d+_p(\d+)_t(\d+)_r\d+\.png")
ELEVATIONS = (20, 30)
AZIMUTHS = tuple(int(k * 360 / 31) for k in range(31))
WHOLE = 1393
"""Chairs of the official archive."""


@dataclass(frozen=True)
class Config:
    """What the pictures become, and what is held out."""

    size: int = option(64, "height and width in pixels, by Lanczos' filter", min=8, max=600)
    crop: int = option(0, "side of the square that is cut from the middle of each picture first; 0 cuts nothing", min=0)
    channels: Literal[1, 3] = option(3, "1 for grey, 3 for colour")
    holdout: float = option(0.0, "share of the chairs, drawn once for all, that only the split `test` holds", min=0)

    def __post_init__(self) -> None:
        if self.holdout >= 1:
            raise ValueError(f"holdout {self.holdout} leaves nothing to train on; it must be below 1")


class Chairs3D(FactorDataset[Config]):
    """Factors object 1393, elevation 2, azimuth 31, in the order of the files; chairs in the order of their names."""

    counted = True
    reads = "rendered_chairs.tar, or its folder"
    factor_names = ("object", "elevation", "azimuth")
    factor_kinds = ("categorical", "ordinal", "circular")

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        root = place(files, *PLACES)
        if root is None:
            raise UsageError(
                f"data set 'chairs3d' is not drawn: put {self.reads} into a folder and add --data-dir FOLDER."
            )
        with opened(root, {".png"}) as tree:
            chairs, few = grid(tree.entries)
            if not chairs:
                raise UsageError(
                    f"'{root}' holds no chair in all its views, as CHAIR/renders/image_000_p020_t000_r096.png."
                )
            form = Form((config.size, config.size), config.channels, crop=config.crop)
            images, _ = decoded("chairs3d", tree, [entry for chair in chairs for entry in chair], form)
        if few:
            self.told += (f"{counted(few, 'chair')} left out, of which not every view is there once",)
        self.factor_sizes = (len(chairs), len(ELEVATIONS), len(AZIMUTHS))
        self.pixels = Stored(images, device, files.where)
        self.stored = (self.pixels,)
        self.spec = DataSpec("image", tuple(images.shape[1:]))
        part = "" if len(chairs) == WHOLE else f", a part of its {WHOLE:,}"
        self.origin = f"{counted(len(images), 'picture')} of {counted(len(chairs), 'chair')} read from {root}{part}"
        if config.holdout:
            self.parts = self._parts(len(chairs), config.holdout)

    def _parts(self, chairs: int, share: float) -> dict[str, Tensor]:
        """Whole chairs are held out: the views of one are alike."""
        order = torch.randperm(chairs, generator=torch.Generator().manual_seed(0))
        held = torch.zeros(chairs, dtype=torch.bool)
        held[order[: max(1, round(chairs * share))]] = True
        if bool(held.all()):
            raise UsageError(f"--holdout {share} of {counted(chairs, 'chair')} leaves none to train on.")
        of_row = held.repeat_interleave(len(ELEVATIONS) * len(AZIMUTHS))
        rows = torch.arange(len(of_row))
        return {"train": rows[~of_row].to(self.device), "test": rows[of_row].to(self.device)}

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, channels, size, size]` in [0, 1], `factors` int64 `[n, 3]`."""
        return {"x": self.pixels[rows].float() / 255, "factors": self.factors(rows)}


def grid(entries: Sequence[Entry]) -> tuple[list[list[Entry]], int]:
    """For each chair that is there in all views its pictures, elevation by elevation, azimuth by azimuth; and how many
    chairs are not."""
    chairs: dict[tuple[str, ...], dict[tuple[int, int], Entry]] = {}
    spoilt: set[tuple[str, ...]] = set()
    wanted = [(p, t) for p in ELEVATIONS for t in AZIMUTHS]
    for entry in entries:
        told = NAME.fullmatch(entry.parts[-1])
        if told is None:
            continue
        views, view = chairs.setdefault(entry.parts[:-1], {}), (int(told[1]), int(told[2]))
        if view in views or view not in wanted:
            spoilt.add(entry.parts[:-1])
        views[view] = entry
    whole = [name for name, views in chairs.items() if name not in spoilt and len(views) == len(wanted)]
    return [[chairs[name][view] for view in wanted] for name in sorted(whole)], len(chairs) - len(whole)
