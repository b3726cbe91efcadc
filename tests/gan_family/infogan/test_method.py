"""infogan's losses and networks against independent computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax
from scipy.stats import norm
from torch import Tensor, nn

from distk import CodeTable, Dataset, DataSpec, Files, Step, UsageError
from distk.config import from_dict
from distk.device import initialised
from distk.plugins.gan_family.infogan.method import InfoGAN, InfoGANMnist
from distk.plugins.gan_family.infogan.metrics import Config as ScoreConfig
from distk.plugins.gan_family.infogan.metrics import InfoGANScore
from distk.plugins.gan_family.infogan.networks import Down, PlainTrunk, ResidualTrunk, Up, layer_norm
from distk.settings import TrainConfig, resolve
from distk.training.trainer import Trainer

CPU = torch.device("cpu")
SPEC = DataSpec("image", (3, 16, 16))
GREY = DataSpec("image", (1, 16, 16))


def make(seed: int, spec: DataSpec = SPEC, kind: type[InfoGAN] = InfoGAN, **settings: Any) -> InfoGAN:
    with initialised(seed, CPU):
        return kind(from_dict(kind.Config, {"dim": 2, "noise": 3, **settings}, "the test"), spec)


class Noise(Dataset):
    """Given images, enough to train a step on."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(None, CPU, Files("noise", None, ""))
        self.x, self.spec, self.name, self.origin = x, SPEC, "noise", "drawn for a test"

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}


def a_step(seed: int, x: Tensor | None = None) -> tuple[Step, dict[str, Tensor]]:
    """A step whose draws follow the seed, and what it logs."""
    told: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    step = Step(
        index=torch.zeros((), dtype=torch.long), schedule={}, phase=None, generator=generator, log=told.__setitem__
    )
    if x is not None:
        step.batch = {"x": x}
    return step, told


def slopes(of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Norm of each item's own gradient, one item at a time."""
    norms = []
    for item in x:
        one = item.detach().clone().unsqueeze(0).requires_grad_()
        norms.append(torch.autograd.grad(of(one).sum(), one)[0].norm())
    return torch.stack(norms)


def information(code: dict[str, Tensor], heads: np.ndarray, k: int, classes: list[int], weight: float = 1.0) -> float:
    """L_info of heads [n, 2 k + classes] by scipy."""
    mean, raw = heads[:, :k], np.clip(heads[:, k : 2 * k], -6, 4)
    total = weight * norm.logpdf(code["c"].numpy(), mean, np.exp(0.5 * raw)).sum(1)
    place = 2 * k
    for name, size in zip([g for g in code if g.startswith("d")], classes, strict=True):
        logits = log_softmax(heads[:, place : place + size], axis=1)
        total = total + logits[np.arange(len(mean)), code[name].argmax(1).numpy()]
        place += size
    return -float(total.mean())


# Losses


@pytest.mark.parametrize("game", ["wasserstein", "logistic"])
def test_the_critics_loss_is_that_of_the_paper(seed: int, game: str, generator: torch.Generator) -> None:
    model = make(seed, game=game, codes=3, categories=(4, 2), mi_coeff=1.7, gp_coeff=9.0, continuous_coeff=0.6)
    x = torch.rand(6, 3, 16, 16, generator=generator)
    step, told = a_step(seed, x)
    loss = model.criticise(step)

    again, _ = a_step(seed)
    code = model.draw(again, 6)
    real = 2 * x - 1
    with torch.no_grad():
        made = model.generator(torch.cat([code["c"], code["d1"], code["d2"], code["noise"]], 1))
        heads = model.recognition(model.trunk(made))

    def score(images: Tensor) -> Tensor:
        return model.critic(model.trunk(images))

    d_real, d_made = score(real).detach(), score(made).detach()
    if game == "wasserstein":
        share = again.rand(6).view(-1, 1, 1, 1)
        norms = slopes(score, share * real + (1 - share) * made)
        expected = d_made.mean() - d_real.mean() + 9.0 * ((norms - 1) ** 2).mean()
        assert float(told["gradient_penalty"].detach()) == pytest.approx(float(((norms - 1) ** 2).mean()), rel=1e-3)
    else:
        expected = -d_real.sigmoid().log().mean() - (1 - d_made.sigmoid()).log().mean()
        assert "gradient_penalty" not in told
    expected = float(expected) + 1.7 * information(code, heads.numpy().astype(float), 3, [4, 2], 0.6)
    assert float(loss.detach()) == pytest.approx(expected, rel=2e-4, abs=2e-4)
    for name, group in (("generator", model.generator), ("trunk", model.trunk), ("recognition", model.recognition)):
        found = torch.autograd.grad(loss, list(group.parameters()), retain_graph=True, allow_unused=True)
        assert all((g is None) == (name == "generator") for g in found), name


@pytest.mark.parametrize("game", ["wasserstein", "logistic"])
def test_the_generators_loss_is_that_of_the_paper(seed: int, game: str, generator: torch.Generator) -> None:
    model = make(seed, game=game, codes=2, categories=(3,), mi_coeff=2.5)
    x = torch.rand(5, 3, 16, 16, generator=generator)
    step, told = a_step(seed, x)
    loss = model.generate(step)
    again, _ = a_step(seed)
    code = model.draw(again, 5)
    with torch.no_grad():
        made = model.generator(torch.cat([code["c"], code["d"], code["noise"]], 1))
        features = model.trunk(made)
        heads, score = model.recognition(features).numpy().astype(float), model.critic(features)
    nll = information(code, heads, 2, [3])
    fool = -score.mean() if game == "wasserstein" else -score.sigmoid().log().mean()
    assert float(loss.detach()) == pytest.approx(float(fool) + 2.5 * nll, rel=2e-4, abs=2e-4)
    assert float(told["mi_bound"]) == pytest.approx(2 * math.log(2) + math.log(3) - nll, rel=2e-4, abs=2e-4)
    deviation = np.exp(0.5 * np.clip(heads[:, 2:4], -6, 4))
    assert float(told["smallest_deviation"]) == pytest.approx(deviation.min(), rel=1e-4)
    assert float(told["largest_deviation"]) == pytest.approx(deviation.max(), rel=1e-4)
    found = torch.autograd.grad(loss, list(model.generator.parameters()))
    assert all(float(g.abs().sum()) > 0 for g in found[-2:])


def test_the_penalty_of_a_linear_critic_is_known(seed: int, generator: torch.Generator) -> None:
    model = make(seed).double()
    model.trunk = nn.Flatten()
    model.critic = nn.Linear(3 * 16 * 16, 1).double()
    w = torch.randn(1, 3 * 16 * 16, generator=generator).double() * 0.1
    model.critic.weight.data = w.clone()
    real, made = (torch.randn(4, 3, 16, 16, generator=generator).double() for _ in range(2))
    penalty = model.penalty(real, made, torch.rand(4, generator=generator).double())
    length = float(w.norm())
    assert penalty.detach().numpy() == pytest.approx((length - 1) ** 2, abs=1e-10)
    (gradient,) = torch.autograd.grad(penalty.mean(), model.critic.weight)
    torch.testing.assert_close(gradient, 2 * (length - 1) * w / length, atol=1e-10, rtol=0)


@pytest.mark.parametrize("fixed", [True, False])
def test_deviations_are_learned_within_bounds_or_fixed(seed: int, fixed: bool, generator: torch.Generator) -> None:
    model = make(seed, codes=2, q_std="fixed" if fixed else "learned")
    features = 300 * torch.randn(8, model.trunk.features, generator=generator)
    mean, log_variance, _ = model.read(features)
    heads = model.recognition(features)
    torch.testing.assert_close(mean, heads[:, :2])
    assert heads.shape[1] == (2 if fixed else 4)
    torch.testing.assert_close(log_variance, torch.zeros(8, 2) if fixed else heads[:, 2:].clamp(-6, 4))
    code = {"c": torch.rand(8, 2, generator=generator)}
    if fixed:  # half the squared error, and a constant
        expected = 0.5 * (code["c"] - mean).square().sum(1).mean() + math.log(2 * math.pi)
        assert float(model.information(code, features).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    else:
        assert float(log_variance.min()) == -6
        assert float(log_variance.max()) == 4


@pytest.mark.parametrize(
    ("cadence", "critic", "reader", "both"),
    [("both", True, "critic", (True, True)), ("generator-only", False, "generator", (False, True)),
     ("critic-only", True, "critic", (True, False))],
)  # fmt: skip
def test_who_learns_by_the_information(
    seed: int, cadence: str, critic: bool, reader: str, both: tuple[bool, bool], generator: torch.Generator
) -> None:
    model = make(seed, info_cadence=cadence)
    objectives = {o.name: o for o in model.objectives()}
    mine = {id(p) for p in model.recognition.parameters()}
    assert mine <= {id(p) for p in objectives[reader].parameters}
    other = "generator" if reader == "critic" else "critic"
    assert not mine & {id(p) for p in objectives[other].parameters}
    owned = [id(p) for o in objectives.values() for p in o.parameters]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    x = torch.rand(4, 3, 16, 16, generator=generator)
    for loss, told in zip((model.criticise, model.generate), both, strict=True):
        found = torch.autograd.grad(loss(a_step(seed, x)[0]), list(model.recognition.parameters()), allow_unused=True)
        assert all((g is not None) == told for g in found), cadence


def test_without_weight_there_is_no_information_in_any_loss(seed: int, generator: torch.Generator) -> None:
    model = make(seed, mi_coeff=0.0)
    x = torch.rand(4, 3, 16, 16, generator=generator)
    for loss in (model.criticise, model.generate):
        found = torch.autograd.grad(loss(a_step(seed, x)[0]), list(model.recognition.parameters()), allow_unused=True)
        assert all(g is None for g in found)
    before = [p.detach().clone() for p in model.recognition.parameters()]
    trainer = Trainer(model.train(), Noise(x), TrainConfig(batch=4, seed=0, device="cpu"))
    trainer.step()
    assert all(map(torch.equal, before, model.recognition.parameters()))


def test_codes_come_from_their_priors(seed: int) -> None:
    model = make(seed, codes=2, categories=(5,), noise=2, noise_prior="uniform")
    code = model.draw(a_step(seed)[0], 20_000)
    for name in ("c", "noise"):
        assert float(code[name].min()) >= -1
        assert float(code[name].max()) < 1
        assert float(code[name].var()) == pytest.approx(1 / 3, abs=0.01)  # its deviation is 0.002
    assert torch.equal(code["d"].sum(1), torch.ones(20_000))
    np.testing.assert_allclose(code["d"].mean(0), 0.2, atol=5 * math.sqrt(0.16 / 20_000))
    gaussian = make(seed, code_prior="normal")
    drawn = gaussian.draw(a_step(seed)[0], 20_000)
    assert float(drawn["c"].var()) == pytest.approx(1, abs=0.02)
    assert float(drawn["noise"].var()) == pytest.approx(1, abs=0.03)
    assert gaussian.entropy() == pytest.approx(6 * norm.entropy())
    assert model.entropy() == pytest.approx(2 * math.log(2) + math.log(5))
    assert (model.latents["c"].low, gaussian.latents["c"].high) == (-1, 2)


# Networks


def test_layer_norm_is_over_channels_and_places_with_a_scale_per_channel(generator: torch.Generator) -> None:
    layer = layer_norm(5)
    layer.weight.data, layer.bias.data = torch.randn(5, generator=generator), torch.randn(5, generator=generator)
    x = 3 * torch.randn(4, 5, 6, 7, generator=generator) + 2
    mean, var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), keepdim=True, correction=0)
    expected = (x - mean) / (var + 1e-5).sqrt() * layer.weight.view(1, 5, 1, 1) + layer.bias.view(1, 5, 1, 1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def normed(layer: nn.Module, x: Tensor, dims: tuple[int, ...]) -> Tensor:
    mean, var = x.mean(dims, keepdim=True), x.var(dims, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt() * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


def test_residual_blocks_are_those_of_the_reference(generator: torch.Generator) -> None:
    up, down = Up(4, 3).double(), Down(3, 5, layer_norm).double()
    for parameter in [*up.parameters(), *down.parameters()]:
        parameter.data = torch.randn(parameter.shape, generator=generator).double()
    x = torch.randn(2, 4, 4, 6, generator=generator).double()
    twice = lambda h: h.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    h = F.conv2d(twice(normed(up.norm1, x, (0, 2, 3)).relu()), up.conv1.weight, padding=1)
    h = F.conv2d(normed(up.norm2, h, (0, 2, 3)).relu(), up.conv2.weight, up.conv2.bias, padding=1)
    torch.testing.assert_close(up(x), h + F.conv2d(twice(x), up.shortcut.weight, up.shortcut.bias))

    x = torch.randn(2, 3, 4, 6, generator=generator).double()
    half = lambda h: h.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))  # noqa: E731
    h = F.conv2d(normed(down.norm1, x, (1, 2, 3)).relu(), down.conv1.weight, padding=1)
    h = F.conv2d(normed(down.norm2, h, (1, 2, 3)).relu(), down.conv2.weight, down.conv2.bias, padding=1)
    torch.testing.assert_close(down(x), half(h) + F.conv2d(half(x), down.shortcut.weight, down.shortcut.bias))


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_sizes_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model = InfoGAN(from_dict(InfoGAN.Config, {}, "paper"), DataSpec("image", (3, 64, 64)))
        first = InfoGANMnist(from_dict(InfoGANMnist.Config, {}, "paper"), DataSpec("image", (1, 28, 28)))
    assert model.generator.first.weight.shape == (512 * 16, 134)
    assert [b.conv2.weight.shape[0] for b in model.generator.blocks] == [512, 256, 128, 64]
    assert [b.conv2.weight.shape[0] for b in model.trunk.blocks] == [128, 256, 512, 512]
    assert count(model.generator) / 1e6 == pytest.approx(8.59, abs=0.005)
    assert count(model.trunk, model.critic) / 1e6 == pytest.approx(7.49, abs=0.005)
    assert count(model.recognition) == 12 * 8193
    assert isinstance(model.trunk, ResidualTrunk)
    assert isinstance(first.trunk, PlainTrunk)
    dense = 74 * 1024 + 1024 + 2 * 1024 + 1024 * 6272 + 6272 + 2 * 6272
    assert count(first.generator) == dense + 128 * 64 * 16 + 64 + 2 * 64 + 64 * 16 + 1
    trunk = 64 * 16 + 64 + 64 * 128 * 16 + 128 + 2 * 128 + 6272 * 1024 + 1024 + 2 * 1024
    assert count(first.trunk, first.critic) == trunk + 1024 + 1
    assert count(first.recognition) == 1024 * 128 + 128 + 2 * 128 + 128 * 12 + 12


def test_weights_start_as_in_the_reference(seed: int) -> None:
    model = make(seed, DataSpec("image", (3, 32, 32)), dim=16)
    for network in (model.generator, model.trunk, model.critic, model.recognition):
        for name, layer in network.named_modules():
            if not isinstance(layer, (nn.Conv2d, nn.Linear)):
                continue
            area = 1 if isinstance(layer, nn.Linear) else layer.kernel_size[0] ** 2
            out, into = layer.weight.shape[:2]
            input_conv = network is model.trunk and name == "first"
            gain = 4 if area == 9 and not input_conv else 2
            expected = gain / ((out + into) * area)
            # Of n uniform weights the variance has a relative deviation of sqrt(0.8 / n).
            n = layer.weight.numel()
            assert float(layer.weight.var()) == pytest.approx(expected, rel=6 * math.sqrt(0.8 / n)), name
            assert float(layer.weight.abs().max()) <= math.sqrt(3 * expected) + 1e-6
            assert layer.bias is None or float(layer.bias.abs().max()) == 0


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_images_reach_the_networks_in_their_own_range(seed: int, low: float, generator: torch.Generator) -> None:
    for network, least in (("residual", -1.0), ("plain", 0.0)):
        model = make(seed, DataSpec("image", (1, 16, 16), range=(low, 1.0)), network=network).eval()
        x = low + (1 - low) * torch.rand(3, 1, 16, 16, generator=generator)
        x[0], x[1] = low, 1.0
        drawn = model.as_drawn(x)
        assert drawn[0].unique().tolist() == pytest.approx([least])
        assert drawn[1].unique().tolist() == pytest.approx([1.0])
        made = model.decode(model.prior(4, generator))
        assert made.shape == (4, 1, 16, 16)
        assert float(made.min()) >= low
        assert float(made.max()) <= 1
        mean, log_variance, _ = model.read(model.trunk(drawn))
        torch.testing.assert_close(model.encode(x)["c"], mean)
        torch.testing.assert_close(model.posterior(x)["c"], (mean, log_variance.exp().sqrt()))


def test_presets_are_the_papers_experiments() -> None:
    paper = resolve("infogan", preset="paper")
    told = vars(paper.model)
    # Appendix A.2, and the program of improved Wasserstein GAN, whose settings the paper keeps
    expected = {"codes": 6, "noise": 128, "mi_coeff": 8.0, "q_std": "learned", "game": "wasserstein", "dim": 64}
    expected |= {"gp_coeff": 10.0, "critic_updates": 5, "lr": 1e-4, "critic_lr": 1e-4, "beta1": 0.0, "beta2": 0.9}
    assert {key: told[key] for key in expected} == expected
    # Appendix A.1: 200,000 pictures of 64x64 with the gap left out
    assert paper.data == "teapots"
    assert {"items": 200_000, "size": 64, "gap": "paper", "poses": 0}.items() <= paper.data_options.items()
    assert (paper.train.steps, paper.train.batch) == (25_000, 64)  # the authors' later program; Gulrajani et al. 2017
    assert resolve("infogan", preset="full").train.steps == 200_000
    later = vars(resolve("infogan", preset="iclr").model)  # the authors' later program
    assert (later["codes"], later["noise"], later["mi_coeff"], later["q_std"]) == (10, 0, 6.0, "fixed")
    first = resolve("infogan-mnist", preset="paper")
    told = vars(first.model)
    # Chen et al. 2016, appendix C.1, and their program
    expected = {"codes": 2, "categories": (10,), "noise": 62, "noise_prior": "uniform", "game": "logistic"}
    expected |= {"lr": 1e-3, "critic_lr": 2e-4, "beta1": 0.5, "mi_coeff": 1.0, "q_std": "fixed", "q_hidden": 128}
    assert {key: told[key] for key in expected} == expected
    assert (first.data, first.train.steps, first.train.batch) == ("mnist", 50 * 100, 128)
    baseline = resolve("pca", preset="paper")
    assert (vars(baseline.model)["components"], baseline.train.steps) == (6, 0)


# What a trained model can do


def copying(a: float, s: float) -> InfoGAN:
    """A model whose image holds its two codes as pixels, from which Q reads `a` times the code, with variance e^s."""
    model = make(0, GREY, codes=2, noise=1)

    class Copy(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return F.pad(z[:, :2], (0, 254)).view(-1, 1, 16, 16)

    model.generator, model.trunk = Copy(), nn.Flatten()  # type: ignore[assignment]
    reader = nn.Linear(256, 4)
    reader.weight.data.zero_()
    reader.weight.data[0, 0] = reader.weight.data[1, 1] = a
    reader.bias.data = torch.tensor([0.0, 0.0, s, s])
    model.recognition = nn.Sequential(reader)
    return model


@pytest.mark.parametrize("a", [1.0, 0.7, 0.0])
def test_the_score_of_a_known_reader(seed: int, a: float) -> None:
    s, n = -2.0, 20_000
    table = CodeTable(torch.zeros(0, 2), ["c1", "c2"], ["continuous"] * 2, model=copying(a, s))
    told = InfoGANScore(ScoreConfig(images=n)).compute(table, seed)
    # The squared error of a code is (1 - a)^2 / 3 in the mean, with variance (1 - a)^4 (1/5 - 1/9).
    tolerance = 6 * (1 - a) ** 2 * math.sqrt(4 / 45 / n)
    assert told["code_r2"] == pytest.approx(1 - (1 - a) ** 2, abs=1e-5 + 10 * tolerance)
    error = (1 - a) ** 2 / 3
    expected = 2 * (math.log(2) - 0.5 * math.log(2 * math.pi) - 0.5 * s - 0.5 * error * math.exp(-s))
    assert told["mi_bound"] == pytest.approx(expected, abs=1e-4 + tolerance * math.exp(-s))
    assert told["smallest_deviation"] == pytest.approx(math.exp(0.5 * s), rel=1e-5)


def test_noise_is_one_draw_for_all_items(seed: int, generator: torch.Generator) -> None:
    model = make(seed, codes=2, categories=(3,)).eval()
    x = torch.rand(4, 3, 16, 16, generator=generator)
    code = model.encode(x)
    assert set(code) == {"c", "d"}
    torch.testing.assert_close(code["d"].sum(1), torch.ones(4))
    same = {name: value[:1].expand(4, -1) for name, value in code.items()}
    made = model.decode(same)
    torch.testing.assert_close(made, made[:1].expand(4, -1, -1, -1))
    assert "noise" not in model.latents.columns
    assert model.latents.columns == ["c1", "c2", "d"]


# Bad input


@pytest.mark.parametrize(
    ("settings", "shape", "words"),
    [
        ({}, (3, 7, 16), "8x8 pixels or more, not 7x16"),
        ({"network": "plain"}, (3, 4, 4), "8x8 pixels or more, not 4x4"),
    ],
)
def test_images_that_the_networks_do_not_take(settings: dict[str, Any], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(0, DataSpec("image", shape), **settings)


def test_there_must_be_a_code_and_a_batch() -> None:
    with pytest.raises(UsageError, match="no code to learn"):
        make(0, codes=0)
    with pytest.raises(UsageError, match="categories"):
        make(0, categories=(1,))
    assert InfoGAN.least_batch == 2


def test_what_q_reads_in_eval_mode_is_normalised_as_it_was_trained(seed: int, generator: torch.Generator) -> None:
    """Q learns on made pictures alone, so real ones, normalised by their own batch, leave no trace in its averages."""
    x = torch.rand(8, 1, 16, 16, generator=generator)
    settings = {"game": "logistic", "network": "plain", "codes": 2, "hidden": 8}
    kept = []
    for real in (x, 1 - x.square()):
        model = make(seed, GREY, **settings).train()
        model.criticise(a_step(seed, real)[0])
        kept.append(dict(model.trunk.named_buffers()))
    assert kept[0], "nothing is averaged"
    assert any(name.endswith("running_mean") and bool(value.any()) for name, value in kept[0].items())
    for name, value in kept[0].items():
        assert torch.equal(value, kept[1][name]), name
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))
