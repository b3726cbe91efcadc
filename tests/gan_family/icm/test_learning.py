"""icm learns to take the mechanisms apart, and the ablations do not."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from distk import open_dataset
from distk.device import initialised
from distk.plugins.gan_family.icm.method import ICM, Config
from distk.plugins.gan_family.icm.metrics import observe, specialisation
from distk.settings import TrainConfig
from distk.training.trainer import Trainer

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


# Two mechanisms, two experts, 60 steps to the identity. Measured on 1 CPU thread, error over that without experts,
# (right:2, invert), smallest over the iterations 40, 60, 80:
#   seeds 0, 1, 2, 3: (0.35, 0.06), (0.28, 0.03), (0.48, 0.05), (0.39, 0.04); each mechanism always has its own expert
#   frozen discriminator, seed 0: (2.2, 0.18): experts please a random score, which moves the shifted images away
SMALL = {"mechanisms": ("right:2", "invert"), "width": 6, "hidden": 64, "identity_iters": 60}


def best_ratios(found: list[dict[str, Any]]) -> list[float]:
    """Smallest error of each mechanism, relative to that without experts."""
    return [min(f["error"][k] / f["error_before"][k] for f in found) for k in range(len(found[0]["error"]))]


def test_two_experts_part_two_mechanisms() -> None:
    found = train_and_watch(0, [40, 60, 80], **SMALL)
    shifted, inverted = best_ratios(found)
    assert shifted < 0.9
    assert inverted < 0.15
    assert all(f["purity"] > 0.9 and f["winners"] == 2 for f in found)


@pytest.mark.slow
def test_a_frozen_discriminator_restores_no_shift() -> None:
    assert best_ratios(train_and_watch(0, [40, 60], train_critic=False, **SMALL))[0] > 1.4


# Four mechanisms, four experts, one CPU thread. Error: relative to that without experts (right, up, invert, noise).
# Medians over the iterations 400, 450, 500, 550, 600, seeds 0 to 2 or 3:
#                          purity          worse of the two shifts' errors
#   as it is               0.86 to 0.96    0.28 to 0.45
#   --no-competition       0.54 to 0.79    0.62 to 1.00
# Without the start at the identity a seed may still come out well (replica 1 of seed 0 has 3 winners, as 1 of the
# paper's 10 runs did), so that ablation is held to this seed.
LATE, EARLY = [400, 450, 500, 550, 600], [100, 150, 200, 250, 300]


@pytest.mark.slow
def test_four_experts_part_four_mechanisms() -> None:
    purity, winners, error = medians(train_and_watch(0, LATE))
    assert purity >= 0.8
    assert winners >= 3
    assert max(error[0], error[1]) <= 0.54
    assert error[2] <= 0.06


@pytest.mark.slow
def test_without_competition_experts_specialise_less() -> None:
    purity, _, error = medians(train_and_watch(0, LATE, competition=False))
    assert purity < 0.83
    assert max(error[0], error[1]) > 0.56


@pytest.mark.slow
def test_without_the_start_at_the_identity_one_expert_takes_three_mechanisms() -> None:
    assert medians(train_and_watch(0, EARLY, identity_iters=0))[1] <= 2


@pytest.mark.slow
def test_with_a_frozen_discriminator_shifts_get_worse() -> None:
    _, _, error = medians(train_and_watch(0, EARLY[:3], train_critic=False))
    assert min(error[0], error[1]) > 1.4
