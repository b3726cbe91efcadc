"""InfoGAN's networks: the residual ones of improved Wasserstein GAN, and the convolutions of the first InfoGAN.

Both pairs take and give images as the networks see them: in [-1, 1] for the residual ones, in [0, 1] for the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk.nn import canvas

Norm = Callable[[int], nn.Module]
SMALLEST = 4
"""The shorter side of the map that the residual networks begin and end with is this, or less than twice this."""
WIDEST = 8
"""Times `dim`: the most channels of a residual network."""


def layer_norm(channels: int) -> nn.Module:
    """Normalisation over channels and places of each example, with a scale and an offset per channel.

    `nn.LayerNorm` would have them per place, and batch normalisation would couple the examples of a critic whose
    gradient is penalised for each.
    """
    return nn.GroupNorm(1, channels)


NORMS: dict[str, Norm] = {"layer": layer_norm, "batch": nn.BatchNorm2d}


class Up(nn.Module):
    """Residual block that doubles the sides: maps `[n, ci, h, w]` -> `[n, co, 2h, 2w]`; normalised by batch."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(fan_in), nn.BatchNorm2d(fan_out)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2.0))  # nearest
        return self.shortcut(F.interpolate(x, scale_factor=2.0)) + self.conv2(F.relu(self.norm2(h)))


class Down(nn.Module):
    """Residual block that halves the sides: maps `[n, ci, h, w]` -> `[n, co, h / 2, w / 2]`.

    The mean of 2x2 places is taken behind the convolutions, but before the shortcut's.
    """

    def __init__(self, fan_in: int, fan_out: int, norm: Norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(fan_in), norm(fan_in)
        self.conv1 = nn.Conv2d(fan_in, fan_in, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        return self.shortcut(F.avg_pool2d(x, 2)) + F.avg_pool2d(h, 2)


class ResidualGenerator(nn.Module):
    """Inputs `[n, width]` -> images `[n, channels, h, w]` in [-1, 1]."""

    def __init__(self, width: int, shape: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.place = canvas(shape[1], shape[2], SMALLEST)
        times = self.place.halvings
        wide = [dim * min(WIDEST, 2 ** (times - i)) for i in range(times + 1)]
        self.first = nn.Linear(width, wide[0] * math.prod(self.place.map))
        self.blocks = nn.Sequential(*(Up(a, b) for a, b in itertools.pairwise(wide)))
        self.norm = nn.BatchNorm2d(dim)
        self.last = nn.Conv2d(dim, shape[0], 3, padding=1)
        self.cut = nn.Sequential(*self.place.off())
        start_residual(self)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.first(z).view(z.shape[0], -1, *self.place.map))
        return torch.tanh(self.cut(self.last(F.relu(self.norm(h)))))


class ResidualTrunk(nn.Module):
    """Images `[n, channels, h, w]` in [-1, 1] -> features `[n, features]`, shared by critic and recognition.

    There is neither a normalisation nor an activation behind the last block, as in the authors' source.
    """

    def __init__(self, shape: tuple[int, ...], dim: int, norm: Norm) -> None:
        super().__init__()
        place = canvas(shape[1], shape[2], SMALLEST)
        times = place.halvings
        wide = [dim * min(WIDEST, 2**i) for i in range(times + 1)]
        self.grown = nn.Sequential(*place.onto())
        self.first = nn.Conv2d(shape[0], dim, 3, padding=1)
        self.blocks = nn.Sequential(*(Down(a, b, norm) for a, b in itertools.pairwise(wide)))
        self.features = wide[-1] * math.prod(place.map)
        start_residual(self)
        glorot_(self.first)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.first(self.grown(x))).flatten(1)


def uniform_(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Weights uniform with variance gain / (fan_in + fan_out), both counted with the kernel; bias 0; in place."""
    place = layer.weight[0, 0].numel()
    fans = place * (layer.weight.shape[0] + layer.weight.shape[1])
    reach = math.sqrt(3 * gain / fans)
    nn.init.uniform_(layer.weight, -reach, reach)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def glorot_(layer: nn.Linear | nn.Conv2d) -> None:
    """Glorot & Bengio's uniform start, in place."""
    uniform_(layer, 2.0)


def start_residual(network: nn.Module) -> None:
    """3x3 convolutions twice Glorot's variance (He's, for equal fans), shortcuts and linear layers Glorot's."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            glorot_(layer)
        elif isinstance(layer, nn.Conv2d):
            uniform_(layer, 4.0 if layer.kernel_size == (3, 3) else 2.0)


class PlainGenerator(nn.Module):
    """Inputs `[n, width]` -> images `[n, channels, h, w]` in [0, 1]."""

    def __init__(self, width: int, shape: tuple[int, ...], dim: int, hidden: int) -> None:
        super().__init__()
        channels, place = shape[0], canvas(shape[1], shape[2], halvings=2)
        self.place = (2 * dim, *place.map)
        flat = math.prod(self.place)
        self.dense = nn.Sequential(
            *(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU()),
            *(nn.Linear(hidden, flat), nn.BatchNorm1d(flat), nn.ReLU()),
        )
        self.grow = nn.Sequential(
            *(nn.ConvTranspose2d(2 * dim, dim, 4, 2, 1), nn.BatchNorm2d(dim), nn.ReLU()),
            *(nn.ConvTranspose2d(dim, channels, 4, 2, 1), *place.off()),
        )
        start_plain(self)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.grow(self.dense(z).view(-1, *self.place)))


class PlainTrunk(nn.Module):
    """Images `[n, channels, h, w]` in [0, 1] -> features `[n, hidden]`."""

    def __init__(self, shape: tuple[int, ...], dim: int, hidden: int, norm: str, slope: float) -> None:
        super().__init__()
        channels, place = shape[0], canvas(shape[1], shape[2], halvings=2)
        self.net = nn.Sequential(
            *place.onto(),
            *(nn.Conv2d(channels, dim, 4, 2, 1), nn.LeakyReLU(slope)),
            *(nn.Conv2d(dim, 2 * dim, 4, 2, 1), NORMS[norm](2 * dim), nn.LeakyReLU(slope)),
            *(nn.Flatten(), nn.Linear(2 * dim * math.prod(place.map), hidden)),
            *(vector_norm(norm, hidden), nn.LeakyReLU(slope)),
        )
        self.features = hidden
        start_plain(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def vector_norm(norm: str, width: int) -> nn.Module:
    """The normalisation of vectors `[n, width]` that goes with that of maps."""
    return nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)


@contextmanager
def unaveraged(network: nn.Module) -> Iterator[None]:
    """While it lasts, batch normalisations of a network in training leave their running averages as they are."""
    layers = [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def start_plain(network: nn.Module) -> None:
    """Weights normal with standard deviation 0.02, biases 0, in place; normalisations keep torch's start."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
