"""No score copies its table: what each holds at most beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import peaks

FIXED, SHARE = 20.0, 0.5
"""MiB, and part of the table, that any score may hold: a product of matrices takes 8 MiB of room, what all scores of a
table are told of its factors 5, and what was freed before and not given back comes and goes by some 6; a copy of the
table as float64 would be twice the table."""
MORE: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("betavae", "factorvae", "z-max"), (64.0, SHARE)),  # 15 000 votes of 64 rows each
    "change-one-factor": (110.0, SHARE),  # 50 000 pairs of rows
    "higgins-change": (40.0, SHARE),  # 15 000 of them
    "fairness": (24.0, SHARE),  # rows that differ in one factor
    "combinations": (64.0, SHARE),  # 10 000 rows and their tests, float64, for each pair of factors
    "dci-es": (64.0, SHARE),  # 512 features of 10 000 rows, in parts, and foretold rows
    "reasoning": (80.0, 1.5),  # standardised codes that a network looks up, float32
    "separability": (32.0, SHARE),  # mixtures of single codes, rows by components in parts
    "fg-ari": (20.0, 1.0),  # tables of every picture
    "infomec": (14.0, 2.0),  # a column and the places of its neighbours: eight columns of float64
}
"""Scores that hold more, and what."""


@pytest.fixture(scope="module")
def measured() -> Mapping[str, dict[str, Any]]:
    try:
        peaks.peak(reset=True)
    except OSError:
        pytest.skip("this system does not tell how much memory a process has held at most")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("peaks.py")], capture_output=True, text=True, check=True
    )
    return {row["score"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", peaks.scored())
def test_what_a_score_holds_beside_its_table(name: str, measured: Mapping[str, dict[str, Any]]) -> None:
    row = measured[name]
    assert not row["error"]
    fixed, share = MORE.get(name, (FIXED, SHARE))
    assert row["peak"] <= fixed * 2**20 + share * row["table"], f"{row['peak'] / 2**20:.1f} MiB"


def test_a_copy_of_the_table_would_be_noticed(measured: Mapping[str, dict[str, Any]]) -> None:
    few = [name for name, (fixed, share) in MORE.items() if fixed + share * 14.6 > 2 * 14.6]
    assert len(measured) - len(few) > 20
    assert all(
        FIXED * 2**20 + SHARE * row["table"] < 2 * row["table"] for row in measured.values() if row["score"] not in MORE
    )
