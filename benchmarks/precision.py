"""A step in fp32, tf32 and bf16, the latter two with convolutions channels last, against a bare loop in fp32.

    python benchmarks/precision.py [METHOD ...] [--preset paper] [--device cuda] [--json FILE]

On CUDA all of them are captured as graphs, the bare loop, too, so that its ratio is the toolkit's own share and not
that of launches. Columns are alternated in one process; the median of the rounds counts. A method whose data are not
here takes what stands in for them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import bare_loop, busy_seconds

from distk.device import Ranks, choose_device, describe, set_precision
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

PRECISIONS = ("fp32", "tf32", "bf16")


def made(method: str, preset: str | None, device: torch.device, precision: str) -> Trainer:
    options = {"train": {"device": str(device), "precision": precision, "stand_in": True}}
    known = registry().find("method", method).load().presets
    trainer = build(resolve(method, preset=preset if preset in known else None, options=options), device, Ranks())
    trainer.initialise()
    return trainer


def graphed(step: Callable[[], None], trainer: Trainer) -> Callable[[], object]:
    """The step as a CUDA graph, after eager ones on a side stream; on a CPU the step itself."""
    if trainer.device.type != "cuda":
        return step
    side = torch.cuda.Stream(trainer.device)
    side.wait_stream(torch.cuda.current_stream(trainer.device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(trainer.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(trainer.generator)
    with torch.cuda.graph(graph, stream=side):
        step()
    return graph.replay


def measured(method: str, preset: str | None, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """{column: milliseconds a step}, and each column against fp32; a column that fails says why."""
    loops: dict[str, tuple[str, Callable[[], object]]] = {}
    failed: dict[str, str] = {}
    for precision in PRECISIONS:
        try:
            loops[precision] = precision, made(method, preset, device, precision).step
        except Exception as error:
            failed[precision] = str(error)[:200]
    try:
        bare = made(method, preset, device, "fp32")
        loops["bare loop"] = "fp32", graphed(bare_loop(bare), bare)
    except Exception as error:  # a step that cannot be captured
        failed["bare loop"] = str(error)[:200]
    times: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(rounds + 1):
        for name, (precision, loop) in loops.items():
            set_precision(precision)
            taken = busy_seconds(loop, steps if i else 5, device) / steps
            times[name] += [1000 * taken] if i else []
    set_precision("fp32")
    middle = {name: statistics.median(own) for name, own in times.items()}
    of = {name: round(value / middle["fp32"], 3) for name, value in middle.items() if "fp32" in middle}
    return {"ms": {n: round(v, 3) for n, v in middle.items()}, "of_fp32": of, **({"failed": failed} if failed else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    found: dict[str, Any] = {"device": describe(device), "torch": torch.__version__, "methods": {}}
    for method in arguments.methods or [entry.name for entry in registry().entries("method")]:
        try:
            row = measured(method, arguments.preset, device, arguments.rounds, arguments.steps)
        except Exception as error:
            row = {"failed": {"all": str(error)[:200]}}
        found["methods"][method] = row
        print(method, json.dumps(row), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
