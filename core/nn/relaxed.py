"""Choices that a gradient passes through: a row of weights instead of one class or word."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

State = TypeVar("State")


def relaxed_one_hot(
    logits: Tensor, temperature: float | Tensor, uniform: Tensor | None = None, hard: bool = False
) -> Tensor:
    """softmax((logits + Gumbel noise) / temperature) over the last axis, `[..., K]`; rows sum to 1.

    uniform: numbers on [0, 1) of the logits' shape, which become the noise: a sample of the Gumbel-softmax distribution
    (Jang et al. 2017; Maddison et al. 2017). None: no noise. As the temperature goes to 0 the row becomes one-hot, as
    it grows uniform. hard: forward exactly the one-hot row of the largest weight, backward as the soft row
    (straight-through).
    """
    if uniform is not None:
        exponential = -torch.log1p(-uniform)
        logits = logits - exponential.clamp_min(1e-20).log()
    soft = (logits / temperature).softmax(-1)
    if not hard:
        return soft
    return torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0) + (soft - soft.detach())


def relaxed_decode(
    step: Callable[[Tensor, State], tuple[Tensor, State]],
    state: State,
    first: Tensor,
    table: Tensor,
    length: int,
    *,
    temperature: float | Tensor,
    uniform: Tensor | None = None,
    hard: bool = False,
) -> tuple[Tensor, list[State]]:
    """Let a decoder run on the words that it writes: rows `[n, length, V]`, and its state after each word.

    step: (embedding `[n, E]` of the word before, state) -> (logits `[n, V]`, new state). first: embedding of the first
    input `[n, E]`. table: embeddings `[V, E]`; a soft word enters as the weighted mean of their rows. uniform:
    `[n, length, V]`; it, `temperature` and `hard` are those of `relaxed_one_hot`. An end token does not stop it.
    """
    rows, states, word = [], [], first
    for t in range(length):
        logits, state = step(word, state)
        row = relaxed_one_hot(logits, temperature, None if uniform is None else uniform[:, t], hard)
        word = row @ table
        rows.append(row)
        states.append(state)
    return torch.stack(rows, 1), states
