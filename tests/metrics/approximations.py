"""What the scores compute no further than they must, and how far that is from the whole: one table.

    python tests/metrics/approximations.py [--seeds 5]

Each row stops early, samples, or lays a grid; its error is that against the same score without (5 to 200 times as
many steps, all subsets, a finer grid), on codes of noise, on many codes, and on few rows, whichever is worst.
`test_approximations.py` holds the errors to what is allowed here; `tests/mutants/metrics.toml` makes every one coarser.
Numbers that a paper or its program fixes (20 bins, 10,000 votes, 10 trees) are definitions and stand elsewhere.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from distk import CodeTable, dependence
from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional import capacity, importance, neighbours, predictors, probes, unseen
from distk.plugins.metrics.functional.boosting import gradient_boosting
from distk.plugins.metrics.functional.shapley import sage

KINDS = ("noise", "many codes", "few rows")


class Approximation(NamedTuple):
    """what: is left out; where: it stands; error: largest difference to the whole, of a kind of codes and a seed, in
    the score's own unit; allowed: what the test lets pass. kinds: where it can be tried."""

    name: str
    what: str
    error: Callable[[str, int], float]
    allowed: float
    kinds: tuple[str, ...] = KINDS


def hard(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and two factors of 2 and 4 values that are hard to read."""
    rng = np.random.default_rng(seed)
    n = 90 if kind == "few rows" else 600
    f = np.stack([rng.permutation(np.arange(n) % size) for size in (2, 4)], 1)
    if kind == "noise":
        return rng.normal(size=(n, 6)), f
    if kind == "many codes":
        return f @ rng.normal(size=(2, 20)) + 0.6 * rng.normal(size=(n, 20)), f
    return f @ rng.normal(size=(2, 4)) + 0.6 * rng.normal(size=(n, 4)), f


@contextmanager
def instead(module: Any, name: str, value: Any) -> Iterator[None]:
    """The module with another constant, or a function with other settings (a dict)."""
    own = getattr(module, name)
    setattr(module, name, functools.partial(own, **value) if isinstance(value, dict) else value)
    try:
        yield
    finally:
        setattr(module, name, own)


def apart(a: dict[str, Any], b: dict[str, Any], *keys: str) -> float:
    """The largest difference of these results."""
    return max(float(np.nanmax(np.abs(np.asarray(a[key]) - np.asarray(b[key])))) for key in keys)


CONVERGED = {"tol": 1e-9, "max_iter": 20_000}


def linear(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    own = fn.explicitness(c, f)
    with instead(predictors, "logistic_regression", CONVERGED):
        return apart(own, fn.explicitness(c, f), "explicitness_per_factor", "explicitness_per_factor_train")


def probe(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    own = fn.info_mec(c, f)
    with instead(neighbours, "logistic_regression", CONVERGED):
        return apart(own, fn.info_mec(c, f), "infoe_per_factor")


def few_labels(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    own = fn.downstream(c, f, sizes=(50,))
    with instead(predictors, "logistic_regression", CONVERGED):
        return apart(own, fn.downstream(c, f, sizes=(50,)), "accuracy")


def lasso(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    own = fn.dci(c, f, predictor="lasso")
    with instead(importance, "lasso_gram", {"tol": 0.0, "max_sweeps": 2000}):
        return apart(own, fn.dci(c, f, predictor="lasso"), "importance", "nrmse_per_factor")


def boosted(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    return apart(fn.dci(c, f), fn.dci(c, f, exact=True), "disentanglement", "completeness")


def quadrature(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    c, f = c[:90, :4], f[:90]
    narrow = np.random.default_rng(seed).uniform(-8, -1, c.shape)  # deviations from .02 to .6
    return apart(fn.mig_aggregate(c, narrow, f), fn.mig_aggregate(c, narrow, f, grid=1 << 15), "mutual_information")


def _shapley(kind: str, seed: int, **settings: int) -> float:
    """Of a reader with products of nine codes, one more than are asked for in every order: share of all gain."""
    c, f = hard(kind, seed)
    x = torch.from_numpy(np.tile(c, (1, 3))[:, :9] + 0.1 * np.random.default_rng(seed).normal(size=(len(c), 9)))
    weight = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def predict(rows: torch.Tensor) -> torch.Tensor:
        return ((rows @ weight) + (rows @ weight).square() / 4)[:, :, None]

    y = predict(x) + 0.1 * torch.from_numpy(f).double()[:, :, None]
    own = sage(predict, x, y, seed=seed, **settings)
    whole = sage(predict, x, y, seed=seed, orderings=57, rows=len(x), others=64)
    return float(((own - whole).abs() / whole.sum(0)).max())


def shapley(kind: str, seed: int) -> float:
    return _shapley(kind, seed)


def shapley_es(kind: str, seed: int) -> float:
    return _shapley(kind, seed, **capacity.DRAWS)


def capacities(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    own = fn.dci_es(c, f)
    finer = sorted({*capacity.FEATURES, *(round(1.3**i) for i in range(25))})
    with instead(capacity, "FEATURES", tuple(size for size in finer if size <= capacity.FEATURES[-1])):
        return apart(own, fn.dci_es(c, f), "explicitness_per_factor")


def networks(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    x, y = (torch.from_numpy((a - a.mean(0)) / a.std(0)) for a in (c, f.astype(float)))
    cut = 2 * len(x) // 3
    own, whole = (
        probes.networks(x[:cut], y[:cut, :, None], seed=seed, hidden=64, **more) for more in ({}, {"passes": 300})
    )
    error = [(read(x[cut:])[:, :, 0] - y[cut:]).square().mean(0).sqrt() for read in (own, whole)]
    return float((error[0] - error[1]).abs().max())


def network(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    return apart(fn.r2(c, f, predictor="mlp"), fn.r2(c, f, predictor="mlp", passes=500), "r2_per_factor")


def posteriors(kind: str, seed: int) -> float:
    c, _ = hard(kind, seed)
    c, std = c[:200, :4], np.full((min(200, len(c)), 4), 0.3)
    return apart(fn.sepin(c, std, seed=seed), fn.sepin(c, std, samples=20_000, seed=seed + 1), "wsepin")


def interventions(kind: str, seed: int) -> float:
    rng, sizes = np.random.default_rng(seed), (2, 4, 5)
    grid = np.array(list(itertools.product(*map(range, sizes))))
    width = {"noise": 6, "many codes": 20, "few rows": 3}[kind]
    c = rng.normal(size=(40, width)) + (0 if kind == "noise" else grid @ rng.normal(size=(3, width)))
    own = fn.fairness(c, sizes=sizes, predictor="lr", seed=seed)
    return apart(own, fn.fairness(c, sizes=sizes, predictor="lr", seed=seed, points=20_000), "unfairness")


def histograms(kind: str, seed: int) -> float:
    c, f = hard(kind, seed)
    f = np.stack([f[:, 1], np.roll(f[:, 1], 7)], 1)  # what is kept back has three values or more
    own = fn.combinations(c, f, predictor="gbt", seed=seed)

    def every_split(x: torch.Tensor, y: torch.Tensor, others: torch.Tensor, seed: int) -> torch.Tensor:
        return gradient_boosting(x, y, int(y.max()) + 1, others, seed=seed).scores_test.argmax(1)

    with instead(unseen, "_by_trees", every_split):
        return apart(own, fn.combinations(c, f, predictor="gbt", seed=seed), "seen", "unseen")


def parted(kind: str, seed: int) -> float:
    """Codes with equal values, which a hair of noise parts: by which noise must not matter."""
    c, f = hard(kind, seed)
    c = np.round(c, 1)
    return apart(
        fn.info_mec(c, f, seed=seed),
        {"nmi": np.mean([fn.info_mec(c, f, seed=s)["nmi"] for s in range(100, 120)], 0)},
        "nmi",
    )


def sampled_dependence(kind: str, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(6, (60_000,), generator=generator)
    second = torch.where(
        torch.rand(60_000, generator=generator) < 0.3, first, torch.randint(6, (60_000,), generator=generator)
    )
    f = torch.stack([first, second], 1)
    table = CodeTable(f.double(), ["a", "b"], ["continuous"] * 2, f, ("a", "b"), (6, 6), ("ordinal",) * 2)
    own = dependence.dependences(table)[0].share
    with instead(dependence, "ROWS", len(f)):
        return abs(own - dependence.dependences(table)[0].share)


APPROXIMATIONS = (
    Approximation("boosted trees", "none: every split is tried; equal ones by chance", boosted, 0.05, ("few rows",)),
    Approximation("logistic regression", "stops at a slope of 1e-4 or after 100 steps: AUC", linear, 0.01),
    Approximation("probe of infomec", "the same stop, without a penalty", probe, 0.03),
    Approximation("few labels", "the same stop, at every strength of the penalty: accuracy", few_labels, 0.05),
    Approximation("lasso", "stops where no weight moves by 1e-10", lasso, 1e-7),
    Approximation("aggregate posterior", "4,096 points, or as many as the narrowest asks: nats", quadrature, 1e-6),
    Approximation("Shapley values", "32 orders, 256 rows, 32 others (dci mlp): share of the gain", shapley, 0.3),
    Approximation("Shapley values of dci-es", "16 orders, 256 rows, 16 others", shapley_es, 0.4),
    Approximation("loss-capacity curve", "10 sizes of reader, straight lines between (dci-es)", capacities, 0.06),
    Approximation("networks of dci", "60 passes at most, stops after 10 without a better one: nrmse", networks, 0.12),
    Approximation("network of r2", "100 passes at most, the same stop", network, 0.15),
    Approximation("separability", "2,000 draws: nats", posteriors, 0.12),
    Approximation("interventions of fairness", "100 items with each value", interventions, 0.03),
    Approximation("trees of combinations", "255 bins instead of every split: accuracy", histograms, 0.1, ("few rows",)),
    Approximation("equal values", "parted by noise of 1e-10 of their size (infomec): share", parted, 0.08),
    Approximation("dependence of factors", "20,000 rows: share", sampled_dependence, 0.01, ("many codes",)),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3, help="draws of each kind of codes")
    parser.add_argument("--only", default="", help="a word of the name")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| what | stops, samples, grids | {' | '.join(KINDS)} | allowed |\n|---|---|{'---|' * len(KINDS)}---|")
    for one in APPROXIMATIONS:
        if given.only in one.name:
            worst = [max(one.error(k, s) for s in range(given.seeds)) if k in one.kinds else None for k in KINDS]
            cells = ["-" if x is None else f"{x:.1g}" if x < 0.001 else f"{x:.3f}" for x in worst]
            print(f"| {one.name} | {one.what} | {' | '.join(cells)} | {one.allowed:g} |", flush=True)


if __name__ == "__main__":
    main()
