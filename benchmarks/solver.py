"""CascadeVAE's inner problem: the ways to solve it, over items and classes, against scipy.

    python benchmarks/solver.py [--json results/solver-cpu.json]
    python benchmarks/solver.py --device cuda [--json results/solver-h200.json]

Costs are uniform numbers, alike for every class or with a slope over them, so that classes crowd; the pair cost is 0.05
nats. On the CPU times are CPU milliseconds of one problem on one thread, on CUDA milliseconds of wall time: `auto`
(Triton) and `fixed` (as many exchanges as could be needed) as replayed graphs, `asking` (after each exchange) eagerly.
`auto` is what training takes. All exact ways must find assignments of the same objective on the 1e-4 nat grid, or the
program ends with 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import seconds
from torch import Tensor

from distk.device import choose_device, describe
from distk.plugins.vae_family.cascadevae import solver

SIZES = [(1, 2), (16, 2), (64, 3), (64, 10), (64, 32), (64, 100), (64, 300), (64, 1024), (256, 10), (256, 32)]
SIZES += [(256, 100), (1024, 3), (1024, 10), (1024, 32), (1024, 100), (4096, 10), (4096, 32)]
ON_CUDA = [(64, classes) for classes in (2, 3, 4, 8, 10, 16, 32, 64, 65, 100, 256, 1024)]
ON_CUDA += [(256, 10), (256, 64), (256, 100), (1024, 10), (1024, 100), (1024, 1024)]
PAIR = 0.05


def drawn(n: int, classes: int, slope: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.rand(n, classes, generator=generator) + slope * torch.linspace(0, 1, classes)


def ways(n: int, classes: int) -> dict[str, Callable[[Tensor], solver.Solution]]:
    """The ways that end within seconds at this size; `dense` holds n S S arcs and all paths."""
    step = solver.pair_units(PAIR)
    found: dict[str, Callable[[Tensor], solver.Solution]] = {"auto": lambda cost: solver.solve(cost, PAIR)}
    if n * classes**2 < 3e6 and classes <= 200:
        found["dense"] = lambda cost: solver._early_exit(*solver._integer_costs(cost[None], step))
    found["sparing"] = lambda cost: solver._sparing(*solver._integer_costs(cost[None], step), True)
    if n * n * classes <= 1e7:
        found["scipy"] = lambda cost: solver.solve(cost, PAIR, "scipy")
    return found


def on_cuda(costs: list[Tensor], row: dict[str, Any]) -> set[int]:
    """Add the ways' milliseconds on CUDA to a row; the objectives that they found, summed over the problems."""
    n, classes = costs[0].shape
    device, static = costs[0].device, costs[0].clone()
    ways: dict[str, Callable[[], solver.Solution]] = {"auto": lambda: solver.solve(static, PAIR)}
    if classes <= 100:
        ways["fixed"] = lambda: solver.solve(static, PAIR, "torch", iterations=n, early_exit=False)
    ways["asking"] = lambda: solver.solve(static, PAIR, "torch", early_exit=True)
    values = set()
    for name, way in ways.items():
        found, work = captured(way) if name != "asking" else (None, way)
        times, total = [], 0
        for cost in costs:
            static.copy_(cost)
            if found is None:
                solution = way()
            else:
                work()
                solution = found
            total += int(solver.grid_objective(cost, solution.assignment.view(n), PAIR))
            if name == "auto":
                row["exchanges"] = max(row.get("exchanges", 0), int(solution.exchanges.max()))
            times.append(1000 * seconds(work, 5, device) / 5)
        row[name] = round(statistics.median(times), 4)
        values.add(total)
    return values


def captured(way: Callable[[], solver.Solution]) -> tuple[solver.Solution, Callable[[], object]]:
    """A way as a graph: where its solution will lie, and what replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        way()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = way()
    return found, graph.replay


def on_cpu(costs: list[Tensor], row: dict[str, Any]) -> set[int]:
    """As `on_cuda`, in CPU milliseconds."""
    n, classes = costs[0].shape
    values = set()
    for name, way in ways(n, classes).items():
        way(costs[0])  # imports, and the first allocations
        times, total = [], 0
        for cost in costs:
            began = time.process_time()
            found = way(cost)
            times.append(1000 * (time.process_time() - began))
            total += int(solver.grid_objective(cost, found.assignment.view(n), PAIR))
        row[name] = round(statistics.median(times), 2)
        values.add(total)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device(arguments.device)
    rows, wrong = [], 0
    for n, classes in ON_CUDA if device.type == "cuda" else SIZES:
        for slope in (0.0, 1.0):
            costs = [drawn(n, classes, slope, seed).to(device) for seed in range(arguments.problems)]
            row: dict[str, Any] = {"n": n, "classes": classes, "slope": slope}
            values = (on_cuda if device.type == "cuda" else on_cpu)(costs, row)
            row["equal"] = len(values) == 1
            wrong += len(values) > 1
            rows.append(row)
            print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
            if arguments.json:
                about = {"device": describe(device), "torch": torch.__version__, "rows": rows}
                arguments.json.write_text(json.dumps(about, indent=1) + "\n")
    if wrong:
        sys.exit(f"{wrong} sizes where the ways disagree")


if __name__ == "__main__":
    main()
