"""Multi-Entity VAE: its formulas and networks against independent computations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from distk import DataSpec, DistkError, UsageError
from distk.device import Ranks, seeded
from distk.plugins.vae_family.mvae.method import MVAE, BaselineConfig, Config, MVAEBaseline, checked, entropy
from distk.settings import resolve
from distk.training.beginning import build


def model(size: int = 16, channels: int = 3, **settings: Any) -> MVAE:
    return MVAE(Config(**settings), DataSpec("image", (channels, size, size)))


def images(generator: torch.Generator, n: int = 6, size: int = 16) -> Tensor:
    return torch.rand(n, 3, size, size, generator=generator)


class Recorded:
    """Noise that is kept."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator, self.drawn = generator, []

    def randn(self, *shape: int) -> Tensor:
        self.drawn.append(torch.randn(*shape, generator=self.generator))
        return self.drawn[-1]

    def rand(self, *shape: int) -> Tensor:
        self.drawn.append(torch.rand(*shape, generator=self.generator))
        return self.drawn[-1]


ENCODER = 896 + 9248 + 18_496 + 36_928 + (66 * 9 * 64 + 64) + (64 * 24 + 24)
OBJECT = 128 * 1025 - 128 + 1024 + (16 * 9 * 32 + 32) + 9248
RENDER = 2 * 9248 + 32 * 9 * 3 + 3


@pytest.mark.parametrize(("size", "grid"), [(16, 8), (32, 8), (64, 8), (64, 4)])
def test_sizes_of_the_networks(size: int, grid: int) -> None:
    made = model(size, grid=grid)
    total = sum(p.numel() for p in made.parameters())
    assert total == ENCODER + 12 * 128 + 128 + OBJECT + RENDER == 272_219
    x = torch.zeros(2, 3, size, size)
    found = made.objects(x)
    assert found.map.shape == (2, grid * grid)
    assert found.mean.shape == (2, 5, 12)
    features = made.features(found.mean)
    assert features.shape == (2, 5, 32, size // 2, size // 2)
    assert made.decode(made.encode(x)).shape == x.shape
    baseline = MVAEBaseline(BaselineConfig(grid=grid), made.spec)
    linear = 24 * grid * grid * 120 + 120
    assert sum(p.numel() for p in baseline.parameters()) == ENCODER + linear + 60 * 128 + 128 + OBJECT + RENDER
    assert baseline.decode(baseline.prior(2, seeded(0, torch.device("cpu")))).shape == x.shape


def test_the_encoder_is_told_where_each_cell_is() -> None:
    place = model(32).encoder.place
    assert torch.allclose(place[0, 3], torch.linspace(-1, 1, 8))
    assert torch.allclose(place[1, :, 3], torch.linspace(-1, 1, 8))


def test_candidates_and_selection_against_a_loop(generator: torch.Generator) -> None:
    made = model(slots=4)
    x = images(generator)
    with torch.no_grad():
        for p in made.encoder.parameters():  # far from the prior, so that the clamp matters too
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
        found, raw = made.objects(x), made.encoder(x)
    for i in range(len(x)):
        nats = []
        for cell in range(64):
            mean, logvar = raw[i, :12, cell // 8, cell % 8], raw[i, 12:, cell // 8, cell % 8].clamp(-12, 8)
            prior = Normal(torch.zeros(12), torch.ones(12))
            nats.append(float(kl_divergence(Normal(mean, (0.5 * logvar).exp()), prior).sum()))
        assert torch.allclose(found.map[i], torch.tensor(nats), rtol=1e-4, atol=1e-4)
        order = sorted(range(64), key=lambda cell: -float(found.map[i, cell]))[:4]
        assert found.cells[i].tolist() == order
        for slot, cell in enumerate(order):
            assert torch.equal(found.mean[i, slot], raw[i, :12, cell // 8, cell % 8])
            assert torch.equal(found.logvar[i, slot], raw[i, 12:, cell // 8, cell % 8].clamp(-12, 8))
            assert found.kl[i, slot] == found.map[i, cell]


@pytest.mark.parametrize("agg", ["max", "sum"])
def test_the_order_of_objects_does_not_matter(agg: str, generator: torch.Generator) -> None:
    made = model(agg=agg)
    z = torch.randn(3, 5, 12, generator=generator)
    order = torch.randperm(5, generator=generator)
    with torch.no_grad():
        features = made.features(z)
        one, other = made.pool(features), made.pool(features[:, order])
        assert torch.equal(one, other) if agg == "max" else torch.allclose(one, other, atol=1e-5)
        assert torch.allclose(made.logits(z), made.logits(z[:, order]), atol=1e-5)
        loop = [made.object(z[:, k]) for k in range(5)]
    stacked = torch.stack(loop)
    expected = stacked.max(0).values if agg == "max" else stacked.sum(0)
    assert torch.allclose(one, expected, atol=1e-5)


@pytest.mark.parametrize("select", ["kl", "random"])
def test_only_kept_cells_get_a_gradient(select: str, generator: torch.Generator) -> None:
    made = model(slots=3, select=select)
    maps: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        maps.append(output)

    made.encoder.register_forward_hook(keep)
    x, noise = images(generator), Recorded(generator)
    nll, kl = made.terms(x, noise)
    (nll.mean() + kl.sum(1).mean()).backward()
    cells = made.objects(x).cells if select == "kl" else noise.drawn[0].topk(3, 1).indices
    gradient = maps[0].grad
    assert gradient is not None
    kept = torch.zeros(len(x), 64, dtype=torch.bool).scatter_(1, cells, True)
    size = gradient.abs().sum(1).flatten(1)
    assert bool((size[~kept] == 0).all())
    assert bool((size[kept] > 0).all())


@pytest.mark.parametrize("method", ["mvae", "mvae-baseline"])
def test_the_bound_is_that_of_the_model(method: str, generator: torch.Generator) -> None:
    spec = DataSpec("image", (3, 16, 16))
    made = model(slots=3) if method == "mvae" else MVAEBaseline(BaselineConfig(z=7), spec)
    x, noise = images(generator), Recorded(generator)
    with torch.no_grad():
        nll, kl = made.terms(x, noise)
        posterior = made.posterior(x)
        groups = list(posterior)
        eps = noise.drawn[-1].view(len(x), len(groups), -1).unbind(1)
        z = {name: posterior[name][0] + posterior[name][1] * e for name, e in zip(groups, eps, strict=True)}
        image = made.decode(z)
    expected = -Bernoulli(image.double(), validate_args=False).log_prob(x.double()).flatten(1).sum(1)
    assert torch.allclose(nll.double(), expected, rtol=1e-4)
    for k, name in enumerate(groups):
        mean, std = posterior[name]
        of_group = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), torch.ones_like(std)))
        assert torch.allclose(kl[:, k], of_group.sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_the_objective_sums_pixels_and_kept_objects(beta: float, seed: int) -> None:
    options = {
        "model": {"beta": beta, "slots": 3},
        "data": {"size": 16},
        "train": {"batch": 4, "device": "cpu", "seed": seed},
    }
    trainer = build(resolve("mvae", preset="demo", options=options), torch.device("cpu"), Ranks())
    trainer.step()
    told = trainer.drain()
    assert told["loss"] == pytest.approx(told["reconstruction"] + beta * told["kl"], rel=1e-5)
    assert told["kl"] == pytest.approx(sum(told[f"object/{k}"] for k in (1, 2, 3)), rel=1e-4)
    assert told["reconstruction"] > 100  # a sum over 768 numbers, not their mean


def test_entropy_is_the_floor_of_the_reconstruction(generator: torch.Generator) -> None:
    x = images(generator)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    expected = Bernoulli(x.double()).entropy().flatten(1).sum(1)
    assert torch.allclose(entropy(x).double(), expected, rtol=1e-5)
    assert entropy(torch.ones(1, 3, 4, 4)).tolist() == [0.0]


def test_the_learning_rate_falls_exponentially() -> None:
    made = model()
    assert made.schedule(0)["lr"] == 1e-3
    assert made.schedule(1_500_000)["lr"] == pytest.approx(1e-4)
    assert made.schedule(3_000_000)["lr"] == made.schedule(5_000_000)["lr"] == pytest.approx(1e-5)
    ratio = made.schedule(1001)["lr"] / made.schedule(1000)["lr"]
    assert ratio == pytest.approx(math.exp(math.log(0.01) / 3e6), rel=1e-12)


def test_swapping_twice_and_swapping_with_oneself(generator: torch.Generator) -> None:
    made = model()
    x, y = images(generator, 4), images(generator, 4)
    with torch.no_grad():
        a, b = made.encode(x), made.encode(y)
        once = made.latents.swap(a, b, "object2")
        twice = made.latents.swap(*once, "object2")
        assert all(torch.equal(one[k], other[k]) for one, other in zip(twice, (a, b), strict=True) for k in a)
        assert torch.equal(once[0]["object2"], b["object2"])
        assert torch.equal(once[0]["object1"], a["object1"])
        same = made.latents.swap(a, made.encode(x.clone()), "object1")
        assert torch.equal(made.decode(same[0]), made.decode(a))


def test_samples_are_as_many_draws_of_the_prior_as_there_are_slots() -> None:
    made = model(slots=7)
    prior = made.prior(500, seeded(0, torch.device("cpu")))
    assert list(prior) == [f"object{k + 1}" for k in range(7)]
    flat = torch.stack(list(prior.values()))
    assert abs(float(flat.mean())) < 5 / math.sqrt(flat.numel())
    assert abs(float(flat.var()) - 1) < 5 * math.sqrt(2 / flat.numel())
    assert made.sample(3, seeded(0, torch.device("cpu"))).shape == (3, 3, 16, 16)


@pytest.mark.parametrize(("grid", "slots", "cells"), [(8, 80, 64), (4, 17, 16)])
def test_more_slots_than_cells(grid: int, slots: int, cells: int) -> None:
    with pytest.raises(UsageError, match=rf"slots \({slots}\) exceeds the {cells} candidate cells of grid {grid}"):
        resolve("mvae", options={"model": {"grid": grid, "slots": slots}})


def test_fewer_slots_than_sprites_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    MVAE(Config(slots=5), DataSpec("image", (3, 16, 16), extra={"max_sprites": 8}))
    assert "5 slots cannot hold 8 sprites" in capsys.readouterr().err
    MVAE(Config(slots=8), DataSpec("image", (3, 16, 16), extra={"max_sprites": 8}))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (DataSpec("image", (3, 32, 32), range=(-1.0, 1.0)), "go from -1 to 1"),
    ],
)
def test_images_that_the_model_does_not_take(spec: DataSpec, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MVAE(Config(), spec)


def test_pixels_outside_the_unit_interval_stop_the_run() -> None:
    settings = resolve("mvae", preset="demo", options={"data": {"size": 16}, "train": {"batch": 4, "device": "cpu"}})
    trainer = build(settings, torch.device("cpu"), Ranks())
    whole = type(trainer.dataset).render
    trainer.dataset.render = lambda scene: 255 * whole(trainer.dataset, scene)  # type: ignore[attr-defined]
    with pytest.raises(DistkError, match=r"values from 0 to 2\d\d.*: pixels must lie in \[0, 1\]"):
        trainer.step()
    with pytest.raises(DistkError, match="holds NaN"):
        checked(torch.tensor([0.0, math.nan]), "this")
