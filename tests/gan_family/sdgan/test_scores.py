"""What verification and leakage are measured by, against scikit-learn, scipy, brute force and counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from distk import CodeTable, Dataset, DataSpec, Files, Method, UsageError
from distk.config import NoConfig
from distk.latents import Code, Latent, LatentSpace
from distk.plugins.gan_family.sdgan import metrics, scores
from distk.plugins.gan_family.sdgan.metrics import Config as VerificationConfig
from distk.plugins.gan_family.sdgan.metrics import Leakage, LeakageConfig, Verification, held_out, made_side, real_side

CPU = torch.device("cpu")


def sides(generator: torch.Generator, ties: bool) -> tuple[Tensor, Tensor]:
    near, far = torch.rand(150, generator=generator), torch.rand(110, generator=generator) + 0.2
    return ((near * 12).round() / 12, (far * 12).round() / 12) if ties else (near, far)


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_scikit_learns(ties: bool, generator: torch.Generator) -> None:
    near, far = sides(generator, ties)
    truth = np.r_[np.ones(len(near)), np.zeros(len(far))]
    assert scores.area(near, far) == pytest.approx(roc_auc_score(truth, -torch.cat([near, far]).numpy()), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_is_the_lowest_best_one(ties: bool, generator: torch.Generator) -> None:
    near, far = sides(generator, ties)
    every = torch.cat([near, far]).double().unique()
    candidates = [float(every[0]) - 1, *((every[1:] + every[:-1]) / 2).tolist(), float(every[-1]) + 1]
    rates = [((near <= tau).double().mean() + (far > tau).double().mean()) / 2 for tau in candidates]
    best = max(rates)
    wanted = next(tau for tau, rate in zip(candidates, rates, strict=True) if rate >= best - 1e-12)
    tau = scores.threshold(near, far)
    assert tau == pytest.approx(wanted, abs=1e-12)
    assert scores.accuracy(near, far, tau) == pytest.approx(float(best), abs=1e-12)
    assert scores.false_accepts(far, tau) == pytest.approx(sum(d <= tau for d in far.tolist()) / len(far))


def test_thresholds_at_the_ends() -> None:
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5])
    assert scores.threshold(near, far) == -1  # half right by accepting none, and the lowest of those
    near, far = torch.tensor([0.1]), torch.tensor([0.4])
    assert scores.threshold(near, far) == pytest.approx(0.25)
    assert scores.accuracy(near, far, 0.25) == 1


def test_intervals_are_those_of_the_binomial_and_of_delong(seed: int, generator: torch.Generator) -> None:
    near, far = torch.randn(400, generator=generator), torch.randn(500, generator=generator) + 1
    spans = scores.intervals(near, far, 0.5, seed, draws=2000)
    rate = scores.false_accepts(far, 0.5)
    half = 1.96 * (rate * (1 - rate) / len(far)) ** 0.5
    assert torch.allclose(
        spans["far"], torch.tensor([rate - half, rate + half], dtype=torch.float64), atol=0.15 * half + 1 / 500
    )
    wins = (near[:, None] < far).double()
    variance = wins.mean(1).var() / len(near) + wins.mean(0).var() / len(far)  # DeLong et al. 1988
    area = scores.area(near, far)
    half = 1.96 * float(variance.sqrt())
    assert torch.allclose(spans["auc"], torch.tensor([area - half, area + half], dtype=torch.float64), atol=0.2 * half)
    assert bool(
        (spans["accuracy"][0] < scores.accuracy(near, far, 0.5))
        & (scores.accuracy(near, far, 0.5) < spans["accuracy"][1])
    )


def ssim_by_scipy(a: np.ndarray, b: np.ndarray, width: int) -> tuple[float, float]:
    """SSIM and its part of contrast and structure of one channel `[h, w]`, means over windows that lie inside."""
    at = np.arange(width) - (width - 1) / 2
    window = np.exp(-(at**2) / 4.5)
    window /= window.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        edge = (width - 1) // 2
        blurred = correlate1d(correlate1d(x, window, 0, mode="constant"), window, 1, mode="constant")
        return blurred[edge : len(x) - (width - 1 - edge), edge : x.shape[1] - (width - 1 - edge)]

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    structure = (2 * cov + 0.03**2) / (va + vb + 0.03**2)
    return float(((2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4) * structure).mean()), float(structure.mean())


@pytest.mark.parametrize(("side", "scales"), [(64, 3), (32, 2), (16, 1), (9, 1)])
def test_ms_ssim_against_scipy(side: int, scales: int, generator: torch.Generator) -> None:
    a = torch.rand(3, 3, side, side, generator=generator, dtype=torch.float64)
    b = (a + 0.2 * torch.randn(a.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    weights = np.array([0.0448, 0.2856, 0.3001])[:scales]
    weights /= weights.sum()
    for n in range(3):
        x, y, expected = a[n].numpy(), b[n].numpy(), 1.0
        for scale in range(scales):
            each = [ssim_by_scipy(p, q, min(11, side)) for p, q in zip(x, y, strict=True)]
            value = np.mean([e[0] if scale == scales - 1 else e[1] for e in each])
            expected *= max(value, 0) ** weights[scale]
            x, y = (v.reshape(3, v.shape[1] // 2, 2, -1, 2).mean((2, 4)) if v.shape[1] % 2 == 0 else v for v in (x, y))
        assert float(scores.ms_ssim(a[n : n + 1], b[n : n + 1])) == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(scores.ms_ssim(a, a), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(scores.ms_ssim(a, b), scores.ms_ssim(b, a))


def test_explained_variance_is_that_of_a_two_way_table(generator: torch.Generator) -> None:
    rows, columns = torch.randn(7, 1, 2, generator=generator), torch.randn(1, 5, 2, generator=generator)
    rows, columns = rows - rows.mean(0), columns - columns.mean(1, keepdim=True)
    by_row, by_column = scores.explained(rows * torch.tensor([1.0, 0.0]) + columns * torch.tensor([2.0, 1.0]) + 3)
    mine, other = rows[..., 0].square().mean(), 4 * columns[..., 0].square().mean()
    assert float(by_row[0]) == pytest.approx(float(mine / (mine + other)), abs=1e-6)
    assert float(by_column[0]) == pytest.approx(float(other / (mine + other)), abs=1e-6)
    assert [float(by_row[1]), float(by_column[1])] == pytest.approx([0, 1], abs=1e-6)
    noise = torch.randn(100, 50, 40, generator=generator)
    by_row, by_column = scores.explained(noise)
    assert float(by_row.mean()) == pytest.approx(1 / 50, rel=0.1)
    assert float(by_column.mean()) == pytest.approx(1 / 100, rel=0.1)
    assert scores.explained(torch.ones(3, 4, 1)) == (torch.zeros(1), torch.zeros(1))


# Pairs


class Squares(Dataset):
    """Images of one level per identity (channel 0) and one per picture (channel 1); labels of splits as told."""

    def __init__(self, identities: int = 30, each: int = 6, overlap: bool = False, valid: bool = True) -> None:
        super().__init__(None, CPU, Files("squares", None, ""))
        self.spec, self.name, self.origin = DataSpec("image", (3, 12, 12)), "squares", f"made up {overlap} {valid}"
        self.label = torch.arange(identities).repeat_interleave(each)
        draw = torch.Generator().manual_seed(8)
        self.level = torch.rand(identities, generator=draw)[self.label]
        self.other = torch.rand(len(self.label), generator=draw)
        part = torch.arange(identities)[self.label] % 3 if not overlap else torch.arange(len(self.label)) % 3
        rows = torch.arange(len(self.label))
        names = ("train", "test", "valid") if valid else ("train", "test")
        self.parts = {name: rows[part == i] for i, name in enumerate(names)}
        self.identity_names, self.observation_names = ("level",), ("other", "never")

    def __len__(self) -> int:
        return len(self.label)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        x = torch.stack([self.level[rows], self.other[rows], torch.zeros(len(rows))], 1)
        return {"x": x[:, :, None, None].expand(-1, -1, 12, 12).clone(), "label": self.label[rows]}

    def traits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        hidden = (rows * 7919 % 101).float()  # nothing in the image tells it
        return self.level[rows][:, None], torch.stack([self.other[rows], hidden], 1)


class Painter(Method):
    """Code -> an image of such squares: channel 0 from the first number of `first`, channel 1 from that of `second`."""

    def __init__(self, spec: DataSpec, groups: tuple[str, ...] = ("identity", "observation"), size: int = 2) -> None:
        super().__init__(NoConfig(), spec)
        self.dummy = nn.Parameter(torch.zeros(1))
        self.latents = LatentSpace.of(
            *(Latent(g, "continuous", size, low=-1, high=1, prior="uniform", encoded=False) for g in groups)
        )

    def decode(self, code: Code) -> Tensor:
        z = torch.cat(list(code.values()), 1)
        x = torch.stack([z[:, 0], z[:, -1], torch.zeros(len(z))], 1) / 2 + 0.5
        x[:, 2] = 0
        return x[:, :, None, None].expand(-1, -1, 12, 12).clone()


def first_channel(x: Tensor) -> Tensor:
    """An embedding that sees the identity alone: a point on the circle."""
    angle = x[:, 0].mean((1, 2)) * 3
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_real_and_made_pairs_are_what_they_are_called(generator: torch.Generator) -> None:
    data = Squares()
    valid, test = held_out(data)
    assert len(valid) == len(test) == 10
    for part, split in ((valid, "valid"), (test, "test")):
        assert set(part.label.tolist()) == set(data.label[data.parts[split]].tolist()), (
            "a threshold is chosen on others"
        )
    real = real_side(data, test, 300, first_channel, generator)
    assert float(real.matched.max()) == 0
    assert float((real.unmatched == 0).double().mean()) == 0
    made = made_side(Painter(data.spec), 300, first_channel, generator)
    assert float(made.matched.max()) == 0
    assert float(made.unmatched.min()) > 0 or float((made.unmatched == 0).double().mean()) < 0.02  # 256 levels
    by_observation = made_side(Painter(data.spec), 300, first_channel, generator, "observation")
    assert scores.area(by_observation.matched, by_observation.unmatched) == pytest.approx(0.5, abs=0.12)
    # Squared distances of unit vectors: 2 - 2 cos of the angle between them.
    a, b = torch.rand(2, 5, 3, 12, 12, generator=generator)
    side = metrics._side([[torch.stack([a, b], 1)], [torch.stack([a, a], 1)]], first_channel, "")
    gap = 3 * (a[:, 0].mean((1, 2)) - b[:, 0].mean((1, 2)))
    assert torch.allclose(side.matched.float(), 2 - 2 * gap.cos(), atol=1e-5)


def test_a_code_without_identity_is_held_in_its_first_dimensions(generator: torch.Generator) -> None:
    plain = Painter(Squares().spec, ("z",), 4)
    made = made_side(plain, 200, first_channel, generator)
    assert float(made.matched.max()) == 0
    assert float(made.alike.mean()) < 1
    with pytest.raises(UsageError, match="some must stay free"):
        made_side(plain, 4, first_channel, generator, held=4)
    with pytest.raises(UsageError, match="none of them 'identity'"):
        made_side(Painter(Squares().spec, ("a", "b")), 4, first_channel, generator)


def test_what_a_verifier_would_know_is_refused() -> None:
    with pytest.raises(UsageError, match="share identities"):
        held_out(Squares(overlap=True))
    with pytest.raises(UsageError, match="1 validation identity"):
        held_out(Squares(3))
    valid, test = held_out(Squares(valid=False))
    assert len(valid) == len(test) == 5
    assert not set(valid.label.tolist()) & set(test.label.tolist())


def table(model: Method, data: Dataset) -> CodeTable:
    return CodeTable(torch.zeros(0, 1), ["z"], ["continuous"], model=model, dataset=data)


def test_verification_tells_a_generator_that_keeps_identities(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(metrics, "default_verifier", lambda data, steps, width: first_channel)
    data = Squares()
    score = Verification(VerificationConfig(pairs=400))
    result = score.compute(table(Painter(data.spec), data), seed)
    assert set(score.keys) <= set(result)
    assert result["auc"] > 0.99
    assert result["auc_real"] == 1
    assert result["accuracy"] == pytest.approx(1 - result["far"] / 2, abs=1e-9)
    assert result["id_diversity"] > 0
    assert result["all_diversity"] > result["id_diversity"]
    assert result["auc_distance_to_real"] == abs(result["auc"] - result["auc_real"])

    class Ignorant(Painter):
        """Takes the identity from the observation."""

        def decode(self, code: Code) -> Tensor:
            return super().decode({"identity": code["observation"], "observation": code["observation"]})

    worse = score.compute(table(Ignorant(data.spec), data), seed)
    assert abs(worse["auc"] - 0.5) < 0.1
    assert worse["threshold"] == result["threshold"]  # never fitted to what the model made

    class Frozen(Painter):
        """Ignores the observation."""

        def decode(self, code: Code) -> Tensor:
            return super().decode({"identity": code["identity"], "observation": 0 * code["observation"]})

    assert score.compute(table(Frozen(data.spec), data), seed)["id_diversity"] == pytest.approx(0, abs=1e-6)


def test_an_embedding_that_sees_nothing_has_an_area_of_one_half(generator: torch.Generator) -> None:
    data = Squares()
    noise = lambda x: torch.randn(len(x), 4, generator=generator)  # noqa: E731
    real = real_side(data, held_out(data)[1], 5000, noise, generator)
    assert scores.area(real.matched, real.unmatched) == pytest.approx(0.5, abs=0.02)


def test_leakage_follows_the_codes(seed: int) -> None:
    data = Squares(90, 8)
    score = Leakage(LeakageConfig(identities=12, observations=10, regressor_steps=150, regressor_width=8))
    result = score.compute(table(Painter(data.spec), data), seed)
    assert result["identity_by_identity"] > 0.9
    assert result["observation_by_observation"] > 0.9
    assert result["identity_by_observation"] < 0.1
    assert result["observation_by_identity"] < 0.1
    assert "never" in result["reasons"]["traits"]  # which nothing in an image tells

    class Crossed(Painter):
        def decode(self, code: Code) -> Tensor:
            return super().decode({"identity": code["observation"], "observation": code["identity"]})

    crossed = score.compute(table(Crossed(data.spec), data), seed)
    assert crossed["identity_by_observation"] > 0.9
    with pytest.raises(UsageError, match="identity and an observation"):
        score.compute(table(Painter(data.spec, ("z",)), data), seed)


def test_scores_refuse_what_they_cannot_judge() -> None:
    data = Squares()
    with pytest.raises(UsageError, match="make images from codes"):
        Verification(VerificationConfig()).compute(table(Method(NoConfig(), data.spec), data), 0)
