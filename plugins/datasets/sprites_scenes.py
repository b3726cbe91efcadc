"""Scenes of several sprites on black, added and clipped, as in the experiments of Nash et al. (2017).

Training scenes are drawn anew for every batch, on the device, and never repeat; the rows of the data set are further,
fixed scenes for thresholds and tests. Lengths are in units of the image's side, places from its top left corner.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distk import DataSpec, FactorDataset, Files, Split, UsageError, option
from distk.console import counted
from distk.nn import shapes
from distk.plugins.datasets.dsprites import NPZ, SHAPES, read_packed

RADIUS = 0.19
SQUARE, ELLIPSE, HEART = 0.7, (0.55, 0.95), 1.25
GRID = (3, 6, 40, 32, 32)
"""Shapes, scales, orientations, x and y of the official file, the last fastest."""

Scene = dict[str, Tensor]
"""exists, scale, orientation, px, py float32 `[n, M]`, shape int64 `[n, M]`, rgb float32 `[n, M, 3]`, count int64
`[n]`.

exists is 1 or 0; the other values of a sprite that does not exist mean nothing. orientation in radians,
counter-clockwise. With shapes from the file also `image` int64 `[n, M]`, the sprite's row there.
"""


def coverage(scene: Scene, size: int) -> Tensor:
    """Share of each pixel that each sprite covers, whether it exists or not: float32 `[n, M, size, size]`.

    clamp(0.5 - d, 0, 1) with d the distance to the outline in pixels, negative inside.
    """
    centre = (torch.arange(size, device=scene["px"].device) + 0.5) / size
    x, y, angle, radius, shape = (
        value[..., None, None]
        for value in (scene["px"], scene["py"], scene["orientation"], RADIUS * scene["scale"], scene["shape"])
    )
    right, up = (centre - x) / radius, (y - centre[:, None]) / radius
    cos, sin = angle.cos(), angle.sin()
    u, v = cos * right + sin * up, cos * up - sin * right
    square, ellipse = shapes.box((u, v), (0, 0), (SQUARE, SQUARE)), shapes.ellipsoid((u, v), (0, 0), ELLIPSE)
    heart = shapes.heart((HEART * u, HEART * v)) / HEART
    distance = torch.where(shape == 0, square, torch.where(shape == 1, ellipse, heart))
    return shapes.coverage(distance * (radius * size))


@dataclass(frozen=True)
class Config:
    """What is in a scene, and how many fixed ones there are."""

    max_sprites: int = option(3, "sprites per scene at most", paper="3 and 8", min=1, max=64)
    size: Literal[16, 32, 64] = option(64, "height and width in pixels", paper="64")
    exists: float = option(0.5, "probability of each sprite to be there", paper="not given", above=0, max=1)
    darkest: float = option(0.2, "smallest value of a colour channel", min=0, max=1)
    fixed: int = option(6400, "fixed scenes of the train split, for thresholds", paper="6,400", min=1, max=10_000_000)
    test: int = option(12_800, "fixed scenes of the test split", paper="12,800", min=1, max=10_000_000)


class SpritesScenes(FactorDataset[Config]):
    """Sprites with independent existence, shape, scale, orientation, place and colour; the factor is their count.

    `sample` draws new scenes for the train split; rows, and the other splits, are the fixed ones. Blending adds: where
    sprites overlap the image is brighter, up to 1, and none lies before the other.
    """

    reads = f"{NPZ} (optional: its pictures as sprites)"
    factor_names = ("count",)
    factor_kinds = ("ordinal",)

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        most = config.max_sprites
        self.spec = DataSpec(
            "image",
            (3, config.size, config.size),
            classes=tuple(str(k) for k in range(most + 1)),
            extra={"max_sprites": most},
        )
        self.sprites: Tensor | None = None
        self.origin = f"up to {counted(most, 'sprite')} rendered on the device, training scenes never repeat (no file)"
        if files.required:
            self._use_file(files)
        self._bits = torch.arange(7, -1, -1, device=device, dtype=torch.uint8)
        # On the host, so that the fixed scenes are the same ones on every device.
        drawn = self._describe(
            torch.rand(config.fixed + config.test, most, 9, generator=_seeded(), dtype=torch.float64)
        )
        self.scenes = {key: value.to(device) for key, value in drawn.items()}
        self.factor_sizes = (most + 1,)
        self.table = self.scenes["count"].unsqueeze(1)
        everything = torch.arange(len(self.table), device=device)
        self.parts = {"train": everything[: config.fixed], "test": everything[config.fixed :]}

    def _use_file(self, files: Files) -> None:
        path = files.find(NPZ, f"*/{NPZ}")
        assert path is not None  # `find` raises where the user named a folder without it
        if self.config.size != 64:
            raise UsageError(f"the file '{path.name}' holds 64x64 images: leave --size at 64 or do without --data-dir.")
        self.sprites = read_packed(path).to(self.device)
        self.origin = f"up to {counted(self.config.max_sprites, 'sprite')} whose pictures are read from {path}"

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The fixed scenes of these rows: `x` float32 `[n, 3, size, size]`, `label` int64 `[n]`, and a `Scene`."""
        return self._with_image({key: value[rows] for key, value in self.scenes.items()})

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` scenes: new ones for the train split, else fixed ones with replacement."""
        if split != "train":
            return self.batch(self.sample_rows(n, generator, split))
        return self._with_image(self.draw(n, generator))

    def _with_image(self, scene: Scene) -> dict[str, Tensor]:
        return {"x": self.render(scene), "label": scene["count"], "factors": scene["count"].unsqueeze(1), **scene}

    def draw(self, n: int, generator: torch.Generator) -> Scene:
        """`n` new scenes."""
        return self._describe(torch.rand(n, self.config.max_sprites, 9, generator=generator, device=self.device))

    def _describe(self, uniform: Tensor) -> Scene:
        """Numbers `[n, M, 9]` uniform on [0, 1) -> a scene.

        With a file the pictures decide about shape, scale, orientation and place, and `image` names them.
        """
        exists = (uniform[..., 0] < self.config.exists).float()
        scene: Scene = {"exists": exists, "count": exists.sum(1).long()}
        parts = uniform[..., 1:6]
        if self.sprites is None:
            shape = (parts[..., 0] * 3).long().clamp(max=2)
            scale, angle = 0.5 + 0.5 * parts[..., 1], 2 * math.pi * parts[..., 2]
            x, y = 0.2 + 0.6 * parts[..., 3], 0.2 + 0.6 * parts[..., 4]
        else:
            shape, *others = ((parts[..., k] * size).long().clamp(max=size - 1) for k, size in enumerate(GRID))
            image = shape
            for value, size in zip(others, GRID[1:], strict=True):
                image = image * size + value
            scene["image"] = image
            scale, angle = 0.5 + 0.1 * others[0], others[1] * (2 * math.pi / 39)
            x, y = (0.25 + 0.5 * place / 31 for place in others[2:])
        scene |= {
            "shape": shape,
            "scale": scale.float(),
            "orientation": angle.float(),
            "px": x.float(),
            "py": y.float(),
        }
        scene["rgb"] = (self.config.darkest + (1 - self.config.darkest) * uniform[..., 6:]).float()
        return scene

    def masks(self, scene: Scene) -> Tensor:
        """Share of each pixel that each existing sprite covers, float32 `[n, M, size, size]`; 0 for the others."""
        size = self.config.size
        if self.sprites is None:
            shapes = coverage(scene, size)
        else:
            packed = self.sprites[scene["image"]].unsqueeze(-1)
            shapes = ((packed >> self._bits) & 1).float().view(*scene["image"].shape, size, size)
        return shapes * scene["exists"][..., None, None]

    def render(self, scene: Scene) -> Tensor:
        """clip(sum over sprites of coverage times colour, 0, 1): float32 `[n, 3, size, size]`."""
        return torch.einsum("nmhw,nmc->nchw", self.masks(scene), scene["rgb"]).clamp(0, 1)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


__all__ = ["SHAPES", "Config", "Scene", "SpritesScenes", "coverage"]
