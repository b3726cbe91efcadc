"""The sprites of Reed et al. ("Deep Visual Analogy-Making", NIPS 2015), from the authors' MATLAB files.

`nips2015-analogy-data.tar.gz`, unpacked, holds `data/sprites/sprites_<i>.mat` (MATLAB v7.3, that is HDF5; one file per
character) and `sprites_splits.mat` (v5). A file has `sprites`, a cell of 21 animations with `[T, 10800]` floats in
[0, 1] each, and `labels`, 7 numbers. Attribute values, their combinations and the numbers of frames are read from the
files, not assumed. Without files the stand-in `puppets` takes their place.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, DistkError, Files, UsageError, option
from distk.console import counted, progress, warn, warn_once
from distk.plugins.datasets.hdf5 import Array, Hdf5, open_hdf5
from distk.plugins.datasets.matfile import arrays
from distk.plugins.datasets.puppets import POSES, Characters, Puppets
from distk.plugins.datasets.puppets import Config as PuppetsConfig

NAMES = ("body", "gender", "hair", "armor", "arms", "greaves", "weapon")
"""The order in which Reed et al. list the attributes; the files themselves name none."""
OFFICIAL = 672
SIDE = 60
VALUES = 3 * SIDE * SIDE
ANIMATIONS, LONGEST, MOST = 64, 64, 10_000
"""Most animations of a character, frames of an animation, and characters that are read; the official numbers are far
below, and what a damaged header promises beyond them is not allocated."""


@dataclass(frozen=True)
class Config(PuppetsConfig):
    """How the files are split, and settings of the stand-in `puppets`."""

    poses: int = option(16, "of the stand-in: pictures of each identity; files are used whole", min=2, max=POSES)
    split: Literal["folds", "published"] = option(
        "folds", "test characters: every fifth one (see fold), or those of sprites_splits.mat"
    )


class Sprites(Characters[Config]):
    """Characters of the files: label = character, factors = the seven attributes, all frames of all animations.

    animation: int64 `[N]` 0 ... 20 (five actions of four views and a single frontal one). frame: int64 `[N]`.
    """

    reads = "sprites_<i>.mat (MATLAB v7.3) and sprites_splits.mat of nips2015-analogy-data.tar.gz, unpacked"
    factor_names = NAMES
    factor_kinds = ("categorical",) * len(NAMES)

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        name = "sprites_[0-9]*.mat"
        try:
            found = files.find(name, f"sprites/{name}", f"data/sprites/{name}")
        except UsageError as error:
            packed = next((p.name for p in files.folders[0].glob("*.tar*")), "") if files.folders[0].is_dir() else ""
            raise UsageError(f"{error} Unpack {packed} first." if packed else str(error)) from None
        if found is None:
            self._use_puppets(files)
        else:
            self._use_files(found.parent)

    def _use_puppets(self, files: Files) -> None:
        if self.config.split == "published":
            raise UsageError("split 'published' needs the files: name their folder with --data-dir.")
        self.stand_in = made = Puppets(self.config, self.device, files)
        self.factor_names, self.factor_sizes, self.factor_kinds = (
            made.factor_names,
            made.factor_sizes,
            made.factor_kinds,
        )
        self.spec, self.table, self.identity = made.spec, made.table, made.identity
        self.parts, self.pictures = made.parts, made.pictures
        self.origin = f"no files of the sprites found: stand-in puppets, {made.origin}"
        warn_once("no files of the sprites found, so 'sprites' is the stand-in puppets; name them with --data-dir.")

    def _use_files(self, folder: Path) -> None:
        if self.config.size != SIDE:
            raise UsageError(
                f"the files hold pictures of {SIDE}x{SIDE} pixels, not {self.config.size}: leave out size."
            )
        paths = character_files(folder)
        if len(paths) != OFFICIAL:
            warn(f"'{folder}' holds {counted(len(paths), 'character')} instead of {OFFICIAL}")
        images, labels, owner, animation, frame = read_characters(paths)
        self.images = images.to(self.device)
        self.pictures = lambda rows: self.images[rows]
        self.identity, self.animation, self.frame = (t.to(self.device) for t in (owner, animation, frame))
        kinds = [np.unique(column, return_inverse=True) for column in labels.T]
        self.values = tuple(tuple(float(v) for v in values) for values, _ in kinds)
        self.factor_sizes = tuple(len(values) for values in self.values)
        table = torch.from_numpy(np.stack([index.reshape(-1) for _, index in kinds], 1))
        self.table = table.to(self.device)[self.identity]
        self.spec = DataSpec("image", (3, SIDE, SIDE))
        self.origin = f"{counted(len(paths), 'character')}, {counted(len(images), 'image')} read from {folder}"
        if self.config.split == "published":
            numbers = [_number(path) for path in paths]
            held = set(read_splits(folder / "sprites_splits.mat")["testidx"])
            test = torch.tensor([n in held for n in numbers], device=self.device)
            if not bool(test.any()) or bool(test.all()):
                raise DistkError(f"'{folder / 'sprites_splits.mat'}' puts none or all of the characters into the test.")
            self.hold_out(test)
        else:
            self.split_by_identity(self.config.fold)


def _number(path: Path) -> int:
    return int(re.findall(r"\d+", path.stem)[-1])


def character_files(folder: Path) -> list[Path]:
    """The files `sprites_<i>.mat` of a folder by their number i. Raises DistkError for more than are ever read."""
    paths = [p for p in folder.iterdir() if re.fullmatch(r"sprites_\d{1,6}\.mat", p.name)]
    if not 2 <= len(paths) <= MOST:
        raise DistkError(
            f"'{folder}' holds {counted(len(paths), 'file')} sprites_<i>.mat; between 2 and {MOST:,} are read."
        )
    return sorted(paths, key=_number)


def read_characters(paths: list[Path]) -> tuple[Tensor, np.ndarray, Tensor, Tensor, Tensor]:
    """All frames of all characters: images uint8 `[N, 3, 60, 60]`, labels float64 `[C, 7]`, and int64 `[N]` each the
    place of the file in `paths`, the animation, and the frame within it.

    Raises UsageError without the package h5py, DistkError naming the file for anything but the expected contents.
    """
    images, labels, places = [], [], []
    with progress("reading sprites", len(paths)) as advance:
        for k, path in enumerate(paths):
            try:
                with open_hdf5(path, "a MATLAB v7.3 file") as file:
                    cells = _cells(file, path)
                    labels.append(_labels(file, path))
                    for a, cell in enumerate(cells):
                        frames = _frames(cell[()], path)
                        images.append(frames)
                        places += [(k, a, f) for f in range(len(frames))]
            except DistkError:
                raise
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise DistkError(f"'{path}' is damaged ({_short(error)}).") from error
            advance(1)
    table = torch.tensor(places, dtype=torch.long)
    return torch.from_numpy(np.concatenate(images)), np.stack(labels), table[:, 0], table[:, 1], table[:, 2]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _cells(file: Hdf5, path: Path) -> list[Array]:
    """The animations of a character, checked before anything of them is read."""
    cell = file.get("sprites")
    if cell is None or not cell.refers:
        raise DistkError(f"'{path}' has no cell array `sprites`; it holds {', '.join(list(file)[:9]) or 'nothing'}.")
    if not 1 <= cell.size <= ANIMATIONS:
        raise DistkError(f"'{path}' has {counted(cell.size, 'animation')}; between 1 and {ANIMATIONS} are read.")
    found = [cell.leads_to(k) for k in range(cell.size)]
    for one in found:
        sound = one.ndim == 2 and one.shape[1] == VALUES and 1 <= len(one) <= LONGEST
        if not sound or one.dtype.kind not in "fu":
            wanted = f"expected [frames, {VALUES}] of at most {LONGEST}"
            raise DistkError(f"'{path}': an animation is {one.shape}; {wanted}.")
    return found


def _labels(file: Hdf5, path: Path) -> np.ndarray:
    labels = file.get("labels")
    if labels is None or labels.size != len(NAMES) or labels.dtype.kind not in "fiu":
        raise DistkError(f"'{path}' has no `labels` of {len(NAMES)} numbers.")
    return np.asarray(labels[()], dtype=np.float64).reshape(-1)


def _frames(values: np.ndarray, path: Path) -> np.ndarray:
    """`[T, 10800]`, MATLAB's 60x60x3 with the height fastest -> uint8 `[T, 3, 60, 60]`."""
    if values.dtype != np.uint8:
        if not (np.isfinite(values).all() and values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
            raise DistkError(f"'{path}' has values outside [0, 1].")
        values = np.rint(values * 255).astype(np.uint8)
    return np.ascontiguousarray(values.reshape(-1, 3, SIDE, SIDE).transpose(0, 1, 3, 2))


def read_splits(path: Path) -> dict[str, list[int]]:
    """`trainidx`, `validx` and `testidx` of sprites_splits.mat: numbers of characters, counted from 1.

    Raises DistkError for a missing, damaged or enormous file.
    """
    names = ("trainidx", "validx", "testidx")
    try:
        if path.stat().st_size > 1 << 20:
            raise DistkError(f"'{path}' is too large to be a list of characters.")
        found = arrays(path.read_bytes())
        return {name: [int(v) for v in found[name].read().reshape(-1)[:MOST]] for name in names}
    except DistkError:
        raise
    except FileNotFoundError:
        raise DistkError(f"'{path}' does not exist; without it use --split folds.") from None
    except (OSError, ValueError, KeyError, zlib.error, OverflowError) as error:
        raise DistkError(f"'{path}' is not a MATLAB v5 file with {', '.join(names)} ({_short(error)}).") from error
