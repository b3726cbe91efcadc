"""The judge of the claims about the losses: it tells losses with the property from losses without it."""

from __future__ import annotations

import pytest
import torch

from distk.plugins.vae_family.fstat import judge
from distk.study.claims import FAILS, HOLDS, Claim

VANISHES, ROTATED = Claim("", kind="of the loss: it vanishes"), Claim("", kind="of the losses: rotated")


def test_the_papers_claims_hold_and_others_are_not_its_business() -> None:
    for claim in (VANISHES, ROTATED):
        found = judge.judge(claim, [])
        assert found is not None
        assert found.verdict == HOLDS
        assert "20 draws" in found.reason
    assert judge.judge(Claim("", kind="something else"), []) is None


def test_a_loss_whose_gradient_stays_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(judge.LOSSES, "F-statistic", judge.LOSSES["binomial deviance"])
    for claim in (VANISHES, ROTATED):  # nor does it change when it is rotated
        found = judge.judge(claim, [])
        assert found is not None
        assert found.verdict == FAILS


def test_a_rival_that_sees_the_axes_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(judge.LOSSES, "triplet", lambda z, mask: (z.abs() * mask[..., None]).sum())
    found = judge.judge(ROTATED, [])
    assert found is not None
    assert found.verdict == FAILS


def test_rotations_keep_lengths(generator: torch.Generator) -> None:
    changes = judge.rotated(generator)
    assert set(changes) == set(judge.LOSSES)
    assert changes["F-statistic"] > 1e-3
    assert max(value for name, value in changes.items() if name != "F-statistic") < 1e-12
