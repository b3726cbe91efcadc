"""strokes28: an offline stand-in for characters of foreign scripts, a few bent pen strokes each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, option, permuted_split

PEN = 1.3
"""Distance from the middle of a stroke, in pixels at size 28, at which the ink ends."""
POINTS = 48
"""Points along a stroke; at most half a pixel apart."""
STROKES = 4


@dataclass(frozen=True)
class Config:
    """Size and number of the images."""

    size: int = option(28, "height and width in pixels", min=12, max=256)
    characters: int = option(200, "different characters", min=1, max=100_000)
    instances: int = option(20, "images per character", min=1, max=10_000)


class Strokes28(Dataset[Config]):
    """Bright strokes on black; the label is the character. A fifth of the images are the test split.

    A character is 2 to 4 quadratic Bezier curves with control points uniform in [6, 22] x [6, 22]; each instance moves
    every control point by up to 0.8 pixels along both axes. Ink = 1 - smoothstep(distance / 1.3).
    """

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        draw = torch.Generator().manual_seed(0)
        control = 6 + 16 * torch.rand(config.characters, STROKES, 3, 2, generator=draw)
        strokes = torch.randint(2, STROKES + 1, (config.characters,), generator=draw)
        jitter = 1.6 * torch.rand(config.characters, config.instances, STROKES, 3, 2, generator=draw) - 0.8
        self.control = (control.unsqueeze(1) + jitter).flatten(0, 1).to(device)
        self.strokes = strokes.repeat_interleave(config.instances).to(device)
        self.label = torch.arange(config.characters, device=device).repeat_interleave(config.instances)
        names = tuple(f"character {i + 1}" for i in range(config.characters))
        self.spec = DataSpec("image", (1, config.size, config.size), classes=names)
        self.origin = f"{config.characters} invented characters of 2 to 4 strokes, rendered on the device"
        self.parts = permuted_split(len(self), 0.2, 0, device) if len(self) > 1 else {}

    def __len__(self) -> int:
        return len(self.control)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 1, size, size]` in [0, 1], `label` int64 `[n]`."""
        parts = [render(self.control[part], self.strokes[part], self.config.size) for part in rows.split(256)]
        return {"x": torch.cat(parts), "label": self.label[rows]}


def render(control: Tensor, counts: Tensor, size: int) -> Tensor:
    """Control points `[n, strokes, 3, 2]` as (x, y) on a 28x28 canvas, of which the first `counts` int64 `[n]` strokes
    are drawn -> float32 `[n, 1, size, size]` in [0, 1]. Pixel (r, c) has its centre at (c + 0.5, r + 0.5)."""
    t = torch.linspace(0, 1, POINTS, device=control.device)
    weights = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)
    path = torch.einsum("pk,nskc->nspc", weights, control)
    drawn = (torch.arange(control.shape[1], device=control.device) < counts[:, None])[:, :, None, None]
    path = torch.where(drawn, path, torch.full_like(path, -1e3)).flatten(1, 2)
    centre = (torch.arange(size, device=control.device) + 0.5) * (28 / size)
    pixels = torch.stack([centre.repeat(size), centre.repeat_interleave(size)], 1)
    distance = torch.cdist(pixels.expand(len(path), -1, -1), path).amin(2)
    u = (distance / PEN).clamp(max=1)
    return (1 - u * u * (3 - 2 * u)).view(-1, 1, size, size)
