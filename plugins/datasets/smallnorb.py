"""Small NORB (LeCun, Huang & Bottou 2004): toys on a turntable, two cameras, six lights, 96x96 in grey.

The official files are matrices of their own binary form: magic number, number of dimensions, sizes (three at least),
all int32 with the lowest byte first, then the values. Here each picture of the left camera is an item, of training and
test set alike, in the order of the factors, so that the 5 x 10 x 9 x 18 x 6 combinations are a full grid.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option
from distk.console import counted
from distk.stored import Stored

STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
MAGIC = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
CLASSES = ("animal", "human", "airplane", "truck", "car")
GRID = (5, 10, 9, 18, 6)
SIDE, EACH = 96, 24_300
"""Pixels of a side; pairs of pictures in each of both files."""


@dataclass(frozen=True)
class Config:
    """How large the pictures are."""

    size: Literal[96, 64, 48, 32] = option(64, "height and width in pixels: the mean of those that a pixel covers")


class SmallNorb(FactorDataset[Config]):
    """Factors category 5, instance 10, elevation 9, azimuth 18, lighting 6; splits by instance as published."""

    counted = True
    reads = f"{STEMS['train']}-dat.mat and its -cat.mat and -info.mat, and those of the test set, .gz or not"
    factor_names = ("category", "instance", "elevation", "azimuth", "lighting")
    factor_kinds = ("categorical", "categorical", "ordinal", "circular", "categorical")
    factor_sizes = GRID

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.spec = DataSpec("image", (1, config.size, config.size), classes=CLASSES)
        images, rows, where = [], [], {}
        for split, stem in STEMS.items():
            place = files.find(f"{stem}-dat.mat", f"{stem}-dat.mat.gz", f"*/{stem}-dat.mat", f"*/{stem}-dat.mat.gz")
            if place is None:
                raise UsageError(f"data set 'smallnorb' is not drawn: put {self.reads} into a folder, add --data-dir.")
            ending = place.name.removeprefix(f"{stem}-dat")
            pictures = matrix(place, (EACH, 2, SIDE, SIDE), np.dtype("u1"))[:, 0]
            category = matrix(place.with_name(f"{stem}-cat{ending}"), (EACH,), np.dtype("<i4"))
            info = matrix(place.with_name(f"{stem}-info{ending}"), (EACH, 4), np.dtype("<i4"))
            levels = np.column_stack([category, info[:, 0], info[:, 1], info[:, 2] // 2, info[:, 3]]).astype(np.int64)
            if (levels < 0).any() or (levels >= GRID).any():
                raise DistkError(f"'{place.with_name(f'{stem}-info{ending}')}' has values beyond {GRID}.")
            row = np.ravel_multi_index(tuple(levels.T), GRID)
            images.append(_shrunk(pictures, config.size))
            rows.append(row)
            where[split] = np.sort(row)
            self.origin = f"read from {place.parent}"
        every = np.concatenate(rows)
        if len(np.unique(every)) != math.prod(GRID):
            raise DistkError(f"{self.origin}: the pictures are not every combination of the factors once.")
        self.pixels = Stored(np.concatenate(images)[np.argsort(every)], device, files.where)
        self.stored = (self.pixels,)
        self.parts = {split: torch.from_numpy(rows).to(device) for split, rows in where.items()}

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `label` int64 `[n]` the category, `factors` int64 `[n, 5]`."""
        levels = self.factors(rows)
        return {"x": self.pixels[rows].unsqueeze(1).float() / 255, "label": levels[:, 0], "factors": levels}


def _shrunk(pictures: np.ndarray, size: int) -> np.ndarray:
    """Pictures uint8 `[n, 96, 96]` at another size, by the mean over each pixel's area, rounded."""
    if size == SIDE:
        return np.ascontiguousarray(pictures)
    made = np.empty((len(pictures), size, size), dtype=np.uint8)
    for start in range(0, len(pictures), 1024):
        part = torch.from_numpy(np.ascontiguousarray(pictures[start : start + 1024]))[:, None].float()
        made[start : start + 1024] = F.interpolate(part, (size, size), mode="area")[:, 0].round().byte().numpy()
    return made


def matrix(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The matrix of one official file. Raises DistkError for another type or shape, and for a file that ends early."""
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            magic, count = struct.unpack("<Ii", file.read(8))
            if MAGIC.get(magic) != dtype or count != len(shape):
                raise DistkError(f"'{path}' is no matrix of {dtype} with {counted(len(shape), 'dimension')}.")
            sizes = struct.unpack(f"<{max(3, count)}i", file.read(4 * max(3, count)))
            if sizes[:count] != shape:
                raise DistkError(f"'{path}': expected the shape {shape}, found {sizes[:count]}.")
            wanted = math.prod(shape) * dtype.itemsize
            raw = file.read(wanted + 1)
    except FileNotFoundError:
        raise UsageError(f"'{path.name}' is missing beside its -dat.mat in '{path.parent}'.") from None
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DistkError(f"'{path}' cannot be read: {' '.join(str(error).split())[:200]}.") from error
    if len(raw) != wanted:
        raise DistkError(f"'{path}' holds {'more' if len(raw) > wanted else 'less'} than its header says.")
    return np.frombuffer(raw, dtype).reshape(shape)
