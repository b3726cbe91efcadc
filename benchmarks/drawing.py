"""Items per second that data sets draw, render or label themselves, for every registered one that needs no file.

    python benchmarks/drawing.py [DATASET ...] [--device cuda] [--batch 256] [--json results/drawing-h200.json]

A batch is drawn as training draws it, all of its columns; the time of making the data set is told apart. On a CPU
seconds are those that the process was at work, on one thread. For grasps also labels per second: whether a grasp holds,
by the quasi-static rule.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from timing import busy_seconds

from distk.data import open_dataset
from distk.device import choose_device, describe, seeded
from distk.registry import registry


def measured(name: str, device: torch.device, batch: int, seconds: float) -> dict[str, Any]:
    began = time.perf_counter()
    data = open_dataset(name, {}, device=device)
    opened = time.perf_counter() - began
    generator, bucket = seeded(0, device), data.bucket(0, 0)

    def draw() -> None:
        data.sample(batch, generator, bucket=bucket)

    one = busy_seconds(draw, 3, device) / 3
    times = max(1, min(200, round(seconds / one)))
    took = min(busy_seconds(draw, times, device) for _ in range(3)) / times
    row = {
        "origin": data.origin,
        "item": list(data.spec.shape),
        "items": len(data),
        "opened_seconds": round(opened, 2),
        "items_per_second": round(batch / took),
    }
    if hasattr(data, "label") and hasattr(data, "scene"):
        row["labels_per_second"] = round(labels(data, device, batch))
    return row


def labels(data: Any, device: torch.device, batch: int) -> float:
    rows = torch.arange(batch, device=device) % len(data)
    scene, pose = data.scene[rows], data.pose[rows]
    data.label(scene, pose)
    return batch / min(busy_seconds(lambda: data.label(scene, pose), 10, device) / 10 for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one round")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.pop("DISTK_DATA", None)  # what draws, not what reads
    torch.set_num_threads(1)
    device = choose_device(given.device)
    found: dict[str, Any] = {"device": describe(device), "torch": torch.__version__, "batch": given.batch, "data": {}}
    for name in given.datasets or [entry.name for entry in registry().entries("dataset")]:
        try:
            found["data"][name] = row = measured(name, device, given.batch, given.seconds)
        except Exception as error:  # one that reads files
            print(f"{name:20} left out: {' '.join(str(error).split())[:100]}", flush=True)
            continue
        print(f"{name:20} {json.dumps(row)}", flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
