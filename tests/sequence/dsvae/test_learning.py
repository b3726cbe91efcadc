"""DSVAE separates the static vector from the rotation, and stops doing so when a part of the model is taken away.

Vector clips; swap_gain on 1,000 test pairs against the exact result, KL in nats per clip.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distk import evaluate, open_dataset
from distk.device import initialised
from distk.plugins.sequence.dsvae.method import DSVAE, Config
from distk.plugins.sequence.dsvae.networks import LearnedPrior
from distk.settings import TrainConfig
from distk.training.trainer import Trainer


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


# Measured on one CPU core (torch 2.13), 400 steps, seeds 0, 1, 2: swap_gain 0.990, 0.990, 0.901; without f -0.868.
# The threshold stands between; the ablation itself is trained in the slow test below.
def test_separates_within_400_steps() -> None:
    assert learned(400, seed=0)["swap_gain"] > 0.6


# Measured, 1,200 steps: swap_gain and kl_z of the full model 0.993 12.4, 0.994 12.4, 0.994 13.2 (seeds 0, 1, 2); with
# the standard prior 0.991 31.3, 0.991 31.4 (seeds 0, 1), elbo 22.5 against 44.0; free-running prior 0.991 31.1;
# beta_z = 0 0.537 223; without f -0.859. kl_z / kl_z(standard): 0.40 for the full model, 0.99 for the published fault.
@pytest.mark.slow
def test_each_part_of_the_model_is_needed() -> None:
    full, standard = learned(1200, seed=0), learned(1200, seed=0, prior="standard")
    assert full["swap_gain"] > 0.9
    assert full["kl_z"] < 0.7 * standard["kl_z"]
    assert full["elbo"] > standard["elbo"] + 10
    assert learned(1200, seed=0, beta_z=0.0)["swap_gain"] < 0.8
    assert learned(1200, seed=0, ablation="no f")["swap_gain"] < 0
    assert learned(1200, seed=0, ablation="free-running prior")["kl_z"] > 0.9 * standard["kl_z"]


# Measured, 600 steps, seed 0: 0.589, 0.991, 0.990, 0.990; without f about -0.86.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "least"), [("factorized", 0.3), ("factorized-rnn", 0.8), ("factorized-ar", 0.8), ("full-ar", 0.8)]
)
def test_every_posterior_separates(form: str, least: float) -> None:
    assert learned(600, seed=0, posterior=form)["swap_gain"] > least
