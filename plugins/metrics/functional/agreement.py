"""Scores that compare a prediction with the truth: clusters with labels, dimensions with attributes, images
with images.
"""

from __future__ import annotations

import numpy as np
import torch

from distk.console import counted

from . import checks
from .checks import Array, Result
from .solvers import class_aucs, contingency


def unsupervised_accuracy(code_index: Array, label: Array) -> Result:
    """Accuracy of a discrete code as a classifier found without labels (Jeong & Song 2019); higher is better.

    code_index [n] and label [n]: class indices, S and T values, S != T allowed. `hungarian`: best one-to-one
    map of code values to labels (headline); `majority`: every code value takes its most frequent label. In
    [0, 1]. Also contingency [S, T], counts by sorted value. ValueError when the labels are constant.
    """
    from scipy.optimize import linear_sum_assignment

    code, truth = checks.labels_1d(code_index, "code_index"), checks.labels_1d(label, "label")
    truth = truth.to(code.device)
    if len(code) != len(truth):
        raise ValueError(f"code_index has {counted(len(code), 'row')} but label has {len(truth)}")
    sizes = (int(code.max()) + 1, int(truth.max()) + 1)
    if sizes[1] < 2:
        raise ValueError("label is constant: every code would be right")
    table = checks.array(contingency(code, truth, sizes))
    rows, columns = linear_sum_assignment(-table)
    result: Result = {
        "hungarian": float(table[rows, columns].sum() / table.sum()),
        "majority": float(table.max(1).sum() / table.sum()),
        "contingency": table,
    }
    return result


def best_dimension_auc(emb: Array, attributes: Array) -> Result:
    """Best single-dimension AUC per attribute value (Ridgeway & Mozer 2017); in [0.5, 1], higher is better.

    For every value of every attribute against the attribute's other values: AUC of each dimension of emb [n,
    d], free of direction (max(AUC, 1 - AUC)), and the best of them. Binary attributes contribute one value,
    constant ones none. attributes [n, A]: class indices. Keys: auc [V], best_dimension [V], attribute [V],
    value [V], mean, quartiles [3].
    """
    x, f = checks.paired(emb, attributes, gaps=True, own=True)
    labels = checks.discrete(f)
    rows = []
    areas = class_aucs(x, labels)
    for j, k in enumerate(labels.kept):
        for v in [1] if labels.sizes[j] == 2 else range(labels.sizes[j]):
            area = areas[j][:, v]
            best, at = torch.maximum(area, 1 - area).max(0)
            rows.append([float(best), float(at), float(k), float(labels.values[j][v])])
    table = np.array(rows, dtype=np.float64)
    result = {
        "auc": table[:, 0],
        "best_dimension": table[:, 1],
        "attribute": table[:, 2],
        "value": table[:, 3],
        "mean": float(table[:, 0].mean()),
        "quartiles": np.percentile(table[:, 0], [25, 50, 75]),
    }
    return checks.finish(result, labels.explain("auc"))


def reconstruction(images: Array, reconstructions: Array, chunk: int = 1024) -> Result:
    """Reconstruction errors of decoder means; lower is better.

    images, reconstructions: [n, ...] of equal shape, in [0, 1] for the Bernoulli scores.
    Keys: mse_pixel (mean over images, pixels and channels of the squared error), bce_pixel (Bernoulli
    cross-entropy, nats, same mean), nll_image (cross-entropy summed over pixels, mean over images, nats). The
    logarithms are clipped at -100. Outside [0, 1] the last two are NaN with a reason.
    """
    x, r = checks.tensor(images), checks.tensor(reconstructions)
    if x.shape != r.shape or x.ndim < 2 or len(x) == 0:
        raise ValueError(f"images {tuple(x.shape)} and reconstructions {tuple(r.shape)} must be equal [n, ...]")
    r = r.to(x.device)
    squares, cross, bernoulli = 0.0, 0.0, True
    for a, b in zip(x.split(chunk), r.split(chunk), strict=True):
        a, b = a.double(), b.double()
        if not bool((torch.isfinite(a) & torch.isfinite(b)).all()):
            raise ValueError("images or reconstructions contain NaN or inf")
        squares += float((a - b).square().sum())
        bernoulli = bernoulli and all(bool(((t >= 0) & (t <= 1)).all()) for t in (a, b))
        if bernoulli:
            log_p, log_q = b.log().clamp_min(-100), torch.log1p(-b).clamp_min(-100)
            cross -= float((a * log_p + (1 - a) * log_q).sum())
    pixels = x.numel()
    nan = float("nan")
    result: Result = {
        "mse_pixel": squares / pixels,
        "bce_pixel": cross / pixels if bernoulli else nan,
        "nll_image": cross / len(x) if bernoulli else nan,
    }
    reasons = {} if bernoulli else dict.fromkeys(("bce_pixel", "nll_image"), "pixels outside [0, 1]")
    return checks.finish(result, reasons)
