"""DSVAE separates the static vector from the rotation, and stops doing so when a part of the model is taken away.

Vector clips of section 8(b) of the sheet; swap_gain on 1,000 test pairs against the exact result, KL in nats per clip.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distk import evaluate, open_dataset
from distk.device import initialised
from distk.plugins.sequence.dsvae import DSVAE, Config
from distk.plugins.sequence.networks import LearnedPrior
from distk.trainer import TrainConfig, Trainer


class FreeRunning(LearnedPrior):
    """The published fault: the prior's moments along a trajectory of its own instead of the posterior's sample."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(self.rollout(torch.randn_like(z)))


def learned(steps: int, seed: int, ablation: str = "", **settings: Any) -> dict[str, float]:
    """Train the demo's model and return swap_gain, kl_f and kl_z."""
    data = open_dataset("vector-clips")
    config = Config(**{**DSVAE.presets["demo"]["model"], **settings})
    with initialised(seed, torch.device("cpu")):
        model = DSVAE(config, data.spec)
        if ablation == "free-running prior":
            model.p_z = FreeRunning(config.z_dim, config.hidden)
    if ablation == "no f":
        render = model.render
        model.render = lambda f, z: render(torch.zeros_like(f), z)  # type: ignore[method-assign]
    trainer = Trainer(model.train(), data, TrainConfig(steps=steps, batch=64, seed=seed, device="cpu"))
    for _ in range(steps):
        trainer.step()
    trainer.check_health()
    found = evaluate(model, ["swap-error", "elbo"], data=data, split="test")["metrics"]
    return {"swap_gain": found["swap-error"]["swap_gain"], **{k: found["elbo"][k] for k in ("kl_f", "kl_z", "elbo")}}
