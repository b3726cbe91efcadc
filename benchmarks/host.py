"""Data on the host against data on the device, and against a bare loop; memory and second start with many images.

    python benchmarks/host.py [--device cuda] [--images 1000000] [--resident 100000] [--json FILE]

A .npy file of `--images` random colour images of 64x64 is made in a temporary folder (12 GB for a million), another
of `--resident` for the comparison. The step is betavae's with its narrow demo networks: with the data on the device, on
the host, and written out as a bare loop over an array in memory; rounds alternate A B C, overheads are medians of the
ratios within a round. Memory is what the training process holds of its own (RssAnon), pages of the file not counted,
while it trains on all images from the host. The starts are of a folder of PNGs, decoded and then found again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import seconds

from distk.data import open_dataset
from distk.device import Ranks, choose_device, describe
from distk.method import Step
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

SIDE = 64


def write(path: Path, images: int) -> Path:
    """A file of random images, piece by piece."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (images, SIDE, SIDE, 3))
    draw = np.random.default_rng(0)
    for start in range(0, images, 8192):
        array[start : start + 8192] = draw.integers(0, 256, array[start : start + 8192].shape, dtype=np.uint8)
    array.flush()
    return path


def trainer_of(path: Path, where: str, device: torch.device, batch: int) -> Trainer:
    options = {
        "data": {"name": "arrays", "dir": str(path)},
        "train": {"batch": batch, "device": str(device), "data_on": where, "log_every": 10**9, "capture": "off"},
    }
    return build(resolve("betavae", preset="demo", options=options), device, Ranks())


def bare_loop(trainer: Trainer) -> Callable[[], None]:
    """The same step without a toolkit, its batch drawn from an array on the device."""
    model, config = trainer.model, trainer.config
    held, rows = trainer.dataset.pixels.items, trainer.dataset.rows("train")
    (objective,) = model.objectives()
    optimizer = objective.optimizer(list(objective.parameters))

    def step() -> None:
        chosen = rows[torch.randint(len(rows), (config.batch,), generator=trainer.generator, device=held.device)]
        made = Step(
            index=trainer.counter,
            schedule={k: torch.as_tensor(v) for k, v in model.schedule(0).items()},
            phase=model.phase(0),
            generator=trainer.generator,
            log=lambda name, value: None,
        )
        made.batch = {"x": held[chosen].permute(0, 3, 1, 2) / 255}
        optimizer.zero_grad()
        objective.loss(made).backward()
        optimizer.step()

    return step


def steps_of(path: Path, device: torch.device, rounds: int, steps: int, batch: int) -> dict[str, Any]:
    """Seconds of a step in the three ways, and the overheads against the bare loop."""
    work = {
        "resident": trainer_of(path, "device", device, batch).step,
        "host": trainer_of(path, "host", device, batch).step,
        "bare": bare_loop(trainer_of(path, "device", device, batch)),
    }
    for one in work.values():
        seconds(one, 3, device)
    rows = [{name: seconds(one, steps, device) / steps for name, one in work.items()} for _ in range(rounds)]
    found: dict[str, Any] = {name: statistics.median(row[name] for row in rows) for name in work}
    for name in ("resident", "host"):
        found[f"{name}_overhead"] = statistics.median(row[name] / row["bare"] for row in rows) - 1
    return found


TRAIN = """
import json, sys, threading, time
import torch
torch.set_num_threads(1)
from pathlib import Path
def own():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
peak, before = [0], None
def watch():
    while True:
        peak[0] = max(peak[0], own())
        time.sleep(0.02)
sys.path.insert(0, sys.argv[1])
from host import trainer_of
before = own()
threading.Thread(target=watch, daemon=True).start()
began = time.perf_counter()
trainer = trainer_of(Path(sys.argv[2]), "host", torch.device(sys.argv[3]), 64)
opened = time.perf_counter() - began
first = None
for i in range(int(sys.argv[4])):
    trainer.step()
    if i == 20:
        first = own()
trainer.check_health()
print(json.dumps({"opened": opened, "peak": peak[0], "imports": before, "after_20_steps": first, "at_the_end": own()}))
"""


def memory_of(path: Path, device: torch.device, steps: int) -> dict[str, Any]:
    """What a process of its own holds while it trains on the file."""
    line = [sys.executable, "-c", TRAIN, str(Path(__file__).parent), str(path), str(device), str(steps)]
    return json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def starts_of(folder: Path, images: int) -> dict[str, float]:
    """Seconds to open a folder of PNGs for the first and for the second time."""
    draw = np.random.default_rng(1)
    for i in range(images):
        target = folder / "png" / f"{i % 100:02d}" / f"{i:07d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(target, compress_level=1)
    os.environ["DISTK_CACHE"] = str(folder / "kept")
    found = {}
    for name in ("first", "second"):
        began = time.perf_counter()
        open_dataset("folder", {"size": SIDE}, folder=folder / "png", where="host")
        found[name] = time.perf_counter() - began
    return {"images": images, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--resident", type=int, default=100_000)
    parser.add_argument("--pngs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        found: dict[str, Any] = {"device": describe(device), "batch": given.batch, "images": given.images}
        few = write(folder / "few.npy", given.resident)
        found["step"] = steps_of(few, device, given.rounds, given.steps, given.batch)
        print(found["step"], flush=True)
        many = write(folder / "many.npy", given.images)
        found["memory"] = memory_of(many, device, 200)
        many.unlink()
        print(found["memory"], flush=True)
        found["starts"] = starts_of(folder, given.pngs)
        print(found["starts"], flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
