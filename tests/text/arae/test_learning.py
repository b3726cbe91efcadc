"""What ARAE must learn on the stand-in corpus, and that it does not without its adversary."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distk.device import Ranks
from distk.plugins.text.common import standin
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer


def trainer(seed: int, steps: int, **model: Any) -> Trainer:
    """Section 8 (b) of the sheet: e = 32, h = 64, z = 16, 32 sentences per label, adam-joint 4e-3, noise 0.02."""
    sizes = {"embedding": 32, "hidden": 64, "z": 16, "lr_ae": 4e-3, "noise": 0.02}
    settings = resolve(
        "arae",
        options={
            "model": {**sizes, **model},
            "data": {"name": "standin-reviews", "variant": "tiny"},
            "train": {"batch": 64, "seed": seed, "device": "cpu"},
        },
    )
    made = build(settings, torch.device("cpu"), Ranks())
    for _ in range(steps):
        made.step()
    return made


def progress(made: Trainer, n: int = 300) -> dict[str, float]:
    """Exact reconstruction, noun recall and transfer accuracy by the grammar's own oracle, on clean test sentences.

    same_decoder: transfer accuracy when the label does not choose the decoder.
    """
    model, data = made.model, made.dataset
    rows = data.rows("test")[:n]
    lines, nouns, label = data.words(rows), data.nouns(rows), data.label[rows].tolist()
    model.eval()
    result = {"reconstruction": 0.0, "nouns": 0.0, "transfer": 0.0, "same_decoder": 0.0, "label_read": 0.0}
    for y in (0, 1):
        mine = [i for i in range(n) if label[i] == y]
        source = [" ".join(lines[i]) for i in mine]
        result["label_read"] += sum(k == y for k in model.label_of(source)) / n
        for i, same, other in zip(mine, model.rewrite(source, y), model.rewrite(source, 1 - y), strict=True):
            kept = [w in other.split() for w, f in zip(lines[i], nouns[i], strict=True) if f]
            result["reconstruction"] += (same.split() == lines[i]) / n
            result["nouns"] += sum(kept) / len(kept) / n
            result["transfer"] += (standin.oracle(other.split()) == 1 - y) / n
            result["same_decoder"] += (standin.oracle(same.split()) == 1 - y) / n
    model.train()
    return result


def test_an_adversary_on_the_code_makes_it_transfer() -> None:
    """Quick: the classifier alone, 1000 steps.

    Measured with seed 0: reconstruction 0.69, nouns 0.97, transfer 0.92, label read 0.98. Without it transfer is at
    most 0.07 from 1000 steps on, see below.
    """
    result = progress(trainer(0, 1000, lambda1=0.0, lambda2=3.0, warmup=1000))
    assert min(result["transfer"], result["nouns"]) >= 0.6
    assert result["same_decoder"] <= 0.15  # without the exchange of decoders nothing changes
    assert result["label_read"] >= 0.75


@pytest.mark.slow
def test_without_an_adversary_nothing_is_transferred() -> None:
    """The ablation: noisy labels keep two decoders alone from passing for a transfer.

    Measured at 1250 steps, seeds 0, 1, 2: reconstruction 1.00, 0.997, 1.00; nouns 1.00, 0.993, 1.00; transfer 0.007,
    0.023, 0.033; label read 0.93, 0.89, 0.94.
    """
    result = progress(trainer(0, 1250, lambda1=0.0, lambda2=0.0))
    assert result["reconstruction"] >= 0.9
    assert result["transfer"] <= 0.2
    assert min(result["transfer"], result["nouns"]) <= 0.2


@pytest.mark.slow
def test_all_of_algorithm_1() -> None:
    """lambda1 = 1, lambda2 = 3 with warm-up, as the preset demo.

    Measured at 1000 steps, seeds 0 (1000 dev sentences), 1, 2: reconstruction 0.72, 0.74, 0.61; nouns 0.93, 0.97, 0.91;
    transfer 0.97, 0.97, 1.00. Further on the label leaks back: transfer 0.56 at 2000, 0.34 at 3000 steps (seed 0).
    """
    result = progress(trainer(0, 1000, lambda1=1.0, lambda2=3.0, warmup=1000))
    assert min(result["transfer"], result["nouns"]) >= 0.6
    assert result["same_decoder"] <= 0.15
