"""The Sprites of Li & Mandt: Liberated Pixel Cup characters from the user's sheets, cut layers or released npy files.

The art is CC-BY-SA 3.0 / GPL 3 and is never bundled; credit Liberated Pixel Cup and Universal-LPC-spritesheet.
A clip is five layers laid over opaque black: body, bottomwear, topwear, hair, shoes. Pixels of the released files are
uint8 / 256; here they become uint8 / 255, the full range [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distk import DataSpec, DistkError, Files, UsageError
from distk.arrays import open_npy, open_npz
from distk.config import NoConfig
from distk.console import progress, warn_once
from distk.pictures import plain
from distk.plugins.sequence.data.clips import ACTIONS, ATTRIBUTES, FRAMES, ClipDataset, character_split

LAYERS = ("body", "bottomwear", "topwear", "hair", "shoes")
MOTIONS = ("walk", "spellcard", "slash")
DIRECTIONS = ("front", "left", "right")
SIZES = (6, 6, 6, 6, 9)
SIDE = 64
SHEET = (832, 1344)
ROWS = {"walk": (10, 9, 11), "spellcard": (2, 1, 3), "slash": (14, 13, 15)}
"""Row of the sheet, counted from 0, for front, left, right."""
COLUMNS = {"walk": (8, 1, 2, 3, 4, 5, 6, 7), "spellcard": (0, 1, 2, 3, 4, 5, 4, 6), "slash": (0, 1, 2, 3, 4, 5, 4, 0)}
TRAIN = 1000
CLIP = (FRAMES, SIDE, SIDE, 3)


def cut_sheets(folder: Path) -> list[np.ndarray]:
    """The tiles of `folder`/<layer>/<k>.png: five arrays uint8 `[6 or 1, 9, 8, 64, 64, 4]` (RGBA).

    Raises UsageError naming every missing file, DistkError for a file that is no sheet of 832x1344 pixels.
    """
    paths = [[folder / layer / f"{k}.png" for k in (range(6) if layer != "shoes" else (1,))] for layer in LAYERS]
    missing = [str(p.relative_to(folder)) for layer in paths for p in layer if not p.is_file()]
    if missing:
        raise UsageError(f"the sheets in '{folder}' lack {', '.join(missing)}.")
    return [np.stack([_cut(path) for path in layer]) for layer in paths]


def _cut(path: Path) -> np.ndarray:
    (sheet,) = plain([(path, str(path))], "RGBA")
    if sheet.shape[:2] != SHEET[::-1]:
        height, width = sheet.shape[:2]
        raise DistkError(f"'{path}' is {width}x{height}; a sheet has {SHEET[0]}x{SHEET[1]} pixels.")
    tiles = sheet.reshape(SHEET[1] // SIDE, SIDE, SHEET[0] // SIDE, SIDE, 4).swapaxes(1, 2)
    return np.stack([tiles[row, list(COLUMNS[motion])] for motion in MOTIONS for row in ROWS[motion]])


def read_layers(path: Path) -> list[np.ndarray]:
    """The same tiles from an npz with members body, bottomwear, topwear, hair, shoes.

    Raises DistkError for other members, shapes or types, before anything large is allocated.
    """
    found = []
    with open_npz(path, f"the layers {', '.join(LAYERS)}") as file:
        for layer in LAYERS:
            want = (1 if layer == "shoes" else 6, len(ACTIONS), FRAMES, SIDE, SIDE, 4)
            shape, dtype = file.header(layer)
            if (shape, dtype) != (want, np.dtype(np.uint8)):
                raise DistkError(f"'{path}': {layer} is {dtype} {shape}, expected uint8 {want}.")
            found.append(file.read(layer))
    return found


class Composer:
    """Lays the layers over each other. layers: the five arrays of `cut_sheets`, kept as uint8 on the device."""

    def __init__(self, layers: list[np.ndarray], device: torch.device) -> None:
        self.layers = [torch.from_numpy(layer).to(device) for layer in layers]

    def __call__(self, factors: Tensor) -> Tensor:
        """Factors int64 `[n, 5]` -> uint8 `[n, 8, 3, 64, 64]`: source over, from opaque black, rounded at the end."""
        image = torch.zeros((), device=factors.device)
        for k, layer in enumerate(self.layers):
            variant = factors[:, k] if k < 4 else torch.zeros_like(factors[:, 0])
            tile = layer[variant, factors[:, 4]].float()
            alpha = tile[..., 3:] / 255
            image = image * (1 - alpha) + tile[..., :3] * alpha
        return image.round().to(torch.uint8).permute(0, 1, 4, 2, 3).contiguous()


class LpcSprites(ClipDataset[NoConfig]):
    """Factors body, bottom, top, hair (6 values each) and action (9); 1,000 train and 296 test characters."""

    reads = "lpc_layers.npz, or the sheets body/0.png ... shoes/1.png, or the npy files walk_front_frames_train.npy ..."

    def __init__(self, config: NoConfig, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.factor_sizes = SIZES
        self.spec = DataSpec(
            "video",
            (FRAMES, 3, SIDE, SIDE),
            classes=ACTIONS,
            extra={"attributes": dict.fromkeys(ATTRIBUTES, 6)},
        )
        self.clips: Tensor | None = None
        layers = _first(files.folders, "lpc_layers.npz")
        sheets = _first(files.folders, "body/0.png", "sheets/body/0.png")
        frames = _first(files.folders, *(f"{p}{_name('*', '*', 'frames', '*')}" for p in ("", "npy/", "npy/npy/")))
        if layers is not None:
            self._use_layers(read_layers(layers), layers)
        elif sheets is not None:
            self._use_layers(cut_sheets(sheets.parents[1]), sheets.parents[1])
        elif frames is not None:
            self._use_npy(frames.parent)
        else:
            where = f" in '{files.folders[0]}'" if files.required else ""
            raise UsageError(
                f"'lpc-sprites' found no files{where}; it reads {self.reads}. "
                "Name their folder with --data-dir, or use --data sprites-sim, which needs none."
            )

    def _use_layers(self, layers: list[np.ndarray], where: Path) -> None:
        self.compose = Composer(layers, self.device)
        self.parts = character_split(SIZES, TRAIN, self.device)
        self.origin = f"composed on the device from {where}"
        if self.device.type == "cuda":  # 1.1 GB: there is room, and a batch becomes one gather
            rows = torch.arange(len(self), device=self.device)
            self.clips = torch.cat([self.compose(self.factors(part)) for part in rows.split(256)])

    def _use_npy(self, folder: Path) -> None:
        clips, tables, sizes = [], [], {}
        for split in ("train", "test"):
            found = read_npy(folder, split)
            clips.append(found[0])
            tables.append(found[1])
            sizes[split] = len(found[0])
        self.clips = torch.from_numpy(np.concatenate(clips)).to(self.device)
        self.table = torch.from_numpy(np.concatenate(tables)).to(self.device)
        every = torch.arange(len(self.table), device=self.device)
        self.parts = {"train": every[: sizes["train"]], "test": every[sizes["train"] :]}
        self.origin = f"read from the npy files in {folder}"

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 8, 3, 64, 64]` in [0, 1], `label` int64 `[n]` the motion, `factors` int64 `[n, 5]`."""
        factors = self.factors(rows)
        clips = self.compose(factors) if self.clips is None else self.clips.index_select(0, rows)
        return {"x": clips.float() / 255, "label": factors[:, 4], "factors": factors}


def _first(folders: list[Path], *patterns: str) -> Path | None:
    for folder in folders:
        for pattern in patterns:
            found = sorted(folder.glob(pattern)) if folder.is_dir() else []
            if found:
                return found[0]
            if folder.is_file() and folder.match(pattern):
                return folder
    return None


def _name(motion: str, direction: str, what: str, split: str) -> str:
    return f"{motion}_{direction}_{what}_{split}.npy"


def read_npy(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The released files of a split: clips uint8 `[9 n, 8, 3, 64, 64]` and factors int64 `[9 n, 5]`.

    The motion is taken from the file's name: the released `directions` files are wrong (the script writes the test
    array over the training one). Raises UsageError naming missing files, DistkError for other shapes or values.
    """
    pairs = [(m, d) for m in MOTIONS for d in DIRECTIONS]
    names = [_name(m, d, what, split) for m, d in pairs for what in ("frames", "attributes")]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"the npy folder '{folder}' lacks {', '.join(missing)}.")
    if folder.name == "npy" and folder.parent.name == "npy":
        warn_once(
            f"the files lie in '{folder}', one `npy` deeper than usual (the authors' loader appends it by itself)"
        )
    clips, factors = [], []
    with progress(f"reading {split}", len(pairs)) as advance:
        for action, (m, d) in enumerate(pairs):
            frames = _frames(folder / _name(m, d, "frames", split))
            clips.append(frames)
            factors.append(_attributes(folder / _name(m, d, "attributes", split), len(frames), action))
            advance(1)
    return np.concatenate(clips), np.concatenate(factors)


def _frames(path: Path) -> np.ndarray:
    array = open_npy(path, "r")
    if array.ndim != 5 or array.shape[1:] != CLIP or array.dtype not in (np.float32, np.float64):
        raise DistkError(f"'{path}' is {array.dtype} {array.shape}, expected float32 (N, 8, 64, 64, 3).")
    clips = np.empty((len(array), FRAMES, 3, SIDE, SIDE), np.uint8)
    for start in range(0, len(array), 64):
        part = np.asarray(array[start : start + 64])
        low, high = float(part.min()), float(part.max())
        if not (low >= 0 and high <= 1):
            raise DistkError(f"'{path}' holds values from {low:g} to {high:g}, expected 0 to 1 (uint8 / 256).")
        clips[start : start + 64] = np.rint(part * 256).clip(0, 255).transpose(0, 1, 4, 2, 3)
    return clips


def _attributes(path: Path, n: int, action: int) -> np.ndarray:
    array = open_npy(path, "r")
    if array.shape != (n, FRAMES, 4, 6) or array.dtype.kind not in "fiu":
        raise DistkError(f"'{path}' is {array.dtype} {array.shape}, expected float32 ({n}, 8, 4, 6).")
    first = np.asarray(array[:, 0])
    if not ((first == 1).sum(-1) == 1).all() or not np.isin(first, (0, 1)).all():
        raise DistkError(f"'{path}' must hold one-hot attributes: one 1 among 6 values.")
    return np.concatenate([first.argmax(-1), np.full((n, 1), action)], 1).astype(np.int64)


def build_lpc(sheets: Path, out: Path, characters: int | None = None) -> list[Path]:
    """Write the npy files of Li & Mandt from the spritesheets (or from lpc_layers.npz); returns their paths.

    sheets: folder with body/0.png ... shoes/1.png. characters: only the first so many of each split, for a trial
    (all of them take 4.6 GB). Unlike the authors' script, `directions_test` holds the test split.
    Raises UsageError for missing sheets, DistkError for unreadable ones or a full disk.
    """
    path = _first([sheets], "lpc_layers.npz", "body/0.png", "sheets/body/0.png")
    if path is None:
        raise UsageError(f"'{sheets}' holds neither body/0.png and the other sheets nor lpc_layers.npz.")
    layers = read_layers(path) if path.suffix == ".npz" else cut_sheets(path.parents[1])
    compose = Composer(layers, torch.device("cpu"))
    order = np.random.RandomState(423).permutation(6**4)
    splits = {"train": order[:TRAIN][:characters], "test": order[TRAIN:][:characters]}
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        with progress("writing", 2 * len(ACTIONS)) as advance:
            for split, chosen in splits.items():
                appearance = np.stack([chosen // 216, chosen // 36 % 6, chosen // 6 % 6, chosen % 6], 1)
                for action in range(len(ACTIONS)):
                    written += _write_motion(out, split, action, appearance, compose)
                    advance(1)
    except OSError as error:
        raise DistkError(f"cannot write to '{out}': {error.strerror or error}.") from error
    return written


def _write_motion(
    out: Path, split: str, action: int, appearance: np.ndarray, compose: Callable[[Tensor], Tensor]
) -> list[Path]:
    n = len(appearance)
    motion, direction = MOTIONS[action // 3], DIRECTIONS[action % 3]
    factors = torch.from_numpy(np.concatenate([appearance, np.full((n, 1), action)], 1)).long()

    def frames() -> Iterator[np.ndarray]:
        for part in factors.split(50):
            yield compose(part).permute(0, 1, 3, 4, 2).contiguous().numpy().astype(np.float32) / 256

    one_hot = np.eye(6, dtype=np.float32)[appearance]
    facing = np.eye(3, dtype=np.float32)[np.full((n, FRAMES), action % 3)]
    members = {
        "frames": ((n, *CLIP), frames()),
        "attributes": ((n, FRAMES, 4, 6), iter([np.repeat(one_hot[:, None], FRAMES, 1)])),
        "directions": ((n, FRAMES, 3), iter([facing])),
    }
    paths = []
    for what, (shape, parts) in members.items():
        path = out / _name(motion, direction, what, split)
        temporary = path.with_suffix(".npy.tmp")
        with temporary.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part).tobytes())
        temporary.replace(path)
        paths.append(path)
    return paths
