"""Run folders as a user has them: linear autoencoders of 64 drawn items, trained once for all tests here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import distk
from distk.evaluation import evaluate
from distk.results import measured, write

SEEDS = 4


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slow-0 ... slow-3 (lr 0.001) and fast-0 ... fast-3 (lr 0.01), the first three of each scored."""
    folder = tmp_path_factory.mktemp("trained")
    for name, lr in (("slow", 0.001), ("fast", 0.01)):
        for seed in range(SEEDS):
            out = folder / f"{name}-{seed}"
            run = distk.train(
                "covreg-linear",
                steps=30,
                batch=16,
                log_every=5,
                seed=seed,
                lr=lr,
                data="dimred",
                data_items=64,
                device="cpu",
                out=out,
                quiet=True,
            )
            if seed < 3:
                result = evaluate(distk.load(run.checkpoint, "cpu"), ["covstats", "reconstruction"], seed=seed)
                told = {"checkpoint": str(run.checkpoint), **result}
                write(out / "checkpoint.eval.json", told, measured(result["provenance"], step=30))
    return folder


@pytest.fixture
def folder(trained: Path, in_folder: Path) -> Path:
    """A copy of these runs as ./runs, which a test may change."""
    shutil.copytree(trained, in_folder / "runs")
    return in_folder / "runs"


@pytest.fixture
def score():
    """`score(folder, "slow-0")`: the numbers of covstats that stand in the run's file."""

    def read(folder: Path, name: str) -> dict[str, float]:
        told = json.loads((folder / name / "checkpoint.eval.json").read_text())["metrics"]["covstats"]
        return {key: value for key, value in told.items() if isinstance(value, float)}

    return read
