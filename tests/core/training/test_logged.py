"""One word, one quantity: what training logs under a name is what the score of the same model gives under it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from distk import can
from distk.device import Ranks, seeded
from distk.registry import registry
from distk.settings import resolve
from distk.source import Source
from distk.training.beginning import build
from distk.training.trainer import Trainer

CLIPS = {"size": 16, "arch": "das-dandi", "channels": 4, "frame_dim": 8, "hidden": 8, "f_dim": 4, "z_dim": 2}
SMALL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dsvae": ({"size": 16}, {k: v for k, v in CLIPS.items() if k != "size"}),
    "indepvideo": ({"name": "bouncing-squares"}, {"channels": 2, "features": 4, "latent_dim": 2, "trans_hidden": 8}),
    **dict.fromkeys(("mvae", "mvae-baseline"), ({"size": 16, "fixed": 60, "test": 80}, {})),
    **dict.fromkeys(("peychev-conv", "peychev-fc"), ({"size": 16}, {})),
}
"""Method -> settings of small data and of a small model; others take blobs."""
BOUNDED = [entry.name for entry in registry().entries("method") if can(entry.load(), "bound")]
PLAIN = {"vae", "mvae", "mvae-baseline", "peychev-conv", "peychev-fc"}
"""Methods whose loss is the negative bound itself."""
RELAXED = {"jointvae": {"reconstruction"}}
"""What is of a relaxed code while training, and of one that is drawn in the score: near, but not the same."""
STEPS, BATCH, DRAWS = 60, 16, 4


def built(name: str, seed: int) -> Trainer:
    data, model = SMALL.get(name, ({"name": "blobs", "positions": 8}, {}))
    train = {"batch": BATCH, "device": "cpu", "steps": STEPS, "log_every": 1, "seed": seed}
    preset = "demo" if "demo" in registry().find("method", name).load().presets and name not in SMALL else None
    settings = resolve(name, preset=preset, options={"data": data, "model": model, "train": train})
    trainer = build(settings, torch.device("cpu"), Ranks())
    trainer.model.eval()  # batch normalisation and dropout as in the score
    return trainer


def steps_of(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, float], torch.Tensor]]:
    """What each step logs with the weights as they are at the start, vectors summed over their elements, and its
    items."""
    before, seen = copy.deepcopy(trainer.model.state_dict()), []
    real = Source.sample

    def drawn(source: Source, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        seen.append(real(source, *arguments, **options))
        return seen[-1]

    monkeypatch.setattr(Source, "sample", drawn)
    for _ in range(STEPS):
        seen.clear()
        trainer.step()
        values = trainer.drain()
        for name in {key.rpartition("/")[0] for key in values if key.rpartition("/")[2].isdigit()}:
            values[name] = sum(v for key, v in values.items() if key.startswith(f"{name}/"))
        trainer.model.load_state_dict(before)
        yield values, seen[0]["x"]


@pytest.mark.parametrize("name", BOUNDED)
def test_what_is_logged_is_what_is_scored(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same items, where only the draws of the code differ: the mean difference over steps is within five of its
    standard errors. Nobody logs an `elbo` that is none; a loss that is the bound is its negative."""
    trainer, generator = built(name, seed), seeded(seed, torch.device("cpu"))
    apart: dict[str, list[float]] = {}
    size: dict[str, float] = {}
    for log, x in steps_of(trainer, monkeypatch):
        with torch.no_grad():
            draws = [trainer.model.bound(x, generator) for _ in range(DRAWS)]
        bound = {key: sum(d[key].double().reshape(len(x), -1).sum(1).mean() for d in draws) / DRAWS for key in draws[0]}
        shared = set(log) & set(bound)
        assert shared & {"reconstruction", "mse"}, (sorted(log), sorted(bound))
        if name in PLAIN:
            log, shared = {**log, "elbo": -log["loss"]}, {*shared, "elbo"}
        for key in shared - RELAXED.get(name, set()):
            apart.setdefault(key, []).append(log[key] - float(bound[key]))
            size[key] = abs(float(bound[key]))
    assert apart, "nothing was compared"
    for key, values in apart.items():
        difference = torch.tensor(values, dtype=torch.float64)
        error = float(difference.std()) / STEPS**0.5
        # float32 sums of thousands of pixels agree to about six digits
        assert abs(float(difference.mean())) <= 5 * error + 2e-6 * size[key] + 1e-7, (key, difference.mean(), error)
