"""Pictures, strips, GIF and movies into frames, in the process that calls: `readers` has another one do it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from distk.apart import Answer
from distk.console import counted, warn_once
from distk.errors import DistkError
from distk.memory import afford
from distk.pictures import open_picture
from distk.video.clips import Budget, Fit
from distk.video.movies import read_movie

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
"""Decoders that a picture may choose by its content. PIL has others, among them one that starts Ghostscript."""


def _picture(path: Path, fit: Fit) -> tuple[np.ndarray, str]:
    """One picture, upright as its EXIF says: uint8 `[c, h, w]`, and the mode that it had, such as L or RGB.

    Raises DistkError naming a file that is no valid picture.
    """
    with open_picture(path, str(path), FORMATS) as image:
        return fit.image(ImageOps.exif_transpose(image), str(path)), image.mode


def _folder(paths: list[Path], fit: Fit) -> np.ndarray:
    """The pictures of one folder, in order, uint8 `[t, c, h, w]`. Raises DistkError for pictures of several sizes."""
    frames: list[np.ndarray] = []
    size = None
    for path in paths:
        with open_picture(path, str(path), FORMATS) as image:
            if size is not None and image.size != size:
                raise DistkError(
                    f"'{path}' has {image.width}x{image.height} pixels, "
                    f"the first frame of its clip {size[0]}x{size[1]}."
                )
            size = image.size
            frames.append(fit.image(image, str(path)))
    return np.stack(frames)


def _strip(path: Path, fit: Fit, frame: int | None = None) -> np.ndarray:
    """The frames of a strip, which lie side by side or below each other along its longer side.

    frame: pixels of a frame along the strip; without it frames are square, and what is left over at the end is
    dropped with a warning. Returns uint8 `[t, c, h, w]`. Raises DistkError for a strip of fewer than two frames.
    """
    with open_picture(path, str(path), FORMATS) as image:
        width, height = image.size
        sideways = width >= height
        length, across = (width, height) if sideways else (height, width)
        along = frame or across
        count = length // along
        if count < 2:
            raise DistkError(
                f"'{path}' has {width}x{height} pixels, which is a single picture, not a strip of frames"
                f"{'' if frame is None else ' ' + counted(frame, 'pixel') + ' long'}."
            )
        if length % along:
            warn_once(
                f"'{path}': the last {length % along} of {counted(length, 'pixel')} make no whole frame and are"
                " left out"
            )
        whole = Fit(None, fit.channels).image(image, str(path))
    if sideways:
        frames = whole[:, :, : count * along].reshape(fit.channels, across, count, along).transpose(2, 1, 3, 0)
    else:
        frames = whole[:, : count * along].reshape(fit.channels, count, along, across).transpose(1, 2, 3, 0)
    return np.ascontiguousarray(fit.frames(frames, str(path)))


def _gif(path: Path, fit: Fit) -> tuple[np.ndarray, float]:
    """The frames of a GIF, uint8 `[t, c, h, w]`, and frames per second by its first frame's delay (0: none stated)."""
    with open_picture(path, str(path), ("GIF",)) as image:
        delay, count = image.info.get("duration", 0), int(getattr(image, "n_frames", 1))
        shape = (count, *fit.shape(image.height, image.width))
        Budget(path).spend(count * image.width * image.height + math.prod(shape))
        afford(math.prod(shape), f"'{path}'")
        frames = np.empty(shape, np.uint8)
        for i in range(count):
            image.seek(i)
            frame = fit.image(image, str(path))
            if frame.shape != shape[1:]:
                raise DistkError(f"'{path}' has a frame that is larger than its first one.")
            frames[i] = frame
    return frames, 1000 / delay if delay else 0.0


# What `apart` calls: each yields one array of frames


def size_of(content: bytes, where: str) -> Iterator[Answer]:
    """Width and height of a picture."""
    with open_picture(where, where, FORMATS) as image:
        yield {"size": list(image.size)}, []


def picture(content: bytes, where: str, fit: dict[str, Any]) -> Iterator[Answer]:
    """A picture and its mode."""
    frame, mode = _picture(Path(where), Fit(**fit))
    yield {"mode": mode}, [frame]


def folder(content: bytes, where: str, paths: list[str], fit: dict[str, Any]) -> Iterator[Answer]:
    """The pictures of a folder as a clip."""
    yield {}, [_folder([Path(path) for path in paths], Fit(**fit))]


def strip(content: bytes, where: str, fit: dict[str, Any], frame: int | None) -> Iterator[Answer]:
    """The frames of a strip."""
    yield {}, [_strip(Path(where), Fit(**fit), frame)]


def gif(content: bytes, where: str, fit: dict[str, Any]) -> Iterator[Answer]:
    """The frames of a GIF and how many a second."""
    frames, fps = _gif(Path(where), Fit(**fit))
    yield {"fps": fps}, [frames]


def movie(content: bytes, where: str, fit: dict[str, Any]) -> Iterator[Answer]:
    """The frames of a movie and how many a second."""
    frames, fps = read_movie(Path(where), Fit(**fit))
    yield {"fps": fps}, [frames]
