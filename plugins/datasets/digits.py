"""The handwritten digits that scikit-learn carries: 1,797 real 8x8 images of 43 writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distk import Dataset, DataSpec, Files, option


@dataclass(frozen=True)
class Config:
    """How large the pictures are."""

    size: Literal[8, 16, 28, 32, 64] = option(32, "height and width in pixels; above 8 enlarged bicubically")


class Digits(Dataset[Config]):
    """Grey digits, label 0..9; the first 1,197 rows are the training split, the other 600 (other writers) the test."""

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        from sklearn.datasets import load_digits

        raw = load_digits()
        x = torch.tensor(raw.images, dtype=torch.float32, device=device).unsqueeze(1) / 16
        if config.size != 8:
            x = F.interpolate(x, size=(config.size, config.size), mode="bicubic", antialias=False).clamp_(0, 1)
        self.x = x
        self.label = torch.tensor(raw.target, device=device, dtype=torch.long)
        self.spec = DataSpec("image", (1, config.size, config.size), classes=tuple("0123456789"))
        self.origin = "real handwriting bundled with scikit-learn"
        everything = torch.arange(len(x), device=device)
        self.parts = {"train": everything[:1197], "test": everything[1197:]}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.x.index_select(0, rows), "label": self.label[rows]}
