"""A score over several seeds: which seeds, and what is said of their spread."""

from __future__ import annotations

import math

import pytest
import torch

from distk import evaluation
from distk.metric import CodeTable


def test_a_score_over_repeats_draws_seeds_one_after_the_other_and_tells_their_spread(monkeypatch, rng) -> None:
    values, asked = rng.normal(size=40).tolist(), []

    def computed(table, name, metric, seeds):
        asked.append(list(seeds))
        return [{"mig": values[seed]} for seed in asked[-1]]

    monkeypatch.setattr(evaluation, "_computed", computed)
    table = CodeTable(torch.rand(20, 3), ["a", "b", "c"], ["continuous"] * 3)
    told = evaluation.score(table, "mig", {}, seed=7, repeats=5)
    assert asked == [[7, 8, 9, 10, 11]]
    drawn = values[7:12]
    mean = math.fsum(drawn) / 5
    assert told["mig"] == pytest.approx(mean, rel=1e-12)
    # Of a sample of seeds: over n - 1.
    assert told["mig_std"] == pytest.approx(math.sqrt(math.fsum((v - mean) ** 2 for v in drawn) / 4), rel=1e-12)
    assert told["seeds"] == [7, 8, 9, 10, 11]
