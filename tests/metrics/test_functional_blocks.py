"""Reading tables in parts changes no figure of any score."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distk.plugins.metrics import functional as fn
from distk.plugins.metrics.functional import blocks, checks

sys.path.insert(0, str(Path(__file__).parent))
from calls import CALLS

USED = ("hinge", "neighbours", "sampling", "voting")
"""Modules that know the size of a part by name."""
MORE_CALLS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "mig of quantiles": lambda c, f: fn.mig(c, f, binning="quantile"),
    "mig of continuous factors": lambda c, f: fn.mig(c, c[:, :2] + 0.5 * f[:, :2], factor_bins=4),
    "irs of continuous factors": lambda c, f: fn.irs(c, c[:, :2]),
    "sap of numbers": lambda c, f: fn.sap(c, f, continuous=True),
    "sap with a class": lambda c, f: fn.sap(c, f, discrete=[1]),
    "mcc with a class": lambda c, f: fn.mcc(c, f, discrete=[1]),
    "recall by cosine": lambda c, f: fn.recall_at_k(c, f[:, 0], metric="cosine"),
    "udr": lambda c, f: fn.udr([c, c[:, ::-1] if isinstance(c, np.ndarray) else c], [np.ones(3)] * 2),
}
DRAWN = {"reasoning", "change_one_factor"}
"""Trained for a while by gradients, which carries the last digit of the codes far."""
BORDER = {"beta_vae": 1 / 100}
"""The share of one row: a solver that stops leaves the last digits of its planes open, so that a row on one may fall to
either side."""


def _in_parts_of(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many numbers at a time, however large the table."""
    for name in ("LEAST", "MOST"):
        monkeypatch.setattr(blocks, name, numbers)
    for module in USED:
        monkeypatch.setattr(importlib.import_module(f"{blocks.__package__}.{module}"), "MOST", numbers)


@pytest.mark.parametrize("kind", ["ties", "noise", "gaps"])
@pytest.mark.parametrize("name", [*CALLS, *MORE_CALLS])
def test_parts_change_no_figure(
    name: str, kind: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = np.stack([rng.integers(0, size, 400) for size in (2, 3, 3)], 1)
    codes = rng.normal(size=(400, 3)) * [1, 30, 0.01] + (0 if kind == "noise" else factors)
    codes[:, 1] = codes[:, 1].round()  # as classes, too, and equal values in every kind
    codes = codes.round() if kind == "ties" else codes
    if kind == "gaps":
        factors = np.where(rng.random(factors.shape) < 0.1, np.nan, factors)
    call = (CALLS | MORE_CALLS)[name]
    outcomes = []
    for numbers in (1 << 30, 64):
        _in_parts_of(numbers, monkeypatch)
        try:
            outcomes.append(call(codes, factors))
        except ValueError as error:  # what does not take gaps says so either way
            outcomes.append({"error": str(error)})
    whole, parts = outcomes
    assert whole.keys() == parts.keys()
    tolerance = 0.05 if name in DRAWN else 1e-9  # of solvers that stop; sums alone agree to 1e-12
    row = BORDER.get(name, 0.0)
    for key, value in whole.items():
        if key in ("reasons", "error"):
            assert parts[key] == value
        else:
            wide = row + tolerance
            np.testing.assert_allclose(parts[key], value, rtol=tolerance, atol=wide, err_msg=f"{name} {key}")


@pytest.mark.parametrize("count", [2, 128, 129, 32_768, 32_769])
def test_the_narrowest_type_holds_every_class(count: int) -> None:
    names = 3 * torch.arange(count, dtype=torch.float64).repeat(2) - 7
    values, index = checks.levels(names[torch.randperm(2 * count)])
    assert torch.equal(values, names[:count])
    assert int(index.max()) == count - 1
    assert index.dtype == blocks.whole_numbers(count)
    assert torch.iinfo(index.dtype).max >= count - 1
    assert index.dtype != torch.uint8, "as an index it would be a mask"


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.float64])
def test_whole_numbers_of_any_type_are_the_same_classes(kind: torch.dtype, rng: np.random.Generator) -> None:
    drawn = torch.from_numpy(rng.integers(0, 200, (5000, 2)))
    expected = [column.unique(return_inverse=True) for column in drawn.T]
    labels = checks.discrete(drawn.to(kind))
    for k, (values, index) in enumerate(expected):
        assert torch.equal(labels.values[k], values.double())
        assert torch.equal(labels.of(k), index)
        assert torch.equal(labels.counts(k), torch.bincount(index).double())
    assert torch.equal(labels.encode(drawn.to(kind)).long(), labels.index)


def test_a_value_that_was_not_seen_has_no_class() -> None:
    labels = checks.discrete(torch.arange(40)[:, None] % 2 * 5)
    assert labels.encode(torch.tensor([[0.0], [5.0], [3.0], [9.0], [float("nan")]])).flatten().tolist() == [
        0,
        1,
        -1,
        -1,
        -1,
    ]
