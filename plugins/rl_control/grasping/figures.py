"""Pictures: what a view gives as depth, silhouette and grid, and searches on their way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from distk import images
from distk.files import write_atomic
from distk.plugins.rl_control.grasping.gripper import FINGER, OPENING, PALM
from distk.sheet import Sheet
from distk.study.tables import as_figure

RED, GREEN, WHITE = (220, 40, 40), (40, 190, 60), (240, 240, 240)
SIDE = 192
"""Pixels of a picture of a strip, at least."""


def outline() -> np.ndarray:
    """Lines of the open gripper in its frame, `[lines, 2, 3]`, metres: two fingers, the palm's face, the wrist."""
    x, z = OPENING / 2 + FINGER[0] / 2, FINGER[2]
    return np.array(
        [
            [(-x, 0, 0), (-x, 0, z)],
            [(x, 0, 0), (x, 0, z)],
            [(-PALM[0] / 2, 0, 0), (PALM[0] / 2, 0, 0)],
            [(0, 0, 0), (0, 0, -2 * PALM[2])],
        ]
    )


def with_gripper(picture: Tensor, k: Tensor, camera: Tensor, pose: Tensor, colour: tuple[int, int, int]) -> Tensor:
    """A picture `[3, h, w]` in [0, 1] with the gripper (to world `[4, 4]`) drawn as the camera sees it, enlarged."""
    big = images.enlarge(picture, SIDE)
    factor = big.shape[-1] / picture.shape[-1]
    lines = outline().reshape(-1, 3)
    world = np.c_[lines, np.ones(len(lines))] @ pose.double().cpu().numpy().T
    seen = world @ np.linalg.inv(camera.double().cpu().numpy()).T
    pixels = seen[:, :3] @ k.double().cpu().numpy().T
    at = factor * pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-3)
    drawn = images.to_pil(big)
    draw = ImageDraw.Draw(drawn)
    for a, b in at.reshape(-1, 2, 2).clip(-4 * SIDE, 8 * SIDE):
        draw.line([*a, *b], fill=colour, width=3)
    return torch.from_numpy(np.asarray(drawn).copy()).permute(2, 0, 1).float() / 255


def strip(path: Path, pictures: list[list[Tensor]], labels: list[str]) -> None:
    """Rows of pictures of one size, a label beside each row, as PNG."""
    columns = max(len(row) for row in pictures)
    flat = [p for row in pictures for p in [*row, *[row[-1]] * (columns - len(row))]]
    Sheet(torch.stack(flat), columns, rows=labels).write(path)


def shapes(path: Path, rows: list[dict[str, np.ndarray]], far: float) -> None:
    """A row of panels for each view. The panels have titles; depths share one scale from near to far.

    rows: title -> picture: `[h, w, 3]` colours, or `[h, w]` numbers; titles with "depth" are metres.
    """
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    titles = list(rows[0])
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=(1.5 * len(titles), 1.65 * len(rows)), squeeze=False, layout="constrained"
    )
    for line, row in zip(axes, rows, strict=True):
        for axis, title in zip(line, titles, strict=True):
            picture = row[title]
            options: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "gray"}
            if "depth" in title:
                options = {"vmin": float(picture.min()), "vmax": min(far, float(picture.max())), "cmap": "viridis_r"}
            axis.imshow(picture, interpolation="nearest", **({} if picture.ndim == 3 else options))
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    write_atomic(path, as_figure(figure, path.suffix, 110))
    plt.close(figure)
