"""Scenes for mvae's commands, from data sets and pictures, and the sheets that the commands draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from distk import Dataset, images
from distk.errors import UsageError
from distk.pictures import plain
from distk.plugins.vae_family.mvae.method import MVAE, checked
from distk.sheet import Sheet


def images_of(dataset: Dataset, rows: Tensor) -> Tensor:
    """The images of these rows. Raises DistkError for values outside [0, 1]."""
    return checked(dataset.batch(rows.to(dataset.device))["x"], f"data set '{dataset.name}'")


def read_image(path: Path, model: MVAE) -> Tensor:
    """A picture as the model takes it, float32 `[1, c, s, s]` in [0, 1]; what is transparent becomes black.

    Raises UsageError for another size, DistkError for a file that is no sound picture.
    """
    channels, height, width = model.spec.shape
    if not path.exists():
        raise UsageError(f"there is no picture '{path}'.")
    (pixels,) = plain([(path, str(path))], "RGBA")
    if pixels.shape[:2] != (height, width):
        raise UsageError(f"'{path}' has {pixels.shape[1]}x{pixels.shape[0]} pixels; the model takes {width}x{height}.")
    layered = Pillow.fromarray(pixels)
    black = Pillow.new("RGBA", layered.size, (0, 0, 0, 255))
    array = np.asarray(Pillow.alpha_composite(black, layered).convert("RGB" if channels == 3 else "L"))
    x = torch.from_numpy(array.copy()).float().div(255).view(height, width, channels)
    return x.permute(2, 0, 1).unsqueeze(0).to(model.device)


def draw(target: Path, rows: dict[str, Tensor], title: str = "", heads: Sequence[str] = ()) -> None:
    """Write rows of images `[n, c, s, s]` under one another, each with its label."""
    big = [images.enlarge(images.as_rgb(row)) for row in rows.values()]
    Sheet(torch.cat(big), len(big[0]), rows=list(rows), heads=heads, title=title).write(target)
