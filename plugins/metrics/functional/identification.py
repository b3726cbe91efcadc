"""Were the true factors found again, up to order and scale (mcc), or up to a map that a regression finds (r2)?

The standard of nonlinear ICA and causal representation learning. Statistics are float64; higher is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distk.console import counted

from . import blocks, checks
from .checks import Array, Result
from .indicators import indicators, read
from .probes import mlp
from .solvers import LinearClassifier, Standardised, average_ranks, triangle

KINDS = ("pearson", "spearman")


def mcc(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    discrete: Sequence[int] = (),
) -> Result:
    """Mean correlation coefficient of factors and the codes that are matched to them (Hyvarinen & Morioka 2016).

    |correlation| of every code [n, D] and factor [n, K]; the one-to-one matching with the largest sum; mean over the
    factors, of which those without a partner (D < K) count 0. In [0, 1]. The weak form (Khemakhem et al. 2020) takes
    the canonical variates of both sides instead of the columns, and so forgives a linear map. Matching and variates are
    those of the training rows; without test rows the last third of the rows tests, in order.
    Keys: pearson, spearman, weak, each also with `_train`; correlation [D, K] (Pearson, test rows), matched [K]
    (code of each factor by Pearson, NaN without one). Constant factors are dropped with a reason, a
    constant code correlates with nothing. discrete: codes that are class indices, of which each class counts as the
    mean of the factor, or of its ranks, among its training rows; the weak form takes indicators.
    """
    c, f, ct, ft = checks.split(codes, factors, codes_test, factors_test, gaps=True, own=True)
    kept, reasons = checks.varying(f)
    total, f, ft = f.shape[1], _some(f, kept), _some(ft, kept)
    result: Result = {}
    for kind in KINDS:
        train, test = correlations(c, f, kind), correlations(ct, ft, kind)
        for d in discrete:
            sides = c[:, d, None].double(), f.double(), ct[:, d, None].double(), ft.double()
            train[d], test[d] = _of_classes(*sides, kind)
        rows, columns = match(train)
        result[kind] = float(test[rows, columns].sum() / len(kept))
        result[f"{kind}_train"] = float(train[rows, columns].sum() / len(kept))
        if kind == "pearson":
            result["correlation"] = _wide(test, kept, total)
            matched = torch.full((1, len(kept)), torch.nan, dtype=torch.float64, device=c.device)
            matched[0, columns] = rows.double()
            result["matched"] = _wide(matched, kept, total)[0]
    whole, whole_test = (~_lacking(values) for values in (f, ft))  # variates are of all factors together
    if not bool(whole.all() & whole_test.all()):
        reasons["weak"] = f"of the {counted(int(whole.sum()), 'row')} that have a value of every factor"
        c, f, ct, ft = c[whole], f[whole], ct[whole_test], ft[whole_test]
        if min(len(f), len(ft)) < 2:
            reasons["weak"] = reasons["weak_train"] = "no two rows have a value of every factor"
            return checks.finish({**result, "weak": np.nan, "weak_train": np.nan}, reasons)
    (c, ct), _ = indicators(c, discrete, ct)
    variates = canonical(c, f)
    for name, (x, y) in {"weak": (ct, ft), "weak_train": (c, f)}.items():
        pairs = correlations(*variates.of(x, y), "pearson").diagonal()
        result[name] = float(pairs.sum() / len(kept))
    return checks.finish(result, reasons)


def _of_classes(x: Tensor, f: Tensor, x_test: Tensor, f_test: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """|Correlation| [K] of factors f [n, K] with a discrete code [n, 1] on training and on test rows."""
    (x, x_test), _ = indicators(x, [0], x_test)
    pairs = []
    for k in range(f.shape[1]):
        rows = checks.present(f[:, k])
        wanted = f[rows, k, None]
        mean, weight = read(x[rows], average_ranks(wanted) if kind == "spearman" else wanted)
        sides = (((part - mean) @ weight, truth[:, k, None]) for part, truth in ((x, f), (x_test, f_test)))
        pairs.append(torch.cat([correlations(*side, kind) for side in sides]))
    train, test = torch.stack(pairs, 2)[:, 0]
    return train, test


def _wide(values: Tensor, kept: list[int], total: int) -> np.ndarray:
    """[r, K'] as numpy float64 [r, K], NaN in the columns of dropped factors."""
    wide = torch.full((len(values), total), torch.nan, dtype=torch.float64)
    wide[:, kept] = values.cpu()
    return checks.array(wide)


def correlations(codes: Tensor, factors: Tensor, kind: str) -> Tensor:
    """|correlation| of each column of codes `[n, D]` and of factors `[n, K]`: `[D, K]`, 0 for constant columns. A
    factor that is NaN in some rows is compared over the others."""
    if bool(_lacking(factors).any()):
        takes = [(checks.present(column), column) for column in factors.T]
        return torch.cat([correlations(codes[rows], column[rows, None], kind) for rows, column in takes], 1)
    if kind == "spearman":
        other = Standardised.of(average_ranks(factors))
        columns = [_product(Standardised.of(average_ranks(codes[:, d, None])), other) for d in range(codes.shape[1])]
        return torch.cat(columns).abs().clamp_(max=1)
    return _product(Standardised.of(codes), Standardised.of(factors)).abs().clamp_(max=1)


def _product(a: Standardised, b: Standardised) -> Tensor:
    """Mean products `[D, K]` of the columns of two tables of the same rows."""
    total = a.mean.new_zeros(len(a.mean), len(b.mean))
    for x, y in a.beside(b):
        total.addmm_(x.T, y)
    return total / len(a.x)


def _lacking(factors: Tensor) -> Tensor:
    """Whether a row of factors `[n, K]` lacks a value, bool `[n]`."""
    if not factors.is_floating_point():
        return torch.zeros(len(factors), dtype=torch.bool, device=factors.device)
    return torch.cat([part.isnan().any(1) for part in blocks.parts(factors)])


def _some(factors: Tensor, kept: list[int]) -> Tensor:
    """Some of the columns `[n, K]`; where it is all of them, no copy."""
    return factors if len(kept) == factors.shape[1] else factors[:, kept]


def match(score: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns int64 `[min(D, K)]` of the one-to-one matching with the largest sum of score `[D, K]`."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(score.cpu().numpy(), maximize=True)
    return torch.from_numpy(rows).to(score.device), torch.from_numpy(columns).to(score.device)


class Variates(NamedTuple):
    """Two centred linear maps onto the canonical variates: x -> (x - mean) @ weight, and so for y."""

    mean_x: Tensor
    weight_x: Tensor
    mean_y: Tensor
    weight_y: Tensor

    def of(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The variates of other rows, `[m, r]` each, most correlated first."""
        return _mapped(_centred(x, self.mean_x), self.weight_x), _mapped(_centred(y, self.mean_y), self.weight_y)


def _centred(x: Tensor, mean: Tensor) -> Standardised:
    return Standardised(x, mean, torch.ones_like(mean))


def _mapped(x: Standardised, weight: Tensor) -> Tensor:
    """x `[n, D]` @ weight `[D, r]`, float64."""
    return LinearClassifier(weight, weight.new_zeros(weight.shape[1])).logits(x)


def canonical(x: Tensor, y: Tensor) -> Variates:
    """Canonical correlation analysis of x `[n, D]` and y `[n, K]`: r = the smaller of their ranks.

    By the singular values of both centred sides; directions below 1e-10 of the largest one are left out.
    """
    sides = _centred(x, blocks.mean(x)), _centred(y, blocks.mean(y))
    backward_x, backward_y = (_whitening(side) for side in sides)
    between = backward_x.new_zeros(backward_x.shape[1], backward_y.shape[1])
    for a, b in sides[0].beside(sides[1]):
        between.addmm_((a @ backward_x).T, b @ backward_y)
    left, _, right = torch.linalg.svd(between, full_matrices=False)
    return Variates(sides[0].mean, backward_x @ left, sides[1].mean, backward_y @ right.T)


def _whitening(x: Standardised) -> Tensor:
    """The matrix that takes x `[n, D]` to orthonormal columns that span it."""
    _, s, v = torch.linalg.svd(triangle(x.blocks()), full_matrices=False)
    keep = s > 1e-10 * s.max().clamp_min(torch.finfo(s.dtype).tiny)
    return v[keep].T / s[keep]


def r2(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    predictor: str = "linear",
    seed: int = 0,
    hidden: int = 128,
    passes: int = 100,
    discrete: Sequence[int] = (),
) -> Result:
    """R^2 of regressing factors [n, K] on codes [n, D]: identifiability up to a linear or a smooth map.

    Mean over the factors of 1 - squared error / variance around the mean of the rows that are scored; at most 1, 0
    for a constant guess, below 0 on test rows for worse. predictor: 'linear' (least squares) or 'mlp' (two
    hidden layers on standardised codes, stopped where a ninth of the training rows is foretold best; `probes.mlp`).
    Without test rows the last third of the rows tests, in order. Keys: r2, r2_train, r2_per_factor [K]. Constant
    factors are dropped with a reason. discrete: columns of codes that are class indices, read by their indicators.
    """
    checks.one_of(predictor, ("linear", "mlp"), "predictor")
    c, f, ct, ft = checks.split(codes, factors, codes_test, factors_test, gaps=True, own=True)
    (c, ct), _ = indicators(c, discrete, ct)
    kept, reasons = checks.varying(f)
    total, f, ft = f.shape[1], _some(f, kept), _some(ft, kept)

    def fitted(c: Tensor, f: Tensor, ct: Tensor, ft: Tensor) -> tuple[Tensor, Tensor]:
        """R^2 [K] on rows that were fitted, and on others."""
        x, y = Standardised.of(c), Standardised.of(f)
        if predictor == "linear":
            read = _least_squares(x, y)
        else:
            read = mlp(*(torch.cat([*of.blocks()]) for of in (x, y)), seed=seed, hidden=hidden, passes=passes)
        return determination(read, x, y), determination(read, x.like(ct), y.like(ft))

    if bool(_lacking(f).any() | _lacking(ft).any()):
        takes = [(checks.present(f[:, k]), checks.present(ft[:, k]), k) for k in range(len(kept))]
        each = [fitted(c[r], f[r, k, None], ct[t], ft[t, k, None]) for r, t, k in takes]
        train, scored = (torch.cat(part) for part in zip(*each, strict=True))
    else:
        train, scored = fitted(c, f, ct, ft)
    per_factor = torch.full((total,), torch.nan, dtype=torch.float64)
    per_factor[kept] = scored.cpu()
    if bool(scored.isnan().any()):
        reasons = {**reasons, "r2": "a factor is constant among the test rows: left out of the mean"}
    result = {
        "r2": float(scored.nanmean()),
        "r2_train": float(train.mean()),
        "r2_per_factor": checks.array(per_factor),
    }
    return checks.finish(result, dict(reasons))


def _least_squares(x: Standardised, y: Standardised) -> Callable[[Tensor], Tensor]:
    """The least-squares map of x `[n, D]` onto y `[n, K]`, of codes that depend on each other the shortest one."""
    width = x.x.shape[1]
    found = triangle(torch.cat(pair, 1) for pair in x.beside(y))
    found = found.cpu()  # it is small, and only there is the driver for codes that depend on each other
    small = torch.finfo(found.dtype).eps * max(len(x.x), width)
    weight = torch.linalg.lstsq(found[:, :width], found[:, width:], rcond=small, driver="gelsd").solution
    weight = weight.to(x.mean.device)
    return lambda rows: rows @ weight


def determination(read: Callable[[Tensor], Tensor], x: Standardised, y: Standardised) -> Tensor:
    """R^2 of each column `[K]` of y `[n, K]`, foretold by `read` from x; NaN where the column does not vary."""
    varies = y.x.amax(0) > y.x.amin(0)  # around its mean a constant is rounding noise, not 0
    center = (blocks.mean(y.x) - y.mean) * y.scale
    spread, error = torch.zeros_like(center), torch.zeros_like(center)
    for part, target in x.beside(y):
        spread += (target - center).square_().sum(0)
        error += (read(part) - target).square_().sum(0)
    return torch.where(varies, 1 - error / spread.where(varies, torch.ones_like(spread)), torch.nan)
