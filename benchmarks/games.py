"""The step of adversarial and sequence methods against a bare loop of the same losses, and time per frame against T.

    python benchmarks/games.py [--methods infogan,ldf] [--rounds 7] [--frames] [--device cuda] [--json FILE]

Each method on its preset `demo`. Rounds alternate ours and the bare loop; the overhead is the median of the pairwise
ratios, less 1; on CUDA both are captured as graphs. With --frames: a training step and a drawn clip of the sequence
methods at T = 8 to 64 frames, and the slope of log time over log T, which is 1 where time grows in proportion. On a CPU
the time is the process's own, so that others on the machine count less.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import bare_loop, busy_seconds, graphed

from distk.device import Ranks, choose_device, describe, seeded
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer

METHODS = ("infogan", "infogan-mnist", "ldf", "joint-gan", "sddcgan", "sdbegan", "mocogan", "vgan", "indepvideo")
LENGTHS = (8, 16, 32, 64)


def trainer_of(name: str, device: torch.device, **options: dict[str, Any]) -> Trainer:
    """A fresh run on the preset `demo`, before its first step."""
    train = {"device": str(device), "log_every": 10**9}
    settings = resolve(name, preset="demo", options={**options, "train": {**options.get("train", {}), **train}})
    trainer = build(settings, device, Ranks())
    trainer.initialise()
    return trainer


def overhead(name: str, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds of our step and of the bare loop's, and how much longer ours takes."""
    trainer, other = trainer_of(name, device), trainer_of(name, device)
    bare = bare_loop(other) if trainer.eager_because else graphed(bare_loop(other), other)
    busy_seconds(trainer.step, 5, device), busy_seconds(bare, 3, device)
    pairs = [(busy_seconds(trainer.step, steps, device), busy_seconds(bare, steps, device)) for _ in range(rounds)]
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    return {
        "ours_ms": 1000 * statistics.median(ours for ours, _ in pairs) / steps,
        "bare_ms": 1000 * statistics.median(theirs for _, theirs in pairs) / steps,
        "overhead": statistics.median(ratios) - 1,
        "spread": [ratios[0] - 1, ratios[-1] - 1],
        "batch": trainer.config.batch,
        "captured": not trainer.eager_because,
    }


def growth(times: dict[int, float]) -> float:
    """Slope of log time over log T between the shortest and the longest."""
    (first, early), *_, (last, late) = sorted(times.items())
    return math.log(late / early) / math.log(last / first)


def against_length(device: torch.device, rounds: int) -> dict[str, Any]:
    """Milliseconds per frame at each length: steps of indepvideo, steps and clips of mocogan."""
    made: dict[str, dict[int, float]] = {"indepvideo, a step": {}, "mocogan, a step": {}, "mocogan, a drawn clip": {}}

    def measured(work: Callable[[], object]) -> float:
        busy_seconds(work, 2, device)
        return statistics.median(busy_seconds(work, 3, device) / 3 for _ in range(rounds))

    moco: dict[str, Any] = {"data": {"clips": 64}, "train": {"batch": 8}}
    drawn = trainer_of("mocogan", device, **moco).model.eval()
    draw = seeded(0, device)
    for length in LENGTHS:
        video: dict[str, Any] = {"data": {"name": "bouncing-squares", "frames": length}, "model": {"channels": 16}}
        made["indepvideo, a step"][length] = measured(
            trainer_of("indepvideo", device, **video, train={"batch": 16}).step
        )
        if length >= 16:  # the critic of clips sees a window of 16
            made["mocogan, a step"][length] = measured(
                trainer_of("mocogan", device, **moco, model={"length": length}).step
            )
        with torch.no_grad():
            made["mocogan, a drawn clip"][length] = measured(functools.partial(drawn.sample, 16, draw, frames=length))
    return {
        what: {"ms_per_frame": {t: 1000 * s / t for t, s in times.items()}, "slope": growth(times)}
        for what, times in made.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--frames", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    result: dict[str, Any] = {"device": describe(device), "torch": torch.__version__, "steps": {}}
    for name in filter(None, arguments.methods.split(",")):
        found = result["steps"][name] = overhead(name, device, arguments.rounds, arguments.steps)
        low, high = found["spread"]
        print(
            f"{name:14} {found['ours_ms']:8.1f} ms, bare {found['bare_ms']:8.1f} ms, overhead "
            f"{found['overhead']:+.1%} ({low:+.1%} to {high:+.1%})"
        )
    if arguments.frames:
        result["frames"] = against_length(device, arguments.rounds)
        for what, found in result["frames"].items():
            told = ", ".join(f"{t}: {ms:.2f}" for t, ms in found["ms_per_frame"].items())
            print(f"{what}: ms per frame {told}; slope {found['slope']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
