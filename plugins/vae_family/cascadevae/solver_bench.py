"""The solvers side by side on random problems, for `distk cascadevae mcf`."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from distk.plugins.vae_family.cascadevae.solver import Solver, automatic, grid_objective, objective, solve


def bench(
    n: int, classes: int, spread: float, pair_cost: float, repeats: int, device: torch.device | str
) -> list[dict[str, str | int | float | None]]:
    """Compares the solvers that `device` can run on `repeats` random problems, cost = spread * uniform [n, classes].

    Returns one row per solver: `solver`; `objective` and `grid_objective`, the sums of F over the problems (nats,
    and 1e-4 nat: equal for all exact solvers); `exchanges_mean` and `exchanges_max` (None for scipy and argmin);
    `unconverged`, problems not proven optimal; `median_ms` per problem, launches and synchronisation included.
    Draws from torch's global generator.
    """
    if min(n, classes, repeats) < 1:
        raise ValueError(f"n, classes and repeats must be positive, found {n}, {classes}, {repeats}")
    device = torch.device(device)
    costs = [spread * torch.rand(n, classes).to(device) for _ in range(repeats)]
    variants: list[tuple[str, Solver, bool | None]] = [
        ("torch early exit", "torch", True),
        ("torch fixed", "torch", False),
    ]
    if automatic(classes, device) == "triton":
        variants.append(("triton", "triton", None))
    variants += [("scipy", "scipy", None), ("argmin", "argmin", None)]
    return [_row(name, solver, quick, costs, pair_cost) for name, solver, quick in variants]


def _row(
    name: str, solver: Solver, early_exit: bool | None, costs: list[Tensor], pair_cost: float
) -> dict[str, str | int | float | None]:
    on_cuda = costs[0].is_cuda
    solve(costs[0], pair_cost, solver, early_exit=early_exit)  # compiles and warms up
    times, found = [], []
    for cost in costs:
        if on_cuda:
            torch.cuda.synchronize(cost.device)
        start = time.perf_counter()
        found.append(solve(cost, pair_cost, solver, early_exit=early_exit))
        if on_cuda:
            torch.cuda.synchronize(cost.device)
        times.append(1e3 * (time.perf_counter() - start))
    pairs = list(zip(costs, found, strict=True))
    moves = [int(solution.exchanges) for solution in found] if solver in ("torch", "triton") else None
    return {
        "solver": name,
        "objective": sum(float(objective(cost, s.assignment, pair_cost)) for cost, s in pairs),
        "grid_objective": sum(int(grid_objective(cost, s.assignment, pair_cost)) for cost, s in pairs),
        "exchanges_mean": sum(moves) / len(moves) if moves else None,
        "exchanges_max": max(moves) if moves else None,
        "unconverged": sum(not bool(s.converged) for s in found),
        "median_ms": sorted(times)[len(times) // 2],
    }
