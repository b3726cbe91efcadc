"""Tables that are not as a score would like: gaps in the labels, one factor, two rows of each value, other types."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score, roc_auc_score

import distk
from distk import CodeTable, evaluate
from distk.errors import DistkError
from distk.plugins.metrics import functional as fn
from distk.registry import registry

sys.path.insert(0, str(Path(__file__).parent))
from calls import CALLS

ITEMS = {"reconstruction", "elbo", "prediction", "ksg", "fg-ari"}
"""Scores of items, frames and pixels."""
METRICS = [
    entry.name for entry in registry().entries("metric") if entry.plugin == "metrics" and entry.name not in ITEMS
]
UNLABELLED = {"unsupervised", "linear-correlation", "active-units", "separability"}
LESS: dict[str, Any] = {"reasoning.steps": 20, "downstream.sizes": (10, 100), "fairness.predictor": "lr"}
SIZES = (2, 3, 5)


def score(table: CodeTable, name: str) -> dict[str, Any]:
    own = {key: value for key, value in LESS.items() if key.startswith(f"{name}.")}
    return dict(evaluate(table, [name], repeats=1, on_error="row", **own)["metrics"][name])


def headline(name: str) -> str:
    return str(registry().find("metric", name).load().headline)


def known(rng: np.random.Generator, rows: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """Codes that follow the factors, a discrete one last, and factors."""
    factors = np.stack([rng.integers(0, size, rows) for size in SIZES], 1).astype(float)
    return np.concatenate([factors + 0.3 * rng.normal(size=factors.shape), factors[:, 1:2]], 1), factors


def table_of(codes: np.ndarray, factors: Any, kinds: tuple[str, ...]) -> CodeTable:
    told = ["continuous"] * (codes.shape[1] - 1) + ["categorical"]
    return distk.codes(codes, factors, std=np.full(codes.shape, 0.1), code_kinds=told, factor_kinds=list(kinds))


# Rows without a value of some factor


@pytest.mark.parametrize("name", METRICS)
def test_rows_without_a_value_are_left_out_and_counted(name: str, rng: np.random.Generator) -> None:
    codes, factors = known(rng)
    gaps = np.flatnonzero(rng.random(len(codes)) < 0.2)
    factors[gaps, 1] = np.nan
    found = score(table_of(codes, factors, ("categorical", "ordinal", "ordinal")), name)
    assert "error" not in found, found
    assert math.isfinite(found[headline(name)]), found
    told = " ".join(found.get("reasons", {}).values())
    if name in UNLABELLED or name in ("recall", "clsacc", "ari"):  # of the first factor, which has no gaps
        assert "no value" not in told
    else:
        assert "left out, without a value of every factor" in told or "factor 'f2' has no value in" in told, told


@pytest.mark.parametrize("name", ["recall", "clsacc", "ari"])
def test_rows_without_a_label(name: str, rng: np.random.Generator) -> None:
    codes, factors = known(rng)
    codes[:, -1] = factors[:, 0]
    gap = rng.random(len(codes)) < 0.2
    factors[gap, 0] = np.nan
    found = score(table_of(codes, factors, ("categorical", "ordinal", "ordinal")), name)
    rest = score(table_of(codes[~gap], factors[~gap], ("categorical", "ordinal", "ordinal")), name)
    assert found[headline(name)] == rest[headline(name)]
    assert f"{gap.sum()} of 900 rows left out, without a value of 'f1'" in found["reasons"]["rows"]


Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
PER_FACTOR: dict[str, Callable[[Split], np.ndarray]] = {
    "mig": lambda s: fn.mig(*s[:2])["mutual_information"],
    "modularity": lambda s: fn.modularity(*s[:2])["mutual_information"],
    "jemmig": lambda s: fn.jemmig(*s[:2])["jemmig_per_factor"],
    "infomec": lambda s: fn.info_mec(*s[:2], discrete_latents=[3])["nmi"],
    "infoe": lambda s: fn.info_mec(*s[:2], discrete_latents=[3])["infoe_per_factor"],
    "sap": lambda s: fn.sap(*s)["score_matrix"],
    "sap of numbers": lambda s: fn.sap(*s[:2], continuous=True)["score_matrix"],
    "dci": lambda s: fn.dci(*s)["importance"],
    "dci lasso": lambda s: fn.dci(*s, predictor="lasso")["importance"],
    "dci rf": lambda s: fn.dci(*s, predictor="rf", depths=(3,))["importance"],
    "dci of numbers": lambda s: fn.dci(*s, regress=(1,))["importance"][:, 1:],
    "downstream": lambda s: fn.downstream(*s, sizes=(50,))["accuracy"],
    "best dimension": lambda s: fn.best_dimension_auc(*s[:2])["auc"][1:4],
    "r2": lambda s: fn.r2(*s)["r2_per_factor"],
    "mcc": lambda s: fn.mcc(*s)["correlation"],
}


@pytest.mark.parametrize("name", PER_FACTOR)
def test_a_factor_with_gaps_is_scored_on_its_own_rows(name: str, rng: np.random.Generator) -> None:
    """What is said of it is what its known rows say alone, and nothing changes for the others."""
    codes, factors = known(rng)
    if "infomec" not in name and name != "infoe":
        codes[:, -1] += 0.5 * rng.normal(size=900)  # what tells everything has the same value whatever is left out
    parts = codes[:600], factors[:600].copy(), codes[600:], factors[600:].copy()
    whole = PER_FACTOR[name](parts)
    gaps = [rng.random(len(f)) < 0.3 for f in parts[1::2]]
    for gap, c in zip(gaps, parts[::2], strict=True):
        gap[[*c.argmin(0), *c.argmax(0)]] = False  # bins are those of all rows
    for f, gap in zip(parts[1::2], gaps, strict=True):
        f[gap, 1] = np.nan
    found = PER_FACTOR[name](parts)
    rows = [~gap for gap in gaps]
    alone = (parts[0][rows[0]], parts[1][rows[0]], parts[2][rows[1]], parts[3][rows[1]])
    own = PER_FACTOR[name](alone)
    if name == "best dimension":  # of the three values of this factor
        np.testing.assert_allclose(found, own, atol=1e-12)
        return
    place = 0 if name == "dci of numbers" else 1
    # Linear readers stop within 1e-4 of their loss's slope; forests choose by rounding among equal splits.
    close = {"infoe": 1e-4, "dci rf": 0.02}.get(name, 1e-9)
    np.testing.assert_allclose(found[..., place], own[..., place], atol=close)
    others = [k for k in range(whole.shape[-1]) if k != place]
    np.testing.assert_allclose(found[..., others], whole[..., others], atol=close)
    if close == 1e-9 and name != "downstream":  # the first fifty rows may be told as well as other fifty
        assert not np.allclose(found[..., place], whole[..., place], atol=close)


def test_gaps_by_scikit_learn(rng: np.random.Generator) -> None:
    """Known rows by other programs: information of bins, of neighbours, and the area under the ROC curve."""
    codes, factors = known(rng)
    gap = rng.random(len(codes)) < 0.3
    factors[gap, 1] = np.nan
    rows = ~gap
    y = factors[rows, 1].astype(int)
    edges = [np.histogram(c, 20)[1][:-1] for c in codes.T]
    bins = [np.digitize(c, e) - 1 for c, e in zip(codes.T, edges, strict=True)]
    binned = [mutual_info_score(b[rows], y) for b in bins]
    np.testing.assert_allclose(fn.mig(codes, factors)["mutual_information"][:, 1], binned, atol=1e-12)
    entropy = mutual_info_score(y, y)
    near = mutual_info_classif(codes[rows, :3], y, n_neighbors=10) / entropy
    np.testing.assert_allclose(fn.info_mec(codes[:, :3], factors)["nmi"][:, 1], near, atol=1e-9)
    attribute = np.where(gap, np.nan, factors[:, 1] > 0)[:, None]
    area = [roc_auc_score(y > 0, c[rows]) for c in codes.T]
    np.testing.assert_allclose(fn.tad(codes, attribute)["auc"][:, 0], np.maximum(area, 1 - np.array(area)), atol=1e-12)


# One factor, few rows


@pytest.mark.parametrize("name", METRICS)
def test_one_factor_of_noise_is_no_success(name: str, rng: np.random.Generator) -> None:
    """A number that noise may have by its definition, or a sentence, or undefined with a reason."""
    codes = np.concatenate([rng.normal(size=(600, 3)), rng.integers(0, 3, (600, 1))], 1)
    found = score(table_of(codes, rng.integers(0, 4, (600, 1)), ("categorical",)), name)
    if "error" in found:
        assert len(found["error"]) > 20
        return
    value = found[headline(name)]
    if math.isnan(value):
        assert found["reasons"][headline(name)]
    elif name not in UNLABELLED and name != "dci-es":  # noise is read at once: 1 by definition
        # The largest of what is left: accuracies and areas of chance are 1/4 and 1/2 here, with deviations of .03.
        assert value < 0.65, (name, value)


@pytest.mark.parametrize("name", METRICS)
def test_two_rows_of_each_value_are_no_success(name: str, rng: np.random.Generator) -> None:
    codes = np.concatenate([rng.normal(size=(60, 3)), rng.integers(0, 3, (60, 1))], 1)
    factors = np.stack([rng.permutation(60) // 2, rng.permutation(60) // 2], 1)
    found = score(table_of(codes, factors, ("categorical", "ordinal")), name)
    if "error" not in found and name not in UNLABELLED and name != "dci-es":
        # What is tested on rows of its own may be scored: 40 or 20 of them, with a deviation of at most .16.
        value = found[headline(name)]
        assert math.isnan(value) or value < 0.5, (name, value)


# Types


NO_NUMBERS = {
    "text": lambda c: c.astype(str),
    "objects": lambda c: np.array([[object()] * 3] * len(c)),
    "complex": lambda c: c + 1j,
    "a complex tensor": lambda c: torch.from_numpy(c) + 1j,
    "dates": lambda c: c.astype(int).astype("datetime64[D]"),
    "rows of several lengths": lambda c: [*c[:-1].tolist(), [1.0]],
}


def small(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Codes [300, 3] and factors [300, 3] of 2, 3 and 3 values, whole numbers that every type holds."""
    factors = np.stack([rng.integers(0, size, 300) for size in (2, 3, 3)], 1)
    return np.round(8 * factors + 4 * rng.normal(size=(300, 3))), factors


@pytest.mark.parametrize("name", CALLS)
def test_every_type_of_number_is_the_same_table(name: str, rng: np.random.Generator) -> None:
    codes, factors = small(rng)
    plain = CALLS[name](codes, factors)
    for held, truth in (
        (codes.astype(">f8"), factors.astype(">i4")),
        (torch.from_numpy(codes).bfloat16(), torch.from_numpy(factors).bfloat16()),
        (torch.from_numpy(codes).half(), factors.astype("<u4")),
        (codes[::-1][::-1], np.asfortranarray(factors)),
    ):
        found = CALLS[name](held, truth)
        assert found.keys() == plain.keys()
        for key, value in plain.items():
            if key != "reasons":
                np.testing.assert_array_equal(found[key], value, err_msg=f"{name} {key}")


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_number_is_a_sentence(name: str, kind: str, rng: np.random.Generator) -> None:
    codes, factors = small(rng)
    wrong = r"must (hold real numbers|be real|be a table of numbers)"
    with pytest.raises(ValueError, match=wrong):
        CALLS[name](NO_NUMBERS[kind](codes), factors)


def test_tables_of_every_type(rng: np.random.Generator) -> None:
    codes, factors = small(rng)
    plain = distk.codes(codes, factors)
    words = np.array(["a", "b", "c"])[factors]
    assert plain.factors is not None
    for held, truth in (
        (codes.astype(">f4"), factors.astype(">i8")),
        (torch.from_numpy(codes).bfloat16(), torch.from_numpy(factors).bfloat16()),
        (torch.from_numpy(codes).half(), words),
        (codes.astype(object), words.astype("S")),
        (codes.astype(np.longdouble), factors.astype(np.uint64)),
    ):
        table = distk.codes(held, truth)
        assert torch.equal(table.codes, plain.codes)
        assert table.factors is not None
        assert torch.equal(table.factors, plain.factors)
    for kind in ("text", "complex", "a complex tensor", "dates", "rows of several lengths"):
        with pytest.raises(DistkError):
            distk.codes(NO_NUMBERS[kind](codes), factors)
