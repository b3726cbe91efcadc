"""MP4, AVI and their like, read through PyAV (the extra `video`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from distk.console import counted, warn_once
from distk.errors import DistkError, UsageError
from distk.pictures import DEEP
from distk.video.clips import Budget, Fit, check_size

DEMUXERS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".avi": "avi", ".mkv": "matroska", ".webm": "matroska"}
"""The only container that a file may be, by its suffix: others, such as playlists, would open further files."""
LARGEST_MOVIE = 1 << 24
"""Pixels of a frame of a video file: a decoder holds more than a dozen frames at once."""
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""How an MP4 or QuickTime file may begin."""


def av(what: str, instead: str = "") -> Any:
    """PyAV. Raises UsageError with the command that installs it; `what` needs it."""
    needed(what, instead)
    import av as package

    return package


def needed(what: str, instead: str = "") -> None:
    """Raise UsageError where PyAV is missing; it is not imported, which the process that reads movies does."""
    try:
        there = importlib.util.find_spec("av") is not None
    except ValueError:  # somebody has put something else in its place
        there = False
    if not there:
        raise UsageError(f"{what} needs PyAV: install distk[video] (pip install 'distk[video]'){instead}.")


def read_movie(path: Path, fit: Fit) -> tuple[np.ndarray, float]:
    """The frames of a video file, uint8 `[t, c, h, w]`, and its average frames per second (0: not stated).

    Raises UsageError without PyAV, DistkError for a file that is damaged, cut short, or in a codec that is missing.
    """
    package = av(f"reading '{path.name}'")
    _whole(path)
    frames: list[np.ndarray] = []
    try:
        # A file object and one named container: nothing in the file can make the library open another file or address.
        with path.open("rb") as file, package.open(file, format=DEMUXERS[path.suffix.lower()]) as container:
            fps = _decode(package, container, fit, path, frames)
    except DistkError:
        raise
    except Exception as error:  # PyAV turns FFmpeg's many errors into many classes
        if type(error) is MemoryError:  # our own; FFmpeg's says that a damaged file asks for the impossible
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{path}' cannot be read as a video: {reason}.") from error
    if not frames:
        raise DistkError(f"'{path}' holds no frame that can be decoded.")
    return np.stack(frames), fps


def _whole(path: Path) -> None:
    """Raise DistkError where a file says itself that it is longer than it is: FFmpeg would read what is left."""
    size, at = path.stat().st_size, 0
    kind = DEMUXERS[path.suffix.lower()]
    with path.open("rb") as file:
        head = file.read(16)
        if kind == "avi" and head[:4] == b"RIFF":
            at = 8 + int.from_bytes(head[4:8], "little")
        if kind == "matroska":
            at = _matroska_end(file)
        known = kind == "mov" and head[4:8] in BOXES
        while known and at < size and len(head) >= 8:
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length or size - at
            if length < 8:
                break
            at += length
            file.seek(min(at, size))
            head = file.read(16)
    if at > size:
        raise DistkError(f"'{path}' is cut short: it has {size:,} of the {counted(at, 'byte')} that it says it has.")


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska or WebM file ends by its own word; 0 where it does not say (a live stream)."""
    end = 0
    for identity in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # the header, then the segment
        file.seek(end)
        head = file.read(12)
        if head[:4] != identity or len(head) < 12 or not head[4]:
            return 0
        width = 9 - head[4].bit_length()  # leading zeros of the first byte say how many bytes the number has
        length = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:
            return 0
        end += 4 + width + length
    return end


def _decode(package: Any, container: Any, fit: Fit, path: Path, frames: list[np.ndarray]) -> float:
    """Fill `frames`; returns frames per second, 0 where they are not stated."""
    if not container.streams.video:
        raise DistkError(f"'{path}' holds no video.")
    stream = container.streams.video[0]
    codec = stream.codec_context
    if codec is None:
        raise DistkError(f"'{path}' is in a codec that this PyAV cannot decode.")
    codec.options = {"max_pixels": str(LARGEST_MOVIE)}
    codec.thread_count = 1  # frames decoded side by side would each hold memory of their own
    budget = Budget(path)
    # One for all frames: to make it takes longer than to convert a small one.
    converter = package.video.reformatter.VideoReformatter()
    for frame in container.decode(stream):
        check_size(frame.width, frame.height, str(path))
        budget.spend(frame.width * frame.height)
        if any(part.bits > 8 for part in frame.format.components):
            warn_once(DEEP)
        picture = fit.image(converter.reformat(frame, format="rgb24").to_image(), str(path))
        if frames and picture.shape != frames[0].shape:
            raise DistkError(f"'{path}' changes its frame size on the way; name one size with --size.")
        budget.spend(picture.size)
        frames.append(picture)
    rate = stream.average_rate
    return float(rate) if rate else 0.0
