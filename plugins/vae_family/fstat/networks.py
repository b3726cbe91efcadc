"""The encoders of `fstat` and its rivals; the last layer is linear, without activation or normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import DataSpec
from distk.nn import mlp


class SpriteEncoder(nn.Module):
    """Encoder of Reed et al. as the published program has it: images `[n, c, h, w]` -> embedding `[n, k]`, linear.

    Its "batch normalisation" uses mean 0, variance 1 and no scale, which is the identity, so there is none here.
    """

    def __init__(self, spec: DataSpec, k: int, hidden: int) -> None:
        super().__init__()
        channels, height, width = spec.shape
        inner = [((side - 5) // 2 + 1 - 5) // 2 + 1 for side in (height, width)]
        if min(height, width) < 13:
            raise ValueError(f"this encoder takes images of at least 13x13 pixels, not {height}x{width}")
        self.body = nn.Sequential(
            nn.Conv2d(channels, 64, 5, 2),
            nn.ReLU(),
            nn.Conv2d(64, 32, 5, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * inner[0] * inner[1], hidden),
            nn.ReLU(),
            nn.Linear(hidden, k),
        )
        glorot_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class PersonEncoder(nn.Module):
    """Deep metric learning of Yi et al. for pictures of persons, cut into top, middle and bottom thirds.

    images `[n, c, h, w]` -> embedding `[n, k]`. The first convolution is shared by the thirds, the second is not.
    """

    def __init__(self, spec: DataSpec, k: int, hidden: int) -> None:
        super().__init__()
        channels, height, width = spec.shape
        if height < 12 or width < 4:
            raise ValueError(f"this encoder takes images of at least 12x4 pixels, not {height}x{width}")
        self.third = height // 3
        self.first = nn.Conv2d(channels, 64, 7, padding=3)
        self.second = nn.ModuleList(nn.Conv2d(64, 64, 5, padding=2) for _ in range(3))
        rows = [self.third, self.third, height - 2 * self.third]
        flat = sum(64 * half(half(side)) * half(half(width)) for side in rows)
        self.last = nn.Linear(flat, k)
        glorot_(self)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, :, : self.third], x[:, :, self.third : 2 * self.third], x[:, :, 2 * self.third :]]
        found = []
        for part, second in zip(parts, self.second, strict=True):
            low = same_pool(response_norm(F.relu(self.first(part))), 7)
            found.append(same_pool(response_norm(F.relu(second(low))), 5).flatten(1))
        return self.last(torch.cat(found, 1))


class VectorEncoder(nn.Module):
    """Vectors `[n, m]` -> embedding `[n, k]` through one hidden layer."""

    def __init__(self, spec: DataSpec, k: int, hidden: int) -> None:
        super().__init__()
        self.body = mlp([spec.shape[0], hidden, k])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def half(side: int) -> int:
    """What a stride of 2 with SAME padding leaves of a side."""
    return (side + 1) // 2


def response_norm(x: Tensor) -> Tensor:
    """TensorFlow's local response normalisation with its defaults: x / sqrt(1 + sum over 11 channels of x^2).

    torch divides alpha by the number of channels, so that alpha = 1 becomes 11.
    """
    return F.local_response_norm(x, size=11, alpha=11.0, beta=0.5, k=1.0)


def same_pool(x: Tensor, kernel: int) -> Tensor:
    """Max-pooling with stride 2 and TensorFlow's SAME padding, whose odd pixel lies right and below."""
    pads: list[int] = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((half(side) - 1) * 2 + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.max_pool2d(F.pad(x, pads, value=-torch.inf), kernel, 2)


def glorot_(module: nn.Module) -> None:
    """Glorot-uniform weights, biases 0.01, as in the published program; in place."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.01)


ENCODERS = {"sprite": SpriteEncoder, "person": PersonEncoder, "mlp": VectorEncoder}
