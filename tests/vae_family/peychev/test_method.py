"""peychev-fc and peychev-conv: shapes, loss, noise; and the models side by side equal the same models alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distk import Dataset, DataSpec, open_dataset
from distk.device import Ranks, initialised, stream
from distk.method import Step
from distk.plugins.vae_family.peychev.ensemble import Ensemble, Member, Plan
from distk.plugins.vae_family.peychev.method import (
    Downwards,
    PeychevConfig,
    PeychevConv,
    PeychevFC,
    Upwards,
    salt_and_pepper,
    variant,
)
from distk.settings import resolve
from distk.training.beginning import build

SHAPES, MNIST = DataSpec("image", (1, 64, 64)), DataSpec("image", (1, 28, 28))
PARTS = {"size": 16, "shapes": ("square",), "scales": (0, 5), "rotations": 30}


@pytest.mark.parametrize(
    ("cls", "spec", "z", "widths"),
    [
        (PeychevFC, SHAPES, 10, [1200, 1200, 20, 1200, 1200, 1200, 4096]),
        (PeychevFC, MNIST, 16, [512, 512, 32, 512, 512, 784]),
        (PeychevConv, SHAPES, 10, [16, 32, 1024, 20, 1024, 4096, 16, 4, 1]),
        (PeychevConv, MNIST, 16, [8, 16, 512, 32, 512, 784, 8, 4, 1]),
    ],
)
def test_the_networks_are_the_table_of_the_paper(cls: type, spec: DataSpec, z: int, widths: list[int]) -> None:
    model = cls(PeychevConfig(z=z), spec)
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
    outputs = [m.out_features if isinstance(m, nn.Linear) else m.out_channels for m in layers]
    assert outputs == widths
    # No bias before batch normalisation; heads and output have one.
    assert [i for i, m in enumerate(layers) if m.bias is not None] == [widths.index(2 * z), len(widths) - 1]
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == len(layers) - 2
    assert all(m.eps == 1e-4 and m.momentum == 0.001 for m in norms)
    activations = [type(m) for m in model.encoder if isinstance(m, (nn.ReLU, nn.Tanh))]
    assert set(activations) == {nn.ReLU}
    assert {type(m) for m in model.decoder if isinstance(m, (nn.ReLU, nn.Tanh))} == {nn.Tanh}
    x = torch.rand(2, *spec.shape)
    assert model.encode(x)["z"].shape == (2, z)
    assert model.decode({"z": torch.zeros(2, z)}).shape == x.shape


def test_same_padding_and_its_adjoint(generator: torch.Generator) -> None:
    down, up = Downwards(3, 5), Upwards(5, 3)
    x, y = torch.randn(2, 3, 14, 14, generator=generator), torch.randn(2, 5, 7, 7, generator=generator)
    with torch.no_grad():
        up.weight.copy_(down.weight)
        # TensorFlow's SAME for an even side: all padding at the end.
        assert torch.allclose(down(x), F.conv2d(F.pad(x, (0, 1, 0, 1)), down.weight, stride=2), atol=1e-6)
        assert down(x).shape == y.shape
        assert up(y).shape == x.shape
        assert math.isclose(float((down(x) * y).sum()), float((x * up(y)).sum()), rel_tol=1e-3, abs_tol=1e-3)


def test_initial_weights(seed: int) -> None:
    with initialised(seed, torch.device("cpu")):
        model = PeychevFC(PeychevConfig(), SHAPES)
    first, head, output = model.encoder[1], model.encoder[-1], model.decoder[-2]
    assert math.isclose(float(first.weight.detach().std()), math.sqrt(2 / 4096), rel_tol=0.01)
    assert math.isclose(float(head.weight.detach().std()), math.sqrt(2 / 1200), rel_tol=0.05)
    limit = math.sqrt(6 / (1200 + 4096))
    assert 0.99 * limit < float(output.weight.detach().abs().max()) <= limit * (1 + 1e-6)  # float32 rounds
    assert float(output.bias.detach().abs().max()) == float(head.bias.detach().abs().max()) == 0


def test_the_bound_against_torch_distributions(generator: torch.Generator) -> None:
    model = PeychevFC(PeychevConfig(z=4, hidden=20), MNIST).eval()
    x, noise = torch.rand(6, 1, 28, 28, generator=generator), torch.randn(6, 4, generator=generator)
    reconstruction, kl = model(x, x, noise)
    mean, logvar = model.infer(x)
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    exact = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert torch.allclose(kl, exact, rtol=1e-4)
    pixels = torch.distributions.Bernoulli(logits=model.decoder(q.mean + q.stddev * noise), validate_args=False)
    assert torch.allclose(reconstruction, -pixels.log_prob(x).flatten(1).sum(1).mean(), rtol=1e-4)


def _step(x: torch.Tensor, logged: dict[str, float] | None = None) -> Step:
    def log(name: str, value: torch.Tensor) -> None:
        if logged is not None:
            logged[name] = float(value.detach())

    generator = torch.Generator().manual_seed(5)
    step = Step(index=torch.zeros((), dtype=torch.long), schedule={}, phase=None, generator=generator, log=log)
    step.batch = {"x": x}
    return step


@pytest.mark.parametrize("beta", [0.0, 9e-4, 1e-3, 4.0])
def test_beta_weighs_the_kl_or_leaves_it_out(beta: float) -> None:
    logged: dict[str, float] = {}
    model = PeychevFC(PeychevConfig(beta=beta, hidden=20), MNIST)
    loss = float(model.loss(_step(torch.rand(8, 1, 28, 28), logged)).detach())
    weight = beta if beta >= 1e-3 else 0.0
    assert math.isclose(loss, logged["reconstruction"] + weight * logged["kl"], rel_tol=1e-5)
    assert logged["kl"] > 0


def test_noise_statistics(generator: torch.Generator) -> None:
    """20 % of the pixels are replaced, so 10 % of the bits flip, in 90 % of the batch; the target stays clean."""
    x = (torch.rand(1000, 1, 64, 64, generator=generator) < 0.3).float()
    clean = x.clone()
    seen = salt_and_pepper(x, torch.rand(x.shape, generator=generator), 0.2, 900)
    flipped = (seen != x).float().mean((1, 2, 3))
    assert torch.equal(x, clean)
    assert float(flipped[900:].max()) == 0
    # 3.7 million pixels: the standard deviation is 0.00016.
    assert abs(float(flipped[:900].mean()) - 0.1) < 0.003
    assert float(flipped[:900].min()) > 0.05
    grey = salt_and_pepper(torch.full((10, 1, 64, 64), 0.5), torch.rand(10, 1, 64, 64, generator=generator), 0.2, 10)
    shares = [float((grey == value).float().mean()) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.1, 0.8, 0.1], abs=0.012)  # 8 standard deviations


def test_denoising_reconstructs_the_clean_image() -> None:
    """Its loss is the bound of the corrupted input against the clean target."""
    model = PeychevFC(PeychevConfig(denoise=True, hidden=20, z=3), MNIST).eval()
    x = torch.rand(10, 1, 28, 28)
    logged: dict[str, float] = {}
    model.loss(_step(x, logged))
    again = _step(x)
    seen = salt_and_pepper(x, again.rand(*x.shape), 0.2, 9)
    assert not torch.equal(seen[:9], x[:9])
    assert torch.equal(seen[9], x[9])
    mean, logvar = model.encoder(seen).chunk(2, 1)
    z = mean + (logvar / 2).exp() * again.randn(10, 3)
    pixels = torch.distributions.Bernoulli(logits=model.decoder(z), validate_args=False).log_prob(x)
    assert math.isclose(-float(pixels.flatten(1).sum(1).mean().detach()), logged["reconstruction"], rel_tol=1e-5)


def test_variants_and_sizes_that_do_not_fit() -> None:
    assert [variant(name) for name in ("fc", "conv-dn")] == [("peychev-fc", False), ("peychev-conv", True)]
    odd = PeychevConv(PeychevConfig(hidden=9), DataSpec("image", (1, 30, 37)))
    assert odd.decode(odd.encode(torch.zeros(2, 1, 30, 37))).shape == (2, 1, 30, 37)
    settings = resolve("peychev-conv", options={"data": {"name": "digits", "size": 16}, "train": {"device": "cpu"}})
    assert build(settings, torch.device("cpu"), Ranks()).model.spec.shape == (1, 16, 16)
    with pytest.raises(ValueError, match="lie in"):
        PeychevFC(PeychevConfig(), DataSpec("vector", (12,), (-1.0, 1.0)))


# Side by side


@pytest.fixture
def double() -> Iterator[None]:
    """float64: a mean's bias has no gradient at beta 0, for batch normalisation follows, and Adam would blow up the
    rounding errors of float32 in its place."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Doubled:
    """A data set in float64."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.device, self.spec, self.rows = dataset, dataset.device, dataset.spec, dataset.rows

    def batch(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": self.dataset.batch(rows)["x"].double()}


def members(cls: type, betas: list[float], rows: int, **model: object) -> tuple[list[Member], Any]:
    data = Doubled(open_dataset("shapes2d", PARTS))
    made = []
    for seed, beta in enumerate(betas):
        with initialised(seed, torch.device("cpu")):
            one = cls(PeychevConfig(beta=beta, hidden=24, z=3, **model), data.spec)
        made.append(Member(one, data.rows("train")[:rows], seed))
    return made, data


@pytest.mark.parametrize("cls", [PeychevFC, PeychevConv])
@pytest.mark.parametrize("denoise", [False, True])
def test_models_side_by_side_are_the_models_alone(cls: type, denoise: bool, double: None) -> None:
    """Against an ordinary loop: nn.Module in training mode, torch's Adam, the member's own draws."""
    together, data = members(cls, [0.0, 1.0, 4.0], 70, denoise=denoise)
    alone, _ = members(cls, [0.0, 1.0, 4.0], 70, denoise=denoise)
    ensemble = Ensemble(together, data, data.rows("validation")[:40], Plan(batch=32, lr=1e-3, epochs=9))
    ensemble.epoch()
    ensemble.epoch()
    for m, member in enumerate(alone):
        model = member.model.train()
        generator = torch.Generator().manual_seed(stream(member.seed, "training"))
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(2):
            order = torch.randperm(70, generator=generator)
            for start in (0, 32):
                x = data.batch(member.rows[order[start : start + 32]])["x"]
                seen = x
                if denoise:
                    seen = salt_and_pepper(x, torch.rand(x.shape, generator=generator), 0.2, 29)
                reconstruction, kl = model(seen, x, torch.randn(32, 3, generator=generator))
                adam.zero_grad()
                (reconstruction + (member.beta * kl if member.beta else 0)).backward()
                adam.step()
        for name, value in model.state_dict().items():
            stacked = ensemble._state()[name][m]
            assert torch.allclose(stacked.double(), value.double(), rtol=1e-7, atol=1e-9), name
        x = data.batch(data.rows("validation")[:40])["x"]  # judged by the statistics of these images
        with torch.no_grad():
            terms = model(x, x, ensemble.noise)
        if int(ensemble.worse[m]) == 0:
            assert torch.allclose(torch.stack(terms), ensemble.terms[:, m], rtol=1e-7)


def test_members_stop_by_themselves_and_keep_their_best(double: None) -> None:
    """A member whose validation loss never improves leaves after its patience; the others go on as if alone."""
    plan = Plan(batch=32, lr=1e-3, epochs=7, patience=1)

    def trained(which: list[int]) -> dict[int, tuple]:
        made, data = members(PeychevFC, [0.0, 1.0, 4.0], 70)
        ensemble = Ensemble([made[i] for i in which], data, data.rows("validation")[:40], plan)
        judge = ensemble._judge

        def judged() -> None:
            if 1 in which and ensemble.epochs == 2:
                ensemble.best[ensemble.active.index(which.index(1))] = -torch.inf  # nothing is better from here on
            judge()

        ensemble._judge = judged
        return {which[m]: outcome for m, outcome in ensemble.train()}

    found = trained([0, 1, 2])
    assert [found[i].epochs for i in (0, 1, 2)] == [7, 3, 7]
    for i in (0, 2):
        lonely = trained([i])[i]
        assert found[i].reconstruction == pytest.approx(lonely.reconstruction, rel=1e-8)
        for a, b in zip(found[i].model.state_dict().values(), lonely.model.state_dict().values(), strict=True):
            assert torch.allclose(a.double(), b.double(), rtol=1e-6, atol=1e-8)
    short = dict(zip([1], [trained([1])[1]], strict=True))[1]  # its state after the first epoch
    for a, b in zip(found[1].model.parameters(), short.model.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)


def test_the_judge_reads_validation_rows_only_and_learns_nothing_from_them(double: None) -> None:
    """With noise for test images the same states are kept; with another validation set the training is the same."""

    def trained(poison: bool, validation: slice) -> Ensemble:
        made, data = members(PeychevFC, [1.0], 70)
        if poison:
            original, test = data.batch, data.rows("test")

            def batch(rows: torch.Tensor) -> dict[str, torch.Tensor]:
                x = original(rows)["x"]
                return {"x": torch.where(torch.isin(rows, test).view(-1, 1, 1, 1), torch.rand_like(x), x)}

            data.batch = batch
        ensemble = Ensemble(made, data, data.rows("validation")[validation], Plan(batch=32, lr=1e-3, epochs=3))
        for _ in range(3):
            ensemble.epoch()
        return ensemble

    one, poisoned, other = (
        trained(False, slice(40)),
        trained(True, slice(40)),
        trained(False, slice(40, 80)),
    )
    assert all(torch.equal(one.kept[name], poisoned.kept[name]) for name in one.kept)
    assert all(torch.equal(value, other.parameters[name]) for name, value in one.parameters.items())
    assert all(torch.equal(value, other.buffers[name]) for name, value in one.buffers.items())


def test_a_short_training_is_judged_by_what_the_network_does(double: None) -> None:
    """Five updates: with running averages of momentum 0.001, which still are 0 and 1, the loss would look worse than at
    the start. The model that is handed out has averages that fit its weights: it reconstructs as in training mode."""
    made, data = members(PeychevFC, [1.0], 64)
    rows, x = made[0].rows, data.batch(made[0].rows)["x"]
    ensemble = Ensemble(made, data, data.rows("validation")[:40], Plan(batch=32, lr=1e-3, epochs=5, patience=0))
    (outcome,) = dict(ensemble.train()).values()
    assert outcome.epochs == 5, "each epoch was better than the one before"
    noise = torch.zeros(64, 3)
    with torch.no_grad():
        settled = float(outcome.model.eval()(x, x, noise)[0])
        seen = float(outcome.model.train()(x, x, noise)[0])
        for layer in outcome.model.modules():
            if isinstance(layer, torch.nn.BatchNorm1d):
                layer.reset_running_stats()
        unsettled = float(outcome.model.eval()(x, x, noise)[0])
    assert abs(settled - seen) < 0.1 * abs(unsettled - seen)
    assert len(rows) == 64


def test_a_diverged_member_leaves_and_harms_nobody(double: None) -> None:
    made, data = members(PeychevFC, [1.0, 1.0], 70)
    with torch.no_grad():
        made[0].model.encoder[-1].bias.fill_(math.nan)
    ensemble = Ensemble(made, data, data.rows("validation")[:40], Plan(batch=32, epochs=2))
    found = dict(ensemble.train())
    assert (found[0].sound, found[0].epochs) == (False, 1)
    assert found[1].sound
    assert math.isfinite(found[1].reconstruction)
    assert all(bool(v.isfinite().all()) for v in found[1].model.state_dict().values())
