"""Losses, networks and batches of ldf and joint-gan against independent computations."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distk import Dataset, DataSpec, Files, UsageError
from distk.commands.interpolate import strips as strips_between
from distk.commands.swap import swapped_draws
from distk.config import from_dict
from distk.device import initialised
from distk.method import Method, Step
from distk.nn import call_fake, call_real
from distk.plugins.gan_family.ldf.joint import JointConfig, JointGAN
from distk.plugins.gan_family.ldf.method import LDF, Config
from distk.plugins.gan_family.ldf.networks import (
    Decoder,
    Encoder,
    PieceCritic,
    count,
    joined,
    parted,
    plan_of,
    regulariser,
)
from distk.plugins.gan_family.ldf.shared import annealed
from distk.settings import TrainConfig, resolve
from distk.source import Source
from distk.testing import method_checks
from distk.training.trainer import Trainer
from distk.traversal import strips_of

CPU = torch.device("cpu")
CLIPS, IMAGES = DataSpec("video", (3, 2, 4, 4)), DataSpec("image", (2, 8, 8))
SMALL: dict[str, Any] = {"arch": "mlp", "width": 0.02, "top_hidden": 9, "z": 3, "z0": 4, "dropout": 0.0, "grid": 2}


class Noise(Dataset):
    """Random items; item i has the value i / n in its first pixel of every piece."""

    def __init__(self, spec: DataSpec, n: int = 40) -> None:
        super().__init__(None, CPU, Files("noise", None, ""))
        low, high = spec.range
        self.x = low + (high - low) * torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(3))
        self.spec, self.name, self.origin = spec, "noise", "drawn for a test"
        self.parts = {"train": torch.arange(n - 8), "test": torch.arange(n - 8, n)}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}


def make(seed: int, spec: DataSpec = CLIPS, **settings: Any) -> LDF:
    with initialised(seed, CPU):
        model = LDF(from_dict(Config, {**SMALL, **settings}, "the test"), spec)
        for module in model.modules():  # weights of 0.01 would leave little to be seen
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.4)
    return model


def trainer(model: Method, data: Dataset, batch: int = 6, steps: int = 10, seed: int = 0) -> Trainer:
    model.opens = lambda: data
    return Trainer(model.train(), data, TrainConfig(batch=batch, steps=steps, seed=seed, device="cpu"))


def a_step(seed: int, **batch: Tensor) -> Step:
    step = Step(
        index=torch.zeros((), dtype=torch.long),
        schedule={name: torch.tensor(0.7) for name in ("gamma", "gamma/bottom", "gamma/top")},
        phase=None,
        generator=torch.Generator().manual_seed(seed),
        log=lambda name, value: None,
    )
    step.batch = dict(batch)
    return step


# The regulariser


def test_the_regulariser_in_closed_form(generator: torch.Generator) -> None:
    """For a logit t = w.x + v.z every row's gradient is (w, v)."""
    n, m = 5, 7
    x, z = (torch.randn(n + m, d, generator=generator, dtype=torch.float64).requires_grad_() for d in (6, 3))
    w, v = (torch.randn(d, generator=generator, dtype=torch.float64) for d in (6, 3))
    score = x @ w + z @ v
    s = score.detach().sigmoid()
    slope = w.square().sum() + v.square().sum()
    expected = ((1 - s[:n]) ** 2 * slope).mean() + (s[n:] ** 2 * slope).mean()
    assert abs(float((regulariser(score, n, x, z) - expected).detach())) < 1e-10


def test_the_regulariser_and_its_gradient_row_by_row(generator: torch.Generator) -> None:
    """Against one pass backwards per row, and differences of the parameters; the weights are differentiated, too."""
    body = nn.Sequential(nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)

    def slow() -> Tensor:
        parts: list[list[Tensor]] = [[], []]
        for i in range(len(x)):
            row = x[i : i + 1].clone().requires_grad_()
            score = body(row).sum()
            (gradient,) = torch.autograd.grad(score, row)
            d = score.sigmoid()
            parts[i >= 2].append(((1 - d) if i < 2 else d) ** 2 * gradient.square().sum())
        return sum(torch.stack(p).mean() for p in parts).detach()  # type: ignore[union-attr]

    given = x.clone().requires_grad_()
    value = regulariser(body(given).squeeze(1), 2, given)
    assert torch.allclose(value, slow(), rtol=1e-10)
    first = body[0].weight
    (gradient,) = torch.autograd.grad(value, first)
    with torch.no_grad():
        for i, j in ((0, 1), (3, 2)):
            numbers = []
            for change in (1e-5, -2e-5):
                first[i, j] += change
                with torch.enable_grad():
                    numbers.append(slow())
            first[i, j] += 1e-5
            assert torch.allclose((numbers[0] - numbers[1]) / 2e-5, gradient[i, j], rtol=1e-5, atol=1e-8)


def test_gamma_falls_to_its_share() -> None:
    config = Config(gamma=3.0, anneal=0.01)
    assert annealed(config, 0, 11) == 3.0
    assert annealed(config, 10, 11) == pytest.approx(0.03)
    assert annealed(config, 5, 11) == pytest.approx(0.3)
    assert annealed(config, 99, 11) == pytest.approx(0.03)
    assert annealed(config, 0, 1) == 3.0
    model = make(0, bottom_steps=4)
    model.run_steps = 9
    found = [model.schedule(t) for t in (0, 3, 4, 8)]
    assert [round(f["gamma/bottom"], 6) for f in found] == [2.0, 0.02, 0.02, 0.02]
    assert [round(f["gamma/top"], 6) for f in found] == [2.0, 2.0, 2.0, 0.02]


def test_the_game_at_its_optimum() -> None:
    """Two Gaussians that are the same: the best critic says 1/2 everywhere, and pays 2 log 2."""
    score = torch.zeros(100)
    assert float(call_real(score).mean() + call_fake(score).mean()) == pytest.approx(2 * math.log(2))


# Pieces


def test_pieces_are_cut_and_joined(generator: torch.Generator) -> None:
    x = torch.rand(3, 2, 12, 12, generator=generator)
    cells = parted(x, 3)
    assert cells.shape == (3, 9, 2, 4, 4)
    for r, c in itertools.product(range(3), range(3)):
        assert torch.equal(cells[:, 3 * r + c], x[:, :, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4])
    assert torch.equal(joined(cells, "image", 3), x)
    clips = torch.rand(2, 5, 3, 4, 4, generator=generator)
    assert torch.equal(joined(parted(clips, 7), "video", 7), clips)


@pytest.mark.parametrize("spec", [IMAGES, CLIPS, DataSpec("image", (2, 8, 8), range=(-1.0, 3.0))], ids=str)
def test_a_batch_of_pieces_are_pieces_of_the_training_items(spec: DataSpec, seed: int) -> None:
    data, model = Noise(spec), make(seed, spec)
    source = Source(data, 50, torch.Generator().manual_seed(seed))
    pieces = model.collect(source, "ali-critic")["pieces"]
    low, high = spec.range
    every = parted((data.x[:32] - low) / (high - low), 2).flatten(0, 1).flatten(1)
    apart = torch.cdist(pieces.flatten(1).double(), every.double())
    nearest = apart.argmin(1)
    assert float(apart.amin(1).max()) < 1e-6
    assert len(set((nearest % model.pieces).tolist())) == model.pieces, "only some places are drawn"
    assert len(set((nearest // model.pieces).tolist())) > 10


def test_many_pieces_come_from_few_items(seed: int) -> None:
    spec = DataSpec("video", (20, 1, 4, 4))
    data, model = Noise(spec), make(seed, spec)
    asked: list[int] = []
    batch = data.batch
    data.batch = lambda rows: (asked.append(len(rows)), batch(rows))[1]  # type: ignore[method-assign]
    pieces = model.collect(Source(data, 7, torch.Generator().manual_seed(seed)), "ali-critic")["pieces"]
    assert asked == [3]
    assert len(pieces.flatten(1).unique(dim=0)) == 7 == len(pieces)


def test_only_the_chosen_items_are_seen_whole(seed: int) -> None:
    data, model = Noise(CLIPS), make(seed, joint_samples=3)
    source = Source(data, 60, torch.Generator().manual_seed(seed))
    seen = model.collect(source, "top-critic")["x"].flatten(1).unique(dim=0)
    assert len(seen) == 3
    other = make(seed + 1, joint_samples=3)
    assert torch.equal(other.whole_rows(data), model.whole_rows(data))
    joint = JointGAN(from_dict(JointConfig, {**SMALL, "joint_samples": 3}, "the test"), CLIPS)
    assert torch.equal(joint.collect(source)["x"].flatten(1).unique(dim=0), seen)
    assert set(model.whole_rows(data).tolist()) <= set(range(32))
    with pytest.raises(UsageError, match="32 training items"):
        trainer(make(seed, joint_samples=33), data).step()
    with pytest.raises(UsageError, match="smallest allowed value 2"):
        make(seed, joint_samples=1)


# The lower level's losses


def by_hand(model: LDF, x: Tensor, seed: int, gamma: float) -> tuple[Tensor, Tensor]:
    """Both losses of the lower level, written anew, for the draws of a generator that starts from `seed`."""
    c = model.config
    draw = torch.Generator().manual_seed(seed)
    hidden, mean, logvar = model.encoder(x)
    code = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=draw)
    z = torch.randn(len(x), c.z, generator=draw)
    first = model.decoder.first(torch.cat([z, mean]))
    around = hidden if c.recon == "shortcut" else model.decoder.first(code)
    made, again = model.decoder.tail(torch.cat([first[: len(x)], around])).chunk(2)
    parts, omega = [], []
    for pixels, codes, real in ((x, code, True), (made, z, False)):
        pixels, codes = pixels.detach().requires_grad_(), codes.detach().requires_grad_()
        t = model.critic(pixels, codes)
        d = torch.sigmoid(t)
        parts.append(-torch.log(d if real else 1 - d).mean())
        gradients = torch.autograd.grad(t.sum(), (pixels, codes), create_graph=True)
        norm = gradients[0].flatten(1).pow(2).sum(1) + gradients[1].pow(2).sum(1)
        omega.append(((1 - d if real else d).pow(2) * norm).mean())
    critic = parts[0] + parts[1] + gamma / 2 * (omega[0] + omega[1])
    q, p = model.critic(x, code).sigmoid(), model.critic(made, z).sigmoid()
    makers = -torch.log(1 - q).mean() - torch.log(p).mean()
    if c.recon != "none":
        makers = makers + c.lambda_r * ((x - again) ** 2).mean()
    if c.cycle:
        makers = makers + c.lambda_z * ((first[len(x) :] - hidden.detach()) ** 2).mean()
    return critic, makers


@pytest.mark.parametrize(
    "settings",
    [{}, {"recon": "latent"}, {"recon": "none", "cycle": False}, {"lambda_r": 3.0, "lambda_z": 0.5}],
    ids=str,
)
def test_the_lower_levels_losses_and_gradients(settings: dict[str, Any], seed: int) -> None:
    model = make(seed, **settings).double().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
    torch.set_default_dtype(torch.float64)
    try:
        x = torch.rand(6, *model.shape, generator=torch.Generator().manual_seed(seed))
        step = a_step(seed, pieces=x)
        made = [model.tell_pairs(step), model.fool_pairs(step)]
        expected = by_hand(model, x, seed, 0.7)
        owned = [list(model.critic.parameters()), [*model.encoder.parameters(), *model.decoder.parameters()]]
        for ours, theirs, parameters in zip(made, expected, owned, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-10)
            pairs = zip(
                torch.autograd.grad(ours, parameters, retain_graph=True),
                torch.autograd.grad(theirs, parameters, retain_graph=True),
                strict=True,
            )
            for a, b in pairs:
                assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_critics_loss_leaves_the_makers_alone(seed: int) -> None:
    model = make(seed).train()
    loss = model.tell_pairs(a_step(seed, pieces=torch.rand(6, *model.shape)))
    makers = [*model.encoder.parameters(), *model.decoder.parameters()]
    found = torch.autograd.grad(loss, makers, allow_unused=True)
    assert all(gradient is None for gradient in found)


# The upper level


@pytest.mark.parametrize("stored", [True, False])
def test_the_upper_levels_losses(stored: bool, seed: int) -> None:
    model = make(seed).train()
    x = torch.rand(5, *CLIPS.shape, generator=torch.Generator().manual_seed(seed))
    model.encoder.eval()
    with torch.no_grad():
        _, mean, logvar = model.encoder(x.flatten(0, 1))
    model.encoder.train()
    mean, logvar = mean.view(5, 3, 3), logvar.view(5, 3, 3)
    step = a_step(seed, **({"mean": mean, "logvar": logvar} if stored else {"x": x}))
    critic, generator = model.tell_codes(step), model.fool_codes(step)
    draw = torch.Generator().manual_seed(seed)
    real = mean + (logvar / 2).exp() * torch.randn(5, 3, 3, generator=draw)
    z0 = torch.randn(5, 4, generator=draw)
    made = model.top(z0)
    expected, omega = torch.zeros(()), torch.zeros(())
    for codes, is_real in ((real, True), (made, False)):
        codes = codes.detach().requires_grad_()
        t = model.top_critic(codes)
        d = t.sigmoid()
        (gradient,) = torch.autograd.grad(t.sum(), codes, create_graph=True)
        wrong = 1 - d if is_real else d
        expected = expected - (1 - wrong).log().mean()
        omega = omega + (wrong.pow(2) * gradient.flatten(1).pow(2).sum(1)).mean()
    assert torch.allclose(critic, expected + 0.35 * omega, rtol=1e-5)
    assert torch.allclose(generator, -model.top_critic(made).sigmoid().log().mean(), rtol=1e-5)


@pytest.mark.parametrize("schedule", ["pretrain", "scratch"])
def test_no_gradient_crosses_levels(schedule: str, seed: int) -> None:
    model = make(seed, schedule=schedule, bottom_steps=2).train()
    below = [*model.encoder.parameters(), *model.decoder.parameters(), *model.critic.parameters()]
    step = a_step(seed, x=torch.rand(5, *CLIPS.shape))
    for loss in (model.tell_codes(step), model.fool_codes(step)):
        assert all(g is None for g in torch.autograd.grad(loss, below, allow_unused=True, retain_graph=True))
    run = trainer(model, Noise(CLIPS))
    for _ in range(2):
        run.step()
    before = [p.detach().clone() for p in below]
    norms = [b.clone() for n, b in model.named_buffers() if n.startswith(("encoder", "decoder"))]
    for p in below:
        p.grad = None
    run.step()
    same = all(torch.equal(p, b) for p, b in zip(below, before, strict=True))
    assert same == (schedule == "pretrain")
    if schedule == "pretrain":
        now = [b for n, b in model.named_buffers() if n.startswith(("encoder", "decoder"))]
        assert all(torch.equal(a, b) for a, b in zip(norms, now, strict=True)), "batch statistics moved"
        assert all(p.grad is None for p in below)


def test_a_piece_depends_on_its_own_code_alone(seed: int) -> None:
    model = make(seed).eval()
    codes = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    made = model.decode({f"piece{i}": codes[:, i] for i in range(3)})
    for i in range(3):
        (gradient,) = torch.autograd.grad(made[:, i].sum(), codes, retain_graph=True)
        for j in range(3):
            assert bool(gradient[:, j].any()) == (i == j)


def test_stored_codes_are_those_of_the_finished_encoder(seed: int) -> None:
    data, model = Noise(CLIPS), make(seed, bottom_steps=2, joint_samples=5)
    run = trainer(model, data, steps=6)
    for _ in range(4):
        run.step()
    stored = model.__dict__["_stored"]
    rows = model.whole_rows(data)
    model.eval()
    with torch.no_grad():
        _, mean, logvar = model.encoder(data.x[rows].flatten(0, 1))
    assert torch.allclose(stored[..., :3], mean.view(5, 3, 3), atol=1e-6)
    assert torch.allclose(stored[..., 3:], logvar.view(5, 3, 3), atol=1e-6)
    drawn = model.collect(Source(data, 30, torch.Generator().manual_seed(seed)), "top-critic")
    pairs = torch.cat([drawn["mean"], drawn["logvar"]], 2)
    assert all(any(torch.equal(pair, s) for s in stored) for pair in pairs)


def test_the_slow_encoder_follows(seed: int) -> None:
    model = make(seed, schedule="scratch", ema=0.5)
    w, slow = model.encoder.head.weight, dict(model.slow.named_buffers())["head.weight"]
    start = slow.clone()
    with torch.no_grad():
        w.add_(1.0)
        model.encoder.body[2].running_mean.fill_(0.25)
    model._follow()
    keep = 2 / 11  # (1 + 1) / (10 + 1), below the decay
    assert torch.allclose(slow, keep * start + (1 - keep) * w, atol=1e-6)
    assert float(dict(model.slow.named_buffers())["body.2.running_mean"][0]) == 0.25
    for _ in range(20):
        model._follow()
    before = slow.clone()
    with torch.no_grad():
        w.add_(1.0)
    model._follow()
    assert torch.allclose(slow, (before + w) / 2, atol=1e-5)
    assert not any(name.startswith("slow") for name, _ in model.named_parameters())


@pytest.mark.parametrize("settings", [{"schedule": "scratch"}, {"bottom_steps": 1}], ids=str)
def test_conformance_of_both_schedules(settings: dict[str, Any]) -> None:
    model = {**settings, "width": 0.05, "top_hidden": 16}
    checks = method_checks("ldf", model=model, data={"clips": 60, "held_out": 10})
    failed = [f"{c.name}: {c.problem}" for c in checks if c.problem]
    assert not failed, "\n".join(failed)


# The baseline


def test_the_baselines_losses(seed: int) -> None:
    config = from_dict(JointConfig, {**SMALL, "joint_width": 0.03}, "the test")
    with initialised(seed, CPU):
        model = JointGAN(config, CLIPS).train()
    x = torch.rand(6, *CLIPS.shape, generator=torch.Generator().manual_seed(seed))
    step = a_step(seed, x=x)
    critic, generator = model.tell(step), model.fool(step)
    made = model.generator(torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)))
    expected, omega = torch.zeros(()), torch.zeros(())
    for pixels, real in ((x.flatten(1, 2), True), (made, False)):
        pixels = pixels.detach().requires_grad_()
        t = model.critic(pixels)
        d = t.sigmoid()
        (gradient,) = torch.autograd.grad(t.sum(), pixels, create_graph=True)
        wrong = 1 - d if real else d
        expected = expected - (1 - wrong).log().mean()
        omega = omega + (wrong.pow(2) * gradient.flatten(1).pow(2).sum(1)).mean()
    assert torch.allclose(critic, expected + 0.35 * omega, rtol=1e-5)
    assert torch.allclose(generator, -model.critic(made).sigmoid().log().mean(), rtol=1e-5)
    grads = torch.autograd.grad(critic, list(model.generator.parameters()), allow_unused=True)
    assert all(g is None for g in grads)


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (DataSpec("video", (5, 3, 16, 16)), {"width": 0.5}),
        (DataSpec("image", (3, 32, 32)), {}),
        (CLIPS, {"arch": "mlp", "width": 0.1}),
    ],
    ids=str,
)
def test_the_baseline_is_as_large(spec: DataSpec, settings: dict[str, Any]) -> None:
    model = JointGAN(from_dict(JointConfig, settings, "the test"), spec)
    levels = LDF(from_dict(Config, settings, "the test"), spec)
    assert model.like == count(levels)
    assert abs(count(model) / count(levels) - 1) < 0.2
    made = model.sample(3, torch.Generator().manual_seed(0))
    assert made.shape == (3, *spec.shape)


# Networks


@pytest.mark.parametrize("side", [16, 32, 64])
def test_columns_have_the_sizes_of_the_tables(side: int) -> None:
    plan = plan_of((3, side, side), "conv")
    assert plan is not None
    expected = {16: [16, 12, 5, 2, 1], 32: [32, 28, 13, 10, 4, 1], 64: [64, 60, 29, 13, 10, 4, 1]}[side]
    assert plan.sides(side) == expected
    encoder, decoder = (kind((3, side, side), 5, plan, 0.25).eval() for kind in (Encoder, Decoder))
    seen: list[int] = []
    for layer in decoder.body:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda module, given, made: seen.append(made.shape[-1]))
    x = torch.rand(2, 3, side, side)
    hidden, mean, logvar = encoder(x)
    assert hidden.shape == (2, 128)
    assert mean.shape == logvar.shape == (2, 5)
    assert decoder(mean).shape == x.shape
    assert seen == expected[::-1][1:]
    assert decoder.tail(hidden).shape == x.shape
    critic = PieceCritic((3, side, side), 5, plan, 0.25, 0.0, True)
    assert critic(x, mean).shape == (2,)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in critic.modules())


def test_the_published_widths() -> None:
    """Table of Dumoulin et al. for CIFAR-10: channels of the encoder, and what the discriminator joins."""
    plan = plan_of((3, 32, 32), "conv")
    encoder, critic = Encoder((3, 32, 32), 64, plan, 1.0), PieceCritic((3, 32, 32), 64, plan, 1.0, 0.2, False)
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size[0], c.stride[0], c.out_channels) for c in convs] == [
        (5, 1, 32),
        (4, 2, 64),
        (4, 1, 128),
        (4, 2, 256),
        (4, 1, 512),
    ]
    assert encoder.head.out_features == 128
    assert critic.head[0].in_features == 1024
    assert abs(float(convs[2].weight.detach().std()) / 0.01 - 1) < 0.05


def test_log_variances_are_clamped() -> None:
    encoder = Encoder((1, 2, 2), 3, None, 0.1).eval()
    with torch.no_grad():
        encoder.head.bias.copy_(torch.tensor([0.0, 0, 0, 99, -99, 1]))
        logvar = encoder(torch.rand(2, 1, 2, 2))[2]
    assert torch.equal(logvar[:, :2], torch.tensor([[4.0, -8.0]] * 2))


def test_rows_of_a_critic_do_not_look_at_each_other(seed: int) -> None:
    model = make(seed).train()
    x, z = torch.rand(4, *model.shape), torch.randn(4, 3)
    alone = torch.cat([model.critic(x[i : i + 1], z[i : i + 1]) for i in range(4)])
    assert torch.allclose(model.critic(x, z), alone, atol=1e-6)


# The trained model


@pytest.mark.parametrize("spec", [IMAGES, CLIPS, DataSpec("image", (2, 8, 8), range=(-1.0, 1.0))], ids=str)
def test_codes_there_and_back(spec: DataSpec, seed: int) -> None:
    model = make(seed, spec).eval()
    with torch.no_grad():
        x = Noise(spec).x[:5]
        code = model.encode(x)
        assert list(code) == [f"piece{i}" for i in range(model.pieces)]
        low, high = spec.range
        first = parted((x - low) / (high - low), 2)[:, 0]
        assert torch.allclose(code["piece0"], model.encoder(first)[1], atol=1e-6)
        made = model.decode(code)
        piece = parted((made - low) / (high - low), 2)[:, 0]
        assert torch.allclose(piece, model.decoder(code["piece0"]), atol=1e-6)
        around = parted((model.shortcut(x) - low) / (high - low), 2)[:, 0]
        assert torch.allclose(around, model.decoder.tail(model.encoder(first)[0]), atol=1e-6)
        drawn = model.prior(4, torch.Generator().manual_seed(1))
        assert torch.allclose(model.decode(drawn), model.decode({"top": drawn["top"]}), atol=1e-6)
        swapped, _ = model.latents.swap(code, {k: v.flip(0) for k, v in code.items()}, "piece1")
        changed = (model.decode(swapped) - made).abs().flatten(2) if spec.kind == "video" else None
        if changed is not None:
            assert bool(changed[:, 1].any())
            assert not bool(changed[:, [0, 2]].any())
    with pytest.raises(ValueError, match="1 of the"):
        model.decode({"piece0": code["piece0"]})


def test_what_is_made_of_the_noise_follows_where_the_noise_changes(seed: int) -> None:
    model = make(seed).eval()
    with torch.no_grad():
        code = model.prior(4, torch.Generator().manual_seed(1))
        strips = strips_of(model, code, "top2", 3)
        moved = code["top"].clone()
        moved[:, 1] = model.latents["top"].high
        assert torch.allclose(strips[:, -1], model.decode({"top": moved}), atol=1e-6)
        assert float((strips[:, 0] - strips[:, -1]).abs().amax()) > 1e-3
        pairs = swapped_draws(model, code, "top")
        assert torch.allclose(pairs[:, 2], pairs[:, 1], atol=1e-6)  # all of an item follows from its noise
        assert torch.allclose(pairs[:, 3], pairs[:, 0], atol=1e-6)
        assert float((pairs[:, 0] - pairs[:, 1]).abs().amax()) > 1e-3
        way = strips_between(model, code, 3, "top")
        half = (code["top"][:2] + code["top"][2:]) / 2
        assert torch.allclose(way[:, 1], model.decode({"top": half}), atol=1e-6)
        own = strips_between(model, code, 3, "piece1")
        assert torch.allclose(own[:, :, [0, 2]], own[:, :1, [0, 2]].expand(-1, 3, -1, -1, -1, -1), atol=1e-6)


def test_ways_between_draws_lead_along_the_noise(seed: int) -> None:
    model = make(seed).eval()
    share = torch.tensor([0.0, 0.25, 1.0])
    with torch.no_grad():
        a, b = (model.prior(2, torch.Generator().manual_seed(k)) for k in (1, 2))
        along = model.interpolate(a, b, share)
        assert list(along) == ["top"]
        assert torch.allclose(along["top"][2:4], 0.75 * a["top"] + 0.25 * b["top"])
        held = model.interpolate(a, {**b, "top": a["top"]}, share)
        assert torch.allclose(held["piece1"][2:4], 0.75 * a["piece1"] + 0.25 * b["piece1"])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be cut into 3 x 3"):
        make(0, IMAGES, grid=3)
    with pytest.raises(ValueError, match="pieces of 300x300 pixels have no convolutional network"):
        make(0, DataSpec("image", (1, 600, 600)), arch="conv")
    assert plan_of((2, 4, 4), "auto") is None
    assert plan_of((2, 16, 16), "auto") is not None


def test_presets_are_the_papers_budgets() -> None:
    """Figure 3: eight epochs of 50,000 images; Figures 6 and 7: 20,000 clips. The lower level's share is ours."""
    cifar, pacman = (resolve("ldf", preset=name) for name in ("cifar", "pacman"))
    assert (cifar.model.bottom_steps, cifar.train.steps - cifar.model.bottom_steps) == (4000, 8 * 50_000 // 100)
    assert (pacman.model.bottom_steps, pacman.train.steps - pacman.model.bottom_steps) == (10_000, 100 * 20_000 // 100)
    assert cifar.train.batch == pacman.train.batch == 100
    assert (cifar.data, pacman.data) == ("cifar10", "pacman")


def test_the_upper_level_begins_where_the_lower_one_ends() -> None:
    settings = resolve("ldf", options={"model": {"bottom_steps": 5}})
    model = settings.method(settings.model, DataSpec("image", (1, 16, 16)))
    assert [model.phase(step) for step in (0, 4, 5, 6)] == [False, False, True, True]
    windows = {o.name: o.window for o in model.objectives()}
    assert windows["ali-critic"] == windows["ali-generator"] == (0, 5)
    assert windows["top-critic"] == windows["top-generator"] == (5, None)
