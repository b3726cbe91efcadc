"""CIFAR-10 in its binary version (Krizhevsky 2009).

`cifar-10-binary.tar.gz`, or its folder `cifar-10-batches-bin`: `data_batch_1.bin` to `data_batch_5.bin` and
`test_batch.bin`, each 10,000 records of 3,073 bytes: a label 0..9 and an image (`cifar_binary`). Others may be missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, open_dataset, permuted_split
from distk.console import counted, warn_once
from distk.plugins.datasets.cifar_binary import Form, find, labels, read

FORM = Form(
    title="CIFAR-10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test="test_batch.bin",
    labels=1,
    whole=10_000,
    pickles=("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_[1-5]"),
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10(Dataset):
    """Colour photographs 32x32 with labels. Without its files the stand-in `deadleaves` takes its place, unlabelled."""

    reads = FORM.reads
    stand_in: Dataset | None = None

    def __init__(self, config: Any, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        found = find(FORM, files)
        if found is None:
            self.stand_in = made = open_dataset("deadleaves", device=device)
            self.spec, self.parts = made.spec, made.parts
            self.origin = f"no CIFAR-10 files found: stand-in deadleaves, {made.origin}"
            warn_once(
                f"no CIFAR-10 files found, so '{files.name}' is the stand-in deadleaves; name them with --data-dir."
            )
            return
        parts = read(FORM, found)
        train = [parts[name] for name in FORM.train if name in parts]
        cut = sum(map(len, train))
        records = np.concatenate([*train, *([parts[FORM.test]] if FORM.test in parts else [])])
        self.label = torch.from_numpy(labels(FORM, found, records, 0, len(CLASSES))).to(device)
        self.images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()).to(device)
        self.spec = DataSpec("image", (3, 32, 32), classes=CLASSES)
        part = "" if len(records) == 60_000 else ", a part of the data set"
        self.origin = f"{counted(len(records), 'image')} read from {found}{part}"
        everything = torch.arange(len(records), device=device)
        split = {"train": everything[:cut], "test": everything[cut:]}
        self.parts = split if cut < len(records) else permuted_split(cut, 0.1, 0, device)

    def __len__(self) -> int:
        return len(self.stand_in) if self.stand_in is not None else len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, 32, 32]` in [0, 1], `label` int64 `[n]` (not for the stand-in)."""
        if self.stand_in is not None:
            return self.stand_in.batch(rows)
        return {"x": self.images.index_select(0, rows).float() / 255, "label": self.label[rows]}
