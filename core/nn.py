"""Blocks and formulas that two families or more use."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) of each element, nats, same shape."""
    return 0.5 * (mean**2 + std**2 - 1) - std.log()


def gaussian_kl_between(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """KL(N(mean_q, std_q^2) || N(mean_p, std_p^2)) of each element, nats, broadcast shape."""
    ratio = std_q / std_p
    return 0.5 * (ratio**2 + ((mean_q - mean_p) / std_p) ** 2 - 1) - ratio.log()


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x | logits) of independent Bernoulli pixels: sum over all but the first dimension, nats, `[batch]`.

    x may lie anywhere in [0, 1] (cross-entropy to grey values).
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: Tensor, x: Tensor, variance: float) -> Tensor:
    """-log N(x; mean, variance) summed over all but the first dimension, nats, `[batch]`, with its constant."""
    squares = (x - mean).pow(2).flatten(1)
    return squares.sum(1) / (2 * variance) + squares.shape[1] / 2 * math.log(2 * math.pi * variance)


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU, **arguments: float) -> nn.Sequential:
    """Linear layers of the given sizes with `activation(**arguments)` between them, none after the last."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(fan_in, fan_out))
        if i < len(sizes) - 2:
            layers.append(activation(**arguments))
    return nn.Sequential(*layers)


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
