"""The judge of Figure 1: curves that are drawn by hand, one above the other at equal error."""

from __future__ import annotations

import pytest

from distk.plugins.vae_family.dipvae.judge import apart, judge
from distk.study.claims import FAILS, FEW, HOLDS, Claim

CLAIM = Claim("", kind="at equal error: DIP-VAE against beta-VAE", column="betavae.eval")


def rows(gap: float, seeds: int = 3, of: str = "DIP-VAE lambda_od={}"):
    """beta-VAE scores 90 - 1000 times the error at errors .01, .02, .04; the other `gap` more, in between."""
    found = []
    for seed in range(seeds):
        for i, error in enumerate((0.01, 0.02, 0.04)):
            score = 90 - 1000 * error + seed
            found.append(
                {
                    "variant": f"beta-VAE beta={i}",
                    "seed": seed,
                    "reconstruction.mse_pixel": error,
                    "betavae.eval": score,
                }
            )
        for i, error in enumerate((0.005, 0.015, 0.03, 0.05)):  # the first and the last lie outside the other's errors
            score = 90 - 1000 * error + seed + (gap if 0.01 < error < 0.04 else -500 * gap)
            found.append(
                {"variant": of.format(i), "seed": seed, "reconstruction.mse_pixel": error, "betavae.eval": score}
            )
    return found


@pytest.mark.parametrize(("gap", "verdict"), [(2.0, HOLDS), (-2.0, FAILS)])
def test_a_curve_above_holds_and_one_below_does_not(gap: float, verdict: str) -> None:
    found = judge(CLAIM, rows(gap))
    assert found is not None
    assert found.verdict == verdict
    assert found.difference == pytest.approx(gap)
    assert found.n == 3


def test_too_little_is_said_to_be_so() -> None:
    for few in (rows(2.0, seeds=2), [row for row in rows(2.0) if row["variant"].startswith("DIP")], []):
        found = judge(CLAIM, few)
        assert found is not None
        assert found.verdict == FEW
    assert judge(Claim("", kind="another"), rows(1.0)) is None


def test_between_points_the_other_curve_is_straight() -> None:
    assert apart([(1.5, 3.0)], [(1.0, 1.0), (2.0, 2.0), (3.0, 9.0)]) == [pytest.approx(1.5)]
    assert apart([(0.5, 3.0), (3.5, 1.0)], [(1.0, 1.0), (3.0, 9.0)]) == []
    holes = [
        *rows(2.0, seeds=1),
        {"variant": "DIP-VAE x", "seed": 0, "reconstruction.mse_pixel": None, "betavae.eval": 3.0},
    ]
    assert judge(CLAIM, holes) is not None
