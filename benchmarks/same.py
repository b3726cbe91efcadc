"""Whether training still gives the same numbers: digests of the weights after some steps of many methods.

    python benchmarks/same.py --json before.json                      (on the older revision)
    python benchmarks/same.py --against before.json --json after.json (on the newer one)

Each method trains its demo preset, where it has one, on one thread. A digest covers every parameter and buffer bit for
bit, another one the means that the run logged. With --against the exit code is 1 where a method of
both files differs in its weights; the largest difference of a logged mean, relative to its size, is printed beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from distk.device import Ranks
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build

METHODS = ("betavae", "dipvae", "factorvae", "betatcvae", "jointvae", "cascadevae", "mvae", "aae", "aae-s", "arae")
METHODS += ("dsvae", "icm", "icf", "jade", "fstat", "sdbegan", "covreg-xor")


def trained(method: str, steps: int) -> dict[str, Any]:
    """{"weights": digest, "logged": digest, "means": {name: mean}} of a run of so many steps."""
    device = torch.device("cpu")
    preset = "demo" if "demo" in registry().find("method", method).load().presets else None
    settings = resolve(method, preset=preset, options={"train": {"device": "cpu", "seed": 3, "steps": steps}})
    trainer = build(settings, device, Ranks())
    trainer.initialise()
    for _ in range(steps):
        trainer.step()
    weights = hashlib.sha256()
    for name, value in sorted(trainer.model.state_dict().items()):
        weights.update(name.encode() + value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    means = trainer.drain()
    logged = hashlib.sha256(json.dumps(means, sort_keys=True).encode())
    return {"weights": weights.hexdigest()[:16], "logged": logged.hexdigest()[:16], "means": means}


def apart(before: dict[str, float], now: dict[str, float]) -> float:
    """The largest difference of two runs' means relative to their size; infinite where their names differ."""
    if before.keys() != now.keys():
        return math.inf
    return max((abs(before[k] - now[k]) / max(abs(before[k]), 1e-12) for k in now), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(arguments.against.read_text()) if arguments.against else {}
    found, differs = {}, []
    for method in arguments.methods:
        found[method] = trained(method, arguments.steps)
        told = f"{method:12} weights {found[method]['weights']}  logged {found[method]['logged']}"
        if method in before:
            same = before[method]["weights"] == found[method]["weights"]
            differs += [] if same else [method]
            off = apart(before[method]["means"], found[method]["means"])
            told += f"  {'same weights' if same else 'OTHER WEIGHTS'}, logged means {off:.1e} apart"
        print(told, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if differs:
        sys.exit(f"other weights than before: {', '.join(differs)}")


if __name__ == "__main__":
    main()
