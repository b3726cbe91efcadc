"""JADE learns what its terms promise, and does not without them.

Data and model: the preset `demo` (easy styled-digits against digits28, a quarter of the widths), on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch

from distk.device import Ranks
from distk.evaluation import evaluate
from distk.settings import resolve
from distk.trainer import Trainer
from distk.training import build


def trained(method: str, seed: int, steps: int, of: int | None = None, **model: Any) -> Trainer:
    """The preset `demo`, its schedules made for `of` steps (default: all), other settings of the model on top."""
    options = {"model": {"horizon": of or steps, **model}, "train": {"seed": seed, "steps": steps, "device": "cpu"}}
    trainer = build(resolve(method, preset="demo", options=options), torch.device("cpu"), Ranks())
    for _ in range(steps):
        trainer.step()
    trainer.check_health()
    return trainer


def scores(trainer: Trainer, metric: str = "error", **options: Any) -> dict[str, float]:
    return evaluate(trainer.model, [metric], data=trainer.dataset, **options)["metrics"][metric]
