"""Scores of change: one factor changed between two items, and a linear probe tells which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distk.optimizers import light

from . import checks
from .checks import Array, Result
from .sampling import GridSampler, Sampler
from .voting import _classified, _Codes, _factors_of_votes, _open, _positive, _single

BLOCK = 50
"""Epochs of a probe between two looks from the host."""
PATIENCE = 20
"""Epochs in a row without a better loss after which a probe ends with the next one."""
COLLISION = 1e-3
"""A pair whose codes differ by less than this everywhere is a code collision."""


def higgins_change(
    codebook: Array,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    factors: Array | None = None,
    factor_names: Sequence[str] | None = None,
    std: Array | None = None,
    discrete: Sequence[int] = (),
    train_points: int = 10_000,
    eval_points: int = 5_000,
) -> Result:
    """Higgins score, 2016 version (Higgins et al. 2016): change one factor, tell which.

    Feature = |z1 - z2| / max_d |z1 - z2|_d of one pair that differs in factor k only; the zero vector
    where no code moves. Multinomial logistic regression (L2, C = 1) to convergence. Accuracy, chance 1/K,
    higher is better. A pure rotation of the codes scores 1: the score does not measure axis alignment.
    discrete: codes that are class indices, which differ as their indicators do. codebook, sizes, factors, std as in
    `factor_vae`. Keys: train, eval (headline), codes_used (codes that vary).
    """
    table, sampler = _open(codebook, sizes, factors, factor_names)
    codes = _Codes(table, std, seed, discrete)
    _positive(train_points=train_points, eval_points=eval_points)
    generator = torch.Generator().manual_seed(seed)
    factor = _factors_of_votes(sampler, train_points + eval_points, False, generator)
    first, second = sampler.changing(factor, generator)
    difference = (codes(first) - codes(second)).abs()
    largest = difference.amax(1, keepdim=True)
    features = difference / largest.where(largest > 0, torch.ones_like(largest))
    return _classified(features, factor, train_points, sampler, table, max_iter=1000, tol=1e-6)


def change_one_factor(
    codebook: Array,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    factors: Array | None = None,
    factor_names: Sequence[str] | None = None,
    std: Array | None = None,
    discrete: Sequence[int] = (),
    fixed: Sequence[int] = (),
    pairs: int = 50_000,
    epochs: int = 5000,
    same: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Result:
    """Change-one-factor accuracy as Peychev et al. (2017) measured it: `higgins_change`, with their probe.

    Pairs of rows that differ in one factor only, the factors equally often; `fixed` lists factors that never
    change (on a grid their values are equally often, too). Feature = |z1 - z2| / max_d |z1 - z2|_d; the zero vector for
    a collision, where the largest difference is below 0.001. A softmax regression is trained on 70 % of the pairs
    (Adam 1e-3, full batch, at most `epochs`), stopped after more than 20 epochs in a row without a better loss on 15 %;
    accuracy on the other 15 %. Chance 1/K of the K factors that change, higher is better.
    same: tells of rows [m], [m] which show identical items, bool [m]; such pairs are drawn again. Their codes are
    equal, so that only collisions are asked about and every model of one seed sees the same pairs.
    codebook, sizes, factors, std as in `factor_vae`, discrete as in `higgins_change`. Keys: train, validation, eval
    (headline), collisions, codes_used, probe_epochs.
    """
    table, sampler = _open(codebook, sizes, factors, factor_names)
    if pairs < 20 or epochs < 1:
        raise ValueError(f"needs at least 20 pairs and 1 epoch, got {pairs} and {epochs}")
    kept = [k for k in sampler.kept if k not in set(fixed)]
    if not kept:
        raise ValueError("no factor is left that could change")
    codes, generator = _Codes(table, std, seed, discrete), torch.Generator().manual_seed(seed)
    # Every K-th pair changes the same factor, in random order, so that each part is nearly balanced.
    label = torch.arange(pairs)[torch.randperm(pairs, generator=generator)] % len(kept)
    factor = torch.tensor(kept)[label]
    first, second = _drawn(sampler, factor, fixed, generator)
    difference = (codes(first) - codes(second)).abs()
    for _ in range(100 if same is not None else 0):
        collided = (difference.amax(1) < COLLISION).nonzero()[:, 0].cpu()
        again = collided[same(first[collided], second[collided]).cpu()] if same is not None else collided
        if not len(again):
            break
        first[again], second[again] = _drawn(sampler, factor[again], fixed, generator)
        difference[again.to(difference.device)] = (codes(first[again]) - codes(second[again])).abs()
    largest = difference.amax(1, keepdim=True)
    feature = torch.where(largest < COLLISION, 0.0, difference / largest.clamp_min(COLLISION)).float()
    live = sum(bool(table[:, d].amax() > table[:, d].amin()) for d in range(table.shape[1]))
    result: Result = {"codes_used": float(live), "collisions": float((largest < COLLISION).sum())}
    if len(kept) == 1:
        return _single(result | {"probe_epochs": 0.0}, dict(sampler.reasons), "train", "validation", "eval")
    accuracy, taken = _probe(feature, label.to(feature.device), len(kept), epochs)
    return checks.finish(result | accuracy | {"probe_epochs": float(taken)}, dict(sampler.reasons))


def _drawn(sampler: Sampler, factor: Tensor, fixed: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of rows that differ in factor[i] only; on a grid every fixed factor takes its values in turn."""
    first, second = sampler.changing(factor, generator)
    if isinstance(sampler, GridSampler):
        for k in fixed:
            size, stride = int(sampler.sizes[k]), int(sampler.strides[k])
            wanted = torch.arange(len(first)) % size
            shift = (wanted - first // stride % size) * stride
            first, second = first + shift, second + shift
    return first, second


def _probe(x: Tensor, y: Tensor, classes: int, epochs: int) -> tuple[dict[str, float], int]:
    """Softmax regression from zero weights, best by validation loss: accuracies, and epochs trained.

    The host looks every `BLOCK` epochs whether training is over; epochs beyond its end change nothing. Rows lie along
    the last dimension, so that the few classes are not what a softmax runs along, and the part of gradient and loss
    that the labels make is summed once: the same numbers up to the order of sums.
    """
    cut = (len(x) * 70 // 100, len(x) * 85 // 100)
    (x_train, x_valid, _), (y_train, y_valid, _) = _with_ones(x).tensor_split(cut, 1), y.tensor_split(cut)
    wanted, wanted_valid = (
        torch.nn.functional.one_hot(part, classes).to(x.dtype).T @ rows.T / rows.shape[1]
        for part, rows in ((y_train, x_train), (y_valid, x_valid))
    )
    theta = torch.zeros(classes, len(x_train), device=x.device, requires_grad=True)
    # A count on the device, so that no step reads it.
    adam = light(torch.optim.Adam, [theta], lr=1e-3, capturable=theta.is_cuda)
    best, loss_best = theta.detach().clone(), torch.full((), torch.inf, device=x.device)
    worse, taken = torch.zeros((), dtype=torch.long, device=x.device), torch.zeros_like(loss_best, dtype=torch.long)
    with torch.no_grad():
        for epoch in range(epochs):
            if epoch % BLOCK == 0 and int(worse) > PATIENCE:
                break
            going = worse <= PATIENCE
            taken += going
            theta.grad = (theta @ x_train).softmax(0) @ x_train.T / x_train.shape[1] - wanted
            adam.step()
            loss = (theta @ x_valid).logsumexp(0).mean() - (theta * wanted_valid).sum()
            better = going & (loss < loss_best)
            worse = torch.where(better, 0, worse + 1)
            worse = torch.where(going, worse, PATIENCE + 1)
            loss_best, best = torch.where(better, loss, loss_best), torch.where(better, theta, best)
        hit = ((best @ _with_ones(x)).argmax(0) == y).double().tensor_split(cut)
    return {name: float(h.mean()) for name, h in zip(("train", "validation", "eval"), hit, strict=True)}, int(taken)


def _with_ones(x: Tensor) -> Tensor:
    """Rows `[n, D]` -> columns `[D + 1, n]`, a one below each."""
    return torch.cat([x.T, x.new_ones(1, len(x))])
