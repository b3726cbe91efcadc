"""Small networks that read factors from codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distk.optimizers import light

PATIENCE = 10
"""Passes without a better validation error after which training stops."""


def mlp(
    x: Tensor, y: Tensor, *, seed: int = 0, hidden: int = 128, passes: int = 100, batch: int = 256, lr: float = 3e-3
) -> Callable[[Tensor], Tensor]:
    """A network of two hidden layers that is fitted to x `[n, D]` -> y `[n, K]` by squared error; it takes `[m, D]`.

    Both standardised by the caller. Adam, a cosine down to 0 over the passes; every ninth row is kept out, and the
    weights that foretell those best are returned; it stops after 10 passes without a better one. float32 inside,
    float64 out. The seed sets weights and order of rows, on the CPU: the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    device, inputs, targets = x.device, x.float(), y.float()
    held = torch.arange(len(x), device=device) % 9 == 8
    if not bool(held.any()):
        held[-1] = True
    fit_x, fit_y, held_x, held_y = inputs[~held], targets[~held], inputs[held], targets[held]
    network = _network(x.shape[1], hidden, y.shape[1], generator).to(device)
    optimizer = light(torch.optim.Adam, network.parameters(), lr=lr)
    steps = passes * -(-len(fit_x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, since, kept = float("inf"), 0, {k: v.clone() for k, v in network.state_dict().items()}
    for _ in range(passes):
        order = torch.randperm(len(fit_x), generator=generator).to(device)
        for rows in order.split(batch):
            optimizer.zero_grad()
            (network(fit_x[rows]) - fit_y[rows]).square().mean().backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            error = float((network(held_x) - held_y).square().mean())
        if error < best:
            best, since, kept = error, 0, {k: v.clone() for k, v in network.state_dict().items()}
        else:
            since += 1
            if since == PATIENCE:
                break
    network.load_state_dict(kept)

    @torch.no_grad()
    def predict(other: Tensor) -> Tensor:
        return network(other.float()).double()

    return predict


def _network(inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Its weights come from the generator alone: no global random state is touched."""
    layers = [nn.utils.skip_init(nn.Linear, a, b) for a, b in ((inputs, hidden), (hidden, hidden), (hidden, outputs))]
    for layer in layers:
        bound = layer.in_features**-0.5
        for weight in (layer.weight, layer.bias):
            with torch.no_grad():
                weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
