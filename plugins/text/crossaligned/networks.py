"""The discriminator over hidden states, how weights begin, and the order of an encoder's words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distk.plugins.text.common.networks import Windows


class StateCritic(nn.Module):
    """States `[n, S, h]`, of which the first `size` `[n]` count -> logits of "real" `[n]`.

    Convolutions of every height 1 .. `heights` (see `Windows`) with leaky ReLU 0.01, dropout, a linear layer.
    """

    def __init__(self, hidden: int, filters: int, heights: int, dropout: float) -> None:
        super().__init__()
        self.windows = Windows(hidden, filters, range(1, heights + 1), nn.LeakyReLU(0.01))
        self.score = nn.Linear(filters * heights, 1)
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor, size: Tensor) -> Tensor:
        return self.score(self.drop(self.windows(states, size)))[:, 0]


def glorot_(module: nn.Module) -> None:
    """Weights by Glorot & Bengio (2010), biases 0; the biases of recurrent gates 1, as in TensorFlow."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
                if isinstance(part, nn.GRU) and name.startswith("bias_ih"):
                    nn.init.ones_(parameter[: 2 * part.hidden_size])  # reset and update gate; the candidate has 0


def reversed_words(x: Tensor, words: Tensor) -> Tensor:
    """Token ids `[n, T]` -> the first `words` `[n]` of each row in reverse, then what followed."""
    place = torch.arange(x.shape[1], device=x.device).expand_as(x)
    inside = place < words[:, None]
    return x.gather(1, torch.where(inside, words[:, None] - 1 - place, place))


def shuffled(x: Tensor, words: Tensor, noise: Tensor, places: int) -> Tensor:
    """Token ids `[n, T]` -> the first `words` `[n]` of each row, sorted by their place plus noise in [0, places + 1),
    then what followed: no word moves by more than `places`. noise: uniform on [0, 1), `[n, T]`."""
    place = torch.arange(x.shape[1], device=x.device)
    key = torch.where(place < words[:, None], place + noise * (places + 1), place + x.shape[1] + places + 1.0)
    return x.gather(1, key.argsort(dim=1, stable=True))
