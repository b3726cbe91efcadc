"""Networks that several of the family share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def last_states(lstm: nn.LSTM, sequence: Tensor) -> Tensor:
    """`[b, t, d]` -> `[b, 2h]`: the last state of the forward half and the first of the backward half.

    Both have read the whole clip (the state at t = T-1 alone would hold a backward half that has read one frame).
    """
    _, (hidden, _) = lstm(sequence)
    return torch.cat([hidden[0], hidden[1]], 1)
