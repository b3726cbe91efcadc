"""Every method's captured step against the same bare loop, captured, too, in each precision and order of memory.

    python benchmarks/precision.py [METHOD ...] [--preset paper] [--device cuda] [--columns fp32,compile] [--json FILE]

Columns: fp32; channels_last (fp32, 2-D convolutions channels last); tf32 and bf16 (both channels last, as distk has
them); compile (fp32 through torch's compiler). `bare COLUMN` is the loop that one would write without a toolkit, with
the same losses, networks, data and optimizers: the ratio to it is the toolkit's own share, and not that of launches.

Data are drawn, none are read, and a text method trains on batches of one length. Methods are taken up in waves of
--workers processes: they make and capture their steps side by side, and are then timed one after the other, nothing
beside. Within a method the columns alternate; the median of the rounds counts. --kernels has the profiler count those
of a step, on CUDA.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMNS = ("fp32", "channels_last", "tf32", "bf16")
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "cascadevae": {"model": {"warmup": 0, "relieve_every": 1}},  # with its solver
    "attrtransfer": {"model": {"warmup": 0, "ramp": 0}},
    "mmdtraverse": {"model": {"phase1": 0}},
    "grasping": {"model": {"shape_share": 0.0}},
}
"""What a method is told beside its preset, so that what is timed is the step of most of its training."""
SLOW = (
    "crossaligned",
    "attrtransfer",
    "dsvae",
    "mocogan",
    "vgan",
    "arae",
    "grasping",
    "graspcnn",
    "nlmultitask",
    "ldf",
)
"""Methods that take long to make; in waves of their own they keep nobody waiting."""


class Row:
    """One method: its loops, their times and counts."""

    def __init__(self, method: str, preset: str, device: str, columns: list[str]) -> None:
        self.method, self.preset, self.device = method, preset, device
        self.loops: dict[str, tuple[str, Callable[[], object]]] = {}
        self.found: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        began = time.monotonic()
        dataset: Any = None
        for column in columns:
            for kind in ("", "bare "):
                try:
                    loop, dataset = self.made(column, bool(kind), dataset)
                    self.loops[kind + column] = column, loop
                except Exception as error:  # a step that cannot be captured or compiled, data that are not here
                    self.failed[kind + column] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self.found["made_seconds"] = round(time.monotonic() - began, 1)

    def made(self, column: str, bare: bool, dataset: Any) -> tuple[Callable[[], object], Any]:
        """A loop that is captured and ready, and its data set."""
        import torch
        from timing import bare_loop, graphed

        from distk.device import Ranks, channels_last
        from distk.registry import registry
        from distk.settings import resolve
        from distk.training.beginning import build

        given = OPTIONS.get(self.method, {})
        precision = column if column in ("tf32", "bf16") else "fp32"
        train = {"device": self.device, "stand_in": True, "log_every": 10**9, "precision": precision}
        options = {**given, "train": {**given.get("train", {}), **train, "compile": column == "compile"}}
        known = registry().find("method", self.method).load().presets
        settings = resolve(self.method, preset=self.preset if self.preset in known else None, options=options)
        trainer = build(settings, torch.device(self.device), Ranks(), dataset)
        bucket = trainer.dataset.bucket(0, settings.train.seed)
        trainer.dataset.bucket = lambda step, seed: bucket  # type: ignore[method-assign]
        if column == "channels_last":
            channels_last(trainer.model)
        trainer.initialise()
        if not bare:
            for _ in range(5):
                trainer.step()
            self.found.setdefault("eager_because", trainer.eager_because)
            self.found.setdefault("batch", trainer.config.batch)
            return trainer.step, trainer.dataset
        step = bare_loop(trainer)
        return (step if trainer.eager_because else graphed(step, trainer)), trainer.dataset

    def timed(self, rounds: int, seconds: float) -> None:
        """Milliseconds a step of each loop, in rounds of about so many seconds a loop."""
        import torch
        from timing import busy_seconds

        from distk.device import set_precision

        device = torch.device(self.device)
        times: dict[str, list[float]] = {name: [] for name in self.loops}
        steps: dict[str, int] = {}
        for i in range(rounds + 1):
            for name, (column, loop) in self.loops.items():
                set_precision(column if column in ("tf32", "bf16") else "fp32")
                try:
                    taken = busy_seconds(loop, steps.get(name, 3), device) / steps.get(name, 3)
                except Exception as error:
                    self.failed.setdefault(name, f"{type(error).__name__}: {str(error)[:200]}")
                    continue
                steps[name] = max(2, min(200, round(seconds / taken)))
                times[name] += [1000 * taken] if i else []
        set_precision("fp32")
        kept = {name: own for name, own in times.items() if len(own) == rounds}
        self.found["ms"] = {name: round(statistics.median(own), 4) for name, own in kept.items()}
        self.found["least_ms"] = {name: round(min(own), 4) for name, own in kept.items()}
        self.found["of_bare"] = {
            name: round(statistics.median(a / b for a, b in zip(own, kept[f"bare {name}"], strict=True)), 3)
            for name, own in kept.items()
            if f"bare {name}" in kept
        }
        self.found["of_fp32"] = {
            name: round(statistics.median(a / b for a, b in zip(own, kept["fp32"], strict=True)), 3)
            for name, own in kept.items()
            if "fp32" in kept and name != "fp32"
        }

    def counted(self) -> None:
        """Kernels a step."""
        from timing import kernels

        with contextlib.suppress(Exception):
            self.found["kernels"] = {name: kernels(loop) for name, (_, loop) in self.loops.items()}

    def result(self) -> dict[str, Any]:
        return {**self.found, **({"failed": self.failed} if self.failed else {})}


def worker(methods: list[str | None], given: argparse.Namespace, turn: Any, meet: Any, done: Any) -> None:
    """One process's methods, one a wave; `turn` is held while times are taken, `meet` is where a wave is waited for."""
    import torch

    torch.set_num_threads(1)
    for method in methods:
        row = None
        try:
            row = Row(method, given.preset, given.device, given.columns.split(",")) if method else None
        except Exception as error:
            done.put((method, {"failed": {"all": str(error)[:200]}}))
        meet.wait()
        if row is not None:
            with turn:
                row.timed(given.rounds, given.seconds)
            done.put((method, row.result()))
        meet.wait()
        if row is not None and given.kernels:
            row.counted()
            done.put((method, row.result()))
        row = None
        if given.device.startswith("cuda"):
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--columns", default=",".join(COLUMNS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.02, help="of one loop in a round")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.pop("DISTK_DATA", None)  # data that draw: the same everywhere
    from distk.registry import registry

    names = given.methods or [entry.name for entry in registry().entries("method")]
    names.sort(key=lambda name: name in SLOW)
    waves = -(-len(names) // given.workers)
    shares = [[*names[i :: given.workers], *[None] * waves][:waves] for i in range(given.workers)]
    context = multiprocessing.get_context("spawn")
    turn, meet, done = context.Lock(), context.Barrier(given.workers), context.Queue()
    if given.device == "auto":
        from distk.device import choose_device

        given.device = str(choose_device())
    found = {"device": device_name(given.device), "preset": given.preset, "data": "drawn", "methods": {}}
    processes = [context.Process(target=worker, args=(share, given, turn, meet, done)) for share in shares]
    for process in processes:
        process.start()
    ended = 0
    while ended < 2:  # what is still in the queue when all have ended
        try:
            method, row = done.get(timeout=1)
        except Exception:
            if any(p.exitcode for p in processes):
                meet.abort()
            ended = ended + 1 if not any(p.is_alive() for p in processes) else 0
            continue
        found["methods"][method] = row
        if "kernels" in row or not given.kernels or "ms" not in row:
            print(method, json.dumps(row), flush=True)
        if given.json:
            write(given.json, found)


def device_name(device: str) -> str:
    import torch

    from distk.device import choose_device, describe

    return f"{describe(choose_device(device))}, torch {torch.__version__}"


def write(path: Path, found: dict[str, Any]) -> None:
    """As a whole, so that a process that is ended leaves what came before."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(path)


if __name__ == "__main__":
    main()
