"""The witness function and its batched minimiser: loops, closed forms, a grid, and the printed problem by scipy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distk import UsageError
from distk.plugins.text.mmdtraverse.reference import move_by_scipy
from distk.plugins.text.mmdtraverse.solver import Witness, bandwidth, distances, move, witness


def clouds(
    generator: torch.Generator, rows: int = 4, m: int = 12, n: int = 15, h: int = 40, shift: float = 0.5
) -> tuple[Witness, Tensor, Tensor, Tensor]:
    """f*, S `[m, h]`, T `[n, h]` and codes `[rows, h]` of the source's cloud, 0 or above as a network's are."""
    centre = shift * torch.randn(2, h, generator=generator, dtype=torch.float64)

    def draw(k: int, size: int) -> Tensor:
        return (centre[k] + torch.randn(size, h, generator=generator, dtype=torch.float64)).relu()

    s, t, z = draw(0, m), draw(1, n), draw(0, rows)
    points = torch.cat([s, t])
    source = (torch.arange(m + n) < m).expand(rows, -1)
    return witness(points, source, ~source, bandwidth(points)), s, t, z


def slope(f: Witness, s: Tensor, t: Tensor, z: Tensor, u: Tensor, weight: float) -> Tensor:
    """The gradient in u as the module's head prints it, row by row."""
    made = []
    for i in range(len(z)):
        w, sigma = z[i] + u[i], float(f.sigma[i])
        near = [(-((c - w) ** 2).sum(1) / (2 * sigma)).exp() for c in (s, t)]
        pull = (near[0][:, None] * (s - w)).mean(0) - (near[1][:, None] * (t - w)).mean(0)
        made.append(pull / sigma + 2 * weight * u[i])
    return torch.stack(made)


# The witness


def test_the_witness_is_the_sum_of_equation_2(generator: torch.Generator) -> None:
    f, s, t, z = clouds(generator, m=7, n=5, h=6)
    found, sigma = f(z), float(f.sigma[0])
    for i, w in enumerate(z.numpy()):
        value = sum(np.exp(-((a - w) ** 2).sum() / (2 * sigma)) for a in s.numpy()) / 7
        value -= sum(np.exp(-((b - w) ** 2).sum() / (2 * sigma)) for b in t.numpy()) / 5
        assert float(found[i]) == pytest.approx(value, abs=1e-13)


def test_its_gradient_is_the_printed_one(generator: torch.Generator) -> None:
    f, s, t, z = clouds(generator)
    u = torch.randn(*z.shape, generator=generator, dtype=torch.float64).requires_grad_()
    (found,) = torch.autograd.grad((f(z + u) + 0.03 * u.square().sum(1)).sum(), u)
    assert float((found - slope(f, s, t, z, u.detach(), 0.03)).abs().max()) < 1e-12


def test_it_is_large_at_the_source_and_small_at_the_target(generator: torch.Generator) -> None:
    f, s, t, _ = clouds(generator, rows=1, shift=2.0)
    assert float(f(s).min()) > 0 > float(f(t).max())


def test_rows_have_sets_of_their_own(generator: torch.Generator) -> None:
    """Weights 1/m and -1/n over what each row chose; a set without any is no part of it."""
    points = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    source = torch.rand(6, 9, generator=generator) < 0.4
    target = ~source & (torch.rand(6, 9, generator=generator) < 0.6)
    source[0], target[1] = False, False
    f = witness(points, source, target, torch.linspace(0.5, 3, 6, dtype=torch.float64))
    z = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    found = f(z)
    for i in range(6):
        near = (-(points - z[i]).square().sum(1) / (2 * f.sigma[i])).exp()
        sides = [float(near[of[i]].mean()) if bool(of[i].any()) else 0.0 for of in (source, target)]
        assert float(found[i]) == pytest.approx(sides[0] - sides[1], abs=1e-13)


def test_the_width_is_half_the_median_of_all_pairs(generator: torch.Generator) -> None:
    points = torch.randn(23, 5, generator=generator, dtype=torch.float64)
    pairs = sorted(float(((points[i] - points[j]) ** 2).sum()) for i in range(23) for j in range(i))
    assert float(bandwidth(points)) == pytest.approx(pairs[len(pairs) // 2] / 2, rel=1e-12)  # 253 pairs
    assert torch.allclose(distances(points, points), torch.cdist(points, points).square(), atol=1e-12)


# Moves


def objective(f: Witness, z: Tensor, u: Tensor, weight: float) -> Tensor:
    return f(z + u) + weight * u.square().sum(1)


def test_moves_equal_those_of_scipy_over_the_coefficients(generator: torch.Generator) -> None:
    f, _, _, z = clouds(generator)
    for relative in (0.003, 0.03, 0.3):
        weight = relative / (2 * float(f.sigma[0]))
        ours, theirs = move(f, z, weight), move_by_scipy(f, z, weight)
        lowest = [objective(f, z, found.u, weight) for found in (ours, theirs)]
        assert float((lowest[0] - lowest[1]).abs().max()) < 1e-9
        assert float(((ours.u - theirs.u).norm(dim=1) / theirs.u.norm(dim=1)).max()) < 1e-4
        assert torch.equal(ours.after, f(z + ours.u))
        assert torch.equal(ours.before, f(z))


@pytest.mark.slow
def test_at_full_size_and_in_a_fraction_of_the_time(generator: torch.Generator) -> None:
    """300 numbers, 90 and 90 examples, 64 sentences; scipy has 4 of them."""
    f, _, _, z = clouds(generator, rows=64, m=90, n=90, h=300, shift=0.35)
    few = Witness(f.points, f.weights[:4], f.sigma[:4])
    for weight in (7e-5, 7e-4, 7e-3):
        began = time.perf_counter()
        ours = move(f, z, weight)
        batched = time.perf_counter() - began
        began = time.perf_counter()
        theirs = move_by_scipy(few, z[:4], weight)
        alone = time.perf_counter() - began
        print(f"lambda {weight}: 64 sentences in {batched:.3f} s, by scipy {alone / 4:.3f} s each")
        apart = objective(f, z, ours.u, weight)[:4] - objective(few, z[:4], theirs.u, weight)
        assert float(apart.abs().max()) < 1e-9
        assert float(((ours.u[:4] - theirs.u).norm(dim=1) / theirs.u.norm(dim=1)).max()) < 1e-4
        assert batched / 64 < alone / 4


def test_a_move_ends_in_a_minimum_and_downhill(generator: torch.Generator) -> None:
    f, s, t, z = clouds(generator, rows=9)
    weight = 0.03 / (2 * float(f.sigma[0]))
    found = move(f, z, weight)
    assert float(slope(f, s, t, z, found.u, weight).norm(dim=1).max()) * float(f.sigma[0]) ** 0.5 < 1e-7
    assert bool((objective(f, z, found.u, weight) < f(z)).all())
    assert bool((found.after < found.before).all())
    nearer = (z + found.u - t.mean(0)).norm(dim=1) < (z - t.mean(0)).norm(dim=1)
    assert bool(nearer.all())  # a turned sign leads away
    assert bool((found.iterations > 1).all())


def test_moves_lie_in_the_span_of_the_examples_and_the_code(generator: torch.Generator) -> None:
    f, s, t, z = clouds(generator, m=5, n=6)
    found = move(f, z, 1e-4)
    for i in range(len(z)):
        basis = torch.linalg.qr(torch.cat([t, s, z[i : i + 1]]).T)[0]  # 12 directions of 40
        rest = found.u[i] - basis @ (basis.T @ found.u[i])
        assert float(rest.norm()) < 1e-10 * float(found.u[i].norm())


def test_a_dear_move_is_none(generator: torch.Generator) -> None:
    f, s, t, z = clouds(generator)
    weight = 1e7
    found = move(f, z, weight, tol=1e-11)
    first = -slope(f, s, t, z, torch.zeros_like(z), 0.0) / (2 * weight)
    assert float(found.u.norm(dim=1).max()) < 1e-7
    # In units of (2 weight)^-1/2 the curvature is 1, and a step that changes f* by less than its rounding is not seen.
    rounding = (2 * torch.finfo(torch.float64).eps * f(z).abs() / (2 * weight)).sqrt()
    assert bool(((found.u - first).norm(dim=1) <= rounding).all())
    assert float((rounding / first.norm(dim=1)).max()) < 0.01


def test_without_a_source_and_a_price_the_only_target_is_reached(generator: torch.Generator) -> None:
    point = torch.randn(1, 8, generator=generator, dtype=torch.float64)
    z = point + torch.randn(3, 8, generator=generator, dtype=torch.float64)
    nothing, everything = torch.zeros(3, 1, dtype=torch.bool), torch.ones(3, 1, dtype=torch.bool)
    found = move(witness(point, nothing, everything, 9.0), z, 0.0)
    torch.testing.assert_close(z + found.u, point.expand(3, -1), rtol=0, atol=1e-6)
    assert float((found.after + 1).abs().max()) < 1e-12


def test_two_points_on_a_line_against_a_grid(generator: torch.Generator) -> None:
    s, t = -1 - torch.rand(1, generator=generator).double(), 1 + torch.rand(1, generator=generator).double()
    points = torch.stack([s, t])
    source = torch.tensor([[True, False]]).expand(5, -1)
    z = 2 * torch.rand(5, 1, generator=generator).double() - 1
    f = witness(points, source, ~source, 1.3)
    found = move(f, z, 0.01)
    grid = torch.linspace(-2, 8, 200_001, dtype=torch.float64)
    for i in range(5):
        near = [(-(grid - p).square() / 2.6).exp() for p in (s, t)]
        values = near[0] - near[1] + 0.01 * (grid - z[i]).square()
        assert float(z[i] + found.u[i]) == pytest.approx(float(grid[values.argmin()]), abs=1e-4)
        # One point each: (s - w) k_s = (t - w) k_t - 2 lambda sigma u
        w, u = float(z[i] + found.u[i]), float(found.u[i])
        k = [float(np.exp(-((w - float(p)) ** 2) / 2.6)) for p in (s, t)]
        assert (float(s) - w) * k[0] == pytest.approx((float(t) - w) * k[1] - 2 * 0.01 * 1.3 * u, abs=1e-7)


def test_order_company_and_units_do_not_matter(generator: torch.Generator) -> None:
    f, _, _, z = clouds(generator)
    weight = 0.02 / (2 * float(f.sigma[0]))
    whole = move(f, z, weight).u
    order = torch.randperm(len(f.points), generator=generator)
    mixed = move(Witness(f.points[order], f.weights[:, order], f.sigma), z, weight).u
    alone = move(Witness(f.points, f.weights[:1], f.sigma[:1]), z[:1], weight).u
    larger = move(Witness(10 * f.points, f.weights, 100 * f.sigma), 10 * z, weight / 100).u
    for other, expected in ((mixed, whole), (alone, whole[:1]), (larger, 10 * whole)):
        torch.testing.assert_close(other, expected, rtol=1e-5, atol=1e-7)
    far = move(f, z, weight, start=whole)  # a start is where it begins
    assert int(far.iterations.max()) <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": 0.0}, "sigma must be a positive number"),
        ({"sigma": float("nan")}, "sigma must be a positive number"),
        ({"weight": -1.0}, "lambda must be 0 or a positive number"),
        ({"weight": float("inf")}, "lambda must be 0 or a positive number"),
        ({"z": float("nan")}, "a code is not finite"),
        ({"point": float("inf")}, "the codes of the examples are not finite"),
    ],
)
def test_what_cannot_be_moved_is_said(change: dict[str, Any], words: str) -> None:
    points, z = torch.eye(4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
    source = torch.tensor([True, True, False, False]).expand(2, -1)
    points[0, 0], z[0, 0] = change.get("point", 1.0), change.get("z", 1.0)
    with pytest.raises(UsageError, match=words):
        move(witness(points, source, ~source, change.get("sigma", 1.0)), z, change.get("weight", 0.1))


def test_examples_that_are_one_point_have_no_width() -> None:
    with pytest.raises(UsageError, match=r"one and the same point.*give --sigma"):
        bandwidth(torch.ones(5, 3, dtype=torch.float64))
    with pytest.raises(UsageError, match="one and the same point"):
        bandwidth(torch.ones(1, 3, dtype=torch.float64))
