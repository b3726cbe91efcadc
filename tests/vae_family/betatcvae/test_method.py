"""beta-TCVAE: the decomposition, its two estimators, and the exact answers in a linear-Gaussian model."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from distk import DataSpec, UsageError, seeded
from distk.device import Ranks
from distk.method import Step
from distk.nn import log_normal
from distk.plugins.vae_family.betatcvae.method import decompose, stratified_weights
from distk.settings import resolve
from distk.training.beginning import build


def posteriors(seed: int, n: int, d: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sample, the means and the log variances of n random posteriors, float64 `[n, d]` each."""
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, d, generator=g, dtype=torch.float64)
    logvar = torch.randn(n, d, generator=g, dtype=torch.float64) - 1
    return mean + (logvar / 2).exp() * torch.randn(n, d, generator=g, dtype=torch.float64), mean, logvar


def slow(z, mean, logvar, items, weights=None):
    """The three terms by loops over torch.distributions; weights [n][n] of the mixture, default 1 / (n N)."""
    n, d = z.shape
    q = [[Normal(mean[k, j], (logvar[k, j] / 2).exp()) for j in range(d)] for k in range(n)]
    mi = tc = dwkl = 0.0
    for i in range(n):
        w = [1 / (n * items)] * n if weights is None else weights[i].tolist()
        own = sum(float(q[i][j].log_prob(z[i, j])) for j in range(d))
        joint = math.log(
            sum(w[k] * math.exp(sum(float(q[k][j].log_prob(z[i, j])) for j in range(d))) for k in range(n))
        )
        single = sum(
            math.log(sum(w[k] * math.exp(float(q[k][j].log_prob(z[i, j]))) for k in range(n))) for j in range(d)
        )
        prior = sum(float(Normal(0.0, 1.0).log_prob(z[i, j])) for j in range(d))
        mi, tc, dwkl = mi + (own - joint) / n, tc + (joint - single) / n, dwkl + (single - prior) / n
    return mi, tc, dwkl


@pytest.mark.parametrize("estimator", ["mws", "mss"])
def test_terms_against_loops(estimator, seed) -> None:
    z, mean, logvar = posteriors(seed, 7, 3)
    weights = None if estimator == "mws" else stratified_weights(7, 50, z)
    found = [float(v) for v in decompose(z, mean, logvar, estimator, 50)]
    assert found == pytest.approx(slow(z, mean, logvar, 50, weights), abs=1e-9)


@pytest.mark.parametrize(("estimator", "items"), [("mws", 50), ("mws", 737_280), ("mss", 50), ("mss", 19)])
def test_the_terms_add_up_to_the_sampled_kl(estimator, items, seed) -> None:
    z, mean, logvar = posteriors(seed, 20, 4)
    q, p = Normal(mean, (logvar / 2).exp()), Normal(torch.zeros(20, 4).double(), 1.0)
    kl = (q.log_prob(z) - p.log_prob(z)).sum(1).mean()
    assert float(sum(decompose(z, mean, logvar, estimator, items))) == pytest.approx(float(kl), abs=1e-9)


@pytest.mark.parametrize(("n", "items"), [(2, 2), (5, 5), (64, 737_280), (8, 7)])
def test_rows_of_the_stratified_weights_sum_to_1(n, items) -> None:
    w = stratified_weights(n, items, torch.zeros(1, dtype=torch.float64))
    m = n - 1
    assert torch.allclose(w.sum(1), torch.ones(n).double(), atol=1e-12)
    assert torch.allclose(w.diagonal(), torch.full((n,), 1 / items).double())
    second = w[torch.arange(n), (torch.arange(n) + 1) % n]
    assert torch.allclose(second, torch.full((n,), (items - m) / (items * m)).double())
    if n > 2:
        assert torch.allclose(w[0, 2:], torch.full((n - 2,), 1 / m).double())


def test_the_stratified_estimate_of_q_is_unbiased(seed) -> None:
    """Over every ordered batch that holds item 0 first, the weighted sum of densities has the mean q(z), exactly."""
    items, n = 6, 4
    z, mean, logvar = posteriors(seed, items, 2)
    density = log_normal(z[0], mean, logvar).sum(1).exp()
    w = stratified_weights(n, items, z)[0]
    sums = [float((w * density[[0, *rest]]).sum()) for rest in itertools.permutations(range(1, items), n - 1)]
    assert sum(sums) / len(sums) == pytest.approx(float(density.mean()), rel=1e-12)


def test_parts_give_the_same_values_and_gradients(seed) -> None:
    """A tensor of densities too large to hold is taken in parts of rows."""
    for estimator in ("mws", "mss"):
        results = []
        for largest in (1 << 26, 11 * 3 * 4):
            z, mean, logvar = (t.clone().requires_grad_() for t in posteriors(seed, 11, 3))
            mi, tc, dwkl = decompose(z, mean, logvar, estimator, 100, largest)
            (mi + 6 * tc + dwkl).backward()
            results.append([mi.detach(), tc.detach(), dwkl.detach(), z.grad, mean.grad, logvar.grad])
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*results, strict=True))


def test_total_correlation_of_a_linear_gaussian_code() -> None:
    """x ~ N(0, S), z = A x + noise: TC = 0.5 (sum_j log cov_jj - log det cov), with the whole data as the batch.

    Fixed seed. Measured over seeds 0 to 9: estimate - exact is -0.010 to 0.015 nats at a TC of 0.02 to 0.78, and
    -0.031 to 0.018 for the mutual information.
    """
    g = torch.Generator().manual_seed(5)
    n, d, p = 4000, 2, 3
    a = torch.randn(d, p, generator=g, dtype=torch.float64)
    root = torch.randn(p, p, generator=g, dtype=torch.float64)
    s = root @ root.T + torch.eye(p)
    x = torch.randn(n, p, generator=g, dtype=torch.float64) @ torch.linalg.cholesky(s).T
    variance = torch.full((d,), 0.5, dtype=torch.float64)
    mean, logvar = x @ a.T, variance.log().expand(n, d)
    z = mean + variance.sqrt() * torch.randn(n, d, generator=g, dtype=torch.float64)
    cov = a @ s @ a.T + variance.diag()
    exact = 0.5 * float(cov.diagonal().log().sum() - torch.linalg.slogdet(cov)[1])
    mi = 0.5 * float(torch.linalg.slogdet(cov)[1] - variance.log().sum())
    # With the batch as the data, log q(z) of MWS is off by the constant log N in every mixture: put back by hand.
    found_mi, found_tc, _ = (float(v) for v in decompose(z, mean, logvar, "mws", 1))
    assert exact > 0.3
    assert found_tc == pytest.approx(exact, abs=0.05)
    assert found_mi == pytest.approx(mi, abs=0.05)


def test_the_weight_of_dlib_differs_by_noise_only(seed) -> None:
    """KL + (beta - 1) TC, as others write it, has the same TC gradient; the KL is closed-form instead of sampled."""
    z, mean, logvar = posteriors(seed, 9, 2)
    mean.requires_grad_()
    noise = ((z - mean) / (logvar / 2).exp()).detach()
    draw = mean + (logvar / 2).exp() * noise
    mi, tc, dwkl = decompose(draw, mean, logvar, "mws", 1000)
    ours = torch.autograd.grad(mi + 6 * tc + dwkl, mean, retain_graph=True)[0]
    # Without the constants log(B N), which have no gradient.
    density = log_normal(draw.unsqueeze(1), mean.unsqueeze(0), logvar.unsqueeze(0))
    short = (density.sum(2).logsumexp(1) - density.logsumexp(1).sum(1)).mean()
    q, p = Normal(mean, (logvar / 2).exp()), Normal(torch.zeros(9, 2).double(), 1.0)
    sampled = (q.log_prob(draw) - p.log_prob(draw)).sum(1).mean()
    theirs = torch.autograd.grad(sampled + 5 * short, mean, retain_graph=True)[0]
    assert torch.allclose(ours, theirs, atol=1e-10)
    closed = torch.autograd.grad(kl_divergence(q, p).sum(1).mean(), mean)[0]
    assert torch.allclose(closed, mean.detach() / 9, atol=1e-12)


def trainer(**model):
    options = {
        "model": {"z": 3, "arch": "mlp", **model},
        "data": {"name": "blobs", "size": 32, "positions": 8},
        "train": {"batch": 16, "device": "cpu"},
    }
    return build(resolve("betatcvae", options=options), torch.device("cpu"), Ranks())


def test_loss_against_a_plain_computation(seed) -> None:
    t = trainer(alpha=0.5, beta=4.0, gamma=2.0)
    assert t.model.items == 64
    model = t.model.double()
    x = t.dataset.sample(16, t.generator)["x"].double()
    logged = {}
    step = Step(
        index=t.counter,
        schedule={},
        phase=None,
        generator=seeded(seed, t.device),
        log=lambda name, value: logged.__setitem__(name, value.detach()),
    )
    step.batch = {"x": x}
    loss = model.elbo(step)
    mean, logvar = model.encoder(x).detach().chunk(2, 1)
    z = mean + (logvar / 2).exp() * torch.randn(16, 3, generator=seeded(seed, t.device))
    mi, tc, dwkl = slow(z, mean, logvar, 64)
    probability = model.decoder(z).sigmoid()
    nll = -(x * probability.log() + (1 - x) * (1 - probability).log()).flatten(1).sum(1).mean()
    assert float(loss.detach()) == pytest.approx(float(nll.detach()) + 0.5 * mi + 4 * tc + 2 * dwkl, rel=1e-9)
    assert [float(logged[k]) for k in ("mi", "tc", "dwkl")] == pytest.approx([mi, tc, dwkl], abs=1e-9)


def test_the_density_is_that_of_what_was_drawn_also_beyond_the_limits(seed) -> None:
    """Samples are drawn with log variances of at most 10, whatever the encoder says."""
    t = trainer()
    model = t.model.double()
    x = t.dataset.sample(5, t.generator)["x"].double()
    with torch.no_grad():
        last = [m for m in model.encoder.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.bias[3:] += 15.0
    logged = {}
    step = Step(
        index=t.counter,
        schedule={},
        phase=None,
        generator=seeded(seed, t.device),
        log=lambda name, value: logged.__setitem__(name, value.detach()),
    )
    step.batch = {"x": x}
    model.elbo(step)
    mean, logvar = model.encoder(x).detach().chunk(2, 1)
    assert float(logvar.min()) > 10
    limited = torch.full_like(logvar, 10.0)
    z = mean + (limited / 2).exp() * torch.randn(5, 3, generator=seeded(seed, t.device))
    assert [float(logged[k]) for k in ("mi", "tc", "dwkl")] == pytest.approx(slow(z, mean, limited, 64), abs=1e-6)


def test_number_of_items(seed) -> None:
    assert trainer(dataset_size=999).model.items == 999
    held = {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 4, "holdout": 0.25}
    options = {"model": {"arch": "mlp"}, "data": held, "train": {"device": "cpu"}}
    assert build(resolve("betatcvae", options=options), torch.device("cpu"), Ranks()).model.items == 36, "of 48"
    settings = resolve("betatcvae")
    bare = settings.method(settings.model, DataSpec("image", (1, 64, 64)))
    with pytest.raises(UsageError, match="give --dataset-size N"):
        bare.objectives()
    t = trainer()
    t.model.opens = lambda: object.__new__(type("Stream", (type(t.dataset).__mro__[2],), {}))
    with pytest.raises(UsageError, match="give --dataset-size N"):
        t.model.objectives()


def test_batches_that_cannot_be() -> None:
    z, mean, logvar = posteriors(0, 1, 2)
    with pytest.raises(UsageError, match="--batch 2 or more"):
        decompose(z, mean, logvar, "mws", 50)
    z, mean, logvar = posteriors(0, 9, 2)
    with pytest.raises(UsageError, match="at most 8 items from 7: lower --batch"):
        decompose(z, mean, logvar, "mss", 7)


def test_the_other_estimator_passes_the_conformance_checks() -> None:
    from distk.testing import check_method

    check_method("betatcvae", model={"arch": "mlp", "estimator": "mss"})
