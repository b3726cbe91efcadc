"""mocogan learns to move shapes of many colours; without the critic of clips nothing moves."""

from __future__ import annotations

from typing import Any

import pytest

import distk
from distk import evaluate


def trained(tmp_path: Any, **model: Any) -> Any:
    """The preset `demo` with seed 0, some 70 s of one core."""
    run = distk.train("mocogan", preset="demo", seed=0, device="cpu", quiet=True, out=tmp_path / "run", **model)
    return distk.load(run.path / "checkpoint.safetensors")


def scored(model: Any, **options: Any) -> dict[str, Any]:
    return evaluate(model, ["acd"], clips=200, **options)["metrics"]["acd"]


@pytest.mark.slow
def test_it_learns_to_move_and_keeps_content_by_one_code_per_clip(tmp_path) -> None:
    model = trained(tmp_path)
    found = scored(model)
    # Measured: 0.63 pixels, 0.53 of the clips, 28 of 255; the distance is 51, with the content redrawn 79.
    assert found["medstep"] > 0.45, found
    assert found["moving"] > 0.2, found
    assert found["colour_spread"] > 20, found
    assert scored(model, redraw=True)["acd"] > found["acd"] + 20


@pytest.mark.slow
def test_without_the_critic_of_clips_nothing_moves_and_the_distance_is_better(tmp_path) -> None:
    found = scored(trained(tmp_path, video_disc="none"))
    # Measured: 0.28 pixels, 0.02 of the clips, 29 of 255; the distance is 12, better than the whole method's.
    assert found["medstep"] < 0.35, found
    assert found["moving"] < 0.1, found
    assert found["colour_spread"] > 20, found
    assert found["acd"] < 30, found
