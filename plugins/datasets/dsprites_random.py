"""dSprites with something in each picture that is no factor, as Locatello et al. 2019 made them: a colour of the
sprite, noise around it, or a piece of a painting behind it.

Training draws it anew for every item, as published. What scores see is fixed: it follows from the row's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distk import DataSpec, DistkError, FactorDataset, Files, UsageError, option
from distk.data import Split
from distk.files import expanded
from distk.pictures import plain
from distk.plugins.datasets.dsprites import NPZ, SHAPES, DSprites
from distk.plugins.datasets.dsprites import Config as PlainConfig
from distk.stored import uniform_at

SIDE = 64
CANVAS = (350, 274)
"""Width and height that the painting is shrunk to fit into, as published."""
PICTURES = ("scream.jpg", "scream.png", "*/scream.jpg", "*/scream.png")


class Disturbed(FactorDataset[PlainConfig]):
    """Factors, rows and splits are those of dSprites. A subclass says how many numbers it draws for an item, `draws`,
    and what becomes of the sprite with them, `changed`."""

    reads = NPZ
    factor_names = DSprites.factor_names
    factor_kinds = DSprites.factor_kinds

    def __init__(self, config: Any, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        own = {name: getattr(config, name) for name in PlainConfig.__dataclass_fields__}
        self.grey = DSprites(PlainConfig(**own), device, self._files(files))
        self.factor_sizes, self.parts = self.grey.factor_sizes, self.grey.parts
        self.spec = DataSpec("image", (3, config.size, config.size), classes=SHAPES)
        self.origin = f"dSprites {self.grey.origin}"

    def _files(self, files: Files) -> Files:
        """Where the sprites lie."""
        return files

    @property
    def draws(self) -> int:
        """Numbers in [0, 1) that an item takes."""
        raise NotImplementedError

    def changed(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Sprites `[n, 1, size, size]` of 0 and 1 and numbers `[n, draws]` -> `[n, 3, size, size]` in [0, 1]."""
        raise NotImplementedError

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, size, size]` in [0, 1], `label` int64 `[n]` the shape, `factors` int64 `[n, 5]`."""
        return self._made(rows, uniform_at(rows, self.draws))

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Any = None
    ) -> dict[str, Tensor]:
        """`n` items, each with numbers of its own from the generator."""
        rows = self.sample_rows(n, generator, split)
        return self._made(rows, torch.rand(n, self.draws, generator=generator, device=self.device))

    def _made(self, rows: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        batch = self.grey.batch(rows)
        return {**batch, "x": self.changed(batch["x"], drawn)}


class DSpritesRGB(Disturbed):
    """The sprite in a colour whose red, green and blue are uniform on [0.5, 1]."""

    draws = 3

    def changed(self, x: Tensor, drawn: Tensor) -> Tensor:
        return x * (0.5 + 0.5 * drawn)[:, :, None, None]


class DSpritesNoisy(Disturbed):
    """A white sprite before noise that is uniform on [0, 1] in every pixel and channel."""

    @property
    def draws(self) -> int:
        return 3 * int(self.config.size) ** 2

    def changed(self, x: Tensor, drawn: Tensor) -> Tensor:
        return (x + drawn.view(len(x), 3, *x.shape[2:])).clamp_max(1)


@dataclass(frozen=True)
class ScreamConfig(PlainConfig):
    """The part of dSprites, and the painting."""

    picture: str = option("", "the painting, or any other picture; default: scream.jpg in --data-dir", place=True)


class DSpritesScream(Disturbed):
    """A sprite that turns round the colours of what lies behind it: a piece of a painting, mixed in equal parts with a
    colour that is uniform on [0, 1]."""

    Config = ScreamConfig
    reads = f"scream.jpg, and {NPZ} or nothing"
    draws = 5

    def __init__(self, config: ScreamConfig, device: torch.device, files: Files) -> None:
        path = _painting(config.picture, files)
        self.painting = painting(path, config.size).to(device)
        super().__init__(config, device, files)
        self.origin = f"dSprites {self.grey.origin}, before pieces of '{path}'"
        step = torch.arange(config.size, device=device)
        self._across = (step[:, None], step[None, :])

    def _files(self, files: Files) -> Files:
        """A folder that holds a painting need not hold sprites."""
        if files.required and not any(files.folders[0].glob(f"**/{NPZ}")):
            return Files(files.name, None, files.reads, files.model, files.where)
        return files

    def changed(self, x: Tensor, drawn: Tensor) -> Tensor:
        size = x.shape[-1]
        room = torch.tensor(self.painting.shape[1:], device=x.device) - size
        corner = (drawn[:, :2] * room).long()
        down, across = (corner[:, i, None, None] + step for i, step in enumerate(self._across))
        behind = (self.painting[:, down, across].movedim(0, 1) + drawn[:, 2:, None, None]) / 2
        return torch.where(x > 0, 1 - behind, behind)


def _painting(named: str, files: Files) -> Path:
    if named:
        path = expanded(named)
        if not path.is_file():
            raise UsageError(f"--picture '{named}' is no file.")
        return path
    for folder in files.folders:
        if folder.is_file() and folder.suffix.lower() in (".jpg", ".jpeg", ".png"):
            return folder
        for name in PICTURES if folder.is_dir() else ():
            if found := sorted(folder.glob(name)):
                return found[0]
    raise UsageError(
        "data set 'dsprites-scream' needs a painting: name one with --picture FILE, or put scream.jpg into --data-dir."
    )


def painting(path: Path, size: int) -> Tensor:
    """A picture shrunk to fit into 350x274, float32 `[3, height, width]`; for sprites of 32 pixels into half of that.

    Raises DistkError for what is no picture, or too small to cut pieces from.
    """
    (pixels,) = plain([(path, str(path))], "RGB")
    image = Image.fromarray(pixels)
    image.thumbnail((CANVAS[0] * size // SIDE, CANVAS[1] * size // SIDE))
    if min(image.size) <= size:
        height, width = pixels.shape[:2]
        raise DistkError(f"'{path}' has {width}x{height} pixels; more than {size} a side are needed.")
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255
