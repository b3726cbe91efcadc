"""What is counted of the two hidden layers of a network that solves XOR, against numpy network by network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distk.plugins.vae_family.covreg.study import pruned


def test_what_is_left_of_two_layers(rng: np.random.Generator) -> None:
    first, second = (rng.normal(size=(6, 4, 4)) * rng.uniform(0.05, 2, size=(6, 1, 4)) for _ in range(2))
    found = {name: value.tolist() for name, value in pruned(torch.from_numpy(first), torch.from_numpy(second)).items()}
    for i in range(6):
        one, two = (np.cov(layer[i].T) for layer in (first, second))
        a, b = np.argsort(np.diag(one))[-2:]
        assert found["correlation1"][i] == pytest.approx(one[a, b] / np.sqrt(one[a, a] * one[b, b]))
        between = sum(abs(two[j, k]) for j in range(4) for k in range(4) if j != k)
        assert found["cvr2"][i] == pytest.approx(between / np.trace(two))
        assert found["active1"][i] == (np.diag(one) > 0.05 * np.diag(one).max()).sum()
        assert found["trace"][i] == pytest.approx(np.trace(one) + np.trace(two))


def test_an_or_beside_a_nand_and_beside_an_and() -> None:
    patterns = {"or": [0.0, 1, 1, 1], "nand": [1.0, 1, 1, 0], "and": [0.0, 0, 0, 1], "xor": [0.0, 1, 1, 0]}

    def layer(*names: str) -> torch.Tensor:
        columns = [patterns.get(name, [0.5] * 4) for name in names]
        return torch.tensor(columns, dtype=torch.float64).T[None]

    last = layer("", "xor", "", "")
    for other, sign in (("nand", -1), ("and", 1)):
        found = pruned(layer("or", "", other, ""), last)
        assert float(found["correlation1"]) == pytest.approx(sign / 3)  # covariance 1/16, variances 3/16
        assert bool(found["minimal"])
        assert float(found["cvr2"]) == pytest.approx(0)
