"""FactorVAE: its two losses, the permutation and the density ratio against independent computations."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Dataset, DataSpec, Files, NoConfig, UsageError
from distk.device import Ranks, seeded
from distk.method import Step
from distk.plugins.vae_family.factorvae.method import FactorVAE, permute_dims
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

CPU = torch.device("cpu")


class Vectors(Dataset):
    """Given vectors `[n, d]` as a data set."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(NoConfig(), CPU, Files("vectors", None, ""))
        self.x, self.name, self.origin = x, "vectors", "made by the test"
        self.spec = DataSpec("vector", tuple(x.shape[1:]), (-100.0, 100.0))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}


SMALL = {
    "z": 3,
    "arch": "mlp",
    "likelihood": "gaussian",
    "lr": 1e-3,
    "critic_width": 16,
    "critic_layers": 2,
    "critic_updates": 3,
    "gamma": 7.0,
}
TOGETHER = {"order": "simultaneous", "critic_updates": 1, "critic_data": "shared"}


def trainer(seed: int = 0, batch: int = 32, items: int = 256, **model) -> Trainer:
    settings = resolve("factorvae", options={"model": {**SMALL, **model}, "train": {"batch": batch, "device": "cpu"}})
    x = torch.randn(items, 5, generator=torch.Generator().manual_seed(seed))
    return build(settings, CPU, Ranks(), Vectors(x))


def a_step(t: Trainer, seed: int, batch: dict[str, Tensor] | None = None) -> Step:
    step = Step(index=t.counter, schedule={}, phase=None, generator=seeded(seed, CPU), log=lambda name, value: None)
    step.batch = batch or {}
    return step


# The permutation


def test_permuting_keeps_every_column_and_destroys_dependence(seed, generator) -> None:
    n, d = 4096, 5
    z = torch.randn(n, 1, generator=generator) * torch.linspace(1, 2, d) + torch.arange(d)
    permuted = permute_dims(z, torch.rand(n, d, generator=generator))
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    assert float(torch.corrcoef(z.T).min()) > 0.999
    correlation = torch.corrcoef(permuted.T) - torch.eye(d)
    # A correlation of independent columns is N(0, 1/n): 6 of its standard deviations.
    assert float(correlation.abs().max()) < 6 / math.sqrt(n)
    # A pair of columns stays together in one row of n on average (Poisson): 30 are out of reach.
    kept = (permuted[:, 0] - permuted[:, 1] / 1.25 + 0.8).abs() < 1e-5
    assert int(kept.sum()) < 30


def test_two_rows_are_permuted_both_ways(generator) -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    seen = {tuple(permute_dims(z, torch.rand(2, 2, generator=generator)).flatten().tolist()) for _ in range(200)}
    assert len(seen) == 4  # each is missed with probability (3/4)^200


# The losses


def test_loss_of_the_autoencoder_against_a_plain_computation(seed) -> None:
    t = trainer(seed)
    x = t.dataset.x[:32]
    loss = t.model.vae(a_step(t, seed, {"x": x}))
    model, x = t.model.double(), x.double()
    mean, logvar = model.encoder(x).chunk(2, 1)
    std = logvar.mul(0.5).exp()
    z = mean + std * torch.randn(32, 3, generator=seeded(seed, CPU)).double()
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0))
    p = model.critic(z).softmax(1)[:, 0]  # class 0: a joint sample
    tc = (p / (1 - p)).log().mean()  # eq. 5
    terms = [float(term.detach()) for term in (((model.decoder(z) - x) ** 2).sum(1).mean(), kl.sum(1).mean(), 7.0 * tc)]
    wide = 1e-5 * sum(map(abs, terms))  # of their rounding: they may cancel
    assert float(loss.detach()) == pytest.approx(sum(terms), rel=0, abs=wide)


def test_loss_of_the_critic_is_the_cross_entropy_of_two_classes(seed, generator) -> None:
    t = trainer(seed)
    joint, other = torch.randn(2, 32, 3, generator=generator)
    step = a_step(t, seed)
    step.memo["codes"] = [other, joint]  # taken from the end
    loss = t.model.critic_loss(step)
    permuted = permute_dims(other, torch.rand(32, 3, generator=seeded(seed, CPU)))
    classes = torch.tensor([0] * 32 + [1] * 32)
    expected = F.cross_entropy(t.model.critic(torch.cat([joint, permuted])), classes)  # mean over both: half of each
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("model", [{}, {"critic_data": "shared"}, TOGETHER])
def test_no_loss_reaches_the_other_side(seed, model) -> None:
    t = trainer(seed, **model)
    m = t.model
    step = a_step(t, seed, {"x": t.dataset.x[:32], "critic": t.dataset.x[: 32 * 6 if not model else 32]})
    m.vae(step)
    loss = m.critic_loss(step)
    own = [*m.encoder.parameters(), *m.decoder.parameters()]
    assert all(g is None for g in torch.autograd.grad(loss, own, allow_unused=True, retain_graph=True))
    assert all(g is not None for g in torch.autograd.grad(loss, list(m.critic.parameters())))
    # The trainer hands the critic no gradient of the autoencoder's loss: after the first stage it is as it was.
    t = trainer(seed, **{**model, **({"critic_updates": 1} if not model else {})})
    before = copy.deepcopy(t.model.critic.state_dict())
    t.stages = t.stages[:1]
    if "order" not in model:
        t.objectives = t.stages[0]
        t.step()
        assert all(torch.equal(v, before[k]) for k, v in t.model.critic.state_dict().items())
        assert all(p.grad is None for p in t.model.critic.parameters())


def test_simultaneous_takes_both_gradients_before_either_steps(seed) -> None:
    t = trainer(seed, **TOGETHER)
    for _ in range(3):
        t.step()
    before, state = copy.deepcopy(t.model), t.generator.get_state()
    t.step()
    generator = torch.Generator()
    generator.set_state(state)
    x, other = (t.dataset.x[torch.randint(256, (32,), generator=generator)] for _ in range(2))
    mean, logvar = before.encoder(x).chunk(2, 1)
    z = mean + (0.5 * logvar).exp() * torch.randn(32, 3, generator=generator)
    kl = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(1).mean()
    ratio = before.critic(z)[:, 0] - before.critic(z)[:, 1]
    loss = ((before.decoder(z) - x) ** 2).sum(1).mean() + kl + 7.0 * ratio.mean()
    with torch.no_grad():
        mean, logvar = before.encoder(other).chunk(2, 1)
        z_other = mean + (0.5 * logvar).exp() * torch.randn(32, 3, generator=generator)
    order = torch.rand(32, 3, generator=generator).argsort(0)
    permuted = torch.stack([z_other[order[:, j], j] for j in range(3)], 1)
    inputs = torch.cat([z.detach(), permuted])
    critic = F.cross_entropy(before.critic(inputs), torch.tensor([0] * 32 + [1] * 32))
    for part, value in (("encoder", loss), ("decoder", loss), ("critic", critic)):
        own = list(getattr(before, part).parameters())
        wanted = torch.autograd.grad(value, own, retain_graph=True)
        for p, g in zip(getattr(t.model, part).parameters(), wanted, strict=True):
            assert torch.allclose(p.grad, g, rtol=1e-3, atol=1e-5), part


def test_what_the_critic_sees(seed) -> None:
    """fresh: two new batches per update, encoded in one pass after the encoder's step; shared: the step's own codes."""
    for model, rows in (({}, [32, 32 * 6]), ({"critic_data": "shared"}, [32, 32])):
        t = trainer(seed, **model)
        passes: list[int] = []
        seen: list[Tensor] = []
        t.model.encoder.register_forward_hook(lambda module, args, output, to=passes: to.append(len(args[0])))
        t.model.critic.register_forward_hook(lambda module, args, output, to=seen: to.append(args[0].detach().clone()))
        t.step()
        assert passes == rows
        assert [len(z) for z in seen] == [32, 64, 64, 64]  # total correlation, then three updates
        joint = [z[:32] for z in seen[1:]]
        if model:
            assert all(torch.equal(z, seen[0]) for z in joint)
            assert not torch.equal(seen[1][32:], seen[2][32:])  # permuted anew
        else:
            assert len({float(z.sum()) for z in [seen[0], *joint]}) == 4
        assert int(t.optimizers["critic"].state_dict()["state"][0]["step"]) == 3
        assert int(t.optimizers["vae"].state_dict()["state"][0]["step"]) == 1


# The density ratio


class Exact(nn.Module):
    """The optimal critic of codes N(0, cov): its logits are log q(z) and the sum of log q(z_j)."""

    def __init__(self, cov: Tensor) -> None:
        super().__init__()
        self.joint = torch.distributions.MultivariateNormal(torch.zeros(len(cov)).double(), cov)
        self.margins = torch.distributions.Normal(0.0, cov.diagonal().sqrt())

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([self.joint.log_prob(z), self.margins.log_prob(z).sum(1)], 1)


def test_gradient_of_the_estimate_is_that_of_the_total_correlation(seed, generator) -> None:
    """z = W x of exactly white x: the optimal critic is quadratic, so its mean over x and its gradient are exact."""
    x = torch.randn(64, 4, generator=generator).double()
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T, correction=0))).T
    w = torch.randn(3, 4, generator=generator).double().requires_grad_()

    def total_correlation(w: Tensor) -> Tensor:
        cov = w @ w.T
        return 0.5 * (cov.diagonal().log().sum() - torch.logdet(cov))

    t = trainer(seed)
    t.model.critic = Exact((w @ w.T).detach())
    estimate = t.model.total_correlation(x @ w.T)
    truth = total_correlation(w)
    assert float(estimate.detach()) == pytest.approx(float(truth.detach()), rel=1e-4)
    (by_critic,), (exact,) = torch.autograd.grad(estimate, w), torch.autograd.grad(truth, w)
    assert torch.allclose(by_critic, exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))
    # The sign: a small step of the penalty alone lowers the total correlation.
    with torch.no_grad():
        assert float(total_correlation(w - 1e-4 * by_critic / by_critic.norm())) < float(truth.detach())


@pytest.mark.parametrize(("rho", "low", "high"), [(0.8, 0.43, 0.59), (0.0, -0.03, 0.03)])
def test_the_critic_learns_the_total_correlation_of_a_gaussian(rho, low, high) -> None:
    """-0.5 ln(1 - rho^2) = 0.5108 nats for rho = 0.8; the bounds are 0.08 and 0.03 around the truth.

    Measured (seeds 0, 1, 2): 0.506, 0.496, 0.508 and 0.005, 0.004, 0.002.
    """
    t = trainer(0, z=2, critic_width=64, critic_layers=3, critic_lr=1e-3)
    model, generator = t.model, seeded(0, CPU)
    assert isinstance(model, FactorVAE)
    mix = torch.linalg.cholesky(torch.tensor([[1.0, rho], [rho, 1.0]])).T
    optimizer = torch.optim.Adam(model.critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
    step = a_step(t, 1)
    for k in range(800):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - k / 800)  # else the last batches decide
        step.memo["codes"] = [torch.randn(512, 2, generator=generator) @ mix for _ in range(2)]
        optimizer.zero_grad()
        model.critic_loss(step).backward()
        optimizer.step()
    with torch.no_grad():
        found = float(model.total_correlation(torch.randn(50_000, 2, generator=generator) @ mix))
    print(f"estimate {found:.4f} for rho {rho}")
    assert low < found < high


# Networks and settings


def test_sizes_and_initialisation_of_the_published_networks() -> None:
    spec = DataSpec("image", (1, 64, 64))
    settings = resolve("factorvae")
    torch.manual_seed(0)
    model = settings.method(settings.model, spec)
    encoder = 32 * 17 + 32 * (32 * 16 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 16 + 1) + 128 * 1025 + 20 * 129
    decoder = 128 * 11 + 1024 * 129 + 64 * (64 * 16 + 1) + 32 * (64 * 16 + 1) + 32 * (32 * 16 + 1) + 32 * 16 + 1
    critic = 1000 * 11 + 5 * 1000 * 1001 + 2 * 1001
    for part, size in (("encoder", encoder), ("decoder", decoder), ("critic", critic)):
        assert sum(p.numel() for p in getattr(model, part).parameters()) == size
    assert float(model.critic[4].weight.detach().var()) == pytest.approx(2 / 1.04 / 1000, rel=0.02)
    deconvolution = next(m for m in model.decoder if isinstance(m, nn.ConvTranspose2d))

    torch.manual_seed(0)
    settings = resolve("factorvae", options={"model": {"init": "normal02"}})
    other = settings.method(settings.model, spec)
    for layer in (other.critic[4], other.encoder[2]):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert float(layer.bias.detach().abs().max()) == 0
    untouched = next(m for m in other.decoder if isinstance(m, nn.ConvTranspose2d))
    assert float(untouched.weight.detach().std()) == pytest.approx(float(deconvolution.weight.detach().std()), rel=0.05)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"z": 1}, "total correlation of one dimension is zero; factorvae needs --z 2"),
        ({"critic_updates": 0}, "below the smallest allowed value 1"),
        ({"gamma": -1}, "below the smallest allowed value 0"),
        ({"order": "simultaneous"}, "add --critic-updates 1 --critic-data shared"),
    ],
)
def test_settings_out_of_range(model, message) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("factorvae", options={"model": model})


def test_batches_that_are_too_small(capsys) -> None:
    with pytest.raises(UsageError, match="use --batch 2"):
        trainer(batch=1).step()
    trainer(batch=31).step()
    assert "batch 31 is small" in capsys.readouterr().err
    trainer(batch=40, items=79).step()
    assert "79 items cannot fill two batches of 40" in capsys.readouterr().err


def test_presets_are_settings_that_hold() -> None:
    for preset in FactorVAE.presets:
        assert resolve("factor-vae", preset=preset).entry.name == "factorvae"
    assert resolve("fvae", preset="icml").model.critic_updates == 1


def test_the_critic_stays_exact_enough_in_half_precision(seed) -> None:
    settings = resolve(
        "factorvae", options={"model": SMALL, "train": {"batch": 32, "precision": "bf16", "device": "cpu"}}
    )
    t = build(settings, CPU, Ranks(), Vectors(torch.randn(256, 5, generator=seeded(seed, CPU))))
    for _ in range(2):
        t.step()
    assert set(t.drain()) >= {"vae", "critic", "tc"}
    with torch.autocast("cpu", torch.bfloat16):
        assert t.model.log_ratio(torch.zeros(4, 3)).dtype == torch.float32
