"""The evaluator's label classifier: a linear model on a hashed bag of words and word pairs, as in fastText."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk.optimizers import light
from distk.plugins.text.common.vocab import PAD

_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0xC2B2AE3D27D4EB4F - (1 << 64))  # odd 64-bit constants, as signed numbers


def _hash(first: Tensor, second: Tensor, buckets: int) -> Tensor:
    """Pairs of ids -> 0..buckets-1, evenly; unigrams are pairs with -1. int64, overflow wraps on every device."""
    mixed = (first + 1) * _MIX[0] + (second + 2) * _MIX[1]
    mixed = (mixed ^ ((mixed >> 29) & 0x7FFFFFFFF)) * _MIX[1]
    return ((mixed >> 17) & 0x7FFFFFFF) % buckets


class BagClassifier(nn.Module):
    """Token ids `[n, T]` -> logits `[n, K]`. Which n-grams occur counts, not how often; rows have unit length.

    ngrams: 1 for words alone, 2 for words and pairs. bits: log2 of the table's rows.
    """

    def __init__(self, classes: int, bits: int = 20, ngrams: int = 2) -> None:
        super().__init__()
        self.ngrams = ngrams
        self.table = nn.EmbeddingBag(1 << bits, classes, mode="sum")
        nn.init.zeros_(self.table.weight)

    def forward(self, x: Tensor) -> Tensor:
        buckets = self.table.num_embeddings
        index = _hash(x, torch.full_like(x, -1), buckets)
        used = x != PAD
        if self.ngrams > 1 and x.shape[1] > 1:
            index = torch.cat([index, _hash(x[:, :-1], x[:, 1:], buckets)], 1)
            used = torch.cat([used, used[:, 1:]], 1)
        index, order = index.masked_fill(~used, buckets).sort(1)
        used = used.gather(1, order)
        used[:, 1:] &= index[:, 1:] != index[:, :-1]
        weight = used.float()
        weight = weight / weight.sum(1, keepdim=True).sqrt().clamp_min(1)
        return self.table(index.clamp(max=buckets - 1), per_sample_weights=weight)


def fit(
    model: BagClassifier,
    x: Tensor,
    label: Tensor,
    generator: torch.Generator,
    *,
    epochs: int = 5,
    lr: float = 3e-2,
    batch: int = 256,
) -> None:
    """Logistic loss by Adam. x: int64 `[n, T]` padded with 0; label: int64 `[n]`.

    A small corpus is passed more often, so that there are 600 steps: with fewer the weights are still growing.
    """
    epochs = max(epochs, -(-600 * batch // max(batch, len(x))))
    optimizer = light(torch.optim.Adam, model.parameters(), lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator, device=x.device).split(batch):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x[rows]), label[rows]).backward()
            optimizer.step()


@torch.no_grad()
def predict(model: BagClassifier, x: Tensor, batch: int = 4096) -> Tensor:
    """The most probable label of each row, int64 `[n]`."""
    found = [model(part).argmax(1) for part in x.split(batch)]
    return torch.cat(found) if found else x.new_zeros(0)
