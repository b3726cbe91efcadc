"""What a precision costs in score: runs that differ in nothing else, several seeds, and the scores that they end with.

    python benchmarks/precision_scores.py [METHOD ...] [--preset demo] [--seeds 0:5] [--steps N] [--device cuda]
        [--precisions fp32,tf32,bf16,compile] [--json results/precision-scores-h200.json]

Seeds are trained side by side, and scored by what `gpu.py` scores a method's paper by; methods that stand in the file
already and are not asked for stay there. Beside each precision stand mean and standard deviation over its seeds, and
the mean difference to fp32 at the same seed with its standard error. `compile` is fp32 through torch's compiler.
Weights begin the same and batches are the same, but rounding grows from step to step, so that runs of one seed end
apart even where nothing is lost: judge the mean.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu import METHODS as SCORES

import distk
from distk.device import choose_device, describe
from distk.registry import registry
from distk.settings import resolve
from distk.training.replicas import side_by_side

METHODS = ("betavae", "factorvae", "cascadevae")
HELD = {"betavae": {"factorvae": "eval", "mig": "mig", "reconstruction": "nll_image"}}
"""Scores and their numbers, where they are not the headlines of what `gpu.py` names."""


def scores_of(method: str) -> dict[str, str]:
    """The scores of a method, and the number of each that is looked at."""
    return HELD.get(method) or {name: registry().find("metric", name).load().headline for name in SCORES[method]}


def trained(method: str, given: argparse.Namespace, precision: str, folder: Path) -> dict[str, Any]:
    """{score: [one a seed]} of one method in one precision."""
    first, last = map(int, given.seeds.split(":"))
    train = {"device": given.device, "precision": "fp32" if precision == "compile" else precision}
    train |= {"compile": precision == "compile", **({"steps": given.steps} if given.steps else {})}
    many = [
        resolve(method, preset=given.preset, options={"train": {**train, "eval_every": 0, "keep": "", "seed": seed}})
        for seed in range(first, last)
    ]
    began = time.monotonic()
    device = choose_device(given.device)
    runs = side_by_side(many, [folder / f"{precision}-s{one.train.seed}" for one in many], device, quiet=True)
    row: dict[str, Any] = {"steps": many[0].train.steps, "seconds": round(time.monotonic() - began, 1)}
    row |= {} if given.rows is None else {"rows": given.rows}
    scores = scores_of(method)
    for name in scores:
        row[name] = []
    for run in runs:
        scored = distk.evaluate(distk.load(run, device), list(scores), rows=given.rows)["metrics"]
        for name, key in scores.items():
            row[name].append(scored[name][key])
    return row


def compared(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """precision -> score -> mean, standard deviation, difference to fp32 and its standard error."""
    found: dict[str, Any] = {}
    for precision, row in rows.items():
        for name, own in row.items():
            if not isinstance(own, list):
                continue
            if not all(map(math.isfinite, [*own, *(rows["fp32"][name] if "fp32" in rows else [])])):
                continue  # a run whose score is undefined has no mean; it stands among the runs
            told = {"mean": statistics.mean(own), "sd": statistics.stdev(own) if len(own) > 1 else None}
            apart = [a - b for a, b in zip(own, rows["fp32"][name], strict=True)] if "fp32" in rows else []
            if len(apart) > 1 and precision != "fp32":
                told["less_fp32"] = statistics.mean(apart)
                told["standard_error"] = statistics.stdev(apart) / len(apart) ** 0.5
            found.setdefault(precision, {})[name] = told
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--seeds", default="0:5")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--precisions", default="fp32,bf16,tf32")
    parser.add_argument("--rows", type=int, help="items that are encoded for the scores, at most")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    about = {"device": describe(device), "torch": torch.__version__, "preset": given.preset, "seeds": given.seeds}
    found: dict[str, Any] = {**about, "methods": {}}
    if given.json and given.json.exists():
        before = json.loads(given.json.read_text())
        if {name: before[name] for name in about} != about:
            raise SystemExit(f"{given.json} holds runs of another machine, version, preset or other seeds.")
        found["methods"] = before["methods"]
    with tempfile.TemporaryDirectory() as folder:
        for method in given.methods:
            rows: dict[str, dict[str, Any]] = {}
            for precision in given.precisions.split(","):
                rows[precision] = trained(method, given, precision, Path(folder) / method)
                found["methods"][method] = {"runs": rows, "compared": compared(rows)}
                print(method, precision, json.dumps(found["methods"][method]["compared"][precision]), flush=True)
                if given.json:
                    given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
