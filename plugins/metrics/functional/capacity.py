"""DCI-ES: how large must a reader be that finds the factors in a code (Eastwood et al. 2023)?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import checks
from .blocks import spans
from .checks import Array, Result
from .importance import concentration
from .indicators import indicators
from .probes import networks
from .shapley import Predict, sage

FEATURES = (0, 2, 4, 8, 16, 32, 64, 128, 256, 512)
WIDTHS = (0, 2, 4, 8, 16, 32, 64, 128, 256)
DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
NEAR = 0.01
"""Loss above the best at which a smaller probe serves as well."""
PART = 1 << 19
"""Numbers of the features that are made at a time."""
PROBES = ("rff", "mlp", "rf")
DRAWS = {"orderings": 16, "others": 16}
"""What is drawn for importances, of which half as many serve as for `dci`: readers are asked for each size."""


class Curve(NamedTuple):
    """capacity [P], growing; loss [P, K] on test rows as a share of a constant guess's; predict: for each factor the
    smallest probe whose loss is within 0.01 of the best, standardised codes [m, D] -> [m, K, T]."""

    capacity: Tensor
    loss: Tensor
    predict: Predict


class Targets(NamedTuple):
    """Factors as regression targets [n, K, T]: a standardised column, or the centred indicators of a categorical one,
    each scaled so that a constant guess costs about 1 on its rows; unused columns are 0."""

    train: Tensor
    test: Tensor


def dci_es(
    codes: Array,
    factors: Array,
    codes_test: Array | None = None,
    factors_test: Array | None = None,
    probe: str = "rff",
    categorical: Sequence[int] = (),
    seed: int = 0,
    discrete: Sequence[int] = (),
) -> Result:
    """DCI-ES: disentanglement, completeness, informativeness, explicitness, size (Eastwood et al. 2023).

    Probes of growing capacity foretell every factor [n, K] from codes [n, D]; their squared error on test rows, over
    that of a constant guess, is the loss-capacity curve l(c), of which the running minimum counts. With l* its end:
    explicitness E_k = 1 - 2 area(l - l*) / ((c_last - c_first) l_b), l_b = 1 the constant guess, as the authors'
    program has it; explicitness_relative has l_b - l* instead of l_b, so that a straight line down from the guess to l*
    has 0. 1: the smallest probe reads all that can be read; so it does from a code that tells NOTHING, so that E
    means nothing without informativeness. informativeness = 1 - l*; size = K / D (K kept factors, D codes), which may
    exceed 1. Disentanglement and completeness are those of `dci` with the Shapley values of the smallest probes
    that read as well as the best (within 0.01).
    probe: 'rff' (least squares on the codes and random Fourier features, capacity = log of the weights), 'mlp' (linear,
    then one hidden layer of growing width, log of the weights with one output), 'rf' (random forests, depth).
    categorical: columns whose values have no order, foretold by indicators. discrete: codes that are class indices,
    read by indicators, each still one code. Without test rows 2/3 : 1/3 in order. Keys:
    those, loss [P, K], capacity [P], importance [D, K], disentanglement_per_code [D], explicitness_per_factor,
    informativeness_per_factor, completeness_per_factor [K].
    """
    checks.one_of(probe, PROBES, "probe")
    c, f, ct, ft = checks.split(codes, factors, codes_test, factors_test)
    kept, dropped = checks.varying(f)
    (wide, wide_test), owner = indicators(c, discrete, ct)
    x, xt = checks.standardise(wide, wide_test)
    y = targets(f[:, kept], ft[:, kept], [kept.index(k) for k in categorical if k in kept])
    makers: dict[str, Callable[[], Curve]] = {
        "rff": lambda: _fourier(x, y, xt, seed),
        "mlp": lambda: _networks(x, y, xt, seed),
        "rf": lambda: _forests(x, y, xt, seed),
    }
    curve = makers[probe]()
    loss = curve.loss.cummin(0).values
    # A reader may always guess: a loss above that of a guess is not counted.
    explicit, relative = explicitness(curve.capacity, loss.clamp_max(1))
    importance = sage(curve.predict, xt, y.test, seed=seed, owner=owner, **DRAWS).clamp_min(0).cpu().numpy()
    scores, reasons = concentration(importance, smooth=False)

    def widened(values: Tensor | np.ndarray) -> np.ndarray:
        array = values.cpu().numpy() if isinstance(values, Tensor) else values
        found = np.full((*array.shape[:-1], f.shape[1]), np.nan)
        found[..., kept] = array
        return found

    informed = 1 - loss[-1]
    result = scores | {
        "completeness_per_factor": widened(scores["completeness_per_factor"]),
        "informativeness": float(informed.mean()),
        "explicitness": float(explicit.mean()),
        "explicitness_relative": float(relative.nanmean()),
        "size": len(kept) / c.shape[1],
        "explicitness_per_factor": widened(explicit),
        "informativeness_per_factor": widened(informed),
        "importance": widened(importance),
        "loss": widened(curve.loss),
        "capacity": checks.array(curve.capacity),
    }
    if bool(relative.isnan().all()):
        reasons["explicitness_relative"] = "no probe foretells anything better than a constant guess does"
    return checks.finish(result, {**dropped, **reasons})


def explicitness(capacity: Tensor, loss: Tensor, guess: float = 1.0) -> tuple[Tensor, Tensor]:
    """E of loss-capacity curves that do not rise, loss [P, K] over capacity [P]: with `guess`, and with `guess` minus
    the best loss, in the denominator. The latter is NaN where the best loss is within 0.01 of the guess."""
    above = loss - loss[-1]
    area = torch.trapezoid(above, capacity, dim=0)
    length = capacity[-1] - capacity[0]
    gain = guess - loss[-1]
    relative = torch.where(gain > NEAR, 1 - 2 * area / (length * gain.clamp_min(NEAR)), torch.nan)
    return 1 - 2 * area / (length * guess), relative


def targets(train: Tensor, test: Tensor, categorical: Sequence[int]) -> Targets:
    """See `Targets`. train [n, K], test [m, K]."""
    columns = []
    for k in range(train.shape[1]):
        a, b = train[:, k : k + 1], test[:, k : k + 1]
        if k in categorical:
            values = train[:, k].unique()
            a, b = ((part == values).to(train.dtype) for part in (a, b))
        mean = a.mean(0)
        spread = (a - mean).square().mean(0).sum().sqrt()
        columns.append(((a - mean) / spread, (b - mean) / spread))
    widest = max(a.shape[1] for a, _ in columns)

    def stacked(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.nn.functional.pad(part, (0, widest - part.shape[1])) for part in parts], 1)

    return Targets(stacked([a for a, _ in columns]), stacked([b for _, b in columns]))


def _loss(foretold: Tensor, target: Tensor) -> Tensor:
    """Squared error over that of the training rows' mean, [K]; both [m, K, T]."""
    base = target.square().sum(2).mean(0)
    return (foretold - target).square().sum(2).mean(0) / base.clamp_min(torch.finfo(base.dtype).tiny)


def _curve(capacity: Sequence[float], probes: Sequence[Predict], xt: Tensor, y: Targets) -> Curve:
    """The curve of fitted probes. For importances a larger probe than needed would be asked about codes that never
    occur together, of which it knows nothing and says anything."""
    loss = torch.stack([_loss(probe(xt), y.test) for probe in probes])
    best = (loss <= loss.amin(0) + NEAR).double().argmax(0).tolist()

    def predict(x: Tensor) -> Tensor:
        made = {i: probes[i](x) for i in set(best)}
        return torch.stack([made[i][:, k] for k, i in enumerate(best)], 1)

    return Curve(torch.tensor(capacity, dtype=torch.float64, device=xt.device), loss, predict)


def _fourier(x: Tensor, y: Targets, xt: Tensor, seed: int) -> Curve:
    """Least squares on the codes and cos(w.x + b), w ~ N(0, 1 / D): the first features are the same for every size."""
    n, d = x.shape
    generator = torch.Generator().manual_seed(seed)
    # Drawn feature by feature, so that a smaller probe is a part of a larger one.
    drawn = torch.randn(FEATURES[-1], d + 1, generator=generator, dtype=torch.float64).to(x.device)
    frequency, phase = drawn[:, :d].T / d**0.5, 3 * drawn[:, d]
    sizes = [size for size in FEATURES if d + size + 1 <= n // 4 or size == 0]

    def features(part: Tensor, size: int) -> Tensor:
        waves = torch.cos(part @ frequency[:, :size] + phase[:size])
        return torch.cat([part, waves, torch.ones_like(part[:, :1])], 1)

    def fitted(size: int) -> Predict:
        width = d + size + 1
        made = ((features(x[at], size), y.train[at]) for at in spans(n, width, PART))
        read = _least_squares(made, n, y.train.shape[1:])

        def predict(part: Tensor) -> Tensor:
            return torch.cat([read(features(part[at], size)) for at in spans(len(part), width, PART)])

        return predict

    capacity = [math.log(d + size + 1) for size in sizes]
    return _curve(capacity, [fitted(size) for size in sizes], xt, y)


def _least_squares(pairs: Iterable[tuple[Tensor, Tensor]], rows: int, shape: Sequence[int]) -> Predict:
    """y [n, K, T] by a linear map of z [n, D], whose `rows` rows come in parts; a hair of ridge for codes that are
    copies. shape: K and T."""
    gram, product = torch.zeros(()), torch.zeros(())
    for z, y in pairs:
        gram, product = gram.to(z) + z.T @ z, product.to(z) + z.T @ y.flatten(1)
    gram += 1e-5 * rows * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weight = torch.linalg.solve(gram, product)
    return lambda part: (part @ weight).view(len(part), *shape)


def _networks(x: Tensor, y: Targets, xt: Tensor, seed: int) -> Curve:
    """A linear map, then networks of one hidden layer of growing width, one for each factor."""
    d = x.shape[1]
    probes = [_least_squares([(x, y.train)], len(x), y.train.shape[1:])]
    probes += [networks(x, y.train, seed=seed, hidden=w, layers=1) for w in WIDTHS[1:]]
    weights = [(d + 1) * w + w + 1 if w else d + 1 for w in WIDTHS]
    return _curve([math.log(count) for count in weights], probes, xt, y)


def _forests(x: Tensor, y: Targets, xt: Tensor, seed: int) -> Curve:
    """Random forests of ten trees, one for each factor, of growing depth."""
    from sklearn.ensemble import RandomForestRegressor

    inputs, goal = x.cpu().numpy(), y.train.cpu().numpy()

    def fitted(depth: int) -> Predict:
        models = [
            RandomForestRegressor(10, max_depth=depth, random_state=seed).fit(
                inputs, goal[:, k].squeeze(1) if goal.shape[2] == 1 else goal[:, k]
            )
            for k in range(goal.shape[1])
        ]

        def predict(part: Tensor) -> Tensor:
            found = [model.predict(part.cpu().numpy()).reshape(len(part), -1) for model in models]
            return torch.from_numpy(np.stack(found, 1)).to(part.device)

        return predict

    return _curve(DEPTHS, [fitted(depth) for depth in DEPTHS], xt, y)
