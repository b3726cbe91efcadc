"""The training of small classifiers: against the same loop written out, and on something that can be learned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from distk.nn import cross_entropies, fit_classifier


def test_it_is_adam_under_one_cycle(generator) -> None:
    torch.manual_seed(0)
    net, twin = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double() for _ in range(2))
    twin.load_state_dict(net.state_dict())
    x = torch.randn(12, 8, 3, generator=generator, dtype=torch.float64)
    label = torch.randint(2, (12, 8), generator=generator)
    batches = iter(zip(x, label, strict=True))
    with torch.no_grad():  # a metric may call it from there
        fit_classifier(net, lambda: next(batches), 12, 0.05, "training")
    assert not net.training
    optimizer = torch.optim.Adam(twin.parameters())
    for t in range(12):  # the peak lies at 30% of the steps, the start at a 25th and the end at a 250,000th of it
        peak = 0.3 * 12 - 1
        rise = t <= peak
        first, last = (0.05 / 25, 0.05) if rise else (0.05, 0.05 / 25e4)
        along = t / peak if rise else (t - peak) / (11 - peak)
        swing = (1 + math.cos(math.pi * along)) / 2
        fall = (0.95, 0.85) if rise else (0.85, 0.95)
        for group in optimizer.param_groups:
            group["lr"] = last + (first - last) * swing
            group["betas"] = (fall[1] + (fall[0] - fall[1]) * swing, 0.999)
        optimizer.zero_grad()
        F.cross_entropy(twin(x[t]), label[t]).backward()
        optimizer.step()
    for ours, by_hand in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-9, atol=1e-10)


def test_two_heads_learn_two_labels(generator) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sign, self.largest = nn.Linear(3, 2), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sign": self.sign(x), "largest": self.largest(x)}

    def draw(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(n, 3, generator=generator)
        return x, torch.stack([(x[:, 0] > 0).long(), x.argmax(1)], 1)

    net = Heads()
    fit_classifier(net, draw, 200, 0.1, "training", cross_entropies)
    x, target = draw(4000)
    right = [(head.argmax(1) == target[:, k]).float().mean() for k, head in enumerate(net(x).values())]
    assert min(map(float, right)) > 0.93


def test_cross_entropies_sum_over_heads_and_average_over_the_batch(generator) -> None:
    logits = {"a": torch.randn(6, 2, generator=generator), "b": torch.randn(6, 4, generator=generator)}
    target = torch.stack([torch.randint(2, (6,), generator=generator), torch.randint(4, (6,), generator=generator)], 1)
    by_hand = 0.0
    for i in range(6):
        for k, head in enumerate(logits.values()):
            by_hand -= head[i].softmax(0)[target[i, k]].log().item() / 6
    assert abs(float(cross_entropies(logits, target)) - by_hand) < 1e-5
