"""DIP-VAE: the penalty, its gradient and the running covariance against numpy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import DataSpec, UsageError, checkpoint
from distk.config import from_dict
from distk.device import Ranks, seeded
from distk.method import Step
from distk.plugins.vae_family.dipvae.method import DIPVAE, DIPVAEII, Config, deviations
from distk.settings import resolve
from distk.training.beginning import build

CPU = torch.device("cpu")
VARIANTS = pytest.mark.parametrize("variant", ["i", "ii"])


def model(z: int = 4, **options) -> DIPVAE:
    """In float64, on vectors of 5."""
    values = {"z": z, "arch": "mlp", "likelihood": "gaussian", **options}
    return DIPVAE(from_dict(Config, values, "the test"), DataSpec("vector", (5,), (-9.0, 9.0))).double()


def posterior(generator: torch.Generator, n: int = 32, z: int = 4) -> tuple[Tensor, Tensor]:
    """Correlated means and log variances `[n, z]` in float64, both with gradients."""
    mix = torch.randn(z, z, generator=generator).double()
    mean = torch.randn(n, z, generator=generator).double() @ mix + torch.randn(z, generator=generator).double()
    logvar = torch.randn(n, z, generator=generator).double() - 1
    return mean.requires_grad_(), logvar.requires_grad_()


def penalty(m: DIPVAE, c: Tensor) -> Tensor:
    apart, scale = deviations(c)
    return m.config.lambda_od * apart + m.config.lambda_d * scale


def slope(c: np.ndarray, od: float, d: float) -> np.ndarray:
    """dR/dC in numpy."""
    return 2 * od * (c - np.diag(np.diag(c))) + 2 * d * np.diag(np.diag(c) - 1)


@VARIANTS
def test_penalty_and_gradient_of_one_batch_against_numpy(variant, generator) -> None:
    m = model(variant=variant, cov="batch", lambda_od=3.0)
    od, d = 3.0, {"i": 30.0, "ii": 3.0}[variant]
    mean, logvar = posterior(generator)
    value = penalty(m, m.covariance(mean, logvar))
    value.backward()
    mu, var = mean.detach().numpy(), logvar.detach().exp().numpy()
    c = np.cov(mu.T, bias=True) + (np.diag(var.mean(0)) if variant == "ii" else 0)
    expected = sum((od if i != j else d) * (c[i, j] - (i == j)) ** 2 for i in range(4) for j in range(4))
    assert float(value.detach()) == pytest.approx(expected, rel=1e-10)
    g = slope(c, od, d)
    assert np.allclose(mean.grad.numpy(), 2 / 32 * (mu - mu.mean(0)) @ g, rtol=1e-9, atol=1e-10)
    if variant == "ii":
        assert np.allclose(logvar.grad.numpy(), var * np.diag(g) / 32, rtol=1e-9, atol=1e-10)
    else:
        assert logvar.grad is None


def test_covariance_of_variant_ii_is_that_of_samples(generator) -> None:
    mean, logvar = (value.detach() for value in posterior(generator, n=8))
    c = model(variant="ii", cov="batch").covariance(mean, logvar)
    drawn = mean + (0.5 * logvar).exp() * torch.randn(125_000, 8, 4, generator=generator)
    empirical = torch.cov(drawn.flatten(0, 1).T)
    scale = torch.outer(c.diagonal(), c.diagonal()).sqrt()
    assert float(((empirical - c) / scale).abs().max()) < 0.01  # 10 standard errors of 10^6 samples


@VARIANTS
def test_running_covariance_is_the_weighted_sum(variant, generator) -> None:
    rho, m = 0.7, model(variant=variant, cov_decay=0.7)
    batches = [posterior(generator) for _ in range(6)]
    for mean, logvar in batches:
        c = m.covariance(mean, logvar).detach().numpy()
    weights = np.array([rho ** (5 - k) for k in range(6)])
    weights = np.repeat(weights / weights.sum() / 32, 32)
    mu = torch.cat([mean for mean, _ in batches]).detach().numpy()
    var = torch.cat([logvar.exp() for _, logvar in batches]).detach().numpy()
    expected = np.cov(mu.T, aweights=weights, ddof=0) + (np.diag(weights @ var) if variant == "ii" else 0)
    assert np.allclose(c, expected, rtol=1e-10, atol=1e-12)
    assert float(m.weight) == pytest.approx(1 - rho**6, rel=1e-12)


@VARIANTS
@pytest.mark.parametrize("grad", ["st", "literal"])
def test_gradient_of_the_running_covariance(variant, grad, generator) -> None:
    """st: R'(C_run) dC_batch. literal: the batch's share of the moments moves, the past stays."""
    rho, m = 0.7, model(variant=variant, cov_decay=0.7, cov_grad=grad, lambda_od=2.0)
    for _ in range(3):
        m.covariance(*posterior(generator))
    mean, logvar = posterior(generator)
    c = m.covariance(mean, logvar)
    penalty(m, c).backward()
    g = slope(c.detach().numpy(), 2.0, m.config.lambda_d)
    mu, var = mean.detach().numpy(), logvar.detach().exp().numpy()
    share = 1.0 if grad == "st" else (1 - rho) / (1 - rho**4)
    centre = mu.mean(0) if grad == "st" else (m.first / m.weight).numpy()
    assert np.allclose(mean.grad.numpy(), share * 2 / 32 * (mu - centre) @ g, rtol=1e-9, atol=1e-10)
    if variant == "ii":
        assert np.allclose(logvar.grad.numpy(), share * var * np.diag(g) / 32, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("unbiased", [False, True])
def test_without_memory_running_equals_batch(unbiased, generator) -> None:
    found = []
    batches = [posterior(generator) for _ in range(3)]
    for options in ({"cov": "batch"}, {"cov_decay": 0.0}, {"cov_decay": 0.0, "cov_grad": "literal"}):
        m = model(variant="ii", unbiased=unbiased, **options)
        for mean, logvar in batches:
            mean.grad = None
            value = penalty(m, m.covariance(mean, logvar))
            value.backward()
        found.append((value.detach(), mean.grad))
    for value, grad in found[1:]:
        assert torch.allclose(value, found[0][0], rtol=1e-10)
        assert torch.allclose(grad, found[0][1], rtol=1e-8, atol=1e-10)


def test_unbiased_covariance(generator) -> None:
    mean, logvar = posterior(generator)
    c = model(cov="batch", unbiased=True).covariance(mean, logvar)
    assert torch.allclose(c, torch.cov(mean.T), rtol=1e-10)
    rho, m = 0.6, model(cov_decay=0.6, unbiased=True)
    batches = [posterior(generator) for _ in range(4)]
    for mean, logvar in batches:
        c = m.covariance(mean, logvar)
    weights = np.repeat([rho ** (3 - k) for k in range(4)], 32)
    mu = torch.cat([mean for mean, _ in batches]).detach().numpy()
    expected = np.cov(mu.T, aweights=weights, ddof=1)
    # numpy's ddof with importance weights: 1 - ddof * sum w^2 / (sum w)^2.
    assert np.allclose(c.detach().numpy(), expected, rtol=1e-10)


def test_noise_of_the_estimates() -> None:
    """Independent codes: E C_ij^2 = (B - 1) / B^2 for one batch; running, (1 - rho) / (1 + rho) of about that."""
    generator = seeded(0, CPU)
    alone, running = model(z=10, cov="batch"), model(z=10, cov_decay=0.9)
    sums = torch.zeros(2)
    for k in range(4_100):
        mean = torch.randn(64, 10, generator=generator).double()
        both = [deviations(m.covariance(mean, mean))[0] for m in (alone, running)]
        if k >= 100:
            sums += torch.stack(both) / 90
    one, smoothed = (sums / 4_000).tolist()
    assert one == pytest.approx(1 / 64, rel=0.03)
    assert smoothed == pytest.approx(1 / 64 / 19, rel=0.06)


def test_penalty_is_symmetric_and_vanishes_at_the_identity(generator) -> None:
    m = model(cov="batch")
    mean, logvar = posterior(generator)
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
    changed = (mean * signs)[:, torch.randperm(4, generator=generator)]
    value = penalty(m, m.covariance(mean, logvar))
    assert float(penalty(m, m.covariance(changed, logvar))) == pytest.approx(float(value), rel=1e-10)
    covariance = m.covariance(mean, logvar).detach()
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), mean.T, upper=False).T
    rounding = float(torch.linalg.cond(covariance)) * torch.finfo(torch.float64).eps
    assert float(penalty(m, m.covariance(white, logvar)).detach()) < 1e-18 + 100 * rounding**2
    assert float(penalty(m, torch.eye(4))) == 0


def test_weights_of_the_penalty() -> None:
    values = {
        (name, factor): resolve(name, options={"model": {"lambda_od": 5.0, "lambda_d_factor": factor}}).model.lambda_d
        for name in ("dipvae", "dipvae-i", "dip-vae", "dipvae-ii", "dip-vae-ii")
        for factor in (None, 3.0)
    }
    assert values["dipvae", None] == values["dipvae-i", None] == values["dip-vae", None] == 50
    assert values["dipvae-ii", None] == values["dip-vae-ii", None] == 5
    assert {v for (_, factor), v in values.items() if factor} == {15}
    assert resolve("dipvae-ii").model.variant == "ii"
    assert resolve("dipvae-ii").method is DIPVAEII


# In training


def trainer(batch: int = 16, z: int = 3, method: str = "dipvae", **options):
    data = {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 8}
    chosen = {"z": z, "arch": "mlp", **options}
    settings = resolve(method, options={"model": chosen, "data": data, "train": {"batch": batch, "device": "cpu"}})
    return build(settings, CPU, Ranks())


def test_loss_against_a_plain_computation(seed) -> None:
    t = trainer(lambda_od=4.0, lambda_d_factor=3.0, lambda_warmup=8, cov="batch", variant="ii")
    t._set_schedule(t.model.schedule(1))
    step = Step(index=t.counter, schedule=t._schedule, phase=None, generator=seeded(seed, CPU), log=lambda n, v: None)
    t.model.double()
    with torch.no_grad():  # of an untrained encoder the covariances are so small that no weight of theirs shows
        last = [m for m in t.model.encoder.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.weight[:3] *= 30
    x = t.dataset.sample(16, seeded(seed, CPU))["x"].double()
    step.batch = {"x": x}
    loss = t.model.loss(step)
    mean, logvar = t.model.encoder(x).chunk(2, 1)
    std = (0.5 * logvar).exp()
    logits = t.model.decoder(mean + std * torch.randn(16, 3, generator=seeded(seed, CPU)))
    q, p = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    pixels = torch.distributions.Bernoulli(logits=logits).log_prob(x).flatten(1).sum(1)
    c = torch.cov(mean.T, correction=0) + torch.diag(std.square().mean(0))
    squares = (c - torch.eye(3)) ** 2
    assert float((squares.sum() - squares.trace()).detach()) > 1e-5
    r = 4.0 * (squares.sum() - squares.trace()) + 12.0 * squares.trace()
    expected = -pixels.mean() + torch.distributions.kl_divergence(q, p).sum(1).mean() + 2 / 8 * r
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


def test_warm_up_of_the_weights() -> None:
    m = model(lambda_warmup=4)
    assert [m.schedule(s)["warmup"] for s in (0, 1, 3, 4, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert model().schedule(0)["warmup"] == 1.0


def test_moments_move_once_per_step_and_only_in_training(tmp_path) -> None:
    t = trainer(cov_decay=0.5)
    t.step()
    assert float(t.model.weight) == 0.5
    t.step()
    assert float(t.model.weight) == 0.75
    before = {k: v.clone() for k, v in t.model.named_buffers()}
    x = t.dataset.sample(8, seeded(0, CPU))["x"]
    t.model.encode(x)
    t.model.eval().posterior(x)
    assert all(torch.equal(v, before[k]) for k, v in t.model.named_buffers())
    data = {"name": "dsprites", "options": {}, "folder": None, "origin": ""}
    header = checkpoint.header_for(t.model, resolve("dipvae").entry, data, t.index, 0, {})
    checkpoint.save(tmp_path / "c.safetensors", t.model, header)
    again = checkpoint.load(tmp_path / "c.safetensors")[0]
    assert sorted(before) == ["first", "second", "spread", "weight"]
    assert all(torch.equal(v, before[k]) for k, v in again.named_buffers())


def test_no_moments_without_memory() -> None:
    assert not dict(trainer(cov="batch").model.named_buffers())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_od": -1}, "below the smallest allowed value 0"),
        ({"cov_decay": 1.0}, "cov-decay 1 must be below 1"),
        ({"cov_decay": -0.1}, "below the smallest allowed value 0"),
        ({"variant": "iii"}, "'iii' is none of i, ii"),
    ],
)
def test_settings_out_of_range(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("dipvae", options={"model": options})


@pytest.mark.parametrize("options", [{"cov": "batch"}, {}, {"cov_grad": "literal", "unbiased": True}])
def test_a_batch_of_one_has_no_covariance(options) -> None:
    with pytest.raises(UsageError, match="batches of 2 items or more"):
        trainer(batch=1, **options).step()


def test_a_batch_of_one_is_a_share_of_the_running_estimate() -> None:
    t = trainer(batch=1, cov_grad="literal")
    for _ in range(3):
        t.step()
    t.check_health()


def test_warnings(capsys) -> None:
    trainer(batch=3, z=4, cov="batch").step()
    assert "covariance of 3 samples in 4 dimensions has not full rank" in capsys.readouterr().err
    trainer(z=11).step()
    assert "11 are far more than the 5 factors" in capsys.readouterr().err
    resolve("dipvae", options={"model": {"cov_grad": "literal", "lambda_od": 20.0, "cov_decay": 0.75}})
    assert "lambda_od 20 comes down to 5" in " ".join(capsys.readouterr().err.split())


def test_moments_are_kept_in_single_precision_under_autocast() -> None:
    m = model(z=3).float()
    mean = torch.randn(64, 3, generator=seeded(0, CPU)) + 10
    with torch.autocast("cpu", torch.bfloat16):
        c = m.covariance(mean, mean)
    assert c.dtype == torch.float32
    assert torch.allclose(c, torch.cov(mean.T, correction=0), atol=1e-3)
