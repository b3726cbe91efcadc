"""Pictures: what a view gives as depth, silhouette and grid, and searches on their way."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from distk import images
from distk.plugins.rl_control.grasping.gripper import FINGER, OPENING, PALM
from distk.sheet import Sheet

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


def strip(path: Path, pictures: list[list[Tensor]], labels: list[str], title: str = "") -> None:
    """Rows of pictures of one size, a label beside each row."""
    columns = max(len(row) for row in pictures)
    flat = [p for row in pictures for p in [*row, *[row[-1]] * (columns - len(row))]]
    Sheet(torch.stack(flat), columns, rows=labels, title=title).write(path)


def shapes(path: Path, rows: list[dict[str, np.ndarray]], far: float, title: str = "") -> None:
    """A row of panels for each view, with their titles above; depths run from near (yellow) to far (violet).

    rows: title -> picture: `[h, w, 3]` colours, or `[h, w]` numbers; titles with "depth" are metres.
    """
    cells = [_panel(name, picture, far) for row in rows for name, picture in row.items()]
    side = max(cell.shape[-1] for cell in cells)
    big = [torch.nn.functional.interpolate(cell[None], (side, side), mode="nearest")[0] for cell in cells]
    names = [f"view {i + 1}" for i in range(len(rows))]
    Sheet(images.enlarge(torch.stack(big)), len(rows[0]), rows=names, heads=list(rows[0]), title=title).write(path)


def _panel(title: str, picture: np.ndarray, far: float) -> Tensor:
    """A picture of `shapes` as colours `[3, h, w]` in [0, 1]."""
    if picture.ndim == 3:
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).float()
    low, high = (float(picture.min()), min(far, float(picture.max()))) if "depth" in title else (0.0, 1.0)
    share = ((picture - low) / max(high - low, 1e-9)).clip(0, 1)
    shown = mpl.colormaps["viridis_r" if "depth" in title else "gray"](share)[..., :3]
    return torch.from_numpy(shown).permute(2, 0, 1).float()
