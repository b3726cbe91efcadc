"""F-statistic loss and its rivals: the formulas against scipy, mpmath and brute force; batches; networks."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from distk import DataSpec
from distk.plugins.vae_family.fstat import method
from distk.plugins.vae_family.fstat.incbeta import log_tails
from distk.plugins.vae_family.fstat.networks import PersonEncoder, SpriteEncoder, response_norm, same_pool


@pytest.fixture(autouse=True)
def _fresh(seed: int) -> None:
    """Other numbers in every run of the tests; the tolerances hold for any."""
    torch.manual_seed(seed)


def fresh(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def full(z: Tensor) -> Tensor:
    return torch.ones(z.shape[:2], dtype=z.dtype)


# ln I_x(1/2, b)


@pytest.mark.parametrize("b", [k / 2 for k in range(1, 20)])
def test_the_probability_is_scipys(b: float) -> None:
    r = torch.linspace(-20, 20, 201, dtype=torch.float64) + fresh(201) * 0.05
    log_p, log_q = log_tails(r, torch.tensor(b))
    x, y = scipy.special.expit(r.numpy()), scipy.special.expit(-r.numpy())
    # scipy sees x or y, of which the one near 1 is rounded: ask it for the tail whose argument is the small one.
    low = r.numpy() <= 0
    p = np.where(low, scipy.special.betainc(0.5, b, x), 1 - scipy.special.betainc(b, 0.5, y))
    q = np.where(low, 1 - scipy.special.betainc(0.5, b, x), scipy.special.betainc(b, 0.5, y))
    assert np.abs(np.exp(log_p.numpy()) - p).max() < 1e-12
    assert np.abs(np.exp(log_q.numpy()) - q).max() < 1e-12
    assert np.abs(log_p.numpy() - np.log(p)).max() < 1e-12


@pytest.mark.parametrize("b", [0.5, 3.0, 9.0, 25.0, 500.0])
def test_both_tails_and_slope_in_sixty_digits(b: float) -> None:
    """Far beyond what scipy can say: P down to 1e-17 and 1 - P down to exp(-40000)."""
    r = torch.tensor(
        [-80.0, -31.0, -9.0, -2.0, -0.3, 0.7, 2.5, 9.0, 33.0, 80.0], dtype=torch.float64, requires_grad=True
    )
    log_p, log_q = log_tails(r, torch.tensor(b))
    slope_p = torch.autograd.grad(log_p.sum(), r, retain_graph=True)[0]
    slope_q = torch.autograd.grad(log_q.sum(), r)[0]
    with mpmath.workdps(60):
        for i, value in enumerate(r.tolist()):
            x, y = 1 / (1 + mpmath.exp(-mpmath.mpf(value))), 1 / (1 + mpmath.exp(mpmath.mpf(value)))
            p = mpmath.betainc(0.5, b, 0, x, regularized=True)
            q = mpmath.betainc(b, 0.5, 0, y, regularized=True)
            kernel = mpmath.sqrt(x) * y**b / mpmath.beta(0.5, b)
            for found, true in ((log_p[i].detach(), mpmath.log(p)), (log_q[i].detach(), mpmath.log(q))):
                # Absolute near 0, relative for the enormous: what lt = min(lt, -1e-30) leaves of ln P is below 1e-29.
                assert abs(float(found) - float(true)) < 1e-11 * max(1.0, abs(float(true))), (b, value)
            assert abs(float(slope_p[i]) - float(kernel / p)) < 1e-11
            assert float(slope_q[i]) == pytest.approx(-float(kernel / q), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("nu", range(1, 21))
def test_closed_forms_for_whole_degrees_of_freedom(nu: int) -> None:
    r = fresh(200) * 4
    x, y = torch.sigmoid(r), torch.sigmoid(-r)
    if nu % 2 == 0:
        term, total = torch.ones_like(x), torch.zeros_like(x)
        for j in range(nu // 2):
            total += term
            term = term * y * (j + 0.5) / (j + 1)
        p = x.sqrt() * total
    else:
        theta = torch.atan2(x.sqrt(), y.sqrt())
        cos, series, coefficient = theta.cos(), torch.zeros_like(x), 1.0
        for power in range(1, nu - 1, 2):
            series += coefficient * cos**power
            coefficient *= (power + 1) / (power + 2)
        p = 2 / math.pi * (theta + theta.sin() * series)
    log_p, _ = log_tails(r, torch.tensor(nu / 2))
    assert float((log_p.exp() - p).abs().max()) < 2e-13  # the odd form itself loses digits for small x
    if nu == 2:
        assert torch.allclose(log_p, 0.5 * F.logsigmoid(r), atol=1e-13)


def test_gradients_of_first_and_second_order() -> None:
    r, b = (fresh(40) * 6).requires_grad_(), torch.rand(40, dtype=torch.float64) * 20 + 0.5
    assert torch.autograd.gradcheck(lambda r: log_tails(r, b), (r,))
    assert torch.autograd.gradgradcheck(lambda r: log_tails(r, b), (r,))
    log_p, _ = log_tails(r, b)
    slope = torch.autograd.grad(log_p.sum(), r, create_graph=True)[0]
    curve = torch.autograd.grad(slope.sum(), r)[0]
    expected = slope * (0.5 * torch.sigmoid(-r) - b * torch.sigmoid(r) - slope)
    assert torch.allclose(curve, expected, atol=1e-12)


@pytest.mark.parametrize("b", [0.5, 9.0, 100.0])
def test_float32_stays_finite_and_within_bounds(b: float) -> None:
    r = torch.linspace(-80, 80, 1601, requires_grad=True)
    log_p, log_q = log_tails(r, torch.tensor(b))
    slope = torch.autograd.grad(log_p.sum(), r)[0]
    for found in (log_p.detach(), log_q.detach(), slope):
        assert bool(found.isfinite().all())
    assert float(slope.min()) >= 0
    assert float(slope.max()) <= 0.5
    exact = log_tails(r.detach().double(), torch.tensor(b))[0]
    assert float((log_p.detach().double() - exact).abs().max()) < 2e-5  # of values down to -40


# The statistic and the loss


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what is added against 0 / 0, which shows where two means happen to be close."""
    monkeypatch.setattr(method, "EPSILON", 0.0)


@pytest.mark.usefixtures("exact")
def test_the_statistic_is_the_analysis_of_variance_of_unequal_classes() -> None:
    counts, dims = (3, 7, 10), 4
    z, mask = fresh(3, 10, dims) * 2 + fresh(3, 1, dims), torch.zeros(3, 10, dtype=torch.float64)
    for c, n in enumerate(counts):
        mask[c, :n] = 1
    r, nu = method.separation_logits(z, mask)
    log_p, log_q = log_tails(r, (nu / 2)[:, None])
    for pair, (a, b) in enumerate(itertools.combinations(range(3), 2)):
        assert float(nu[pair]) == counts[a] + counts[b] - 2
        for k in range(dims):
            one, two = z[a, : counts[a], k].numpy(), z[b, : counts[b], k].numpy()
            anova, student = scipy.stats.f_oneway(one, two), scipy.stats.ttest_ind(one, two)
            s = float(nu[pair] * r[pair, k].exp())
            assert s == pytest.approx(float(anova.statistic), rel=1e-9, abs=1e-12)
            assert float(log_q[pair, k].exp()) == pytest.approx(float(anova.pvalue), abs=1e-12)
            assert float(log_q[pair, k].exp()) == pytest.approx(float(student.pvalue), abs=1e-12)
            assert float(log_p[pair, k].exp()) == pytest.approx(
                float(scipy.stats.f.cdf(s, 1, float(nu[pair]))), abs=1e-12
            )


@pytest.mark.usefixtures("exact")
def test_the_loss_takes_the_d_best_dimensions_of_every_pair() -> None:
    z = fresh(4, 6, 5) + 2 * fresh(4, 1, 5)
    for d in (1, 3, 5):
        loss, log_p = method.f_statistic_loss(z, full(z), d)
        assert log_p.shape == (6, d)
        expected = 0.0
        for a, b in itertools.combinations(range(4), 2):
            p = [1 - scipy.stats.f_oneway(z[a, :, k].numpy(), z[b, :, k].numpy()).pvalue for k in range(5)]
            expected -= sum(math.log(v) for v in sorted(p)[-d:])
        assert float(loss) == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_both_grand_means_agree_for_equal_classes_only() -> None:
    z = fresh(5, 6, 3)
    short = full(z)
    short[0, 2:] = 0
    equal = [float(method.f_statistic_loss(z, full(z), 2, how)[0]) for how in ("weighted", "unweighted")]
    unequal = [float(method.f_statistic_loss(z, short, 2, how)[0]) for how in ("weighted", "unweighted")]
    assert equal[0] == pytest.approx(equal[1], rel=1e-12)
    assert unequal[0] != pytest.approx(unequal[1], rel=1e-6)
    r = [method.separation_logits(z, short, how)[0] for how in ("weighted", "unweighted")]
    ratio = (r[0] - r[1])[:4].exp()  # the pairs with the short class: (2 * 6 / 8) / (8 / 4)
    assert torch.allclose(ratio, torch.full_like(ratio, 0.75), rtol=1e-6)


@pytest.mark.usefixtures("exact")
def test_moving_and_scaling_a_dimension_changes_nothing_but_turning_does() -> None:
    z = fresh(6, 8, 4) + fresh(6, 1, 4)
    loss = float(method.f_statistic_loss(z, full(z), 2)[0])
    moved = z * torch.tensor([0.1, 1.0, 7.0, 30.0], dtype=torch.float64) + fresh(4) * 3
    assert float(method.f_statistic_loss(moved, full(z), 2)[0]) == pytest.approx(loss, rel=1e-7)
    turned = [z @ torch.linalg.qr(fresh(4, 4))[0] for _ in range(5)]
    assert max(abs(float(method.f_statistic_loss(t, full(z), 2)[0]) - loss) for t in turned) > 1e-3 * loss


def test_empty_places_and_a_collapsed_embedding_do_no_harm() -> None:
    z, mask = fresh(3, 5, 4), torch.ones(3, 5, dtype=torch.float64)
    mask[1, 3:] = 0
    changed = z.clone()
    changed[1, 3:] = 1e3
    for loss in (
        lambda z: method.f_statistic_loss(z, mask, 2)[0],
        lambda z: method.triplet_loss(z, mask, 0.1),
        lambda z: method.histogram_loss(z, mask, 0.01),
        lambda z: method.binomial_deviance_loss(z, mask, 2.0, 0.5, 10.0),
    ):
        assert float(loss(z)) == pytest.approx(float(loss(changed)), rel=1e-12)
    same = torch.ones(3, 5, 4, requires_grad=True)
    loss = method.f_statistic_loss(same, mask.float(), 2)[0]
    assert bool(loss.isfinite())
    assert bool(torch.autograd.grad(loss, same)[0].isfinite().all())


def test_gradient_of_the_loss_in_float64() -> None:
    # Class means apart: ln P is singular where two of them meet, and differences of it mean nothing there.
    z = (0.5 * fresh(3, 4, 3) + 3 * torch.arange(3.0, dtype=torch.float64).view(3, 1, 1)).requires_grad_()
    mask = full(z)
    mask[2, 3] = 0
    # All dimensions: the choice of the d best is no differentiable function where two of them change places.
    assert torch.autograd.gradcheck(lambda z: method.f_statistic_loss(z, mask, 3)[0], (z,))
    assert torch.autograd.gradcheck(lambda z: method.triplet_loss(z, mask, 50.0), (z,))
    assert torch.autograd.gradcheck(lambda z: method.binomial_deviance_loss(z, mask, 2.0, 0.5, 10.0), (z,))


# The rivals, by brute force over items


def items(z: Tensor, mask: Tensor) -> list[tuple[int, np.ndarray]]:
    return [(c, z[c, j].numpy()) for c in range(z.shape[0]) for j in range(z.shape[1]) if float(mask[c, j]) > 0]


def short_of(z: Tensor) -> Tensor:
    mask = full(z)
    mask[0, -1] = mask[2, -2:] = 0
    return mask


def test_triplet_loss_over_all_triplets() -> None:
    z = fresh(4, 4, 3)
    mask = short_of(z)
    held = items(z, mask)
    found = [
        max(0.0, float(((a - p) ** 2).sum() + 0.3 - ((a - n) ** 2).sum()))
        for i, (ci, a) in enumerate(held)
        for j, (cj, p) in enumerate(held)
        for cn, n in held
        if ci == cj and i != j and cn != ci
    ]
    assert float(method.triplet_loss(z, mask, 0.3)) == pytest.approx(sum(found) / len(found), rel=1e-10)


def cosines(z: Tensor, mask: Tensor) -> tuple[list[float], list[float]]:
    parts: tuple[list[float], list[float]] = ([], [])
    for (ci, a), (cj, b) in itertools.combinations(items(z, mask), 2):
        parts[ci != cj].append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return parts


def test_binomial_deviance_over_all_pairs() -> None:
    z = fresh(4, 4, 3)
    mask = short_of(z)
    positive, negative = cosines(z, mask)
    expected = np.mean([math.log1p(math.exp(-2 * (s - 0.5))) for s in positive])
    expected += np.mean([math.log1p(math.exp(20 * (s - 0.5))) for s in negative])
    assert float(method.binomial_deviance_loss(z, mask, 2.0, 0.5, 10.0)) == pytest.approx(float(expected), rel=1e-10)


def test_histogram_loss_by_nodes_and_as_a_probability() -> None:
    z = fresh(5, 4, 3) + 2 * fresh(5, 1, 3)
    mask = short_of(z)
    positive, negative = cosines(z, mask)
    nodes = np.linspace(-1, 1, 201)
    held = [
        np.mean([np.maximum(0, 1 - np.abs(s - nodes) / 0.01) for s in part], axis=0) for part in (positive, negative)
    ]
    expected = float((held[1] * np.cumsum(held[0])).sum())
    assert float(method.histogram_loss(z, mask, 0.01)) == pytest.approx(expected, rel=1e-6)
    exact = np.mean([[n >= p for p in positive] for n in negative])
    assert abs(float(method.histogram_loss(z, mask, 1e-4)) - exact) < 0.02


def test_a_cosine_of_one_falls_into_the_last_cell() -> None:
    same = torch.ones(2, 3, 2, requires_grad=True)
    loss = method.histogram_loss(same, torch.ones(2, 3), 0.01)
    assert float(loss.detach()) == pytest.approx(1.0, abs=1e-6)
    assert bool(torch.autograd.grad(loss, same)[0].isfinite().all())


# Networks


def test_sprite_encoder_has_the_published_sizes() -> None:
    net = SpriteEncoder(DataSpec("image", (3, 60, 60)), 22, 2048)
    x = torch.rand(2, 3, 60, 60)
    sizes = [tuple(layer(x).shape[1:]) for layer in (net.body[:1], net.body[:3], net.body[:5], net.body)]
    assert sizes == [(64, 28, 28), (32, 12, 12), (4608,), (22,)]
    assert {float(b) for layer in net.body if hasattr(layer, "bias") for b in layer.bias.detach()} == {
        float(torch.tensor(0.01))
    }


def test_response_norm_and_pooling_are_tensorflows() -> None:
    x = torch.rand(1, 64, 5, 4, dtype=torch.float64)
    sums = torch.stack([x[0, max(0, c - 5) : c + 6].square().sum(0) for c in range(64)])
    assert torch.allclose(response_norm(x)[0], x[0] / (1 + sums).sqrt())
    for height, width in ((5, 4), (53, 60), (54, 60), (27, 30)):
        picture = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
        pooled = same_pool(picture, 7)
        assert pooled.shape[-2:] == ((height + 1) // 2, (width + 1) // 2)
        # The window of output 0 begins at -floor(total / 2): the odd pixel of padding lies right and below.
        ends = [min(side - 1, 6 - max((side + 1) // 2 * 2 - 2 + 7 - side, 0) // 2) for side in (height, width)]
        assert float(pooled[0, 0, 0, 0]) == ends[0] * width + ends[1]


def test_person_encoder_cuts_thirds_and_shares_the_first_convolution() -> None:
    net = PersonEncoder(DataSpec("image", (3, 32, 12)), 9, 0)
    assert net(torch.rand(2, 3, 32, 12)).shape == (2, 9)
    assert len(net.second) == 3
    assert net.third == 10  # 10, 10 and 12 rows
    assert net.last.in_features == 64 * 3 * (3 + 3 + 3)
