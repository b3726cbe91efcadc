"""Windows of clips, sampled on the device."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from distk.config import option
from distk.console import counted, note
from distk.data import Dataset, DataSpec, Split, permuted_split
from distk.errors import UsageError
from distk.stored import Stored
from distk.video.clips import Clips


@dataclass(frozen=True)
class WindowConfig:
    """Which frames of a clip make an item."""

    frames: int = option(16, "frames of an item", min=1, max=100_000)
    every: int = option(1, "take only every so many-th frame", min=1, max=10_000)
    min_len: int = option(1, "leave out clips with fewer frames than this", min=1, max=100_000)
    stride: int = option(1, "frames between the starts of two items of one clip", min=1, max=1_000_000)
    draw: Literal["clips", "windows"] = option(
        "clips", "in training draw a clip, then where it starts; or draw any start, so that long clips come oftener"
    )
    test: float = option(0.1, "share of the clips kept for the test split", above=0, max=0.9)
    split_seed: int = option(0, "which clips these are", min=0, max=2**31)


W = TypeVar("W", bound=WindowConfig, default=WindowConfig)


class VideoDataset(Dataset[W]):
    """Windows of `config.frames` frames; a window never leaves its clip. A row is a window.

    A subclass calls `hold` in its `__init__`, with clips from `distk.video.read_clips` or of its own making. Its Config
    extends `WindowConfig`. Windows of one clip are all in the same split.

    pixels: uint8 `[N, c, h, w]`, all frames, on the device or the host.
    offsets, lengths: int64 `[clips]`, first frame and number of frames of each clip.
    windows: int64 `[clips]`, number of windows; first: int64 `[clips]`, row of a clip's first window.
    """

    pixels: Stored
    offsets: Tensor
    lengths: Tensor
    windows: Tensor
    first: Tensor
    label: Tensor | None = None

    def hold(self, clips: Clips) -> None:
        """Take clips over; those shorter than a window are left out, and it is said how many.

        Sets `spec` and `origin`. Raises UsageError where every clip is shorter than a window.
        """
        config, device = self.config, self.device
        self.span = (config.frames - 1) * config.every + 1
        lengths = torch.tensor(clips.lengths)
        least = max(self.span, config.min_len)
        kept = (lengths >= least).nonzero()[:, 0]
        short = (lengths < least).nonzero()[:, 0].tolist()
        if config.min_len > self.span:
            needs, fewer = f"the {least} of --min-len", "--min-len"
        elif config.every > 1:
            needs, fewer = (
                f"the {least} that {counted(config.frames, 'frame')}, every {config.every}. of a clip, needs",
                "--frames",
            )
        else:
            needs, fewer = f"the {least} that an item needs", "--frames"
        if short:
            first = f"'{clips.names[short[0]]}' has {clips.lengths[short[0]]}"
            told = f"{len(short):,} of {counted(len(clips), 'clip')} have fewer frames than {needs}"
            if not len(kept):
                raise UsageError(f"{told}; {first}. Ask for fewer with {fewer}.")
            note(f"{told}, and are left out; {first}")
        ends = lengths.cumsum(0)
        self.names = [clips.names[i] for i in kept.tolist()]
        self.lengths, self.offsets = lengths[kept].to(device), (ends - lengths)[kept].to(device)
        self.windows = (self.lengths - self.span) // config.stride + 1
        last = self.windows.cumsum(0)
        self.first, self._ends, self._total = last - self.windows, last, int(last[-1])
        self.label = torch.tensor(clips.labels, device=device)[kept.to(device)] if clips.labels else None
        self._within = torch.arange(config.frames, device=device) * config.every
        self.pixels = Stored(clips.frames, device, self.where)
        self.stored = (self.pixels,)
        extra = {"fps": clips.fps / config.every} if clips.fps else {}
        self.spec = DataSpec("video", (config.frames, *clips.frames.shape[1:]), classes=clips.classes, extra=extra)
        self.origin = (
            f"{clips.told or counted(len(clips), 'clip')}; {counted(self._total, 'window')} of"
            f" {counted(config.frames, 'frame')}"
        )
        self._parts()

    def _parts(self) -> None:
        """Clips and rows of each split. One clip alone is in both."""
        count = len(self.windows)
        if count == 1:
            note("one clip alone is both for training and for the test, so its scores are no test")
        split = permuted_split(count, self.config.test, self.config.split_seed, self.device) if count > 1 else {}
        self._clips = split
        row = torch.arange(self._total, device=self.device)
        clip = torch.searchsorted(self._ends, row, right=True)
        self.parts = {name: row[torch.isin(clip, chosen)] for name, chosen in split.items()}
        every = torch.arange(count, device=self.device)
        self._frames = {name: self._frames_of(chosen) for name, chosen in {"all": every, **split}.items()}

    def _frames_of(self, clips: Tensor) -> tuple[Tensor, Tensor, int]:
        """Of some clips: where the next one's frames begin in their row of all frames, what leads from a place in that
        row to `pixels`, and the row's length."""
        ends = self.lengths[clips].cumsum(0)
        return ends, self.offsets[clips] - (ends - self.lengths[clips]), int(ends[-1])

    def __len__(self) -> int:
        return self._total

    def clips(self, split: Split) -> Tensor | None:
        """The clips of a split, int64 on the device; None means all of them."""
        return self._clips.get(split)

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` windows: of clips drawn uniformly, each from a start drawn uniformly; or uniform over all windows."""
        if self.config.draw == "windows":
            return super().sample(n, generator, split, bucket)
        clips = self._clips.get(split)
        count = len(self.windows) if clips is None else len(clips)
        drawn = torch.randint(count, (n,), generator=generator, device=self.device)
        clip = drawn if clips is None else clips[drawn]
        at = torch.rand(n, generator=generator, device=self.device, dtype=torch.float64)
        start = (at * self.windows[clip]).long()
        return self._batch(clip, start.minimum(self.windows[clip] - 1))

    def sample_frames(self, n: int, generator: torch.Generator, split: Split = "train") -> Tensor:
        """`n` frames float32 `[n, c, h, w]` in [0, 1], uniform over all frames of all clips of a split, also those that
        `every` passes over and those at the end of a clip, which fewer windows hold."""
        ends, shift, total = self._frames.get(split, self._frames["all"])
        drawn = torch.randint(total, (n,), generator=generator, device=self.device)
        return self._pictures(drawn + shift[torch.searchsorted(ends, drawn, right=True)])

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Windows int64 `[n]` -> `x` float32 `[n, t, c, h, w]` in [0, 1]; `clip` int64 `[n]`, number of its clip;
        `start` int64 `[n]`, its first frame within that clip; `label` int64 `[n]`, where clips have classes."""
        clip = torch.searchsorted(self._ends, rows, right=True)
        return self._batch(clip, rows - self.first[clip])

    def _batch(self, clip: Tensor, window: Tensor) -> dict[str, Tensor]:
        start = window * self.config.stride
        index = ((self.offsets[clip] + start)[:, None] + self._within).flatten()
        batch = {"x": self._pictures(index).view(len(clip), *self.spec.shape), "clip": clip, "start": start}
        return batch if self.label is None else {**batch, "label": self.label[clip]}

    def _pictures(self, index: Tensor) -> Tensor:
        """Frames at these places of `pixels`, float32 `[n, c, h, w]` on the device."""
        found = self.pixels[index]
        return found / 255  # a quotient of bytes is float32, made in one pass

    def whole(self, clip: int) -> Tensor:
        """A whole clip, float32 `[length, c, h, w]` in [0, 1] on the device."""
        start, length = int(self.offsets[clip]), int(self.lengths[clip])
        return self.pixels[torch.arange(start, start + length, device=self.device)] / 255
