"""Batched solvers against scikit-learn and scipy, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.cluster import KMeans
from torch import Tensor

from distk.solvers import kmeans, lbfgs, random_points


def clouds(generator: torch.Generator, n: int = 240, size: int = 3) -> Tensor:
    centre = 3 * torch.randn(6, size, generator=generator, dtype=torch.float64)
    return centre[torch.randint(6, (n,), generator=generator)] + torch.randn(n, size, generator=generator).double()


def test_kmeans_is_scikit_learns_from_the_same_starts(generator) -> None:
    x = clouds(generator)
    start = random_points(x, 6, 5, generator)
    ours = kmeans(x, start)
    for r in range(5):
        theirs = KMeans(6, init=start[r].numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(x.numpy())
        assert np.array_equal(ours.labels[r].numpy(), theirs.labels_)
        assert float(ours.inertia[r]) == pytest.approx(theirs.inertia_, rel=1e-10)
        np.testing.assert_allclose(ours.centres[r].numpy(), theirs.cluster_centers_, rtol=1e-8, atol=1e-8)


def test_starts_are_different_points_of_the_data(generator) -> None:
    x = torch.arange(10, dtype=torch.float64)[:, None]
    start = random_points(x, 4, 2000, generator)[..., 0]
    assert all(len(set(row)) == 4 for row in start.tolist())
    share = torch.bincount(start.long().flatten(), minlength=10) / 2000
    assert float((share - 0.4).abs().max()) < 6 * (0.24 / 2000) ** 0.5
    with pytest.raises(ValueError, match="11 clusters need as many points, and there are 10"):
        random_points(x, 11, 1, generator)


def test_an_empty_cluster_goes_on_from_a_far_point() -> None:
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]], dtype=torch.float64)
    start = torch.tensor([[[0.5], [400.0]], [[10.5], [-400.0]]], dtype=torch.float64)
    found = kmeans(x, start)
    assert found.centres.sort(1).values[..., 0].tolist() == [[0.5, 10.5]] * 2
    assert found.inertia.tolist() == [1.0, 1.0]


def test_identical_points_are_tolerated(generator) -> None:
    x = torch.ones(20, 2, dtype=torch.float64)
    found = kmeans(x, random_points(x, 3, 4, generator))
    assert bool(found.centres.isfinite().all())
    assert float(found.inertia.abs().max()) < 1e-12


def witness(generator: torch.Generator, rows: int) -> tuple:
    """Rows that move from one cloud to another: smooth, not convex, every row its own start."""
    source, target = (torch.randn(30, 6, generator=generator).double() + shift for shift in (0, 1))
    z = torch.randn(rows, 6, generator=generator, dtype=torch.float64)

    def value(u: Tensor, z: Tensor) -> Tensor:
        w = z + u
        near = [(-torch.cdist(w, cloud).square() / 12).exp().mean(1) for cloud in (source, target)]
        return near[0] - near[1] + 1e-2 * u.square().sum(1)

    return z, value


def test_every_row_reaches_scipys_minimum(generator) -> None:
    z, value = witness(generator, 16)
    ours = lbfgs(lambda u: value(u, z), torch.zeros_like(z), tol=1e-9)
    assert float(ours.slope.max()) < 1e-7
    torch.testing.assert_close(ours.value, value(ours.x, z))
    for i in range(16):

        def one(u: np.ndarray, i: int = i) -> tuple[float, np.ndarray]:
            at = torch.from_numpy(u)[None].requires_grad_()
            total = value(at, z[i : i + 1]).sum()
            return float(total.detach()), torch.autograd.grad(total, at)[0][0].numpy()

        theirs = minimize(one, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-9})
        # Another basin is no failure of either: from scipy's end nothing lower may be found nearby, and ours is a
        # minimum of its own; from the same start both nearly always meet.
        at_ours = minimize(one, ours.x[i].numpy(), jac=True, method="BFGS", options={"gtol": 1e-9})
        assert float(ours.value[i]) == pytest.approx(at_ours.fun, abs=1e-10)
        assert float(ours.value[i]) <= theirs.fun + 0.05


def test_rows_do_not_disturb_each_other(generator) -> None:
    """Rosenbrock's valley, at scales from 1 to 10^4, each row with steps of its own."""
    scale = torch.logspace(0, 4, 8, dtype=torch.float64)
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64) + 0.1 * torch.randn(8, 2, generator=generator).double()

    def valley(x: Tensor, scale: Tensor = scale) -> Tensor:
        return scale * ((1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2)

    together = lbfgs(valley, start, tol=1e-8, iterations=400)
    torch.testing.assert_close(together.x, torch.ones(8, 2, dtype=torch.float64), rtol=0, atol=1e-6)
    for i in (0, 7):
        alone = lbfgs(lambda x, i=i: valley(x, scale[i : i + 1]), start[i : i + 1], tol=1e-8, iterations=400)
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=0, atol=1e-9)


def test_a_quadratic_takes_few_iterations_and_stays_in_the_span_of_its_gradients(generator) -> None:
    basis = torch.linalg.qr(torch.randn(20, 4, generator=generator, dtype=torch.float64))[0]
    target = torch.randn(5, 4, generator=generator, dtype=torch.float64) @ basis.T
    stiff = torch.logspace(0, 2, 4, dtype=torch.float64)
    calls = 0

    def bowl(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return ((x - target) @ basis).square().mul(stiff).sum(1)

    found = lbfgs(bowl, torch.zeros(5, 20, dtype=torch.float64), tol=1e-10)
    torch.testing.assert_close(found.x, target, rtol=0, atol=1e-9)
    assert float((found.x - found.x @ basis @ basis.T).abs().max()) < 1e-12
    assert calls < 100
    assert int(found.iterations.min()) >= 4
    assert int(found.iterations.max()) < calls


def test_the_line_search_brackets_a_narrow_valley(generator) -> None:
    """A gentle slope to c and a steep wall behind it: steps that are long enough and not too long are few."""
    c = 1 + 60 * torch.rand(40, generator=generator, dtype=torch.float64)

    def valley(x: Tensor) -> Tensor:
        over = x[:, 0] - c
        return torch.where(over < 0, (1e-4 + over**2).sqrt() - 1e-2, 50 * over)

    start = torch.zeros(40, 1, dtype=torch.float64)
    found = lbfgs(valley, start, iterations=1)
    at = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(valley(at).sum(), at)
    assert bool((found.value <= valley(start) - 1e-4 * found.x[:, 0] * slope[:, 0].abs()).all())
    at = found.x.clone().requires_grad_()
    (end,) = torch.autograd.grad(valley(at).sum(), at)
    assert bool((end[:, 0] >= 0.9 * slope[:, 0]).all())


def test_a_row_that_starts_at_its_minimum_does_not_move() -> None:
    start = torch.tensor([[0.0, 0.0], [3.0, -4.0]], dtype=torch.float64)
    found = lbfgs(lambda x: x.square().sum(1), start)
    assert found.x[0].tolist() == [0.0, 0.0]
    assert int(found.iterations[0]) == 0 < int(found.iterations[1])
    assert float(found.x[1].norm()) < 1e-8
