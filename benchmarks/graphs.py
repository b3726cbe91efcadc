"""Memory that the captured graphs of a run reserve: one pool for all of them, against one for each.

    python benchmarks/graphs.py [METHOD ...] [--preset paper] [--steps 200] [--json results/graphs-h200.json]

Needs CUDA. A run is trained so many steps from the beginning on drawn data, and what the allocator holds for its graphs
afterwards is read: bytes reserved once everything else that is free was given back, less what tensors outside of graphs
take.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from pathlib import Path
from typing import Any

import torch

from distk.device import Ranks, describe
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.capture import Captured

METHODS = ("arae", "attrtransfer", "crossaligned", "nlmultitask", "factorvae", "icm", "sddcgan", "cascadevae", "mvae")


class Apart(Captured):
    """A pool for every graph, as torch does it unasked."""

    def _capture(self, key: Any) -> torch.cuda.CUDAGraph:
        self._pool = None
        return super()._capture(key)


def measured(method: str, preset: str, steps: int, shared: bool) -> dict[str, float]:
    device = torch.device("cuda")
    known = registry().find("method", method).load().presets
    options = {"train": {"device": "cuda", "stand_in": True}}
    settings = resolve(method, preset=preset if preset in known else None, options=options)
    trainer = build(settings, device, Ranks())
    trainer.initialise()
    if trainer._captured is None:
        raise SystemExit(f"{method}: {trainer.eager_because}")
    if not shared:
        trainer._captured = Apart(trainer._step, trainer.generator, device)
    for _ in range(steps):
        trainer.step()
    trainer.check_health()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    pools = [s for s in torch.cuda.memory_snapshot() if tuple(s["segment_pool_id"]) != (0, 0)]
    return {
        "graphs": len(trainer._captured.graphs),
        "pools": len({tuple(s["segment_pool_id"]) for s in pools}),
        "mib_of_graphs": round(sum(s["total_size"] for s in pools) / 2**20, 1),
        "mib_reserved": round(torch.cuda.memory_reserved() / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.pop("DISTK_DATA", None)  # data that draw
    about = {"device": describe(torch.device("cuda")), "torch": torch.__version__, "preset": given.preset}
    found: dict[str, Any] = {**about, "steps": given.steps, "methods": {}}
    for method in given.methods:
        try:
            row: dict[str, Any] = {}
            for name, shared in (("one pool", True), ("a pool each", False)):
                row[name] = measured(method, given.preset, given.steps, shared)
                gc.collect()
                torch.cuda.empty_cache()
        except Exception as error:  # data that are not here
            row = {"failed": str(error)[:200]}
        found["methods"][method] = row
        print(method, json.dumps(row), flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
