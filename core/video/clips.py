"""Clips in memory, and what their frames become: the crop and the resize that every reader shares."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image

from distk.console import counted, warn_once
from distk.errors import DistkError, UsageError
from distk.pictures import DEEP, in_bytes, is_deep

Labels = Literal["auto", "folder", "parent", "before", "after", "none"]

LARGEST_FRAME = 1 << 26
"""Pixels of one picture."""
RATIO, FLOOR = 4096, 1 << 30
"""A file may unpack to so many values for each of its bytes, or to the floor where that is more."""


@dataclass
class Clips:
    """Clips of one frame size, end to end.

    frames: uint8 `[N, channels, height, width]`, all clips one after the other. lengths: frames of each clip, none of
    them 0, with sum N. names: where each came from. labels: class of each clip, or empty. classes: names of the
    classes. fps: frames per second, 0 where nobody says. told: one sentence about where they are from and how they
    were changed. Raises DistkError for a clip without frames, or lengths that do not add up.
    """

    frames: np.ndarray
    lengths: list[int]
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    fps: float = 0.0
    told: str = ""

    def __post_init__(self) -> None:
        if not self.lengths:
            raise DistkError("there are no clips.")
        self.names = self.names or [f"clip {i}" for i in range(len(self.lengths))]
        for name, length in zip(self.names, self.lengths, strict=True):
            if length < 1:
                raise DistkError(f"clip '{name}' has no frames.")
        if sum(self.lengths) != len(self.frames):
            raise DistkError(
                f"the clips have {counted(sum(self.lengths), 'frame')} together, but there are {len(self.frames):,}."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> np.ndarray:
        """Clip `i`, uint8 `[length, channels, height, width]`, a view."""
        start = sum(self.lengths[:i])
        return self.frames[start : start + self.lengths[i]]


class Budget:
    """How much a file may still unpack to. Raises DistkError when that is used up, before the next frame is kept."""

    def __init__(self, path: Path) -> None:
        self.path, self.left = path, max(FLOOR, RATIO * path.stat().st_size)

    def spend(self, values: int) -> None:
        self.left -= values
        if self.left < 0:
            raise DistkError(
                f"'{self.path}' unpacks to more than {RATIO:,} values a byte, as only a file made to exhaust the "
                "memory does; it is refused."
            )


@dataclass(frozen=True)
class Fit:
    """What frames become. size: height and width after a centred square crop, or None to leave them as they are.

    Smaller frames are made by area averaging (a pixel is the mean of the rectangle that it covers), larger ones by
    repeating pixels; a frame that has the size already is not touched. channels: 3 for colour, 1 for grey by
    .299 R + .587 G + .114 B. Transparency is dropped.
    """

    size: int | None = None
    channels: int = 3

    @property
    def told(self) -> str:
        """What happens to frames, for people."""
        grey = "" if self.channels == 3 else ", in grey"
        return f"cropped to a centred square and averaged to {self.size}x{self.size}{grey}" if self.size else grey[2:]

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of a frame that was `height` x `width`."""
        return (self.channels, self.size or height, self.size or width)

    def image(self, image: PIL.Image.Image, where: str) -> np.ndarray:
        """A PIL image -> uint8 `[channels, height, width]`, more than 8 bits a channel scaled by their range. Raises
        DistkError for numbers whose range nobody states."""
        check_size(image.width, image.height, where)
        if is_deep(image):
            warn_once(DEEP)
        image = in_bytes(image, where)
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert("RGB") if image.mode not in ("1", "L") else image
            image = image.convert(mode)
        if self.size is not None and image.size != (self.size, self.size):
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
            image = image.resize((self.size, self.size), PIL.Image.Resampling.BOX, box=box)
        array = np.asarray(image)
        return array[None] if self.channels == 1 else array.transpose(2, 0, 1)

    def frames(self, array: np.ndarray, where: str) -> np.ndarray:
        """uint8 `[t, height, width]` or `[t, height, width, 1, 3 or 4]` -> uint8 `[t, channels, height, width]`."""
        array = array[..., None] if array.ndim == 3 else array
        if array.shape[3] == 4:
            array = array[..., :3]
        same = self.size is None or array.shape[1:3] == (self.size, self.size)
        if same and (array.shape[3] == self.channels or array.shape[3] == 1):
            check_size(array.shape[2], array.shape[1], where)
            return np.broadcast_to(array.transpose(0, 3, 1, 2), (len(array), *self.shape(*array.shape[1:3])))
        plain = array[..., 0] if array.shape[3] == 1 else array
        return np.stack([self.image(PIL.Image.fromarray(np.ascontiguousarray(frame)), where) for frame in plain])


def check_size(width: int, height: int, where: str) -> None:
    """Raise DistkError for a frame without pixels, or with more than are read."""
    if not 0 < width * height <= LARGEST_FRAME:
        raise DistkError(f"'{where}' has frames of {width}x{height} pixels; 1 to {LARGEST_FRAME:,} pixels are read.")


def gather(found: list[np.ndarray], names: list[str]) -> np.ndarray:
    """Clips `[t, c, h, w]` of one frame size -> all their frames, end to end; `found` is emptied on the way.

    Raises UsageError, naming the first clip that differs, for clips of several sizes.
    """
    shape = found[0].shape[1:]
    for clip, name in zip(found, names, strict=True):
        if clip.shape[1:] != shape:
            raise UsageError(
                f"'{name}' has frames of {clip.shape[3]}x{clip.shape[2]} pixels, "
                f"'{names[0]}' of {shape[2]}x{shape[1]}: name one size for all with --size."
            )
    if len(found) == 1:
        return np.ascontiguousarray(found.pop())
    frames = np.empty((sum(map(len, found)), *shape), np.uint8)
    at = len(frames)
    while found:  # from the end, so that a clip's own memory is free once it is copied
        clip = found.pop()
        frames[at - len(clip) : at] = clip
        at -= len(clip)
    return frames


def told(count: int, what: str, path: Path, fit: Fit) -> str:
    """One sentence about where clips are from."""
    return f"{counted(count, 'clip')} from {what} in {path}" + (f", {fit.told}" if fit.told else "")


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key of a path that puts `f2.png` before `f10.png`."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(p[:300]), "") if p.isdecimal() and p.isascii() else (0, 0, p) for p in parts]


def classes_of(
    labels: Labels, stems: list[str], groups: list[str], parents: list[str]
) -> tuple[list[int], tuple[str, ...]]:
    """Number of each clip's class, and the classes' names in natural order; both empty where there are no classes.

    groups: the outermost folder of each clip, parents: the one that it lies in; "" where there is none.

    Raises UsageError where labels are asked for and a name has none.
    """
    if labels == "auto":
        labels = "folder" if all(groups) and len(set(groups)) > 1 else "none"
    if labels == "none":
        return [], ()
    if labels in ("folder", "parent"):
        words = groups if labels == "folder" else parents
    elif labels == "before":
        words = [stem.rpartition("_")[0] for stem in stems]
    else:
        words = [stem.partition("_")[2].rstrip("0123456789") for stem in stems]
    if not all(words):
        folders = dict.fromkeys(("folder", "parent"), "lies in no folder of its class")
        where = folders.get(labels, f"has no class {labels} an underscore")
        raise UsageError(f"--labels {labels}: clip '{stems[words.index('')]}' {where}.")
    classes = sorted(set(words), key=lambda word: natural(Path(word)))
    place = {word: i for i, word in enumerate(classes)}
    return [place[word] for word in words], tuple(classes)
