"""Z-max variance: change one factor alone, and see which code varies most."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distk.console import counted

from . import checks
from .checks import Array, Result
from .sampling import GridSampler, Sampler, TableSampler
from .sentences import Unfit
from .voting import _active, _Codes, _factors_of_votes, _global_variance, _open


def z_max(
    codebook: Array,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    factors: Array | None = None,
    factor_names: Sequence[str] | None = None,
    std: Array | None = None,
    samples: int = 64,
    train_votes: int = 10_000,
    eval_votes: int = 5_000,
    threshold: float = 0.05,
) -> Result:
    """Z-max variance (Kim, Wang, Sahu & Pavlovic 2019): the mirror of the FactorVAE score.

    A vote: `samples` rows that differ in factor k alone, every value of k as likely as in its rows; d* = argmax_d local
    variance / global variance over the codes whose standard deviation reaches `threshold`. The majority table
    votes[d, k] of the training votes is the classifier. In [0, 1], chance 1/K, higher is better. It does not see a code
    that two factors share, which varies with both. codebook, sizes, factors, std as in `factor_vae`. Keys: train, eval
    (headline), codes_used, votes [D, K]. Rows without any other that differs in k alone cast no vote; ValueError when
    there are no others for a factor.
    """
    table, sampler = _open(codebook, sizes, factors, factor_names)
    if samples < 2 or train_votes < len(sampler.kept) or eval_votes < 1:
        raise ValueError(
            f"needs 2 rows per vote and a vote per factor, got {counted(samples, 'row')} and"
            f" {counted(train_votes, 'vote')}"
        )
    generator = torch.Generator().manual_seed(seed)
    codes = _Codes(table, std, seed)
    variance = _global_variance(codes, None, sampler.uniform(10_000, generator).to(table.device))
    active = _active(variance, table.shape[1], "std", threshold, None)
    votes = torch.zeros(table.shape[1], sampler.factors, dtype=torch.float64)
    result: Result = {"codes_used": float(active.sum())}
    if not bool(active.any()):
        reasons = {**sampler.reasons, "eval": "no active code: 0"}
        return checks.finish(result | {"train": 0.0, "eval": 0.0, "votes": votes.numpy()}, reasons)
    share = torch.where(active, 1 / variance.where(active, torch.ones_like(variance)), 0.0).to(table.device)

    def cast(count: int) -> tuple[Tensor, Tensor]:
        factor = _factors_of_votes(sampler, count, False, generator)
        index, winners = varied(sampler, factor, samples, generator), []
        for part in index.split(codes.together(samples)):
            batch = codes(part.to(table.device))
            local = (batch - batch[:, :1]).var(1)  # shifted: a constant batch has exactly 0
            winners.append(torch.where(share > 0, local * share, -1.0).argmax(1).cpu())
        return torch.cat(winners), factor

    code, factor = cast(train_votes)
    votes.index_put_((code, factor), torch.ones(len(code), dtype=torch.float64), accumulate=True)
    fresh, asked = cast(eval_votes)
    result |= {
        "train": float(votes.amax(1).sum() / votes.sum()),
        "eval": float((votes.argmax(1)[fresh] == asked).double().mean()),
        "votes": votes.numpy(),
    }
    return checks.finish(result, dict(sampler.reasons))


def varied(sampler: Sampler, factor: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`[V, n]` rows, int64: those of row i differ in factor[i] `[V]` alone, drawn with replacement."""
    if isinstance(sampler, GridSampler):
        first = sampler.uniform(len(factor), generator)
        size, stride = sampler.sizes[factor], sampler.strides[factor]
        digit = (torch.rand(len(factor), n, generator=generator, dtype=torch.float64) * size[:, None]).long()
        own = first // stride % size
        return first[:, None] + (digit.minimum(size[:, None] - 1) - own[:, None]) * stride[:, None]
    assert isinstance(sampler, TableSampler)
    rows = torch.empty(len(factor), n, dtype=torch.int64)
    draw = torch.rand(len(factor), n + 1, generator=generator, dtype=torch.float64)
    for k in factor.unique().tolist():
        order, group, run = sampler._neighbours(k)
        length = group[:, 1] - group[:, 0]
        usable = (length > run[:, 1] - run[:, 0]).nonzero()[:, 0]
        if len(usable) == 0:
            raise Unfit("no two rows differ only in {}; this score compares such rows", sampler._mention(k))
        sampler.enough(len(usable), k)
        mine = (factor == k).nonzero()[:, 0]
        place = usable[(draw[mine, 0] * len(usable)).long().clamp_(max=len(usable) - 1)]
        start, count = group[place, 0][:, None], length[place][:, None]
        rows[mine] = order[start + (draw[mine, 1:] * count).long().minimum(count - 1)]
    return rows
