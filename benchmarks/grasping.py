"""grasping: the trainer's step against a bare loop, and searches for grasps against the size of their batch.

    python benchmarks/grasping.py [--device cuda] [--preset paper] [--searches 1,100,1000] [--json FILE]

A search is --steps steps of 10 directions, each scored, the best one tried by the quasi-static rule; views are encoded
once. Without --data-dir the data are those of the preset.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distk.device import Ranks, seeded
from distk.method import Step, eval_mode
from distk.plugins.rl_control.grasping.data import Grasps
from distk.plugins.rl_control.grasping.method import Grasping
from distk.plugins.rl_control.grasping.metrics import points_of
from distk.plugins.rl_control.grasping.planning import Settings, Starts, planned, starts
from distk.settings import resolve
from distk.source import Source
from distk.training.loop import build


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of wall clock of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def steps(trainer: Any, count: int) -> dict[str, float]:
    """Milliseconds of a step of the second stage, in the trainer and in a loop that does nothing else."""
    model, device = trainer.model, trainer.device
    source = Source(trainer.dataset, trainer.config.batch, seeded(0, device))
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)

    def bare() -> None:
        step = Step(index=trainer.counter, schedule={}, phase=None, generator=source.generator, log=lambda *_: None)
        step.batch = model.collect(source)
        optimizer.zero_grad()
        model.outcome_objective(step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    found = {}
    for name, work in (("trainer", trainer.step), ("bare loop", bare)):
        work()
        found[name] = 1000 * timed(lambda work=work: [work() for _ in range(count)], device) / count
    return found


def searches(model: Grasping, dataset: Grasps, sizes: list[int], settings: Settings) -> dict[str, dict[str, float]]:
    """Milliseconds of each search, in batches of these sizes: as a whole, and of the rule that tries the grasps."""
    found = {}
    for size in sizes:
        draw = seeded(0, dataset.device)
        begin = starts(dataset, dataset.rows_of("test"), None, size, draw)  # of every demonstration more than enough
        rows = torch.randperm(len(begin.row), generator=draw, device=dataset.device)[:size]
        begin = Starts(begin.row[rows], begin.demo[rows], begin.category[rows], begin.pose[rows])
        scene = dataset.scene[begin.row]
        with eval_mode(model):
            whole = timed(
                lambda b=begin, d=draw: planned(model, dataset, b, settings, d, points_of(model)), dataset.device
            )
        tried = timed(
            lambda b=begin, s=scene: [dataset.label(s, b.pose) for _ in range(settings.steps + 1)], dataset.device
        )
        n = len(begin.row)
        found[str(n)] = {"each": 1000 * whole / n, "of which trying": 1000 * tried / n}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--data-dir")
    parser.add_argument("--searches", default="1,10,100,1000")
    parser.add_argument("--steps", type=int, default=20, help="of each search")
    parser.add_argument("--repeat", type=int, default=5, help="training steps that are timed")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    data = {"data_dir": arguments.data_dir} if arguments.data_dir else {}
    options = {"model": {"shape_share": 0.0}, "train": {"device": arguments.device, "stand_in": True}, "data": data}
    trainer = build(resolve("grasping", preset=arguments.preset, options=options), device, Ranks())
    model, dataset = trainer.model, trainer.dataset
    assert isinstance(model, Grasping)
    assert isinstance(dataset, Grasps)
    found: dict[str, Any] = {"ms a step": steps(trainer, arguments.repeat)}
    sizes = [int(n) for n in arguments.searches.split(",")]
    found["ms a search"] = searches(model, dataset, sizes, Settings(steps=arguments.steps))
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
