"""Clips from strangers' files: npz, folders of frames, strips, GIF, and MP4 or AVI with the extra `video`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distk.arrays import Npz, open_npz
from distk.console import progress, warn_once
from distk.errors import DistkError, UsageError
from distk.video.clips import Budget, Clips, Fit, check_size, gather

Layout = Literal["auto", "npz", "frames", "strips", "files"]
Labels = Literal["auto", "folder", "before", "after", "none"]

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
"""Decoders that a picture may choose by its content. PIL has others, among them one that starts Ghostscript."""
DEMUXERS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".avi": "avi", ".mkv": "matroska", ".webm": "matroska"}
"""The only container that a file may be, by its suffix: others, such as playlists, would open further files."""
ARRAYS = (
    "frames uint8 [N, height, width, 3 or 1] with lengths [n] or offsets [n + 1], or one array "
    "[n, time, height, width, 3 or 1], or an array [time, height, width, 3 or 1] for each clip"
)
LARGEST_MOVIE = 1 << 24
"""Pixels of a frame of a video file: a decoder holds more than a dozen frames at once."""
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""How an MP4 or QuickTime file may begin."""
NEEDS_AV = "needs PyAV: install distk[video] (pip install 'distk[video]')"


@dataclass(frozen=True)
class Clip:
    """A clip that can be read. name: its path below the folder, for messages. group: its class's folder, or ""."""

    name: str
    stem: str
    group: str
    read: Callable[[Fit], tuple[np.ndarray, float]]


def read_clips(
    path: Path, fit: Fit | None = None, layout: Layout = "auto", labels: Labels = "auto", frame: int | None = None
) -> Clips:
    """All clips of a file or a folder.

    path: an npz (`ARRAYS`), a movie, a strip, or a folder of such, or of folders of frames; one level of folders above
    them names the classes. layout: which of these; auto looks, and takes pictures that are twice as long as they are
    wide for strips. labels: from the folder, or from the file's name before its last underscore (as `walk_3`) or
    after its first one without digits at the end (as `ira_walk2`); auto: the folder, where there are several.
    frame: pixels of a frame along its strip, where frames are not square.
    Raises UsageError for a folder without clips, DistkError naming the file for one that is damaged.
    """
    fit = fit or Fit()
    if not path.exists():
        raise UsageError(f"'{path}' does not exist.")
    chosen, files = _look(path, layout)
    if chosen == "npz":
        return _npz(files[0], fit, labels)
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
    numbers, classes = _classes(labels, [clip.stem for clip in clips], [clip.group for clip in clips])
    lengths = [len(frames) for frames in found]
    what = {"frames": "folders of frames", "strips": "strips", "files": "movies"}[chosen]
    fps = rates[0] if len(set(rates)) == 1 else 0.0
    return Clips(gather(found, names), lengths, names, numbers, classes, fps, _told(len(clips), what, path, fit))


def _told(count: int, what: str, path: Path, fit: Fit) -> str:
    return f"{count:,} clips from {what} in {path}" + (f", {fit.told}" if fit.told else "")


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
        present = [k for k in ("npz", "files", "strips") if kinds[k]]
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


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key of a path that puts `f2.png` before `f10.png`."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(p[:300]), "") if p.isdecimal() and p.isascii() else (0, 0, p) for p in parts]


def _is_strip(path: Path) -> bool:
    with _opened(path) as image:
        return max(image.size) >= 2 * min(image.size)


def _group(root: Path, place: Path) -> str:
    parts = place.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _frame_folders(root: Path, files: list[Path]) -> Iterator[Clip]:
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    for folder, frames in folders.items():
        name = str(folder.relative_to(root)) if folder != root else folder.name
        group = _group(root, folder) if folder != root else ""
        yield Clip(name, folder.name, group, lambda fit, frames=frames: (_frames(frames, fit), 0.0))


def _movies(root: Path, files: list[Path], layout: Layout, frame: int | None) -> Iterator[Clip]:
    for file in files:

        def read(fit: Fit, file: Path = file) -> tuple[np.ndarray, float]:
            if layout == "strips":
                return read_strip(file, fit, frame), 0.0
            return read_gif(file, fit) if file.suffix.lower() == ".gif" else read_movie(file, fit)

        yield Clip(str(file.relative_to(root)), file.stem, _group(root, file), read)


def _classes(labels: Labels, stems: list[str], groups: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Number of each clip's class, and the classes' names in natural order; both empty where there are no classes.

    Raises UsageError where labels are asked for and a name has none.
    """
    if labels == "auto":
        labels = "folder" if all(groups) and len(set(groups)) > 1 else "none"
    if labels == "none":
        return [], ()
    if labels == "folder":
        words = groups
    elif labels == "before":
        words = [stem.rpartition("_")[0] for stem in stems]
    else:
        words = [stem.partition("_")[2].rstrip("0123456789") for stem in stems]
    if not all(words):
        where = {"folder": "lies in no folder of its class"}.get(labels, f"has no class {labels} an underscore")
        raise UsageError(f"--labels {labels}: clip '{stems[words.index('')]}' {where}.")
    classes = sorted(set(words), key=lambda word: natural(Path(word)))
    place = {word: i for i, word in enumerate(classes)}
    return [place[word] for word in words], tuple(classes)


# Pictures


@contextmanager
def _opened(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Any]:
    """A PIL image. Raises DistkError naming the file for whatever the decoders raise over it."""
    from PIL import Image

    try:
        with Image.open(path, formats=formats) as image:
            check_size(image.width, image.height, str(path))
            yield image
    except DistkError:
        raise
    except Image.DecompressionBombError as error:
        raise DistkError(f"'{path}' claims to be an enormous image, which is refused.") from error
    except Exception as error:  # the decoders of damaged files raise whatever they trip over
        reason = " ".join(str(error).split())[:200]
        raise DistkError(f"'{path}' cannot be read as an image: {reason or type(error).__name__}.") from error


def _frames(paths: list[Path], fit: Fit) -> np.ndarray:
    """The pictures of one folder, in order, uint8 `[t, c, h, w]`. Raises DistkError for pictures of several sizes."""
    frames: list[np.ndarray] = []
    size = None
    for path in paths:
        with _opened(path) as image:
            if size is not None and image.size != size:
                raise DistkError(
                    f"'{path}' has {image.width}x{image.height} pixels, the first frame of its clip {size[0]}x{size[1]}."
                )
            size = image.size
            frames.append(fit.image(image, str(path)))
    return np.stack(frames)


def read_strip(path: Path, fit: Fit, frame: int | None = None) -> np.ndarray:
    """The frames of a strip, which lie side by side or below each other along its longer side.

    frame: pixels of a frame along the strip; without it frames are square, and what is left over at the end is
    dropped with a warning. Returns uint8 `[t, c, h, w]`. Raises DistkError for a strip of fewer than two frames.
    """
    with _opened(path) as image:
        width, height = image.size
        sideways = width >= height
        length, across = (width, height) if sideways else (height, width)
        along = frame or across
        count = length // along
        if count < 2:
            raise DistkError(
                f"'{path}' has {width}x{height} pixels, which is a single picture and no strip of frames"
                f"{'' if frame is None else f' {frame} pixels long'}."
            )
        if length % along:
            warn_once(f"'{path}': the last {length % along} of {length} pixels make no whole frame and are left out")
        whole = Fit(None, fit.channels).image(image, str(path))
    if sideways:
        frames = whole[:, :, : count * along].reshape(fit.channels, across, count, along).transpose(2, 1, 3, 0)
    else:
        frames = whole[:, : count * along].reshape(fit.channels, count, along, across).transpose(1, 2, 3, 0)
    return np.ascontiguousarray(fit.frames(frames, str(path)))


def read_gif(path: Path, fit: Fit) -> tuple[np.ndarray, float]:
    """The frames of a GIF, uint8 `[t, c, h, w]`, and frames per second by its first frame's delay (0: none stated)."""
    budget, frames = Budget(path), []
    with _opened(path, ("GIF",)) as image:
        delay = image.info.get("duration", 0)
        while True:
            budget.spend(image.width * image.height)
            frames.append(fit.image(image, str(path)))
            budget.spend(frames[-1].size)
            try:
                image.seek(len(frames))
            except EOFError:
                break
    return np.stack(frames), 1000 / delay if delay else 0.0


# Movies


def av() -> Any:
    """PyAV. Raises UsageError with the command that installs it."""
    try:
        import av as package
    except ImportError:
        raise UsageError(f"reading or writing MP4 and AVI {NEEDS_AV}.") from None
    return package


def read_movie(path: Path, fit: Fit) -> tuple[np.ndarray, float]:
    """The frames of a video file, uint8 `[t, c, h, w]`, and its average frames per second (0: not stated).

    Raises UsageError without PyAV, DistkError for a file that is damaged, cut short, or in a codec that is missing.
    """
    package = av()
    _whole(path)
    frames: list[np.ndarray] = []
    try:
        # A file object and one named container: nothing in the file can make the library open another file or address.
        with path.open("rb") as file, package.open(file, format=DEMUXERS[path.suffix.lower()]) as container:
            fps = _decode(container, fit, path, frames)
    except (DistkError, MemoryError):
        raise
    except Exception as error:  # PyAV turns FFmpeg's many errors into many classes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DistkError(f"'{path}' cannot be read as a video: {reason}.") from error
    if not frames:
        raise DistkError(f"'{path}' holds no frame that can be decoded.")
    return np.stack(frames), fps


def _whole(path: Path) -> None:
    """Raise DistkError where an MP4 or AVI says itself that it is longer than it is: FFmpeg would read what is left."""
    size, at = path.stat().st_size, 0
    kind = DEMUXERS[path.suffix.lower()]
    with path.open("rb") as file:
        head = file.read(16)
        if kind == "avi" and head[:4] == b"RIFF":
            at = 8 + int.from_bytes(head[4:8], "little")
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
        raise DistkError(f"'{path}' is cut short: it has {size:,} of the {at:,} bytes that it says it has.")


def _decode(container: Any, fit: Fit, path: Path, frames: list[np.ndarray]) -> float:
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
    for frame in container.decode(stream):
        check_size(frame.width, frame.height, str(path))
        budget.spend(frame.width * frame.height)
        picture = fit.image(frame.to_image(), str(path))
        if frames and picture.shape != frames[0].shape:
            raise DistkError(f"'{path}' changes its frame size on the way; name one size with --size.")
        budget.spend(picture.size)
        frames.append(picture)
    rate = stream.average_rate
    return float(rate) if rate else 0.0


# Arrays


def _npz(path: Path, fit: Fit, labels: Labels) -> Clips:
    """The clips of an npz; see `ARRAYS`. Further members: `fps`, `labels` (or the only other one of one whole number a
    clip) and `classes`, their names."""
    with open_npz(path, ARRAYS) as file:
        heads = {name: file.header(name) for name in file.names}
        pictures = [n for n, (shape, dtype) in heads.items() if dtype == np.uint8 and len(shape) >= 3]
        names: list[str] = []
        if "frames" in pictures:
            lengths = _lengths(file, heads)
            found = [_read(file, "frames", heads["frames"][0], fit)]
        elif pictures and len(heads[pictures[0]][0]) == 5:
            shape = heads[pictures[0]][0]
            found = [_read(file, pictures[0], shape, fit)]
            lengths = [shape[1]] * shape[0]
        elif pictures:
            names = sorted(pictures, key=lambda name: natural(Path(name)))
            found = [_read(file, name, heads[name][0], fit) for name in names]
            lengths = [len(frames) for frames in found]
        else:
            told = ", ".join(f"{n} {d} {s}" for n, (s, d) in heads.items())[:300]
            raise DistkError(f"'{path}' holds no clips; expected {ARRAYS}; found {told or 'nothing'}.")
        numbers, classes = _npz_classes(file, heads, names, len(lengths), labels)
        rate = file.read("fps").reshape(-1)[:1].tolist() if "fps" in heads and heads["fps"][1].kind in "iuf" else []
        fps = float(rate[0]) if rate and 0 < rate[0] < 1e6 else 0.0
        frames = gather(found, names or ["frames"])
        return Clips(frames, lengths, names, numbers, classes, fps, _told(len(lengths), "arrays", path, fit))


def _npz_classes(
    file: Npz, heads: dict[str, tuple[tuple[int, ...], np.dtype]], names: list[str], clips: int, labels: Labels
) -> tuple[list[int], tuple[str, ...]]:
    """Classes of an npz: from the names of its clips, where each is an array, else from `labels`."""
    if labels == "folder" or (labels in ("before", "after") and not names):
        raise UsageError(f"--labels {labels}: the clips in '{file.path}' have no {'folders' if names else 'names'}.")
    if labels == "auto" and names:
        before = [name.rpartition("_")[0] for name in names]
        labels = "before" if all(before) and 1 < len(set(before)) < len(names) else "none"
    return _numbers(file, heads, clips) if labels == "auto" else _classes(labels, names, [])


def _read(file: Npz, name: str, shape: tuple[int, ...], fit: Fit) -> np.ndarray:
    """A member of frames, whole clips joined, as uint8 `[N, c, h, w]`; read and resized piece by piece."""
    where = f"{file.path}: {name}"
    colour = len(shape) >= 4 and shape[-1] in (1, 3, 4)
    frame = shape[-3:] if colour else (*shape[-2:], 1)
    rank = len(shape) - (3 if colour else 2)
    if rank not in (1, 2) or not shape[0] or (len(shape) == 4 and not colour):
        raise DistkError(f"'{where}' is uint8 {shape}; expected {ARRAYS}.")
    check_size(frame[1], frame[0], where)
    count = shape[0] * (shape[1] if rank == 2 else 1)
    made = fit.shape(frame[0], frame[1])
    if count * made[0] * made[1] * made[2] > max(file.room(name), 1 << 30):
        raise DistkError(
            f"'{where}': {count:,} frames of {made[2]}x{made[1]} pixels are more than this file may become."
        )
    frames, at = np.empty((count, *made), np.uint8), 0
    for part in file.parts(name):
        ready = fit.frames(part.reshape(-1, *frame), where)
        frames[at : at + len(ready)] = ready
        at += len(ready)
    return frames


def _lengths(file: Npz, heads: dict[str, tuple[tuple[int, ...], np.dtype]]) -> list[int]:
    """Frames of each clip, from `lengths` or `offsets`. Raises DistkError where they do not add up."""
    total = heads["frames"][0][0]
    for name in ("lengths", "offsets"):
        if name in heads:
            shape, dtype = heads[name]
            if len(shape) != 1 or dtype.kind not in "iu" or not 0 < shape[0] <= total + 1:
                raise DistkError(f"'{file.path}': '{name}' is {dtype} {shape}; expected at most {total} whole numbers.")
            values = [int(v) for v in file.read(name)]
            lengths = [b - a for a, b in zip(values, values[1:], strict=False)] if name == "offsets" else values
            if (name == "offsets" and values[0] != 0) or any(n < 1 for n in lengths) or sum(lengths) != total:
                raise DistkError(
                    f"'{file.path}': '{name}' do not cut the {total:,} frames into clips of one frame or more."
                )
            return lengths
    raise DistkError(f"'{file.path}' has 'frames' but neither 'lengths' [n] nor 'offsets' [n + 1] of its clips.")


def _numbers(
    file: Npz, heads: dict[str, tuple[tuple[int, ...], np.dtype]], clips: int
) -> tuple[list[int], tuple[str, ...]]:
    """Labels of the clips: `labels`, or the only other member of one whole number a clip."""
    fits = [n for n, (s, d) in heads.items() if s == (clips,) and d.kind in "iu" and n not in ("lengths", "offsets")]
    fits = ["labels"] if "labels" in fits else fits
    if len(fits) != 1 or clips < 2:
        return [], ()
    kinds, place = np.unique(file.read(fits[0]), return_inverse=True)
    classes = tuple(str(int(kind)) for kind in kinds)
    shape, dtype = heads.get("classes", ((), np.dtype(bool)))
    if dtype.kind == "U" and len(shape) == 1 and 0 <= int(kinds[0]) <= int(kinds[-1]) < shape[0] <= 1 << 16:
        words = [str(word) for word in file.read("classes")]
        classes = tuple(words[int(kind)] for kind in kinds)
    return (place.reshape(-1).tolist(), classes) if len(kinds) > 1 else ([], ())
