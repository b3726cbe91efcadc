"""CascadeVAE's inner problem on the CPU: the ways to solve it, over items and classes, against scipy.

    python benchmarks/solver.py [--json results/solver-cpu.json]

Costs are uniform numbers, alike for every class or with a slope over them, so that classes crowd; the pair cost is 0.05
nats. Times are CPU milliseconds of one problem on one thread; `auto` is what training takes. All exact ways must find
assignments of the same objective on the 1e-4 nat grid, or the program ends with 1.
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
from torch import Tensor

from distk.plugins.vae_family.cascadevae import solver

SIZES = [(1, 2), (16, 2), (64, 3), (64, 10), (64, 32), (64, 100), (64, 300), (64, 1024), (256, 10), (256, 32)]
SIZES += [(256, 100), (1024, 3), (1024, 10), (1024, 32), (1024, 100), (4096, 10), (4096, 32)]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, wrong = [], 0
    for n, classes in SIZES:
        for slope in (0.0, 1.0):
            costs = [drawn(n, classes, slope, seed) for seed in range(arguments.problems)]
            row: dict[str, Any] = {"n": n, "classes": classes, "slope": slope}
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
            row["equal"] = len(values) == 1
            wrong += len(values) > 1
            rows.append(row)
            print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    if wrong:
        sys.exit(f"{wrong} sizes where the ways disagree")


if __name__ == "__main__":
    main()
