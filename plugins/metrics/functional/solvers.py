"""The fast solvers behind the scores: batched float64 tensor code that runs on any device.

Each is held against scikit-learn or scipy in the tests.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from .blocks import centred_squares, mean, numbers, parts, room, spans
from .checks import Labels

CHUNK = 1 << 22  # elements of the largest temporary (32 MB in float64)


def contingency(a: Tensor, b: Tensor, sizes: tuple[int, int]) -> Tensor:
    """Joint counts of class indices.

    a: whole numbers [n, D] (or [n]) below sizes[0]; b: whole numbers [n] below sizes[1]. Returns float64 [D, A, B] (or
    [A, B]).
    """
    codes = a[:, None] if a.ndim == 1 else a
    d, (rows, cols) = codes.shape[1], sizes
    offset = torch.arange(d, device=codes.device) * rows
    counts = torch.zeros(d * rows * cols, dtype=torch.float64, device=codes.device)
    for at in spans(len(codes), d, room(codes)):
        index = (codes[at] + offset).mul_(cols).add_(b[at, None])
        counts += torch.bincount(index.reshape(-1), minlength=counts.numel())
    table = counts.view(d, rows, cols)
    return table[0] if a.ndim == 1 else table


def entropy(counts: Tensor) -> Tensor:
    """Plug-in entropy in nats of counts [..., A] over the last axis."""
    p = counts / counts.sum(-1, keepdim=True)
    return -torch.special.xlogy(p, p).sum(-1)


def mutual_information(counts: Tensor) -> Tensor:
    """Plug-in mutual information in nats of contingency tables [..., A, B]; never negative."""
    p = counts / counts.sum((-2, -1), keepdim=True)
    outer = p.sum(-1, keepdim=True) * p.sum(-2, keepdim=True)
    ratio = torch.where(p > 0, p / outer.clamp_min(torch.finfo(p.dtype).tiny), torch.ones_like(p))
    return (p * ratio.log()).sum((-2, -1)).clamp_min_(0)


class Standardised(NamedTuple):
    """A table x [n, D] whose columns are read as (x - mean) * scale, block by block: no copy of it is made."""

    x: Tensor
    mean: Tensor
    scale: Tensor

    @staticmethod
    def of(x: Tensor) -> Standardised:
        """As `checks.standardise` makes of a table: constant columns become 0."""
        low, high = x.aminmax(dim=0)
        center = mean(x)
        sd = (centred_squares(x, center) / len(x)).sqrt()
        return Standardised(x, center, torch.where(high > low, 1 / sd.clamp_min(torch.finfo(sd.dtype).tiny), 0.0))

    def like(self, other: Tensor) -> Standardised:
        """Other rows [m, D], read in the same way."""
        return self._replace(x=other)

    def rows(self, at: slice) -> Tensor:
        """Some rows as they are read, float64."""
        return (numbers(self.x[at]) - self.mean).mul_(self.scale)

    def blocks(self) -> Iterator[Tensor]:
        """All of them, in order, and enough at a time for `triangle`."""
        width = self.x.shape[1]
        return (self.rows(at) for at in spans(len(self.x), width, max(room(self.x), 3 * width**2)))

    def beside(self, other: Standardised) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of this table and of another one of the same length, in order."""
        width = self.x.shape[1] + other.x.shape[1]
        return ((self.rows(at), other.rows(at)) for at in spans(len(self.x), width, max(room(self.x), 3 * width**2)))


class LinearClassifier(NamedTuple):
    """weight [D, S] and bias [S]; `logits(x)` is [n, S], `parts(x)` gives them with their rows, some at a time."""

    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor | Standardised) -> Tensor:
        table = x.x if isinstance(x, Standardised) else x
        found = torch.empty(len(table), len(self.bias), dtype=self.bias.dtype, device=table.device)
        for rows, some in self.parts(x):
            found[rows] = some
        return found

    def parts(self, x: Tensor | Standardised) -> Iterator[tuple[slice, Tensor]]:
        for rows, part in _read(x):
            yield rows, part @ self.weight + self.bias


def _read(x: Tensor | Standardised) -> Iterator[tuple[slice, Tensor]]:
    """The rows of a table in order, some at a time, as float64, and which they are."""
    at = 0
    for part in x.blocks() if isinstance(x, Standardised) else parts(x):
        yield slice(at, at := at + len(part)), part


def logistic_regression(
    x: Tensor | Standardised,
    y: Tensor,
    classes: int,
    c: float = 1.0,
    sample_weight: Tensor | None = None,
    max_iter: int = 100,
    tol: float = 1e-4,
    start: LinearClassifier | None = None,
) -> LinearClassifier:
    """Multinomial logistic regression: minimises c * sum_i w_i CE_i + 1/2 ||W||^2, intercept not penalised.

    x: [n, D], as it is or standardised on the way; y: whole numbers [n] in 0..classes-1. Two classes share one weight
    vector, as in scikit-learn. Rows are read in blocks, so that memory does not grow with them.
    `c=inf` drops the penalty. L-BFGS (history 10) on the host drives loss and gradient on x's device; it
    stops when the gradient of the MEAN loss is below `tol` in max-norm, which is scikit-learn's rule, so that
    an early stop at `max_iter` gives scikit-learn's answer too.
    """
    # Before the thread pools are looked for: scipy's is one of them.
    from scipy.optimize import minimize

    table = x.x if isinstance(x, Standardised) else x
    n, d = table.shape
    total = float(n if sample_weight is None else sample_weight.sum())
    penalty = 0.0 if c == float("inf") else 1.0 / (c * total)
    columns = 1 if classes == 2 else classes

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        t = torch.from_numpy(theta).to(table.device).view(d + 1, columns)
        value, gradient = 0.5 * penalty * t[:d].square().sum(), torch.zeros_like(t)
        for here, part in _read(x):
            own = y[here, None].long()
            share = part.new_full((len(part), 1), 1 / total)
            share = share if sample_weight is None else share.mul_(sample_weight[here, None])
            logits = torch.addmm(t[d], part, t[:d])
            # Only the entry of an item's own class is touched where the others' would be multiplied by zero.
            if columns == 1:
                target = own.to(part.dtype)
                nll = torch.nn.functional.softplus(logits).sub_(target * logits)
                g = logits.sigmoid_().sub_(target).mul_(share)
            else:
                logp = logits.log_softmax(1)
                nll = -logp.gather(1, own)
                g = logp.exp_().scatter_add_(1, own, -torch.ones_like(share)).mul_(share)
            value = value + (nll * share).sum()
            gradient[:d].addmm_(part.T, g)
            gradient[d] += g.sum(0)
        gradient[:d] += penalty * t[:d]
        return float(value), gradient.reshape(-1).cpu().numpy()

    theta = np.zeros((d + 1) * columns)
    if start is not None:
        both = torch.cat([start.weight, start.bias[None]])[:, classes - columns :]
        theta = both.reshape(-1).cpu().numpy().copy()
    options = {"maxiter": max_iter, "gtol": tol, "maxls": 50, "ftol": 64 * np.finfo(float).eps}
    # The threads of scipy's BLAS and of torch would take turns at spinning for each other: 40 times slower on 2 cores.
    with thread_pools().limit(limits=1, user_api="blas"):
        found = minimize(loss, theta, jac=True, method="L-BFGS-B", options=options).x
    solution = torch.from_numpy(found).to(table.device).view(d + 1, columns)
    if columns == 1:  # logits (0, f) have the same softmax as (-f/2, f/2)
        solution = torch.cat([torch.zeros_like(solution), solution], 1)
    return LinearClassifier(solution[:d], solution[d])


@functools.cache
def thread_pools() -> ThreadpoolController:
    """The thread pools of BLAS and OpenMP that are loaded, to be limited for a while."""
    return ThreadpoolController()


def lasso_gram(gram: Tensor, target: Tensor, alpha: float, tol: float = 1e-10, max_sweeps: int = 10_000) -> Tensor:
    """Lasso by coordinate descent on Gram matrices: minimises 1/(2n) ||y - Xw||^2 + alpha ||w||_1.

    gram: X'X/n [..., D, D] of centred X; target: X'y/n [..., D, T]. Returns w [..., D, T]. Batches and
    outputs run side by side. Stops when no weight of a sweep moves by more than `tol`. A code of zero
    variance keeps weight 0.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    live = diagonal > 0
    inverse = torch.where(live, 1 / diagonal.where(live, torch.ones_like(diagonal)), torch.zeros_like(diagonal))
    w = torch.zeros_like(target + gram[..., :1])
    fitted = torch.zeros_like(w)  # gram @ w
    for _ in range(max_sweeps):
        largest = w.new_zeros(())
        for j in range(gram.shape[-1]):
            old = w[..., j, :]
            rho = target[..., j, :] - fitted[..., j, :] + diagonal[..., j, None] * old
            new = rho.sign() * (rho.abs() - alpha).clamp_min(0) * inverse[..., j, None]
            change = new - old
            fitted = fitted + gram[..., :, j, None] * change[..., None, :]
            w[..., j, :] = new
            largest = torch.maximum(largest, change.abs().max())
        if float(largest) <= tol:
            break
    return w


def average_ranks(x: Tensor) -> Tensor:
    """Ranks 1..n of every column of x [n, M], float64; ties share their average rank."""
    ranks = torch.empty(x.shape, dtype=torch.float64, device=x.device)
    for m in range(x.shape[1]):
        order, sorted_ranks = ranked(x[:, m])
        ranks[order, m] = sorted_ranks
    return ranks


def ranked(column: Tensor) -> tuple[Tensor, Tensor]:
    """(order int64 [n], ranks float64 [n]): the rows of a column [n] by growing value, and their ranks 1..n in that
    order; ties share their average rank."""
    if column.device.type == "cpu":  # numpy sorts in less than half the time
        order = torch.from_numpy(column.double().numpy().argsort())
    else:
        order = column.argsort()
    new = torch.ones(len(column), dtype=torch.bool, device=column.device)
    for at in spans(len(column) - 1, 1, room(column)):
        new[1:][at] = column[order[1:][at]] != column[order[:-1][at]]
    if bool(new.all()):
        return order, torch.arange(1, len(column) + 1, dtype=torch.float64, device=column.device)
    run = new.cumsum(0, dtype=torch.int32).sub_(1)
    size = torch.bincount(run).double()
    middle = size.cumsum(0).sub_(size.sub_(1).div_(2))  # of the first and the last rank of each run
    return order, middle[run]


def auc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve of every column, by rank sums with average ranks for ties.

    scores: [n, M]; positive: bool [n, M] or [n, 1]. Returns [M]; NaN where one class is missing.
    """
    mask = positive.expand_as(scores)
    n_pos = mask.sum(0).double()
    n_neg = len(scores) - n_pos
    sums = torch.zeros_like(n_pos)
    for m in range(scores.shape[1]):
        order, ranks = ranked(scores[:, m])
        sums[m] = (ranks * mask[order, m]).sum()  # sums of halves: exact in any order
    return (sums - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)


def class_aucs(scores: Tensor, labels: Labels) -> list[Tensor]:
    """`auc` of every column as a detector of every class of every factor, each column being ranked once.

    scores: [n, M]. Returns K' tensors [M, S_k]; NaN where a class, or all others, are missing. Factors that lack a
    value somewhere have their rows ranked apart.
    """
    whole = [k for k in range(len(labels.sizes)) if k not in labels.partial]
    found = dict(zip(whole, _areas(scores, labels, whole, slice(None)), strict=True))
    for k in labels.partial:
        found[k] = _areas(scores, labels, [k], labels.take(k))[0]
    return [found[k] for k in range(len(labels.sizes))]


def _areas(scores: Tensor, labels: Labels, factors: Sequence[int], rows: Tensor | slice) -> list[Tensor]:
    index = [labels.columns[k][rows] for k in factors]
    sizes = [labels.sizes[k] for k in factors]
    # Whole from the start: small pieces between the ranks would keep the memory of those from being used again.
    sums = [torch.zeros(scores.shape[1], size, dtype=torch.float64, device=scores.device) for size in sizes]
    for m, column in enumerate(scores.T if factors else ()):
        order, ranks = ranked(column[rows])
        for own, values, size in zip(sums, index, sizes, strict=True):
            own[m] = torch.bincount(values[order], ranks, minlength=size)  # sums of halves: exact in any order
    counts = [torch.bincount(values, minlength=size).double() for values, size in zip(index, sizes, strict=True)]
    return [(s - c * (c + 1) / 2) / (c * (c.sum() - c)) for s, c in zip(sums, counts, strict=True)]


def triangle(parts: Iterable[Tensor]) -> Tensor:
    """R [r, D] of the QR decomposition of a table [n, D] whose rows come in parts, r = the smaller of n and D: what
    least squares and singular values need of it, at the accuracy of the whole table's own."""
    found: Tensor | None = None
    for part in parts:
        found = torch.linalg.qr(part if found is None else torch.cat([found, part]), mode="r").R
    assert found is not None
    return found


def covariance(x: Tensor) -> Tensor:
    """Covariance (ddof=1) float64 of the columns of x [n, D] as [D, D], without a centred copy of the table."""
    center = mean(x)
    total = center.new_zeros(x.shape[1], x.shape[1])
    for part in parts(x):
        centred = part - center
        total.addmm_(centred.T, centred)
    return total / (len(x) - 1)
