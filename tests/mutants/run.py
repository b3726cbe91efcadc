"""Errors put into the program by hand, one at a time: which test notices each?

    python tests/mutants/run.py                    # all of them: about an hour on one core
    python tests/mutants/run.py vae icm "wrong split" core/streams/2
    python tests/mutants/run.py --list
    python tests/mutants/run.py --table            # what stands in the results, as tables
    python tests/mutants/run.py --left --part 2/4 --results mine.json   # one of four calls side by side
    python tests/mutants/run.py --join *.json      # take what they found into the results

A word is an area (a file beside this one, or `metrics`), a group (`icm`, or `gan/icm`), a kind, or one mutant. A mutant
replaces a text that stands once in a file; the tests of the place where it belongs run on a copy of the program until
the first failure, three minutes at most. Afterwards the tests that failed run without any error: one that fails then,
too, has noticed nothing. The outcomes go into results/mutants-cpu.json, those of earlier calls staying there as long
as their mutant is the same; `--results` names another file. The script ends with 1 where a mutant survives without a
reason that says why it may.

Written by hand and not drawn by a tool (mutmut, cosmic-ray): those change operators and constants wherever they stand,
thousands of times, most of them where Python or torch itself fails; the errors that matter here are a training row in
a test score, a mean instead of a sum, a detach, a schedule that is off by one, and each is chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "results" / "mutants-cpu.json"
LIMIT = 180
"""Seconds that the tests of one mutant may take; a machine that has much else to do needs `--limit`."""
SEED = "1"
"""What random tests are seeded with, unless DISTK_TEST_SEED says otherwise, so that a second call does the same."""
TAKEN = ("benchmarks", "core", "docs", "plugins", "src", "tests")
"""Folders that tests need, beside the files at the top; whatever else lies there may be large."""
LEFT_BEHIND = ("__pycache__", "build", "generated", "*.egg-info")
KINDS = (
    *("term dropped", "mean for sum", "detach", "order", "leak", "axis", "sample for mean", "schedule", "preset"),
    *(
        "wrong split",
        "sign",
        "clip left out",
        "weights swapped",
        "eval mode",
        "constant",
        "label",
        "range",
        "optimizer",
    ),
    *("selection", "resume", "streams", "protocol", "formula"),
)


@dataclass(frozen=True)
class Mutant:
    """file: below the repository; old -> new: a text that stands there once; tests: what should fail, files or folders
    with a `-k` expression in `only`. survives: why no test can notice it, empty where one must."""

    name: str
    kind: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    only: str = ""
    survives: str = ""

    @property
    def digest(self) -> str:
        """What an outcome is about: another text, or other tests, make it an outcome of something else."""
        told = (self.file, self.old, self.new, self.tests, self.only)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

    @property
    def group(self) -> str:
        """Area and group."""
        return self.name.rpartition("/")[0]


def mutants() -> list[Mutant]:
    """All of them: those of the files beside this one, and those of the metrics' formulas."""
    found = []
    for path in sorted(HERE.glob("*.toml")):
        for group in tomllib.loads(path.read_text(encoding="utf-8"))["group"]:
            found += list(_of_group(path.stem, group))
    for number, row in enumerate(_metrics()):
        found.append(
            Mutant(f"metrics/formulas/{number}", "formula", row.file, row.old, row.new, (row.tests,), row.only)
        )
    return found


def _of_group(area: str, group: dict[str, Any]) -> Iterator[Mutant]:
    for number, row in enumerate(group["mutant"]):
        tests = row.get("tests", group.get("tests", ()))
        yield Mutant(
            f"{area}/{group['name']}/{row.get('number', number)}",
            row["kind"],
            row.get("file", group.get("file", "")),
            row["old"],
            row["new"],
            (tests,) if isinstance(tests, str) else tuple(tests),
            row.get("only", group.get("only", "") if "tests" not in row else ""),
            row.get("survives", ""),
        )


def _metrics() -> Sequence[Any]:
    path = HERE.parent / "metrics" / "mutants.py"
    spec = importlib.util.spec_from_file_location("metrics_mutants", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module.MUTANTS


def chosen(words: Sequence[str], every: Sequence[Mutant]) -> list[Mutant]:
    """The mutants that any of the words names; all without words. Ends the program for a word that names none."""
    if not words:
        return list(every)
    found = []
    for word in words:
        mine = [m for m in every if word in (m.name, m.kind, m.kind.replace(" ", "-"), m.group, *m.group.split("/"))]
        if not mine:
            areas = dict.fromkeys(m.name.split("/")[0] for m in every)
            sys.exit(f"error: '{word}' names no mutant, group, area ({', '.join(areas)}) or kind ({', '.join(KINDS)}).")
        found += mine
    return list(dict.fromkeys(found))


# Trying


def copied(folder: Path) -> None:
    """A copy of the program and its tests, compiled against the text of each file and not its date."""
    for path in ROOT.iterdir():
        if path.name in TAKEN:
            shutil.copytree(path, folder / path.name, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        elif path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, folder)
    line = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "core", "plugins"]
    subprocess.run(line, cwd=folder, check=True)


def run_tests(folder: Path, arguments: Sequence[str]) -> tuple[int | None, str]:
    """Exit status and output of the tests, run on the copy; the status is None where they took too long.

    In a fork of this process, which has imported what takes long and is none of ours (`preload`).
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as told:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            _child(folder, arguments, told.fileno())
        ended = _wait(child)
        told.seek(0)
        return ended, told.read()


def _child(folder: Path, arguments: Sequence[str], told: int) -> None:
    """Never returns."""
    status = 3
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number in (1, 2):
            os.dup2(told, number)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        os.environ.setdefault("DISTK_TEST_SEED", SEED)
        os.environ |= {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path.insert(0, str(folder / "src"))  # goes before the installed package
        sys.dont_write_bytecode = True
        import pytest

        status = int(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", *arguments]))
        sys.stdout.flush()
    finally:
        os._exit(status)


def _wait(child: int) -> int | None:
    """The exit status of a process, None where it took too long; whatever it has started ends with it."""
    until = time.monotonic() + LIMIT
    done, status = 0, 0
    while not done and time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if not done:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def preload() -> None:
    """Import what every test needs and takes long, nothing of the program's own."""
    for name in ("matplotlib", "pytest", "rich", "safetensors.torch", "scipy.stats", "sklearn.linear_model", "typer"):
        importlib.import_module(name)


def failures(told: str) -> list[str]:
    """The tests that failed, or whose fixtures did, as pytest names them."""
    lines = [line for line in told.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return [line.split(" ", 1)[1].split(" - ", 1)[0].strip() for line in lines if "::" in line]


def tried(folder: Path, mutant: Mutant) -> dict[str, Any]:
    """What became of a mutant: {"outcome": killed, survived or invalid, "by" or "why", "seconds"}."""
    path = folder / mutant.file
    sound = path.read_text(encoding="utf-8")
    if sound.count(mutant.old) != 1:
        return {"outcome": "invalid", "why": f"its text stands {sound.count(mutant.old)} times in {mutant.file}"}
    path.write_text(sound.replace(mutant.old, mutant.new), encoding="utf-8")
    began = time.monotonic()
    try:
        status, told = run_tests(folder, ["-x", *mutant.tests, *(["-k", mutant.only] if mutant.only else [])])
    finally:
        path.write_text(sound, encoding="utf-8")
    seconds = round(time.monotonic() - began, 1)
    if status == 1 and (failed := failures(told)):
        return {"outcome": "killed", "by": failed[0], "seconds": seconds}
    if status == 0:
        return {"outcome": "survived", "seconds": seconds}
    why = f"its tests took more than {LIMIT} s" if status is None else f"no test ran: {' '.join(told.split())[-300:]}"
    return {"outcome": "invalid", "why": why, "seconds": seconds}


def unsound(folder: Path, tests: Sequence[str]) -> set[str]:
    """Those of these tests that fail without an error in the program."""
    status, told = run_tests(folder, sorted(set(tests))) if tests else (0, "")
    return set(tests) if status not in (0, 1) else set(failures(told))


def try_all(mine: Sequence[Mutant], every: Sequence[Mutant], results: Path) -> dict[str, dict[str, Any]]:
    """The outcome of each mutant by its name, told and kept as it comes."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="distk-mutants-") as temporary:
        folder = Path(temporary)
        copied(folder)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        preload()
        for mutant in mine:
            outcome = tried(folder, mutant)
            found[mutant.name] = {"digest": mutant.digest, "kind": mutant.kind, **outcome}
            more = outcome.get("by", outcome.get("why", mutant.old.splitlines()[0].strip()[:70]))
            print(f"{mutant.name:28} {outcome['outcome']:9} {mutant.kind:16} {more}", flush=True)
            written(
                every, known(every, results) | {mutant.name: found[mutant.name]}, results
            )  # read again: others go on
        killing = [one["by"] for one in found.values() if one["outcome"] == "killed"]
        groups = [killing[i : i + 40] for i in range(0, len(killing), 40)]  # a few at a time stay below the limit
        failing = set().union(*(unsound(folder, part) for part in groups)) if killing else set()
        for name, one in found.items():
            if one.get("by") in failing:
                print(f"{name}: {one['by']} fails without an error in the program, too")
                found[name] = {**one, "outcome": "invalid", "why": f"{one.pop('by')} fails without it, too"}
    return found


# Results


def known(every: Sequence[Mutant], results: Path) -> dict[str, dict[str, Any]]:
    """The outcomes of earlier calls that are about mutants as they are now."""
    if not results.exists():
        return {}
    held = json.loads(results.read_text(encoding="utf-8"))["mutants"]
    now = {m.name: m.digest for m in every}
    return {name: one for name, one in held.items() if now.get(name) == one["digest"]}


def written(every: Sequence[Mutant], found: dict[str, dict[str, Any]], results: Path) -> None:
    """Put the outcomes into the file of results, in the order of the mutants."""
    told = {
        "made by": "python tests/mutants/run.py",
        "seed": os.environ.get("DISTK_TEST_SEED", SEED),
        "machine": f"{platform.machine()}, CPU, one thread, Python {platform.python_version()}",
        "mutants": {m.name: found[m.name] for m in every if m.name in found},
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    beside = results.with_name(f"{results.name}.{os.getpid()}")
    beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    beside.replace(results)  # whole or not at all: another call may read it at this moment


def table(every: Sequence[Mutant], found: dict[str, dict[str, Any]], of: str) -> str:
    """Counts by `area`, `group` or `kind`, in Markdown."""
    rows: dict[str, list[int]] = {}
    for mutant in every:
        key = {"area": mutant.name.split("/")[0], "group": mutant.group, "kind": mutant.kind}[of]
        row = rows.setdefault(key, [0, 0, 0, 0])
        row[0] += 1
        outcome = found.get(mutant.name, {}).get("outcome")
        if outcome is not None:
            row[1] += 1
            row[2] += outcome == "killed"
            row[3] += outcome == "survived"
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines = [f"| {of} | errors | tried | noticed | not noticed |", "|---|---:|---:|---:|---:|"]
    return "\n".join([*lines, *(f"| {key} | {' | '.join(map(str, row))} |" for key, row in rows.items())])


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="areas, groups, kinds or single ones; default: all")
    parser.add_argument("--list", action="store_true", help="show them and try nothing")
    parser.add_argument("--table", action="store_true", help="show the results and try nothing")
    parser.add_argument("--left", action="store_true", help="only those without a result, or that were not noticed")
    parser.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="every N-th of them, from the I-th on")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help=f"default: {RESULTS.name}")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="S", help=f"for the tests of one; default: {LIMIT}"
    )
    parser.add_argument("--join", type=Path, nargs="+", metavar="FILE", help="take these results in and try nothing")
    return parser.parse_args()


def part(text: str) -> tuple[int, int]:
    """I/N as two numbers."""
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"'{text}' is no part: write 2/4 for the second of four")
    return int(i), int(n)


def main() -> None:
    """Try the mutants that are named, or all."""
    global LIMIT
    given = options()
    LIMIT = given.limit
    every, results = mutants(), given.results
    mine, held = chosen(given.words, every), known(every, RESULTS) | known(every, results)
    if given.left:
        mine = [m for m in mine if held.get(m.name, {}).get("outcome") != "killed" and not m.survives]
    mine = mine[given.part[0] - 1 :: given.part[1]]
    if given.list:
        print("\n".join(f"{m.name:28} {m.kind:16} {m.file}: {m.old.splitlines()[0].strip()[:70]}" for m in mine))
        return
    if given.join:
        for path in given.join:
            held |= known(every, path)
        written(every, held, results)
    elif not given.table:
        found = try_all(mine, every, results)
        held |= known(every, results) | {name: one for name, one in found.items() if one["outcome"] == "invalid"}
        written(every, known(every, results) | found, results)
    conclude(mine, every, held)


def conclude(mine: Sequence[Mutant], every: Sequence[Mutant], held: dict[str, dict[str, Any]]) -> None:
    """Say what became of all, and which of these no test noticed; end the program with 1 where there are any."""
    for of in ("area", "kind"):
        print(f"\n{table(every, held, of)}")
    bad = [m for m in mine if held.get(m.name, {}).get("outcome") in ("survived", "invalid") and not m.survives]
    for mutant in [m for m in every if m.survives]:
        print(f"{mutant.name} may survive: {mutant.survives}")
    for mutant in bad:
        why = held[mutant.name].get("why", mutant.old.splitlines()[0].strip()[:80])
        print(f"{mutant.name} {held[mutant.name]['outcome']}: {why}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
