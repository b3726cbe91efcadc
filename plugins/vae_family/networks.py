"""Encoders and decoders that several methods of the family share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from distk import DataSpec
from distk.nn import Canvas, canvas, down, he_truncated_, mlp, up


class SnuEncoder(nn.Module):
    """Convolutional encoder of Jeong & Song (2019): images `[n, c, h, w]` -> mean and std, each `[n, z]`, std > 0."""

    def __init__(self, spec: DataSpec, z: int, hidden: int = 256) -> None:
        super().__init__()
        place = _canvas(spec, "snu")
        widths, _ = _down_plan("snu", place.halvings)
        corner = widths[-1] * math.prod(place.map)
        layers = [*place.onto(), *down([spec.shape[0], *widths]), nn.Flatten()]
        self.body = nn.Sequential(*layers, nn.Linear(corner, hidden), nn.ReLU(), nn.Linear(hidden, 2 * z))
        he_truncated_(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.body(x).chunk(2, dim=1)
        return mean, F.softplus(raw)


class SnuDecoder(nn.Module):
    """Convolutional decoder of Jeong & Song (2019): code `[n, code]` -> logits `[n, c, h, w]`."""

    def __init__(self, spec: DataSpec, code: int, hidden: int = 256) -> None:
        super().__init__()
        place = _canvas(spec, "snu")
        widths = _up_plan("snu", place.halvings)
        self.first = nn.Linear(code, hidden)
        corner = (widths[0], *place.map)
        first = [nn.ReLU(), nn.Linear(hidden, math.prod(corner)), nn.ReLU(), nn.Unflatten(1, corner)]
        self.rest = nn.Sequential(*first, *up([*widths, spec.shape[0]]), *place.off())
        he_truncated_(self)

    def forward(self, code: Tensor) -> Tensor:
        return self.rest(self.first(code))

    def per_class(self, z: Tensor, classes: int) -> Tensor:
        """Decode every z `[n, m]` with every one-hot class in the last `classes` inputs -> `[n, classes, c, h, w]`.

        The first layer is linear, so z passes it once and each class only adds its column.
        """
        weight = self.first.weight
        from_z = F.linear(z, weight[:, :-classes], self.first.bias)
        hidden = from_z.unsqueeze(1) + weight[:, -classes:].t().unsqueeze(0)
        return self.rest(hidden.flatten(0, 1)).unflatten(0, (-1, classes))


Architecture = Literal["burgess", "locatello", "factor", "snu", "dupont", "higgins-fc", "mlp"]


@dataclass(frozen=True)
class _Convolutional:
    """Stride-2 convolutions (width, kernel), the fully connected widths after them and those before the decoder's."""

    convolutions: tuple[tuple[int, int], ...]
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    deconvolutions: tuple[int, ...]


# As published for 64x64 images. Others have as many halvings as they allow, of 28x28 two, and stand on the next canvas
# that can be halved so often (`distk.nn.canvas`).
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

    burgess, locatello, factor, snu, dupont: images of 8x8 pixels or more. higgins-fc: anything, flattened, 1200-1200
    ReLU (Higgins et al. 2017). mlp: anything, flattened, 64-64 ReLU, for vectors and small checks.

    Raises ValueError for images that the architecture does not take.
    """
    if arch in ("higgins-fc", "mlp"):
        width = 1200 if arch == "higgins-fc" else 64
        return nn.Sequential(nn.Flatten(), mlp([math.prod(spec.shape), width, width, outputs]))
    place, plan = _canvas(spec, arch), _plan(arch, spec)
    widths, kernels = _down_plan(arch, place.halvings)
    layers = [*place.onto(), *down([spec.shape[0], *widths], kernels), nn.Flatten()]
    return nn.Sequential(*layers, mlp([widths[-1] * math.prod(place.map), *plan.encoder, outputs]))


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
    place, plan = _canvas(spec, arch), _plan(arch, spec)
    widths = _up_plan(arch, place.halvings)
    corner = (widths[0], *place.map)
    first = [mlp([code, *plan.decoder, math.prod(corner)]), nn.ReLU(), nn.Unflatten(1, corner)]
    return nn.Sequential(*first, *up([*widths, spec.shape[0]]), *place.off())


def _plan(arch: Architecture, spec: DataSpec) -> _Convolutional:
    """`factor` has the widths of `snu` for images with three channels."""
    return _CONVOLUTIONAL["snu" if arch == "factor" and spec.shape[0] == 3 else arch]


def _down_plan(arch: Architecture, halvings: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths and kernels of the encoder's convolutions; fewer than three are the last of those at 32x32, more than four
    begin with more like the first."""
    every = _CONVOLUTIONAL[arch].convolutions
    small = every[_SMALL_ENCODER.get(arch, slice(1, 4))]
    chosen = small[3 - halvings :] if halvings < 4 else (every[0],) * (halvings - 4) + every
    widths, kernels = zip(*chosen, strict=True)
    return widths, kernels


def _up_plan(arch: Architecture, halvings: int) -> tuple[int, ...]:
    """Widths of the maps before each transposed convolution; fewer than three are the first of those at 32x32, more
    than four end with more like the last."""
    every = _CONVOLUTIONAL[arch].deconvolutions
    small = every[_SMALL_DECODER.get(arch, slice(3))]
    return small[:halvings] if halvings < 4 else every + (every[-1],) * (halvings - 4)


def _canvas(spec: DataSpec, arch: str) -> Canvas:
    """Raises ValueError for data that are no images, and for images of fewer than 8 pixels a side."""
    if len(spec.shape) != 3 or min(spec.shape[1:]) < 8:
        found = "x".join(map(str, spec.shape[1:] if len(spec.shape) == 3 else spec.shape))
        raise ValueError(f"--arch {arch} takes images of 8x8 pixels or more, not {found}; --arch mlp takes any data")
    return canvas(*spec.shape[1:])
