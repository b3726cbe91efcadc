"""CascadeVAE: the formulas of the paper against independent computations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distk import DataSpec, UsageError
from distk.device import Ranks, seeded
from distk.nn import bernoulli_nll, gaussian_kl
from distk.settings import resolve
from distk.training.beginning import build


def trainer(**model):
    options = {
        "model": {"z": 4, "beta_l": 1.0, "hidden": 16, "relieve_every": 2, "warmup": 0, **model},
        "data": {"size": 32, "scales": [5], "orientations": 1, "positions": 8},
        "train": {"batch": 16, "device": "cpu"},
    }
    return build(resolve("cascadevae", preset="demo", options=options), torch.device("cpu"), Ranks())


PAPER = {0: 1, 19_999: 1, 20_000: 2, 79_999: 4, 80_000: 4, 99_999: 4, 100_000: 5, 120_000: 6, 299_999: 6}


def test_relief_table_with_the_published_settings() -> None:
    settings = resolve("cascadevae")
    model = settings.method(settings.model, _spec())
    assert {step: model.relieved(step) for step in PAPER} == PAPER
    assert model.schedule(79_999)["beta"] == [1.0] * 4 + [10.0] * 2
    assert [model.phase(s) for s in (0, 79_999, 80_000)] == [False, False, True]
    continuous = resolve("cascadevae-c")
    model = continuous.method(continuous.model, _spec())
    assert [model.relieved(s) for s in (0, 19_999, 20_000, 80_000, 100_000, 10**6)] == [1, 1, 2, 5, 6, 6]


def test_beta_l_defaults() -> None:
    assert [resolve("cascadevae", options={"model": {"z": z}}).model.low for z in (4, 6)] == [2.0, 1.0]
    assert resolve("cascadevae", options={"model": {"z": 4, "beta_l": 0.5}}).model.low == 0.5


def _spec():
    from distk import DataSpec

    return DataSpec("image", (1, 64, 64))


def test_sizes_of_the_published_networks() -> None:
    settings = resolve("cascadevae")
    model = settings.method(settings.model, _spec())
    encoder = 32 * 17 + 32 * (32 * 16 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 16 + 1) + 256 * 1025 + 12 * 257
    decoder = 256 * 10 + 1024 * 257 + 64 * 64 * 16 + 64 + 64 * 32 * 16 + 32 + 32 * 32 * 16 + 32 + 32 * 16 + 1
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder
    assert model.decode(model.prior(2, seeded(0, torch.device("cpu")))).shape == (2, 1, 64, 64)


def test_initialisation_has_the_stated_variance() -> None:
    settings = resolve("cascadevae")
    torch.manual_seed(0)
    model = settings.method(settings.model, _spec())
    conv = model.encoder.body[6].weight  # 64 x 64 x 4 x 4
    assert float(conv.detach().var()) == pytest.approx(2 / (64 * 16), rel=0.05)
    linear = model.decoder.rest[1].weight  # 1024 x 256
    assert float(linear.detach().var()) == pytest.approx(2 / (1024 + 256), rel=0.05)
    assert all(float(p.detach().abs().max()) == 0 for n, p in model.named_parameters() if n.endswith("bias"))


@pytest.mark.parametrize("pair_cost", [0.001, 5.0])  # at the second the classes are forced to be of one size
def test_loss_against_a_plain_computation(pair_cost, seed) -> None:
    """float64, the decoder run S times in full, torch.distributions for the KL, the same noise."""
    t = trainer(beta_l=1.5, beta_h=7.0, relieve_every=1000, warmup=0, pair_cost=pair_cost)
    t._set_schedule(t.model.schedule(0))
    x = t.dataset.sample(16, seeded(seed, t.device))["x"]
    captured = {}
    step = _step(t, x, seed, captured)
    loss = t.model.elbo(step)

    model = t.model.double()
    x = x.double()
    noise = torch.randn(16, 4, generator=seeded(seed, t.device)).double()
    mean, std = model.encoder(x)
    z = mean + std * noise
    every = torch.stack(
        [model.decoder(torch.cat([z, F.one_hot(torch.full((16,), k), 3).double()], 1)) for k in range(3)], 1
    )
    cost = F.binary_cross_entropy(every.sigmoid(), x[:, None].expand_as(every), reduction="none").flatten(2).sum(2)
    best = _brute_force_by_exchange(cost, pair_cost)
    reconstruction = cost.gather(1, best[:, None]).mean()
    q, p = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(q, p).mean(0)
    beta = torch.tensor([1.5, 7.0, 7.0, 7.0])
    expected = reconstruction + (beta * kl).sum()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    # The unary term of the chosen class IS the training reconstruction: same z, same noise in both passes.
    assert float(captured["reconstruction"]) == pytest.approx(float(reconstruction), rel=1e-4)


def _step(t, x, seed, captured):
    from distk.method import Step

    step = Step(
        index=t.counter,
        schedule=t._schedule,
        phase=True,
        generator=seeded(seed, t.device),
        log=lambda name, value: captured.__setitem__(name, value.detach()),
    )
    step.batch = {"x": x}
    return step


def _brute_force_by_exchange(cost: torch.Tensor, pair_cost: float) -> torch.Tensor:
    """scipy's assignment over n slots per class, the k-th slot costing (k - 1) L more."""
    from scipy.optimize import linear_sum_assignment

    n, classes = cost.shape
    slots = cost.detach()[:, :, None] + pair_cost * torch.arange(n)
    _, column = linear_sum_assignment(slots.reshape(n, classes * n).numpy())
    return torch.tensor(column // n)


def test_per_class_decoding_is_the_decoder_run_per_class(seed) -> None:
    model = trainer().model.double()
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)).double()
    fast = model.decoder.per_class(z, 3)
    for k in range(3):
        slow = model.decoder(torch.cat([z, F.one_hot(torch.full((5,), k), 3).double()], 1))
        assert torch.allclose(fast[:, k], slow, atol=1e-12)


def test_no_gradient_through_the_discrete_code_and_zero_in_warm_up(seed) -> None:
    t = trainer(warmup=2, relieve_every=2)
    x = t.dataset.sample(16, seeded(seed, t.device))["x"]
    t._set_schedule(t.model.schedule(0))
    step = _step(t, x, seed, {})
    step.phase = False
    z = torch.zeros(16, 4)
    assert torch.equal(t.model.discrete(step, z, x), torch.zeros(16, 3))
    assert float(t.model.started) == 0
    assert torch.equal(t.model.encode(x)["d"], torch.zeros(16, 3))
    step.phase = True
    d = t.model.discrete(step, z.requires_grad_(), x)
    assert not d.requires_grad
    assert torch.equal(d.sum(1), torch.ones(16))
    assert float(t.model.started) == 1


def test_codes_are_argmin_of_the_cost_at_the_mean(seed) -> None:
    t = trainer()
    t.step()
    x = t.dataset.sample(9, seeded(seed, t.device))["x"]
    code = t.model.encode(x)
    logits = torch.stack(
        [t.model.decoder(torch.cat([code["z"], F.one_hot(torch.full((9,), k), 3).float()], 1)) for k in range(3)], 1
    )
    cost = torch.stack([bernoulli_nll(logits[:, k], x) for k in range(3)], 1)
    assert torch.equal(code["d"].argmax(1), cost.argmin(1))
    # One by one or together: the class does not depend on the batch.
    alone = torch.cat([t.model.encode(x[i : i + 1])["d"] for i in range(9)])
    assert torch.equal(alone, code["d"])


def test_adam_restarts_when_a_dimension_is_relieved_and_not_when_d_starts() -> None:
    """Relief every 2 steps, warm-up 4: r = 1 1 2 2 | 2 2 3 3 4; d starts at step 4, where r stays 2."""
    t = trainer(warmup=4, relieve_every=2)
    counts = []
    for _ in range(9):
        t.step()
        counts.append(int(next(iter(t.optimizers["loss"].state.values()))["step"]))
    assert [t.model.relieved(s) for s in range(9)] == [1, 1, 2, 2, 2, 2, 3, 3, 4]
    assert counts == [1, 2, 1, 2, 3, 4, 1, 2, 1]
    never = trainer(warmup=4, relieve_every=2, adam_reset="never")
    for _ in range(9):
        never.step()
    assert int(next(iter(never.optimizers["loss"].state.values()))["step"]) == 9


def test_kl_and_likelihood_formulas(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.randn(50, generator=generator).double(), torch.rand(50, generator=generator).double() + 0.1
    q, p = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    assert torch.allclose(gaussian_kl(mean, std), torch.distributions.kl_divergence(q, p), atol=1e-12)
    logits, x = (
        torch.randn(4, 1, 3, 3, generator=generator).double(),
        torch.rand(4, 1, 3, 3, generator=generator).double(),
    )
    slow = -(x * logits.sigmoid().log() + (1 - x) * (1 - logits.sigmoid()).log()).sum((1, 2, 3))
    assert torch.allclose(bernoulli_nll(logits, x), slow, atol=1e-10)


def test_cascade_identity_in_a_linear_gaussian_model(seed) -> None:
    """x = A z + noise, q(z_i | x) independent given x: the identities behind the cascade, by log-determinants.

    TC(z) = sum_i>=2 I(z_1..i-1; z_i), and I(x; z_1..i) = I(x; z_1..i-1) + I(x; z_i) - I(z_1..i-1; z_i).
    """
    generator = torch.Generator().manual_seed(seed)
    m, p = 4, 6
    w = torch.randn(m, p, generator=generator, dtype=torch.float64)
    noise = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    cov_x = torch.randn(p, p, generator=generator, dtype=torch.float64)
    cov_x = cov_x @ cov_x.T + torch.eye(p)
    cov_z = w @ cov_x @ w.T + torch.diag(noise)
    joint = torch.cat([torch.cat([cov_z, w @ cov_x], 1), torch.cat([cov_x @ w.T, cov_x], 1)], 0)

    def entropy(index) -> float:
        block = joint[index][:, index]
        return 0.5 * float(torch.linalg.slogdet(2 * math.pi * math.e * block)[1])

    def mutual(a, b) -> float:
        return entropy(a) + entropy(b) - entropy(a + b)

    x = list(range(m, m + p))
    total_correlation = sum(entropy([i]) for i in range(m)) - entropy(list(range(m)))
    assert total_correlation == pytest.approx(sum(mutual(list(range(i)), [i]) for i in range(1, m)), abs=1e-10)
    for i in range(1, m):
        before = list(range(i))
        left = mutual(x, [*before, i])
        assert left == pytest.approx(mutual(x, before) + mutual(x, [i]) - mutual(before, [i]), abs=1e-10)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"warmup": 30_000}, "multiple of relieve-every"),
        ({"classes": 1}, "below the smallest allowed value 2"),
        ({"z": 0}, "below the smallest allowed value 1"),
        ({"pair_cost": -1}, "below the smallest allowed value 0"),
        ({"pair_cost": 1e-6}, "grid of 1e-4"),
    ],
)
def test_settings_out_of_range(model, message) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("cascadevae", options={"model": model})


def test_beta_l_above_beta_h_is_warned_about(capsys) -> None:
    resolve("cascadevae", options={"model": {"beta_l": 30.5}})
    assert "beta_l 30.5 is above beta_h" in capsys.readouterr().err


def test_images_that_are_too_small_are_refused() -> None:
    settings = resolve("cascadevae")
    with pytest.raises(ValueError, match="8x8 pixels or more, not 4x4"):
        settings.method(settings.model, DataSpec("image", (1, 4, 4)))
