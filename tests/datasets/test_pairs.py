"""Pairs that differ in a few factors, and images of one file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats

from distk import FactorDataset, UsageError
from distk.data import open_dataset
from distk.device import seeded


def drawn(seed: int, n: int = 4000, **options: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    data = open_dataset("pairs", {"of": "blobs", **options})
    return data, data.sample(n, seeded(seed, data.device))


def test_partners_differ_in_k_factors_and_are_what_their_factors_say(seed: int) -> None:
    data = open_dataset("pairs", {"of": "dsprites", "k": 2})
    batch = data.sample(500, seeded(seed, data.device))
    differs = batch["factors"] != batch["factors2"]
    assert torch.equal(differs, batch["differs"])
    assert (differs.sum(1) == 2).all()
    assert torch.equal(batch["x2"], data.inner.observe(batch["factors2"]))
    assert torch.equal(batch["x"], data.inner.observe(batch["factors"]))
    counts = differs.sum(0).numpy()
    assert stats.chisquare(counts).pvalue > 1e-6, "every factor alike"
    # Any other value, all alike: orientation has 40.
    moved = batch["factors"][:, 2][differs[:, 2]] - batch["factors2"][:, 2][differs[:, 2]]
    assert len(moved.remainder(40).unique()) > 20


def test_the_number_may_be_drawn_and_steps_be_small(seed: int) -> None:
    data = open_dataset("pairs", {"of": "dsprites", "k": 0, "near": True})
    batch = data.sample(6000, seeded(seed, data.device))
    count = torch.bincount(batch["differs"].sum(1), minlength=6).numpy()
    assert count[0] == count[5] == 0
    assert stats.chisquare(count[1:5]).pvalue > 1e-6
    away = (batch["factors2"] - batch["factors"]).abs()
    sizes = torch.tensor(data.factor_sizes)
    circular = torch.tensor([kind == "circular" for kind in data.factor_kinds])
    around = torch.where(circular, torch.minimum(away, sizes - away), away)
    assert torch.equal(around, batch["differs"].long())
    # What turns goes both ways over its end; what does not goes back from it.
    for k, turns in enumerate(circular.tolist()):
        at_zero = (batch["factors"][:, k] == 0) & batch["differs"][:, k]
        reached = set(batch["factors2"][at_zero, k].tolist())
        assert reached == ({1, int(sizes[k]) - 1} if turns else {1})


def test_it_is_scored_as_what_it_is_made_of_and_refuses_what_is_no_grid() -> None:
    data, batch = drawn(0, k=1)
    assert isinstance(data, FactorDataset)
    assert data.is_grid
    assert batch["x2"].shape == batch["x"].shape
    with pytest.raises(UsageError, match="one must stay"):
        drawn(0, k=2)
    with pytest.raises(UsageError, match="every combination"):
        open_dataset("pairs", {"of": "digits"})
    with pytest.raises(UsageError, match="made of itself"):
        open_dataset("pairs", {"of": "pairs"})
