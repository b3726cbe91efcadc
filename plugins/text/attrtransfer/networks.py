"""Encoder, attention decoder and classifier; they read words as ids or as rows of weights over the vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from distk.plugins.text.common.networks import Windows


class Sentence(NamedTuple):
    """Sentences as networks read them.

    words: ids int64 `[n, T]`, or rows of weights `[n, T, V]`. alive: `[n, T]`, 1 up to and with `<eos>`, then 0; of a
    generated sentence with a gradient. size: int64 `[n]`, how many places are alive.
    """

    words: Tensor
    alive: Tensor
    size: Tensor

    def embedded(self, table: nn.Embedding) -> Tensor:
        """Embeddings `[n, T, E]`, zero where nothing is alive."""
        read = table(self.words) if self.words.dim() == 2 else self.words @ table.weight
        return read * self.alive[..., None]


class Memory(NamedTuple):
    """What the decoder attends to: `states` `[n, T, h]` and `there` bool `[n, T]`; `summary` `[n, h]`, their mean."""

    states: Tensor
    there: Tensor
    summary: Tensor


class Encoder(nn.Module):
    """A GRU in each direction, half of `hidden` each, that begins with an embedding of the label."""

    def __init__(self, embedding: int, hidden: int, labels: int) -> None:
        super().__init__()
        half = hidden // 2
        self.onward, self.backward_ = (nn.GRU(embedding, half, batch_first=True) for _ in range(2))
        self.labels = nn.ModuleList(nn.Embedding(labels, half) for _ in range(2))

    def forward(self, read: Tensor, sentence: Sentence, label: Tensor) -> Memory:
        """read: embeddings `[n, T, E]` of the sentence; label int64 `[n]`. Padding is never read before a word."""
        place = torch.arange(read.shape[1], device=read.device).expand(read.shape[:2])
        there = place < sentence.size[:, None]
        turned = torch.where(there, sentence.size[:, None] - 1 - place, place)[..., None]
        ahead = self.onward(read, self.labels[0](label)[None])[0]
        back = read.gather(1, turned.expand(-1, -1, read.shape[2]))
        back = self.backward_(back, self.labels[1](label)[None])[0]
        back = back.gather(1, turned.expand(-1, -1, back.shape[2]))
        states = torch.cat([ahead, back], 2) * sentence.alive[..., None]
        return Memory(states, there, states.sum(1) / sentence.alive.sum(1, keepdim=True).clamp_min(1))


State = tuple[Tensor, Tensor, Tensor, Tensor]
"""Hidden state `[n, h]`, context `[n, h]`, attention of this step `[n, T]`, logits of this step `[n, V]`."""


class Decoder(nn.Module):
    """A GRU cell with general attention (Luong et al. 2015) and input feeding; begins with label and summary."""

    def __init__(self, embedding: int, hidden: int, labels: int, vocab: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(embedding + hidden, hidden)
        self.labels = nn.Embedding(labels, hidden)
        self.first = nn.Linear(hidden, hidden)
        self.attend = nn.Linear(hidden, hidden, bias=False)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.output = nn.Linear(hidden, vocab)

    def start(self, memory: Memory, label: Tensor) -> State:
        """The state before the first word."""
        h = torch.tanh(self.labels(label) + self.first(memory.summary))
        n, length = memory.there.shape
        return h, torch.zeros_like(h), h.new_zeros(n, length), h.new_zeros(n, self.output.out_features)

    def step(self, word: Tensor, state: State, memory: Memory, banned: Tensor) -> tuple[Tensor, State]:
        """Embedding `[n, E]` of the word before -> logits `[n, V]` of the next one, and the state.

        banned: ids that are never written; their logits are minus infinity.
        """
        h = self.cell(torch.cat([word, state[1]], 1), state[0])
        score = torch.einsum("nth,nh->nt", memory.states, self.attend(h))
        attention = score.masked_fill(~memory.there, -torch.inf).softmax(1)
        context = torch.einsum("nt,nth->nh", attention, memory.states)
        logits = self.output(torch.tanh(self.mix(torch.cat([h, context], 1)))).index_fill(1, banned, -torch.inf)
        return logits, (h, context, attention, logits)


class LabelClassifier(nn.Module):
    """Its own embeddings, convolutions of heights 2, 3, 4 (see `Windows`), dropout, a linear layer: logits `[n, K]`."""

    def __init__(self, vocab: int, embedding: int, filters: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding)
        self.windows = Windows(embedding, filters, (2, 3, 4), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        self.score = nn.Linear(3 * filters, labels)

    def forward(self, words: Tensor, alive: Tensor, size: Tensor) -> Tensor:
        read = Sentence(words, alive, size).embedded(self.embedding)
        return self.score(self.drop(self.windows(read, size)))
