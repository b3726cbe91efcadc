"""mmdtraverse's moves of codes: all at once on a device, against scipy's one after the other.

    python benchmarks/moves.py [--device cuda] [--rows 64,512,4096] [--json results/moves-cuda.json]

Two clouds of 90 codes of 300 numbers each, 0 or above as codes of sentences are, and codes of the first that are moved
to the second: the paper's sizes, in float64. scipy takes eight of them, on one thread, with the same objective over the
paper's coefficients. Times are the median of five. `apart` is the largest difference of the two minima, in units of f*:
above 1e-9 the program ends with 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from timing import seconds
from torch import Tensor

from distk.device import choose_device, describe
from distk.plugins.text.mmdtraverse.reference import move_by_scipy
from distk.plugins.text.mmdtraverse.solver import Witness, bandwidth, move, witness

NUMBERS, EXAMPLES, BY_SCIPY, ROUNDS = 300, 90, 8, 5
LAMBDAS = (7e-5, 7e-4, 7e-3)
NEAR = 1e-9


def drawn(rows: int, device: torch.device, seed: int = 0) -> tuple[Witness, Tensor]:
    """f* of `rows` codes and the codes `[rows, 300]`, float64, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    centre = 0.35 * torch.randn(2, NUMBERS, generator=generator, dtype=torch.float64)

    def draw(which: int, n: int) -> Tensor:
        return (centre[which] + torch.randn(n, NUMBERS, generator=generator, dtype=torch.float64)).relu()

    points = torch.cat([draw(0, EXAMPLES), draw(1, EXAMPLES)]).to(device)
    source = (torch.arange(2 * EXAMPLES, device=device) < EXAMPLES).expand(rows, -1)
    return witness(points, source, ~source, bandwidth(points)), draw(0, rows).to(device)


def least(f: Witness, z: Tensor, u: Tensor, weight: float) -> Tensor:
    """What is minimised, of every row `[B]`."""
    return f(z + u) + weight * u.square().sum(1)


def measured(rows: int, weight: float, device: torch.device) -> dict[str, float]:
    f, z = drawn(rows, device)
    found = move(f, z, weight)
    batched = statistics.median(seconds(lambda: move(f, z, weight), 1, device) for _ in range(ROUNDS))
    few = Witness(f.points.cpu(), f.weights[:BY_SCIPY].cpu(), f.sigma[:BY_SCIPY].cpu())
    began = time.perf_counter()
    theirs = move_by_scipy(few, z[:BY_SCIPY].cpu(), weight)
    alone = (time.perf_counter() - began) / BY_SCIPY
    lowest = least(few, z[:BY_SCIPY].cpu(), found.u[:BY_SCIPY].cpu(), weight)
    apart = (lowest - least(few, z[:BY_SCIPY].cpu(), theirs.u, weight)).abs().max()
    return {
        "seconds": batched,
        "scipy_seconds_each": alone,
        "times_faster": alone * rows / batched,
        "iterations": int(found.iterations.max()),
        "apart": float(apart),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", default="64,512,4096")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"device": describe(device), "torch": torch.__version__, "rows": {}}
    far = 0.0
    for rows in (int(part) for part in given.rows.split(",")):
        table = result["rows"][rows] = {weight: measured(rows, weight, device) for weight in LAMBDAS}
        for weight, row in table.items():
            far = max(far, row["apart"])
            times = f"{row['seconds']:.4f} s together, {row['scipy_seconds_each']:.3f} s each by scipy"
            faster = f"{row['times_faster']:,.0f} times as fast, apart {row['apart']:.1e}"
            print(f"{rows:6} codes, lambda {weight:g}: {times}, {faster}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if far < NEAR else 1


if __name__ == "__main__":
    sys.exit(main())
