"""The judge of the claim about the metrics of 2017 and 2018: a code that lacks a factor."""

from __future__ import annotations

import pytest

from distk.plugins.vae_family.factorvae import judge
from distk.study.claims import FAILS, HOLDS, Claim

CLAIM = Claim("", kind="of the metrics: a code without a factor")


def test_only_the_old_metric_is_deceived() -> None:
    found = judge.judge(CLAIM, [])
    assert found is not None
    assert found.verdict == HOLDS
    assert judge.judge(Claim("", kind="another"), []) is None
    # Two of three factors have a latent: no vote for the third one can be right.
    scores = judge.lacking(0)
    assert scores["betavae"] == pytest.approx(1.0)
    assert scores["factorvae"] == pytest.approx(2 / 3, abs=0.05)


@pytest.mark.parametrize("scores", [{"betavae": 1.0, "factorvae": 1.0}, {"betavae": 0.9, "factorvae": 0.6}])
def test_it_fails_where_both_are_deceived_or_neither(scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "lacking", lambda seed: scores)
    found = judge.judge(CLAIM, [])
    assert found is not None
    assert found.verdict == FAILS
