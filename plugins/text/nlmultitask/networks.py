"""The recurrent nets: an encoder that reads a sentence into one state, and decoders that begin from one code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distk import one_hot
from distk.plugins.text.common import decode as search
from distk.plugins.text.common.vocab import lengths, shifted

State = tuple[Tensor, Tensor]
"""Hidden and cell state of an LSTM, each float `[n, hidden]`."""


class Symbols(nn.Module):
    """Ids int64 `[...]` -> vectors `[..., width]`: learnt embeddings, or with `size` 0 one-hot rows."""

    def __init__(self, vocab: int, size: int) -> None:
        super().__init__()
        self.vocab, self.width = vocab, size or vocab
        self.table = nn.Embedding(vocab, size) if size else None

    def forward(self, ids: Tensor) -> Tensor:
        return one_hot(ids, self.vocab) if self.table is None else self.table(ids)


class Encoder(nn.Module):
    """Ids int64 `[n, T]` -> the hidden state float `[n, hidden]` after the last symbol, whatever padding follows.

    `<eos>` is not read; a sentence without symbols has the state that an LSTM begins with, zeros. It is the hidden
    state alone on every device: on CUDA only the hidden state of each place comes back, not the cell's.
    """

    def __init__(self, vocab: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.symbols = Symbols(vocab, embedding)
        self.lstm = nn.LSTM(self.symbols.width, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        read = x[:, : max(1, x.shape[1] - 1)]  # the last column is never more than `<eos>`
        states, _ = self.lstm(self.symbols(read))
        size = lengths(x) - 1
        last = (size - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, last).squeeze(1) * (size > 0)[:, None]


class Decoder(nn.Module):
    """One task's decoder: two layers turn the code `[n, code]` into the LSTM's first hidden and cell state."""

    def __init__(self, vocab: int, embedding: int, hidden: int, code: int) -> None:
        super().__init__()
        self.hidden, self.cell = nn.Linear(code, hidden), nn.Linear(code, hidden)
        self.symbols = Symbols(vocab, embedding)
        self.lstm = nn.LSTM(self.symbols.width, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocab)

    def start(self, code: Tensor) -> State:
        """The state before the first symbol."""
        return self.hidden(code), self.cell(code)

    def forward(self, target: Tensor, code: Tensor) -> Tensor:
        """Logits float `[n, T, vocab]` of each symbol of ids `target` `[n, T]`, the true ones before it as input."""
        h, c = self.start(code)
        states, _ = self.lstm(self.symbols(shifted(target)), (h[None], c[None]))
        return self.output(states)

    def write(self, code: Tensor, width: int) -> Tensor:
        """The most probable symbol at each place, ids int64 `[n, width]`, `<eos>` at the last place at the latest."""

        def step(token: Tensor, state: State) -> tuple[Tensor, State]:
            h, c = state
            states, (h, c) = self.lstm(self.symbols(token)[:, None], (h[None], c[None]))
            return self.output(states[:, 0]), (h[0], c[0])

        with torch.no_grad():
            return search.greedy(step, self.start(code), len(code), width, code.device)
