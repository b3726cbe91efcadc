"""Our scores beside those of disentanglement_lib on the same codes.

    pip download --no-deps --no-binary :all: disentanglement-lib && tar xzf disentanglement_lib-1.5.tar.gz
    python benchmarks/score_peers.py --dlib disentanglement_lib-1.5 [--out FILE]

disentanglement_lib is not installed: it asks for TensorFlow 1. Its metrics need numpy and scikit-learn alone; what else
their modules import (gin, absl, six, TensorFlow) is replaced by stand-ins that do nothing. It samples "images" of which
its "representation" looks up the code, so that both read the same table. Boosted trees with `exact=True` are
scikit-learn's on both sides; sampled scores draw other rows.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from distk.plugins.metrics import functional as fn

SIZES = (3, 4, 6)
ROWS = 10_000
METRICS = "disentanglement_lib.evaluation.metrics"


def stand_ins() -> None:
    """Modules that the metrics of disentanglement_lib import and that these scores do not need."""

    def configurable(*args: Any, **rest: Any) -> Any:
        return args[0] if args and callable(args[0]) else lambda function: function

    gin = types.ModuleType("gin")
    gin.configurable, gin.REQUIRED = configurable, None  # type: ignore[attr-defined]
    absl, moves, six = (types.ModuleType(name) for name in ("absl", "six.moves", "six"))
    absl.logging = types.SimpleNamespace(info=lambda *a: None)  # type: ignore[attr-defined]
    moves.range, six.moves = range, moves  # type: ignore[attr-defined]
    named = {"gin": gin, "gin.tf": gin, "absl": absl, "six": six, "six.moves": moves}
    tf = types.ModuleType("tensorflow")
    tf.compat = types.SimpleNamespace(v1=types.SimpleNamespace())  # type: ignore[attr-defined]
    sys.modules.update({**named, "tensorflow": tf, "tensorflow.compat": tf, "tensorflow.compat.v1": tf})


class Table:
    """A grid as disentanglement_lib's ground-truth data: an "image" is the row's number."""

    factors_num_values = list(SIZES)
    num_factors = len(SIZES)

    def __init__(self) -> None:
        self.grid = np.array(list(itertools.product(*map(range, SIZES))))
        self.strides = np.array([int(np.prod(SIZES[k + 1 :])) for k in range(len(SIZES))])

    def sample_factors(self, count: int, state: np.random.RandomState) -> np.ndarray:
        return np.stack([state.randint(size, size=count) for size in SIZES], 1)

    def sample_observations_from_factors(self, factors: np.ndarray, state: np.random.RandomState) -> np.ndarray:
        return factors @ self.strides

    def sample(self, count: int, state: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        factors = self.sample_factors(count, state)
        return factors, factors @ self.strides

    def sample_observations(self, count: int, state: np.random.RandomState) -> np.ndarray:
        return self.sample(count, state)[1]


def codes_of(grid: np.ndarray) -> dict[str, np.ndarray]:
    """A noisy, a rotated and an overcomplete code of the grid, and noise."""
    rng = np.random.default_rng(0)
    unit = (grid - grid.mean(0)) / grid.std(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return {
        "noisy": unit + 0.3 * rng.normal(size=unit.shape),
        "rotated": unit @ rotation + 0.05 * rng.normal(size=unit.shape),
        "overcomplete": np.concatenate([unit, -unit, rng.normal(size=unit.shape)], 1) + 0.1 * rng.normal(size=(72, 9)),
        "noise": rng.normal(size=unit.shape),
    }


def side_by_side(codes: np.ndarray, table: Table, dlib: Callable[[str], Any]) -> dict[str, tuple[float, float]]:
    """{score: (ours, theirs)} of codes [72, D]."""
    state = np.random.RandomState(0)
    rows, tests = (table.sample(n, state) for n in (ROWS, ROWS // 2))
    c, f, ct, ft = codes[rows[1]], rows[0], codes[tests[1]], tests[0]
    turned = [a.T for a in (c, f, ct, ft)]
    utils = dlib("utils")

    binned = utils._histogram_discretize(turned[0], 20)
    information = utils.discrete_mutual_info(binned, turned[1])
    gaps = np.sort(information, 0)[::-1]
    theirs_mig = float(np.mean((gaps[0] - gaps[1]) / utils.discrete_entropy(turned[1])))
    dci = dlib("dci")
    importance, _, accuracy = dci.compute_importance_gbt(*turned)
    ours = fn.dci(c, f, ct, ft, exact=True)
    matrix = dlib("sap_score").compute_score_matrix(*turned, False)
    fair = dlib("fairness")
    utils.make_predictor_fn = lambda: lambda: LogisticRegression(max_iter=1000)
    unfair = fair.compute_fairness(table, lambda x: codes[x], np.random.RandomState(1), None, ROWS, 2000, 1000)
    ours_fair = fn.fairness(codes, sizes=SIZES, predictor="lr", points=2000, train=ROWS)
    modularity = float(dlib("modularity_explicitness").modularity(information))
    return {
        "mig": (fn.mig(c, f)["mig"], theirs_mig),
        "modularity": (fn.modularity(c, f)["modularity"], modularity),
        "dci disentanglement": (ours["disentanglement"], float(dci.disentanglement(importance))),
        "dci completeness": (ours["completeness"], float(dci.completeness(importance))),
        "dci informativeness": (ours["informativeness_test"], float(accuracy)),
        "sap": (fn.sap(c, f, ct, ft)["sap"], float(dlib("sap_score").compute_avg_diff_top_two(matrix))),
        "fairness (logistic)": (ours_fair["unfairness"], float(unfair["mean_fairness:mean_pred:mean_sens"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dlib", type=Path, required=True, help="the unpacked source of disentanglement_lib 1.5")
    parser.add_argument("--out", type=Path, help="keep the figures here, as JSON")
    options = parser.parse_args()
    stand_ins()
    sys.path.insert(0, str(options.dlib))
    table, found = Table(), {}
    for name, codes in codes_of(table.grid).items():
        pairs = side_by_side(
            codes, table, lambda m: importlib.import_module(f"disentanglement_lib.evaluation.metrics.{m}")
        )
        for score, (ours, theirs) in pairs.items():
            print(f"{name:14}{score:22}{ours:10.4f}{theirs:10.4f}{ours - theirs:10.4f}", flush=True)
        found[name] = {score: {"ours": ours, "disentanglement_lib": theirs} for score, (ours, theirs) in pairs.items()}
    if options.out:
        options.out.write_text(
            json.dumps({"rows": ROWS, "sizes": SIZES, "codes": found}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
