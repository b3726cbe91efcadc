"""MVAE learns to describe scenes through the cells that it keeps, and much later through random ones.

That each kept cell holds one object comes late (the paper trains 3,000,000 steps): counting is not asserted here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distk.device import Ranks
from distk.settings import resolve
from distk.training.beginning import build


def excess(seed: int, **model: Any) -> float:
    """Cross-entropy above its floor, nats per image, over the steps 200 to 250 of the preset `demo`."""
    options: dict[str, Any] = {"model": model, "train": {"seed": seed, "device": "cpu"}}
    trainer = build(resolve("mvae", preset="demo", options=options), torch.device("cpu"), Ranks())
    for _ in range(200):
        trainer.step()
    trainer.drain()
    for _ in range(50):
        trainer.step()
    return trainer.drain()["excess"]


# Measured: 129, 141 and 141 nats with the cells of largest KL (seeds 0, 1, 2), 210 and 209 with random ones (0, 1).
THRESHOLD = 175.0


@pytest.mark.slow
def test_kept_cells_describe_the_scene() -> None:
    assert excess(1) < THRESHOLD


@pytest.mark.slow
def test_random_cells_do_not_yet() -> None:
    assert excess(1, select="random") > THRESHOLD
