"""The networks: encoders with residual connections, the decoder of occupancy, the predictor of outcomes.

The paper gives the residual connections and the 768 units; every other number is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from distk.plugins.rl_control.grasping.projection import Cube

TRUNK = (32, 64, 128, 256, 256)
"""Channels after each halving of the picture."""
SOLID = (512, 256, 128, 64, 32, 16, 8)
"""Channels of the volumes of 2, 4, 8, ... voxels."""
START = -2.0
"""First bias of the voxels' logits: nearly empty, else every ray stops in front of the object."""
METRES = 10.0
"""Factor of a gripper's place, so that it is of the order of its rotation's entries."""


class Residual(nn.Module):
    """Two convolutions and a way around them: `[n, before, h, w]` -> `[n, after, h / stride, w / stride]`."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.around: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.around = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.around(x))


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """Numbers of channels times `width`, at least 4."""
    return [max(4, round(c * width)) for c in channels]


def trunk(shape: tuple[int, ...], units: int, width: float) -> nn.Sequential:
    """Encoder of pictures `[n, 4, h, w]` to units `[n, units]`, not below 0."""
    channels = scaled(TRUNK, width)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], channels[0], 5, 2, 2), nn.ReLU()]
    layers += [Residual(a, b, 2) for a, b in pairwise(channels)]
    places = 1
    for side in shape[1:]:
        for _ in channels:
            side = -(-side // 2)
        places *= side
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(places * channels[-1], units), nn.ReLU())


class Voxels(nn.Module):
    """Decoder of units `[n, units]` to logits of occupancy `[n, V, V, V]`, V a power of two."""

    def __init__(self, units: int, voxels: int, width: float) -> None:
        super().__init__()
        stages = voxels.bit_length() - 2
        self.channels = scaled(SOLID[:stages], width)
        self.first = nn.Linear(units, self.channels[0] * 8)
        layers: list[nn.Module] = []
        for a, b in pairwise(self.channels):
            layers += [nn.ConvTranspose3d(a, b, 4, 2, 1, bias=False), nn.BatchNorm3d(b), nn.ReLU()]
        self.last = nn.ConvTranspose3d(self.channels[-1], 1, 4, 2, 1)
        assert self.last.bias is not None
        nn.init.constant_(self.last.bias, START)
        self.body = nn.Sequential(*layers)

    def forward(self, units: Tensor) -> Tensor:
        x = torch.relu(self.first(units)).view(-1, self.channels[0], 2, 2, 2)
        return self.last(self.body(x)).squeeze(1)


def local_encoder(size: int, width: float, units: int = 256) -> nn.Sequential:
    """Encoder of what lies between the fingers, depth and silhouette `[n, 2, size, size]`, to `[n, units]`."""
    a, b, c = scaled((32, 64, 128), width)
    side = size
    for _ in range(3):
        side = -(-side // 2)
    return nn.Sequential(
        nn.Conv2d(2, a, 3, 2, 1), nn.ReLU(), nn.Conv2d(a, b, 3, 2, 1), nn.ReLU(), nn.Conv2d(b, c, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(c * side * side, units), nn.ReLU(),
    )  # fmt: skip


def pose_encoder(units: int = 128) -> nn.Sequential:
    """Encoder of the twelve numbers of `pose_numbers`."""
    return nn.Sequential(nn.Linear(12, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU())


def pose_numbers(pose: Tensor, cube: Cube) -> Tensor:
    """Poses `[..., 4, 4]` -> `[..., 12]`: the rotation row by row, and ten times the place from the cube's middle,
    m."""
    place = torch.stack([METRES * (pose[..., k, 3] - cube.centre[k]) for k in range(3)], -1)
    return torch.cat([pose[..., :3, :3].flatten(-2), place], -1)


def predictor(inputs: int) -> nn.Sequential:
    """Outcome's logit `[..., 1]` from everything that is known of a grasp `[..., inputs]`."""
    return nn.Sequential(
        nn.Linear(inputs, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1)
    )
