"""Pictures of persons with their identities, from an npz file that the user has made: CUHK03, Market-1501 and the like.

Keys: `imagedata` uint8 `[N, height, width, 3]` and `identity` whole numbers `[N]`; where present, the booleans
`train_indices_bool`, `valid_indices_bool` and `test_indices_bool` `[N]` are the split, else every fifth identity is the
test. The pictures themselves must be asked for from their owners and are for research only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, DistkError, Files, UsageError, option
from distk.arrays import open_npz
from distk.console import counted

FOLDS = 5


@dataclass(frozen=True)
class Config:
    """Which identities count."""

    drop: tuple[int, ...] = option((-1,), "identities to leave out; Market-1501: -1,0 (junk and distractors)")
    fold: int = option(
        0, "which fifth of the identities is the test, where the file has no split", min=0, max=FOLDS - 1
    )


class Reid(Dataset[Config]):
    """Pictures of persons, label = identity, renumbered 0, 1, ... in ascending order."""

    reads = "reid.npz, or the only .npz there, with imagedata uint8 [N, height, width, 3] and identity [N]"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        path = files.find("reid.npz", "*.npz") if files.required else files.find("reid.npz")
        if path is None:
            raise UsageError(f"data set '{files.name}' needs its file: add --data-dir DIR with {self.reads}.")
        found = read(path)
        keep = ~np.isin(found["identity"], config.drop)
        if not keep.any():
            raise DistkError(f"'{path}' holds no picture of an identity that is not left out.")
        kinds, label = np.unique(found["identity"][keep], return_inverse=True)
        self.images = torch.from_numpy(found["imagedata"][keep].transpose(0, 3, 1, 2).copy()).to(device)
        self.label = torch.from_numpy(label.reshape(-1).astype(np.int64)).to(device)
        self.spec = DataSpec("image", tuple(self.images.shape[1:]))
        self.origin = f"{counted(len(label), 'picture')} of {counted(len(kinds), 'person')} read from {path}"
        self.parts = self._splits(path, {k: v[keep] for k, v in found.items() if k.endswith("_bool")}, len(kinds))

    def _splits(self, path: Path, marks: dict[str, np.ndarray], kinds: int) -> dict[str, Tensor]:
        if "test_indices_bool" in marks:
            test = torch.from_numpy(marks["test_indices_bool"].copy())
            train = torch.from_numpy(marks.get("train_indices_bool", ~marks["test_indices_bool"]).copy())
            train |= torch.from_numpy(marks.get("valid_indices_bool", np.zeros(len(train), dtype=bool)).copy())
            if bool((train & test).any()) or not bool(train.any()) or not bool(test.any()):
                raise DistkError(f"in '{path}' the training and the test rows overlap, or one of them is empty.")
        else:
            place = torch.empty(kinds, dtype=torch.long)
            place[torch.randperm(kinds, generator=torch.Generator().manual_seed(1501))] = torch.arange(kinds)
            test = (place % FOLDS == self.config.fold)[self.label.cpu()]
            train = ~test
        return {"train": train.nonzero()[:, 0].to(self.device), "test": test.nonzero()[:, 0].to(self.device)}

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, height, width]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.images.index_select(0, rows).float() / 255, "label": self.label[rows]}


def read(path: Path) -> dict[str, np.ndarray]:
    """The known arrays of an npz file; other members are not touched.

    Raises DistkError for missing keys, other types or shapes, or a damaged archive.
    """
    expected = "expected imagedata uint8 [N, height, width, 3] and identity [N]"
    with open_npz(path, "imagedata uint8 [N, height, width, 3] and identity [N]") as file:
        if not {"imagedata", "identity"} <= set(file.names):
            raise DistkError(f"'{path}': {expected}, found {', '.join(sorted(file.names))[:200] or 'nothing'}.")
        marks = sorted({"train_indices_bool", "valid_indices_bool", "test_indices_bool"} & set(file.names))
        found = {name: file.read(name) for name in ("imagedata", "identity", *marks)}
    images, n = found["imagedata"], len(found["imagedata"])
    sound = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3 and max(images.shape[1:3]) <= 1024
    if not sound or found["identity"].dtype.kind not in "iu" or found["identity"].shape != (n,) or not n:
        shapes = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in found.items())
        raise DistkError(f"'{path}': {expected}, found {shapes}.")
    if any(found[m].dtype != np.bool_ or found[m].shape != (n,) for m in marks):
        raise DistkError(f"'{path}': {', '.join(marks)} must be {counted(n, 'boolean')} each.")
    return found
