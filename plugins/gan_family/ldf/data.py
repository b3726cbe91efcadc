"""Clips of Ms. Pac-Man after Cooper 2017: cut from screenshots, cut already, or drawn on the device without files.

Every clip is a random 32x32 crop of five consecutive frames. With probability 0.95 a crop is drawn anew, up to 100
times, until it moves by more than `min_motion`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, DistkError, Files, UsageError, option
from distk.arrays import open_npz
from distk.console import counted, note, progress
from distk.device import seeded
from distk.plugins.gan_family.ldf.maze import FRAMES, SIDE, Painter, Scenes, corners, motion, play
from distk.video import Fit, read_clips
from distk.video.clips import natural

TRIES, ALWAYS = 100, 0.95
"""Crops that are tried at most, and the share of clips that must move (Cooper's code)."""
FORM = "arr_0 of 32 x 32 x 15 numbers in [-1, 1], three channels for each of five frames"
Cut = Callable[[Tensor], Tensor]
"""Numbers of clips int64 `[n]` -> fresh crops float `[n, t, c, h, w]` in [0, 1]."""


@dataclass(frozen=True)
class Config:
    """How many clips are drawn, and how much must move in them."""

    clips: int = option(20_000, "clips to train on", paper="20000", min=2, max=1_000_000)
    held_out: int = option(2_000, "further clips for the test split", min=1, max=1_000_000)
    min_motion: float = option(100.0, "how much a clip must move: squared differences, summed", paper="100", min=0)
    clip_seed: int = option(0, "which clips are drawn", min=0, max=2**31)


class Pacman(Dataset[Config]):
    """Clips float32 `[5, 3, 32, 32]` in [0, 1]; a row is a clip. The first rows train, the last ones test.

    scenes, corner: of drawn clips what happens and where the crop lies; None for files.
    """

    reads = "Ms_Pacman/Train and Test (a folder of PNG frames per episode), or clips as 0.npz, 1.npz, ..."
    scenes: Scenes | None = None
    corner: Tensor | None = None

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.spec = DataSpec("video", (FRAMES, 3, SIDE, SIDE))
        found = files.find("Ms_Pacman/Train", "Train", "[0-9]*.npz")
        if found is None:
            self._draw()
        elif found.suffix == ".npz":
            self._read_cut(found.parent)
        else:
            self._read_episodes(found)

    def _hold(self, clips: list[Tensor], train: int) -> None:
        self.clips = torch.cat(clips).to(self.device)
        every = torch.arange(len(self.clips), device=self.device)
        self.parts = {"train": every[:train], "test": every[train:]}

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 5, 3, 32, 32]` in [0, 1], `clip` int64 `[n]`, the row."""
        return {"x": self.clips.index_select(0, rows).float() / 255, "clip": rows}

    # Three sources

    def _draw(self) -> None:
        config = self.config
        total = config.clips + config.held_out
        generator = seeded(config.clip_seed, self.device)
        painter = Painter(self.device)
        clips, places, stories = [], [], []
        with progress("drawing clips", total) as advance:
            for start in range(0, total, 2000):
                scenes = play(min(2000, total - start), generator)
                corner = torch.zeros(len(scenes.maze), 2, dtype=torch.long, device=self.device)

                def cut(which: Tensor, scenes: Scenes = scenes, corner: Tensor = corner) -> Tensor:
                    part = scenes[which]
                    corner[which] = at = corners(part, generator)
                    return painter.paint(part, at)

                clips.append(moving(cut, len(scenes.maze), config.min_motion, generator))
                places.append(corner)
                stories.append(scenes)
                advance(len(scenes.maze))
        self.scenes = Scenes(*(torch.cat(parts) for parts in zip(*(vars(s).values() for s in stories), strict=True)))
        self.corner = torch.cat(places)
        self.origin = f"{counted(total, 'clip')} of a maze game drawn on the device (no file)"
        self._hold(clips, config.clips)

    def _read_episodes(self, train: Path) -> None:
        config = self.config
        test = train.with_name("Test")
        episodes = _folders(train)
        held = _folders(test) if test.is_dir() else episodes[9::10]
        if not test.is_dir():
            episodes = [e for i, e in enumerate(episodes) if i % 10 != 9]
        if not episodes or not held:
            raise UsageError(
                f"'{train}' needs a folder of PNG frames per episode, and beside it 'Test' with others to test on."
            )
        generator = torch.Generator().manual_seed(config.clip_seed)
        clips = [self._cut(episodes, config.clips, generator), self._cut(held, config.held_out, generator)]
        self.origin = (
            f"{counted(sum(map(len, clips)), 'clip')} cut from {counted(len(episodes), 'episode')} and {len(held)} for "
            f"the test in {train.parent}"
        )
        self._hold(clips, config.clips)

    def _cut(self, episodes: list[Path], clips: int, generator: torch.Generator) -> Tensor:
        """`clips` crops of random episodes, uint8; each episode is read once."""
        chosen = torch.randint(len(episodes), (clips,), generator=generator)
        found = torch.empty(clips, FRAMES, 3, SIDE, SIDE, dtype=torch.uint8)
        best = torch.zeros(())
        with progress("cutting clips", clips) as advance:
            for i, folder in enumerate(episodes):
                mine = (chosen == i).nonzero()[:, 0]
                if not len(mine):
                    continue
                frames = torch.from_numpy(read_clips(folder, Fit(None, 3), "frames").frames)
                _, _, height, width = frames.shape
                if len(frames) < FRAMES or min(height, width) < SIDE:
                    raise UsageError(
                        f"episode '{folder}' has {counted(len(frames), 'frame')} of {width}x{height} pixels; a clip"
                        f" needs {FRAMES} of at least {SIDE}x{SIDE}: remove it."
                    )
                start = (torch.rand(len(mine), generator=generator) * (len(frames) - FRAMES + 1)).long()
                made, moved = _crops(frames, start, self.config.min_motion, generator)
                found[mine], best = made, torch.maximum(best, moved)
                advance(len(mine))
        _refuse_still(best, self.config.min_motion)
        return found

    def _read_cut(self, folder: Path) -> None:
        files = sorted(folder.glob("[0-9]*.npz"), key=natural)
        wanted = self.config.clips + self.config.held_out
        if len(files) < 2:
            raise UsageError(f"'{folder}' holds {len(files)} clip; it takes two or more, 0.npz, 1.npz and so on.")
        if len(files) < wanted:
            note(
                f"'{folder}' holds {counted(len(files), 'clip')}, not {wanted:,}: a tenth of them, at most, is the test"
                " split"
            )
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(self.config.clip_seed)).tolist()
        files = [files[i] for i in order[:wanted]]
        test = min(self.config.held_out, max(1, len(files) // 10)) if len(files) < wanted else self.config.held_out
        clips = []
        with progress("reading clips", len(files)) as advance:
            for file in files:
                clips.append(torch.from_numpy(_read_one(file)))
                advance(1)
        self.origin = f"{counted(len(files), 'clip')} read from {folder}"
        self._hold([torch.stack(clips)], len(files) - test)


def moving(cut: Cut, clips: int, least: float, generator: torch.Generator) -> Tensor:
    """Crops of `clips` clips by Cooper's rule, uint8 `[n, t, c, h, w]`.

    cut: draws a fresh crop of each clip it is asked for. Raises UsageError where not one crop moves enough.
    """
    made, moved = _tried(cut, clips, least, generator)
    _refuse_still(moved, least)
    return made


def _tried(cut: Cut, clips: int, least: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The crops, and the largest movement of any of them. A clip keeps its last crop where none moved enough."""
    waiting = torch.arange(clips, device=generator.device)
    picky = torch.rand(clips, generator=generator, device=generator.device) < ALWAYS
    found, largest = None, torch.zeros((), device=generator.device)
    for _ in range(TRIES):
        crops = cut(waiting)
        moved = motion(crops)
        shown = (crops * 255).round().to(torch.uint8)
        found = shown if found is None else found.index_copy(0, waiting, shown)
        largest = torch.maximum(largest, moved.max())
        waiting = waiting[picky[waiting] & (moved <= least)]
        if not len(waiting):
            break
    assert found is not None
    return found, largest


def _refuse_still(largest: Tensor, least: float) -> None:
    if float(largest) <= least:
        raise UsageError(
            f"no clip moves by more than --min-motion {least:g}; the liveliest by {float(largest):.4g}: take less."
        )


def _folders(path: Path) -> list[Path]:
    return sorted((p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)


def _crops(frames: Tensor, start: Tensor, least: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crops of clips that begin at frames `start`, uint8, and the largest movement. frames: uint8 `[N, 3, h, w]`."""
    _, _, height, width = frames.shape
    time, side = torch.arange(FRAMES), torch.arange(SIDE)

    def cut(which: Tensor) -> Tensor:
        y, x = (
            (torch.rand(len(which), generator=generator) * (size - SIDE + 1)).long()[:, None] + side
            for size in (height, width)
        )
        at = start[which][:, None] + time
        crops = frames[at[:, :, None, None], :, y[:, None, :, None], x[:, None, None, :]]
        return crops.permute(0, 1, 4, 2, 3).float() / 255

    return _tried(cut, len(start), least, generator)


def _read_one(path: Path) -> np.ndarray:
    """A clip that was cut before, uint8 `[5, 3, 32, 32]`. Raises DistkError for other shapes or values out of range."""
    with open_npz(path, FORM) as file:
        shape, dtype = file.header("arr_0")
        if shape != (SIDE, SIDE, 3 * FRAMES) or dtype.kind != "f":
            raise DistkError(f"'{path}': arr_0 is {dtype} {shape}; expected {FORM}.")
        values = file.read("arr_0").astype(np.float32)
    if not np.isfinite(values).all() or np.abs(values).max() > 1 + 1e-3:
        raise DistkError(f"'{path}': arr_0 has values outside [-1, 1]; expected {FORM}.")
    frames = values.reshape(SIDE, SIDE, FRAMES, 3).transpose(2, 3, 0, 1)
    return ((frames.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
