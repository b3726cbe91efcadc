"""What the losses are for: the classifier turns the label, the losses on nouns and on the way back keep the content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import distk


def scores(seed: int, folder: Path, **model: Any) -> dict[str, float]:
    run = distk.train(
        "attrtransfer", preset="demo", steps=1200, seed=seed, device="cpu", quiet=True, out=folder, **model
    )
    found = distk.evaluate(distk.load(run.path), ["transfer"], max_sentences=300)["metrics"]["transfer"]
    print({key: found[key] for key in ("oracle_accuracy", "noun_recall", "reconstruction")})
    return found


@pytest.mark.slow
def test_each_loss_does_its_part(tmp_path: Path, seed: int) -> None:
    """1,200 steps, 800 of them with all losses. Measured (oracle, nouns): seed 0 1.00 and 1.00, seed 1 after 900 steps
    0.60 and 0.98; without the classifier on transfers 0.01 and 1.00; without the content losses 0.49 and 0.00. A seed
    that nobody chose: 0.69 and 1.00, without the classifier on transfers 0.24 and 1.00. Another: 0.98 and 1.00, 0.02
    and 1.00, without the content losses 1.00 and 0.00."""
    whole = scores(seed % 1000, tmp_path / "all")
    assert whole["oracle_accuracy"] > 0.5
    assert whole["content"] > 0.9
    copied = scores(seed % 1000, tmp_path / "td", lambda_td=0.0)
    assert copied["oracle_accuracy"] < whole["oracle_accuracy"] - 0.25
    emptied = scores(seed % 1000, tmp_path / "content", lambda_cnt=0.0, lambda_back=0.0)
    assert emptied["noun_recall"] < whole["noun_recall"] - 0.2
