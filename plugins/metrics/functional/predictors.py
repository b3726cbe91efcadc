"""Scores made of simple predictors: SAP, explicitness, and accuracy with few labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from . import blocks, checks
from .boosting import gradient_boosting
from .checks import Array, Result
from .hinge import Ordered, hinge_machines
from .indicators import indicators, read
from .quantities import Kinds, targets
from .sentences import Columns, Sentence
from .solvers import LinearClassifier, Standardised, auc, logistic_regression


def sap(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    continuous: bool = False,
    regress: Sequence[int] = (),
    discrete: Sequence[int] = (),
    kinds: Kinds | None = None,
) -> Result:
    """Separated attribute predictability (Kumar et al. 2018; disentanglement_lib's protocol).

    score_matrix[d, k] = test accuracy of a balanced one-vs-rest linear SVM (squared hinge, C = 0.01) on code
    d alone, or with `continuous=True` the squared Pearson correlation of the training rows (0 if a code's
    variance is <= 1e-12); so also for the columns `regress` alone, of continuous factors. SAP = mean_k (largest -
    second largest over codes); in [0, 1], higher is better. A perfect code of an ordered factor with more than 2
    values stays near 0.4: a linear machine on one code can only pick the extreme classes. codes [n, D] raw, factors
    [n, K] discrete (any reals if continuous).
    discrete: codes that are class indices; the machine reads their indicators (scikit-learn's LinearSVC), and squared
    correlation is that of the best numbers for their classes. kinds (continuous alone): factors that are no quantities,
    None for classes, whose score is the mean over their indicators, or the period of a circular one, the mean over
    cosine and sine.
    Without test rows: 2/3 : 1/3 in order. Keys: sap, sap_per_factor [K], score_matrix [D, K] (NaN columns for
    dropped constant factors).
    """
    if continuous:
        if codes_test is not None or factors_test is not None:
            checks.split(codes, factors, codes_test, factors_test, gaps=True, own=True)
        c, f = checks.paired(codes, factors, gaps=True, own=True)
        return _sap_continuous(c, f, discrete, kinds or {})
    c, f, ct, ft = checks.split(codes, factors, codes_test, factors_test, gaps=True, own=True)
    labels = checks.discrete(checks.stand_ins(f, regress), rows=len(codes))
    test = labels.encode(ft)
    single = [d for d in range(c.shape[1]) if d not in discrete]
    matrix = torch.zeros(c.shape[1], len(labels.kept), dtype=torch.float64, device=c.device)
    asked = [k for k, column in enumerate(labels.kept) if column not in regress]
    whole = [k for k in asked if k not in labels.partial]
    for factors_of in [whole, *([k] for k in asked if k in labels.partial)]:
        if factors_of:
            matrix[:, factors_of] = _machines(c, ct, labels, ft, test, factors_of, single)
    for k in asked:
        rows, there = labels.take(k), checks.present(ft[:, labels.kept[k]])
        for d in discrete:
            pair = c[rows, d, None].double(), ct[there, d, None].double()
            matrix[d, k] = _classes_accuracy(pair[0], labels.of(k, rows), pair[1], test[there, k])
    for k, column in enumerate(labels.kept):
        if column in regress:
            rows = labels.take(k)
            matrix[:, k] = _squared_correlation(c[rows], f[rows, column, None], discrete)[:, 0]
    gaps = _gaps(matrix)
    result = {
        "sap": float(gaps.mean()),
        "sap_per_factor": labels.widen(gaps),
        "score_matrix": labels.widen(matrix),
    }
    return checks.finish(result, labels.explain("sap"))


def _machines(
    c: Tensor, ct: Tensor, labels: checks.Labels, ft: Tensor, test: Tensor, factors: list[int], single: list[int]
) -> Tensor:
    """Test accuracy [D, len(factors)] of the machines on each of the codes `single`, 0 for the others. The factors have
    the same rows: some codes at a time, each sorted once."""
    rows = labels.take(*factors)
    accuracy = torch.zeros(c.shape[1], len(factors), dtype=torch.float64, device=c.device)
    for at in Ordered.together(c, len(single)):
        own = single[at]
        ordered = Ordered.of(c[:, own][rows])
        for i, k in enumerate(factors):
            there = checks.present(ft[:, labels.kept[k]])
            machines = hinge_machines(ordered, labels.of(k, rows), labels.sizes[k])
            accuracy[own, i] = _svm_accuracy(ct[:, own][there], test[there, k], *machines)
    return accuracy


def _sap_continuous(c: Tensor, f: Tensor, discrete: Sequence[int], kinds: Kinds) -> Result:
    kept, dropped = checks.varying(f)
    scores = []
    for k in kept:
        rows = checks.present(f[:, k])
        wanted = f[rows, k, None].double()
        if k in kinds:
            wanted = targets(wanted, wanted[:1], {0: kinds[k]}).train
        scores.append(_squared_correlation(c[rows], wanted, discrete).mean(1, keepdim=True))
    matrix = torch.cat(scores, 1)
    gaps = _gaps(matrix)
    labels = checks.Labels([], [], kept, f.shape[1], dropped)
    result = {
        "sap": float(gaps.mean()),
        "sap_per_factor": labels.widen(gaps),
        "score_matrix": labels.widen(matrix),
    }
    return checks.finish(result, labels.explain("sap"))


def _squared_correlation(c: Tensor, f: Tensor, discrete: Sequence[int] = ()) -> Tensor:
    """Squared Pearson correlation `[D, K]` of codes `[n, D]` and factors `[n, K]`; 0 for a code that hardly varies. Of
    class indices (`discrete`) the largest that numbers for the classes can have: the share of variance between them."""
    n, center, middle = len(c), blocks.mean(c), blocks.mean(f)
    variance, target_variance = (blocks.centred_squares(*pair) / (n - 1) for pair in ((c, center), (f, middle)))
    product = torch.zeros(len(center), len(middle), dtype=torch.float64, device=c.device)
    for at in blocks.spans(n, c.shape[1] + f.shape[1], blocks.room(c)):
        product.addmm_((blocks.numbers(c[at]) - center).T, blocks.numbers(f[at]) - middle)
    square = (product / (n - 1)).square()
    live = (variance > 1e-12)[:, None]
    result = torch.where(live, square / (variance[:, None] * target_variance), torch.zeros_like(square))
    for d in discrete:
        (x,), _ = indicators(c[:, d, None].double(), [0])
        mean, weight = read(x, f.double())
        explained = ((x - mean) @ weight).square().sum(0) / (n - 1)
        result[d] = (explained / target_variance).clamp(0, 1)
    return result


def _gaps(matrix: Tensor) -> Tensor:
    """Largest minus second largest score of every column; a lone code's second is 0."""
    ordered = matrix.sort(0, descending=True).values
    return ordered[0] - ordered[1] if len(ordered) > 1 else ordered[0]


def _classes_accuracy(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    """Accuracy of a balanced linear SVM as `squared_hinge_1d` on the indicators of one discrete code [n, 1]."""
    from sklearn.svm import LinearSVC

    (seen, other), _ = indicators(x, [0], x_test)
    machine = LinearSVC(C=0.01, class_weight="balanced", dual=False).fit(seen.cpu().numpy(), y.cpu().numpy())
    return float((machine.predict(other.cpu().numpy()) == y_test.cpu().numpy()).mean())


def _svm_accuracy(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Accuracy [D] of the single-code machines [D, P] on rows x [m, D] with labels y [m]."""
    hits = torch.zeros(x.shape[1], dtype=torch.int64, device=x.device)
    for at in blocks.spans(len(x), x.shape[1] * weight.shape[1], blocks.room(x)):
        decision = x[at, :, None].double() * weight + bias
        guess = (decision[:, :, 0] > 0).long() if decision.shape[2] == 1 else decision.argmax(2)
        hits += (guess == y[at, None]).sum(0)
    return hits.double() / len(x)


def explicitness(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    discrete: Sequence[int] = (),
) -> Result:
    """Explicitness (Ridgeway & Mozer 2018; disentanglement_lib's protocol).

    Per factor a multinomial logistic regression (L2, C = 1, at most 100 L-BFGS iterations) on standardised
    codes [n, D]; score = one-vs-rest ROC AUC, macro mean over the values present in both sets. In [0, 1],
    chance 0.5, higher is better. Keys: explicitness_train, explicitness_test (means over factors),
    explicitness_per_factor [K] (test), explicitness_per_factor_train [K].
    discrete: columns that are class indices, read by their indicators.
    """
    c, f, ct, ft = checks.split(codes, factors, codes_test, factors_test, gaps=True, own=True)
    labels = checks.discrete(f, rows=len(codes))
    test = labels.encode(ft)
    (c, ct), _ = indicators(c, discrete, ct)
    whole = Standardised.of(c)
    rows = []
    for k, size in enumerate(labels.sizes):
        known, asked = labels.take(k), checks.present(ft[:, labels.kept[k]])
        seen = whole.like(c[known]), labels.columns[k][known]
        model = logistic_regression(*seen, size)
        present = torch.isin(torch.arange(size, device=c.device), test[asked, k])
        rows.append([_macro_auc(model, *pair, present) for pair in (seen, (whole.like(ct[asked]), test[asked, k]))])
    per_factor = torch.tensor(rows, dtype=torch.float64)
    reasons = labels.explain("explicitness_test")
    undefined = torch.isnan(per_factor).any(1)
    if bool(undefined.any()):
        single = Columns("factor", tuple(labels.kept[j] for j in undefined.nonzero()[:, 0].tolist()))
        text = Sentence("{} have a single value in the test rows: left out", single)
        reasons["explicitness_test"] = Sentence.joined([reasons.get("explicitness_test", ""), text])
    train, held_out = (float(v) for v in per_factor.nanmean(0))
    result = {
        "explicitness_train": train,
        "explicitness_test": held_out,
        "explicitness_per_factor": labels.widen(per_factor[:, 1]),
        "explicitness_per_factor_train": labels.widen(per_factor[:, 0]),
    }
    return checks.finish(result, reasons)


def _macro_auc(model: LinearClassifier, x: Standardised, y: Tensor, present: Tensor) -> float:
    probability = model.logits(x)
    for part in probability.split(max(1, blocks.room(probability) // len(present))):
        part.copy_(part.softmax(1))
    classes = torch.arange(len(present), device=y.device)
    return float(auc(probability, y[:, None] == classes)[present].nanmean())


def downstream(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    sizes: Sequence[int | float] = (10, 100, 1000, 10000),
    model: str = "lr",
    exact: bool = False,
    seed: int = 0,
    discrete: Sequence[int] = (),
) -> Result:
    """Accuracy of predicting every factor from N labelled codes (disentanglement_lib's downstream task).

    sizes: numbers N of leading training rows, or fractions below 1 of them (Peychev et al. 2017 use 0.1, 0.3). model:
    'lr' = logistic regression whose C is chosen among 10 by 5-fold unshuffled cross-validation; 'gbt' =
    gradient boosting (`exact=True`: scikit-learn's); 'svm' = RBF SVC and 'svm_linear' = linear SVC, C = 1, on
    standardised codes. Values missing among the N rows count as errors; with a single value among them it is
    predicted always. Keys: accuracy [len(sizes), K], mean and min over factors [len(sizes)] and as scalars
    `mean_N`, `min_N`, efficiency = mean_100 / mean_10000. A size above the available rows is NaN with a
    reason. Range [0, 1], higher is better.
    discrete: columns that are class indices, read by their indicators.
    """
    checks.one_of(model, ("lr", "gbt", "svm", "svm_linear"), "model")
    c, f, ct, ft = checks.split(codes, factors, codes_test, factors_test, gaps=True)
    labels = checks.discrete(f, rows=len(codes), min_per_value=1)
    (c, ct), _ = indicators(c, discrete, ct)
    test = labels.encode(ft)
    reasons = labels.explain("accuracy")
    rows, names = [], []
    takes = [labels.take(k) for k in range(len(labels.kept))]
    fewest = min(len(c[rows]) for rows in takes)
    asked = [checks.present(ft[:, k]) for k in labels.kept]
    for size in sizes:
        count = round(size * fewest) if isinstance(size, float) and size <= 1 else int(size)
        names.append(f"{size:g}")
        if not 1 <= count <= fewest:
            reasons[f"mean_{size:g}"] = f"{count} labelled rows wanted, {fewest} available"
            rows.append([float("nan")] * len(labels.kept))
            continue
        found = []
        for k, (take, ask) in enumerate(zip(takes, asked, strict=True)):
            few = c[take][:count], labels.of(k, take)[:count]
            found.append(_few_label_accuracy(*few, ct[ask], test[ask, k], model, exact, seed))
        rows.append(found)
    accuracy = torch.tensor(rows, dtype=torch.float64)
    mean, low = accuracy.mean(1), accuracy.amin(1)
    result: Result = {
        "accuracy": labels.widen(accuracy),
        "mean": checks.array(mean),
        "min": checks.array(low),
    }
    for name, m, worst in zip(names, mean.tolist(), low.tolist(), strict=True):
        result[f"mean_{name}"], result[f"min_{name}"] = m, worst
    result["efficiency"] = result.get("mean_100", np.nan) / result.get("mean_10000", np.nan)
    if np.isnan(result["efficiency"]):
        reasons["efficiency"] = "needs the sizes 100 and 10000"
    return checks.finish(result, reasons)


def _few_label_accuracy(
    x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, model: str, exact: bool, seed: int
) -> float:
    """Test accuracy of one factor; `y` may lack some of the factor's values."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.svm import SVC

    present, local = y.unique(return_inverse=True)
    if len(present) == 1:
        return float((y_test == present).double().mean())
    if model == "lr":
        guess = _cross_validated(x, local, len(present)).logits(x_test).argmax(1)
    elif model == "gbt" and not exact:
        guess = gradient_boosting(x, local, len(present), x_test, seed=seed).scores_test.argmax(1)
    else:
        if model == "gbt":
            machine = GradientBoostingClassifier(random_state=seed)
        else:
            machine = SVC(C=1.0, gamma="scale", kernel="linear" if model == "svm_linear" else "rbf")
            x, x_test = checks.standardise(x, x_test)
        guess = torch.from_numpy(machine.fit(x.cpu().numpy(), local.cpu().numpy()).predict(x_test.cpu().numpy()))
    return float((present[guess.to(y_test.device)] == y_test).double().mean())


def _cross_validated(x: Tensor, y: Tensor, classes: int, folds: int = 5) -> LinearClassifier:
    """Logistic regression with C from logspace(-4, 4, 10) by accuracy over unshuffled folds; C = 1 if a fold
    has one class.

    Along the path of growing C each fit starts from the one before (scikit-learn's LogisticRegressionCV does
    too).
    """
    parts = [p for p in torch.arange(len(x), device=x.device).tensor_split(folds) if len(p)]
    keep = [torch.cat(parts[:i] + parts[i + 1 :]) for i in range(len(parts))]
    if any(len(y[rows].unique()) < 2 for rows in keep):
        return logistic_regression(x, y, classes)
    grid = np.logspace(-4, 4, 10).tolist()
    accuracy = np.zeros(len(grid))
    ends: list[list[LinearClassifier]] = [[] for _ in grid]
    for held_out, rows in zip(parts, keep, strict=True):
        start = None
        for i, c in enumerate(grid):
            start = logistic_regression(x[rows], y[rows], classes, c=c, start=start)
            ends[i].append(start)
            accuracy[i] += float((start.logits(x[held_out]).argmax(1) == y[held_out]).double().mean()) / len(parts)
    best = int(accuracy.argmax())
    mean = LinearClassifier(*(torch.stack(part).mean(0) for part in zip(*ends[best], strict=True)))
    return logistic_regression(x, y, classes, c=grid[best], start=mean)
