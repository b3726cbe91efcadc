"""The prediction metric on a toy model whose codes follow known processes in time."""

from __future__ import annotations

import math

import pytest
import torch

from distk import Dataset, DataSpec, Latent, LatentSpace, Method, UsageError, encode_table
from distk.config import NoConfig
from distk.evaluation import build_metric
from distk.plugins.metrics import functional as fn
from distk.testing import synthetic_table

STEPS, RHO = 6, 0.9


class Clips(Dataset):
    """Vectors of four autoregressive processes over time, `[steps * 4]`; correlation RHO from step to step."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        super().__init__(NoConfig(), torch.device("cpu"), None)
        self.spec, self.origin, self.name = DataSpec("vector", (STEPS * 4,), (-9.0, 9.0)), "made here", "clips"
        frames = [torch.randn(n, 4, generator=generator)]
        for _ in range(STEPS - 1):
            noise = torch.randn(n, 4, generator=generator)
            frames.append(RHO * frames[-1] + math.sqrt(1 - RHO**2) * noise)
        self.x = torch.stack(frames, 1).flatten(1)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows):
        return {"x": self.x[rows]}


class Frames(Method):
    """Codes are the processes themselves, in the given groups, each with a value per frame, beside a static group."""

    def __init__(self, groups: dict[str, list[int]], std: float = 0.0) -> None:
        super().__init__(NoConfig(), DataSpec("vector", (STEPS * 4,), (-9.0, 9.0)))
        self.groups, self.std = groups, std
        moving = [Latent(name, "continuous", len(columns), steps=STEPS) for name, columns in groups.items()]
        self.latents = LatentSpace.of(Latent("f", "continuous", 3), *moving)

    def encode(self, x):
        frames = x.view(len(x), STEPS, 4)
        return {"f": x[:, :3], **{name: frames[:, :, columns] for name, columns in self.groups.items()}}


class Noisy(Frames):
    """As Frames, with a posterior."""

    def posterior(self, x):
        return {name: (mean, torch.full_like(mean, self.std)) for name, mean in self.encode(x).items()}


def ksg(model: Method, data: Dataset, seed: int = 0, **options):
    return build_metric("ksg", options)[1].compute(encode_table(model, data), seed)


def test_independent_blocks_predict_themselves_alone(generator) -> None:
    data = Clips(400, generator)
    result = ksg(Frames({"a": [0], "b": [1]}), data, pairs=1500)
    truth = -0.5 * math.log(1 - RHO**2)
    assert result["same"] == pytest.approx(truth, abs=0.1)
    assert abs(result["cross"]) < 0.06
    assert result["difference"] == result["same"] - result["cross"]
    assert result["rows_used"] == [1500]
    entangled = ksg(Frames({"a": [0], "b": [0]}), data, pairs=1500)
    assert entangled["cross"] == pytest.approx(truth, abs=0.1), "a copy is predicted by the other"


def test_it_is_the_array_function_on_pairs_of_consecutive_frames(generator, seed) -> None:
    data = Clips(60, generator)
    result = ksg(Frames({"a": [0, 2], "b": [1]}), data, seed, pairs=10_000, variant="2", k=4)
    frames = data.x.view(60, STEPS, 4)
    now, then = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    blocks = [[0, 2], [1]]
    table = [[fn.ksg(then[:, i], now[:, j], 4, 2) for j in blocks] for i in blocks]
    assert result["rows_used"] == [60 * (STEPS - 1)], "every pair once: none is drawn twice"
    assert result["same"] == pytest.approx((table[0][0] + table[1][1]) / 2)
    assert result["cross"] == pytest.approx((table[0][1] + table[1][0]) / 2)
    assert result["reasons"]["pairs"] == "the data have 300 pairs of consecutive frames"


def test_an_unfactored_code_is_cut_where_it_falls_apart(generator, seed) -> None:
    """Codes 0 and 1 move alike, as do 2 and 3: of the three ways to pair them up, one leaves no cross information."""

    class Pairs(Frames):
        def encode(self, x):
            code = super().encode(x)
            z = code["z"]
            noise = 0.3 * torch.sin(40 * z[..., [2, 3]])
            return {**code, "z": torch.stack([z[..., 0], z[..., 1], z[..., 0], z[..., 1]], -1) + noise.repeat(1, 1, 2)}

    data = Clips(300, generator)
    many, one = (ksg(Pairs({"z": [0, 1, 2, 3]}), data, seed, pairs=700, partitions=n) for n in (20, 1))
    assert many["difference"] >= one["difference"]
    assert many["difference"] > 0.5
    with pytest.raises(UsageError, match="cannot be cut into 3 blocks"):
        ksg(Frames({"z": [0, 1]}), data, blocks=3)
    uneven = ksg(Frames({"z": [0, 1, 2]}), data, blocks=2, pairs=50, partitions=2)
    assert math.isfinite(uneven["difference"])


def test_posterior_draws_and_repeated_frames(generator, seed) -> None:
    data = Clips(300, generator)
    model = Noisy({"a": [0], "b": [1]}, std=0.7)
    first, again, other = (ksg(model, data, s, pairs=900)["same"] for s in (seed, seed, seed + 1))
    assert first == again != other
    assert first < ksg(Frames({"a": [0], "b": [1]}), data, seed, pairs=900)["same"] - 0.2, "noise costs information"
    still = Clips(20, generator)
    still.x[10:] = still.x[:10]
    assert ksg(Frames({"a": [0], "b": [1]}), still)["reasons"]["same"].startswith("50 of 100 pairs occur twice")


def test_codes_without_time_say_what_is_missing() -> None:
    with pytest.raises(UsageError, match="codes of consecutive frames"):
        build_metric("ksg")[1].compute(synthetic_table(), 0)
