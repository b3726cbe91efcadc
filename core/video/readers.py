"""Clips from strangers' files: npz, folders of frames, strips, GIF, and MP4 or AVI with the extra `video`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distk.apart import only
from distk.console import progress
from distk.errors import UsageError
from distk.unpacked import on_disk
from distk.video.clips import Clips, Fit, Labels, classes_of, gather, natural, told
from distk.video.movies import DEMUXERS, needed
from distk.video.npz import read_npz

Layout = Literal["auto", "npz", "frames", "strips", "files"]

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SUFFIXES = frozenset({*PICTURES, *DEMUXERS, ".gif", ".npz"})
"""Of all files that clips may lie in."""


@dataclass(frozen=True)
class Clip:
    """A clip that can be read. name: its path below the folder, for messages. group: the outermost folder that it lies
    in, parent: the innermost; or ""."""

    name: str
    stem: str
    group: str
    parent: str
    read: Callable[[Fit], tuple[np.ndarray, float]]


def read_clips(
    path: Path, fit: Fit | None = None, layout: Layout = "auto", labels: Labels = "auto", frame: int | None = None
) -> Clips:
    """All clips of a file or a folder.

    path: an npz (`distk.video.npz.ARRAYS`), a movie, a strip, or a folder, zip or tar of such, or of folders of frames;
    one level of folders above them names the classes.
    layout: which of these; auto looks, and takes pictures that are twice as long as they are wide for strips.
    labels: from the outermost folder, from the one that the clip lies in (`parent`, as in SUBJECT/CLASS/CLIP), or from
    the file's name before its last underscore (as `walk_3`) or after its first one without digits at the end (as
    `ira_walk2`); auto: the outermost folder, where there are several.
    frame: pixels of a frame along its strip, where frames are not square.
    Raises UsageError for a folder without clips, DistkError naming the file for one that is damaged.
    """
    fit = fit or Fit()
    if not path.exists():
        raise UsageError(f"'{path}' does not exist.")
    with on_disk(path, SUFFIXES) as folder:
        if folder != path:
            packed = read_clips(folder, fit, layout, labels, frame)
            return replace(packed, told=packed.told.replace(str(folder), str(path)))
    chosen, files = _look(path, layout)
    if chosen == "npz":
        return read_npz(files[0], fit, labels)
    root = path if path.is_dir() else path.parent
    clips = list(_frame_folders(root, files) if chosen == "frames" else _movies(root, files, chosen, frame))
    found, rates = [], []
    with progress("reading clips", len(clips)) as advance:
        for clip in clips:
            frames, fps = clip.read(fit)
            found.append(frames)
            rates.append(fps)
            advance(1)
    names = [clip.name for clip in clips]
    stems, groups, parents = ([getattr(clip, part) for clip in clips] for part in ("stem", "group", "parent"))
    numbers, classes = classes_of(labels, stems, groups, parents)
    lengths = [len(frames) for frames in found]
    what = {"frames": "folders of frames", "strips": "strips", "files": "movies"}[chosen]
    fps = rates[0] if len(set(rates)) == 1 else 0.0
    return Clips(gather(found, names), lengths, names, numbers, classes, fps, told(len(clips), what, path, fit))


# What a folder holds


def _look(path: Path, layout: Layout) -> tuple[Layout, list[Path]]:
    """The layout, and the files that belong to it, in natural order."""
    if path.is_dir():
        files = sorted((p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")), key=natural)
    else:
        files = [path]
    arrays = [p for p in files if p.suffix.lower() == ".npz"]
    movies = [p for p in files if p.suffix.lower() in DEMUXERS or p.suffix.lower() == ".gif"]
    pictures = [p for p in files if p.suffix.lower() in PICTURES]
    kinds: dict[Layout, list[Path]] = {"npz": arrays, "files": movies, "strips": pictures, "frames": pictures}
    if layout == "auto":
        forms: tuple[Layout, ...] = ("npz", "files", "strips")
        present = [form for form in forms if kinds[form]]
        if len(present) > 1:
            choices = ["frames" if k == "strips" and not _is_strip(pictures[0]) else k for k in present]
            raise UsageError(f"'{path}' holds clips in several forms; choose one with --layout {'|'.join(choices)}.")
        layout = present[0] if present else "frames"
        if layout == "strips" and not _is_strip(pictures[0]):
            layout = "frames"
    if not kinds[layout]:
        suffixes = {"npz": {".npz"}, "files": {".gif", *DEMUXERS}}.get(layout, PICTURES)
        wanted = (
            "" if layout in ("npz", "files") else f" and no other of {', '.join(sorted({'.gif', '.npz', *DEMUXERS}))}"
        )
        raise UsageError(f"'{path}' holds no clips: no file with {', '.join(sorted(suffixes))}{wanted}.")
    if layout == "npz" and len(arrays) > 1:
        raise UsageError(f"'{path}' holds {len(arrays)} npz files; name one of them, as '{arrays[0]}'.")
    return layout, kinds[layout]


def _is_strip(path: Path) -> bool:
    size = _decoded("size_of", path)[0]["size"]
    return bool(max(size) >= 2 * min(size))


def _folders(root: Path, place: Path) -> tuple[str, str]:
    """The outermost and the innermost folder below the root in which a clip lies, or twice nothing."""
    parts = place.relative_to(root).parts
    return (parts[0], parts[-2]) if len(parts) > 1 else ("", "")


def _still(frames: list[Path], fit: Fit) -> tuple[np.ndarray, float]:
    """The frames of a folder of pictures, which states no rate."""
    return _frames(frames, fit), 0.0


def _frame_folders(root: Path, files: list[Path]) -> Iterator[Clip]:
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    for folder, frames in folders.items():
        name = str(folder.relative_to(root)) if folder != root else folder.name
        around = _folders(root, folder) if folder != root else ("", "")
        yield Clip(name, folder.name, *around, functools.partial(_still, frames))


def _movies(root: Path, files: list[Path], layout: Layout, frame: int | None) -> Iterator[Clip]:
    for file in files:

        def read(fit: Fit, file: Path = file) -> tuple[np.ndarray, float]:
            if layout == "strips":
                return read_strip(file, fit, frame), 0.0
            return read_gif(file, fit) if file.suffix.lower() == ".gif" else read_movie(file, fit)

        yield Clip(str(file.relative_to(root)), file.stem, *_folders(root, file), read)


# Pictures and movies, which another process decodes


def _decoded(kind: str, path: Path, **asked: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    return only(f"distk.video.decode:{kind}", str(path), **asked)


def read_picture(path: Path, fit: Fit) -> tuple[np.ndarray, str]:
    """One picture, upright as its EXIF says: uint8 `[c, h, w]`, and the mode that it had, such as L or RGB.

    Raises DistkError naming a file that is no valid picture.
    """
    told, (frame,) = _decoded("picture", path, fit=asdict(fit))
    return frame, str(told["mode"])


def _frames(paths: list[Path], fit: Fit) -> np.ndarray:
    """The pictures of one folder, in order, uint8 `[t, c, h, w]`. Raises DistkError for pictures of several sizes."""
    return _decoded("folder", paths[0].parent, paths=[str(path) for path in paths], fit=asdict(fit))[1][0]


def read_strip(path: Path, fit: Fit, frame: int | None = None) -> np.ndarray:
    """The frames of a strip, which lie side by side or below each other along its longer side.

    frame: pixels of a frame along the strip; without it frames are square, and what is left over at the end is
    dropped with a warning. Returns uint8 `[t, c, h, w]`. Raises DistkError for a strip of fewer than two frames.
    """
    return _decoded("strip", path, fit=asdict(fit), frame=frame)[1][0]


def read_gif(path: Path, fit: Fit) -> tuple[np.ndarray, float]:
    """The frames of a GIF, uint8 `[t, c, h, w]`, and frames per second by its first frame's delay (0: none stated)."""
    told, (frames,) = _decoded("gif", path, fit=asdict(fit))
    return frames, float(told["fps"])


def read_movie(path: Path, fit: Fit) -> tuple[np.ndarray, float]:
    """The frames of a video file, uint8 `[t, c, h, w]`, and its average frames per second (0: not stated).

    Raises UsageError without PyAV, DistkError for a file that is damaged, cut short, or in a codec that is missing.
    """
    needed(f"reading '{path.name}'")
    told, (frames,) = _decoded("movie", path, fit=asdict(fit))
    return frames, float(told["fps"])
