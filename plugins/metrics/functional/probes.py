"""Small networks that read factors from codes."""

from __future__ import annotations

import itertools
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


def networks(
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    passes: int = 60,
    batch: int = 256,
    lr: float = 3e-3,
) -> Callable[[Tensor], Tensor]:
    """K networks side by side, one for each target: x `[n, D]` -> y `[n, K, T]` by squared error; it takes `[m, D]`.

    `layers` hidden layers of `hidden` units and ReLU each; both sides standardised by the caller. Few rows come in
    smaller batches, so that they make enough steps. As `mlp`, but each
    network keeps the weights that foretold its own target best on every ninth row, and they share nothing but the order
    of the rows: each is the network that it would be alone with the same weights to begin with.
    """
    generator = torch.Generator().manual_seed(seed)
    device, inputs, targets = x.device, x.float(), y.float()
    count, outputs = y.shape[1], y.shape[2]
    batch = min(batch, max(32, len(x) // 32))
    held = torch.arange(len(x), device=device) % 9 == 8
    if not bool(held.any()):
        held[-1] = True
    fit_x, fit_y, held_x, held_y = inputs[~held], targets[~held], inputs[held], targets[held]
    sizes = [x.shape[1], *[hidden] * layers, outputs]
    weights = []
    for a, b in itertools.pairwise(sizes):
        for shape in ((count, a, b), (count, 1, b)):
            drawn = (torch.rand(shape, generator=generator) * 2 - 1) * a**-0.5
            weights.append(drawn.to(device).requires_grad_())
    optimizer = torch.optim.Adam(weights, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * -(-len(fit_x) // batch))
    best = torch.full((count,), torch.inf, device=device)
    kept, since = [w.detach().clone() for w in weights], 0
    for _ in range(passes):
        for rows in torch.randperm(len(fit_x), generator=generator).to(device).split(batch):
            optimizer.zero_grad()
            # A mean over rows alone, a sum over networks: the gradient of each is its own.
            (_stacked(weights, fit_x[rows]) - fit_y[rows]).square().mean(0).sum().backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            error = (_stacked(weights, held_x) - held_y).square().sum(2).mean(0)
            better = error < best
            for old, new in zip(kept, weights, strict=True):
                old[better] = new[better]
        best = torch.minimum(best, error)
        since = 0 if bool(better.any()) else since + 1
        if since == PATIENCE:
            break

    @torch.no_grad()
    def predict(other: Tensor) -> Tensor:
        return torch.cat([_stacked(kept, part.float()) for part in other.split(1 << 14)]).double()

    return predict


def _stacked(weights: list[Tensor], x: Tensor) -> Tensor:
    """x float32 `[m, D]` through K networks: `[m, K, T]`."""
    h = x.expand(len(weights[0]), *x.shape)
    for i in range(0, len(weights), 2):
        h = torch.baddbmm(weights[i + 1], h, weights[i])
        if i + 2 < len(weights):
            h = h.relu()
    return h.transpose(0, 1)


def _network(inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Its weights come from the generator alone: no global random state is touched."""
    layers = [nn.utils.skip_init(nn.Linear, a, b) for a, b in ((inputs, hidden), (hidden, hidden), (hidden, outputs))]
    for layer in layers:
        bound = layer.in_features**-0.5
        for weight in (layer.weight, layer.bias):
            with torch.no_grad():
                weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
