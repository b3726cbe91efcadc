"""SVHN, cropped digits (Netzer et al. 2011): colour house numbers at 32x32, from the authors' MATLAB files.

`train_32x32.mat` (73,257 digits) and `test_32x32.mat` (26,032), MATLAB v5: `X` uint8 [32, 32, 3, N] as height, width,
channel, index LAST, and `y` [N, 1] with 1 to 10, where 10 means the digit 0. Free for non-commercial research only.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, DistkError, Files, UsageError, permuted_split
from distk.console import counted
from distk.plugins.datasets.matfile import arrays

LARGEST = 1_000_000
"""Digits that a file may hold; the largest official one has 531,131."""
NAMES = ("train_32x32.mat", "test_32x32.mat")


def read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An SVHN file -> images uint8 `[N, 3, 32, 32]` and labels int64 `[N]` in 0..9.

    Raises DistkError for another format, missing variables, or arrays of another shape or type.
    """
    try:
        content = path.read_bytes()
        if content[:10] != b"MATLAB 5.0":
            kind = "is of MATLAB v7.3 (HDF5)" if content[:10] == b"MATLAB 7.3" or content[1:4] == b"HDF" else "is none"
            raise DistkError(f"'{path}': expected a MATLAB v5 file, and this {kind}; save it with `-v6` or `-v7`.")
        held = arrays(content)
        _check(path, {name: (array.shape, array.kind) for name, array in held.items()})
        pixels, labels = held["X"].read().astype(np.uint8), held["y"].read()
    except (OSError, zlib.error, MemoryError, ValueError) as error:
        raise DistkError(f"cannot read '{path}': {error}: it is cut off or damaged.") from error
    flat = labels.reshape(-1)
    if not np.isin(flat, np.arange(1, 11)).all():
        raise DistkError(f"'{path}': `y` goes from {flat.min()} to {flat.max()}, and SVHN's labels are 1 to 10.")
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), flat.astype(np.int64) % 10


def _check(path: Path, held: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Names, shapes and types, before anything is allocated by them and again afterwards."""
    found = ", ".join(f"{name} {kind} {list(shape)}" for name, (shape, kind) in held.items()) or "nothing"
    (x, x_kind), (y, y_kind) = (held.get(name, ((), "")) for name in ("X", "y"))
    right = len(x) == 4 and x[:3] == (32, 32, 3) and x_kind == "uint8" and y in ((x[3], 1), (1, x[3]))
    if not right or not y_kind.startswith(("uint", "int", "double", "float")):
        raise DistkError(f"'{path}': expected X uint8 [32, 32, 3, N] and y [N, 1], found {found}.")
    if not 0 < x[3] <= LARGEST:
        raise DistkError(f"'{path}' holds {counted(x[3], 'digit')}; between 1 and {LARGEST:,} are read.")


class Svhn(Dataset):
    """Street View House Numbers, cropped digits; label 0..9. The test split is the test file, else a tenth."""

    reads = "train_32x32.mat and test_32x32.mat (ufldl.stanford.edu/housenumbers, MATLAB v5)"

    def __init__(self, config: Any, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        path = files.find(NAMES[0])
        if path is None:
            looked = ", ".join(f"'{folder}'" for folder in files.folders) or "no folder: DISTK_DATA is not set"
            raise UsageError(
                f"data set '{files.name}' needs {' and '.join(NAMES)} (looked at {looked}): name their folder with "
                "--data-dir, or train without a download: --data styled-digits, for pairs --primary styled-digits "
                "--secondary digits28."
            )
        images, labels = read_mat(path)
        cut, test = len(images), path.with_name(NAMES[1])
        if test.is_file():
            more, more_labels = read_mat(test)
            images, labels = np.concatenate([images, more]), np.concatenate([labels, more_labels])
        self.images = torch.from_numpy(images).to(device)
        self.label = torch.from_numpy(labels).to(device)
        self.spec = DataSpec("image", (3, 32, 32), classes=tuple("0123456789"))
        self.origin = f"{counted(len(images), 'digit')} read from {path.parent}"
        rows = torch.arange(len(images), device=device)
        split = {"train": rows[:cut], "test": rows[cut:]}
        self.parts = split if cut < len(images) else permuted_split(cut, 0.1, 0, device) if cut > 1 else {}

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, 32, 32]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.images.index_select(0, rows).float() / 255, "label": self.label[rows]}
