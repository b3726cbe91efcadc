"""Combinations of factor values that were seen and that were not: is each factor still read from the code?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks
from .checks import Array, Result
from .indicators import indicators
from .sentences import Column, Sentence
from .solvers import logistic_regression, thread_pools

FEWEST = 3
"""Values of a factor that takes part in what is kept back."""


_Rows = tuple[Tensor, Tensor]
"""Codes [n, D] and class indices of factors [n, K]."""


class _Trial(NamedTuple):
    """Numbers of the rows to fit, of seen rows to test, and of unseen ones, which may be rows of another table; columns
    of the factors that are asked."""

    fitted: Tensor
    seen: Tensor
    unseen: Tensor
    columns: list[int]


def combinations(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    *,
    known: Array | None = None,
    predictor: str = "lr",
    share: float = 0.2,
    seed: int = 0,
    train: int = 10_000,
    discrete: Sequence[int] = (),
) -> Result:
    """Accuracy of reading factors [n, K] from codes [n, D] on combinations seen and not seen by the reader.

    With test rows (Montero et al. 2021, Schott et al. 2022: a model that never saw some combinations): predictors are
    fitted on two thirds of the training rows, `seen` is their accuracy on the others, `unseen` that on test rows whose
    combination of all factors occurs in no training row, nor in a row of `known` [m, K]: what the model saw in training
    where the training rows here are some of it. A factor is asked of the test rows whose value some training row has.
    Without: for every pair of factors about `share` of the pairs
    of values is kept from the reader, each value being seen beside others; the accuracies are those of these two
    factors, mean over pairs. That asks of the code alone whether what reads one factor serves beside every value of
    another. predictor: 'lr' (logistic regression) or 'gbt' (scikit-learn's boosted trees on histograms of 255 bins:
    what is asked is accuracy, not which code, and a factor of 40 values takes a fifth of the time of exact splits). At
    most `train` rows are fitted.
    Factors of two values take no part. Keys: unseen (headline, higher is better), seen, gap = seen - unseen (lower is
    better), seen_per_factor, unseen_per_factor [K], unseen_combinations (their number), test_rows (rows of unseen
    combinations). Raises ValueError for a single factor without test rows, and where no test row is of an unseen
    combination. discrete: columns of codes that are class indices, read by their indicators.
    """
    checks.one_of(predictor, ("lr", "gbt"), "predictor")
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    c, f = checks.paired(codes, factors, own=True)
    labels = checks.discrete(f)
    generator = torch.Generator().manual_seed(seed)
    if codes_test is not None and factors_test is not None:
        _, _, ct, ft = checks.split(codes, factors, codes_test, factors_test, own=True)
        (c, ct), _ = indicators(c, discrete, ct)
        strange: tuple[Tensor, checks.Labels | Tensor] = ct, labels.encode(ft)
        met = f if known is None else torch.cat([f, checks.matrix(known, "known").to(f.device)])
        unmet, count = _unmet(ft, met)
        trials = [_given(labels, unmet.nonzero()[:, 0], train, generator)]
    else:
        (c,), _ = indicators(c, discrete)
        strange = c, labels
        trials, count = _kept_back(labels, share, train, generator)
    own = c, labels
    sums = torch.zeros(3, len(labels.kept), dtype=torch.float64)
    for trial in trials:
        fitted, seen_rows, unseen_rows = _at(own, trial.fitted), _at(own, trial.seen), _at(strange, trial.unseen)
        for k in trial.columns:
            pair = _accuracies(fitted, seen_rows, unseen_rows, k, predictor, seed)
            sums[:, k] += torch.tensor([*pair, 1.0], dtype=torch.float64)
    seen, unseen = sums[0] / sums[2], sums[1] / sums[2]
    result: Result = {
        "unseen": float(unseen.nanmean()),
        "seen": float(seen.nanmean()),
        "gap": float((seen - unseen).nanmean()),
        "seen_per_factor": labels.widen(seen),
        "unseen_per_factor": labels.widen(unseen),
        "unseen_combinations": float(count),
        "test_rows": float(sum(len(trial.unseen) for trial in trials)),
    }
    reasons = labels.explain("unseen")
    for k in (sums[2] == 0).nonzero()[:, 0].tolist():
        column = Column("factor", labels.kept[k])
        reasons[Sentence("{}", column)] = Sentence("{} takes no part: nothing could be kept back beside it", column)
    for k in ((sums[2] > 0) & unseen.isnan()).nonzero()[:, 0].tolist():
        column = Column("factor", labels.kept[k])
        reasons[Sentence("{}", column)] = Sentence("{} is not asked: no training row has its values", column)
    return checks.finish(result, reasons)


def _at(table: tuple[Tensor, checks.Labels | Tensor], rows: Tensor) -> _Rows:
    """Some rows of codes, float64, and of their classes [m, K]."""
    codes, labels = table
    return codes[rows].double(), labels.long()[rows] if isinstance(labels, Tensor) else labels.at(rows)


def _accuracies(fitted: _Rows, seen: _Rows, unseen: _Rows, k: int, predictor: str, seed: int) -> tuple[float, float]:
    """Share of right guesses of factor k on seen and on unseen combinations, of rows whose value some training row has;
    NaN where there is none."""
    (x, y), tests = fitted, (seen, unseen)
    present, local = y[:, k].unique(return_inverse=True)
    if len(present) < 2:
        guesses = [torch.zeros(len(t[0]), dtype=torch.int64, device=x.device) for t in tests]
    elif predictor == "gbt":
        both = torch.cat([t[0] for t in tests])
        guesses = list(_by_trees(x, local, both, seed).split([len(t[0]) for t in tests]))
    else:
        scaled, *others = checks.standardise(x, *(t[0] for t in tests))
        model = logistic_regression(scaled, local, len(present))
        guesses = [model.logits(other).argmax(1) for other in others]
    hits = [(present[g] == t[1][:, k])[t[1][:, k] >= 0].double().mean() for g, t in zip(guesses, tests, strict=True)]
    return float(hits[0]), float(hits[1])


def _by_trees(x: Tensor, y: Tensor, others: Tensor, seed: int) -> Tensor:
    """Class indices int64 [m] that boosted trees give to other rows [m, D]; stages, rate and depth are those of DCI."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=100, max_depth=3, min_samples_leaf=1, early_stopping=False, random_state=seed
    )
    with thread_pools().limit(limits=1):  # trees of a few thousand rows wait for each other longer than they compute
        guess = model.fit(x.cpu().numpy(), y.cpu().numpy()).predict(others.cpu().numpy())
    return torch.from_numpy(guess).to(x.device)


def _unmet(tested: Tensor, met: Tensor) -> tuple[Tensor, int]:
    """Of each row of factors `tested` [n, K] whether its combination is none of those of `met` [m, K], bool [n], and
    how many such combinations there are. Raises ValueError where there is none."""
    numbers = torch.zeros(len(met) + len(tested), dtype=torch.int64, device=met.device)
    for column in torch.cat([met, tested]).unbind(1):  # far quicker than to sort whole rows at once
        values, place = column.unique(return_inverse=True)
        numbers = (numbers * len(values) + place).unique(return_inverse=True)[1]
    own = numbers[len(met) :]
    strange = ~torch.isin(own, numbers[: len(met)])
    if not bool(strange.any()):
        raise ValueError("every combination of the test rows occurs in a training row: none is unseen")
    return strange, len(own[strange].unique())


def _given(labels: checks.Labels, unseen: Tensor, train: int, generator: torch.Generator) -> _Trial:
    """One trial over all factors, whose unseen rows are those given."""
    count = len(labels.columns[0])
    order = torch.randperm(count, generator=generator).to(unseen.device)
    cut = min(train, 2 * count // 3)
    return _Trial(order[:cut], order[cut : cut + train], unseen, list(range(len(labels.kept))))


def _kept_back(labels: checks.Labels, share: float, train: int, generator: torch.Generator) -> tuple[list[_Trial], int]:
    """A trial for every pair of factors."""
    count = len(labels.kept)
    if count < 2:
        raise ValueError("a single factor has no combinations")
    trials, cells = [], 0
    if sum(size >= FEWEST for size in labels.sizes) < 2:
        raise ValueError(f"no two factors have {FEWEST} values or more, beside which others can be kept back")
    for a in range(count):
        for b in range(a + 1, count):
            if min(labels.sizes[a], labels.sizes[b]) < FEWEST:
                continue
            hidden = withheld(labels.sizes[a], labels.sizes[b], share, generator).to(labels.columns[a].device)
            mask = hidden[labels.of(a), labels.of(b)]
            cells += int(hidden.sum())
            open_rows = (~mask).nonzero()[:, 0]
            open_rows = open_rows[torch.randperm(len(open_rows), generator=generator).to(open_rows.device)]
            cut = min(train, 2 * len(open_rows) // 3)
            fit, rest, shut = open_rows[:cut], open_rows[cut : cut + train], mask.nonzero()[:, 0][:train]
            if not len(shut) or not len(rest):
                continue  # rows that hold none of these pairs, or nothing else
            trials.append(_Trial(fit, rest, shut, [a, b]))
    if not trials:
        raise ValueError("too few rows: none of the combinations that would be kept back occurs")
    return trials, cells


def withheld(first: int, second: int, share: float, generator: torch.Generator) -> Tensor:
    """Mask [first, second] of pairs of values that are kept back: about `share`, each value being seen beside two
    others or more, since a value that is seen beside one alone is read from that one. Both have three values or
    more."""
    longest, shortest = max(first, second), min(first, second)
    run = max(1, min(round(share * longest), shortest - FEWEST + 1))
    a, b = (torch.randperm(n, generator=generator) for n in (first, second))
    return (a[:, None] + b) % longest < run
