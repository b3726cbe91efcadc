"""How much each code contributes to what a black box foretells: Shapley values of its loss (SAGE)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]


def sage(
    predict: Predict,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    orderings: int = 32,
    rows: int = 256,
    others: int = 32,
    owner: Sequence[int] | None = None,
) -> Tensor:
    """Shapley additive global importances (Covert, Lundberg & Lee 2020) of codes x [n, D] for targets y [n, K, T].

    predict: codes [m, D] -> [m, K, T]. v(S) = how much lower the squared error (summed over T, mean over rows) is when
    the codes S are known than when none is; a code that is not known is replaced by its value in `others` other rows,
    and the predictions are averaged. A code's value is its mean gain over the orders in which codes become known: over
    all of them where 2^D subsets cost no more than `orderings` orders, else over so many random ones. The values of all
    codes sum to v(all). x is drawn down to `rows` rows. owner: the code that each column of x belongs to, where a code
    has several, which are known together. Returns float64 [D, K]; below 0 for a code that misleads.
    """
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randperm(len(x), generator=generator)[:rows].to(x.device)
    beside = torch.randperm(len(x), generator=generator)[:others].to(x.device)
    owner = range(x.shape[1]) if owner is None else owner
    d = max(owner) + 1
    columns = [[m for m, code in enumerate(owner) if code == i] for i in range(d)]
    game = _Game(predict, x[picked], y[picked], x[beside], columns)
    if d < 63 and 2**d <= orderings * d:
        return _exact(game, d)
    values = torch.zeros(d, y.shape[1], dtype=torch.float64, device=x.device)
    nothing, everything = game.error(()), game.error(range(d))
    for _ in range(orderings):
        order = torch.randperm(d, generator=generator).tolist()
        before = nothing
        for place, code in enumerate(order):
            now = everything if place == d - 1 else game.error(order[: place + 1])
            values[code] += before - now
            before = now
    return values / orderings


class _Game:
    """The error [K] of a black box on some rows when a set of the codes is known."""

    def __init__(self, predict: Predict, x: Tensor, y: Tensor, others: Tensor, columns: list[list[int]]) -> None:
        self.predict, self.x, self.y, self.others, self.columns = predict, x, y, others, columns

    def error(self, known: tuple[int, ...] | list[int] | range) -> Tensor:
        mixed = self.others.repeat(len(self.x), 1, 1)  # [rows, others, D]
        index = [m for code in known for m in self.columns[code]]
        mixed[:, :, index] = self.x[:, None, index]
        foretold = self.predict(mixed.flatten(0, 1)).view(len(self.x), len(self.others), *self.y.shape[1:]).mean(1)
        return (foretold.double() - self.y).square().sum(2).mean(0)


def _exact(game: _Game, d: int) -> Tensor:
    """Every subset once: value_i = sum over S without i of |S|! (D - |S| - 1)! / D! (error(S) - error(S and i))."""
    errors = torch.stack([game.error([i for i in range(d) if subset >> i & 1]) for subset in range(1 << d)])
    values = torch.zeros(d, errors.shape[1], dtype=torch.float64, device=errors.device)
    for i in range(d):
        for subset in range(1 << d):
            if not subset >> i & 1:
                size = subset.bit_count()
                share = math.factorial(size) * math.factorial(d - size - 1) / math.factorial(d)
                values[i] += share * (errors[subset] - errors[subset | 1 << i])
    return values
