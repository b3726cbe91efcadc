"""Pictures: PNG grids with labels, and GIFs. Images are float `[channels, height, width]` in [0, 1]."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from PIL.Image import Image
from torch import Tensor

from distk.files import write_atomic
from distk.video.writers import as_bytes, gif

PAD = 2
MARGIN = 0.35
"""Grey of the space between the images of a grid."""


def as_rgb(images: Tensor) -> Tensor:
    """Images `[n, c, h, w]` with c of 1, 3 or 4 -> `[n, 3, h, w]` on the CPU, clamped to [0, 1]."""
    images = images.detach().float().cpu().clamp(0, 1)
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]


def grid(images: Tensor, columns: int) -> Tensor:
    """Images `[n, c, h, w]`, row by row -> one image `[3, H, W]` with `columns` in each row."""
    images = as_rgb(images)
    n, _, height, width = images.shape
    rows = -(-n // columns)
    sheet = torch.full((3, rows * (height + PAD) + PAD, columns * (width + PAD) + PAD), MARGIN)
    for i in range(n):
        top, left = PAD + (i // columns) * (height + PAD), PAD + (i % columns) * (width + PAD)
        sheet[:, top : top + height, left : left + width] = images[i]
    return sheet


def enlarge(images: Tensor, smallest: int = 48) -> Tensor:
    """Repeat pixels until images `[..., h, w]` have at least `smallest` rows, so that tiny ones can be seen."""
    factor = max(1, -(-smallest // images.shape[-2]))
    return images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def to_pil(image: Tensor) -> Image:
    """Image `[c, h, w]` -> a PIL image in RGB."""
    array = (as_rgb(image.unsqueeze(0))[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Pillow.fromarray(array)


def labelled(sheet: Tensor, row_labels: Sequence[str], row_height: int) -> Tensor:
    """A grid `[3, H, W]` with one line of text to the left of each row; `row_height` is that of its images."""
    font = ImageFont.load_default(size=max(10, min(16, row_height // 4)))
    width = max((int(font.getlength(label)) for label in row_labels), default=0) + 10
    canvas = Pillow.new("RGB", (width + sheet.shape[2], sheet.shape[1]), (255, 255, 255))
    canvas.paste(to_pil(sheet), (width, 0))
    draw = ImageDraw.Draw(canvas)
    for i, label in enumerate(row_labels):
        middle = PAD + i * (row_height + PAD) + row_height // 2
        draw.text((width - 5, middle), label, fill=(0, 0, 0), font=font, anchor="rm")
    flat = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
    return flat.view(canvas.height, canvas.width, 3).permute(2, 0, 1).float() / 255


def save_png(path: Path, image: Tensor) -> None:
    """Write image `[c, h, w]` as PNG, atomically. Raises DistkError when the file cannot be written."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def save_gif(path: Path, frames: Tensor, seconds_per_frame: float = 0.1) -> None:
    """Write frames `[t, c, h, w]` as an endless GIF with one palette, atomically.

    Raises DistkError when it cannot be written.
    """
    write_atomic(path, gif(as_bytes(as_rgb(frames)), 1 / seconds_per_frame))


def strip(videos: Tensor) -> Tensor:
    """Videos `[n, t, c, h, w]` -> one image, a row of frames per video."""
    return grid(videos.flatten(0, 1), videos.shape[1])


def film(videos: Tensor, columns: int) -> Tensor:
    """Videos `[n, t, c, h, w]` -> frames `[t, 3, H, W]`, each a grid of all videos at one time, for `save_gif`."""
    return torch.stack([grid(videos[:, t], columns) for t in range(videos.shape[1])])
