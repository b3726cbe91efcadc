"""Scores that draw batches under a protocol and let codes vote or be classified: FactorVAE, beta-VAE,
Higgins.

They read a table of codes by row number. On a grid the table holds every factor combination once, row-major,
last factor fastest, and `sizes` are the numbers of values; for other data pass `factors` [N, K] beside the
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distk.console import counted

from . import checks
from .blocks import MOST
from .checks import Array, Result
from .indicators import class_columns, classes
from .sampling import GridSampler, Sampler, TableSampler
from .sentences import Column, Unfit
from .solvers import CHUNK, logistic_regression


@dataclass(frozen=True)
class Protocol:
    """One published way to run the FactorVAE score."""

    samples: int  # rows per vote
    train_votes: int
    eval_votes: int  # 0: reported on the training votes
    variance_samples: int  # rows for the global variance; 0: all
    prune: str  # 'std', 'kl' or 'none'
    threshold: float
    stratified: bool = False  # floor(votes / K) per factor, fixed value uniform


PROTOCOLS = {
    "dlib": Protocol(64, 10_000, 5_000, 10_000, "std", 0.05),
    "cascadevae": Protocol(100, 800, 0, 0, "kl", 0.1, stratified=True),
    "disent": Protocol(64, 10_000, 5_000, 10_000, "none", 0.0),
    "review": Protocol(200, 800, 800, 10_000, "std", 0.02),
    "paper": Protocol(200, 800, 0, 0, "none", 0.0),
}


class _Codes:
    """Rows of a table of codes [N, D]; with standard deviations, every row that is read gets noise of its own. Columns
    of class indices (`discrete`) are read as the indicators of their classes, behind the others: [N, width]."""

    def __init__(self, table: Tensor, std: Array | None, seed: int, discrete: Sequence[int] = ()) -> None:
        self.table, self.std = table, None
        if std is not None:
            self.std = checks.matrix(std, "std", min_rows=1).to(table.device)
            if self.std.shape != table.shape or bool((self.std < 0).any()):
                raise ValueError(f"std must be {tuple(table.shape)} and not negative, got {tuple(self.std.shape)}")
        # A generator of its own: with std 0 the scores are those of the table
        self.generator = torch.Generator().manual_seed(seed)
        self.classes = {d: classes(table[:, d]) for d in class_columns(table, discrete).nonzero()[:, 0].tolist()}
        self.rest = [d for d in range(table.shape[1]) if d not in self.classes]
        self.width = len(self.rest) + sum(len(values) for values in self.classes.values())

    def together(self, rows: int) -> int:
        """How many votes of so many rows are read at a time: few on a processor. With noise as many on any device,
        since who draws it in other parts draws other noise."""
        few = self.std is None and self.table.device.type == "cpu"
        return max(1, (MOST if few else CHUNK) // (rows * self.width))

    def __call__(self, rows: Tensor) -> Tensor:
        """float64 [*rows, D] on the table's device."""
        rows = rows.to(self.table.device)
        values = self.table[rows].double()
        if self.std is not None:
            noise = torch.randn(values.shape, generator=self.generator, dtype=torch.float64)
            values = values + noise.to(values.device) * self.std[rows]
        if not self.classes:
            return values
        index = self.table[rows]
        told = [(index[..., d, None] == held).double() for d, held in self.classes.items()]
        return torch.cat([values[..., self.rest], *told], -1)


PER_VALUE = 10
"""Rows per value of a factor below which groups that share a value are too small to score."""


def _open(
    codebook: Array,
    sizes: Sequence[int] | None,
    factors: Array | None,
    names: Sequence[str] | None,
    per_value: int = 0,
) -> tuple[Tensor, Sampler]:
    """The table of codes [N, D] (own dtype and device) and the sampler of its rows; per_value: see `demand`."""
    table = checks.tensor(codebook, "codebook")
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or table.shape[1] == 0:
        raise ValueError(f"codebook must have shape [rows, codes], got {tuple(table.shape)}")
    for column in range(table.shape[1]):
        if not bool(torch.isfinite(table[:, column]).all()):
            raise Unfit("codebook contains NaN or inf, first in {}", Column("code", column, "column"))
    if factors is not None:
        sampler: Sampler = TableSampler(factors, names)
    elif sizes is not None:
        sampler = GridSampler(sizes)
    else:
        raise ValueError("give sizes (codebook over a full grid) or factors (any rows)")
    if sampler.rows != len(table):
        told = "factors have" if factors is not None else f"sizes {list(sizes or [])} make"
        raise ValueError(f"codebook has {counted(len(table), 'row')} but {told} {sampler.rows}")
    if not sampler.kept:
        raise ValueError("every factor is constant: nothing to score")
    if isinstance(sampler, TableSampler):
        sampler.demand(per_value)
    return table, sampler


def factor_vae(
    codebook: Array,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    protocol: str = "dlib",
    factors: Array | None = None,
    factor_names: Sequence[str] | None = None,
    discrete: Array | None = None,
    kl: Array | None = None,
    std: Array | None = None,
    prune: str | None = None,
    threshold: float | None = None,
    samples: int | None = None,
    train_votes: int | None = None,
    eval_votes: int | None = None,
) -> Result:
    """FactorVAE score (Kim & Mnih 2018): fix a factor, see which code varies least.

    A vote: rows sharing one value of factor k; d* = argmin_d local variance / global variance (both ddof=1)
    over active codes, ties to the lowest. Undefined (NaN) for a single factor; rows with `factors` must be 10 per value
    or more. The majority table votes[d, k] of the training votes is the
    classifier. In [0, 1], chance 1/K, higher is better.
    codebook: [prod sizes, D] over the grid, or any rows with `factors` [N, K]. discrete: int [N] class index
    that votes as one more code with the Gini variance (n^2 - sum_c n_c^2) / (2 n (n-1)); a constant one is
    masked. std: [N, D] posterior standard deviations; then every row drawn is a fresh sample of its posterior
    (the discrete code stays). kl: [D] mean KL per code in nats for prune='kl' (active: kl > threshold); 'std'
    (active: standard deviation >= threshold); 'none'. Constant codes never vote. protocol: 'dlib' (64 rows,
    10 000 / 5 000 votes, std 0.05; no active code: 0), 'cascadevae' (100 rows, 800 votes stratified over factors,
    fitted and scored on the same votes, KL > 0.1; no active code: 1/K), 'disent', 'review', 'paper'; the other
    arguments override it. Keys: train, eval (headline; = train where the protocol has no separate votes), codes_used,
    used [D(+1)], votes [D(+1), K] (training votes; zero columns for constant factors, last row = discrete
    code).
    """
    checks.one_of(protocol, tuple(PROTOCOLS), "protocol")
    plan = PROTOCOLS[protocol]
    table, sampler = _open(codebook, sizes, factors, factor_names, PER_VALUE)
    classes = _discrete_column(discrete, table)
    generator = torch.Generator().manual_seed(seed)
    rows = plan.samples if samples is None else samples
    n_train = plan.train_votes if train_votes is None else train_votes
    n_eval = plan.eval_votes if eval_votes is None else eval_votes
    if rows < 2 or n_train < len(sampler.kept) or n_eval < 0:
        raise ValueError(
            f"needs 2 rows per vote and a vote per factor, got {counted(rows, 'row')} and {counted(n_train, 'vote')}"
        )
    sample = sampler.uniform(plan.variance_samples, generator).to(table.device) if plan.variance_samples else None
    codes = _Codes(table, std, seed)
    variance = _global_variance(codes, classes, sample)
    prune = plan.prune if prune is None else prune
    active = _active(variance, table.shape[1], prune, plan.threshold if threshold is None else threshold, kl)
    votes = torch.zeros(len(variance), sampler.factors, dtype=torch.float64)
    result: Result = {"codes_used": float(active.sum()), "used": checks.array(active)}
    reasons = dict(sampler.reasons)
    if not bool(active.any()):
        score = 1 / len(sampler.kept) if protocol == "cascadevae" else 0.0
        reasons["eval"] = f"no active code: {score:g} by the {protocol} protocol"
        return checks.finish(result | {"train": score, "eval": score, "votes": votes.numpy()}, reasons)
    if len(sampler.kept) == 1:
        return _single(result | {"votes": votes.numpy()}, reasons, "train", "eval")
    share = torch.where(active, 1 / variance.where(active, torch.ones_like(variance)), torch.inf)

    def cast(count: int) -> tuple[Tensor, Tensor]:
        factor = _factors_of_votes(sampler, count, plan.stratified, generator)
        return _votes(codes, classes, sampler, factor, rows, plan.stratified, share, generator), factor

    code, factor = cast(n_train)
    votes.index_put_((code, factor), torch.ones(len(code), dtype=torch.float64), accumulate=True)
    train = float(votes.amax(1).sum() / votes.sum())
    held_out = train
    if n_eval:
        code, factor = cast(n_eval)
        held_out = float((votes.argmax(1)[code] == factor).double().mean())
    return checks.finish(result | {"train": train, "eval": held_out, "votes": votes.numpy()}, reasons)


def _discrete_column(discrete: Array | None, table: Tensor) -> Tensor | None:
    if discrete is None:
        return None
    classes = checks.labels_1d(discrete, "discrete").to(table.device)
    if len(classes) != len(table):
        raise ValueError(f"codebook has {counted(len(table), 'row')} but discrete has {len(classes)}")
    return classes


def _gini(counts: Tensor) -> Tensor:
    """Gini variance of class counts [..., S]: half the mean of [x_i != x_j] over ordered pairs i != j."""
    n = counts.sum(-1)
    return (n.square() - counts.square().sum(-1)) / (2 * n * (n - 1))


def _global_variance(codes: _Codes, classes: Tensor | None, sample: Tensor | None) -> Tensor:
    """Variance of every code, and of the discrete code if any, over the sampled (or all) rows: float64
    [D(+1)], CPU.

    A code that is constant over ALL rows gets exactly 0; so does one that is constant in the sample.
    """
    table = codes.table
    if codes.std is not None:
        chosen = codes(torch.arange(len(table)) if sample is None else sample)
    else:
        chosen = table if sample is None else table[sample]
    # Column by column: no float64 copy of the table
    columns = [chosen[:, d].double() for d in range(table.shape[1])]
    variance = [torch.where(c.amax() > c.amin(), c.var(), c.new_zeros(())) for c in columns]
    if classes is not None:
        counts = torch.bincount(classes if sample is None else classes[sample]).double()
        variance.append(_gini(counts))
    return torch.stack(variance).cpu()


def _active(variance: Tensor, codes: int, prune: str, threshold: float, kl: Array | None) -> Tensor:
    """Mask [D(+1)] of the codes that may vote; a discrete code is only masked when constant."""
    checks.one_of(prune, ("std", "kl", "none"), "prune")
    active = variance > 0
    if prune == "std":
        active[:codes] &= variance[:codes].sqrt() >= threshold
    elif prune == "kl":
        if kl is None:
            raise ValueError("prune='kl' needs kl, the mean KL of every code in nats; or choose prune='std'")
        values = checks.matrix(kl, "kl", min_rows=1)[:, 0].cpu()
        if len(values) != codes:
            raise ValueError(f"kl has {counted(len(values), 'entry', 'entries')} for {counted(codes, 'code')}")
        active[:codes] &= values > threshold
    return active


def _factors_of_votes(sampler: Sampler, count: int, stratified: bool, generator: torch.Generator) -> Tensor:
    kept = torch.tensor(sampler.kept)
    if stratified:
        return kept.repeat_interleave(count // len(kept))
    return kept[torch.randint(len(kept), (count,), generator=generator)]


def _votes(
    codes: _Codes,
    classes: Tensor | None,
    sampler: Sampler,
    factor: Tensor,
    rows: int,
    uniform_value: bool,
    share: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Winning code [V] (CPU) of every vote; share [D(+1)] = 1 / global variance, inf for codes that may not
    vote.
    """
    index = sampler.fixed(factor, rows, generator, uniform_value)
    winners = []
    device = codes.table.device
    share = share.to(device)
    for part in index.split(codes.together(rows)):
        part = part.to(device)
        batch = codes(part)
        # Shifted: a constant batch has exactly 0, so that ties are real ties
        local = (batch - batch[:, :1]).var(1)
        if classes is not None:
            size = int(classes.max()) + 1
            cell = classes[part] + torch.arange(len(part), device=part.device)[:, None] * size
            counts = torch.bincount(cell.reshape(-1), minlength=len(part) * size).view(-1, size).double()
            local = torch.cat([local, _gini(counts)[:, None]], 1)
        ratio = torch.where(share.isinf(), torch.inf, local * share)
        winners.append(ratio.argmin(1).cpu())
    return torch.cat(winners)


def _single(result: Result, reasons: dict[str, str], *keys: str) -> Result:
    """The result of a score that tells factors apart, where there is one factor: undefined."""
    told = dict.fromkeys(keys, "undefined for a single factor: there is nothing to tell apart")
    return checks.finish(result | dict.fromkeys(keys, float("nan")), {**reasons, **told})


def _classified(
    features: Tensor, factor: Tensor, n_train: int, sampler: Sampler, table: Tensor, max_iter: int, tol: float
) -> Result:
    """Train and test accuracy of a multinomial logistic regression (C = 1) that tells the factor from
    features.
    """
    label = torch.searchsorted(torch.tensor(sampler.kept), factor).to(features.device)
    live = sum(bool(table[:, d].amax() > table[:, d].amin()) for d in range(table.shape[1]))
    result: Result = {"codes_used": float(live)}
    reasons = dict(sampler.reasons)
    if len(sampler.kept) == 1:
        return _single(result, reasons, "train", "eval")
    model = logistic_regression(features[:n_train], label[:n_train], len(sampler.kept), max_iter=max_iter, tol=tol)
    hit = (model.logits(features).argmax(1) == label).double()
    return checks.finish(result | {"train": float(hit[:n_train].mean()), "eval": float(hit[n_train:].mean())}, reasons)


def beta_vae(
    codebook: Array,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    factors: Array | None = None,
    factor_names: Sequence[str] | None = None,
    std: Array | None = None,
    discrete: Sequence[int] = (),
    pairs: int = 64,
    train_points: int = 10_000,
    eval_points: int = 5_000,
) -> Result:
    """beta-VAE score, 2017 version (Higgins et al. 2017; disentanglement_lib's
    protocol).

    Feature = mean over `pairs` pairs that share factor k of |z1 - z2| in R^D, raw codes; a multinomial
    logistic regression (L2, C = 1, at most 100 L-BFGS iterations) tells k. Accuracy, chance 1/K, higher is
    better. discrete: codes that are class indices, which differ as their indicators do. codebook, sizes, factors, std
    as in `factor_vae`. Keys: train, eval (headline), codes_used (codes that vary).
    """
    table, sampler = _open(codebook, sizes, factors, factor_names, PER_VALUE)
    codes = _Codes(table, std, seed, discrete)
    _positive(pairs=pairs, train_points=train_points, eval_points=eval_points)
    generator = torch.Generator().manual_seed(seed)
    factor = _factors_of_votes(sampler, train_points + eval_points, False, generator)
    first, second = sampler.sharing(factor, pairs, generator)
    step = codes.together(pairs)
    features = torch.cat(
        [(codes(a) - codes(b)).abs().mean(1) for a, b in zip(first.split(step), second.split(step), strict=True)]
    )
    return _classified(features, factor, train_points, sampler, table, max_iter=100, tol=1e-4)


def _positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
