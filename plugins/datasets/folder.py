"""Any folder of images, read once, resized and kept on the device as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from distk import Dataset, DataSpec, DistkError, Files, UsageError, option, permuted_split
from distk.console import progress
from distk.kept import of_files
from distk.stored import Stored

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Decoders that a file may choose by its content. PIL has others, among them one that starts Ghostscript."""
LARGEST = 1 << 26
"""Pixels of one image; more would take hundreds of megabytes to decode."""


@dataclass(frozen=True)
class Config:
    """What the images become."""

    size: int = option(64, "height and width in pixels after a centred square crop", min=4, max=1024)
    channels: Literal[1, 3] = option(3, "1 for grey, 3 for colour")
    test: float = option(0.1, "share of the images kept for the test split", above=0, max=0.9)


class Folder(Dataset[Config]):
    """Images below a folder, in sorted order. Where all lie in subfolders, those are the classes."""

    counted = True
    reads = "a folder of PNG, JPEG, GIF, BMP, WebP or TIFF images"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        if not files.required:
            raise UsageError("data set 'folder' needs the folder of images: add --data-dir DIR.")
        root = files.folders[0]
        paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not paths:
            raise UsageError(f"'{root}' holds no images ({', '.join(sorted(SUFFIXES))}).")
        images = _decoded(paths, root, config)
        self.images = Stored(images, device, files.where)
        self.stored = (self.images,)
        parents = [p.relative_to(root).parts[0] if p.parent != root else "" for p in paths]
        classes = sorted(set(parents)) if "" not in parents else []
        self.label = torch.tensor([classes.index(p) for p in parents], device=device) if len(classes) > 1 else None
        names = tuple(classes) if self.label is not None else ()
        self.spec = DataSpec("image", tuple(images.shape[1:]), classes=names)
        self.origin = f"{len(paths):,} images below {root}"
        self.parts = permuted_split(len(paths), config.test, 0, device) if len(paths) > 1 else {}

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, channels, size, size]` in [0, 1]; `label` int64 `[n]` where subfolders name classes."""
        batch = {"x": self.images[rows].float() / 255}
        return batch if self.label is None else {**batch, "label": self.label[rows]}


def _decoded(paths: Sequence[Path], root: Path, config: Config) -> np.ndarray:
    """uint8 `[n, channels, size, size]`; of many images kept for the next start, see `distk.kept.of_files`."""
    shape = (len(paths), config.channels, config.size, config.size)

    def fill(images: np.ndarray) -> None:
        with progress("reading images", len(paths)) as advance:
            for i, path in enumerate(paths):
                images[i] = _read(path, config)
                advance(1)

    return of_files(f"folder {root.resolve()} {config.size} {config.channels}", paths, root, shape, np.uint8, fill)


def _read(path: Path, config: Config) -> np.ndarray:
    """uint8 `[channels, size, size]`. Raises DistkError naming a file that is not a valid image."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise DistkError(f"'{path}' has {image.width}x{image.height} pixels; at most {LARGEST:,} are read.")
            ready = ImageOps.exif_transpose(image).convert("L" if config.channels == 1 else "RGB")
            ready = ImageOps.fit(ready, (config.size, config.size), Image.Resampling.LANCZOS)
    except Image.DecompressionBombError as error:
        raise DistkError(f"'{path}' claims to be an enormous image, which is refused.") from error
    except DistkError:
        raise
    except Exception as error:  # the decoders of damaged files raise whatever they trip over
        reason = " ".join(str(error).split())[:200]
        raise DistkError(f"'{path}' cannot be read as an image: {reason or type(error).__name__}.") from error
    array = np.asarray(ready)
    return array[None] if config.channels == 1 else array.transpose(2, 0, 1)
