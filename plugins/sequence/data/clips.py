"""What the clip data sets share, and the smallest of them: clips of vectors with a known answer to every transfer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, FactorDataset, Files, UsageError, option
from distk.config import C

ACTIONS = tuple(
    f"{action} {direction}" for action in ("walk", "spellcard", "slash") for direction in ("front", "left", "right")
)
"""Motion class = 3 * action + direction."""
ATTRIBUTES = ("body", "bottom", "top", "hair")
FRAMES = 8


class ClipDataset(FactorDataset[C]):
    """Clips of which some factors are static (the appearance) and the last one is the motion.

    `transfer_target`, `appearance` and `motion` are what the scores of exchanged codes ask for.
    """

    factor_names = (*ATTRIBUTES, "action")
    factor_kinds = ("categorical",) * 5
    motion_factor = "action"

    def appearance(self, rows: Tensor) -> Tensor:
        """Rows int64 `[n]` -> number of the character, int64 `[n]`."""
        values = self.factors(rows)[:, :-1]
        number = torch.zeros_like(rows)
        for k, size in enumerate(self.factor_sizes[:-1]):
            number = number * size + values[:, k]
        return number

    def motion(self, rows: Tensor) -> Tensor:
        """Rows int64 `[n]` -> class of the motion, int64 `[n]`."""
        return self.factors(rows)[:, -1]

    def transfer_rows(self, a: Tensor, b: Tensor) -> Tensor:
        """Rows of the clips that show the characters of rows `a` in the motions of rows `b`.

        Raises UsageError when the data lack such a clip.
        """
        wanted = self.appearance(a) * self.factor_sizes[-1] + self.motion(b)
        if self.is_grid:
            return wanted
        if not hasattr(self, "_place"):
            every = torch.arange(len(self), device=self.device)
            place = torch.full((math.prod(self.factor_sizes),), -1, device=self.device)
            place[self.appearance(every) * self.factor_sizes[-1] + self.motion(every)] = every
            self._place = place
        found = self._place[wanted]
        if bool((found < 0).any()):
            raise UsageError(f"data set '{self.name}' lacks some characters' other motions, so no transfer is exact.")
        return found

    def transfer_target(self, a: Tensor, b: Tensor) -> Tensor:
        """The true clips of a transfer: appearance of rows `a` with motion of rows `b`, as `batch(...)["x"]`."""
        return self.batch(self.transfer_rows(a, b))["x"]


def character_split(sizes: tuple[int, ...], train: int, device: torch.device) -> dict[str, Tensor]:
    """Li & Mandt's split by character, of a grid whose last factor is the motion: all motions of one in one split.

    Characters are permuted by the legacy generator RandomState(423); the first `train` of them are for training.
    """
    characters, motions = math.prod(sizes[:-1]), sizes[-1]
    order = torch.from_numpy(np.random.RandomState(423).permutation(characters))

    def rows(chosen: Tensor) -> Tensor:
        return (chosen[:, None] * motions + torch.arange(motions)).flatten().sort().values.to(device)

    return {"train": rows(order[:train]), "test": rows(order[train:])}


@dataclass(frozen=True)
class VectorConfig:
    """How many clips there are, and how noisy."""

    clips: int = option(20_000, "clips; every tenth is a test clip", min=20, max=10_000_000)
    noise: float = option(0.1, "standard deviation of the observation noise", min=0)
    data_seed: int = option(0, "seed of the mixing matrix and of the clips", min=0, max=2**31)


class VectorClips(Dataset[VectorConfig]):
    """Clips of 12 numbers over 8 frames: x_t = A s + B y_t + noise, [A|B] 12x6 with orthonormal columns.

    s ~ N(0, I_4) is the static part; y_t = 1.4 r (cos(phi + wt), sin(phi + wt)) turns at w = 0.5 or 1.2 per frame
    (the label), r ~ U[0.7, 1.3], phi ~ U[0, 2 pi). The exact result of every transfer is A s_a + B y_b.
    """

    speeds = (0.5, 1.2)

    def __init__(self, config: VectorConfig, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        n = config.clips
        draw = torch.Generator().manual_seed(config.data_seed)
        mixing = torch.linalg.qr(torch.randn(12, 6, generator=draw, dtype=torch.float64)).Q.float()
        label = torch.randint(2, (n,), generator=draw)
        radius = 1.4 * (0.7 + 0.6 * torch.rand(n, generator=draw))
        phase = 2 * math.pi * torch.rand(n, generator=draw)
        angle = phase[:, None] + torch.tensor(self.speeds)[label][:, None] * torch.arange(FRAMES)
        moving = torch.stack([angle.cos(), angle.sin()], -1) * radius[:, None, None]
        noise = config.noise * torch.randn(n, FRAMES, 12, generator=draw)
        self.static = (torch.randn(n, 4, generator=draw) @ mixing[:, :4].T).to(device)
        self.moving = (moving @ mixing[:, 4:].T).to(device)
        self.x = self.static[:, None] + self.moving + noise.to(device)
        self.label = label.to(device)
        self.spec = DataSpec("vector-clip", (FRAMES, 12), (-6.0, 6.0), classes=("slow", "fast"))
        self.origin = f"{n:,} procedural clips of vectors: a static part plus a rotation"
        every = torch.arange(n, device=device)
        self.parts = {"train": every[every % 10 != 0], "test": every[every % 10 == 0]}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 8, 12]`, `label` int64 `[n]`: 0 slow, 1 fast."""
        return {"x": self.x.index_select(0, rows), "label": self.label[rows]}

    def transfer_target(self, a: Tensor, b: Tensor) -> Tensor:
        """Static part of rows `a` with the rotation of rows `b`, without noise, float32 `[n, 8, 12]`."""
        return self.static[a][:, None] + self.moving[b]
