"""Scores of how codes depend on factors (IRS), on each other, and on the seed (UDR)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from distk.console import counted

from . import blocks, checks
from .checks import Array, Result
from .information import discretise
from .solvers import average_ranks, contingency, covariance, lasso_gram, mutual_information


def irs(codes: Array, factors: Array, quantile: float = 0.99, bins: int = 20) -> Result:
    """Interventional robustness score (Suter et al. 2019, eq. 9-11; disentanglement_lib's protocol).

    M_d = max_i |c_id - mean_d|; E_dk = mean over the values v of factor k of the q-quantile (linear
    interpolation) of |c_id - mean(c_d | v)|; IRS_dk = 1 - E_dk / M_d; per code the best factor; mean over
    codes weighted by M_d. `quantile` 1.0 is the paper's maximum. Factors with more than `bins` values (or
    continuous) are cut into `bins` equal-width bins; constant codes are left out (NaN). In [0, 1], higher is
    better; codes that ignore every factor still score above 0, and one wide code dominates.
    Keys: irs, irs_per_code [D], irs_matrix [D, K], parents [D] (column of the best factor; NaN for constant
    codes), codes_used.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1], got {quantile}")
    c, f = checks.paired(codes, factors, gaps=True, own=True)
    labels = checks.discrete(_coarse(f, bins))
    live = checks.live_codes(c)
    reasons = labels.explain("irs")
    if not bool(live.all()):
        reasons["irs_per_code"] = checks.left_out(live)
    x = c if bool(live.all()) else c[:, live]
    center = blocks.mean(x)
    largest = torch.maximum(x.amax(0) - center, center - x.amin(0))
    spread = _quantile_deviations(x, labels, quantile)
    matrix = torch.full((c.shape[1], len(labels.kept)), torch.nan, dtype=torch.float64, device=c.device)
    matrix[live] = 1 - spread / largest[:, None]
    best = matrix.amax(1)
    score = float("nan")
    parents = torch.full_like(best, torch.nan)
    if bool(live.any()):
        score = float((largest * best[live]).sum() / largest.sum())
        parents[live] = torch.tensor(labels.kept, device=c.device)[matrix[live].argmax(1)].double()
    else:
        reasons["irs"] = "every code is constant"
    result = {
        "irs": score,
        "irs_per_code": checks.array(best),
        "irs_matrix": labels.widen(matrix),
        "parents": checks.array(parents),
        "codes_used": float(live.sum()),
    }
    return checks.finish(result, reasons)


def _coarse(factors: Tensor, bins: int) -> Tensor:
    """Cut the columns that are continuous or have more than `bins` values into equal-width bins."""
    cut = factors
    for k in range(factors.shape[1]):
        rows = checks.present(factors[:, k])
        column = factors[rows, k, None]
        if len(column) and (checks.fractional(column[:, 0]) or _many(column, bins)):
            cut = factors.to(torch.float64, copy=True) if cut is factors else cut
            index = checks.equal_width(column, column.amin(0), column.amax(0), bins)
            cut[rows, k] = index[:, 0].to(cut.dtype)
    return cut


def _many(column: Tensor, bins: int) -> bool:
    """Whether whole numbers have more than `bins` values; their range alone may tell that they have not."""
    low, high = (end.double() for end in column.aminmax())
    return bool(high - low >= bins) and len(checks.levels(column[:, 0])[0]) > bins


def _quantile_deviations(x: Tensor, labels: checks.Labels, quantile: float) -> Tensor:
    """Mean over the values of each factor of the quantile of |x - mean of its rows|, per code: [D, K'].

    The rows are put into groups once for each factor; of a group only what lies above the quantile is sorted, code by
    code, so that time grows with the rows and memory with one group and an order for each factor.
    """
    groups = []
    for k in range(len(labels.sizes)):
        rows = labels.take(k)
        order = labels.columns[k][rows].argsort()
        order = order if isinstance(rows, slice) else rows[order]
        groups.append((order.to(blocks.row_numbers(len(x))), labels.counts(k, rows).long().tolist()))
    found = torch.zeros(x.shape[1], len(groups), dtype=torch.float64, device=x.device)
    for d in range(x.shape[1]):
        column = blocks.numbers(x[:, d])
        for k, (order, counts) in enumerate(groups):
            for mine in order.split(counts):
                group = column[mine]
                position = quantile * (len(group) - 1)
                low = math.floor(position)
                top = group.sub_(group.mean()).abs_().topk(len(group) - low).values  # falling
                found[d, k] += (top[-1] + (position - low) * (top[-2:][0] - top[-1])) / len(counts)
    return found


def unsupervised(codes: Array, bins: int = 20) -> Result:
    """Dependence among codes without labels (disentanglement_lib's unsupervised metrics); lower = more
    independent.

    With Sigma = covariance (ddof=1) of the non-constant codes:
    gaussian_total_correlation = 1/2 (sum_d log Sigma_dd - log det Sigma), nats, inf for linearly dependent
    codes; gaussian_wasserstein_correlation = squared 2-Wasserstein distance of N(0, Sigma) to its product of
    marginals, 2 tr Sigma - 2 tr (S Sigma S)^(1/2), S = diag(Sigma)^(1/2); ..._norm divides it by tr Sigma;
    mutual_info_score = mean over ordered pairs of different codes of the plug-in information (nats) of their
    equal-width bins; codes_used. codes [n, D]: say whether they are means or samples, the two behave in
    opposite ways.
    """
    c = checks.matrix(codes, own=True)
    live = checks.live_codes(c)
    count = int(live.sum())
    nan = float("nan")
    reasons: dict[str, str] = {}
    if count < c.shape[1]:
        reasons["codes_used"] = checks.left_out(live)
    keys = (
        "gaussian_total_correlation",
        "gaussian_wasserstein_correlation",
        "gaussian_wasserstein_correlation_norm",
    )
    result: Result = dict.fromkeys((*keys, "mutual_info_score"), nan) | {"codes_used": float(count)}
    if count == 0:
        reasons |= dict.fromkeys(keys, "every code is constant")
    else:
        varying = c if count == c.shape[1] else c[:, live]
        sigma = covariance(varying)
        variance = sigma.diagonal()
        # log det of the correlation matrix: scale-free, so that small codes do not underflow
        correlation = sigma / (variance.sqrt()[:, None] * variance.sqrt())
        sign, logdet = torch.linalg.slogdet(correlation)
        result[keys[0]] = -0.5 * float(logdet) if float(sign) > 0 else math.inf
        root = variance.sqrt()
        eigenvalues = torch.linalg.eigvalsh(root[:, None] * sigma * root)
        distance = 2 * float(variance.sum()) - 2 * float(eigenvalues.clamp_min(0).sqrt().sum())
        result[keys[1]] = distance
        result[keys[2]] = distance / float(variance.sum())
        if math.isinf(result[keys[0]]):
            reasons[keys[0]] = "codes are linearly dependent"
    if count < 2:
        reasons["mutual_info_score"] = "needs two codes that vary"
    else:
        index = discretise(varying, bins)
        pairs = ((index[:, d + 1 :], index[:, d]) for d in range(count - 1))  # each pair once: it has no direction
        total = sum(float(mutual_information(contingency(*pair, (bins, bins))).sum()) for pair in pairs)
        result["mutual_info_score"] = 2 * total / (count * (count - 1))
    return checks.finish(result, reasons)


def linear_correlation(codes: Array, d: int | None = None) -> Result:
    """Linear-dependence scores (Kageback & Mogren 2016), with C = covariance (ddof=1) of p codes [n, p].

    l_sigma = ||C||_1 / p^2 (entrywise); mapc = mean absolute correlation over pairs of non-constant codes, in
    [0, 1]; cvr = ||C||_1 / tr C, in [1, p], 1 = uncorrelated; cvr_over_p2 = cvr / p^2 as printed in the paper
    (its printed factor contradicts its own text and figures); tdv = share of the trace in the `d` largest
    variances (d = number of true factors; NaN without it); ud90 = smallest number of codes, largest variance
    first, that hold 90 % of the trace. Lower mapc, cvr, ud90 and higher tdv are better. Also codes_used.
    """
    c = checks.matrix(codes, own=True)
    p = c.shape[1]
    if d is not None and not 1 <= d <= p:
        raise ValueError(f"d must be in 1..{p}, got {d}")
    live = checks.live_codes(c)
    cov = covariance(c) * (live & live[:, None])
    variance = cov.diagonal()
    trace = float(variance.sum())
    norm = float(cov.abs().sum())
    count = int(live.sum())
    reasons: dict[str, str] = {}
    if count < p:
        reasons["codes_used"] = checks.left_out(live, " of mapc")
    mapc = cvr = tdv = ud90 = float("nan")
    if count >= 2:
        root = variance[live].sqrt()
        correlation = cov[live][:, live].abs() / (root[:, None] * root)
        mapc = float(correlation.triu(1).sum()) * 2 / (count * count - count)
    else:
        reasons["mapc"] = "needs two codes that vary"
    if trace > 0:
        cvr = norm / trace
        share = variance.sort(descending=True).values.cumsum(0) / trace
        ud90 = float((share < 0.9 - 1e-12).sum() + 1)
        tdv = tdv if d is None else float(share[d - 1])
    else:
        reasons |= dict.fromkeys(("cvr", "cvr_over_p2", "tdv", "ud90"), "every code is constant")
    if d is None:
        reasons["tdv"] = "needs d, the number of true factors"
    result = {
        "mapc": mapc,
        "cvr": cvr,
        "cvr_over_p2": cvr / p**2,
        "tdv": tdv,
        "ud90": ud90,
        "l_sigma": norm / p**2,
        "codes_used": float(count),
    }
    return checks.finish(result, reasons)


ACTIVE = 0.01
"""A latent is active when the variance of its posterior mean over the data is larger (Burda et al. 2016, section 5)."""


def active_units(mean: Array, threshold: float = ACTIVE) -> Result:
    """Number of active units: codes whose posterior mean has a variance above `threshold` (Burda et al. 2016).

    mean [n, D]. Keys: active_units (count), variance [D] (population variance, ddof=0, over the rows).
    """
    x = checks.matrix(mean, "mean", own=True)
    variance = blocks.centred_squares(x, blocks.mean(x)) / len(x)
    return {"active_units": float((variance > threshold).sum()), "variance": checks.array(variance)}


def udr(
    codes_list: Sequence[Array],
    kl_list: Sequence[Array],
    matrix: str = "lasso",
    *,
    alpha: float = 0.1,
    kl_threshold: float = 0.01,
) -> Result:
    """Unsupervised disentanglement ranking (Duan et al. 2020; disentanglement_lib's protocol); higher is
    better.

    codes_list: M >= 2 arrays [n, D_m] of models that differ in the seed, on the SAME n images; kl_list: mean
    KL per code [D_m] in nats; codes with KL > `kl_threshold` are informative. R between models i and j, rows
    = codes of i: 'lasso' |weights| predicting the standardised codes of j from those of i; 'spearman' |rank
    correlation|. A pair scores 1/2 (mean_b max_a R_ab^2 / sum_a R_ab + mean_a max_b R_ab^2 / sum_b R_ab) over
    informative codes, 0/0 = 0, in [0, 1]. Keys: model_scores [M] (median over j != i of pairwise[j, i]),
    pairwise [M, M] (diagonal NaN), informative_codes [M].
    """
    checks.one_of(matrix, ("lasso", "spearman"), "matrix")
    if len(codes_list) < 2:
        raise ValueError(f"udr compares models: needs at least 2, got {len(codes_list)}")
    if len(kl_list) != len(codes_list):
        raise ValueError(f"codes of {counted(len(codes_list), 'model')} but kl of {len(kl_list)}")
    tables, informative = [], []
    for m, (codes, kl) in enumerate(zip(codes_list, kl_list, strict=True)):
        c = checks.matrix(codes, f"codes of model {m}")
        k = checks.matrix(kl, f"kl of model {m}", min_rows=1)[:, 0].to(c.device)
        if len(k) != c.shape[1] or len(c) != len(checks.tensor(codes_list[0])):
            raise ValueError(f"model {m}: codes {tuple(c.shape)}, kl [{len(k)}]; all models need the same rows")
        tables.append(c)
        informative.append(k > kl_threshold)
    width = max(c.shape[1] for c in tables)

    def pad(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, width - x.shape[-1]))

    mask = torch.stack([pad(k) for k in informative])
    ranked = tables if matrix == "lasso" else [average_ranks(c) for c in tables]
    z = torch.stack([pad(checks.standardise(c)[0]) for c in ranked]) * mask[:, None]
    n = z.shape[1]
    relation = torch.einsum("ina,jnb->ijab", z, z) / n
    if matrix == "lasso":
        gram = relation.diagonal(dim1=0, dim2=1).permute(2, 0, 1)[:, None]
        relation = lasso_gram(gram, relation, alpha)
    pairwise = _relative_strength(relation.abs(), mask)
    m = len(tables)
    scores = torch.stack([_median(pairwise[[j for j in range(m) if j != i], i]) for i in range(m)])
    pairwise.fill_diagonal_(torch.nan)
    count = mask.sum(1)
    reasons = {f"model {i}": f"model {i} has no informative code" for i in range(m) if int(count[i]) == 0}
    result = {
        "model_scores": checks.array(scores),
        "pairwise": checks.array(pairwise),
        "informative_codes": checks.array(count),
    }
    return checks.finish(result, reasons)


def _relative_strength(r: Tensor, mask: Tensor) -> Tensor:
    """Pair scores [M, M] of matrices r [M, M, D, D] >= 0 whose uninformative rows and columns are 0."""
    parts = []
    for axis, taking_part in ((2, mask[None, :, :]), (3, mask[:, None, :])):
        total = r.sum(axis)
        ratio = torch.where(total > 0, r.amax(axis).square() / total.where(total > 0, torch.ones_like(total)), 0.0)
        parts.append((ratio * taking_part).sum(-1) / taking_part.sum(-1).clamp_min(1))
    return (parts[0] + parts[1]) / 2


def _median(x: Tensor) -> Tensor:
    """The median with the two middle values averaged, as numpy's (torch takes the lower one)."""
    return x.quantile(0.5)
