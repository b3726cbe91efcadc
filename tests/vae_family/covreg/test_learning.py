"""covreg learns what the paper says it learns, and its ablations do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distk.plugins.vae_family.covreg import study as study
from distk.plugins.vae_family.covreg.study import by_weight, mean

CPU = torch.device("cpu")
DIMRED = {"items": 1000, "lr": 1e-3}


def xor(penalties: list[str], weights: list[float], steps: int) -> list[dict[str, Any]]:
    """Twenty networks for each penalty and weight."""
    return study.xor(study.members(penalties, weights, range(20)), CPU, {"steps": steps, "lr": 1e-2})


@pytest.mark.slow
def test_xor_is_solved_by_the_smallest_network() -> None:
    rows = xor(["covreg", "covreg-drop"], [0.0, 0.2], 8000)
    full, dropped = by_weight(rows, "covreg"), by_weight(rows, "covreg-drop")
    # Measured over seeds 0-19: 60 % of the networks have exactly 2 and 1 active units at weight 0.2 and all of them
    # solve XOR; 0 % at weight 0; 25 % without the diagonal.
    assert mean(full[0.2], "minimal") >= 0.45
    assert mean(full[0.0], "minimal") == 0
    assert mean(dropped[0.2], "minimal") <= 0.35
    assert mean(full[0.2], "solved") >= 0.9


def test_a_few_thousand_steps_already_prune_xor() -> None:
    rows = study.xor(study.members(["covreg"], [0.0, 0.2], range(20)), CPU, {"steps": 2500, "lr": 4e-2})
    found = by_weight(rows, "covreg")
    # Measured over seeds 0-19 (100-119): 45 % (30 %) minimal, 1.55 (1.75) active units in layer 2; at weight 0 none
    # and 3.85 (3.9); without the diagonal 20 % (5 %).
    assert mean(found[0.2], "minimal") >= 0.15
    assert mean(found[0.0], "minimal") == 0
    assert mean(found[0.2], "active2") < 2.6 < mean(found[0.0], "active2")


@pytest.mark.slow
def test_dimred_in_short() -> None:
    rows = study.dimred(study.members(["covreg"], [0.0, 1.0], range(3)), CPU, {**DIMRED, "steps": 5000})
    found = by_weight(rows, "covreg")
    assert mean(found[1.0], "cvr") < 1.25
    assert mean(found[0.0], "cvr") > 4


@pytest.mark.slow
def test_dimred_finds_the_dimension_and_beats_l1() -> None:
    weights = [0.0, 0.0193, 0.139, 1.0]
    chosen = study.members(["covreg", "l1act"], weights, range(3))
    rows = study.dimred(chosen, CPU, {**DIMRED, "steps": 10_000})
    # Measured over seeds 0-2 at weight 1: CVR 1.08, TdV 1.00, UD90 3.7; at 0: CVR 5.01. CVR of covreg and of l1act at
    # equal squared error: 1.11 and 2.15 (2.4e-6), 1.08 and 1.68 (1e-5), 1.08 and 1.59 (3.5e-5).
    heaviest = by_weight(rows, "covreg")[1.0]
    assert mean(heaviest, "cvr") < 1.15
    assert mean(heaviest, "tdv") > 0.97
    assert 3 <= mean(heaviest, "ud90") <= 4.5
    assert mean(by_weight(rows, "covreg")[0.0], "cvr") > 4
    equal = study.at_equal_error(rows, "cvr", "covreg", "l1act")
    assert equal
    assert all(one < other for error, one, other in equal if error > 1e-6)
