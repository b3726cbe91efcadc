"""F-statistic loss: it aligns single dimensions with attributes, which its ablation and its rivals do less well."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

from distk import DataSpec, encode_table
from distk.config import NoConfig
from distk.data import FactorDataset, Files
from distk.device import Ranks
from distk.embedding import best_dimensions, recall
from distk.plugins.vae_family.fstat.method import Embedding
from distk.settings import resolve
from distk.training.beginning import build

SIZES = (3, 4, 5, 2, 2, 2)
"""480 identities, every combination of six attributes."""


class Identities(FactorDataset):
    """Vectors of 64 numbers: tanh of a random linear image of one-hot attributes and 8 style values, with noise.

    384 identities of `samples` vectors each are for training, the other 96 of 20 for the test.
    """

    def __init__(self, seed: int, samples: int) -> None:
        super().__init__(NoConfig(), torch.device("cpu"), Files("identities", None, ""))
        self.name, self.origin, self.spec = "identities", "made up", DataSpec("vector", (64,), (-2.0, 2.0))
        self.factor_names, self.factor_sizes = tuple("abcdef"), SIZES
        self.factor_kinds = ("categorical",) * len(SIZES)
        generator = torch.Generator().manual_seed(1000 + seed)
        attributes = torch.cartesian_prod(*(torch.arange(s) for s in SIZES))
        order = torch.randperm(len(attributes), generator=generator)
        self.label = torch.cat([order[:384].repeat_interleave(samples), order[384:].repeat_interleave(20)])
        self.table = attributes[self.label]
        self._split = {"train": torch.arange(384 * samples), "test": torch.arange(384 * samples, len(self.label))}
        shown = torch.cat(
            [2 * torch.nn.functional.one_hot(f, s) - 0.5 for f, s in zip(self.table.T, SIZES, strict=True)], 1
        )
        style = torch.randn(len(shown), 8, generator=generator)
        mix = torch.randn(shown.shape[1] + 8, 64, generator=generator) * 1.5 / 14**0.5
        noise = torch.randn(len(shown), 64, generator=generator)
        self.x = torch.tanh(torch.cat([shown, style], 1) @ mix) + 0.05 * noise

    def rows(self, split: str) -> Tensor | None:
        return self._split.get(split)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows], "label": self.label[rows]}


def trained(method: str, data: Identities, steps: int, seed: int, **model: Any) -> Embedding:
    sections = {
        "model": {"k": 16, "lr": 1e-3, "samples_per_class": 10, **model},
        "train": {"device": "cpu", "steps": steps, "seed": seed},
        "data": {"name": "xor"},  # never opened: the data are given
    }
    trainer = build(resolve(method, options=sections), torch.device("cpu"), Ranks(), data)
    for _ in range(steps):
        trainer.step()
    trainer.check_health()
    assert isinstance(trainer.model, Embedding)
    return trainer.model


def areas(model: Embedding, data: Identities) -> list[float]:
    """AUC of the best dimension of every nonredundant attribute value, over unseen identities."""
    rows, _ = best_dimensions(encode_table(model, data, split="test"))
    assert len(rows) == 3 + 4 + 5 + 1 + 1 + 1
    return [area for *_, area in rows]


FACTORS = {"label": "factors", "classes_per_batch": 5}


def mean_area(method: str, data: Identities, steps: int, seed: int, **model: Any) -> float:
    return statistics.fmean(areas(trained(method, data, steps, seed, **FACTORS, **model), data))


def test_single_dimensions_tell_attributes_and_without_the_selection_they_do_not() -> None:
    """Measured on one core, seed 0, 800 steps: 0.929 with d = 2, 0.812 with all 16 dimensions (7 s together)."""
    data = Identities(0, 10)
    assert mean_area("fstat", data, 800, 0, d=2) > 0.88
    assert mean_area("fstat", data, 800, 0, d=16) < 0.86


@pytest.mark.slow
def test_attributes_against_the_ablation_and_a_rival_over_seeds() -> None:
    """Mean AUC of the best dimension on 96 unseen identities after 1,500 steps, seeds 0 to 3:

    d = 2: 0.951 0.922 0.965 0.955; d = 16 (no selection): 0.799 0.793 0.792 0.836; histloss: 0.884 0.858 0.855 0.856.
    Seeds 0 and 1 also: bindev 0.858 0.828, triplet 0.842 0.860, untrained 0.739 0.735.
    """
    found = []
    for seed in range(3):
        data = Identities(seed, 10)
        found.append(mean_area("fstat", data, 1500, seed, d=2))
        assert mean_area("fstat", data, 1500, seed, d=16) < 0.87
        assert found[-1] - mean_area("histloss", data, 1500, seed) > 0.02
    assert statistics.fmean(found) > 0.92
    assert min(found) > 0.89


@pytest.mark.slow
def test_unseen_identities_are_found_again() -> None:
    """Recall@1 on 96 unseen identities, 1,000 steps on identity labels, seeds 0 to 2: 0.991 0.991 0.990; the untrained
    network of seed 0 has 0.617. (Seed 0: triplet 0.999; mean AUC then 0.867, no better than triplet's 0.858.)"""
    data = Identities(0, 20)
    found = []
    for steps in (1000, 0):
        model = trained("fstat", data, steps, 0)
        found.append(recall(encode_table(model, data, split="test"), (1,), model.distance)[1])
    assert found[0] > 0.95
    assert found[1] < 0.8
