"""What precision, order of memory and a kept heap do to a step on the CPU, against fp32 as torch has it.

    python benchmarks/layout.py [METHOD ...] [--rounds 5] [--json results/layout-cpu.json]

Every way is a process of its own that trains a demo preset on one thread in turns; CPU time a step, the median of the
ratios to plain fp32, page faults a step and the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WAYS: dict[str, tuple[str, bool, bool]] = {
    "fp32": ("fp32", False, False),
    "fp32, kept heap (distk)": ("fp32", False, True),
    "fp32, channels last": ("fp32", True, True),
    "bf16, channels first": ("bf16", False, True),
    "bf16 (distk: channels last)": ("bf16", True, True),
}
"""Name -> precision, whether convolutions lie channels last, whether the heap is kept."""
STEPS = 4


def child(method: str, way: str) -> None:
    """Train; for each line on stdin a few steps, and say what one took."""
    import torch
    from torch import nn

    from distk.device import Ranks, channels_last
    from distk.memory import keep_heap
    from distk.settings import resolve
    from distk.training.beginning import build

    torch.set_num_threads(1)
    precision, turned, kept = WAYS[way]
    if kept:
        keep_heap()
    options = {"train": {"device": "cpu", "precision": precision}}
    trainer = build(resolve(method, preset="demo", options=options), torch.device("cpu"), Ranks())
    if turned:
        channels_last(trainer.model)
    else:
        for module in trainer.model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(memory_format=torch.contiguous_format)
    trainer.initialise()
    for _ in range(3):
        trainer.step()
    print("ready", flush=True)
    for _ in sys.stdin:
        faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
        for _ in range(STEPS):
            trainer.step()
        taken, used = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF)
        row = {"ms": 1000 * taken / STEPS, "faults": (used.ru_minflt - faults) / STEPS, "mib": used.ru_maxrss / 1024}
        print(json.dumps(row), flush=True)


def measured(method: str, rounds: int) -> dict[str, Any]:
    """{way: {"ms", "of_fp32", "faults", "mib"}}"""
    workers: dict[str, subprocess.Popen[str]] = {}
    try:
        for way in WAYS:
            command = [sys.executable, __file__, "--child", method, way]
            workers[way] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for worker in workers.values():
            assert worker.stdout is not None
            assert worker.stdout.readline().strip() == "ready"
        rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for i in range(rounds):
            for way in list(WAYS)[:: 1 if i % 2 == 0 else -1]:
                worker = workers[way]
                assert worker.stdin is not None
                assert worker.stdout is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                rows[way].append(json.loads(worker.stdout.readline()))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    plain = [row["ms"] for row in rows["fp32"]]
    return {
        way: {
            "ms": round(statistics.median(row["ms"] for row in own), 2),
            "of_fp32": round(statistics.median(row["ms"] / a for row, a in zip(own, plain, strict=True)), 2),
            "faults": round(statistics.median(row["faults"] for row in own)),
            "mib": round(own[-1]["mib"]),
        }
        for way, own in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["cascadevae", "mvae", "aae"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(*arguments.child)
    found = {method: measured(method, arguments.rounds) for method in arguments.methods}
    for method, ways in found.items():
        for way, row in ways.items():
            print(f"{method:12} {way:28} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
