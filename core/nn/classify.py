"""Training of the small classifiers that metrics ask what they see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk.console import progress
from distk.optimizers import light


def fit_classifier(
    net: nn.Module,
    draw: Callable[[], tuple[Tensor, Tensor]],
    steps: int,
    lr: float,
    title: str,
    loss: Callable[[Any, Tensor], Tensor] = F.cross_entropy,
) -> None:
    """Train `net` in place by Adam under one cycle of the learning rate, whose peak is `lr`; it ends in eval mode.

    draw: a new batch, (items `[n, ...]`, targets). loss: what `net` makes of the items, and the targets -> scalar.
    title: shown beside the progress.
    """
    optimizer = light(torch.optim.Adam, net.parameters(), lr=lr, fused=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(steps, 1))
    net.train()
    with torch.enable_grad(), progress(title, steps) as advance:
        for _ in range(steps):
            x, target = draw()
            optimizer.zero_grad(set_to_none=True)
            loss(net(x), target).backward()
            optimizer.step()
            rates.step()
            advance(1)
    net.eval()


def cross_entropies(logits: Mapping[str, Tensor], target: Tensor) -> Tensor:
    """Sum over heads of each head's cross-entropy, mean over the batch, nats, scalar.

    logits: head -> `[n, classes]`. target: int64 `[n, heads]`, a column per head in the same order.
    """
    return torch.stack([F.cross_entropy(head, target[:, k]) for k, head in enumerate(logits.values())]).sum()
