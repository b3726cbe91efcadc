"""xor: the four patterns of exclusive or."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files


class Xor(Dataset):
    """Vectors (0,0), (0,1), (1,0), (1,1); the label is 1 where the two differ. There is no test split."""

    def __init__(self, config: Any, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], device=device)
        self.label = torch.tensor([0, 1, 1, 0], device=device)
        self.spec = DataSpec("vector", (2,), classes=("equal", "different"))
        self.origin = "the four patterns"

    def __len__(self) -> int:
        return 4

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 2]` of 0 and 1, `label` int64 `[n]`."""
        return {"x": self.x[rows], "label": self.label[rows]}
