"""Stacks of layers, and how they start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from torch import nn

Layer = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU, **arguments: float) -> nn.Sequential:
    """Linear layers of the given sizes with `activation(**arguments)` between them, none after the last."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(fan_in, fan_out))
        if i < len(sizes) - 2:
            layers.append(activation(**arguments))
    return nn.Sequential(*layers)


def down(
    channels: Sequence[int],
    kernel: int | Sequence[int] = 4,
    *,
    activation: Layer = nn.ReLU,
    norm: Norm | None = None,
    norm_first: bool = False,
    bias: bool | None = None,
) -> list[nn.Module]:
    """Convolutions that halve the sides of images `[n, channels[0], h, w]`, an activation after each.

    kernel: of all layers or of each one, 2 or more; the padding is (kernel - 1) // 2, h and w are even. norm: such as
    `nn.BatchNorm2d`, before each activation; before the first, which sees the pixels, only with `norm_first`. bias:
    default only where no norm follows. Returns the layers, to be unpacked into an `nn.Sequential`.
    """
    pairs = list(itertools.pairwise(channels))
    layers: list[nn.Module] = []
    for i, ((fan_in, fan_out), size) in enumerate(zip(pairs, _each(kernel, len(pairs)), strict=True)):
        normed = norm is not None and (norm_first or i > 0)
        layers.append(nn.Conv2d(fan_in, fan_out, size, 2, (size - 1) // 2, bias=not normed if bias is None else bias))
        if norm is not None and normed:
            layers.append(norm(fan_out))
        layers.append(activation())
    return layers


def up(
    channels: Sequence[int],
    kernel: int | Sequence[int] = 4,
    *,
    activation: Layer = nn.ReLU,
    norm: Norm | None = None,
    output: bool = True,
    bias: bool | None = None,
) -> list[nn.Module]:
    """Transposed convolutions that double the sides of maps `[n, channels[0], h, w]`, an activation after each.

    output: the last layer gives the picture and stands bare, without norm and activation. The rest as in `down`.
    """
    pairs = list(itertools.pairwise(channels))
    layers: list[nn.Module] = []
    for i, ((fan_in, fan_out), size) in enumerate(zip(pairs, _each(kernel, len(pairs)), strict=True)):
        bare = output and i == len(pairs) - 1
        normed = norm is not None and not bare
        place = (2, (size - 1) // 2, size % 2)  # stride, padding, output padding
        layers.append(nn.ConvTranspose2d(fan_in, fan_out, size, *place, bias=not normed if bias is None else bias))
        if norm is not None and normed:
            layers.append(norm(fan_out))
        if not bare:
            layers.append(activation())
    return layers


def _each(kernel: int | Sequence[int], layers: int) -> Sequence[int]:
    return [kernel] * layers if isinstance(kernel, int) else kernel


def he_truncated_(module: nn.Module) -> None:
    """Convolutions truncated normal with variance 2 / fan_in, linear layers Xavier uniform, biases 0, in place."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            # A transposed convolution stores [in, out, h, w], so torch's fan_in counts its output channels.
            fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] // layer.groups
            # Truncation at two standard deviations shrinks the variance by this factor squared.
            std = math.sqrt(2 / fan_in) / 0.8796256610342398
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
