"""Greedy and beam search for any step-by-step decoder, in fixed shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from distk.plugins.text.common.vocab import BOS, EOS, PAD

State = TypeVar("State")
StepFn = Callable[[Tensor, State], tuple[Tensor, State]]
"""(last token ids `[n]`, state) -> (logits `[n, V]`, state); every tensor of a state has n rows first."""


def _allowed(logits: Tensor) -> Tensor:
    """Logits with `<pad>` and `<bos>` ruled out: they are never targets."""
    logits = logits.float().clone()
    logits[:, [PAD, BOS]] = -torch.inf
    return logits


@torch.no_grad()
def greedy(step: StepFn, state: State, n: int, width: int, device: torch.device) -> Tensor:
    """The most probable token at each place: int64 `[n, width]`, `<eos>` then `<pad>`; cut at `width`, where the last
    place always holds `<eos>` or `<pad>`."""
    token = torch.full((n,), BOS, device=device)
    done = torch.zeros(n, dtype=torch.bool, device=device)
    out = torch.full((n, width), PAD, device=device)
    for t in range(width):
        logits, state = step(token, state)
        token = _allowed(logits).argmax(1) if t < width - 1 else torch.full_like(token, EOS)
        out[:, t] = torch.where(done, PAD, token)
        done = done | (token == EOS)
        if t % 8 == 7 and bool(done.all()):
            break
    return out


@torch.no_grad()
def best(step: StepFn, state: State, n: int, width: int, size: int, device: torch.device) -> Tensor:
    """What a beam of `size` finds; of one, greedily, which is the same and faster."""
    if size == 1:
        return greedy(step, state, n, width, device)
    return beam(step, state, n, width, size, device)


def _reorder(state: State, index: Tensor) -> State:
    if isinstance(state, Tensor):
        return cast(State, state[index])
    return cast(State, tuple(_reorder(part, index) for part in cast(tuple[Any, ...], state)))


@torch.no_grad()
def beam(step: StepFn, state: State, n: int, width: int, size: int, device: torch.device) -> Tensor:
    """The most probable sequence that a beam of `size` finds, by summed log-probability without length penalty.

    Shapes as `greedy`; state: tensors or nested tuples of tensors with n rows first. `size` 1 equals `greedy`.
    """
    state = _reorder(state, torch.arange(n, device=device).repeat_interleave(size))
    token = torch.full((n * size,), BOS, device=device)
    out = torch.full((n, size, width), PAD, device=device)
    done = torch.zeros(n, size, dtype=torch.bool, device=device)
    score = torch.full((n, size), -torch.inf, device=device)
    score[:, 0] = 0.0  # all beams begin alike: only one counts
    first = torch.arange(n, device=device)[:, None] * size
    for t in range(width):
        logits, state = step(token, state)
        gain = _allowed(logits).log_softmax(1).view(n, size, -1)
        vocab = gain.shape[-1]
        if t == width - 1:  # no room for more words
            ended = torch.full_like(gain, -torch.inf)
            ended[..., EOS] = gain[..., EOS]
            gain = ended
        # A finished beam has one continuation, padding, that costs nothing.
        finished = torch.full_like(gain, -torch.inf)
        finished[..., PAD] = 0.0
        total = score[..., None] + torch.where(done[..., None], finished, gain)
        score, flat = total.view(n, -1).topk(min(size, size * vocab), dim=1)
        parent, word = flat // vocab, flat % vocab
        out = out.gather(1, parent[..., None].expand(-1, -1, width))
        out[..., t] = word
        done = done.gather(1, parent) | (word == EOS)
        state = _reorder(state, (first + parent).flatten())
        token = word.flatten()
        if t % 8 == 7 and bool(done.all()):
            break
    return out[torch.arange(n, device=device), score.argmax(1)]
