"""How threads that wait decide the speed of a step: on an idle machine, and with another process busy on a core.

    python benchmarks/threads.py [--rounds 5] [--json results/threads-cpu.json]

Every way of waiting is a process of its own that trains in turns, so that all meet the same machine: one thread; as
many as there are cores, which wait as OpenMP has it (spinning for milliseconds), spin shortly, or sleep as `distk`
sets it. Times are wall time per step, the best and the median of the rounds, and the median against one thread. `load`
is what the machine had to do in each state, these processes among it: idle is what is idle but for them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "cascadevae, preset demo": {"method": "cascadevae", "preset": "demo"},
    "betavae, 64x64": {"method": "betavae", "options": {"data": {"size": 64}, "train": {"batch": 64}}},
}
CORES = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
WAYS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "as OpenMP waits": {"OMP_NUM_THREADS": CORES},
    "short spins": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "1000"},
    "asleep (distk)": {"OMP_NUM_THREADS": CORES, "OMP_WAIT_POLICY": "passive"},
}
SECONDS = 0.7


def child(case: str) -> None:
    """Train; for each line on stdin, as long as SECONDS, and say how many milliseconds a step took."""
    import torch

    from distk.device import Ranks
    from distk.settings import resolve
    from distk.training.beginning import build

    chosen = CASES[case]
    options = {**chosen.get("options", {})}
    options["train"] = {**options.get("train", {}), "device": "cpu"}
    settings = resolve(chosen["method"], preset=chosen.get("preset"), options=options)
    trainer = build(settings, torch.device("cpu"), Ranks())
    for _ in range(3):
        trainer.step()
    print("ready", flush=True)
    for _ in sys.stdin:
        trainer.step()
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            trainer.step()
            steps += 1
        print(1000 * (time.perf_counter() - began) / steps, flush=True)


def begun(case: str, way: str) -> subprocess.Popen[str]:
    """The process of one case and way, ready to train."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--child", case]
    made = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**clean, **WAYS[way]}
    )
    assert made.stdout is not None
    assert made.stdout.readline().strip() == "ready"
    return made


def turn(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def measured(rounds: int) -> dict[str, Any]:
    """{"states": {state: {case: {way: {"best", "median", "of_one_thread"}}}}, "load": {state: load}}, milliseconds a
    step."""
    workers = {(case, way): begun(case, way) for case in CASES for way in WAYS}
    found: dict[str, Any] = {}
    try:
        for state in ("idle", "busy"):
            rival = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if state == "busy" else None
            try:
                times: dict[tuple[str, str], list[float]] = {key: [] for key in workers}
                for i in range(rounds):
                    for key in list(workers)[:: 1 if i % 2 == 0 else -1]:
                        times[key].append(turn(workers[key]))
            finally:
                if rival is not None:
                    rival.kill()
                    rival.wait()
            found.setdefault("load", {})[state] = round(os.getloadavg()[0], 1)
            for (case, way), own in times.items():
                of_one = statistics.median(a / b for a, b in zip(own, times[case, "one thread"], strict=True))
                row = {"best": round(min(own), 2), "median": round(statistics.median(own), 2)}
                found.setdefault("states", {}).setdefault(state, {}).setdefault(case, {})[way] = {
                    **row,
                    "of_one_thread": round(of_one, 2),
                }
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child)
    found = {"cores": int(CORES), **measured(arguments.rounds)}
    for state, cases in found["states"].items():
        for case, ways in cases.items():
            for way, row in ways.items():
                print(f"{state:5} {case:26} {way:20} " + "  ".join(f"{k} {v:8.2f}" for k, v in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
