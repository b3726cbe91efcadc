"""Which way of training several seeds uses the cores best: steps per second of all of them together, on the CPU.

    python benchmarks/seeds.py [--seconds 8] [--rounds 3] [--json results/seeds-cpu.json]

A: one after the other, each with a thread per core. B: a process per core, one thread each. C: in one process and one
thread, a step of each in turn. Rounds alternate A B C A B C, start-up is left out, and the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch

from distk.device import Ranks
from distk.settings import resolve
from distk.training.beginning import build


def trainer(seed: int):
    """The demo of cascadevae, after warm-up, where its step is the most expensive."""
    model = {"warmup": 0, "relieve_every": 1}
    settings = resolve("cascadevae", preset="demo", options={"model": model, "train": {"seed": seed, "device": "cpu"}})
    made = build(settings, torch.device("cpu"), Ranks())
    made.step()
    return made


def worker(threads: int, replicas: int, seconds: float, begin: float, pipe: int) -> None:
    """In a child process: build, wait for the common beginning, and report the steps made per second."""
    torch.set_num_threads(threads)
    made = [trainer(seed) for seed in range(replicas)]
    time.sleep(max(0.0, begin - time.monotonic()))
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        made[steps % replicas].step()
        steps += 1
    os.write(pipe, json.dumps(steps / (time.monotonic() - began)).encode())


def together(processes: int, threads: int, replicas: int, seconds: float, start: float) -> float:
    """Steps per second of all processes, which start counting at the same moment."""
    begin, readers = time.monotonic() + start, []
    for _ in range(processes):
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                worker(threads, replicas, seconds, begin, writer)
            finally:
                os._exit(0)
        os.close(writer)
        readers.append(reader)
    rates = [float(os.read(reader, 100)) for reader in readers]
    for _ in range(processes):
        os.wait()
    return sum(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--start", type=float, default=10, help="seconds that building may take")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    ways = {
        "one after the other, a thread per core": (1, cores, 1),
        "a process per core, one thread each": (cores, 1, 1),
        "in turn in one process, one thread": (1, 1, cores),
    }
    torch.set_num_threads(1)
    trainer(0)  # imports, once and before the forks
    rates: dict[str, list[float]] = {name: [] for name in ways}
    loads = []
    for _ in range(arguments.rounds):
        for name, (processes, threads, replicas) in ways.items():
            rates[name].append(together(processes, threads, replicas, arguments.seconds, arguments.start))
            loads.append(os.getloadavg()[0])
    result = {
        "cores": cores,
        "load": [round(load, 1) for load in loads],
        "steps_per_second": {name: statistics.median(found) for name, found in rates.items()},
        "rounds": rates,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
