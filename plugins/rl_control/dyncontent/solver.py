"""iLQR for many problems at once, on one device: the iterative linear quadratic regulator with a line search.

P problems, L steps, states of k and actions of m numbers. Cost of a trajectory:
sum_{t=0..L} (z_t - goal)^T Q (z_t - goal) + sum_{t<L} u_t^T R u_t. Nothing is read back to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MU, MU_MOST = 1e-5, 10.0
"""Levenberg's term added to Quu: where it starts, and its limit. Doubled where no step helps, reset where one does."""
ALPHAS = tuple(0.5**i for i in range(11))
"""Steps that the line search tries, all at once."""

Step = Callable[[Tensor, Tensor], Tensor]
"""States `[n, k]`, actions `[n, m]` -> next states `[n, k]`."""
Linear = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The same -> derivatives by state `[n, k, k]` and by action `[n, k, m]`."""


@dataclass(frozen=True)
class Problem:
    """Dynamics with their derivatives, goals `[P, k]`, weights Q `[k, k]` and R `[m, m]`, and |u| at most `reach`."""

    step: Step
    linear: Linear
    goal: Tensor
    q: Tensor
    r: Tensor
    reach: float = float("inf")

    def rollout(self, z: Tensor, u: Tensor) -> Tensor:
        """First states `[P, k]`, actions `[P, L, m]` -> states `[P, L + 1, k]`."""
        states = [z]
        for t in range(u.shape[1]):
            states.append(self.step(states[-1], u[:, t]))
        return torch.stack(states, 1)

    def cost(self, z: Tensor, u: Tensor) -> Tensor:
        """States `[..., P, L + 1, k]`, actions `[..., P, L, m]` -> `[..., P]`."""
        away = z - self.goal.unsqueeze(-2)
        return quadratic(away, self.q).sum(-1) + quadratic(u, self.r).sum(-1)


def quadratic(a: Tensor, weights: Tensor) -> Tensor:
    """a^T W a of rows `[..., d]`, `[...]`."""
    return ((a @ weights) * a).sum(-1)


@dataclass
class Solution:
    """u `[P, L, m]`, z `[P, L + 1, k]`, cost `[P]`, mu `[P]`: the regularisation that each problem ended with."""

    u: Tensor
    z: Tensor
    cost: Tensor
    mu: Tensor


def solve(problem: Problem, z: Tensor, u: Tensor, iterations: int) -> Solution:
    """Improve actions u `[P, L, m]` from first states z `[P, k]`; no problem's cost ever rises."""
    states = problem.rollout(z, u)
    best = Solution(u, states, problem.cost(states, u), torch.full_like(z[:, 0], MU))
    for _ in range(iterations):
        best = improved(problem, best)
    return best


def improved(problem: Problem, now: Solution) -> Solution:
    """One iteration: linearise along the trajectory, sweep back, try all steps of the line search forward."""
    k, big_k = gains(problem, now)
    alphas = now.u.new_tensor(ALPHAS)
    u, states = line_search(problem, now, k, big_k, alphas)
    costs = problem.cost(states, u)  # [steps, P]
    costs = torch.where(costs.isfinite(), costs, torch.inf)
    lowest, which = costs.min(0)
    better = lowest < now.cost
    rows = torch.arange(len(better), device=u.device)
    mu = torch.where(better, MU, (2 * now.mu).clamp_max(MU_MOST))
    pick = better[:, None, None]
    return Solution(
        torch.where(pick, u[which, rows], now.u),
        torch.where(pick, states[which, rows], now.z),
        torch.where(better, lowest, now.cost),
        mu,
    )


def gains(problem: Problem, now: Solution) -> tuple[Tensor, Tensor]:
    """The backward sweep: open-loop changes k `[P, L, m]` and feedback K `[P, L, m, k]`.

    The value's recursion uses Quu without the regularisation, so that it is exact for any mu (Tassa et al. 2012).
    """
    length, size = now.u.shape[1], now.u.shape[2]
    a, b = problem.linear(now.z[:, :-1].flatten(0, 1), now.u.flatten(0, 1))
    a, b = a.unflatten(0, (-1, length)), b.unflatten(0, (-1, length))
    eye = torch.eye(size, dtype=now.u.dtype, device=now.u.device)
    away = now.z - problem.goal.unsqueeze(1)
    vz, vzz = 2 * away[:, -1] @ problem.q, (2 * problem.q).expand(len(now.u), -1, -1)
    opened, fed = [], []
    for t in reversed(range(length)):
        at, bt = a[:, t].mT, b[:, t].mT
        qz = 2 * away[:, t] @ problem.q + (at @ vz.unsqueeze(-1)).squeeze(-1)
        qu = 2 * now.u[:, t] @ problem.r + (bt @ vz.unsqueeze(-1)).squeeze(-1)
        qzz = 2 * problem.q + at @ vzz @ at.mT
        quz = bt @ vzz @ at.mT
        quu = 2 * problem.r + bt @ vzz @ bt.mT
        right = torch.cat([qu.unsqueeze(-1), quz], -1)
        # solve_ex: plain solve reads its error code back to the host.
        solved = -torch.linalg.solve_ex(quu + now.mu[:, None, None] * eye, right)[0]
        k, big_k = solved[..., 0], solved[..., 1:]
        vz = qz + (big_k.mT @ (quu @ k.unsqueeze(-1) + qu.unsqueeze(-1)) + quz.mT @ k.unsqueeze(-1)).squeeze(-1)
        vzz = qzz + big_k.mT @ quu @ big_k + big_k.mT @ quz + quz.mT @ big_k
        vzz = (vzz + vzz.mT) / 2
        opened.append(k)
        fed.append(big_k)
    return torch.stack(opened[::-1], 1), torch.stack(fed[::-1], 1)


def line_search(problem: Problem, now: Solution, k: Tensor, big_k: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """u + alpha k + K (z_new - z), cut to what is allowed, for S alphas.

    Returns actions `[S, P, L, m]` and states `[S, P, L + 1, k]`.
    """
    s, p = len(alphas), len(now.u)
    z = now.z[:, 0].expand(s, -1, -1)
    states, actions = [z], []
    for t in range(now.u.shape[1]):
        back = (big_k[:, t] @ (z - now.z[:, t]).unsqueeze(-1)).squeeze(-1)
        u = (now.u[:, t] + alphas[:, None, None] * k[:, t] + back).clamp(-problem.reach, problem.reach)
        z = problem.step(z.flatten(0, 1), u.flatten(0, 1)).view(s, p, -1)
        states.append(z)
        actions.append(u)
    return torch.stack(actions, 2), torch.stack(states, 2)
