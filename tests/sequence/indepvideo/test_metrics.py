"""Scores of parts against models whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distk import CodeTable, Dataset, UsageError, open_dataset
from distk.evaluation import build_metric
from distk.plugins.sequence.indepvideo import information, metrics
from distk.plugins.sequence.indepvideo.method import Config, IndepVideo
from distk.registry import registry


def model_on(dataset: Dataset, **settings: Any) -> IndepVideo:
    values = {"latent_dim": 2, "trans_hidden": 8, "trans_layers": 2, "channels": 2, "features": 4, **settings}
    return IndepVideo(Config(**values), dataset.spec).eval()


def scored(name: str, model: IndepVideo, dataset: Dataset, seed: int = 0, **options: Any) -> dict[str, Any]:
    """What the metric gives for a model and data, without its being trained."""
    table = CodeTable(
        torch.zeros(1, 1), ["z"], ["continuous"], model=model, dataset=dataset, rows=torch.zeros(1).long()
    )
    return dict(build_metric(name, options)[1].compute(table, seed))


class Sees(nn.Module):
    """A combination that ignores predictions: mean = a fixed linear read-out of the frame, sd as given."""

    def __init__(self, weight: Tensor, sd: float) -> None:
        super().__init__()
        self.weight, self.logvar = weight, 2 * math.log(sd)

    def frame(self, features: Tensor) -> Tensor:
        return features @ self.weight.T

    def forward(self, frame: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        return frame, torch.full_like(frame, self.logvar)


@pytest.fixture(scope="module")
def oscillators() -> Dataset:
    return open_dataset("two-oscillators", {"clips": 6000, "noise": 0.0})


def unmixing(data: Dataset) -> Tensor:
    """Rows that give the four numbers of both oscillators from a frame, `[4, 8]`."""
    rows = torch.arange(2000)
    state = data.sources(rows).flatten(0, 1).flatten(1)  # type: ignore[attr-defined]
    return torch.linalg.lstsq(data.batch(rows)["x"].flatten(0, 1), state).solution.T


def test_cross_mi_of_factors_that_are_the_sources_and_of_mixed_ones(oscillators: Dataset, seed: int) -> None:
    """Factors that are the oscillators tell of themselves alone; those that hold half of each tell of both."""
    found = {}
    for name, order in (("apart", [0, 1, 2, 3]), ("mixed", [0, 2, 1, 3])):
        model = model_on(oscillators)
        model.combination = Sees(unmixing(oscillators)[order], 0.05)  # type: ignore[assignment]
        found[name] = scored("cross-mi", model, oscillators, seed, partitions=3)
    assert found["apart"]["same"] > 4
    assert abs(found["apart"]["cross"]) < 0.15
    assert found["apart"]["block_ratio"] > 5
    assert found["mixed"]["cross"] > 1
    assert found["mixed"]["gap"] < found["apart"]["gap"] - 2
    for one in found.values():
        assert one["ceiling"] == pytest.approx(8.634, abs=1e-3)
        assert one["gap"] == pytest.approx(one["same"] - one["cross"])
        assert (one["pairs"], one["neighbours"]) == (1000, 3)
    # The control cannot find the true parts, which are not among its cuts, but the true ones of the mixed model may be.
    assert found["apart"]["random_gap"] < 1


def test_cross_mi_of_an_entangled_model_is_that_of_its_best_cut(oscillators: Dataset, seed: int) -> None:
    model = model_on(oscillators, transition="entangled")
    model.combination = Sees(unmixing(oscillators)[[0, 2, 1, 3]], 0.05)  # type: ignore[assignment]
    found = scored("cross-mi", model, oscillators, seed, partitions=20)  # misses one of 3 cuts at (2/3)^20 < 4e-4
    assert {frozenset(part) for part in np.split(found["parts"], 2)} == {frozenset({0, 2}), frozenset({1, 3})}
    assert found["same"] > 4
    assert math.isnan(found["random_gap"])
    assert "random themselves" in found["reasons"]["random_gap"]
    # All cuts are scored on the same pairs: the one cut by itself gives the same.
    now, then = metrics.consecutive(model, oscillators, 1000, seed)
    parts = np.split(found["parts"], 2)
    table = information.mutual_information([now[:, p] for p in parts], [then[:, p] for p in parts]) / math.log(2)
    np.testing.assert_allclose(found["information"], table.numpy())
    three = scored("cross-mi", model, oscillators, seed, partitions=4, parts=4)
    assert three["information"].shape == (4, 4)
    with pytest.raises(UsageError, match="4 units cannot be cut into 3"):
        scored("cross-mi", model, oscillators, parts=3)


def test_units_and_pairs(oscillators: Dataset) -> None:
    model = model_on(oscillators)
    bits, nats = (scored("cross-mi", model, oscillators, unit=u, partitions=2) for u in ("bits", "nats"))
    for key in ("same", "cross", "gap", "ceiling", "random_same"):
        assert bits[key] == pytest.approx(nats[key] / math.log(2))
    assert bits["mean_abs_correlation"] == nats["mean_abs_correlation"]
    upper = scored("cross-mi", model, oscillators, pairs="upper", partitions=2)
    assert upper["cross"] == pytest.approx(float(upper["information"][1, 0]))
    assert bits["cross"] == pytest.approx((bits["information"][1, 0] + bits["information"][0, 1]) / 2)


def test_pairs_are_consecutive_draws_of_different_test_clips(oscillators: Dataset, seed: int) -> None:
    model = model_on(oscillators)
    model.combination = Sees(torch.eye(8)[:4], 1e-6)  # type: ignore[assignment]
    now, then = metrics.consecutive(model, oscillators, 1000, seed)
    rows = oscillators.rows_of("test")
    x = oscillators.batch(rows)["x"][..., :4]
    places = torch.cdist(now, x[:, :-1].reshape(-1, 4)).min(1)
    assert float(places.values.max()) < 1e-3
    torch.testing.assert_close(then, x[:, 1:].reshape(-1, 4)[places.indices], atol=1e-3, rtol=0)
    assert len(set((places.indices // 7).tolist())) >= 230  # 250 clips of 7 steps, 1,000 of 1,750 pairs
    assert len(set(places.indices.tolist())) == 1000


def test_few_clips_are_told_and_still_states_refused() -> None:
    data = open_dataset("two-oscillators", {"clips": 300})
    model = model_on(data)
    few = scored("cross-mi", model, data, partitions=2)
    assert few["pairs"] == 210
    assert "210 pairs" in few["reasons"]["pairs"]
    model.combination = Sees(torch.zeros(4, 8), 1e-60)  # type: ignore[assignment]
    with pytest.raises(UsageError, match="100% of the 210 pairs coincide"):
        scored("cross-mi", model, data)
    with pytest.raises(UsageError, match="rather than a file of codes"):
        build_metric("cross-mi")[1].compute(CodeTable(torch.zeros(9, 2), ["a", "b"], ["continuous"] * 2), 0)


def test_other_methods_with_a_code_per_frame_are_scored() -> None:
    data = open_dataset("vector-clips", {"clips": 3000})
    cls = registry().find("method", "dsvae").load()
    model = cls(cls.Config(f_dim=2, z_dim=4, hidden=8, frame_dim=8), data.spec).eval()
    found = scored("cross-mi", model, data, partitions=2)
    assert found["sizes"].tolist() == [2, 2]
    pictures = registry().find("metric", "cross-mi").load().pictures(found)
    assert pictures["correlation"].png()[:4] == b"\x89PNG"
    assert "<svg" in pictures["correlation"].svg()


# ------------------------------------------------------------------------------------- specificity


class Paints(nn.Module):
    """A decoder of states `[n, 4]`: the red square of channel 0 is as bright as the first part says, and so on.

    mixing: `[2, 4]`, which units each channel follows.
    """

    def __init__(self, mixing: Tensor) -> None:
        super().__init__()
        self.mixing = mixing

    def forward(self, z: Tensor) -> Tensor:
        level = torch.cat([z @ self.mixing.T, torch.zeros(len(z), 1)], 1)
        return level[:, :, None, None].expand(-1, -1, 16, 16)


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        ([[1.0, 1, 0, 0], [0, 0, 1, 1]], 1.0),
        ([[1.0, 1, 1, 1], [0, 0, 0, 0]], 0.0),
        ([[1.0, 0, 1, 0], [0, 1, 0, 1]], 0.0),
        ([[1.0, 0, 0, 0], [0, 0, 0, 0]], 0.0),  # the second factor moves nothing: one share is left
    ],
)
def test_specificity_of_decoders_whose_channels_are_known(mixing: list[list[float]], expected: float) -> None:
    data = open_dataset("bouncing-squares", {"train": 10, "test": 80})
    model = model_on(data)
    model.decoder = Paints(torch.tensor(mixing))
    model.combination = Equal()  # type: ignore[assignment]
    found = scored("specificity", model, data)
    assert found["object_specificity"] == pytest.approx(expected, abs=1e-6)
    assert found["clips"] == 64


class Equal(nn.Module):
    """A posterior whose four units all are the mean of a frame's features times their own slope."""

    def frame(self, features: Tensor) -> Tensor:
        return features.abs().sum(-1, keepdim=True).expand(*features.shape[:-1], 4)

    def forward(self, frame: Tensor, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        return frame, torch.full_like(frame, -60.0)


def test_specificity_by_hand(seed: int) -> None:
    """Two clips, three draws: variance over time of the mean picture, summed over pixels, per channel and part."""
    torch.manual_seed(seed)
    data = open_dataset("bouncing-squares", {"train": 10, "test": 2, "frames": 4})
    model = model_on(data)
    found = scored("specificity", model, data, seed, draws=3)
    rows = metrics.test_clips(data, 64, seed)
    x, generator = data.batch(rows)["x"], torch.Generator().manual_seed(seed)
    parts = [torch.arange(2), torch.arange(2, 4)]
    with torch.no_grad():
        pictures = sum(model.independent(x, parts, generator).double() for _ in range(3)) / 3
    expected = np.zeros((2, 2))
    for part in range(2):
        for channel in range(2):
            clip = pictures[:, 1 + part, :, channel].numpy()  # [n, t, h, w]
            expected[part, channel] = ((clip - clip.mean(1, keepdims=True)) ** 2).mean(1).sum((1, 2)).mean()
    np.testing.assert_allclose(found["variance"], expected, rtol=1e-5)
    shares = [first / (first + other) for first, other in expected.tolist() if first + other]  # of parts that move
    wanted = max(shares) - min(shares) if shares else math.nan
    assert found["object_specificity"] == pytest.approx(wanted, rel=1e-4, nan_ok=True)


def test_specificity_says_what_it_needs(oscillators: Dataset) -> None:
    with pytest.raises(UsageError, match="moving-mnist-rg and bouncing-squares do"):
        scored("specificity", model_on(oscillators), oscillators)
    short = open_dataset("bouncing-squares", {"frames": 2})
    with pytest.raises(UsageError, match="at least 3 frames"):
        scored("specificity", model_on(short), short)


# ---------------------------------------------------------------------------------------- alignment


def test_alignment_of_factors_that_are_the_sources(oscillators: Dataset) -> None:
    model = model_on(oscillators)
    read = unmixing(oscillators)
    model.combination = Sees(read[[2, 3, 0, 1]], 0.5)  # type: ignore[assignment]
    exact = scored("source-alignment", model, oscillators)
    assert exact["matched"] == pytest.approx(1, abs=1e-3)
    assert exact["other"] == pytest.approx(0, abs=0.02)
    assert exact["align"] == pytest.approx(exact["matched"] - exact["other"])
    model.combination = Sees(read[[0, 2, 1, 3]], 0.5)  # type: ignore[assignment]
    assert scored("source-alignment", model, oscillators)["align"] == pytest.approx(0, abs=0.05)
    entangled = model_on(oscillators, transition="entangled")
    entangled.combination = Sees(read[[0, 2, 1, 3]], 0.5)  # type: ignore[assignment]
    assert scored("source-alignment", entangled, oscillators)["align"] > 0.95  # of its best cut
    other = open_dataset("vector-clips", {"clips": 100})
    with pytest.raises(UsageError, match="does not know the sources"):
        scored("source-alignment", model_on(other), other)


def test_elbo_is_that_of_the_house(oscillators: Dataset) -> None:
    model = model_on(oscillators)
    found = scored("elbo", model, oscillators, items=64, samples=2)
    assert found["elbo_per_frame"] == pytest.approx(found["elbo"] / 8)
    assert found["elbo"] == pytest.approx(found["log_likelihood"] - found["kl"])
    assert found["kl"] == pytest.approx(found["kl_first"] + 7 * found["kl_next"])
