"""A run's weights, noise, layers, data and scores draw from streams that have nothing in common."""

from __future__ import annotations

import math

import pytest
import torch

from distk.data import open_dataset
from distk.device import Ranks, initialised, seeded, stream
from distk.settings import resolve
from distk.training.beginning import build

NAMES = ("weights", "training", "layers")
N = 20_000


def drawn(seed: int) -> dict[str, torch.Tensor]:
    """The first numbers of each stream as the program uses it, `data` and `scores` being seeded plainly."""
    settings = resolve(
        "covreg-linear",
        options={"data": {"name": "dimred", "items": 8, "test": 8}, "train": {"seed": seed, "device": "cpu"}},
    )
    with torch.random.fork_rng(devices=[]):
        trainer = build(settings, torch.device("cpu"), Ranks())
        layers = torch.rand(N)
        with initialised(seed, torch.device("cpu")):
            weights = torch.rand(N)
    training = torch.rand(N, generator=trainer.generator)
    return {
        "weights": weights,
        "training": training,
        "layers": layers,
        "plain": torch.rand(N, generator=seeded(seed, torch.device("cpu"))),
    }


def test_the_streams_of_two_seeds_are_uncorrelated(seed) -> None:
    """All pairs among eight streams; a correlation of N independent pairs has a standard deviation of N^-1/2."""
    first = seed % 2**31
    streams = {f"{name} {s}": x for s in (first, first + 1) for name, x in drawn(s).items()}
    table = torch.corrcoef(torch.stack(list(streams.values())))
    table.fill_diagonal_(0)
    # Also shifted by up to five places: a stream must not be another one's continuation.
    shifted = [
        torch.corrcoef(torch.stack([a[k:], b[: N - k]]))[0, 1]
        for a in streams.values()
        for b in streams.values()
        for k in range(1, 6)
    ]
    # 28 + 320 normal correlations: the chance of one beyond 6 deviations is below 10^-6
    bound = 6 / math.sqrt(N - 5)
    assert float(table.abs().max()) < bound
    assert float(torch.stack(shifted).abs().max()) < bound


def test_the_weights_of_a_linear_code_do_not_repeat_its_data(seed) -> None:
    """A study whose data and weights carry one number, as covreg-dimred's."""
    s = seed % 2**31
    data = open_dataset("dimred", {"projection": s, "dims": 100, "factors": 100, "items": 8, "test": 8})
    with initialised(s, torch.device("cpu")):
        own = torch.rand(100), torch.randn(100, 100)
    found = torch.corrcoef(torch.stack([own[1].flatten(), data.omega.flatten()]))[0, 1]
    assert abs(float(found)) < 6 / math.sqrt(10_000)
    plain = torch.Generator().manual_seed(s)
    torch.rand(100, generator=plain)
    same = torch.randn(100, 100, generator=plain)
    assert float(torch.corrcoef(torch.stack([same.flatten(), data.omega.flatten()]))[0, 1]) == pytest.approx(1), (
        "what this test would have found without names"
    )


def test_names_and_seeds_make_different_numbers() -> None:
    made = {(name, s): stream(s, name) for name in NAMES for s in range(1000)}
    assert len(set(made.values())) == 3000
    # a CPU generator takes the lower 32 bits: 3,000 of 2^32 clash with a chance of 10^-3, and these do not
    assert len({v & 0xFFFFFFFF for v in made.values()}) == 3000
    assert all(0 <= v < 2**63 for v in made.values())
    assert stream(5, "weights") == stream(5, "weights")
