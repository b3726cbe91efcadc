"""SD-DCGAN and SD-BEGAN: networks, draws of tuples and losses against independent computations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2
from torch import Tensor, nn

from distk import Dataset, DataSpec, Files, Step, UsageError
from distk.config import from_dict
from distk.device import initialised, seeded, stream
from distk.plugins.gan_family.sdgan.method import BEGAN, DCGAN, SDBEGAN, SDDCGAN, PairGAN
from distk.plugins.gan_family.sdgan.networks import BEAutoencoder, BEDecoder, BEEncoder, DCDiscriminator, DCGenerator
from distk.plugins.gan_family.sdgan.tuples import identities
from distk.settings import TrainConfig
from distk.source import Source
from distk.training.trainer import Trainer

CPU = torch.device("cpu")
SPEC = DataSpec("image", (3, 16, 16))


class People(Dataset):
    """Random images; identity i has sizes[i] of them."""

    def __init__(self, sizes: tuple[int, ...] = (2, 3, 5, 4, 6, 3), spec: DataSpec = SPEC) -> None:
        super().__init__(None, CPU, Files("people", None, ""))
        self.label = torch.cat([torch.full((n,), i) for i, n in enumerate(sizes)])
        self.label = self.label[torch.randperm(len(self.label), generator=torch.Generator().manual_seed(3))]
        low, high = spec.range
        unit = torch.rand(len(self.label), *spec.shape, generator=torch.Generator().manual_seed(5))
        self.x = low + (high - low) * unit
        self.spec, self.name, self.origin = spec, "people", "drawn for a test"

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows], "label": self.label[rows]}


def make(cls: type[PairGAN], seed: int, spec: DataSpec = SPEC, **settings: Any) -> Any:
    small = {"width": 4, **({"identity": 3, "observation": 2} if cls in (SDDCGAN, SDBEGAN) else {"z": 5})}
    with initialised(seed, CPU):
        return cls(from_dict(cls.Config, {**small, **settings}, "the test"), spec).double()


def a_step(x: Tensor, seed: int) -> Step:
    step = Step(
        index=torch.zeros((), dtype=torch.long),
        schedule={},
        phase=None,
        generator=torch.Generator().manual_seed(seed),
        log=lambda name, value: None,
    )
    step.batch = {"x": x}
    return step


@pytest.fixture
def double():
    """The step's own draws in float64, too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trainer(model: PairGAN, seed: int = 0, batch: int = 3) -> Trainer:
    data = People(spec=model.spec)
    data.x = data.x.to(next(model.parameters()).dtype)
    return Trainer(model.train(), data, TrainConfig(batch=batch, seed=seed, device="cpu"))


# Networks


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_sizes_are_those_of_the_papers() -> None:
    shape = (3, 64, 64)
    generator = DCGenerator(100, shape, 64)
    norms = sum(2 * w for w in (512, 256, 128, 64))
    weights = 100 * 8192 + 25 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 3
    assert count(generator) == weights + norms == 5_126_723
    assert generator.map == (512, 4, 4)
    pairs = DCDiscriminator(2, shape, 64)
    kernels = 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    assert count(pairs.encoder) == kernels + 64 + 2 * (128 + 256 + 512)  # 4.31 million
    assert count(pairs.compare) == 9 * 1024 * 512 + 2 * 512  # 4.72 million
    assert count(pairs.decide) == 2048 + 1
    assert count(DCDiscriminator(1, shape, 64).decide) == 4 * 4 * 512 + 1
    assert pairs.encoder(torch.zeros(2, *shape)).shape == (2, 512, 4, 4)
    decoder, encoder = BEDecoder(100, shape, 128), BEEncoder(100, shape, 128)
    assert count(decoder) == 100 * 8192 + 8192 + 8 * (9 * 128 * 128 + 128) + 9 * 128 * 3 + 3 == 2_011_523
    assert count(encoder) == 12_868_452
    whole = BEAutoencoder(2, 100, 150, shape, 128)
    assert count(whole) == 2_011_523 + 12_868_452 + 200 * 150 + 150 + 150 * 200 + 200
    assert decoder.map == (128, 8, 8)


@pytest.mark.parametrize("side", [16, 28, 32, 48])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_other_sides_fit(side: int, k: int, generator: torch.Generator) -> None:
    shape = (1, side, side)
    z = torch.rand(2, k, 5, generator=generator)
    x = DCGenerator(5, shape, 2)(z)
    assert x.shape == (2, k, *shape)
    assert DCDiscriminator(k, shape, 2)(x).shape == (2,)
    made = BEDecoder(5, shape, 2)(z)
    assert made.shape == (2, k, *shape)
    assert BEAutoencoder(k, 5, 7, shape, 2)(made).shape == made.shape


@pytest.mark.parametrize("shape", [(3, 7, 7), (3, 32, 3)])
def test_images_that_are_too_small_are_refused(shape: tuple[int, ...]) -> None:
    for build in (lambda: DCGenerator(4, shape, 2), lambda: BEEncoder(4, shape, 2)):
        with pytest.raises(ValueError, match="8x8 pixels or more"):
            build()


def test_the_generator_is_its_layers_one_by_one(generator: torch.Generator) -> None:
    made = DCGenerator(5, (3, 16, 16), 4).double()
    for p in made.parameters():
        p.data.add_(0.3 * torch.randn(p.shape, generator=generator))
    z = torch.rand(6, 5, generator=generator).double()
    linear, norm = made.first[0], made.first[2]
    first, middle, last = made.body[0], made.body[1], made.body[3]
    h = (z @ linear.weight.T).view(6, 8, 4, 4)
    h = F.relu(normalised(h, norm))
    h = F.relu(normalised(F.conv_transpose2d(h, first.weight, None, 2, 2, 1), middle))
    expected = torch.tanh(F.conv_transpose2d(h, last.weight, last.bias, 2, 2, 1))
    assert torch.allclose(made(z), expected, atol=1e-10)


def normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch statistics of `[n, c, h, w]`, written out."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    scaled = (x - mean) / (variance + norm.eps).sqrt()
    return scaled * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def dc_by_hand(d: DCDiscriminator, x: Tensor) -> Tensor:
    """Logits of tuples `[n, k, ...]`, the towers one after the other."""
    h = torch.cat([x[:, i] for i in range(x.shape[1])])  # image after image, not tuple after tuple
    for layer in d.encoder:
        h = normalised(h, layer) if isinstance(layer, nn.BatchNorm2d) else layer(h)
    h = torch.cat(h.split(len(x)), 1)
    if isinstance(d.compare, nn.Sequential):
        conv, norm, _ = d.compare
        h = F.leaky_relu(normalised(F.conv2d(h, conv.weight, None, 2, 1), norm), 0.2)
    return h.flatten(1) @ d.decide.weight[0] + d.decide.bias


@pytest.mark.parametrize("k", [1, 2, 3])
def test_towers_share_their_weights_and_are_compared_before_the_decision(k: int, generator: torch.Generator) -> None:
    d = DCDiscriminator(k, (3, 16, 16), 4).double()
    for p in d.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=generator))
    x = torch.randn(5, k, 3, 16, 16, generator=generator).double()
    assert torch.allclose(d(x), dc_by_hand(d, x), atol=1e-10)
    if k > 1:  # no function of single images summed up: changing one changes what another one counts
        other = torch.randn(5, k, 3, 16, 16, generator=generator).double()
        mixed = [torch.stack([a[:, 0], b[:, 1]], 1) for a, b in ((x, x), (x, other), (other, x), (other, other))]
        fixed = DCDiscriminator(2, (3, 16, 16), 4, norm=False).double()
        aa, ab, ba, bb = (fixed(m) for m in mixed)
        assert float((aa - ab - ba + bb).abs().amax().detach()) > 1e-9 * float(aa.abs().amax().detach())


def test_without_siamese_the_images_are_stacked_first(generator: torch.Generator) -> None:
    d = DCDiscriminator(2, (3, 16, 16), 4, siamese=False)
    assert d.encoder[0].in_channels == 6
    x = torch.randn(4, 2, 3, 16, 16, generator=generator)
    assert torch.allclose(d(x), d.decide(d.encoder(torch.cat([x[:, 0], x[:, 1]], 1)).flatten(1))[:, 0])


def test_swapping_a_pair_swaps_its_hidden_codes_and_its_decoded_halves(generator: torch.Generator) -> None:
    auto = BEAutoencoder(2, 5, 7, (3, 16, 16), 4).double()
    x = torch.randn(3, 2, 3, 16, 16, generator=generator).double()
    read = []
    auto.shared.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    auto(x), auto(x.flip(1))
    assert torch.allclose(read[0].unflatten(1, (2, 5)).flip(1), read[1].unflatten(1, (2, 5)), atol=1e-12)
    first, second = auto.shared
    h = torch.cat([auto.encoder(x[:, 0]), auto.encoder(x[:, 1])], 1)
    narrow = h @ first.weight.T + first.bias
    assert narrow.shape == (3, 7)
    wide = narrow @ second.weight.T + second.bias
    expected = torch.stack([auto.decoder(wide[:, :5]), auto.decoder(wide[:, 5:])], 1)
    assert torch.allclose(auto(x), expected, atol=1e-12)


def test_first_weights() -> None:
    d, auto = DCDiscriminator(2, (3, 32, 32), 32), BEAutoencoder(2, 20, 30, (3, 32, 32), 32)
    weight = d.encoder[2].weight.detach()
    assert float(weight.abs().max()) <= 0.02 * 3**0.5
    assert float(weight.std()) == pytest.approx(0.02, rel=0.02)
    conv = auto.encoder.body[2].weight.detach()
    assert float(conv.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert float(d.decide.bias.detach()) == 0


# Tuples


def test_pairs_are_uniform_over_ordered_pairs_of_an_identity(generator: torch.Generator) -> None:
    data = People()
    known, n = identities(data, "train"), 60_000
    rows = known.tuples(n, 2, generator)
    assert bool((data.label[rows[:, 0]] == data.label[rows[:, 1]]).all())
    assert bool((rows[:, 0] != rows[:, 1]).all())
    sizes = torch.bincount(data.label)
    expected = n / len(sizes) / (sizes * (sizes - 1)).double()
    statistic, cells = 0.0, 0
    for i, size in enumerate(sizes.tolist()):
        mine = rows[data.label[rows[:, 0]] == i]
        seen = torch.unique(mine, dim=0, return_counts=True)[1].double()
        statistic += float(((seen - expected[i]) ** 2 / expected[i]).sum())
        statistic += float((size * (size - 1) - len(seen)) * expected[i])
        cells += size * (size - 1)
    assert statistic < chi2.ppf(1 - 1e-6, cells - 1)


@pytest.mark.parametrize("k", [3, 4])
def test_larger_tuples_are_distinct_and_uniform(k: int, generator: torch.Generator) -> None:
    data = People((4, 6))
    known, n = identities(data, "train", k), 40_000
    rows = known.tuples(n, k, generator)
    assert bool((data.label[rows] == data.label[rows[:, :1]]).all())
    assert bool((rows.sort(1).values.diff(dim=1) > 0).all())
    for i, size in ((0, 4), (1, 6)):
        mine = rows[data.label[rows[:, 0]] == i]
        kinds, seen = torch.unique(mine, dim=0, return_counts=True)
        cells = 1
        for j in range(k):
            cells *= size - j
        assert len(kinds) == cells
        expected = len(mine) / cells
        assert float(((seen.double() - expected) ** 2 / expected).sum()) < chi2.ppf(1 - 1e-6, cells - 1)


def test_strangers_are_two_identities(generator: torch.Generator) -> None:
    data = People()
    rows = identities(data, "train").strangers(40_000, generator)
    pair = data.label[rows]
    assert bool((pair[:, 0] != pair[:, 1]).all())
    seen = torch.bincount(pair[:, 0] * 6 + pair[:, 1], minlength=36).double().view(6, 6)
    expected = 40_000 / 30
    off = seen[~torch.eye(6, dtype=torch.bool)]
    assert float(((off - expected) ** 2 / expected).sum()) < chi2.ppf(1 - 1e-6, 29)
    with pytest.raises(UsageError, match="single identity"):
        identities(People((4,)), "train").strangers(3, generator)


def test_identities_of_too_few_images_are_left_out(capsys) -> None:
    known = identities(People((1, 4, 1, 3)), "train")
    assert known.label.tolist() == [1, 3]
    assert known.count.tolist() == [4, 3]
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 4 identities" in said
    assert "0, 2" in said
    with pytest.raises(UsageError, match="fewer than 5"):
        identities(People((1, 4)), "train", 5)


def test_a_step_reads_tuples_and_over_several_devices_one_global_batch() -> None:
    data, model = People(), make(SDDCGAN, 0)
    whole = model.collect(Source(data, 6, torch.Generator().manual_seed(4)))["x"]
    assert whole.shape == (6, 2, 3, 16, 16)
    parts = [model.collect(Source(data, 3, torch.Generator().manual_seed(4), rank=r, world=2))["x"] for r in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)
    assert make(DCGAN, 0).collect(Source(data, 6, torch.Generator().manual_seed(4)))["x"].shape == (6, 1, 3, 16, 16)


def test_codes_share_the_identity_alone() -> None:
    model = make(SDDCGAN, 0, tuple_k=3)
    z = model.codes(a_step(torch.zeros(1), 9), 5000)
    assert z.shape == (5000, 3, 5)
    assert torch.equal(z[:, 0, :3], z[:, 1, :3])
    assert torch.equal(z[:, 0, :3], z[:, 2, :3])
    assert bool((z[:, 0, 3:] != z[:, 1, 3:]).all())
    assert float(z.min()) >= -1
    assert float(z.max()) <= 1
    # Uniform on [-1, 1]: variance 1/3, and everything but the shared part is independent.
    flat = torch.cat([z[:, 0], z[:, 1, 3:], z[:, 2, 3:]], 1)
    assert torch.allclose(torch.cov(flat.T), torch.eye(9) / 3, atol=5 / 5000**0.5)
    plain = make(DCGAN, 0).codes(a_step(torch.zeros(1), 9), 4)
    assert plain.shape == (4, 1, 5)


# Losses


def test_dcgan_losses_are_those_of_equation_2(double: None, seed: int) -> None:
    model = make(SDDCGAN, seed)
    x = torch.rand(4, 2, 3, 16, 16)
    step, twin = a_step(x, seed), a_step(x, seed)
    loss = model.discriminate(step)
    made = model.generator(model.codes(twin, 4))
    real_score, fake_score = (dc_by_hand(model.discriminator, v) for v in (2 * x - 1, made))
    expected = -0.5 * (torch.sigmoid(real_score).log().mean() + (1 - torch.sigmoid(fake_score)).log().mean())
    assert torch.allclose(loss, expected, atol=1e-10)
    fool = model.generate(step)  # codes of its own: the generator goes on
    again = model.generator(model.codes(twin, 4))
    assert torch.allclose(fool, -torch.sigmoid(dc_by_hand(model.discriminator, again)).log().mean(), atol=1e-10)
    assert not torch.equal(made, again)


def test_least_squares_and_wasserstein(double: None, seed: int) -> None:
    x = torch.rand(4, 2, 3, 16, 16)
    model = make(SDDCGAN, seed, loss="least-squares")
    step, twin = a_step(x, seed), a_step(x, seed)
    made = model.generator(model.codes(twin, 4))
    on_real, on_made = (dc_by_hand(model.discriminator, v) for v in (2 * x - 1, made))
    assert torch.allclose(model.discriminate(step), 0.5 * ((on_real - 1) ** 2).mean() + 0.5 * (on_made**2).mean())
    model = make(SDDCGAN, seed, loss="wgan-gp")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.discriminator.modules())
    step, twin = a_step(x, seed), a_step(x, seed)
    made, real = model.generator(model.codes(twin, 4)).detach(), 2 * x - 1
    share = twin.rand(4).view(-1, 1, 1, 1, 1)
    between = (share * real + (1 - share) * made).requires_grad_()
    d, norms = model.discriminator, []
    for i in range(4):  # each tuple by itself: the norm is over both of its images
        (slope,) = torch.autograd.grad(d(between[i : i + 1]).sum(), between)
        norms.append(slope[i].square().sum().sqrt())
    expected = d(made).mean() - d(real).mean() + 10 * ((torch.stack(norms) - 1) ** 2).mean()
    assert torch.allclose(model.discriminate(step), expected, atol=1e-8)
    assert torch.allclose(model.generate(step), -d(model.generator(model.codes(twin, 4))).mean(), atol=1e-10)
    assert model.objectives()[0].updates == 5


def test_real_and_made_are_normalised_apart(double: None, seed: int) -> None:
    model = make(SDDCGAN, seed)
    batches: list[int] = []
    model.discriminator.encoder.register_forward_pre_hook(lambda module, given: batches.append(len(given[0])))
    model.discriminate(a_step(torch.rand(4, 2, 3, 16, 16), seed))
    assert batches == [8, 8]


@pytest.mark.parametrize("cls", [SDBEGAN, BEGAN])
def test_began_losses_and_balance(double: None, seed: int, cls: type[PairGAN]) -> None:
    model = make(cls, seed, gamma=0.7, rate=0.5)
    model.balance.fill_(0.3)
    x = torch.rand(4, model.k, 3, 16, 16)
    step, twin = a_step(x, seed), a_step(x, seed)
    loss, fool = model.discriminate(step), model.generate(step)
    made, real = model.generator(model.codes(twin, 4)), 2 * x - 1

    def error(v: Tensor) -> Tensor:
        return (model.discriminator(v) - v).abs().sum() / v.numel()

    assert torch.allclose(loss, error(real) - 0.3 * error(made), atol=1e-12)
    assert torch.allclose(fool, error(made), atol=1e-12)
    wanted = min(1.0, max(0.0, 0.3 + 0.5 * float(0.7 * error(real) - error(made))))
    assert float(model.balance) == pytest.approx(wanted, abs=1e-12)


def test_both_gradients_come_before_either_step(double: None, seed: int) -> None:
    """One step of the trainer equals: both gradients at the old parameters, then Adam on either side."""
    model = make(SDBEGAN, seed, rate=0.5)
    model.balance.fill_(0.4)
    run = trainer(model, seed)
    old = {name: value.detach().clone() for name, value in model.state_dict().items()}
    twin = make(SDBEGAN, seed, rate=0.5)
    twin.load_state_dict(old)
    draw = seeded(stream(seed, "training"), CPU)
    x = twin.collect(Source(run.dataset, 3, draw))["x"]
    step = a_step(x, 0)
    step.generator = draw
    real, made = 2 * x - 1, twin.generator(twin.codes(step, 3))
    on_real = (twin.discriminator(real) - real).abs().mean()
    detached = made.detach()
    on_made = (twin.discriminator(detached) - detached).abs().mean()
    critic = list(twin.discriminator.parameters())
    slopes = torch.autograd.grad(on_real - 0.4 * on_made, critic)
    # Both occurrences: what is rebuilt moves with the generator as well as what is read.
    twice = (twin.discriminator(made) - made).abs().mean()
    once = torch.autograd.grad(twice, list(twin.generator.parameters()), retain_graph=True)
    half = torch.autograd.grad(
        (twin.discriminator(made) - detached).abs().mean(), list(twin.generator.parameters()), retain_graph=True
    )
    assert any(float((a - b).abs().max()) > 1e-6 for a, b in zip(once, half, strict=True))
    run.step()
    lr = 8e-5
    for parameter, before, slope in (
        *zip(model.discriminator.parameters(), critic, slopes, strict=True),
        *zip(model.generator.parameters(), twin.generator.parameters(), once, strict=True),
    ):
        # Adam's first step is lr * g / (|g| + eps).
        expected = before.detach() - lr * slope / (slope.abs() + 1e-8)
        assert torch.allclose(parameter, expected, atol=lr * 1e-3)
    balance = min(1.0, max(0.0, 0.4 + 0.5 * float(0.5 * on_real - on_made)))
    assert float(model.balance) == pytest.approx(balance, abs=1e-6)


def test_balance_follows_its_recursion_and_stays_in_bounds(double: None, seed: int) -> None:
    model = make(SDBEGAN, seed, gamma=0.5, rate=2.0)
    k, seen = 0.0, set()
    draw = torch.Generator().manual_seed(seed)
    for real, made in torch.rand(40, 2, generator=draw).tolist():
        step = a_step(torch.zeros(1), 0)
        step.memo["errors"] = torch.tensor(real), torch.tensor(made)
        model.generate(step)
        k = min(1.0, max(0.0, k + 2.0 * (0.5 * real - made)))
        seen.add(k)
        assert float(model.balance) == pytest.approx(k, abs=1e-12)
    assert 0.0 in seen
    for _ in range(9):
        step = a_step(torch.zeros(1), 0)
        step.memo["errors"] = torch.tensor(1.0), torch.tensor(0.0)
        model.generate(step)
    assert float(model.balance) == 1.0


def test_an_autoencoder_that_copies_has_no_error(double: None, seed: int) -> None:
    model = make(SDBEGAN, seed)
    model.discriminator = nn.Identity()
    assert float(model.error(torch.rand(3, 2, 3, 16, 16))) == 0


def test_the_learning_rate_is_halved_down_to_its_floor() -> None:
    model = make(SDBEGAN, 0)
    rates = [model.schedule(step)["lr"] for step in (0, 99_999, 100_000, 200_000, 300_000, 499_999)]
    assert rates == [8e-5, 8e-5, 4e-5, 2e-5, 2e-5, 2e-5]
    assert make(SDBEGAN, 0, halve_every=0).schedule(10**6)["lr"] == 8e-5
    assert make(SDBEGAN, 0, lr=1e-5).schedule(10**6)["lr"] == 1e-5


@pytest.mark.parametrize("cls", [SDDCGAN, SDBEGAN, DCGAN, BEGAN])
def test_each_side_learns_from_its_own_loss(double: None, cls: type[PairGAN], seed: int) -> None:
    model = make(cls, seed)
    for objective in model.objectives():
        own = {id(p) for p in objective.parameters}
        side = model.discriminator if objective.name == "discriminator" else model.generator
        assert own == {id(p) for p in side.parameters()}
    run = trainer(model, seed)
    before = {name: value.clone() for name, value in model.named_parameters()}
    run.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(before)


def test_the_discriminator_of_dcgan_steps_first(double: None, seed: int) -> None:
    model = make(SDDCGAN, seed)
    run, order = trainer(model, seed), []
    for name in ("discriminator", "generator"):
        optimizer = run.optimizers[name]
        kept = optimizer.step
        optimizer.step = lambda kept=kept, name=name: (order.append(name), kept())[1]
    run.step()
    assert order == ["discriminator", "generator"]
    betas = [group["betas"] for o in run.optimizers.values() for group in o.param_groups]
    assert betas == [(0.5, 0.999)] * 2


# The trained model


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_pictures_are_in_the_range_of_the_data(low: float, generator: torch.Generator) -> None:
    spec = DataSpec("image", (3, 16, 16), (low, 1.0))
    model = make(SDBEGAN, 0, spec).float().eval()
    assert float(model.signed(torch.tensor(low))) == -1
    assert float(model.signed(torch.tensor(1.0))) == 1
    for p in model.generator.parameters():
        p.data.mul_(3)
    code = model.prior(64, generator)
    assert set(code) == {"identity", "observation"}
    free, shown = model.images(code), model.decode(code)
    assert float(free.detach().min()) < low  # linear at its end, it leaves the range; what is shown does not
    assert torch.equal(shown, free.clamp(low, 1))
    z = torch.cat([code["identity"], code["observation"]], 1)
    assert torch.allclose(model.signed(free), model.generator(z), atol=1e-5)


def test_several_processes_cannot_share_a_balance() -> None:
    with pytest.raises(UsageError, match="one process"):
        make(BEGAN, 0).collect(Source(People(), 2, torch.Generator(), world=2))


def test_presets_are_the_papers_numbers() -> None:
    for cls, lr in ((SDDCGAN, 2e-4), (SDBEGAN, 8e-5)):
        config, train = cls.Config(), cls.presets["paper"]["train"]
        assert (config.identity, config.observation, config.tuple_k, config.lr) == (50, 50, 2, lr)  # section 3
        assert (train["steps"], train["batch"]) == (500_000, 16)  # section 3
    assert DCGAN.Config().z == BEGAN.Config().z == 100
    assert (SDDCGAN.Config().width, SDBEGAN.Config().width, SDBEGAN.Config().gamma) == (64, 128, 0.5)
