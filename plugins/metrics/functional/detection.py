"""Total AUROC difference: is each yes-or-no attribute detected by one latent alone?"""

from __future__ import annotations

import torch

from distk.console import counted

from . import checks
from .checks import Array, Result
from .sentences import Column, Sentence
from .solvers import class_aucs, contingency, entropy, mutual_information


def tad(codes: Array, attributes: Array, threshold: float = 0.75, redundant: float | None = 0.2) -> Result:
    """Total AUROC difference (Yeats, Liu, Womble & Li 2022, NashAE, section 4.3); higher is better.

    For each attribute of two values, the AUC of every code [n, D] as its detector, in either direction; the attribute
    is captured where the best exceeds `threshold`, and its difference is the best minus the second best. tad is the sum
    over the captured ones. Attributes [n, A] that another one tells are left out first, where `redundant` is given:
    going from the first on, one that lowers the entropy of an earlier kept one by more than this share. Keys: tad,
    captured (their number), considered, difference_per_attribute [A] (NaN where left out), auc [D, A]. Attributes of
    more values than two, and constant ones, are left out with a reason.
    """
    c, f = checks.paired(codes, attributes, gaps=True, own=True)
    labels = checks.discrete(f)
    reasons = labels.explain("tad")
    binary = [j for j, size in enumerate(labels.sizes) if size == 2]
    for j, size in enumerate(labels.sizes):
        if size != 2:
            column = Column("factor", labels.kept[j])
            reasons[Sentence("{}", column)] = Sentence(f"{{}} has {counted(size, 'value')}, not two: left out", column)
    kept: list[int] = []
    for j in binary:
        told = [i for i in kept if redundant is not None and _share(labels, i, j) > redundant]
        if told:
            column = Column("factor", labels.kept[j])
            by = Column("factor", labels.kept[told[0]])
            reasons[Sentence("{}", column)] = Sentence("{} tells of {}: left out", column, by)
        else:
            kept.append(j)
    if not kept:
        raise ValueError("no attribute of two values: this score is for yes-or-no attributes")
    areas = class_aucs(c, labels)
    area = torch.stack([areas[j][:, 1] for j in kept], 1)
    area = torch.maximum(area, 1 - area)
    top = area.topk(min(2, len(area)), dim=0).values
    # A lone code competes with chance.
    difference = top[0] - (top[1] if len(top) == 2 else 0.5)
    captured = top[0] > threshold
    wide = torch.full((labels.total,), torch.nan, dtype=torch.float64)
    table = torch.full((c.shape[1], labels.total), torch.nan, dtype=torch.float64)
    columns = [labels.kept[j] for j in kept]
    wide[columns], table[:, columns] = difference.cpu(), area.cpu()
    result: Result = {
        "tad": float(difference[captured].sum()),
        "captured": float(captured.sum()),
        "considered": float(len(kept)),
        "difference_per_attribute": checks.array(wide),
        "auc": checks.array(table),
    }
    return checks.finish(result, reasons)


def _share(labels: checks.Labels, target: int, given: int) -> float:
    """Share of the entropy of factor `target` that factor `given` takes away; both have two values."""
    rows = labels.take(target, given)
    table = contingency(labels.columns[target][rows], labels.columns[given][rows], (2, 2))
    return float(mutual_information(table[None])[0] / entropy(table.sum(1)))
