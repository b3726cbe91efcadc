"""Looking at a shape on black as it is: its pixels, their mean colour, their centroid. Nothing is trained for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DARK = 16.0
"""A frame whose brightest channel is below, of 255, holds no shape."""
TRAVEL = 0.25
"""A clip moves where its centroid travels this share of the frame's side along one axis: 16 pixels of 64."""


class Shapes(NamedTuple):
    """What is seen in `n` clips of `t` frames: `seen` bool `[n, t]`, whether a frame holds a shape; its mean `colour`
    `[n, t, 3]` in 0..255, `centre` `[n, t, 2]` (x, y) and `area` `[n, t]` in pixels; float64, 0 where there is none."""

    seen: Tensor
    colour: Tensor
    centre: Tensor
    area: Tensor


def look(clips: Tensor, threshold: float = 0.5) -> Shapes:
    """Clips `[n, t, 1 or 3, h, w]` in 0..255 -> their shapes: the pixels whose brightest channel exceeds `threshold`
    of the frame's brightest. A frame whose brightest is below 16 is empty."""
    clips = clips.double()
    bright = clips.amax(2)
    peak = bright.amax((2, 3), keepdim=True)
    mask = ((bright > threshold * peak) & (peak >= DARK)).double()
    area = mask.sum((2, 3))
    count = area.clamp_min(1)
    height, width = mask.shape[2:]
    x, y = (torch.arange(side, dtype=torch.float64, device=clips.device) for side in (width, height))
    centre = torch.stack([(mask * x).sum((2, 3)), (mask * y[:, None]).sum((2, 3))], 2) / count[..., None]
    return Shapes(area > 0, (clips * mask.unsqueeze(2)).sum((3, 4)) / count[..., None], centre, area)


def content_distance(features: Tensor, seen: Tensor) -> Tensor:
    """Mean over pairs of frames of the distance of their features, `[n, t, d]` -> `[n]`; only frames of `seen` bool
    `[n, t]` count, and a clip of fewer than two is NaN (Tulyakov et al. 2017, section 4)."""
    pairs = seen.unsqueeze(2) & seen.unsqueeze(1)
    pairs = pairs.triu(1)
    distance = (features.unsqueeze(2) - features.unsqueeze(1)).norm(dim=3)
    return (distance * pairs).sum((1, 2)) / pairs.sum((1, 2))


def journeys(shapes: Shapes) -> tuple[Tensor, Tensor]:
    """The centroid's way from first to last frame, `[n, 2]` (x, y) in pixels, and whether both hold a shape, bool
    `[n]`; without them the way is 0."""
    both = shapes.seen[:, 0] & shapes.seen[:, -1]
    return (shapes.centre[:, -1] - shapes.centre[:, 0]) * both[:, None], both


def axes(shapes: Shapes) -> Tensor:
    """The axis along which the centroid travels farther: 1 for x, 0 for y, -1 where first or last frame is empty or
    nothing moves at all; int64 `[n]`."""
    way, both = journeys(shapes)
    across, along = way.abs().unbind(1)
    return torch.where(both & (across != along), (across > along).long(), -1)


def moves(shapes: Shapes, side: int) -> Tensor:
    """Whether the centroid travels a quarter of the frame's side along one axis, bool `[n]`."""
    return journeys(shapes)[0].abs().amax(1) >= TRAVEL * side


def steps_of(shapes: Shapes) -> Tensor:
    """Distances of the centroid between neighbouring frames that both hold a shape, pixels, flat."""
    both = shapes.seen[:, 1:] & shapes.seen[:, :-1]
    return (shapes.centre[:, 1:] - shapes.centre[:, :-1]).norm(dim=2)[both]


def clip_colours(shapes: Shapes) -> Tensor:
    """Mean colour of each clip's shape over its frames that hold one, `[n, 3]` in 0..255; NaN for a clip without."""
    seen = shapes.seen.unsqueeze(2)
    return (shapes.colour * seen).sum(1) / seen.sum(1)
