"""Kill training runs at random moments, again and again, and hold what they become against runs that nobody touched.

    python benchmarks/soak.py [--kills 30] [--seed 0] [--json results/soak-cpu.json]

Each round trains one seed twice on the CPU: once left alone, once killed with SIGKILL at random moments and taken up
with `distk resume`, about ten kills a round. After every kill the checkpoint must load. At the end of a round every
tensor of the two checkpoints (weights, optimizers, random generators, counters) and every row of the two logs must be
the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from distk import checkpoint, cli

EVERY = 4
"""A checkpoint every 4 steps: a large share of the time is spent writing, so that many kills hit a write."""
SMALL = [
    *("cascadevae", "--z", "2", "--hidden", "8", "--warmup", "40", "--relieve-every", "20", "--size", "32"),
    *("--scales", "5", "--orientations", "1", "--positions", "6", "--batch", "8", "--log-every", "3"),
    *("--checkpoint-every", str(EVERY), "--device", "cpu"),
]


def warm() -> None:
    """Import, once and before any fork, what building a trainer imports lazily: two seconds of each process's life."""
    import torch.distributed

    from distk.device import Ranks
    from distk.settings import resolve
    from distk.training import loop

    data = {"size": 32, "scales": [5], "orientations": 1, "positions": 6}
    settings = resolve("cascadevae", options={"model": {"hidden": 8}, "data": data, "train": {"device": "cpu"}})
    loop.build(settings, torch.device("cpu"), Ranks())


_count = itertools.count()


class Process:
    """`distk` with these arguments in a process of its own.

    Forked from this one, which has torch imported already: on a busy machine that is most of a short run's time. With
    `cuda` among the arguments it is a program of its own.
    """

    def __init__(
        self, arguments: list[str], folder: Path, prepare: Callable[[], None] | None = None, **environment: str
    ) -> None:
        self.code: int | None = None
        self.log = folder / f"said-{next(_count)}.txt"
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments, folder, prepare, environment)

    def _run(self, arguments: list[str], folder: Path, prepare: Any, environment: dict[str, str]) -> None:
        code = 70
        try:
            os.chdir(folder)
            os.environ.update(environment)
            said = os.open(self.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
            if "cuda" in arguments:  # CUDA is not for forks
                os.execv(sys.executable, [sys.executable, "-m", "distk", *arguments])
            if prepare is not None:
                prepare()
            sys.argv = ["distk", *arguments]
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = 3600) -> int:
        """The exit code, once it has ended. Kills it and raises TimeoutError after so many seconds."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"still running after {seconds} s: {self.said()}")
            time.sleep(0.005)
        return code

    def said(self) -> str:
        """What it printed."""
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def after_writes(process: Process, target: Path, writes: int, rng: random.Random) -> None:
    """Wait until the process has replaced its checkpoint so many times, and then for a random part of the time that
    it takes to the next."""
    last, since, took = (target.stat().st_mtime_ns if target.exists() else 0), None, 0.1
    while writes and process.poll() is None:
        now = target.stat().st_mtime_ns if target.exists() else 0
        if now != last:
            # The first write comes after the start-up, which says nothing about the time between two of them.
            took = took if since is None else time.monotonic() - since
            last, since, writes = now, time.monotonic(), writes - 1
        time.sleep(0.002)
    time.sleep(rng.uniform(0, took))


def in_a_write(process: Process, run: Path, rng: random.Random) -> None:
    """Wait until the process has begun to write a checkpoint, and then for a moment."""
    while process.poll() is None and not list(run.glob(".checkpoint*.tmp")):
        pass
    time.sleep(rng.uniform(0, 0.003))


def kill_and_resume(run: Path, train: list[str], kills: int, writes: int, rng: random.Random) -> dict[str, Any]:
    """Train a run to its end with up to so many kills on the way; what was seen at each of them."""
    seen: list[dict[str, Any]] = []
    target, last = run / "checkpoint.safetensors", -1
    while True:
        process = Process(["resume", str(run)] if target.exists() else train, run.parent)
        if len(seen) < kills:
            # Of five kills one comes at any moment of start-up, two while steps are made, two in the middle of a write.
            kind = rng.random()
            if kind < 0.2:
                time.sleep(rng.uniform(0, 1))
            else:
                after_writes(process, target, rng.randint(1, writes), rng)
            if kind > 0.6:
                in_a_write(process, run, rng)
        if len(seen) >= kills or process.poll() is not None:
            code = process.wait()
            assert code == 0, f"distk ended with {code}: {process.said()[-600:]}"
            return {"kills": seen}
        process.kill()
        if not target.exists():
            seen.append({"step": None, "partial": 0})
            print(f"kill {len(seen)}: before the first checkpoint", flush=True)
            continue
        _, header = checkpoint.load(target)
        state = checkpoint.load_training(target)
        assert int(state["step"]) == header.step >= last, f"step {header.step} after {last}"
        last = header.step
        seen.append({"step": last, "partial": len(list(run.glob(".*.tmp")))})
        print(f"kill {len(seen)}: checkpoint of step {last} loads, {seen[-1]['partial']} unfinished files", flush=True)


def differences(a: Path, b: Path) -> list[str]:
    """Names of tensors, and numbers of log rows, in which two runs differ."""
    first, second = (load_file(p / "checkpoint.safetensors") for p in (a, b))
    found = sorted(set(first) ^ set(second))
    found += [name for name in set(first) & set(second) if not torch.equal(first[name], second[name])]
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "rate")}
            for line in (p / "log.jsonl").read_text().splitlines()
        ]
        for p in (a, b)
    ]
    if len(logs[0]) != len(logs[1]):
        found.append(f"{len(logs[0])} and {len(logs[1])} log rows")
    return found + [f"log row {i}" for i, (x, y) in enumerate(zip(*logs, strict=False)) if x != y]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="kills in all")
    parser.add_argument("--steps", type=int, default=240, help="steps of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng, began = random.Random(arguments.seed), time.monotonic()
    torch.set_num_threads(1)
    warm()
    rounds: list[dict[str, Any]] = []
    while (left := arguments.kills - sum(len(made["kills"]) for made in rounds)) > 0:
        share = min(left, -(-arguments.kills // 3))
        seed, folder = str(arguments.seed + len(rounds)), Path(tempfile.mkdtemp(prefix="soak-"))
        train = ["train", *SMALL, "--steps", str(arguments.steps), "--seed", seed, "--out"]
        alone = Process([*train, str(folder / "alone")], folder)
        assert alone.wait() == 0, alone.said()[-600:]
        writes = max(1, int(1.5 * arguments.steps / EVERY / share))
        made = kill_and_resume(folder / "killed", [*train, str(folder / "killed")], share, writes, rng)
        made |= {"seed": int(seed), "differences": differences(folder / "alone", folder / "killed")}
        made["tensors"] = len(checkpoint.sizes(folder / "alone" / "checkpoint.safetensors"))
        found = made["differences"] or "none"
        print(f"round {len(rounds)}: {len(made['kills'])} kills, differences: {found}", flush=True)
        rounds.append(made)
        shutil.rmtree(folder)
    kills = [kill for made in rounds for kill in made["kills"]]
    result = {
        "kills": len(kills),
        "before_the_first_checkpoint": sum(kill["step"] is None for kill in kills),
        "in_the_middle_of_a_write": sum(kill["partial"] > 0 for kill in kills),
        "checkpoints_loaded_after_a_kill": sum(kill["step"] is not None for kill in kills),
        "runs": len(rounds),
        "runs_that_differ": sum(bool(made["differences"]) for made in rounds),
        "steps": arguments.steps,
        "seconds": round(time.monotonic() - began),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rounds": rounds,
    }
    print(json.dumps({k: v for k, v in result.items() if k != "rounds"}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if result["runs_that_differ"] else 0)


if __name__ == "__main__":
    main()
