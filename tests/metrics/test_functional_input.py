"""What every score does with bad input, foreign array types, and the global random state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional import checks

Score = Callable[..., dict[str, Any]]
SUPERVISED: list[Score] = [
    fn.mig,
    fn.dci,
    fn.sap,
    fn.modularity,
    fn.explicitness,
    fn.irs,
    fn.downstream,
    fn.info_mec,
]


@pytest.mark.parametrize("score", SUPERVISED)
def test_bad_arrays_are_named(rng: np.random.Generator, score: Score) -> None:
    codes, factors = rng.normal(size=(200, 3)), rng.integers(0, 3, (200, 2))
    with pytest.raises(ValueError, match="codes has 200 rows but factors has 199"):
        score(codes, factors[:-1])
    broken = codes.copy()
    broken[7, 1] = np.nan
    broken[3, 2] = np.inf
    with pytest.raises(ValueError, match="codes contains NaN or inf, first in column 1"):
        score(broken, factors)
    with pytest.raises(ValueError, match="every factor is constant"):
        score(codes, np.ones((200, 2)))
    with pytest.raises(ValueError, match="shape"):
        score(codes[:, :, None], factors)


@pytest.mark.parametrize("score", [s for s in SUPERVISED if s is not fn.irs])
def test_continuous_factors_are_refused(rng: np.random.Generator, score: Score) -> None:
    with pytest.raises(ValueError, match=r"factor 1 is continuous.*predictor='lasso'"):
        score(rng.normal(size=(200, 3)), np.stack([rng.integers(0, 3, 200), rng.random(200)], 1))


@pytest.mark.parametrize("score", [s for s in SUPERVISED if s is not fn.downstream])
def test_too_few_rows(rng: np.random.Generator, score: Score) -> None:
    factors = np.stack([rng.permutation(np.arange(60) % 2), rng.permutation(np.arange(60) % 7)], 1)
    with pytest.raises(ValueError, match="factor 1 has 7 values: needs at least 70 rows, got 60"):
        score(rng.normal(size=(60, 3)), factors)


def test_single_messages(rng: np.random.Generator) -> None:
    codes, factors = rng.normal(size=(100, 3)), rng.integers(0, 3, (100, 2))
    cases: list[tuple[str, Callable[[], object]]] = [
        ("needs at least 2, got 1", lambda: fn.udr([codes], [np.ones(3)])),
        ("same rows", lambda: fn.udr([codes, codes[:50]], [np.ones(3)] * 2)),
        ("k must be in 1..99", lambda: fn.ksg(codes, codes, k=100)),
        ("every k must be in 1..99", lambda: fn.recall_at_k(codes, factors[:, 0], ks=(1, 100))),
        ("label is constant", lambda: fn.unsupervised_accuracy(factors[:, 0], np.ones(100))),
        ("choose one of gbt, lasso, rf", lambda: fn.dci(codes, factors, predictor="xgb")),
        ("choose one of dlib, cascadevae", lambda: fn.factor_vae(codes, (10, 10), protocol="own")),
        ("sizes .* make 99", lambda: fn.factor_vae(codes, (9, 11))),
        ("needs kl", lambda: fn.factor_vae(codes, (10, 10), protocol="cascadevae")),
        ("kl has 2 entries for 3", lambda: fn.factor_vae(codes, (10, 10), prune="kl", kl=[1.0, 1.0])),
        ("discrete has 99", lambda: fn.factor_vae(codes, (10, 10), discrete=np.arange(99))),
        ("give sizes", lambda: fn.beta_vae(codes)),
        ("given together", lambda: fn.sap(codes, factors, codes)),
        ("test rows have 2 codes", lambda: fn.dci(codes, factors, codes[:, :2], factors)),
        ("quantile", lambda: fn.irs(codes, factors, quantile=0)),
        ("bins must be in 2", lambda: fn.mig(codes, factors, bins=1)),
        ("d must be in 1..3", lambda: fn.linear_correlation(codes, d=4)),
        ("mean has shape", lambda: fn.mig_aggregate(codes, codes[:, :2], factors)),
        ("must be equal", lambda: fn.reconstruction(np.ones((3, 4)), np.ones((3, 5)))),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("score", [*SUPERVISED, fn.unsupervised, fn.linear_correlation])
def test_array_types_and_result_types(rng: np.random.Generator, score: Score) -> None:
    """numpy, torch float64 and integer dtypes agree; results are floats and float64 arrays; no global
    randomness.
    """
    codes, factors = rng.normal(size=(150, 3)), rng.integers(0, 3, (150, 2))
    codes[:, 0] += factors[:, 0]
    arguments = (codes, factors) if score in SUPERVISED else (codes,)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = score(*arguments)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    second = score(*(torch.from_numpy(a).to(torch.float64 if a is codes else torch.uint8) for a in arguments))
    for key, value in first.items():
        if key == "reasons":
            assert all(isinstance(v, str) for v in value.values())
        elif isinstance(value, np.ndarray):
            assert value.dtype == np.float64
            np.testing.assert_array_equal(value, second[key])
        else:
            assert type(value) is float
            np.testing.assert_equal(value, second[key])


def test_all_dead_codes(rng: np.random.Generator) -> None:
    """No score crashes on codes that are all constant, and undefined numbers come with a reason."""
    codes, factors = np.full((200, 3), 0.1), rng.integers(0, 3, (200, 2))
    for score in [*SUPERVISED, fn.unsupervised, fn.linear_correlation]:
        result = score(codes, factors) if score in SUPERVISED else score(codes)
        undefined = [k for k, v in result.items() if isinstance(v, float) and np.isnan(v)]
        assert not undefined or result.get("reasons"), score
    assert fn.mig(codes, factors)["mig"] == 0
    assert fn.modularity(codes, factors)["modularity"] == 0
    assert fn.dci(codes, factors)["disentanglement"] == 0


STRANGE = {
    "text": np.array([["a", "b"]] * 40),
    "objects": np.array([[object(), object()]] * 40),
    "complex": np.ones((40, 2), dtype=complex),
    "dates": np.array([["2020-01-01"] * 2] * 40, dtype="datetime64[D]"),
    "ragged": [[1.0, 2.0]] * 39 + [[1.0]],
}


@pytest.mark.parametrize("score", SUPERVISED)
@pytest.mark.parametrize("kind", STRANGE)
def test_arrays_that_are_no_numbers_are_a_sentence(score: Score, kind: str) -> None:
    factors = np.arange(40)[:, None] % 2
    with pytest.raises(ValueError, match=r"must (hold real numbers|be real|be a table of numbers)"):
        score(STRANGE[kind], factors)


@pytest.mark.parametrize("dtype", [">f8", ">i4", "<u2", "<u4", "g", "?", "f2"])
def test_every_kind_of_number_gives_the_same_table(dtype: str, rng: np.random.Generator) -> None:
    plain = rng.integers(0, 2, (60, 3))
    read = checks.tensor(plain.astype(dtype), "codes")
    assert torch.equal(read.double(), torch.from_numpy(plain).double())
    assert torch.equal(checks.tensor(torch.from_numpy(plain).bfloat16()).double(), torch.from_numpy(plain).double())


@pytest.mark.parametrize("score", [fn.factor_vae, fn.beta_vae, fn.higgins_change, fn.change_one_factor])
def test_one_factor_cannot_be_told_from_others(score: Callable[..., dict], rng: np.random.Generator) -> None:
    result = score(rng.normal(size=(200, 3)), factors=np.arange(200)[:, None] % 4)
    for key in ("train", "eval"):
        assert np.isnan(result[key])
        assert "single factor" in result["reasons"][key]
    grid = score(rng.normal(size=(40, 3)), [40, 1])
    assert np.isnan(grid["eval"])


@pytest.mark.parametrize("score", [fn.factor_vae, fn.beta_vae])
def test_groups_of_few_rows_are_refused(score: Callable[..., dict], rng: np.random.Generator) -> None:
    """With two rows per value a code of noise would look as if it told the factors apart."""
    factors = np.stack([rng.permutation(100) // 2, np.arange(100) % 2], 1)
    with pytest.raises(ValueError, match=r"factor 0 has 50 values: needs at least 500 rows, got 100"):
        score(rng.normal(size=(100, 4)), factors=factors)
