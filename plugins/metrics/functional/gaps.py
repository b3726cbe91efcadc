"""Gaps of mutual information beside MIG: JEMMIG, DCIMIG, MIG-sup, and those for factors that depend on each other.

All from contingency tables of binned codes [n, D] and discrete factors [n, K], plug-in information in nats. Codes of
class indices, `discrete`, keep their classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .checks import Array, Labels, Result
from .information import Binned
from .solvers import contingency, entropy, mutual_information


def _tables(
    codes: Array, factors: Array, bins: int, factor_bins: int | None, discrete: Sequence[int]
) -> tuple[Binned, Tensor, Tensor, Labels]:
    """The codes in bins, information `[D, K']`, entropies of the factors `[K']`, and these."""
    c, f = checks.paired(codes, factors, gaps=True, own=True)
    labels = checks.discrete(f, factor_bins)
    binned = Binned.of(c, bins, discrete=discrete)
    return binned, *binned.information(labels), labels


def _second(column: Tensor) -> float:
    """The second largest value, 0 where there is one only."""
    return float(column.topk(2).values[1]) if len(column) > 1 else 0.0


def jemmig(
    codes: Array, factors: Array, bins: int = 20, factor_bins: int | None = None, discrete: Sequence[int] = ()
) -> Result:
    """Joint entropy minus mutual information gap (Do & Tran 2020, eq. 15 and its normalised form).

    For each factor, H(z_i, y) - I(z_i; y) + I(z_j; y) of its most and second most informative codes i and j, in nats: 0
    for a code that is the factor, and larger for one that knows more than it. Normalised: 1 - that / (H(y) + log bins),
    or log of the classes of i where they are more; in [0, 1], higher is better. Keys: jemmig (normalised), jemmig_nats
    (lower is better), jemmig_per_factor [K].
    """
    binned, information, entropies, labels = _tables(codes, factors, bins, factor_bins, discrete)
    nats, widest = [], []
    for k in range(len(labels.kept)):
        best = int(information[:, k].argmax())
        counts = torch.bincount(binned.columns(slice(best, best + 1))[0][labels.take(k), 0], minlength=bins).double()
        own = entropy(counts)
        widest.append(math.log(len(counts)))
        mutual = float(information[best, k])
        joint = float(own) + float(entropies[k]) - mutual
        nats.append(joint - mutual + _second(information[:, k]))
    found = torch.tensor(nats, dtype=torch.float64)
    normalised = 1 - found / (entropies.cpu() + torch.tensor(widest, dtype=torch.float64))
    result = {
        "jemmig": float(normalised.mean()),
        "jemmig_nats": float(found.mean()),
        "jemmig_per_factor": labels.widen(normalised),
    }
    return checks.finish(result, labels.explain("jemmig"))


def dcimig(
    codes: Array, factors: Array, bins: int = 20, factor_bins: int | None = None, discrete: Sequence[int] = ()
) -> Result:
    """DCIMIG, also 3CharM (Sepliarskaia, Kiseleva & de Rijke 2019): gaps over factors, completeness over codes.

    Each code belongs to the factor of which it tells most, by I(z; y_1) - I(z; y_2), its gap to the next factor; each
    factor keeps the largest gap of its codes, 0 without a code; their sum over the sum of the factors' entropies. In
    [0, 1]. Keys: dcimig, dcimig_per_factor [K] (the gap over the factor's entropy). A single factor: the second
    information is 0.
    """
    _, information, entropies, labels = _tables(codes, factors, bins, factor_bins, discrete)
    gap = information.topk(min(2, information.shape[1]), dim=1).values
    gap = gap[:, 0] - (gap[:, 1] if gap.shape[1] > 1 else 0.0)
    owner = information.argmax(1)
    kept = torch.zeros_like(entropies).scatter_reduce_(0, owner, gap, "amax")
    result = {"dcimig": float(kept.sum() / entropies.sum()), "dcimig_per_factor": labels.widen(kept / entropies)}
    return checks.finish(result, labels.explain("dcimig"))


def mig_sup(
    codes: Array, factors: Array, bins: int = 20, factor_bins: int | None = None, discrete: Sequence[int] = ()
) -> Result:
    """MIG-sup (Li et al. 2020): for each code the gap between the two factors of which it tells most.

    Information over the factor's entropy; mean over the codes that carry any. In [0, 1]; blind to several codes that
    share a factor, where MIG is blind to a code that serves two. Keys: mig_sup, mig_sup_per_code [D] (NaN for a code
    without information). Undefined for a single factor.
    """
    _, information, entropies, labels = _tables(codes, factors, bins, factor_bins, discrete)
    relative, reasons = information / entropies, labels.explain("mig_sup")
    per_code = torch.full((len(relative),), torch.nan, dtype=torch.float64)
    if len(labels.kept) < 2:
        return checks.finish(
            {"mig_sup": math.nan, "mig_sup_per_code": checks.array(per_code)},
            {**reasons, "mig_sup": "undefined for a single factor"},
        )
    top = relative.topk(2, dim=1).values
    informed = information.amax(1) > 1e-12
    per_code[informed.cpu()] = (top[:, 0] - top[:, 1])[informed].cpu()
    if not bool(informed.any()):
        reasons["mig_sup"] = "no code carries information"
    result = {"mig_sup": float(per_code.nanmean()), "mig_sup_per_code": checks.array(per_code)}
    return checks.finish(result, reasons)


def dependent_gaps(
    codes: Array, factors: Array, bins: int = 20, factor_bins: int | None = None, discrete: Sequence[int] = ()
) -> Result:
    """Gaps that allow for factors which tell of each other: DMIG, XMIG, DLIG (Watcharasupat & Lerch 2021).

    The code of a factor is that of the one-to-one matching with the largest sum of I(z; y) / H(y) (the paper has codes
    that were trained for their factor). With z_d the code of factor i:
    DMIG = (I(y_i; z_d) - I(y_i; z_e)) / H(y_i | y_e), e the most informative other code, y_e its factor (H(y_i) where
    it is nobody's code); XMIG = the same with e among nobody's codes, over H(y_i) (undefined without such a code);
    DLIG = (I(y_i; z_d) - I(y_j; z_d)) / H(y_i | y_j), j the other factor of which z_d tells most.
    At most 1; a factor that another one determines has no DMIG or DLIG (NaN). Keys: dmig, xmig, dlig, each also
    `_per_factor` [K]; factor_information [K, K] (nats, entropies on the diagonal), dependence = the largest information
    between two factors over the smaller of their entropies, in [0, 1]: 0 where DMIG is MIG.
    """
    from scipy.optimize import linear_sum_assignment

    _, information, entropies, labels = _tables(codes, factors, bins, factor_bins, discrete)
    count = len(labels.kept)
    between = _between(labels)
    relative = (information / entropies).cpu().numpy()
    rows, columns = linear_sum_assignment(relative, maximize=True)
    code_of = dict(zip(columns.tolist(), rows.tolist(), strict=True))
    factor_of = {d: k for k, d in code_of.items()}
    info, own, nan = information.cpu(), entropies.cpu(), math.nan
    dmig, xmig, dlig = [nan] * count, [nan] * count, [nan] * count
    for k, d in code_of.items():
        others = [e for e in range(len(info)) if e != d]
        rest = 0.0
        left = float(own[k])
        if others:
            e = max(others, key=lambda e: float(info[e, k]))
            rest = float(info[e, k])
            if e in factor_of:
                left = float(own[k] - between[k, factor_of[e]])
        dmig[k] = _ratio(float(info[d, k]) - rest, left, float(own[k]))
        nobodys = [float(info[e, k]) for e in others if e not in factor_of]
        if nobodys:
            xmig[k] = (float(info[d, k]) - max(nobodys)) / float(own[k])
        if count > 1:
            j = max((j for j in range(count) if j != k), key=lambda j: float(info[d, j]))
            dlig[k] = _ratio(float(info[d, k]) - float(info[d, j]), float(own[k] - between[k, j]), float(own[k]))
    reasons = labels.explain("dmig")
    if all(math.isnan(x) for x in xmig):
        reasons["xmig"] = "every code is some factor's: none is left to compare with"
    if count == 1:
        reasons["dlig"] = "undefined for a single factor"
    result: Result = {}
    for name, values in (("dmig", dmig), ("xmig", xmig), ("dlig", dlig)):
        column = torch.tensor(values, dtype=torch.float64)
        result[name] = float(column.nanmean())
        result[f"{name}_per_factor"] = labels.widen(column)
    wide = torch.full((labels.total, labels.total), torch.nan, dtype=torch.float64)
    kept = torch.tensor(labels.kept)
    wide[kept[:, None], kept] = between
    smaller = torch.minimum(own[:, None], own)
    share = (between / smaller).fill_diagonal_(0)
    return checks.finish(
        {**result, "factor_information": checks.array(wide), "dependence": float(share.max())}, reasons
    )


def _between(labels: Labels) -> Tensor:
    """Plug-in information of each pair of factors `[K', K']`, entropies on the diagonal, float64 on the CPU."""
    count = len(labels.kept)
    found = torch.zeros(count, count, dtype=torch.float64)
    for a in range(count):
        for b in range(a, count):
            rows = labels.take(a, b)
            table = contingency(labels.columns[a][rows], labels.columns[b][rows], (labels.sizes[a], labels.sizes[b]))
            found[a, b] = found[b, a] = float(mutual_information(table[None])[0])
    return found


def _ratio(gap: float, left: float, whole: float) -> float:
    """gap / left, undefined where nothing is left to be told: less than 1e-9 of the whole."""
    return gap / left if left > 1e-9 * whole else math.nan
