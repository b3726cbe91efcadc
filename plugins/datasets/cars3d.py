"""Cars3D (Reed et al. 2015): 183 cars, each rendered from 24 sides and 4 heights; shrunk to 64x64 as others do.

The official archive `nips2015-analogy-data.tar.gz` unpacks to `data/cars/*.mat`, a MATLAB file for each car whose array
`im` is uint8 `[128, 128, 3, 24, 4]`.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option, permuted_split
from distk.console import counted, progress
from distk.files import read_bytes
from distk.kept import of_files
from distk.plugins.datasets.matfile import arrays
from distk.stored import Stored

GRID = (4, 24, 183)
FORM = (128, 128, 3, 24, 4)


@dataclass(frozen=True)
class Config:
    """How large the pictures are, and what is held out."""

    size: Literal[64, 32, 128] = option(64, "height and width in pixels, by Lanczos' filter")
    holdout: float = option(0.0, "share of the images, drawn once for all, that only the split `test` holds", min=0)

    def __post_init__(self) -> None:
        if self.holdout >= 1:
            raise ValueError(f"holdout {self.holdout} leaves nothing to train on; it must be below 1")


class Cars3D(FactorDataset[Config]):
    """Factors elevation 4, azimuth 24, object 183; cars in the order of `list.txt` beside them, else of their names."""

    counted = True
    reads = "cars/*.mat, 183 files"
    factor_names = ("elevation", "azimuth", "object")
    factor_kinds = ("ordinal", "circular", "categorical")
    factor_sizes = GRID

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        folder, paths = _found(files)
        if len(paths) != GRID[2]:
            raise UsageError(f"'{folder}' holds {len(paths)} .mat files; Cars3D has {GRID[2]}, one for each car.")
        size = config.size
        self.pixels = Stored(read(folder, paths, size), device, files.where)
        self.stored, self.origin = (self.pixels,), f"{counted(len(paths), 'car')} read from {folder}"
        self.spec = DataSpec("image", (3, size, size))
        self.parts = permuted_split(len(self), config.holdout, 0, device) if config.holdout else {}

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], `factors` int64 `[n, 3]`."""
        return {"x": self.pixels[rows].movedim(-1, 1).float() / 255, "factors": self.factors(rows)}


def _found(files: Files) -> tuple[Path, list[Path]]:
    """The folder with the cars, and its files."""
    for folder in files.folders:
        for inside in (folder / "data" / "cars", folder / "cars", folder):
            paths = sorted(p for p in inside.glob("*.mat") if p.is_file()) if inside.is_dir() else []
            if paths:
                return inside, _in_order(inside, paths)
    raise UsageError(
        "data set 'cars3d' is not drawn: unpack nips2015-analogy-data.tar.gz and name its folder by --data-dir FOLDER."
    )


def _in_order(folder: Path, paths: list[Path]) -> list[Path]:
    """As the archive's `list.txt` names them, where it names all of them; else by their names."""
    try:
        names = read_bytes(folder / "list.txt", 1 << 20).decode("utf-8", "replace").split()
    except OSError:
        return paths
    by_name = {path.stem: path for path in paths}
    return [by_name[name] for name in names] if sorted(names) == sorted(by_name) else paths


def read(folder: Path, paths: list[Path], size: int) -> np.ndarray:
    """Pictures in the order of the factors, uint8 `[17568, size, size, 3]`, read once and kept."""

    def fill(out: np.ndarray) -> None:
        views = out.reshape(GRID[0], GRID[1], GRID[2], size, size, 3)
        with progress("reading cars", len(paths)) as advance:
            for k, path in enumerate(paths):
                views[:, :, k] = car(path, size)
                advance(1)

    shape = (math.prod(GRID), size, size, 3)
    # Whose picture is where depends on the order of the files, too.
    return of_files(f"cars3d: {folder.resolve()} {size}", paths, folder, shape, np.uint8, fill)


def car(path: Path, size: int) -> np.ndarray:
    """One car, uint8 `[4, 24, size, size, 3]`. Raises DistkError for another file than the published ones."""
    try:
        held = arrays(path.read_bytes()).get("im")
        if held is None or held.shape != FORM or held.kind != "uint8":
            there = "nothing of that name" if held is None else f"{held.kind} {list(held.shape)}"
            raise DistkError(f"'{path}': expected im uint8 {list(FORM)}, found {there}.")
        pictures = held.read().transpose(4, 3, 0, 1, 2)
    except (OSError, ValueError, zlib.error) as error:
        raise DistkError(f"'{path}' cannot be read: {' '.join(str(error).split())[:200]}.") from error
    if size == FORM[0]:
        return np.ascontiguousarray(pictures)
    flat = np.ascontiguousarray(pictures).reshape(-1, *FORM[:3])
    made = [np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.LANCZOS)) for x in flat]
    return np.stack(made).reshape(GRID[0], GRID[1], size, size, 3)
