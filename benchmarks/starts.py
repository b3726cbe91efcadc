"""What commands cost from start to end as whole processes: CPU seconds and modules imported.

    python benchmarks/starts.py [--before CHECKOUT] [--rounds 4] [--json results/starts-cpu.json]

CHECKOUT: another revision of this repository; its commands then run in turns with ours, and the medians of the ratios
are shown. User and system time of the process and of those that it started, as the system counts them, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
TRAIN = ["train", "betavae", "--preset", "demo", "--device", "cpu", "--log-every", "20"]
COMMANDS: dict[str, list[str]] = {
    "--version": ["--version"],
    "list": ["list"],
    "train --help": ["train", "--help"],
    "eval --help": ["eval", "--help"],
    "train, 20 steps": [*TRAIN, "--steps", "20", "--out", "{new}"],
    "resume, 20 steps": ["resume", "{copy}", "--steps", "40"],
    "eval, mig": ["eval", "{run}", "--metric", "mig", "--no-plots"],
    "eval, factorvae": ["eval", "{run}", "--metric", "factorvae", "--no-plots"],
    "traverse": ["traverse", "{run}", "--out", "{new}.png"],
    "8 seeds of 200 steps": [*TRAIN, "--steps", "200", "--seeds", "0:8", "--out", "{new}"],
}
COUNT = """
import sys
sys.argv = ["distk", *sys.argv[1:]]
from distk.cli import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write(f"MODULES {len(sys.modules)}")
"""


def cost(source: Path, command: list[str], folder: Path) -> tuple[float, int]:
    """(CPU seconds, modules) of one command of the package below `source`."""
    run = folder / "run"
    new, copy = folder / "new", folder / "copy"
    for place in (new, copy):
        shutil.rmtree(place, ignore_errors=True)
    if run.exists():
        shutil.copytree(run, copy)
    words = [w.format(new=new, copy=copy, run=run) for w in command]
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    environment["DISTK_CACHE"] = str(folder / "cache")  # codes that were encoded before would be found
    shutil.rmtree(folder / "cache", ignore_errors=True)
    process = subprocess.Popen(
        [sys.executable, "-c", COUNT, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)  # its children's time included
    if status:
        raise SystemExit(f"distk {' '.join(words)} failed: {said[-1000:]}")
    return used.ru_utime + used.ru_stime, int(said.rpartition("MODULES ")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", help="commands whose name holds this")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sources = {"now": HERE, **({"before": arguments.before.resolve()} if arguments.before else {})}
    found: dict[str, Any] = {"rounds": arguments.rounds, "load": os.getloadavg()[0], "commands": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cost(HERE, [*TRAIN, "--steps", "20", "--out", str(folder / "run")], folder)
        for name, command in COMMANDS.items():
            if arguments.only and arguments.only not in name:
                continue
            rows = [
                {which: cost(source, command, folder) for which, source in sources.items()}
                for _ in range(1 if "seeds" in name else arguments.rounds)
            ]
            row: dict[str, Any] = {
                which: {"cpu_s": round(statistics.median(r[which][0] for r in rows), 2), "modules": rows[0][which][1]}
                for which in sources
            }
            if "before" in sources:
                row["ratio"] = round(statistics.median(r["now"][0] / r["before"][0] for r in rows), 2)
            found["commands"][name] = row
            print(name, json.dumps(row), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
