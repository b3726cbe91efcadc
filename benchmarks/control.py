"""dyncontent: the trainer's step against a bare loop, and iLQR plans against the size of their batch.

    python benchmarks/control.py [--device cuda] [--preset paper] [--steps 50] [--plans 1,10,100] [--json FILE]

The step: rounds alternate A B A B, the overhead is the median of the ratios; the bare loop draws the same batch
and takes the same loss, without trainer, logging and non-finite checks. A plan is one decision: 6 first sequences of 10
moves, 4 iterations with 11 steps of the line search.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from timing import bare_loop, graphed, seconds

from distk.device import Ranks, choose_device, describe, seeded
from distk.plugins.rl_control.dyncontent.planning import Settings, best_sequence, first_sequences
from distk.settings import resolve
from distk.training.beginning import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--plans", default="1,10,100,1000")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    options: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "train": {"device": str(device), "steps": 1000}}
    trainer, other = (
        build(resolve("dyncontent", preset=arguments.preset, options=options), device, Ranks()) for _ in "ab"
    )
    ours, bare = trainer.step, graphed(bare_loop(other), other)
    seconds(ours, 5, device), seconds(bare, 5, device)
    times = [(seconds(ours, arguments.steps, device), seconds(bare, arguments.steps, device)) for _ in range(5)]
    found: dict[str, Any] = {
        "device": describe(device),
        "step_ms": 1e3 * statistics.median(a for a, _ in times) / arguments.steps,
        "bare_ms": 1e3 * statistics.median(b for _, b in times) / arguments.steps,
        "ratio": statistics.median(a / b for a, b in times),
        "plans": {},
    }
    model: Any = trainer.model
    for n in map(int, arguments.plans.split(",")):
        generator = seeded(0, device)
        z, goal = (torch.randn(n, model.config.z, generator=generator, device=device) for _ in range(2))
        u = first_sequences(n, Settings().window, model.actions.size, generator)

        def work(z: torch.Tensor = z, goal: torch.Tensor = goal, u: torch.Tensor = u) -> None:
            best_sequence(model, z, goal, u, Settings())

        work()
        took = min(seconds(work, 1, device) for _ in range(2))
        found["plans"][n] = {"seconds": took, "ms_per_plan": 1e3 * took / n}
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
