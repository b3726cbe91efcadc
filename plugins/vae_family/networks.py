"""Encoders and decoders that several methods of the family share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import DataSpec
from distk.nn import he_truncated_


def _channels(spec: DataSpec) -> tuple[int, list[int]]:
    """Input channels and the widths of the stride-2 convolutions down to 4x4.

    Raises ValueError for images that are not square of 32 or 64 pixels.
    """
    channels, height, width = spec.shape
    if height != width or height not in (32, 64):
        raise ValueError(f"this architecture takes images of 32x32 or 64x64 pixels, not {height}x{width}")
    return channels, [32, 32, 64, 64] if height == 64 else [32, 32, 64]


class SnuEncoder(nn.Module):
    """Convolutional encoder of Jeong & Song (2019): images `[n, c, s, s]` -> mean and std, each `[n, z]`, std > 0."""

    def __init__(self, spec: DataSpec, z: int, hidden: int = 256) -> None:
        super().__init__()
        channels, widths = _channels(spec)
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, hidden), nn.ReLU(), nn.Linear(hidden, 2 * z))
        he_truncated_(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.body(x).chunk(2, dim=1)
        return mean, F.softplus(raw)


class SnuDecoder(nn.Module):
    """Convolutional decoder of Jeong & Song (2019): code `[n, code]` -> logits `[n, c, s, s]`."""

    def __init__(self, spec: DataSpec, code: int, hidden: int = 256) -> None:
        super().__init__()
        channels, widths = _channels(spec)
        self.first = nn.Linear(code, hidden)
        layers: list[nn.Module] = [nn.ReLU(), nn.Linear(hidden, 1024), nn.ReLU(), nn.Unflatten(1, (64, 4, 4))]
        outputs = [*widths[-2::-1], channels]
        for i, (fan_in, fan_out) in enumerate(zip(widths[::-1], outputs, strict=True)):
            layers += [nn.ConvTranspose2d(fan_in, fan_out, 4, 2, 1)]
            if i < len(widths) - 1:
                layers += [nn.ReLU()]
        self.rest = nn.Sequential(*layers)
        he_truncated_(self)

    def forward(self, code: Tensor) -> Tensor:
        return self.rest(self.first(code))

    def per_class(self, z: Tensor, classes: int) -> Tensor:
        """Decode every z `[n, m]` with every one-hot class in the last `classes` inputs -> `[n, classes, c, s, s]`.

        The first layer is linear, so z passes it once and each class only adds its column.
        """
        weight = self.first.weight
        from_z = F.linear(z, weight[:, :-classes], self.first.bias)
        hidden = from_z.unsqueeze(1) + weight[:, -classes:].t().unsqueeze(0)
        return self.rest(hidden.flatten(0, 1)).unflatten(0, (len(z), classes))


def reparameterise(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """mean + std * noise."""
    return torch.addcmul(mean, std, noise)
