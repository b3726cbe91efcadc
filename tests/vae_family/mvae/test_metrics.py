"""Scores of the multi-entity VAE: counting, slots against sprites, exchange, sequential decoding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import CodeTable, Dataset, DataSpec, Files, UsageError, open_dataset
from distk.evaluation import build_metric, evaluate
from distk.plugins.datasets.sprites_scenes import SpritesScenes
from distk.plugins.vae_family.mvae.method import MVAE, Config, MVAEBaseline, entropy
from distk.plugins.vae_family.mvae.metrics import CountConfig, ObjectCount, best_threshold, peaks
from distk.plugins.vae_family.mvae.slots import EntityExchange, build_up, exchanged, overlap, ridge_r2
from distk.settings import resolve

METRICS = ("mvae-elbo", "object-count", "slot-factors", "entity-exchange")


@pytest.fixture
def scenes() -> Dataset:
    return open_dataset("sprites-scenes", {"size": 16, "fixed": 110, "test": 80, "max_sprites": 2})


@pytest.fixture
def model(scenes: Dataset, seed: int) -> MVAE:
    torch.manual_seed(seed)
    return MVAE(Config(slots=3), scenes.spec).eval()


def table_of(model: Any, data: Dataset) -> CodeTable:
    return CodeTable(torch.zeros(0, 1), ["z1"], ["continuous"], model=model, dataset=data)


# Counting


def test_the_best_threshold_against_a_scan(generator: torch.Generator) -> None:
    for n, k in ((1, 3), (7, 1), (40, 5), (60, 12)):
        kl = torch.rand(n, k, generator=generator) * 8
        kl[torch.rand(n, k, generator=generator) < 0.3] = 0.0
        kl[0] = kl[0].round()
        count = torch.randint(0, k + 2, (n,), generator=generator)
        found, share = best_threshold(kl, count)
        values = torch.cat([torch.zeros(1), kl.flatten().unique(), kl.max().view(1) + 1])
        middles = (values[1:] + values[:-1]) / 2
        scan = [float(((kl > t).sum(1) == count).double().mean()) for t in middles]
        assert share == pytest.approx(max(scan), abs=1e-12)
        if share:
            assert float(((kl > found).sum(1) == count).double().mean()) == pytest.approx(share, abs=1e-12)


def test_counting_on_maps_made_by_hand() -> None:
    kl = torch.tensor([[9.0, 1, 1, 1], [8, 7, 1, 2], [1, 0, 0, 0], [6, 9, 7, 1]])
    threshold, share = best_threshold(kl, torch.tensor([1, 2, 0, 3]))
    assert share == 1.0
    assert threshold == 4.0  # anything between 2 and 6
    threshold, share = best_threshold(kl, torch.tensor([1, 2, 4, 3]))
    assert share == 0.75
    assert best_threshold(kl, torch.tensor([5, 5, 5, 5])) == (0.0, 0.0)


def test_peaks_against_a_loop(generator: torch.Generator) -> None:
    kl = torch.rand(3, 16, generator=generator)
    found = peaks(kl).view(3, 4, 4)
    for i in range(3):
        grid = kl[i].view(4, 4)
        for r in range(4):
            for c in range(4):
                around = grid[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
                assert found[i, r, c] == (grid[r, c] if grid[r, c] == around.max() else 0)


class _Perfect(MVAE):
    """Lights one cell per sprite."""

    def objects(self, x: Tensor, score: Tensor | None = None) -> Any:
        bright = x[:, 0, ::2, ::2].flatten(1)
        kl = 5 * bright
        return SimpleNamespace(map=kl, kl=kl.topk(self.slots, 1).values)


class _Dots(SpritesScenes):
    """A pixel per sprite, all in places of their own."""

    def render(self, scene: Any) -> Tensor:
        x = torch.zeros(len(scene["count"]), *self.spec.shape)
        for m in range(self.config.max_sprites):
            x[:, :, 2 * m, 4] = scene["exists"][:, m, None]
        return x


@pytest.mark.parametrize("scope", ["map", "slots"])
def test_counting_with_a_perfect_map(scope: Any, scenes: Dataset) -> None:
    dots = _Dots(scenes.config, scenes.device, Files("dots", None, ""))
    perfect = _Perfect(Config(slots=3), scenes.spec)
    result = ObjectCount(CountConfig(scope=scope)).compute(table_of(perfect, dots), 0)
    assert result["accuracy"] == result["train_accuracy"] == 1.0
    assert 0 < result["threshold"] < 5
    confusion, counts = result["confusion"], dots.scenes["count"][110:]
    assert confusion.shape == (3, 4)
    assert np.array_equal(confusion[:, :3], np.diag(counts.bincount(minlength=3).numpy()))
    assert result["majority"] == float(counts.bincount().max()) / 80
    assert result["scenes"] == 80


def test_who_is_not_scored(scenes: Dataset, model: MVAE) -> None:
    baseline = MVAEBaseline(resolve("mvae-baseline").model, scenes.spec)
    told = evaluate(baseline, METRICS, data=scenes, rows=8)["metrics"]
    for name in METRICS[1:]:
        assert told[name]["error"].startswith("mvae-baseline has no object slots")
    assert told["mvae-elbo"]["elbo"] < 0
    other = open_dataset("dsprites", {"size": 32, "scales": [5], "orientations": 1, "positions": 4})
    for score, words in (
        (ObjectCount(CountConfig()), "object-count needs a data set with a 'count' factor"),
        (EntityExchange(EntityExchange.Config()), "does not know the sprites of a scene"),
    ):
        grey = MVAE(Config(), other.spec)
        with pytest.raises(UsageError, match=words):
            score.compute(table_of(grey, other), 0)
    with pytest.raises(UsageError, match="needs scope map"):
        build_metric("object-count", {"nms": True, "scope": "slots"})


# Slots and sprites


class _Additive:
    """A model whose slots are pictures."""

    def features(self, z: Tensor) -> Tensor:
        return z.unflatten(2, (1, 4, 3))

    def pool(self, features: Tensor) -> Tensor:
        return features.amax(1)

    def render(self, pooled: Tensor) -> Tensor:
        return pooled.clamp(0.01, 0.99).logit()


def test_overlap_finds_the_slot_that_draws_a_sprite(generator: torch.Generator) -> None:
    masks = torch.zeros(1, 2, 4, 3)
    masks[0, 0, :2], masks[0, 1, 3] = 1.0, 1.0
    pictures = torch.stack([torch.zeros(4, 3), 0.8 * masks[0, 1], 0.6 * masks[0, 0]])
    model: Any = _Additive()
    found = overlap(model, pictures.flatten(1)[None], masks)
    # 6 and 3 pixels change from 0.6 and 0.8 to the least value 0.01.
    assert torch.allclose(found[0], torch.tensor([[0.0, 0.0], [0.0, 3 * 0.79], [6 * 0.59, 0.0]]), atol=1e-5)
    alone = overlap(model, pictures.flatten(1)[None, 2:], masks)
    assert alone.argmax(1).tolist() == [[0, 0]]


def test_exchanged_scenes_have_the_other_sprite(scenes: Any, generator: torch.Generator) -> None:
    scene = scenes.draw(6, generator)
    scene["exists"] = torch.ones_like(scene["exists"])
    first = {key: value[:3] for key, value in scene.items()}
    made = exchanged(first, scene, torch.tensor([0, 1, 0]), torch.tensor([3, 4, 5]), torch.tensor([1, 0, 0]))
    for i, (mine, theirs) in enumerate(((0, 1), (1, 0), (0, 0))):
        assert torch.equal(made["rgb"][i, mine], scene["rgb"][i + 3, theirs])
        assert torch.equal(made["px"][i, 1 - mine], scene["px"][i, 1 - mine])
    parts = scenes.masks(scene)[:, :, None] * scene["rgb"][..., None, None]
    expected = (parts[0, 1] + parts[3, 1]).clamp(max=1)
    assert torch.allclose(scenes.render(made)[0], expected, atol=1e-5)
    assert torch.equal(first["rgb"], scene["rgb"][:3])  # the originals are left alone


def test_ridge_against_scikit_learn(seed: int) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    draw = np.random.default_rng(seed)
    x, w = draw.standard_normal((80, 5)), draw.standard_normal((5, 3))
    x[:50] -= x[:50].mean(0)
    y = x @ w + 0.5 * draw.standard_normal((80, 3)) + 2
    fitted = Ridge(alpha=1.0).fit(x[:50], y[:50])
    expected = r2_score(y[50:], fitted.predict(x[50:]), multioutput="raw_values")
    parts = [torch.tensor(part) for part in (x[:50], y[:50], x[50:], y[50:])]
    assert np.allclose(ridge_r2(*parts).numpy(), expected)


def test_sequential_decoding_ends_in_the_reconstruction(scenes: Dataset, model: MVAE) -> None:
    rows = torch.arange(40)
    found = build_up(model, scenes, rows)
    x = scenes.batch(rows)["x"]
    with torch.no_grad():
        image = model.decode(model.encode(x)).double().clamp(1e-9, 1 - 1e-9)
    nll = -(x * image.log() + (1 - x) * (1 - image).log()).flatten(1).sum(1)
    excess = nll - entropy(x.double())
    assert found["excess"][-1] == pytest.approx(float(excess.mean()), rel=1e-4)
    count = scenes.batch(rows)["count"]
    for c in count.unique().tolist():
        assert found["by_count"][c, -1] == pytest.approx(float(excess[count == c].mean()), rel=1e-4)
    changes = [float(np.abs(found["by_count"][c, c - 1 :] / found["by_count"][c, c - 1] - 1).max()) for c in (1, 2)]
    weights = [int((count == c).sum()) for c in (1, 2)]
    assert found["change"] == pytest.approx(np.average(changes, weights=weights))


def test_every_score_of_an_untrained_model(scenes: Dataset, model: MVAE) -> None:
    told = evaluate(model, METRICS, data=scenes, rows=8, pairs=30, dci=False)["metrics"]
    assert not [name for name in METRICS if "error" in told[name]]
    bound = told["mvae-elbo"]
    assert bound["elbo"] == pytest.approx(-(bound["reconstruction"] + bound["kl"]))
    assert bound["excess"] == pytest.approx(bound["reconstruction"] - bound["floor"])
    assert bound["excess"] > 0
    with torch.no_grad():
        x = scenes.batch(scenes.rows_of("test"))["x"]
        kept = model.objects(x)
        told_kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(kept.mean, (kept.logvar / 2).exp()), torch.distributions.Normal(0.0, 1.0)
        )
    assert bound["kl"] == pytest.approx(float(told_kl.sum((1, 2)).mean()), rel=1e-4), "over objects and dimensions"
    slots = told["slot-factors"]
    assert slots["r2"] == pytest.approx(np.mean([slots[f"r2_{name}"] for name in ("x", "y", "scale", "r", "g", "b")]))
    assert 0 <= slots["distinct"] <= 1
    exchange = told["entity-exchange"]
    assert exchange["relative_error"] == pytest.approx(exchange["exchange_error"] / exchange["reconstruction_error"])
    assert exchange["gain"] == pytest.approx(1 - exchange["exchange_error"] / exchange["unchanged_error"])
    assert DataSpec.from_dict(scenes.spec.to_dict()).extra["max_sprites"] == 2


@pytest.mark.slow
def test_dci_of_the_matched_slots(scenes: Dataset, model: MVAE) -> None:
    told = evaluate(model, ["slot-factors"], data=scenes, rows=8)["metrics"]["slot-factors"]
    assert 0 <= told["dci_disentanglement"] <= 1
    assert told["dci_importance"].shape == (12, 7)
    few = evaluate(model, ["slot-factors"], data=scenes, rows=8, train=20, test=20)["metrics"]["slot-factors"]
    assert "needs at least" in few["reasons"]["dci"]
