"""The commands of `make demo`, as the machine is and beside processes that compute: seconds by the clock and at work.

    python benchmarks/demo.py [--rounds 1] [--rivals 0 1] [--json results/demo-cpu.json]

The commands are those of the Makefile, in its words, run in a folder that is removed. Beside the clock stand the
seconds that a command's own processes were at work, which is what it takes on a machine of one's own with a thread, and
the load of the machine before it. `--rivals` counts processes that do nothing but compute.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def commands() -> list[tuple[dict[str, str], list[str]]]:
    """The lines of the goal `demo` that call distk: what they set in the environment, and their words."""
    goal = re.search(r"^demo:.*\n((?:\t.*\n)+)", MAKEFILE.read_text(), re.MULTILINE)
    assert goal is not None
    made = []
    for line in goal[1].splitlines():
        words = shlex.split(re.sub(r"\$\(or \$\(SEED\),(\d+)\)", r"\1", line))
        if "$(BIN)/distk" in words:
            at = words.index("$(BIN)/distk")
            made.append((dict(word.split("=", 1) for word in words[:at]), words[at + 1 :]))
    return made


def timed(folder: Path) -> dict[str, dict[str, float]]:
    """Run the commands one after the other; by their first word the seconds by the clock and at work, and the load."""
    found: dict[str, dict[str, float]] = {}
    for environment, words in commands():
        load, before, began = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "distk", *words],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"distk {words[0]} ended with {done.returncode}: {done.stderr[-500:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        row = {"clock": time.monotonic() - began, "at work": work, "load": load}
        found[words[0]] = {key: round(value, 1) for key, value in row.items()}
    total = {key: round(sum(row[key] for row in found.values()), 1) for key in ("clock", "at work")}
    return {**found, "all": {**total, "load": round(statistics.mean(row["load"] for row in found.values()), 1)}}


def beside(rivals: int) -> dict[str, dict[str, float]]:
    """`timed` with so many processes that compute."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(rivals)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            return timed(Path(folder))
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rivals", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "rounds": []}
    for number in range(arguments.rounds):
        for rivals in arguments.rivals[:: 1 if number % 2 == 0 else -1]:
            found["rounds"].append({"rivals": rivals, "commands": beside(rivals)})
            for name, row in found["rounds"][-1]["commands"].items():
                print(f"{rivals} rivals  {name:12} " + "  ".join(f"{k} {v:7.1f}" for k, v in row.items()), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
