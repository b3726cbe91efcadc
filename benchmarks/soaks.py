"""A soak over methods and misfortunes: kills, a full disk, too little memory, a clock set back; seeds and studies.

    python benchmarks/soaks.py [--methods all|a,b,c] [--kills 5] [--part 1/4] [--device cpu] [--minutes 60]
                               [--engines local,ray] [--csv FILE] [--json FILE]
    python benchmarks/soaks.py --join FILE ... --csv results/soaks-cpu.csv

Every row is one run: left alone once, and once killed or starved and taken up again with what distk itself offers. It
is right when both end the same: every tensor, every row of the log (but the times), every picture, and nothing
unfinished is left in the folder. What is not right is said in the last column. On a GPU a method is left alone twice,
and held against itself where already these two runs differ. `--part` takes every so-manieth row, so that several
processes share the table, and `--join` puts tables together and counts what they hold.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import soak
import torch
from soak import Process

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "core"))
from tiny_runs import tiny

from distk import checkpoint
from distk.registry import registry

STEPS, EVERY = 24, 2
COLUMNS = ("what", "device", "misfortune", "times", "seconds", "result")
PATIENCE = 200
"""Seconds that a process may take."""


def train_of(method: str, device: str = "cpu") -> list[str]:
    """A short run of a method, the smallest that it has."""
    chosen = tiny(method).replace("--device cpu", "").split()
    return ["train", method, *chosen, "--steps", str(STEPS), "--checkpoint-every", str(EVERY), "--log-every", "3",
            "--device", device]  # fmt: skip


def left_over(run: Path) -> list[str]:
    """Unfinished files of a folder."""
    return [f"left {path.name}" for path in run.rglob("*.tmp")]


def pictures(a: Path, b: Path) -> list[str]:
    """Pictures in which two runs differ."""
    one, other = ({p.name: p.read_bytes() for p in (run / "samples").iterdir() if p.suffix == ".png"} for run in (a, b))
    return [f"picture {name}" for name in sorted(set(one) | set(other)) if one.get(name) != other.get(name)]


def ended(process: Process) -> int:
    """Its exit code."""
    return process.wait(PATIENCE)


def killed(folder: Path, train: list[str], kills: int, took: float, rng: random.Random) -> tuple[Path, int]:
    """A run that is killed at random moments and taken up until it ends: its folder, and how often it was killed."""
    run, done = folder / "killed", 0
    while True:
        whole = (run / "checkpoint.safetensors").exists()
        process = Process(["resume", str(run)] if whole else [*train, "--out", str(run)], folder)
        if done < kills:
            time.sleep(rng.uniform(0.1, 0.8) * took)
            if process.poll() is None:
                process.kill()
                done += 1
                if (run / "checkpoint.safetensors").exists():
                    checkpoint.load(run / "checkpoint.safetensors")
                continue
        if (code := ended(process)) != 0:
            raise RuntimeError(f"ended with {code}: {process.said()[-200:]}")
        return run, done


def disk() -> None:
    """Files of at most 40 kB: the checkpoint does not fit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def memory() -> None:
    """A few MB more than what is taken now."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (48 << 20), now + (48 << 20)))


def clock() -> None:
    """A clock that goes back by a day after it was asked ten times."""
    real, asked = time.time, iter(range(1 << 60))
    time.time = lambda: real() - (86400 if next(asked) > 10 else 0)


MISFORTUNES: dict[str, Callable[[], None]] = {"full disk": disk, "little memory": memory, "clock set back": clock}


def starved(folder: Path, train: list[str], kind: str) -> tuple[Path, int]:
    """A run that is begun, taken up under a misfortune, which may end it in a sentence, and taken up again."""
    run, steps = folder / "starved", train.index("--steps") + 1
    half = [*train[:steps], str(STEPS // 2), *train[steps + 1 :]]
    first = Process([*half, "--out", str(run)], folder)
    if ended(first) != 0:
        raise RuntimeError(f"ended with {first.code}: {first.said()[-200:]}")
    again = Process(["resume", str(run), "--steps", str(STEPS)], folder, MISFORTUNES[kind])
    code = ended(again)
    if code not in (0, 1, 2) or "unexpected" in again.said() or "Traceback" in again.said():
        raise RuntimeError(f"ended with {code}: {again.said()[-200:]}")
    checkpoint.load(run / "checkpoint.safetensors")
    last = Process(["resume", str(run), "--steps", str(STEPS)], folder)
    if ended(last) != 0:
        raise RuntimeError(f"ended with {last.code}: {last.said()[-200:]}")
    return run, int(code != 0)


def row(what: str, device: str, misfortune: str, make: Callable[[Path], tuple[int, list[str]]]) -> dict[str, Any]:
    """One row of the table: `make` gives how often it struck, and what is wrong."""
    folder, began = Path(tempfile.mkdtemp(prefix="soaks-")), time.monotonic()
    try:
        times, wrong = make(folder)
        result = "; ".join(wrong[:5]) or "the same"
    except (RuntimeError, TimeoutError) as error:
        times, result = 0, " ".join(str(error).split())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    made = {"what": what, "device": device, "misfortune": misfortune, "times": times}
    return {**made, "seconds": round(time.monotonic() - began), "result": result}


def of_method(
    method: str, kind: str, kills: int, rng: random.Random, device: str = "cpu"
) -> Callable[[Path], tuple[int, list[str]]]:
    """A run of a method under a misfortune, held against one that is left alone."""

    def make(folder: Path) -> tuple[int, list[str]]:
        train, began = train_of(method, device), time.monotonic()
        for name in ("alone", "twin")[: 1 if device == "cpu" else 2]:
            alone = Process([*train, "--out", str(folder / name)], folder)
            if ended(alone) != 0:
                raise RuntimeError(f"alone it ended with {alone.code}: {alone.said()[-200:]}")
        took = (time.monotonic() - began) / (1 if device == "cpu" else 2)
        if device != "cpu" and (apart := soak.differences(folder / "alone", folder / "twin")):
            return 0, [f"two runs that nobody touched differ in {len(apart)} places, as {apart[0]}"]
        run, times = killed(folder, train, kills, took, rng) if kind == "kill" else starved(folder, train, kind)
        a = folder / "alone"
        # A run that was begun with fewer steps saves at the half of them, too.
        drawn = pictures(a, run) if kind == "kill" else []
        return times, [*soak.differences(a, run), *drawn, *left_over(run)]

    return make


def of_seeds(kills: int, rng: random.Random) -> Callable[[Path], tuple[int, list[str]]]:
    """`--seeds 0:2`, its parent killed; each seed taken up again."""

    def make(folder: Path) -> tuple[int, list[str]]:
        train, began = [*train_of("cascadevae"), "--seeds", "0:2", "--out"], time.monotonic()
        if ended(alone := Process([*train, str(folder / "alone")], folder)) != 0:
            raise RuntimeError(f"alone: {alone.said()[-200:]}")
        took, out, wrong = time.monotonic() - began, folder / "killed", []
        process = Process([*train, str(out)], folder)
        time.sleep(rng.uniform(0.4, 0.9) * took)
        process.kill()
        time.sleep(5)  # the children save and end
        for seed in range(2):
            run = out / f"s{seed}"
            whole = (run / "checkpoint.safetensors").exists()
            single = [*train_of("cascadevae"), "--seed", str(seed), "--out", str(run)]
            if ended(last := Process(["resume", str(run)] if whole else single, folder)) != 0:
                raise RuntimeError(f"seed {seed}: {last.said()[-200:]}")
            wrong += [*soak.differences(folder / "alone" / f"s{seed}", run), *left_over(run)]
        return 1, wrong

    return make


RECIPE = f"""
title = "Two methods"
columns = ["mig.mig"]
seeds = 2
[train]
steps = {STEPS}
batch = 4
checkpoint_every = {EVERY}
[data]
size = 32
scales = [5]
orientations = 1
positions = 6
[[variants]]
label = "a"
method = "cascadevae"
model = {{ z = 2, hidden = 8, warmup = 0 }}
[[variants]]
label = "b"
method = "cascadevae-c"
model = {{ z = 2, hidden = 8 }}
"""


def of_study(engine: str, kills: int, rng: random.Random) -> Callable[[Path], tuple[int, list[str]]]:
    """A study on an engine, killed and repeated: its table is that of an undisturbed one."""

    def make(folder: Path) -> tuple[int, list[str]]:
        (folder / "two.toml").write_text(RECIPE)
        command = ["study", "run", "./two.toml", "--device", "cpu", "--engine", engine, "--out"]
        began = time.monotonic()
        if ended(alone := Process([*command, str(folder / "alone")], folder)) != 0:
            raise RuntimeError(f"alone: {alone.said()[-200:]}")
        took, done = time.monotonic() - began, 0
        for _ in range(kills):
            process = Process([*command, str(folder / "killed")], folder)
            time.sleep(rng.uniform(0.2, 0.7) * took)
            if process.poll() is None:
                process.kill()
                done += 1
        if ended(last := Process([*command, str(folder / "killed")], folder)) != 0:
            raise RuntimeError(last.said()[-200:])
        one, other = (values(folder / name / "results.csv") for name in ("alone", "killed"))
        return done, [*([] if one == other else ["another table"]), *left_over(folder / "killed")]

    return make


def values(path: Path) -> list[tuple[str, ...]]:
    """What a study found, without when and how fast."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return sorted(tuple(v for k, v in row.items() if "second" not in k and k not in ("run", "when")) for row in rows)


def rows(asked: argparse.Namespace, methods: list[str]) -> Iterator[Callable[[], dict[str, Any]]]:
    """The table, row by row: first every method once, then seeds and studies, then the misfortunes in turn."""

    def prepared(what: str, misfortune: str, make: Callable[..., Any], *given: Any, **more: Any) -> Any:
        rng = random.Random(f"{asked.seed} {what} {misfortune}")  # the same for a row in whatever part
        return lambda: row(what, asked.device, misfortune, make(*given, asked.kills, rng, **more))

    for method in methods:
        yield prepared(method, f"kill -9, at most {asked.kills}", of_method, method, "kill", device=asked.device)
    if asked.device != "cpu":  # what else may strike has nothing to do with it
        return
    yield prepared("cascadevae --seeds 0:2", "kill -9 of the parent", of_seeds)
    for engine in asked.engines.split(","):
        yield prepared(f"study, engine {engine}", f"kill -9, {asked.kills}", of_study, engine)
    for k, method in enumerate(methods):
        kind = list(MISFORTUNES)[k % len(MISFORTUNES)]
        yield prepared(method, kind, of_method, method, kind)


def joined(files: list[Path]) -> list[dict[str, Any]]:
    """The rows of several tables, the first of those that are the same, and what they come to."""
    made: list[dict[str, Any]] = []
    for path in files:
        with path.open(newline="") as file:
            made += [row for row in csv.DictReader(file) if row not in made]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in made:
        kind = row["misfortune"].partition(",")[0]
        kinds.setdefault(f"{row['what'].split()[0].strip(',')}, {kind}" if " " in row["what"] else kind, []).append(row)
    for kind, rows in kinds.items():
        struck, wrong = sum(int(row["times"]) for row in rows), sum(row["result"] != "the same" for row in rows)
        print(f"{kind}: {len({row['what'] for row in rows})} runs, struck {struck} times, {wrong} not the same")
    return made


def write(path: Path, made: list[dict[str, Any]]) -> None:
    """The table as it stands."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="all", help="names, divided by commas")
    parser.add_argument("--engines", default="local", help="of studies, divided by commas")
    parser.add_argument("--kills", type=int, default=5, help="kills of each run")
    parser.add_argument("--minutes", type=float, default=600, help="no row is begun after so many")
    parser.add_argument("--part", default="1/1", help="K/N: the rows K, K + N, K + 2 N, ...")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--join", nargs="*", type=Path, help="tables to put together, instead of making one")
    arguments = parser.parse_args()
    if arguments.join:
        return write(arguments.csv, joined(arguments.join))
    torch.set_num_threads(1)
    soak.warm()
    every = [entry.name for entry in registry().entries("method") if not entry.load().closed_form]
    methods = every if arguments.methods == "all" else arguments.methods.split(",")
    began, made = time.monotonic(), []
    k, n = map(int, arguments.part.split("/"))
    for make in list(rows(arguments, methods))[k - 1 :: n]:
        made.append(found := make())
        print(", ".join(f"{found[column]}" for column in COLUMNS), flush=True)
        if arguments.csv:
            write(arguments.csv, made)
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": made}, indent=1) + "\n")
        if time.monotonic() - began > 60 * arguments.minutes:
            break
    sys.exit(1 if any(found["result"] != "the same" for found in made) else 0)


if __name__ == "__main__":
    main()
