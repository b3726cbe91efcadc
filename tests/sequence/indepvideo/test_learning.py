"""Factors find two oscillators that only their motion tells apart, and stop doing so without factored transitions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distk import evaluate, open_dataset
from distk.device import initialised
from distk.plugins.sequence.indepvideo.method import Config, IndepVideo
from distk.plugins.sequence.indepvideo.networks import Transitions
from distk.settings import TrainConfig
from distk.training.trainer import Trainer


class Forgetful(Transitions):
    """An ablation: whatever was, the next state is N(0, I)."""

    def forward(self, past: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = super().forward(past)
        return 0 * mean, 0 * logvar


class Detached(Transitions):
    """An ablation: a state learns nothing from how well it foretells the next one."""

    def forward(self, past: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(past.detach())


ABLATIONS = {"forgetful": Forgetful, "detached": Detached}


def learned(seed: int, ablation: str = "", second_speed: float = 1.3, **settings: Any) -> dict[str, float]:
    """Train the demo's model for its 3,000 steps; scores of test clips."""
    data = open_dataset("two-oscillators", {"second_speed": second_speed})
    preset = IndepVideo.presets["demo"]
    with initialised(seed, torch.device("cpu")):
        model = IndepVideo(Config(**{**preset["model"], **settings}), data.spec)
        if ablation:
            model.transitions.__class__ = ABLATIONS[ablation]
    steps, batch = preset["train"]["steps"], preset["train"]["batch"]
    trainer = Trainer(model.train(), data, TrainConfig(steps=steps, batch=batch, seed=seed, device="cpu"))
    for _ in range(steps):
        trainer.step()
    trainer.check_health()
    found = evaluate(model, ["source-alignment", "cross-mi", "elbo"], data=data, split="test")["metrics"]
    return {
        "align": found["source-alignment"]["align"],
        "same": found["cross-mi"]["same"],
        "cross": found["cross-mi"]["cross"],
        "elbo": found["elbo"]["elbo_per_frame"],
    }
