"""Encoders and decoders that several methods of the family share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from distk import DataSpec
from distk.nn import down, he_truncated_, mlp, up


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
        layers = down([channels, *widths])
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
        first = [nn.ReLU(), nn.Linear(hidden, 1024), nn.ReLU(), nn.Unflatten(1, (64, 4, 4))]
        self.rest = nn.Sequential(*first, *up([*reversed(widths), channels]))
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


Architecture = Literal["burgess", "locatello", "factor", "snu", "dupont", "higgins-fc", "mlp"]


@dataclass(frozen=True)
class _Convolutional:
    """Stride-2 convolutions (width, kernel), the fully connected widths after them and those before the decoder's."""

    convolutions: tuple[tuple[int, int], ...]
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    deconvolutions: tuple[int, ...]


# For 64x64 images.
_CONVOLUTIONAL = {
    # Burgess et al. 2018, A.1
    "burgess": _Convolutional(((32, 4),) * 4, (256, 256), (256, 256), (32, 32, 32, 32)),
    # Locatello et al. 2019, Table 1
    "locatello": _Convolutional(((32, 4), (32, 4), (64, 2), (64, 2)), (256,), (256,), (64, 64, 32, 32)),
    # Kim & Mnih 2018; with three channels their 128 become 256, which is `snu`
    "factor": _Convolutional(((32, 4), (32, 4), (64, 4), (64, 4)), (128,), (128,), (64, 64, 32, 32)),
    # Jeong & Song 2019; at 32x32, which is not theirs, 32-32-64 and 64-32-32, as `SnuEncoder` and `SnuDecoder` have it
    "snu": _Convolutional(((32, 4), (32, 4), (64, 4), (64, 4)), (256,), (256,), (64, 64, 32, 32)),
    # Dupont 2018: the same at 64x64; at 32x32 an encoder of 32-64-64 and a decoder of 64-32-32
    "dupont": _Convolutional(((32, 4), (32, 4), (64, 4), (64, 4)), (256,), (256,), (64, 64, 32, 32)),
}
_SMALL_ENCODER = {"snu": slice(3)}
_SMALL_DECODER = {"snu": slice(1, 4), "dupont": slice(1, 4)}
"""Which convolutions are left at 32x32: the last three of the encoder and the first three of the decoder, but here."""


def encoder(arch: Architecture, spec: DataSpec, outputs: int) -> nn.Sequential:
    """An encoder: items `[n, *spec.shape]` -> `[n, outputs]`, linear at the end.

    burgess, locatello, factor, snu, dupont: square images of 32 or 64 pixels. higgins-fc: anything, flattened,
    1200-1200 ReLU (Higgins et al. 2017). mlp: anything, flattened, 64-64 ReLU, for vectors and small checks.

    Raises ValueError for images that the architecture does not take.
    """
    if arch in ("higgins-fc", "mlp"):
        width = 1200 if arch == "higgins-fc" else 64
        return nn.Sequential(nn.Flatten(), mlp([math.prod(spec.shape), width, width, outputs]))
    channels, size = _square(spec, arch)
    plan = _CONVOLUTIONAL["snu" if arch == "factor" and channels == 3 else arch]
    widths, kernels = zip(
        *(plan.convolutions if size == 64 else plan.convolutions[_SMALL_ENCODER.get(arch, slice(1, 4))]), strict=True
    )
    layers = down([channels, *widths], kernels)
    return nn.Sequential(*layers, nn.Flatten(), mlp([widths[-1] * 16, *plan.encoder, outputs]))


def decoder(arch: Architecture, spec: DataSpec, code: int) -> nn.Sequential:
    """A decoder: code `[n, code]` -> logits or values `[n, *spec.shape]`, linear at the end.

    higgins-fc has three layers of 1200 with tanh; for the others see `encoder`.

    Raises ValueError for images that the architecture does not take.
    """
    shape = nn.Unflatten(1, spec.shape)
    if arch == "higgins-fc":
        return nn.Sequential(mlp([code, 1200, 1200, 1200, math.prod(spec.shape)], nn.Tanh), shape)
    if arch == "mlp":
        return nn.Sequential(mlp([code, 64, 64, math.prod(spec.shape)]), shape)
    channels, size = _square(spec, arch)
    plan = _CONVOLUTIONAL["snu" if arch == "factor" and channels == 3 else arch]
    widths = plan.deconvolutions if size == 64 else plan.deconvolutions[_SMALL_DECODER.get(arch, slice(3))]
    first = [mlp([code, *plan.decoder, widths[0] * 16]), nn.ReLU(), nn.Unflatten(1, (widths[0], 4, 4))]
    return nn.Sequential(*first, *up([*widths, channels]))


def _square(spec: DataSpec, arch: str) -> tuple[int, int]:
    """Channels and side of square images. Raises ValueError for other data."""
    if len(spec.shape) != 3 or spec.shape[1:] not in ((32, 32), (64, 64)):
        found = "x".join(map(str, spec.shape[1:] if len(spec.shape) == 3 else spec.shape))
        raise ValueError(
            f"--arch {arch} takes images of 32x32 or 64x64 pixels, not {found}; --arch higgins-fc and mlp take any size"
        )
    return spec.shape[0], spec.shape[1]
