"""What the tasks are for: tags beside the sentence untangle its code; tags of other sentences, and no code, do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import distk

STEPS = 1000


def scores(seed: int, folder: Path, **model: Any) -> dict[str, dict[str, float]]:
    run = distk.train("nlmultitask", preset="demo", steps=STEPS, seed=seed, quiet=True, out=folder, **model)
    names = ["perplexity", "syntax-clustering"]
    found = distk.evaluate(distk.load(run.path), names, restarts=50)["metrics"]
    print({key: found["perplexity"].get(key) for key in ("rep", "pos")}, found["syntax-clustering"])
    return found


@pytest.mark.slow
def test_tags_untangle_the_code(tmp_path: Path, seed: int) -> None:
    """Measured with seed 0, perplexities of REP and POS and errors of 700: REP and POS 1.54, 1.08 and 100; REP alone
    1.64 and 397; with the tags of other sentences 1.61, 1.46 and 335; decoders without a code 1.77 after 500 steps. A
    fresh seed gave errors of 195 and, REP alone, 323."""
    whole = scores(seed % 1000, tmp_path / "pos", decoders="rep,pos")
    alone = scores(seed % 1000, tmp_path / "rep", decoders="rep")
    other = scores(seed % 1000, tmp_path / "other", decoders="rep,pos", shuffled="pos")
    blind = scores(seed % 1000, tmp_path / "blind", decoders="rep", blind=True)
    assert whole["perplexity"]["rep"] < blind["perplexity"]["rep"] - 0.05
    assert whole["perplexity"]["pos"] < 1.3
    assert other["perplexity"]["pos"] > 1.2
    short = [found["syntax-clustering"]["lowest_inertia_short"] for found in (whole, alone, other)]
    assert short[0] < 0.8 * short[1]
    assert short[0] < 0.8 * short[2]
