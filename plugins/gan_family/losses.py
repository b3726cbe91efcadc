"""Losses that several adversarial methods share. Scores are logits of "this is real"."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def call_real(score: Tensor) -> Tensor:
    """-log sigmoid(score) of each element, nats, same shape: small where the score says "real".

    Its mean is the discriminator's loss on real items and the generator's non-saturating loss on made ones.
    """
    return F.softplus(-score)


def call_fake(score: Tensor) -> Tensor:
    """-log(1 - sigmoid(score)) of each element, nats, same shape: small where the score says "made"."""
    return F.softplus(score)
