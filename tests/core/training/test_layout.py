"""Convolutions laid out channels last: where, that nothing but the order of sums changes, and taking such a run up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import distk
from distk import checkpoint
from distk.device import Ranks, channels_last, set_precision
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.loop import resume
from distk.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL: dict[str, dict[str, Any]] = {
    "model": {"z": 2, "hidden": 8, "warmup": 2, "relieve_every": 1},
    "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 6},
    "train": {"batch": 8, "device": "cpu", "steps": 6},
}


@pytest.fixture(autouse=True)
def precision() -> Any:
    yield
    set_precision("fp32")


def trainer(**train: Any) -> Trainer:
    return build(resolve("cascadevae", options={**SMALL, "train": {**SMALL["train"], **train}}), CPU, Ranks())


def convolutions(model: nn.Module) -> list[torch.Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def last(weight: torch.Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("fp32", "auto", False),
        ("tf32", "auto", True),
        ("bf16", "auto", True),
        ("fp32", "on", True),
        ("fp32", "off", False),
        ("bf16", "off", False),
    ],
)
def test_convolutions_lie_as_precision_and_the_user_say(name: str, wanted: str, expected: bool) -> None:
    made = trainer(precision=name, channels_last=wanted)
    for _ in range(3):
        made.step()
    made.check_health()
    weights = [w for w in convolutions(made.model) if w.shape[1] > 1 and w.shape[0] > 1]
    assert len(weights) > 3
    assert {last(w) for w in weights} == {expected}
    for group in made.optimizers["loss"].state.values():
        assert group["exp_avg"].shape == group["exp_avg_sq"].shape
    states = made.optimizers["loss"].state
    assert all(states[w]["exp_avg"].stride() == w.stride() for w in weights)


def test_a_step_is_the_same_up_to_the_order_of_sums() -> None:
    plain, turned = trainer(), trainer()
    channels_last(turned.model)
    plain.step()
    turned.step()
    a, b = plain.drain(), turned.drain()
    # Sums of up to 1,024 products and 1,024 pixels: sqrt(n) roundings of 6e-8 of numbers of size 1, and room.
    assert b == pytest.approx(a, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ["fp32", "tf32", "bf16"])
def test_such_a_run_taken_up_again_is_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    turned = {"precision": name, "channels_last": "on"}
    options = {**SMALL["model"], **{f"data_{k}": v for k, v in SMALL["data"].items()}, **SMALL["train"]}
    whole = distk.train("cascadevae", **options, **turned, out=tmp_path / "whole", quiet=True)
    distk.train("cascadevae", **{**options, "steps": 3}, **turned, out=tmp_path / "part", quiet=True)
    part = resume(tmp_path / "part", steps=6, quiet=True)
    one, other = (checkpoint.load(run.checkpoint)[0].state_dict() for run in (whole, part))
    assert all(torch.equal(one[key], other[key]) for key in one)
