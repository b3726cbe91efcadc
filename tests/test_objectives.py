"""How every method trains, held to values that are written down: optimizers with all their settings, clipping, cadence;
and on which rows.

The settings are those that a method has without a preset, on the small data of its preset `demo`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from distk.device import Ranks
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

WRITTEN: dict[str, Any] = tomllib.loads(Path(__file__).with_name("objectives.toml").read_text(encoding="utf-8"))
METHODS = [
    entry.name
    for entry in registry().entries("method")
    if entry.distribution == "distk" and not entry.load().closed_form
]
FEW_GRASPS = {"objects": 4, "categories": ("cup", "mug"), "scenes": 2, "size": 32, "voxels": 8, "demos": 2, "kept": 8}
SMALLER: dict[str, dict[str, Any]] = {
    **{key: {"poses": 2} for key in ("fstat", "triplet", "histloss", "bindev")},
    "nlmultitask": {"sentences": 600},
    **{key: dict(FEW_GRASPS) for key in ("grasping", "graspcnn")},
    **{key: {"clips": 60, "held_out": 20} for key in ("ldf", "joint-gan")},
}
CHANGED = {"joint-gan": {"train": {"steps": 600}}, "grasping": {"train": {"steps": 900}}}
"""Methods whose cadence depends on the length of the run, and the length."""


def trainer(name: str, **model: Any) -> Trainer:
    demo = registry().find("method", name).load().presets.get("demo", {})
    data = {**demo.get("data", {}), **SMALLER.get(name, {})}
    train = {"device": "cpu", "batch": 8, **CHANGED.get(name, {}).get("train", {})}
    settings = resolve(name, options={"model": model, "data": data, "train": train})
    return build(settings, torch.device("cpu"), Ranks())


def told(made: Trainer) -> dict[str, Any]:
    """Objective -> what of it differs from one update per step, unclipped, on the shared batch."""
    found: dict[str, Any] = {}
    for stage in made.stages:
        for one in stage:
            line: dict[str, Any] = {}
            for key, plain in (("stage", None), ("updates", 1), ("every", 1), ("fresh_batch", False), ("clip", None)):
                if getattr(one, key) != plain:
                    line[key] = getattr(one, key)
            if one.window is not None:
                line["window"] = [one.window[0], *([one.window[1]] if one.window[1] is not None else [])]
            if one.after is not None:
                line["after"] = getattr(one.after, "__name__", "function")
            optimizer = made.optimizers.get(one.name)
            if optimizer is not None:
                line["optimizer"] = type(optimizer).__name__
                for key in ("lr", "betas", "eps", "momentum", "alpha"):
                    if key in optimizer.defaults:
                        line[key] = optimizer.defaults[key]
                line["weight_decay"] = [group.get("weight_decay", 0.0) for group in optimizer.param_groups]
            found[one.name] = json.loads(json.dumps(line))
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_as_it_is_written_down(name: str) -> None:
    written = dict(WRITTEN.get(name, {}))
    assert len(written.pop("source", "")) > 5, f"write '{name}' into tests/objectives.toml, with its source"
    found = told(trainer(name))
    assert list(found) == list(written), "the objectives, in their order"
    for objective, line in found.items():
        assert line == written[objective], objective


def test_nothing_is_written_down_that_is_not_there() -> None:
    assert set(WRITTEN) == set(METHODS)


LEARNT = ("train", "unsup", "y", "dev", "validation")
"""Splits that training may read: sentences without labels, a second set; those that choices are made by."""
LATER = {
    "ldf": {"bottom_steps": 2},
    "mmdtraverse": {"phase1": 2},
    "icm": {"identity_iters": 2},
    "attrtransfer": {"warmup": 2},
    "cascadevae": {"warmup": 2, "relieve_every": 2},
}
"""Settings with which a second stage begins within a few steps."""


@pytest.mark.parametrize("name", METHODS)
def test_no_row_that_is_kept_for_a_test_is_trained_on(name: str) -> None:
    """Every row that a few steps ask their data set for, whichever way the method draws its batches."""
    made = trainer(name, **LATER.get(name, {}))
    data = made.dataset
    held = [rows for split, rows in data.parts.items() if split not in LEARNT]
    if not held:
        pytest.skip(f"'{data.name}' keeps nothing for a test here")
    asked: list[torch.Tensor] = []
    for reader in ("batch", "items"):
        original = getattr(data, reader)

        def noted(rows: torch.Tensor, *more: Any, read: Any = original) -> Any:
            asked.append(rows.flatten())
            return read(rows, *more)

        setattr(data, reader, noted)
    for _ in range(4):
        made.step()
    if not asked:
        pytest.skip(f"'{data.name}' makes batches without rows")
    kept = torch.cat(held)
    assert not bool(torch.isin(torch.cat(asked).cpu(), kept.cpu()).any())
