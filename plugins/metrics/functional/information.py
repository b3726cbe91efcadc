"""Scores made of mutual information: MIG and its variants, modularity. All in nats, higher is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks
from .blocks import most, spans, whole_numbers
from .checks import Array, Labels, Result
from .indicators import class_columns
from .sentences import Column, Sentence
from .solvers import CHUNK, contingency, entropy, mutual_information


def discretise(codes: Tensor, bins: int, binning: str = "width") -> Tensor:
    """Codes [n, D] cut into `bins` bins per column: whole numbers [n, D] in 0..bins-1, of the narrowest type.

    'width': equal widths between the column's extremes (numpy's linspace edges; the maximum falls into the
    last bin). 'quantile': edges at the column's quantiles; equal values share a bin.
    """
    checks.one_of(binning, ("width", "quantile"), "binning")
    if not 2 <= bins <= 10_000:
        raise ValueError(f"bins must be in 2..10000, got {bins}")
    if binning == "width":
        return checks.equal_width(codes, codes.amin(0), codes.amax(0), bins)
    index = torch.empty(codes.shape, dtype=whole_numbers(bins), device=codes.device)
    wanted = torch.arange(bins, device=codes.device) * len(codes) // bins
    for d in range(codes.shape[1]):
        column = codes[:, d].contiguous()
        index[:, d] = torch.searchsorted(column.sort().values[wanted], column, right=True, out_int32=True).sub_(1)
    return index


class Binned(NamedTuple):
    """Codes [n, D] in bins, some columns at a time: a column of class indices keeps its classes, however many."""

    codes: Tensor
    bins: int
    binning: str
    counted: list[int]

    @staticmethod
    def of(codes: Tensor, bins: int, binning: str = "width", discrete: Sequence[int] = ()) -> Binned:
        """discrete: the columns of class indices. Raises ValueError for what is no class index."""
        return Binned(codes, bins, binning, class_columns(codes, discrete).nonzero()[:, 0].tolist())

    def columns(self, at: slice) -> tuple[Tensor, int]:
        """The bin of each row of some columns [n, m], of the narrowest type, and the number of bins."""
        index, size = discretise(self.codes[:, at], self.bins, self.binning), self.bins
        for d in (d for d in self.counted if at.start <= d < at.stop):
            values, own = checks.levels(self.codes[:, d])
            index, size = index.to(torch.promote_types(index.dtype, own.dtype)), max(size, len(values))
            index[:, d - at.start] = own
        return index, size

    def information(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Plug-in mutual information [D, K'] of the codes and factors, and factor entropies [K'], in nats."""
        takes = [labels.take(k) for k in range(len(labels.sizes))]
        counts = torch.stack([entropy(labels.counts(k, rows)) for k, rows in enumerate(takes)])
        found, n = [], len(self.codes)
        for at in spans(self.codes.shape[1], n, most(self.codes)):
            index, size = self.columns(at)
            pairs = enumerate(zip(takes, labels.sizes, strict=True))
            tables = [contingency(index[rows], labels.columns[k][rows], (size, s)) for k, (rows, s) in pairs]
            found.append(torch.stack([mutual_information(table) for table in tables], 1))
        return torch.cat(found), counts


def _gap(information: Tensor) -> Tensor:
    """Largest minus second largest over rows, [D, K] -> [K]; a missing second counts as 0."""
    top = information.topk(min(2, len(information)), dim=0).values
    return top[0] - top[1] if len(top) == 2 else top[0]


def mig(
    codes: Array,
    factors: Array,
    bins: int = 20,
    binning: str = "width",
    factor_bins: int | None = None,
    discrete: Sequence[int] = (),
) -> Result:
    """Mutual information gap, discrete estimator (Chen et al. 2018, eq. 6; disentanglement_lib's protocol).

    MIG = mean_k (I_(1)k - I_(2)k) / H(F_k) from contingency tables of binned codes [n, D] and factors [n, K];
    in [0, 1], higher is better. `bins=10, factor_bins=10` is the "MIG-RMIG" variant, which cuts the factors
    too; `factor_bins` also admits continuous factors. discrete: codes that are class indices, which are never binned.
    One code only: the second-best information is 0.
    Keys: mig, mig_per_factor [K], mutual_information [D, K], factor_entropy [K] (nats; NaN for dropped
    factors), mig_sup (gap over factors, mean over codes that carry information; Li et al. 2020; NaN for a
    single factor), codes_used. Raises ValueError for mismatched, non-finite, continuous or too few rows.
    """
    c, f = checks.paired(codes, factors, gaps=True, own=True)
    labels = checks.discrete(f, factor_bins)
    information, entropies = Binned.of(c, bins, binning, discrete).information(labels)
    gaps = _gap(information) / entropies
    reasons = labels.explain("mig", "mig_per_factor")
    relative = information / entropies
    informed = information.amax(1) > 1e-12
    mig_sup = float("nan")
    if len(labels.kept) < 2:
        reasons["mig_sup"] = "undefined for a single factor"
    elif bool(informed.any()):
        mig_sup = float(_gap(relative.T)[informed].mean())
    else:
        reasons["mig_sup"] = "no code carries information"
    result = {
        "mig": float(gaps.mean()),
        "mig_per_factor": labels.widen(gaps),
        "mutual_information": labels.widen(information),
        "factor_entropy": labels.widen(entropies),
        "mig_sup": mig_sup,
        "codes_used": float(checks.live_codes(c).sum()),
    }
    return checks.finish(result, reasons)


def mig_aggregate(mean: Array, logvar: Array, factors: Array, grid: int = 4096) -> Result:
    """Mutual information gap with the aggregate-posterior estimator (Chen et al. 2018, appendix C).

    Codes are samples of q(z|x) = N(mean, exp(logvar)), [N, D] each; factors [N, K] are discrete.
    I(z_d; v_k) = H(z_d) - E_v H(z_d | v_k = v), where each density is the 1-D mixture over the rows (with
    that value). The differential entropies are quadratures on `grid` points per code instead of the
    original's samples, so that the result is deterministic; the grid is refined (to at most 65536 points)
    until its step is below the smallest standard deviation. Costs N * grid * D kernel evaluations, in chunks.
    The gap is divided by log S_k. Keys: mig, mig_per_factor [K], mutual_information [D, K], entropy [D]
    (nats), factor_entropy [K] (log S_k).
    """
    m, v = checks.matrix(mean, "mean"), checks.matrix(logvar, "logvar")
    if m.shape != v.shape:
        raise ValueError(f"mean has shape {tuple(m.shape)} but logvar {tuple(v.shape)}")
    m, f = checks.paired(m, factors)
    if grid < 16:
        raise ValueError(f"grid must be at least 16, got {grid}")
    labels = checks.discrete(f, min_per_value=1)
    sd = (0.5 * v.to(m.device)).exp()
    reasons = labels.explain("mig", "mig_per_factor")
    information, entropies = [], []
    for d in range(m.shape[1]):
        points, fine = _quadrature(m[:, d], sd[:, d], grid)
        if not fine:
            code = Column("code", d)
            reasons[Sentence("{}", code)] = Sentence("{}: the quadrature is coarser than its narrowest posterior", code)
        row, total = _aggregate_information(m[:, d], sd[:, d], points, labels)
        information.append(row)
        entropies.append(total)
    table = torch.stack(information)
    log_sizes = torch.tensor(labels.sizes, dtype=torch.float64, device=m.device).log()
    gaps = _gap(table) / log_sizes
    result = {
        "mig": float(gaps.mean()),
        "mig_per_factor": labels.widen(gaps),
        "mutual_information": labels.widen(table),
        "entropy": checks.array(torch.stack(entropies)),
        "factor_entropy": labels.widen(log_sizes),
    }
    return checks.finish(result, reasons)


def _quadrature(mean: Tensor, sd: Tensor, grid: int) -> tuple[Tensor, bool]:
    """Equally spaced points covering every component to 9 standard deviations, and whether they are fine
    enough.
    """
    low, high = float((mean - 9 * sd).min()), float((mean + 9 * sd).max())
    wanted = math.ceil((high - low) / float(sd.min())) + 1
    count = min(max(grid, wanted), 1 << 16)
    return torch.linspace(low, high, count, dtype=torch.float64, device=mean.device), count >= wanted


def _aggregate_information(mean: Tensor, sd: Tensor, points: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """Information [K'] of one code about each factor, and the code's entropy."""
    groups = [torch.zeros(size, len(points), dtype=torch.float64, device=mean.device) for size in labels.sizes]
    step = max(1, CHUNK // 4 // len(points))
    for start in range(0, len(mean), step):
        at = slice(start, start + step)
        scale = sd[at, None]
        # In place: this loop is bound by memory, and temporaries made it four times slower.
        kernel = (points - mean[at, None]).div_(scale).square_().mul_(-0.5).exp_()
        kernel.div_(scale * math.sqrt(2 * math.pi))
        for k, group in enumerate(groups):
            group.index_add_(0, labels.of(k, at), kernel)
    width = points[1] - points[0]

    def differential_entropy(density: Tensor) -> Tensor:
        return -torch.special.xlogy(density, density).sum(-1) * width

    total = differential_entropy(groups[0].sum(0) / len(mean))
    row = []
    for k, group in enumerate(groups):
        counts = labels.counts(k)
        conditional = differential_entropy(group / counts[:, None])
        row.append((total - (counts * conditional).sum() / len(mean)).clamp_min(0))
    return torch.stack(row), total


def modularity(
    codes: Array, factors: Array, bins: int = 20, factor_bins: int | None = None, discrete: Sequence[int] = ()
) -> Result:
    """Modularity (Ridgeway & Mozer 2018, eq. 2; disentanglement_lib's protocol): each code tells of one
    factor only.

    score_d = 1 - (sum_k I_dk^2 - m_d) / (m_d (K - 1)), m_d = max_k I_dk^2, with plug-in information (nats) of codes
    cut into `bins` equal-width bins, class indices (`discrete`) being left as they are. In [0, 1], higher is better;
    blind to several codes sharing a factor. Keys: modularity (mean over all codes, uninformative codes count 0),
    modularity_informative (mean over informative codes), modularity_per_code [D], mutual_information [D, K], codes_used
    (codes with m_d > 1e-12 nat^2). K = 1 (after dropping constant factors) is undefined: NaN.
    """
    c, f = checks.paired(codes, factors, gaps=True, own=True)
    labels = checks.discrete(f, factor_bins)
    information, _ = Binned.of(c, bins, discrete=discrete).information(labels)
    square = information.square()
    best = square.amax(1)
    # A constant code's information is 0 or 1e-17 depending on rounding (dlib issue 33)
    informed = best > 1e-12
    others = len(labels.kept) - 1
    reasons = labels.explain("modularity")
    nan = float("nan")
    if others == 0:
        reasons["modularity"] = "undefined for a single factor"
        scores = torch.full_like(best, nan)
        overall = active = nan
    else:
        ratio = (square.sum(1) - best) / (best.where(informed, torch.ones_like(best)) * others)
        scores = torch.where(informed, 1 - ratio, torch.zeros_like(ratio))
        overall = float(scores.mean())
        active = float(scores[informed].mean()) if bool(informed.any()) else nan
        if not bool(informed.any()):
            reasons["modularity_informative"] = "no code carries information"
    result = {
        "modularity": overall,
        "modularity_informative": active,
        "modularity_per_code": checks.array(scores),
        "mutual_information": labels.widen(information),
        "codes_used": float(informed.sum()),
    }
    return checks.finish(result, reasons)
