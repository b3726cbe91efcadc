"""Networks of both levels: columns of convolutions after Dumoulin et al. 2017, and small fully connected ones.

A plan says how a column comes from a picture down to one place; the decoder goes the same way back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distk.nn import Canvas, he_truncated_, squared_slope

HIDDEN = 512
"""Units of the last hidden layer of encoder and decoder, through which shortcut reconstructions go."""


@dataclass(frozen=True)
class Plan:
    """A column of convolutions without padding for pictures of one side.

    down: kernel, stride and channels of each layer, from the pixels to 1x1. back: channels of the decoder's layers,
    which have the same kernels and strides in reverse order. refine: whether a 1x1 convolution precedes the last one.
    """

    down: tuple[tuple[int, int, int], ...]
    back: tuple[int, ...]

    def sides(self, side: int) -> list[int]:
        """Side of the picture before and after every layer."""
        found = [side]
        for kernel, stride, _ in self.down:
            found.append((found[-1] - kernel) // stride + 1)
        return found


PLANS = {
    16: Plan(((5, 1, 32), (4, 2, 64), (4, 1, 128), (2, 1, 256)), (256, 128, 64, 32)),
    # Dumoulin et al. 2017, their network for CIFAR-10
    32: Plan(((5, 1, 32), (4, 2, 64), (4, 1, 128), (4, 2, 256), (4, 1, 512)), (256, 128, 64, 32, 32)),
    64: Plan(((5, 1, 32), (4, 2, 64), (4, 2, 128), (4, 1, 256), (4, 2, 512), (4, 1, 512)), (512, 256, 128, 64, 32, 32)),
    128: Plan(
        ((5, 2, 32), (4, 2, 64), (4, 2, 128), (4, 1, 256), (5, 2, 512), (4, 1, 512)), (512, 256, 128, 64, 32, 32)
    ),
    256: Plan(
        ((5, 2, 32), (5, 2, 32), (4, 2, 64), (4, 2, 128), (4, 1, 256), (4, 2, 512), (4, 1, 512)),
        (512, 256, 128, 64, 32, 32, 32),
    ),
}
"""By the side of the square on which a piece stands. All but that of 32 are ours, made like it."""


def plan_of(shape: tuple[int, ...], arch: str) -> Plan | None:
    """The plan of a piece `(channels, height, width)`; None for a fully connected network.

    arch: "conv" takes the plan of the smallest square on which the piece can stand, "auto" only where the piece is such
    a square, "mlp" none. Raises ValueError for "conv" and a piece that is larger than any.
    """
    _, height, width = shape
    side = side_of(shape)
    plan = PLANS.get(side) if arch == "conv" or (height, width) == (side, side) else None
    if arch == "mlp" or (arch == "auto" and plan is None):
        return None
    if plan is None:
        raise ValueError(
            f"pieces of {height}x{width} pixels have no convolutional network, which goes up to {max(PLANS)} pixels; "
            "take a larger --grid, or --arch auto for fully connected ones"
        )
    return plan


def side_of(shape: tuple[int, ...]) -> int:
    """Side of the smallest square with a plan on which a piece can stand, 0 where it is larger than all."""
    return min((side for side in PLANS if side >= max(shape[1:])), default=0)


def place_of(shape: tuple[int, ...]) -> Canvas:
    """That square."""
    return Canvas(shape[1], shape[2], 0, (side_of(shape),) * 2)


class Maxout(nn.Module):
    """The larger of two maps each: `[n, 2 c, ...]` -> `[n, c, ...]` (Goodfellow et al. 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x[:, ::2], x[:, 1::2])


def scaled(channels: int, width: float) -> int:
    """A number of channels or units under a width factor, at least 4."""
    return max(4, round(channels * width))


def _normed(layer: nn.Module, channels: int, flat: bool = False) -> list[nn.Module]:
    """A layer of encoder or decoder, batch normalisation, leaky ReLU 0.1."""
    norm = nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)
    return [layer, norm, nn.LeakyReLU(0.1)]


def small_normal_(module: nn.Module) -> None:
    """Weights N(0, 0.01^2), biases 0, in place: how Dumoulin et al. start encoder and decoder."""
    for layer in module.modules():
        # Sketches without values are only counted, and torch would load its compiler to draw for them.
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and not layer.weight.is_meta:
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """q(z|x): pieces `[n, c, h, w]` in [0, 1] -> last hidden layer `[n, hidden]`, mean and log variance `[n, z]`.

    Log variances are clamped to [-8, 4], so that codes stay drawn: a deterministic code is on another scale than the
    prior's, which the critic tells at once.
    """

    def __init__(self, shape: tuple[int, ...], z: int, plan: Plan | None, width: float) -> None:
        super().__init__()
        hidden = scaled(HIDDEN, width)
        layers: list[nn.Module] = []
        if plan is None:
            layers += [
                nn.Flatten(),
                *_normed(nn.Linear(math.prod(shape), hidden, bias=False), hidden, True),
            ]
            fan_in = hidden
        else:
            fan_in = shape[0]
            layers += place_of(shape).onto()
            for kernel, stride, channels in plan.down:
                channels = scaled(channels, width)
                layers += _normed(nn.Conv2d(fan_in, channels, kernel, stride, bias=False), channels)
                fan_in = channels
            layers += [nn.Flatten()]
        layers += _normed(nn.Linear(fan_in, hidden, bias=False), hidden, True)
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, 2 * z)
        small_normal_(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.body(x)
        mean, logvar = self.head(hidden).chunk(2, 1)
        return hidden, mean, logvar.clamp(-8, 4)


class Decoder(nn.Module):
    """p(x|z): codes `[n, z]` -> pieces `[n, c, h, w]` in (0, 1), in two parts.

    `first`: codes -> hidden layer `[n, hidden]`, as wide as the encoder's last one. `tail`: from there to the pixels.
    """

    def __init__(self, shape: tuple[int, ...], z: int, plan: Plan | None, width: float) -> None:
        super().__init__()
        self.shape = shape
        hidden = scaled(HIDDEN, width)
        self.first = nn.Sequential(*_normed(nn.Linear(z, hidden, bias=False), hidden, True))
        if plan is None:
            pixels = math.prod(shape)
            self.body = nn.Sequential(
                *_normed(nn.Linear(hidden, hidden, bias=False), hidden, True), nn.Linear(hidden, pixels)
            )
        else:
            sides = plan.sides(side_of(shape))[::-1]
            layers: list[nn.Module] = [nn.Unflatten(1, (hidden, 1, 1))]
            fan_in = hidden
            for (kernel, stride, _), channels, side, larger in zip(
                plan.down[::-1], plan.back, sides, sides[1:], strict=False
            ):
                channels = scaled(channels, width)
                lacking = larger - ((side - 1) * stride + kernel)  # what the rounding down of a stride lost
                up = nn.ConvTranspose2d(fan_in, channels, kernel, stride, output_padding=lacking, bias=False)
                layers += _normed(up, channels)
                fan_in = channels
            last = scaled(32, width)
            layers += _normed(nn.Conv2d(fan_in, last, 1, bias=False), last)
            self.body = nn.Sequential(*layers, nn.Conv2d(last, shape[0], 1), *place_of(shape).off())
        small_normal_(self)

    def tail(self, hidden: Tensor) -> Tensor:
        """Hidden layer `[n, hidden]` -> pieces `[n, c, h, w]`."""
        return self.body(hidden).sigmoid().view(-1, *self.shape)

    def forward(self, z: Tensor) -> Tensor:
        return self.tail(self.first(z))


class _Column(nn.Module):
    """Pictures `[n, c, h, w]` -> features `[n, features]`, without normalisation: rows do not look at each other."""

    def __init__(
        self, shape: tuple[int, ...], plan: Plan | None, width: float, layer: Callable[..., list[nn.Module]]
    ) -> None:
        super().__init__()
        if plan is None:
            self.features = scaled(HIDDEN, width)
            flat = [nn.Flatten(), *layer(nn.Linear, math.prod(shape), self.features)]
            self.body = nn.Sequential(*flat, *layer(nn.Linear, self.features, self.features))
            return
        fan_in, layers = shape[0], place_of(shape).onto()
        for kernel, stride, channels in plan.down:
            layers += layer(nn.Conv2d, fan_in, scaled(channels, width), kernel, stride)
            fan_in = scaled(channels, width)
        self.features = fan_in
        self.body = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class PieceCritic(nn.Module):
    """Joint discriminator of pieces: x `[n, c, h, w]`, z `[n, z]` -> logits of "from the encoder" `[n]`.

    No batch normalisation anywhere: the regulariser needs each row's own gradient. Without `maxout` leaky ReLU 0.2 and
    dropout on the inputs alone; with it pairs of maps, and dropout 0.5 before the later layers, too.
    """

    def __init__(
        self, shape: tuple[int, ...], z: int, plan: Plan | None, width: float, dropout: float, maxout: bool
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

        def layer(kind: Callable[..., nn.Module], fan_in: int, fan_out: int, *rest: int) -> list[nn.Module]:
            if maxout:
                return [kind(fan_in, 2 * fan_out, *rest), Maxout(), nn.Dropout(0.5 if dropout else 0.0)]
            return [kind(fan_in, fan_out, *rest), nn.LeakyReLU(0.2)]

        self.of_x = _Column(shape, plan, width, layer)
        codes, both = scaled(HIDDEN, width), scaled(2 * HIDDEN, width)
        self.of_z = nn.Sequential(*layer(nn.Linear, z, codes), *layer(nn.Linear, codes, codes))
        joined = self.of_x.features + codes
        self.head = nn.Sequential(*layer(nn.Linear, joined, both), *layer(nn.Linear, both, both), nn.Linear(both, 1))
        he_truncated_(self)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        of_x, of_z = self.of_x(self.dropout(x)), self.of_z(self.dropout(z))
        return self.head(torch.cat([of_x, of_z], 1)).squeeze(1)


class WholeCritic(nn.Module):
    """Discriminator of the baseline, which sees all pixels: `[n, c, h, w]` -> logits of "from the data" `[n]`."""

    def __init__(self, shape: tuple[int, ...], plan: Plan | None, width: float, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

        def layer(kind: Callable[..., nn.Module], fan_in: int, fan_out: int, *rest: int) -> list[nn.Module]:
            return [kind(fan_in, fan_out, *rest), nn.LeakyReLU(0.2)]

        self.of_x = _Column(shape, plan, width, layer)
        wide = scaled(2 * HIDDEN, width)
        self.head = nn.Sequential(*layer(nn.Linear, self.of_x.features, wide), nn.Linear(wide, 1))
        he_truncated_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.of_x(self.dropout(x))).squeeze(1)


class TopGenerator(nn.Module):
    """Noise `[n, z0]` -> the codes of all pieces `[n, k, z]`."""

    def __init__(self, z0: int, hidden: int, pieces: int, z: int) -> None:
        super().__init__()
        self.pieces = pieces
        layers: list[nn.Module] = []
        for fan_in in (z0, hidden):
            layers += [nn.Linear(fan_in, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(hidden, pieces * z))

    def forward(self, z0: Tensor) -> Tensor:
        return self.body(z0).unflatten(1, (self.pieces, -1))


class TopCritic(nn.Module):
    """Codes of all pieces `[n, k, z]` -> logits of "from the data" `[n]`."""

    def __init__(self, hidden: int, pieces: int, z: int) -> None:
        super().__init__()
        sizes = (pieces * z, hidden, hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, codes: Tensor) -> Tensor:
        return self.body(codes).squeeze(1)


def regulariser(score: Tensor, real: int, *inputs: Tensor) -> Tensor:
    """Omega of Roth et al. 2017, eq. 18: mean over the first `real` rows of (1 - D)^2 |gradient|^2 plus mean over the
    others of D^2 |gradient|^2, D = sigmoid(score); scalar.

    The gradient is that of the logit in all inputs, and the weights are differentiated, too. score: `[n]`, of inputs
    `[n, ...]` that require a gradient. One pass backwards serves both kinds of rows.
    """
    wrong = torch.cat([torch.sigmoid(-score[:real]), torch.sigmoid(score[real:])])
    cost = wrong.square() * squared_slope(score, *inputs)
    return cost[:real].mean() + cost[real:].mean()


def parted(x: Tensor, grid: int) -> Tensor:
    """Items -> pieces `[n, k, c, h, w]`: of clips `[n, t, c, h, w]` the frames, of images `[n, c, H, W]` the cells of a
    `grid` x `grid` lattice, row by row."""
    if x.dim() == 5:
        return x
    x = x.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # [n, c, grid, h, grid, w]
    return x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def joined(pieces: Tensor, kind: str, grid: int) -> Tensor:
    """Inverse of `parted`: pieces `[n, k, c, h, w]` -> clips, or images for kind "image"."""
    if kind == "video":
        return pieces
    cells = pieces.unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5)  # [n, c, grid, h, grid, w]
    return cells.flatten(4, 5).flatten(2, 3)


def as_buffers(module: nn.Module) -> nn.Module:
    """Turn a module's parameters into buffers, in place: values that no objective trains but a checkpoint holds."""
    for part in module.modules():
        for name, value in list(part._parameters.items()):
            if value is not None:
                del part._parameters[name]
                part.register_buffer(name, value.detach().clone())
    return module


def count(module: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in module.parameters())
