"""On CUDA the steps of all four methods, drawn faces included, are captured and compute what they compute eagerly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distk.device import Ranks
from distk.settings import resolve
from distk.training.loop import build


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("method", "settings"),
    [("sddcgan", {}), ("sddcgan", {"loss": "wgan-gp", "tuple_k": 3}), ("sdbegan", {}), ("dcgan", {}), ("began", {})],
)
def test_a_captured_step_equals_an_eager_one(method: str, settings: dict[str, Any]) -> None:
    states = []
    for capture in ("off", "on"):
        train = {"device": "cuda", "batch": 4, "capture": capture, "steps": 20, "deterministic": True}
        sections = {"model": settings, "train": train, "data": {"identities": 40}}
        trainer = build(resolve(method, preset="demo", options=sections), torch.device("cuda"), Ranks())
        for _ in range(12):
            trainer.step()
        states.append((trainer.model.state_dict(), trainer.drain()))
    for (name, a), b in zip(states[0][0].items(), states[1][0].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)
    assert states[0][1] == pytest.approx(states[1][1], rel=1e-2, abs=1e-4)
