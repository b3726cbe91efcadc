"""Negative log likelihoods of whole items: sum over all but the first dimension, nats, `[batch]`."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x | logits) of independent Bernoulli pixels, nats, `[batch]`.

    x may lie anywhere in [0, 1] (cross-entropy to grey values).
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: Tensor, x: Tensor, variance: float) -> Tensor:
    """-log N(x; mean, variance) with its constant, nats, `[batch]`."""
    squares = (x - mean).pow(2).flatten(1)
    return squares.sum(1) / (2 * variance) + squares.shape[1] / 2 * math.log(2 * math.pi * variance)
