"""Batched iLQR against the Riccati recursion, scipy's infinite-horizon solution, and itself one problem at a time."""

import numpy as np
import torch
from scipy.linalg import solve_discrete_are

from distk.plugins.rl_control.dyncontent.solver import Problem, Solution, gains, quadratic, solve


def linear_problem(generator, problems, k=3, m=2, reach=float("inf")):
    """z' = A z + B u with goals at zero, float64; A has spectral radius 0.9."""
    a = torch.randn(k, k, generator=generator, dtype=torch.float64)
    a = 0.9 * a / torch.linalg.eigvals(a).abs().max()
    b = torch.randn(k, m, generator=generator, dtype=torch.float64)
    half = [torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (k, m)]
    q, r = (h @ h.T + torch.eye(len(h), dtype=torch.float64) for h in half)

    def linear(z, u):
        return a.expand(len(z), -1, -1), b.expand(len(z), -1, -1)

    goal = torch.zeros(problems, k, dtype=torch.float64)
    return Problem(lambda z, u: z @ a.T + u @ b.T, linear, goal, q, r, reach), a, b, q, r


def test_one_iteration_is_the_riccati_solution(generator, monkeypatch):
    """On linear dynamics without regularisation, whatever the first actions were."""
    monkeypatch.setattr("distk.plugins.rl_control.dyncontent.solver.MU", 0.0)
    problem, a, b, q, r = linear_problem(generator, 5)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    u = torch.randn(5, 12, 2, generator=generator, dtype=torch.float64)
    found = solve(problem, z, u, 1)
    a, b, q, r = (x.numpy() for x in (a, b, q, r))
    p, gains = q, []
    for _ in range(12):
        gains.append(np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a))
        p = q + a.T @ p @ (a - b @ gains[-1])
    states, cost = z.numpy(), 0.0
    for t, gain in enumerate(reversed(gains)):
        action = -states @ gain.T
        assert np.abs(action - found.u[:, t].numpy()).max() < 1e-8
        states = states @ a.T + action @ b.T
    cost = np.einsum("ni,ij,nj->n", z.numpy(), p, z.numpy())
    assert np.abs(cost - found.cost.numpy()).max() < 1e-8 * cost.max()
    # Regularised, the first step is shorter but no other place is led to.
    monkeypatch.setattr("distk.plugins.rl_control.dyncontent.solver.MU", 1e-5)
    again = solve(problem, z, u, 4)
    assert np.abs(cost - again.cost.numpy()).max() < 1e-7 * cost.max()


def test_a_long_horizon_is_the_algebraic_riccati_equation(generator):
    problem, a, b, q, r = linear_problem(generator, 4)
    z = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    found = solve(problem, z, torch.zeros(4, 150, 2, dtype=torch.float64), 3)
    p = solve_discrete_are(*(x.numpy() for x in (a, b, q, r)))
    expected = np.einsum("ni,ij,nj->n", z.numpy(), p, z.numpy())
    assert np.abs(expected - found.cost.numpy()).max() < 1e-6 * expected.max()


def bent(generator, problems):
    """Dynamics that are not linear, with their derivatives by automatic differentiation; |u| at most 0.5."""
    w = torch.randn(2, 2, generator=generator, dtype=torch.float64)

    def step(z, u):
        return z + 0.4 * torch.tanh(z @ w) + u * (1 + 0.3 * torch.sin(z))

    def linear(z, u):
        return torch.func.vmap(torch.func.jacfwd(step, argnums=(0, 1)))(z, u)

    goal = torch.randn(problems, 2, generator=generator, dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    return Problem(step, linear, goal, 10 * eye, eye, 0.5)


def test_many_problems_are_solved_as_one_by_one(generator):
    problem = bent(generator, 64)
    z = torch.randn(64, 2, generator=generator, dtype=torch.float64)
    u = torch.rand(64, 8, 2, generator=generator, dtype=torch.float64) - 0.5
    together = solve(problem, z, u, 5)
    before = problem.cost(problem.rollout(z, u), u)
    assert bool((together.cost <= before).all())
    assert float(together.cost.mean()) < 0.7 * float(before.mean())
    assert float(together.u.abs().max()) <= 0.5
    for i in range(64):
        one = Problem(problem.step, problem.linear, problem.goal[i : i + 1], problem.q, problem.r, 0.5)
        alone = solve(one, z[i : i + 1], u[i : i + 1], 5)
        assert torch.allclose(alone.u[0], together.u[i], atol=1e-7)
        assert torch.allclose(alone.mu[0], together.mu[i])


def test_cost_is_the_sum_over_all_states_and_actions(generator):
    problem = bent(generator, 1)
    z = torch.randn(1, 4, 2, generator=generator, dtype=torch.float64)
    u = torch.randn(1, 3, 2, generator=generator, dtype=torch.float64)
    expected = sum(10 * float((z[0, t] - problem.goal[0]) @ (z[0, t] - problem.goal[0])) for t in range(4))
    expected += sum(float(u[0, t] @ u[0, t]) for t in range(3))
    assert abs(float(problem.cost(z, u)) - expected) < 1e-9
    assert abs(float(quadratic(u[0, 0], torch.eye(2, dtype=torch.float64))) - float(u[0, 0] @ u[0, 0])) < 1e-12


def test_regularisation_doubles_where_nothing_helps(generator):
    """From the optimum no step is better: the actions stay, and mu grows up to its limit."""
    problem, *_ = linear_problem(generator, 3)
    z = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    best = solve(problem, z, torch.zeros(3, 6, 2, dtype=torch.float64), 30)
    assert bool((best.mu > 1e-5).all())
    assert float(best.mu.max()) <= 10


def test_a_regularised_sweep_evaluates_its_own_feedback(generator, monkeypatch):
    """The value of each step is that of the feedback really taken: P = 2Q + K'2RK + (A + BK)' P (A + BK), by numpy."""
    problem, a, b, q, r = linear_problem(generator, 3)
    z = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    u = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64)
    states = problem.rollout(z, u)
    mu = 5.0
    _, fed = gains(problem, Solution(u, states, problem.cost(states, u), torch.full((3,), mu, dtype=torch.float64)))
    a, b, q, r = (x.numpy() for x in (a, b, q, r))
    p = 2 * q
    for t in reversed(range(6)):
        k = -np.linalg.solve(2 * r + b.T @ p @ b + mu * np.eye(2), b.T @ p @ a)
        assert np.abs(fed[:, t].numpy() - k).max() < 1e-9
        closed = a + b @ k
        p = 2 * q + k.T @ (2 * r) @ k + closed.T @ p @ closed
