"""grasping: the trainer's step against a bare loop, searches for grasps against the size of their batch, and how fast
scenes, pictures and labels are made.

    python benchmarks/grasping.py [--device cuda] [--preset paper] [--searches 1,100,1000] [--json FILE]

A search is --steps steps of 10 directions, each scored, the best one tried by the quasi-static rule; views are encoded
once; `cem` is the cross-entropy method of 64 samples a step. Without --data-dir the data are those of the preset.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distk.device import Ranks, describe, seeded
from distk.method import Step, eval_mode
from distk.plugins.rl_control.grasping import generator, gripper, scenes
from distk.plugins.rl_control.grasping.bodies import CATEGORIES, bodies
from distk.plugins.rl_control.grasping.data import Grasps
from distk.plugins.rl_control.grasping.method import Grasping
from distk.plugins.rl_control.grasping.metrics import points_of
from distk.plugins.rl_control.grasping.planning import Settings, Starts, planned, starts
from distk.plugins.rl_control.grasping.projection import Cube
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


def made(objects: int, poses: int, size: int, device: torch.device) -> dict[str, float]:
    """A second: pictures, scenes of eight pictures with their grids, labels by the rule. The objects are one of each
    category in turn; each has `poses` grasps near such as hold."""
    shapes = bodies([CATEGORIES[i % len(CATEGORIES)] for i in range(objects)], 0).to(device)
    draw, cube = torch.Generator().manual_seed(0), Cube()
    elevation = torch.tensor((15.0, 30.0, 45.0, 60.0)).repeat(2)
    place = scenes.placed(objects, draw, device)
    pose = scenes.cameras(elevation, 6.28 * torch.rand(8, generator=draw), torch.full((8,), 0.6)).to(device)
    k = scenes.intrinsics(size, 8, device)

    def scene(index: int) -> None:
        scenes.render(shapes, index, place[index].expand(8, 4, 4), pose, k, size, index, False)
        scenes.occupancy(shapes, index, place[index : index + 1], 32, cube)

    one = shapes.only(0)
    held = generator.demonstrations(one, 0, 5, draw, device, gripper.holds, "one")
    near = generator.near_poses(held, -(-poses // 5), draw).flatten(0, 1)[:poses]
    which = torch.zeros(len(near), dtype=torch.long, device=device)
    scene(0)
    gripper.holds(one, which, near)
    found = timed(lambda: [scene(i) for i in range(objects)], device)
    tried = timed(lambda: gripper.holds(one, which, near), device)
    return {"scenes": objects / found, "pictures": 8 * objects / found, "labels": len(near) / tried}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--data-dir")
    parser.add_argument("--searches", default="1,10,100,1000")
    parser.add_argument("--steps", type=int, default=20, help="of each search")
    parser.add_argument("--repeat", type=int, default=5, help="training steps that are timed")
    parser.add_argument("--objects", type=int, default=14, help="scenes that are made")
    parser.add_argument("--labels", type=int, default=1000, help="grasps that the rule tries at once")
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
    for planner in ("directions", "cem"):
        settings = Settings(planner, steps=arguments.steps)  # type: ignore[arg-type]
        found[f"ms a search, {planner}"] = searches(model, dataset, sizes, settings)
    found["a second"] = made(arguments.objects, arguments.labels, 128, device)
    found["device"] = describe(device)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
