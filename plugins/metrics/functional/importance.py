"""DCI: disentanglement, completeness and informativeness from the importances of per-factor predictors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import checks
from .blocks import room, spans
from .boosting import gradient_boosting
from .checks import Array, Result
from .indicators import indicators, summed
from .probes import networks
from .quantities import Kinds, Targets, columns_of, targets
from .sentences import Sentence
from .shapley import sage
from .solvers import LinearClassifier, Standardised, lasso_gram

DEPTHS: tuple[int | None, ...] = (2, 3, 4, 5, 6, 8, 10, 12, None)


class _Columns(NamedTuple):
    """Readers of M columns: importance [D, M] >= 0; squared errors and variances [M] on (train, test); predict: raw
    codes [m, D] -> columns [m, M]; signed weights [D, M] of the lasso."""

    importance: Tensor
    error: tuple[Tensor, Tensor]
    spread: tuple[Tensor, Tensor]
    predict: Callable[[Tensor], Tensor]
    weights: Tensor | None = None


class _Fit(NamedTuple):
    """importance [D, K'] >= 0; error or accuracy per factor on train and test [K']; signed weights of the
    lasso; predict: raw codes [m, D] -> the columns of the factors as standardised for training.
    """

    importance: np.ndarray
    train: np.ndarray
    test: np.ndarray
    weights: np.ndarray | None = None
    predict: Callable[[Tensor], Tensor] | None = None


def dci(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    predictor: str = "gbt",
    seed: int = 0,
    *,
    exact: bool = False,
    alpha: float = 0.02,
    depths: Sequence[int | None] = DEPTHS,
    trees: int = 10,
    factor_bins: int | None = None,
    n_jobs: int = 1,
    regress: Sequence[int] = (),
    importances: str = "impurity",
    hidden: int = 64,
    further: Mapping[str, tuple[Array, Array]] | None = None,
    kinds: Kinds | None = None,
    discrete: Sequence[int] = (),
) -> Result:
    """Disentanglement, completeness, informativeness (Eastwood & Williams 2018).

    With importances R_dk >= 0 of code d for factor k: D_d = 1 - H_K(R_d. / sum_k R_dk), disentanglement =
    sum_d rho_d D_d with rho_d = sum_k R_dk / sum R; C_k = 1 - H_D(R_.k / sum_d R_dk), completeness = their
    mean. Both in [0, 1], higher is better; K counts kept factors, D all codes (dead codes too).
    predictor 'gbt' (disentanglement_lib, discrete factors): gradient boosting on raw codes; informativeness =
    mean ACCURACY, higher is better; zero rows get D_d = 0; completeness weighted by column sums. Our own
    booster, which tries the same splits, is used unless `exact=True` (scikit-learn's, minutes; `n_jobs` processes over
    factors).
    The columns `regress` of continuous factors get scikit-learn's gradient-boosted regression, and R^2 for accuracy.
    predictor 'lasso' (alpha) and 'rf' (`trees` trees, impurity importance or, with importances='splits', the
    share of a forest's splits that are made on a code; depth chosen among `depths` on the
    last ninth of the training rows): the paper's, for continuous factors; codes and targets standardised by
    the training rows; nrmse = their error over the
    factor's deviation, mean over factors, LOWER is better; a zero row has D_d = NaN and weight 0; a
    zero column C_k = 0. predictor 'mlp' (Eastwood et al. 2023): the same with a network of two hidden layers of
    `hidden` units for each factor, and for importances the Shapley values of its squared error on test rows
    (`shapley.sage`; at least 0). codes [n, D], factors [n, K]; without test rows 2/3 : 1/3 in order.
    Keys: disentanglement, completeness, informativeness_train and informativeness_test (gbt) or nrmse_train and
    nrmse_test (lasso, rf, mlp), disentanglement_per_code [D], completeness_per_factor [K], importance [D, K],
    code_weight [D], informativeness_per_factor or nrmse_per_factor [K] (test), codes_used, weights [D, K] (lasso,
    signed; NaN for a factor of several columns). kinds: factors that are no quantities, for lasso, rf and mlp: None for
    classes, foretold by their indicators, or the period of a circular one, foretold by cosine and sine; importances and
    squared errors are the means over a factor's columns. further: name -> (codes, factors) of other rows, for lasso,
    rf and mlp, scored by the same predictors; each adds nrmse_NAME, nrmse_NAME_per_factor [K], the error over the
    deviation of these rows, and rmse_NAME_per_factor [K], over that of the training rows. discrete: codes that are
    class indices, read by their indicators; the importance of such a code is the sum over its indicators (of networks,
    the Shapley value of all together), and it has no weight of a sign.
    """
    checks.one_of(predictor, ("gbt", "lasso", "rf", "mlp"), "predictor")
    checks.one_of(importances, ("impurity", "splits"), "importances")
    whole, f, whole_test, ft = checks.split(codes, factors, codes_test, factors_test, gaps=True)
    (c, ct), owner = indicators(whole, discrete, whole_test)
    if predictor == "gbt":
        labels = checks.discrete(checks.stand_ins(f, regress), factor_bins, rows=len(codes))
        fit = _trees(c, f, ct, ft, labels, regress, seed, exact, n_jobs)
    else:
        kept, dropped = checks.varying(f)
        labels = checks.Labels([], [], kept, f.shape[1], dropped)
        fitted: Mapping[str, Callable[[Tensor, Tensor, Tensor, Tensor, list[int]], _Columns]] = {
            "lasso": lambda x, y, xt, yt, of: _lasso(x, y, xt, yt, alpha),
            "mlp": lambda x, y, xt, yt, of: _network(x, y, xt, yt, seed, hidden, owner),
            "rf": lambda x, y, xt, yt, of: _forest(x, y, xt, yt, of, tuple(depths), trees, seed, importances),
        }
        wanted = targets(f[:, kept], ft[:, kept], {kept.index(k): v for k, v in (kinds or {}).items() if k in kept})
        fit = _known(fitted[predictor], c, ct, wanted)
    importance = fit.importance
    if predictor != "mlp":  # whose Shapley values are of codes as they are
        importance = summed(torch.from_numpy(importance), owner).numpy()
    scores, reasons = concentration(importance, smooth=predictor == "gbt")
    for key, text in labels.explain("disentanglement").items():
        reasons[key] = Sentence.joined([text, reasons.get(key, "")])
    read = "informativeness" if predictor == "gbt" else "nrmse"
    scores["completeness_per_factor"] = labels.widen(scores["completeness_per_factor"])
    result = scores | {
        f"{read}_train": float(fit.train.mean()),
        f"{read}_test": float(fit.test.mean()),
        f"{read}_per_factor": labels.widen(fit.test),
        "importance": labels.widen(importance),
        "codes_used": float(checks.live_codes(whole).sum()),
    }
    if fit.weights is not None:
        result["weights"] = labels.widen(_of_plain(fit.weights, owner, discrete))
    for name, (x, y) in (further or {}).items():
        if predictor == "gbt":
            raise ValueError("further rows are scored by the predictors lasso, rf and mlp alone")
        x, y = checks.paired(x, y, f"_{name}")
        x = indicators(whole, discrete, x.to(whole.device))[0][1]
        result |= _further(name, x, y, f, labels, fit, wanted)
    return checks.finish(result, reasons)


def _of_plain(weights: np.ndarray, owner: Sequence[int], discrete: Sequence[int]) -> np.ndarray:
    """Weights [D, K] of the columns `owner` of codes; NaN for a code that is read by its indicators."""
    signed = np.full((max(owner) + 1, weights.shape[1]), np.nan)
    plain = [d for d in range(len(signed)) if d not in discrete]
    signed[plain] = weights[[owner.index(d) for d in plain]]
    return signed


def _known(
    fitted: Callable[[Tensor, Tensor, Tensor, Tensor, list[int]], _Columns], c: Tensor, ct: Tensor, y: Targets
) -> _Fit:
    """Readers of all factors at once; where some lack values, of each on the rows that have one."""
    parts: list[tuple[list[int], checks.Rows, checks.Rows]] = [([*range(len(y.owner))], slice(None), slice(None))]
    if bool(y.train.isnan().any() | y.test.isnan().any()):
        groups = [columns_of(y.owner, k) for k in range(max(y.owner) + 1)]
        parts = [(own, checks.present(y.train[:, own[0]]), checks.present(y.test[:, own[0]])) for own in groups]
    fits = []
    for own, rows, asked in parts:
        owner = [y.owner[m] for m in own]
        fits.append(fitted(c[rows], y.train[rows][:, own], ct[asked], y.test[asked][:, own], owner))
    importance = y.pooled(torch.cat([fit.importance for fit in fits], 1))
    weights = [fit.weights for fit in fits if fit.weights is not None]
    signed = None
    if weights:  # a factor of several columns has no sign
        every, single = torch.cat(weights, 1), [y.owner.count(k) == 1 for k in y.owner]
        signed = y.pooled(every.masked_fill(~torch.tensor(single, device=every.device), torch.nan))
    error, spread = (
        [y.pooled(torch.cat([part[i] for part in of])) for i in (0, 1)]
        for of in ([fit.error for fit in fits], [fit.spread for fit in fits])
    )
    train, test = (_nrmse(*pair) for pair in zip(error, spread, strict=True))
    return _Fit(
        importance.cpu().numpy(),
        train.cpu().numpy(),
        test.cpu().numpy(),
        None if signed is None else signed.cpu().numpy(),
        lambda other: torch.cat([fit.predict(other) for fit in fits], 1),
    )


def _further(name: str, x: Tensor, y: Tensor, f: Tensor, labels: checks.Labels, fit: _Fit, wanted: Targets) -> Result:
    """The errors of fitted predictors on other rows: codes x [m, D], factors y [m, K]; f: training factors."""
    kept = labels.kept
    target = wanted.of(y[:, kept].to(f.device))
    assert fit.predict is not None
    prediction = fit.predict(x.to(f.device)).to(f.device)
    error = wanted.pooled((prediction - target).square().mean(0))
    own = labels.widen(_nrmse(error, wanted.pooled(target.var(0, correction=0))))
    return {
        f"nrmse_{name}": float(own[kept].mean()),
        f"nrmse_{name}_per_factor": own,
        f"rmse_{name}_per_factor": labels.widen(error.sqrt()),
    }


def concentration(r: np.ndarray, smooth: bool) -> tuple[Result, dict[str, str]]:
    """Disentanglement and completeness of importances r [D, K].

    `smooth`: disentanglement_lib's 1e-11 inside the entropies, so that a zero row scores 0 instead of being
    undefined.
    """
    from scipy.stats import entropy as scipy_entropy

    d, k = r.shape
    rows, columns, total = r.sum(1), r.sum(0), r.sum()
    reasons: dict[str, str] = {}
    floor = 1e-11 if smooth else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        per_code = 1 - scipy_entropy(r.T + floor, base=k) if k > 1 else np.full(d, np.nan)
        per_factor = 1 - scipy_entropy(r + floor, base=d) if d > 1 else np.full(k, np.nan)
    weight = rows / total if total > 0 else np.full(d, 1 / d)
    disentanglement, completeness = float("nan"), float("nan")
    if k == 1:
        reasons["disentanglement"] = "undefined for a single factor"
    elif smooth:
        disentanglement = float((weight * per_code).sum())
    elif total > 0:
        disentanglement = float((weight * np.where(rows > 0, per_code, 0.0)).sum())
    else:
        reasons["disentanglement"] = "every importance is zero"
    if not smooth:
        per_code = np.where(rows > 0, per_code, np.nan)
        if k > 1 and (rows == 0).any():
            reasons["disentanglement_per_code"] = "codes of zero importance have no disentanglement"
    if d == 1:
        reasons["completeness"] = "undefined for a single code"
    else:
        per_factor = np.where(columns > 0, per_factor, 0.0)
        share = columns / total if smooth and total > 0 else np.full(k, 1 / k)
        completeness = float((share * per_factor).sum())
    scores: Result = {
        "disentanglement": disentanglement,
        "completeness": completeness,
        "disentanglement_per_code": per_code,
        "completeness_per_factor": per_factor,
        "code_weight": weight,
    }
    return scores, reasons


def _trees(
    x: Tensor,
    f: Tensor,
    x_test: Tensor,
    f_test: Tensor,
    labels: checks.Labels,
    regress: Sequence[int],
    seed: int,
    exact: bool,
    n_jobs: int,
) -> _Fit:
    """Boosted trees for every factor: of its classes, or of the values of those of `regress`."""
    fit = _boosted(x, labels, x_test, f_test, regress, seed, exact, n_jobs)
    for k in (labels.kept.index(k) for k in regress if k in labels.kept):
        rows, column = labels.take(k), labels.kept[k]
        asked = checks.present(f_test[:, column])
        found = _regressed(x[rows], f[rows, column], x_test[asked], f_test[asked, column], seed)
        fit.importance[:, k], fit.train[k], fit.test[k] = found
    return fit


def _boosted(
    x: Tensor,
    labels: checks.Labels,
    x_test: Tensor,
    f_test: Tensor,
    regress: Sequence[int],
    seed: int,
    exact: bool,
    n_jobs: int,
) -> _Fit:
    """Boosted trees for every discrete factor; those of `regress` are left for `_regressed`."""
    from joblib import Parallel, delayed

    y_test = labels.encode(f_test)

    def parts(k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, asked = labels.take(k), checks.present(f_test[:, labels.kept[k]])
        return x[rows], labels.of(k, rows), x_test[asked], y_test[asked, k]

    def fast(k: int) -> tuple[np.ndarray, float, float]:
        if labels.kept[k] in regress:
            return np.zeros(x.shape[1]), 0.0, 0.0
        own, y, own_test, truth = parts(k)
        model = gradient_boosting(own, y, labels.sizes[k], own_test, seed=seed)
        hits = [float((s.argmax(1) == t).double().mean()) for s, t in ((model.scores, y), (model.scores_test, truth))]
        return model.importance.cpu().numpy(), hits[0], hits[1]

    count = len(labels.kept)
    if exact:
        arrays = [[a.cpu().numpy() for a in parts(k)] for k in range(count)]
        fits = Parallel(n_jobs=n_jobs)(delayed(_sklearn_boosted)(*of, seed) for of in arrays)
    else:
        fits = [fast(k) for k in range(count)]
    importance, train, test = zip(*fits, strict=True)
    return _Fit(np.stack(importance, 1), np.array(train), np.array(test))


def _sklearn_boosted(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> tuple[np.ndarray, float, float]:
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(random_state=seed).fit(x, y)
    hits = [float((model.predict(a) == b).mean()) for a, b in ((x, y), (x_test, y_test))]
    return model.feature_importances_, hits[0], hits[1]


def _regressed(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, seed: int) -> tuple[np.ndarray, float, float]:
    """Importances [D] and R^2 on both sets of gradient-boosted regression of one real-valued factor."""
    from sklearn.ensemble import GradientBoostingRegressor

    arrays = [a.cpu().numpy() for a in (x, y, x_test, y_test)]
    model = GradientBoostingRegressor(random_state=seed).fit(arrays[0], arrays[1])
    train, test = (float(model.score(a, b)) for a, b in (arrays[:2], arrays[2:]))
    return model.feature_importances_, train, test


def _errors(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """`error` and `spread` of `_Columns` from (prediction, target) [n, M] of both sets of rows."""
    error = tuple((a - b).square().mean(0) for a, b in (train, test))
    spread = tuple(b.var(0, correction=0) for _, b in (train, test))
    return {"error": (error[0], error[1]), "spread": (spread[0], spread[1])}


def _nrmse(error: Tensor, variance: Tensor) -> Tensor:
    """Root mean square error over the target's own standard deviation; NaN for a constant target."""
    return (error / variance.where(variance > 0, torch.full_like(variance, torch.nan))).sqrt()


def _lasso(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, alpha: float) -> _Columns:
    read = Standardised.of(x)
    gram, product = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1], y.shape[1])
    for at in spans(len(x), x.shape[1], room(x)):
        part = read.rows(at)
        gram.addmm_(part.T, part)
        product.addmm_(part.T, y[at])
    w = lasso_gram(gram / len(x), product / len(x), alpha)  # both sides are centred: no intercept
    line = LinearClassifier(w, w.new_zeros(w.shape[1]))
    errors = _errors((line.logits(read), y), (line.logits(read.like(x_test)), y_test))
    return _Columns(w.abs(), predict=lambda other: line.logits(read.like(other)), weights=w, **errors)


def _forest(
    x: Tensor,
    y: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    owner: list[int],
    depths: tuple[int | None, ...],
    trees: int,
    seed: int,
    importances: str = "impurity",
) -> _Columns:
    """One random forest per factor; its depth is the best on the last ninth of the rows (80 : 10 : 10 with
    the test).
    """
    from sklearn.ensemble import RandomForestRegressor

    inputs, inputs_test = (a.cpu().numpy() for a in checks.standardise(x, x_test))
    cut = len(x) - max(1, len(x) // 9)
    importance: list[Tensor] = []
    train: list[Tensor] = []
    test: list[Tensor] = []
    chosen = []
    for k in dict.fromkeys(owner):
        own = columns_of(owner, k)
        target = y[:, own].cpu().numpy()
        target = target[:, 0] if len(own) == 1 else target
        models = [
            RandomForestRegressor(trees, max_depth=depth, random_state=seed).fit(inputs[:cut], target[:cut])
            for depth in depths
        ]
        errors = [float(np.square(m.predict(inputs[cut:]) - target[cut:]).mean()) for m in models]
        best = models[int(np.argmin(errors))]
        chosen.append(best)
        share = best.feature_importances_ if importances == "impurity" else _split_shares(best)
        importance += [torch.from_numpy(share)] * len(own)
        for found, rows in ((train, inputs[:cut]), (test, inputs_test)):
            found.append(torch.from_numpy(best.predict(rows)).view(len(rows), -1))

    def predict(other: Tensor) -> Tensor:
        rows = checks.standardise(x, other)[1].cpu().numpy()
        return torch.cat([torch.from_numpy(model.predict(rows)).view(len(rows), -1) for model in chosen], 1)

    pairs = (torch.cat(train, 1), y[:cut].cpu()), (torch.cat(test, 1), y_test.cpu())
    return _Columns(torch.stack(importance, 1), predict=predict, **_errors(*pairs))


def _network(
    x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, seed: int, hidden: int, codes: list[int]
) -> _Columns:
    """A network per column; what each code contributes to it by its Shapley value on the test rows. codes: the one that
    each column of x belongs to."""
    raw = x
    x, x_test = checks.standardise(x, x_test)
    foretell = networks(x, y[:, :, None], seed=seed, hidden=hidden)
    errors = _errors((foretell(x)[:, :, 0], y), (foretell(x_test)[:, :, 0], y_test))
    importance = sage(foretell, x_test, y_test[:, :, None], seed=seed, owner=codes).clamp_min(0)
    return _Columns(importance, predict=lambda other: foretell(checks.standardise(raw, other)[1])[:, :, 0], **errors)


def _split_shares(forest: Any) -> np.ndarray:
    """Share of the splits of all trees that are made on each code, [D]; zeros for trees without any."""
    places = np.concatenate([tree.tree_.feature for tree in forest.estimators_])
    counts = np.bincount(places[places >= 0], minlength=forest.n_features_in_).astype(float)
    return counts / max(1.0, counts.sum())
