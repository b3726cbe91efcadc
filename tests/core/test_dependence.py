"""Factors that tell of each other: what is reported, and that chance is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score

from distk import CodeTable, evaluate
from distk.dependence import dependences
from distk.testing import synthetic_table


def _table(factors: np.ndarray, kinds: tuple[str, ...] = ()) -> CodeTable:
    truth = torch.from_numpy(factors)
    k = factors.shape[1]
    sizes = tuple(len(np.unique(c)) for c in factors.T)
    names = tuple(f"f{i}" for i in range(k))
    codes = torch.zeros(len(factors), 1)
    return CodeTable(codes, ["c"], ["continuous"], truth, names, sizes, kinds or ("ordinal",) * k)


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_information_by_scikit_learn(rng: np.random.Generator) -> None:
    a = rng.integers(0, 5, 2000)
    b = np.where(rng.random(2000) < 0.5, a, rng.integers(0, 5, 2000))
    (one,) = dependences(_table(np.stack([a, b, rng.integers(0, 3, 2000)], 1)))
    assert (one.first, one.second) == ("f0", "f1")
    assert one.nats == pytest.approx(mutual_info_score(a, b), abs=1e-9)
    smaller = min(scipy_entropy(np.bincount(x)) for x in (a, b))
    assert one.share == pytest.approx((one.nats - one.by_chance) / smaller)
    # What a finite table seems to have: (5 - 1)(5 - 1) / 2n, to a few deviations of 20 shuffles.
    assert one.by_chance == pytest.approx(16 / 4000, rel=0.5)


def test_independent_factors_are_not_reported(rng: np.random.Generator) -> None:
    """Fifteen pairs; a deviation of 5 is passed by chance in about one of a million where the tails are normal, and by
    the chi-square tails of few values (1 degree of freedom: mean 1, deviation 1.4) in about one of 10 000."""
    sizes = [3, 4, 40, 5, 30, 6]
    assert dependences(_table(np.stack([rng.integers(0, s, 500) for s in sizes], 1))) == []
    assert dependences(synthetic_table()) == [], "a full grid"
    assert dependences(_table(np.zeros((50, 2), int))) == []


def test_real_numbers_and_functions(rng: np.random.Generator) -> None:
    x = rng.normal(size=1000)
    (one,) = dependences(_table(np.stack([x, -3 * x + 1], 1), ("continuous",) * 2))
    assert one.share > 0.9


def test_it_is_told_by_default(rng: np.random.Generator, tmp_path: Path, distk_command) -> None:
    a = rng.integers(0, 4, 600)
    factors = np.stack([a, np.where(rng.random(600) < 0.8, a, 0), rng.integers(0, 3, 600)], 1)
    path = tmp_path / "codes.npz"
    np.savez(path, codes=rng.normal(size=(600, 2)), factors=factors, factor_names=["hue", "size", "pose"])
    code, out, _ = distk_command("eval", "--codes", path, "--metric", "mig", "--json")
    assert code == 0
    (pair,) = json.loads(out)["provenance"]["dependent_factors"]
    assert pair["factors"] == ["hue", "size"]
    assert 0 < pair["by_chance"] < pair["nats"]
    _, out, err = distk_command("eval", "--codes", path, "--metric", "mig")
    assert "hue and size" in out + err
    assert "dependent-gaps" in out + err
    assert "dependent_factors" not in evaluate(synthetic_table(), ["mig"])["provenance"]
