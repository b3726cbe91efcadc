"""The discriminator over hidden states, how weights begin, and the order of an encoder's words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StateCritic(nn.Module):
    """States `[n, S, h]`, of which the first `size` `[n]` count -> logits of "real" `[n]`.

    A convolution over time of every height 1 .. `heights` with the full width of the states, leaky ReLU 0.01, the
    largest value over time, dropout, a linear layer (Kim 2014). Windows that reach beyond a sequence's end do not
    count, so that padding tells nothing; a sequence shorter than a filter is padded with zeros to its height.
    """

    def __init__(self, hidden: int, filters: int, heights: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(hidden, filters, k) for k in range(1, heights + 1))
        self.score = nn.Linear(filters * heights, 1)
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor, size: Tensor) -> Tensor:
        place = torch.arange(states.shape[1], device=states.device)
        states = states.masked_fill((place >= size[:, None])[..., None], 0.0)
        states = F.pad(states, (0, 0, 0, max(0, len(self.convolutions) - states.shape[1]))).transpose(1, 2)
        pooled = []
        for k, convolution in enumerate(self.convolutions, 1):
            found = F.leaky_relu(convolution(states), 0.01)
            first = torch.arange(found.shape[2], device=found.device)
            beyond = first + k > size.clamp_min(k)[:, None]
            pooled.append(found.masked_fill(beyond[:, None], -torch.inf).amax(2))
        return self.score(self.drop(torch.cat(pooled, 1)))[:, 0]


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
