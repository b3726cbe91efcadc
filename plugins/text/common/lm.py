"""The evaluator's language model: one LSTM layer, and perplexity."""

from __future__ import annotations

import copy
import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk.console import progress
from distk.optimizers import light
from distk.plugins.text.common.vocab import EOS, PAD, shifted


class LanguageModel(nn.Module):
    """Embedding, LSTM, linear; dropout on the LSTM's inputs and outputs. Token ids `[n, T]` -> logits `[n, T, V]`."""

    def __init__(self, vocab: int, embedding: int = 256, hidden: int = 512, dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocab)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the next token at each place of the targets `x` (words, `<eos>`, padding)."""
        states, _ = self.lstm(self.dropout(self.embedding(shifted(x))))
        return self.output(self.dropout(states))


@torch.no_grad()
def log_loss(model: nn.Module, x: Tensor, *, count_eos: bool = True, batch: int = 256) -> tuple[float, int]:
    """(sum of -log p over tokens in nats, number of tokens) of rows `[n, T]`; float64 sums.

    model: token ids -> logits of each place. count_eos: whether the end of a sentence is a token.
    """
    total, tokens = 0.0, 0
    for part in x.split(batch):
        part = part[:, : max(1, int((part != PAD).sum(1).max()))]
        loss = F.cross_entropy(model(part).flatten(0, 1).float(), part.flatten(), reduction="none").view_as(part)
        counted = (part != PAD) if count_eos else (part != PAD) & (part != EOS)
        total += float(loss.double()[counted].sum())
        tokens += int(counted.sum())
    return total, tokens


def perplexity(model: nn.Module, x: Tensor, *, count_eos: bool = True) -> float:
    """exp(sum of -log p / number of tokens); NaN without tokens."""
    total, tokens = log_loss(model, x, count_eos=count_eos)
    return math.exp(min(total / tokens, 700.0)) if tokens else math.nan


def fit(
    model: LanguageModel,
    train: Tensor,
    dev: Tensor,
    generator: torch.Generator,
    *,
    epochs: int = 10,
    lr: float = 1e-3,
    batch: int = 128,
    count_eos: bool = True,
) -> float:
    """Adam until the perplexity on `dev` rises; the best weights are kept. Returns that perplexity.

    train, dev: token ids `[n, T]` padded with 0. generator: on the rows' device.
    """
    optimizer = light(torch.optim.Adam, model.parameters(), lr)
    size = (train != PAD).sum(1).tolist()
    rng = random.Random(int(torch.randint(1 << 31, (), generator=generator, device=generator.device)))
    best, kept = math.inf, copy.deepcopy(model.state_dict())
    with (
        torch.random.fork_rng(devices=[train.device] if train.is_cuda else []),
        progress("language model", epochs) as go,
    ):
        torch.manual_seed(rng.randrange(1 << 31))  # dropout draws from the global generator
        for _ in range(epochs):
            model.train()
            for rows in _batches(size, batch, rng):
                x = train[torch.tensor(rows, device=train.device), : max(1, size[rows[0]])]
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(model(x).flatten(0, 1), x.flatten(), ignore_index=PAD).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
            model.eval()
            now = perplexity(model, dev, count_eos=count_eos)
            go(1)
            if not now < best:
                break
            best, kept = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    model.eval()
    return best


def _batches(size: list[int], batch: int, rng: random.Random) -> list[list[int]]:
    """Rows in batches of about one length, longest first in each, in random order."""
    order = list(range(len(size)))
    rng.shuffle(order)
    made = []
    for start in range(0, len(order), batch * 50):
        chunk = sorted(order[start : start + batch * 50], key=lambda i: -size[i])
        made += [chunk[i : i + batch] for i in range(0, len(chunk), batch)]
    rng.shuffle(made)
    return made
