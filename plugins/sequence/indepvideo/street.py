"""street: a street from above, seen by a fixed camera; from the user's own video, or drawn.

5th Avenue (Whitney & Fergus 2017) was never released. The stand-in has what the paper says of it: cars and
pedestrians that come, go and mostly do not interact, and light that changes for all of them at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distk import DataSpec, Files, Split, option
from distk.console import counted, warn
from distk.plugins.sequence.indepvideo.data import ClipConfig, DrawnClips, covered
from distk.video import Fit, VideoDataset, WindowConfig, read_clips
from distk.video.clips import Clips

SIZE = 64
LANES = ((20.0, 1), (31.0, 1), (42.0, -1))
"""Middle row of each lane, and the direction of its cars along the columns."""
CARS, WALKERS = 8, 6
"""Cars of a lane and pedestrians that a clip can know of."""
SPACING = 26.0
"""Mean distance in pixels of cars that enter a lane one after the other."""
KERBS = ((11.0, 14.0), (48.0, 52.0))
"""Rows of the two kerbs."""
CAR, WALKER = 7, 4
"""Numbers that a car and a pedestrian are made of."""


@dataclass(frozen=True)
class Config(ClipConfig):
    """How long clips are; of the user's video which frames are taken."""

    every: int = option(1, "of your own video take only every so many-th frame: 15 makes 2 a second of 30", min=1)
    clip_test: float = option(
        0.1, "share of your own clips, or of a lone one's time, for the test split", above=0, max=0.9
    )


class _Recorded(VideoDataset[WindowConfig]):
    """Windows of the clips in a folder, squares of side 64."""


class Street(DrawnClips[Config]):
    """`x` float32 `[n, t, 3, 64, 64]` in [0, 1].

    Drawn: three lanes on a fixed background; cars of 4x3 to 9x5 pixels that enter at exponential distances, with a
    speed of 0.5 to 3 pixels a frame about that of their lane, and behind a slower car keep its pace (Newell 2002: the
    smaller of the free way and the leader's way less its length), so that none overtakes; up to six pedestrians at
    0.3 pixels a frame; brightness that drifts.
    """

    reads = "clips of one fixed camera: an npz, folders of frames, PNG strips, GIF, MP4 or AVI files"

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        self.recorded: _Recorded | None = None
        if files.required:
            window = WindowConfig(config.frames, config.every, test=config.clip_test)
            self.recorded = _Recorded(window, device, files)
            self.recorded.hold(in_stretches(read_clips(files.folders[0], Fit(SIZE, 3)), window))
            self.spec, self.parts, self.origin = self.recorded.spec, self.recorded.parts, self.recorded.origin
            return
        self.spec = DataSpec("video", (config.frames, 3, SIZE, SIZE))
        self.origin = "cars and pedestrians drawn on the device in place of 5th Avenue, which was never released"
        self.background = _background().to(device)
        self.fix(3 + len(LANES) * (1 + CARS * CAR) + WALKERS * WALKER)

    def __len__(self) -> int:
        return len(self.fixed if self.recorded is None else self.recorded)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The clips, or windows of the user's clips, of these rows."""
        return super().batch(rows) if self.recorded is None else self.recorded.batch(rows)

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Hashable = None
    ) -> dict[str, Tensor]:
        """`n` new clips for the train split; of the user's video `n` windows, see `VideoDataset.sample`."""
        if self.recorded is None:
            return super().sample(n, generator, split, bucket)
        return self.recorded.sample(n, generator, split, bucket)

    def clips(self, uniform: Tensor, held: Tensor) -> dict[str, Tensor]:
        """`x` `[n, t, 3, 64, 64]`; `car` float32 `[n, t, cars, 2]`, row and column of the upper left corner of every
        car, also of those outside the frame."""
        light, lanes, walkers = uniform.split([3, len(LANES) * (1 + CARS * CAR), WALKERS * WALKER], 1)
        boxes, colours = self.cars(lanes.view(len(uniform), len(LANES), -1))
        people, clothes = self.walkers(walkers.view(len(uniform), WALKERS, WALKER), light[:, 2])
        down = covered(
            torch.cat([boxes[..., 0], people[..., 0]], 2), torch.cat([boxes[..., 2], people[..., 2]], 2), SIZE
        )
        across = covered(
            torch.cat([boxes[..., 1], people[..., 1]], 2), torch.cat([boxes[..., 3], people[..., 3]], 2), SIZE
        )
        share = torch.einsum("ntoh,ntow->nthw", down, across).unsqueeze(2)
        tint = torch.einsum("ntoh,ntow,noc->ntchw", down, across, torch.cat([colours, clothes], 1))
        # Only pedestrians can overlap; where they do, a pixel is the mean of their colours.
        x = self.background * (1 - share.clamp(max=1)) + tint / share.clamp(min=1)
        time = torch.arange(self.config.frames, device=uniform.device)
        gain = (0.75 + 0.25 * light[:, :1] + 0.02 * (light[:, 1:2] - 0.5) * time).clamp(0.5, 1)
        return {"x": (x * gain[..., None, None, None]).clamp(0, 1), "car": boxes[..., :2]}

    def cars(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers `[n, lanes, 1 + CARS * CAR]` -> boxes `[n, t, lanes * CARS, 4]` (row, column, height, width) and
        colours `[n, lanes * CARS, 3]`.

        A lane is looked at backwards: of the cars that have entered by the last frame, the newest CARS, at exponential
        distances; then each, the oldest first, keeps behind the one that entered before it.
        """
        car = numbers[..., 1:].unflatten(2, (CARS, CAR))
        pace = 0.5 + 2.5 * numbers[..., :1]
        speed = (pace * (0.8 + 0.4 * car[..., 0])).clamp(0.5, 3.0)
        length, width = 4 + 5 * car[..., 1], 3 + 2 * car[..., 2]
        between = -SPACING * torch.log1p(-car[..., 3].clamp(max=1 - 1e-6))
        last = self.config.frames - 1
        entered = last - (between / pace).cumsum(-1)  # the newest first
        time = torch.arange(self.config.frames, device=numbers.device)
        front = speed[..., None] * (time - entered[..., None])  # columns of the front, from the lane's entrance
        columns = [front[:, :, -1]]
        for i in reversed(range(CARS - 1)):
            rear = columns[-1] - length[:, :, i + 1, None]
            columns.append(torch.minimum(front[:, :, i], rear - 1))
        front = torch.stack(columns[::-1], 2)
        middle, way = (torch.tensor(column, device=numbers.device) for column in zip(*LANES, strict=True))
        ahead = (way > 0).view(-1, 1, 1)
        column = torch.where(ahead, front - length[..., None], SIZE - front)
        row = (middle.view(-1, 1) - width / 2)[..., None].expand_as(column)
        box = torch.stack([row, column, *(v[..., None].expand_as(column) for v in (width, length))], -1)
        return box.flatten(1, 2).transpose(1, 2), car[..., 4:].flatten(1, 2)

    def walkers(self, numbers: Tensor, crowd: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers `[n, WALKERS, WALKER]` and how full the kerbs are `[n]` -> boxes `[n, t, WALKERS, 4]` and colours.

        Of WALKERS places in the order floor((WALKERS + 1) crowd) are taken; the others lie outside the frame.
        """
        there = torch.arange(WALKERS, device=numbers.device) < ((WALKERS + 1) * crowd).floor()[:, None]
        side, at, way, shade = numbers.unbind(-1)
        low, high = (torch.where(side < 0.5, KERBS[0][k], KERBS[1][k]) for k in (0, 1))
        row = low + (high - low) * (2 * side % 1)
        time = torch.arange(self.config.frames, device=numbers.device).view(-1, 1)
        step = torch.where(way < 0.5, -0.3, 0.3).unsqueeze(1)
        column = torch.where(there.unsqueeze(1), (SIZE * at).unsqueeze(1) + step * time, -SIZE)
        box = [row.unsqueeze(1).expand_as(column), column, torch.full_like(column, 3), torch.full_like(column, 2)]
        return torch.stack(box, -1), torch.stack([shade, 0.2 + 0.5 * (way * 2 % 1), 1 - shade], -1)


def in_stretches(clips: Clips, window: WindowConfig) -> Clips:
    """One long recording cut into stretches of equal length that share no frame, so that some can be kept for the test;
    several clips as they are. What is too short for two stretches stays whole, and is said to serve for both splits."""
    if len(clips) > 1:
        return clips
    length, span = clips.lengths[0], (window.frames - 1) * window.every + 1
    number = min(round(1 / min(window.test, 1 - window.test)), length // span)
    if number < 2:
        warn(
            f"one clip of {counted(length, 'frame')} cannot be split: the same frames train and test, so scores are no"
            " test"
        )
        return clips
    edges = [length * i // number for i in range(number + 1)]
    return replace(
        clips,
        lengths=[b - a for a, b in itertools.pairwise(edges)],
        names=[f"{clips.names[0]}, stretch {i + 1}" for i in range(number)],
        labels=clips.labels * number,
    )


def _background() -> Tensor:
    """Houses above and below, kerbs and a road that darkens to the right, float32 `[3, 64, 64]`; always the same."""
    draw = torch.Generator().manual_seed(0)
    across = torch.linspace(0.5, 0.3, SIZE).expand(3, SIZE, SIZE).clone()
    houses = 0.3 + 0.3 * torch.rand(1, SIZE // 4, SIZE // 4, generator=draw)
    houses = houses + 0.08 * torch.rand(3, SIZE // 4, SIZE // 4, generator=draw)
    houses = houses.repeat_interleave(4, 1).repeat_interleave(4, 2)
    rows = torch.arange(SIZE).view(1, -1, 1)
    kerb = ((rows >= 10) & (rows < 17)) | ((rows >= 47) & (rows < 55))
    ground = torch.where(kerb, torch.tensor(0.62), across)
    grain = 0.03 * torch.rand(3, SIZE, SIZE, generator=draw)
    return torch.where((rows < 10) | (rows >= 55), houses, ground) + grain
