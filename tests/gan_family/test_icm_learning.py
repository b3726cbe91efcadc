"""icm learns to take the mechanisms apart, and the ablations do not."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from distk import open_dataset
from distk.device import initialised
from distk.plugins.gan_family.icm import ICM, Config
from distk.plugins.gan_family.icm_metric import observe, specialisation
from distk.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")


def train_and_watch(seed: int, iterations: list[int], **settings: Any) -> list[dict[str, Any]]:
    """The preset `demo`'s setting; scores on 400 test images, in eval mode, after so many steps of competition."""
    data = open_dataset("digits28", {"size": 16, "margin": 3, "augment": False})
    values = {
        "mechanisms": ("right:2", "up:2", "invert", "noise"),
        "width": 12,
        "hidden": 256,
        "identity_iters": 150,
        **settings,
    }
    with initialised(seed, CPU):
        model = ICM(Config(**values), data.spec)
    trainer = Trainer(model.train(), data, TrainConfig(batch=32, seed=seed, device="cpu"))
    found = []
    for iteration in iterations:
        while trainer.index < model.config.identity_iters + iteration:
            trainer.step()
        model.eval()
        with torch.no_grad():
            seen = observe(model, data, 400, 0, None)
        model.train()
        count = len(model.mixture)
        told = specialisation(seen["winner"], seen["mechanism"], count, model.number)
        for name in ("error", "error_before"):
            told[name] = [float(seen[name][seen["mechanism"] == k].mean()) for k in range(count)]
        found.append(told)
    return found


def medians(found: list[dict[str, Any]]) -> tuple[float, float, list[float]]:
    """Of purity, number of winners, and error per mechanism relative to that without experts."""
    ratios = [[e / b for e, b in zip(f["error"], f["error_before"], strict=True)] for f in found]
    return (
        statistics.median(f["purity"] for f in found),
        statistics.median(f["winners"] for f in found),
        [statistics.median(r[k] for r in ratios) for k in range(len(ratios[0]))],
    )
