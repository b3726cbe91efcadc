"""Recurrent nets and small perceptrons of methods that work on one code per sentence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk.plugins.text.common.vocab import PAD, lengths


def uniform_(module: nn.Module) -> None:
    """Weights from U(-0.1, 0.1), biases 0: recurrent nets, embeddings and the output layer."""
    for name, parameter in module.named_parameters():
        nn.init.zeros_(parameter) if "bias" in name else nn.init.uniform_(parameter, -0.1, 0.1)


def full(logits: Tensor) -> Tensor:
    """Logits in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """log p of token ids x `[n, T]` under logits `[n, T, V]`, sum over tokens without the padding, nats `[n]`."""
    loss = F.cross_entropy(full(logits).flatten(0, 1), x.flatten(), ignore_index=PAD, reduction="none")
    return -loss.view_as(x).sum(1)


def by_parts(work: Callable[[Tensor, Tensor], Tensor], vocab: int, x: Tensor, code: Tensor) -> Tensor:
    """work(x, code) over parts of the rows of ids x `[n, T]` and codes `[n, ...]`, joined: so few at a time that the
    logits of a large vocabulary never fill the memory."""
    rows = max(1, (1 << 25) // (x.shape[1] * vocab))
    return torch.cat([work(*part) for part in zip(x.split(rows), code.split(rows), strict=True)])


class Perceptron(nn.Sequential):
    """Fully connected layers, N(0, 0.02). batch_norm: in every hidden layer, in the second only, or in none."""

    def __init__(self, sizes: list[int], activation: nn.Module, batch_norm: Literal["all", "second", ""] = "") -> None:
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(sizes[:-1])):
            layers.append(nn.Linear(a, b))
            if batch_norm == "all" or (batch_norm == "second" and i == 1):
                layers.append(nn.BatchNorm1d(b))
            layers.append(activation)
        super().__init__(*layers, nn.Linear(sizes[-2], sizes[-1]))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)


class Windows(nn.Module):
    """Sequences `[n, S, width]`, of which the first `size` `[n]` places count -> features `[n, filters * heights]`.

    A convolution over time of every height with the full width, an activation, the largest value over time (Kim 2014).
    Windows that reach beyond a sequence's end do not count, so that padding tells nothing; a sequence shorter than a
    filter is padded with zeros to its height.
    """

    def __init__(self, width: int, filters: int, heights: Sequence[int], activation: nn.Module) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, k) for k in heights)
        self.heights, self.activation = tuple(heights), activation

    def forward(self, x: Tensor, size: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], device=x.device)
        x = x.masked_fill((place >= size[:, None])[..., None], 0.0)
        x = F.pad(x, (0, 0, 0, max(0, max(self.heights) - x.shape[1]))).transpose(1, 2)
        pooled = []
        for k, convolution in zip(self.heights, self.convolutions, strict=True):
            found = self.activation(convolution(x))
            beyond = torch.arange(found.shape[2], device=x.device) + k > size.clamp_min(k)[:, None]
            pooled.append(found.masked_fill(beyond[:, None], -torch.inf).amax(2))
        return torch.cat(pooled, 1)


class CodeEncoder(nn.Module):
    """Token ids `[n, T]` -> unit codes `[n, h]`: the LSTM's state at the last token, whatever padding follows."""

    def __init__(self, vocab: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(x))
        last = (lengths(x) - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
        return F.normalize(states.gather(1, last).squeeze(1), dim=1)


class CodeDecoder(nn.Module):
    """One label's decoder: the code stands beside every input word. -> hidden states, before the output layer."""

    def __init__(self, vocab: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding)
        self.lstm = nn.LSTM(embedding + hidden, hidden, batch_first=True)

    def forward(self, inputs: Tensor, code: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """inputs: ids `[n, T]`; code `[n, h]` -> states `[n, T, h]` and the LSTM's state."""
        beside = code[:, None].expand(-1, inputs.shape[1], -1)
        return self.lstm(torch.cat([self.embedding(inputs), beside], 2), state)
