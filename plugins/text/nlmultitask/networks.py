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
    """Ids int64 `[n, T]` -> the LSTM's state after the last symbol, whatever padding follows, float `[n, width]`.

    `<eos>` is not read; a sentence without symbols has the state that an LSTM begins with, zeros. state: `h`, the
    hidden state alone, `width` = hidden; `hc`, with the cell's behind it, `width` = 2 hidden. A whole LSTM gives back
    the hidden state of each place but not the cell's, so that `hc` goes symbol by symbol and holds the state of
    sentences that have ended: the same numbers on every device, several times slower.
    """

    def __init__(self, vocab: int, embedding: int, hidden: int, state: str = "h") -> None:
        super().__init__()
        self.symbols = Symbols(vocab, embedding)
        self.lstm = nn.LSTM(self.symbols.width, hidden, batch_first=True)
        self.state, self.width = state, hidden * len(state)

    def forward(self, x: Tensor) -> Tensor:
        read = self.symbols(x[:, : max(1, x.shape[1] - 1)])  # the last column is never more than `<eos>`
        size = lengths(x) - 1
        if self.state == "hc":
            return torch.cat(self.both(read, size), 1)
        states, _ = self.lstm(read)
        last = (size - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, last).squeeze(1) * (size > 0)[:, None]

    def both(self, read: Tensor, size: Tensor) -> State:
        """Hidden and cell state after the first `size` `[n]` of vectors `[n, T, width]`."""
        weights = self.lstm.all_weights[0]
        h = c = read.new_zeros(len(read), self.lstm.hidden_size)
        for t, symbol in enumerate(read.unbind(1)):
            after = torch.lstm_cell(symbol, (h, c), *weights)
            going = (t < size)[:, None]
            h, c = torch.where(going, after[0], h), torch.where(going, after[1], c)
        return h, c


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
