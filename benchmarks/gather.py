"""A batch of pictures out of those in memory: `items[rows]` against `items.index_select(0, rows)`, on the CPU.

    python benchmarks/gather.py [--rounds 9] [--json results/gather-cpu.json]

The same bytes both ways, in turns, one thread, processor time; medians of the rounds in microseconds, batches of 64.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from timing import busy_seconds

SHAPES = {
    "3x64x64, bytes": ((10_000, 3, 64, 64), torch.uint8),
    "1x96x96, bytes": ((10_000, 96, 96), torch.uint8),
    "16 frames of 3x64x64, bytes": ((600, 16, 3, 64, 64), torch.uint8),
    "1x28x28, floats": ((10_000, 1, 28, 28), torch.float32),
}
BATCH, TIMES = 64, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cpu, found = torch.device("cpu"), {}
    for name, (shape, kind) in SHAPES.items():
        items, rows = torch.randint(0, 256, shape).to(kind), torch.randint(0, shape[0], (BATCH,))
        assert torch.equal(items[rows], items.index_select(0, rows))
        ways: dict[str, Callable[[], object]] = {
            "by index": lambda items=items, rows=rows: items[rows],
            "row by row": lambda items=items, rows=rows: items.index_select(0, rows),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(asked.rounds):
            for way, work in ways.items():
                times[way].append(1e6 * busy_seconds(work, TIMES, cpu) / TIMES)
        found[name] = {way: round(statistics.median(own), 1) for way, own in times.items()}
        print(name, json.dumps(found[name]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({"torch": torch.__version__, "microseconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
