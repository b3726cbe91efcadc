"""Clips in npz files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from distk.arrays import Npz, open_npz
from distk.console import counted
from distk.errors import DistkError, UsageError
from distk.video.clips import Clips, Fit, Labels, check_size, classes_of, gather, natural, told

ARRAYS = (
    "frames uint8 [N, height, width, 3 or 1] with lengths [n] or offsets [n + 1], or one array "
    "[n, time, height, width, 3 or 1], or an array [time, height, width, 3 or 1] for each clip"
)


def read_npz(path: Path, fit: Fit, labels: Labels) -> Clips:
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
            held = ", ".join(f"{n} {d} {s}" for n, (s, d) in heads.items())[:300]
            deep = any(len(s) >= 3 and d.kind in "iuf" for s, d in heads.values())
            hint = " Numbers of 16 bits and floats are read with --data arrays." if deep else ""
            raise DistkError(f"'{path}' holds no clips; expected {ARRAYS}; found {held or 'nothing'}.{hint}")
        numbers, classes = _npz_classes(file, heads, names, len(lengths), labels)
        rate = file.read("fps").reshape(-1)[:1].tolist() if "fps" in heads and heads["fps"][1].kind in "iuf" else []
        fps = float(rate[0]) if rate and 0 < rate[0] < 1e6 else 0.0
        frames = gather(found, names or ["frames"])
        return Clips(frames, lengths, names, numbers, classes, fps, told(len(lengths), "arrays", path, fit))


def _npz_classes(
    file: Npz, heads: dict[str, tuple[tuple[int, ...], np.dtype]], names: list[str], clips: int, labels: Labels
) -> tuple[list[int], tuple[str, ...]]:
    """Classes of an npz: from the names of its clips, where each is an array, else from `labels`."""
    if labels in ("folder", "parent") or (labels in ("before", "after") and not names):
        raise UsageError(f"--labels {labels}: the clips in '{file.path}' have no {'folders' if names else 'names'}.")
    if labels == "auto" and names:
        before = [name.rpartition("_")[0] for name in names]
        labels = "before" if all(before) and 1 < len(set(before)) < len(names) else "none"
    return _numbers(file, heads, clips) if labels == "auto" else classes_of(labels, names, [], [])


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
            f"'{where}': {counted(count, 'frame')} of {made[2]}x{made[1]} pixels are more than this file may become."
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
            lengths = [b - a for a, b in itertools.pairwise(values)] if name == "offsets" else values
            if (name == "offsets" and values[0] != 0) or any(n < 1 for n in lengths) or sum(lengths) != total:
                raise DistkError(
                    f"'{file.path}': '{name}' do not cut the {counted(total, 'frame')} into clips of one frame or more."
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
