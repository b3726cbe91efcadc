"""The readout of positions is fitted on other states than it is tested on."""

from __future__ import annotations

import pytest
import torch

from distk import CodeTable
from distk.plugins.rl_control.icf.metrics import _readout


def test_codes_that_know_nothing_read_out_nothing(seed: int, generator: torch.Generator) -> None:
    """39 numbers fit 40 states almost exactly: only states that the fit has not seen tell that nothing was learnt."""
    codes = torch.randn(80, 38, generator=generator, dtype=torch.float64)
    factors = torch.randn(80, 2, generator=generator, dtype=torch.float64)
    table = CodeTable(codes, [f"z{i}" for i in range(38)], ["continuous"] * 38, factors, ["x", "y"], ["continuous"] * 2)
    assert _readout(table, seed)["r2"] < 0


def test_codes_that_hold_the_position_read_it_out(seed: int, generator: torch.Generator) -> None:
    factors = torch.randn(80, 2, generator=generator, dtype=torch.float64)
    codes = factors @ torch.randn(2, 5, generator=generator, dtype=torch.float64) + 3
    table = CodeTable(codes, [f"z{i}" for i in range(5)], ["continuous"] * 5, factors, ["x", "y"], ["continuous"] * 2)
    assert _readout(table, seed)["r2"] == pytest.approx(1, abs=1e-9)
