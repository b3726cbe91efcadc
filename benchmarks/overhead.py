"""What logging and watching cost: a method's step against the same step with both switched off, in pairs.

    python benchmarks/overhead.py [METHOD ...] [--rounds 30] [--json results/overhead-cpu.json]

Two trainers of the same settings alternate in one process, A B B A, on one thread; times are those that the process was
at work. The median of the rounds' ratios is the overhead; also the operations of a step that are kernels on a GPU, with
and without, and the step of a bare loop over the same losses, networks, data and optimizer settings.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from timing import bare_loop, busy_seconds
from torch.utils._python_dispatch import TorchDispatchMode

from distk.device import Ranks, choose_device, describe
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer


class Kernels(TorchDispatchMode):
    """Counts the operations that are kernels on a GPU: all but views. A recurrent layer counts as one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        aliases = [r.alias_info for r in func._schema.returns]
        self.count += not (aliases and all(alias is not None and not alias.is_write for alias in aliases))
        return made


def kernels(trainer: Trainer) -> int:
    """Operations of one step."""
    with Kernels() as counted:
        trainer.step()
    return counted.count


def made(method: str, logging: bool) -> Trainer:
    """A trainer of the demo preset, where there is one. logging: without it, nothing is noted or watched."""
    preset = "demo" if "demo" in registry().find("method", method).load().presets else None
    trainer = build(resolve(method, preset=preset, options={"train": {"device": "cpu"}}), torch.device("cpu"), Ranks())
    trainer.initialise()
    if not logging:
        trainer.ledger.note = trainer.ledger.watch = lambda name, value: None  # type: ignore[method-assign]
    return trainer


def measured(method: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Times and counts of one method; a round takes about so many seconds for each of its three loops."""
    cpu = torch.device("cpu")
    ours, silent, third = made(method, True), made(method, False), made(method, True)
    loops = {"ours": ours.step, "silent": silent.step, "bare": bare_loop(third)}
    for loop in loops.values():
        busy_seconds(loop, 3, cpu)
    steps = max(1, min(50, round(seconds / busy_seconds(silent.step, 3, cpu) * 3)))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(rounds):
        for name in list(loops)[:: 1 if i % 2 == 0 else -1]:
            times[name].append(busy_seconds(loops[name], steps, cpu) / steps)
    with_it, without = kernels(ours), kernels(silent)

    def ratio(a: str, b: str) -> dict[str, float]:
        found = [x / y for x, y in zip(times[a], times[b], strict=True)]
        return {"median": round(statistics.median(found), 3), "min": round(min(found), 3), "max": round(max(found), 3)}

    return {
        "ms": round(1000 * statistics.median(times["ours"]), 3),
        "over_silent": ratio("ours", "silent"),
        "over_bare": ratio("ours", "bare"),
        "kernels": with_it,
        "kernels_of_logging": with_it - without,
        "rounds": rounds,
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--share", default="0/1", help="of the methods: I/N takes every Nth, from the Ith on")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one loop in a round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    share, of = map(int, arguments.share.split("/"))
    every = [entry.name for entry in registry().entries("method") if not entry.load().closed_form]
    methods = (arguments.methods or every)[share::of]
    found: dict[str, Any] = {"device": describe(choose_device("cpu")), "torch": torch.__version__, "methods": {}}
    for method in methods:
        try:
            found["methods"][method] = row = measured(method, arguments.rounds, arguments.seconds)
        except Exception as error:  # a method whose data are not here is left out, and said to be
            print(f"{method:16} left out: {str(error)[:120]}", flush=True)
            continue
        print(
            f"{method:16} {row['ms']:8.2f} ms  with logging / without {row['over_silent']['median']:.3f}  "
            f"over a bare loop {row['over_bare']['median']:.3f}  kernels {row['kernels']} "
            f"({row['kernels_of_logging']} of logging)",
            flush=True,
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
