"""The interval against independent computations, and the verdict of every form of claim."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from distk.study.claims import FAILS, FEW, HOLDS, RESAMPLES, Claim, bootstrap, judge


def rows(**values: list[float]) -> list[dict]:
    """Rows of variants in column c, seeds from 0."""
    return [{"variant": v, "seed": s, "c": x} for v, numbers in values.items() for s, x in enumerate(numbers)]


def claim(**changes) -> Claim:
    return Claim(**{"text": "t", "better": "a", "than": "b", "column": "c", **changes})


def enumerated(sample: np.ndarray, tail: float) -> tuple[float, float]:
    """Quantiles of the mean over all n ** n resamples."""
    means = np.sort([np.mean(pick) for pick in itertools.product(sample, repeat=len(sample))])
    return means[int(tail * len(means))], means[math.ceil((1 - tail) * len(means)) - 1]


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_the_interval_is_that_of_all_resamples(n: int, seed: int) -> None:
    sample = np.random.default_rng(seed).normal(size=n)
    low, high = bootstrap([sample])
    # The expanded tail of Hesterberg (2015), written out another way: t to z by the survival function.
    tail = stats.norm.sf(np.sqrt(n / (n - 1)) * stats.t.isf(0.025, n - 1))
    # The share of drawn means below a point is binomial: 5 deviations, and one draw for the interpolation.
    slack = 5 * math.sqrt(tail * (1 - tail) / RESAMPLES) + 5 / RESAMPLES
    widest, closest = enumerated(sample, max(0.0, tail - slack)), enumerated(sample, tail + slack)
    assert widest[0] - 1e-12 <= low <= closest[0] + 1e-12
    assert closest[1] - 1e-12 <= high <= widest[1] + 1e-12


def test_for_three_runs_the_interval_reaches_from_the_least_to_the_largest() -> None:
    assert bootstrap([np.array([1.0, 5.0, 2.0])]) == (pytest.approx(1.0), pytest.approx(5.0))


def test_for_many_runs_the_interval_is_that_of_the_normal_law(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.normal(1, 2, 400), generator.normal(0, 1, 500)
    low, high = bootstrap([first, -second])
    error = math.sqrt(first.var() / 400 + second.var() / 500)
    middle = first.mean() - second.mean()
    # Quantiles of 10,000 draws: sqrt(p (1 - p) / n) / density, 5 deviations; 4 per cent for the widening at n = 400.
    slack = error * (5 * math.sqrt(0.025 * 0.975 / RESAMPLES) / stats.norm.pdf(1.96) + 0.04)
    assert low == pytest.approx(middle - 1.96 * error, abs=slack)
    assert high == pytest.approx(middle + 1.96 * error, abs=slack)


def test_the_same_runs_give_the_same_interval() -> None:
    sample = np.array([1.0, 2.5, 0.3, 4.0])
    assert bootstrap([sample]) == bootstrap([sample])


def test_pairs_take_out_what_the_seeds_share() -> None:
    shared = [0.0, 100.0, -50.0, 30.0]
    a = [x + 1 + 0.01 * i for i, x in enumerate(shared)]
    paired = judge(claim(), rows(a=a, b=shared), higher=True)
    assert (paired.verdict, paired.how, paired.n) == (HOLDS, "paired", 4)
    assert paired.difference == pytest.approx(1.015)
    other = rows(a=a) + [{**r, "seed": r["seed"] + 1} for r in rows(b=shared)]
    unpaired = judge(claim(), other, higher=True)
    assert (unpaired.verdict, unpaired.how) == (FEW, "unpaired")
    assert unpaired.difference == pytest.approx(1.015)


HIGH, LOW, MIXED = [5.0, 6.0, 5.5], [1.0, 1.2, 0.9], [1.0, 9.0, -4.0]
NEARLY = [4.6, 5.6, 5.1]


@pytest.mark.parametrize(
    ("changes", "a", "b", "higher", "verdict"),
    [
        ({}, HIGH, LOW, True, HOLDS),
        ({}, LOW, HIGH, True, FAILS),
        ({}, HIGH, LOW, False, FAILS),
        ({}, LOW, HIGH, False, HOLDS),
        ({}, MIXED, LOW, True, FEW),
        ({}, HIGH, HIGH, True, FAILS),
        ({"direction": "lower"}, LOW, HIGH, True, HOLDS),
        ({"direction": "higher"}, LOW, HIGH, False, FAILS),
        ({}, HIGH[:2], LOW[:2], True, FEW),
        ({}, HIGH[:2], LOW, True, FEW),
        ({}, HIGH, LOW[:2], True, FEW),
        ({}, [], LOW, True, FEW),
        ({"kind": "not much worse", "margin": 0.5}, NEARLY, HIGH, True, HOLDS),
        ({"kind": "not much worse", "margin": 0.3}, NEARLY, HIGH, True, FAILS),
        ({"kind": "not much worse", "margin": 0.5}, HIGH, NEARLY, False, HOLDS),
        ({"kind": "not much worse", "margin": 0.3}, HIGH, NEARLY, False, FAILS),
        ({"kind": "not worse"}, HIGH, HIGH, True, HOLDS),
        ({"kind": "not worse"}, LOW, HIGH, True, FAILS),
        ({"kind": "equal", "margin": 0.1}, HIGH, [5.05, 5.95, 5.5], True, HOLDS),
        ({"kind": "equal", "margin": 0.1}, HIGH, LOW, True, FAILS),
        ({"kind": "equal", "margin": 0.1}, LOW, HIGH, True, FAILS),
        ({"kind": "equal", "margin": 1.0}, MIXED, LOW, True, FEW),
    ],
)
def test_verdicts_on_a_difference(changes, a, b, higher, verdict) -> None:
    assert judge(claim(**changes), rows(a=a, b=b), higher).verdict == verdict


@pytest.mark.parametrize(
    ("relation", "bound", "verdict"),
    [
        ("above", 4.0, HOLDS),
        ("above", 5.5, FEW),
        ("above", 7.0, FAILS),
        ("at least", 5.0, HOLDS),
        ("above", 5.0, FEW),
        ("below", 7.0, HOLDS),
        ("below", 4.0, FAILS),
        ("below", 5.5, FEW),
        ("at most", 6.0, HOLDS),
        ("below", 6.0, FEW),
        ("at most", 4.9, FAILS),
    ],
)
def test_verdicts_on_a_bound(relation: str, bound: float, verdict: str) -> None:
    found = judge(claim(than="", bound=bound, relation=relation), rows(a=HIGH), higher=False)
    assert found.verdict == verdict
    assert found.difference == pytest.approx(5.5 - bound)
    assert (found.low, found.high) == (pytest.approx(5.0 - bound), pytest.approx(6.0 - bound))


def test_about_a_bound_needs_the_whole_interval_near_it() -> None:
    def about(bound: float, margin: float) -> str:
        return judge(claim(than="", bound=bound, relation="about", margin=margin), rows(a=HIGH), True).verdict

    assert [about(5.5, 0.5), about(5.5, 0.4), about(9.0, 1.0)] == [HOLDS, FEW, FAILS]


def test_one_column_against_another_is_paired_by_run() -> None:
    table = [{"variant": "a", "seed": s, "c": x + 1, "d": x} for s, x in enumerate([0.0, 70.0, -30.0])]
    found = judge(claim(than="", than_column="d"), table, higher=True)
    assert (found.verdict, found.how) == (HOLDS, "paired")
    assert judge(claim(than="", column="d", than_column="c"), table, higher=True).verdict == FAILS


def test_runs_without_a_number_do_not_count() -> None:
    table = rows(a=[*HIGH, math.nan], b=[*LOW, 1.0])
    table[1]["c"] = None
    found = judge(claim(), table, higher=True)
    assert (found.verdict, found.n, found.how) == (FEW, 2, "unpaired")
    assert "2 of at least 3" in found.reason
