"""Damaged and hostile files by the hundred thousand: what reads a file must load it or refuse it in one sentence.

    python benchmarks/fuzz.py [--count 100000] [--seconds 60] [--seed 0] [--only NAME ...] [--json FILE]
    python benchmarks/fuzz.py --merge PART ... --json results/fuzz-cpu.json

Sound files of every kind that distk reads (`fuzzkinds.py`) are changed at random (`damage.py`) and read again in a
child process with a clock and a limit on its memory, `--count` of each kind or as many as `--seconds` allow. A crash, a
hang, an exception that is no DistkError, or memory far beyond the file's size is a failure. What distk has read in a
process of its own is read in the child itself here, so that it is seen whether a decoder dies: that is counted, as
`died`. Several processes may share the work, of other kinds or from other seeds; `--merge` adds what they kept.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from damage import mutate
from fuzzkinds import Target, targets
from resident import peak

from distk import apart, apart_process
from distk.errors import DistkError

CHUNK, SECONDS = 1000, 300
"""Files that one child reads, and the time that it has for them."""
ROOM = 512 << 20
"""Bytes that reading one damaged file may take."""
SLOW = 60
"""Seconds that one file may take."""
ADDED = ("files", "loaded", "refused", "died", "seconds")
"""What is added where results are merged."""
COUNTS = struct.Struct("<qqq")
"""What a child keeps where its parent sees it after its death: the next seed, files loaded, files refused."""


class Here:
    """In place of the process that decodes: the same functions, called in this one."""

    room, usable = apart.ROOM, True

    def __init__(self) -> None:
        self.waiting: list[Iterator[apart.Answer]] = []

    def send(self, request: dict[str, Any], content: bytes) -> None:
        self.waiting.append(apart_process.answers(json.loads(json.dumps(request)), content))

    def receive(self) -> apart.Answer:
        told, arrays = next(self.waiting[0])
        if "odd" in told:
            raise RuntimeError(f"the decoder raised {told['odd']}: {told['error']}")
        if "end" in told or "error" in told:
            del self.waiting[0]
        return told, arrays

    def end(self) -> None:
        self.waiting.clear()


def read_chunk(target: Target, seeds: range, folder: Path, until: float) -> dict[str, Any]:
    """Read the changed files of these seeds in a child process, anew after each death; counts, and what went wrong."""
    total: dict[str, Any] = {"loaded": 0, "refused": 0, "died": 0, "failures": [], "mebibytes": 0}
    start = seeds.start
    while start < seeds.stop and time.monotonic() < until:
        report = folder / "report.json"
        report.unlink(missing_ok=True)
        with mmap.mmap(-1, COUNTS.size) as kept:
            ended = _in_child(target, range(start, seeds.stop), folder, report, kept, until)
            at, loaded, refused = COUNTS.unpack(kept[:])
        total["loaded"] += loaded
        total["refused"] += refused
        if report.exists():
            found = json.loads(report.read_text())
            total["failures"] += found["failures"]
            total["mebibytes"] = max(total["mebibytes"], found["mebibytes"])
            return total
        total["died"] += 1
        if not target.apart or ended is None or not os.WIFSIGNALED(ended):  # an exit is an exception of our own
            why = "hangs" if ended is None else f"died with status {ended}"
            total["failures"].append(f"seed {at}: {why}")
        start = at + 1
    return total


def _in_child(target: Target, seeds: range, folder: Path, report: Path, kept: mmap.mmap, until: float) -> int | None:
    """The exit status of a child that reads; None where it was still busy after its time."""
    kept[:] = COUNTS.pack(seeds.start, 0, 0)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _child(target, seeds, folder, report, kept, until)
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.01)
    return ended[1]


def _child(target: Target, seeds: range, folder: Path, report: Path, kept: mmap.mmap, until: float) -> None:
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of images talk
    apart._taken = Here  # type: ignore[assignment]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    inside = folder / "in"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    path = inside / target.file
    path.write_bytes(target.content)
    try:
        target.read(path)
    except DistkError:
        assert target.name == "dsprites npz"  # cut off on purpose
    found: dict[str, Any] = {"failures": [], "mebibytes": 0}
    allowed = {"cache", report.name}  # what is costly to find out of a file is kept in the cache folder
    beside = {p.name for p in folder.iterdir()} | allowed
    loaded = refused = 0
    for seed in seeds:
        if time.monotonic() > until:
            break
        kept[:] = COUNTS.pack(seed, loaded, refused)
        apart._idle.clear()
        began, held = time.monotonic(), peak(reset=True, trim=False)
        wrong = _read_one(target, path, seed)
        took = (peak() - held) >> 20
        loaded += wrong is None
        refused += wrong is not None and not wrong
        if wrong:
            found["failures"].append(f"seed {seed}: {wrong}")
        if time.monotonic() - began > SLOW:
            found["failures"].append(f"seed {seed}: took {time.monotonic() - began:.0f} s")
        if took > ROOM >> 20:
            found["failures"].append(f"seed {seed}: took {took} MiB")
        found["mebibytes"] = max(found["mebibytes"], took)
    kept[:] = COUNTS.pack(seeds.stop, loaded, refused)
    if {p.name for p in folder.iterdir()} | allowed != beside or len(list(inside.iterdir())) != 1:
        found["failures"].append(f"seeds {seeds}: a file was written")
    report.write_text(json.dumps(found))


def _read_one(target: Target, path: Path, seed: int) -> str | None:
    """Read one changed file: None where it loads, nothing where it is refused in a sentence, or what is wrong."""
    rng = random.Random(seed)
    path.write_bytes((target.change or mutate)(target.content, rng))
    try:
        target.read(path)
    except DistkError as error:
        return f"no sentence: {str(error)[:200]!r}" if "\n" in str(error) or len(str(error)) > 2000 else ""
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:120]}"
    return None


def fuzz(target: Target, count: int, seed: int, folder: Path, seconds: float = 1e9) -> dict[str, Any]:
    """Read `count` changed files of a kind, or as many as the seconds allow; counts and failures."""
    total: dict[str, Any] = {"loaded": 0, "refused": 0, "died": 0, "failures": [], "mebibytes": 0}
    until = time.monotonic() + seconds
    for start in range(0, count, CHUNK):
        if time.monotonic() > until:
            break
        found = read_chunk(target, range(seed + start, seed + min(start + CHUNK, count)), folder, until)
        for key in ("loaded", "refused", "died"):
            total[key] += found[key]
        total["failures"] += found["failures"]
        total["mebibytes"] = max(total["mebibytes"], found["mebibytes"])
    return total


def merged(parts: list[Path]) -> dict[str, Any]:
    """One result of several, whose files come from other seeds or are of other kinds. Raises SystemExit where they
    tried the same seeds of a kind."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, found in json.loads(part.read_text())["kinds"].items():
            known = total.setdefault(name, dict.fromkeys(ADDED, 0) | {"mebibytes": 0, "failures": [], "seeds": []})
            for first, files in found["seeds"]:
                if any(first < begin + n and begin < first + files for begin, n in known["seeds"]):
                    raise SystemExit(f"{part}: {name} was tried with seeds from {first} already.")
            for key in (*ADDED, "failures", "seeds"):
                known[key] += found[key]
            known["mebibytes"] = max(known["mebibytes"], found["mebibytes"])
    return total


def told(name: str, found: dict[str, Any]) -> str:
    """A line about a kind."""
    counts = ", ".join(f"{found[key]} {key}" for key in ADDED[1:4])
    return f"{name}: {found['files']} files, {counts}, {len(found['failures'])} failures, {found['seconds']} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="changed files of each kind, at most")
    parser.add_argument("--seconds", type=float, default=60, help="seconds for each kind, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[""], help="kinds whose name begins so; the others stay in --json")
    parser.add_argument("--merge", nargs="*", type=Path, help="results to add up, instead of reading files")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"kinds": {}}
    if arguments.merge:
        result["kinds"] = merged(arguments.merge)
        result["total"] = {key: sum(found[key] for found in result["kinds"].values()) for key in ADDED[:4]}
        result["total"] |= {"kinds": len(result["kinds"]), "least": min(k["files"] for k in result["kinds"].values())}
        print(*(told(name, found) for name, found in result["kinds"].items()), sep="\n")
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
        return
    torch.set_num_threads(1)
    if arguments.only != [""] and arguments.json and arguments.json.exists():
        result = json.loads(arguments.json.read_text())
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        os.environ["DISTK_CACHE"] = str(folder / "cache")
        for target in targets(folder):
            if not target.name.startswith(tuple(arguments.only)):
                continue
            began = time.monotonic()
            found = fuzz(target, arguments.count, arguments.seed, folder, arguments.seconds)
            files = found["loaded"] + found["refused"] + found["died"]
            found |= {"files": files, "seeds": [[arguments.seed, files]], "seconds": round(time.monotonic() - began)}
            wrong += len(found["failures"])
            result["kinds"][target.name] = found
            print(told(target.name, found), *found["failures"][:20], sep="\n  ", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
