"""Losses of two players and gradient penalties against closed forms and gradients taken by hand, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distk.nn import GAMES, call_fake, call_real, gradient_penalty, interpolated, roth_penalty, squared_slope


def linear(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A weight and inputs, so that the critic w.x has the same gradient w everywhere."""
    w = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    x = torch.randn(5, 2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    return w, x, (w * x).sum((1, 2, 3))


def curved(x: Tensor, z: Tensor) -> Tensor:
    """A critic of two inputs that is not linear, `[n]`."""
    return (x.flatten(1).sin().sum(1) * z.square().sum(1)).tanh() + x.flatten(1).pow(3).sum(1)


def by_rows(x: Tensor, z: Tensor) -> Tensor:
    """Squared gradient norm of `curved`, one row at a time, by forward differences of a central scheme."""
    h, found = 1e-5, []
    for a, b in zip(x.detach(), z.detach(), strict=True):
        total = 0.0
        for k in range(a.numel()):
            e = torch.zeros_like(a).view(-1)
            e[k] = h
            e = e.view_as(a)
            total += ((curved((a + e)[None], b[None]) - curved((a - e)[None], b[None])) / (2 * h)).item() ** 2
        for k in range(b.numel()):
            e = torch.zeros_like(b)
            e[k] = h
            total += ((curved(a[None], (b + e)[None]) - curved(a[None], (b - e)[None])) / (2 * h)).item() ** 2
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


def test_logistic_losses_are_log_probabilities(generator) -> None:
    score = 3 * torch.randn(7, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(call_real(score), -score.sigmoid().log())
    torch.testing.assert_close(call_fake(score), -(1 - score.sigmoid()).log())
    assert float(call_real(torch.tensor(-200.0))) == 200.0, "no overflow"


@pytest.mark.parametrize("name", sorted(GAMES))
def test_each_game_pulls_its_players_apart(name: str) -> None:
    """At score 0 the critic raises real scores and lowers made ones, and the generator raises made ones."""
    for loss, sign in zip(GAMES[name], (-1, 1, -1), strict=True):
        score = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
        value = loss(score)
        assert value.shape == score.shape
        value.sum().backward()
        assert bool((score.grad.sign() == sign).all()) or name == "least-squares"


def test_games_by_hand() -> None:
    score = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
    expected = {
        "least-squares": ([9.0, 0.25, 4.0], [4.0, 0.25, 9.0], [9.0, 0.25, 4.0]),
        "hinge": ([3.0, 0.5, 0.0], [0.0, 1.5, 4.0], [2.0, -0.5, -3.0]),
        "wasserstein": ([2.0, -0.5, -3.0], [-2.0, 0.5, 3.0], [2.0, -0.5, -3.0]),
    }
    for name, values in expected.items():
        for loss, value in zip(GAMES[name], values, strict=True):
            assert loss(score).tolist() == value, name
    assert GAMES["logistic"] == (call_real, call_fake, call_real)


def test_interpolation_has_one_share_per_row(generator) -> None:
    real, fake = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    share = torch.rand(5, generator=generator, dtype=torch.float64)
    middle = interpolated(real.requires_grad_(), fake, share)
    for i in range(5):
        torch.testing.assert_close(middle[i].detach(), (share[i] * real[i] + (1 - share[i]) * fake[i]).detach())
    assert middle.is_leaf
    assert middle.requires_grad


def test_slope_of_a_linear_critic_and_its_own_gradient(generator) -> None:
    w, x, score = linear(generator)
    torch.testing.assert_close(squared_slope(score, x), w.detach().square().sum().expand(5))
    penalty = gradient_penalty(score, x).mean()
    length = w.detach().norm()
    torch.testing.assert_close(penalty.detach(), (length - 1) ** 2, rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(penalty, w)
    torch.testing.assert_close(gradient, 2 * (length - 1) * w.detach() / length, rtol=1e-9, atol=1e-10)


def test_slope_counts_every_entry_of_every_input_row_by_row(generator) -> None:
    x = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    z = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    ours = squared_slope(curved(x, z), x, z)
    torch.testing.assert_close(ours.detach(), by_rows(x, z), rtol=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(lambda a, b: curved(a, b).sum(), (x, z))
    assert torch.autograd.gradcheck(lambda a, b: squared_slope(curved(a, b), a, b), (x, z))


def test_slope_of_a_column_of_scores_is_that_of_a_vector(generator) -> None:
    _, x, score = linear(generator)
    torch.testing.assert_close(squared_slope(score[:, None], x), squared_slope(score, x))


@pytest.mark.parametrize(("length", "two_sided", "one_sided"), [(3.0, 4.0, 4.0), (0.25, 0.5625, 0.0)])
def test_one_sided_leaves_short_gradients_alone(length: float, two_sided: float, one_sided: float) -> None:
    x = torch.ones(4, 9, dtype=torch.float64, requires_grad=True)
    score = (x * length / 3).sum(1)
    torch.testing.assert_close(gradient_penalty(score, x), torch.full((4,), two_sided, dtype=torch.float64))
    torch.testing.assert_close(gradient_penalty(score, x, one_sided=True), torch.full((4,), one_sided).double())
    torch.testing.assert_close(gradient_penalty(score, x, target=0.0), torch.full((4,), length**2).double())


def test_a_flat_critic_has_a_finite_gradient() -> None:
    w = torch.zeros(3, requires_grad=True)
    x = torch.randn(2, 3, requires_grad=True)
    gradient_penalty(x @ w, x).mean().backward()
    assert bool(w.grad.isfinite().all())


def test_roth_weighs_slopes_by_how_wrong_the_critic_is(generator) -> None:
    x = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    z = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    score = curved(x, z)
    d, slope = score.detach().sigmoid(), by_rows(x, z)
    torch.testing.assert_close(
        roth_penalty(score, x, z, real=True).detach(), (1 - d) ** 2 * slope, rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(
        roth_penalty(score[:, None], x, z, real=False).detach(), d**2 * slope, rtol=1e-6, atol=1e-7
    )
    # Through the weights, too
    assert torch.autograd.gradcheck(lambda a, b: roth_penalty(curved(a, b), a, b, real=True), (x, z))
    w, at, linear_score = linear(generator)
    (through,) = torch.autograd.grad(roth_penalty(linear_score, at, real=False).sum(), w)
    p = linear_score.detach().sigmoid()
    square, each = w.detach().square().sum(), (2 * p**2 * (1 - p)).view(-1, 1, 1, 1) * at.detach()
    torch.testing.assert_close(through, (each * square).sum(0) + 2 * w.detach() * p.square().sum())
