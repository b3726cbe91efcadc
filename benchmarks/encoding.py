"""Encoding a data set into the table that scores read, against a bare loop over the encoder, in pairs.

    python benchmarks/encoding.py [METHOD ...] [--rows 4096] [--device cuda] [--json results/encoding-cpu.json]

The bare loop fetches the same batches and calls `encode` alone, without gradients; the table has standard deviations
and the KL of each code on top. Alternated; the median of the ratios. On the CPU seconds are those of this process on
one thread, on CUDA those of the wall clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from timing import busy_seconds

from distk import encode_table
from distk.device import Ranks, choose_device, describe
from distk.metric import items_at_once
from distk.registry import registry
from distk.settings import resolve
from distk.training.beginning import build

CASES: dict[str, dict[str, Any]] = {
    "betavae 64x64": {"method": "betavae", "data": {"size": 64}},
    **{
        name: {"method": name, "preset": "demo"}
        for name in ("betavae", "factorvae", "mvae", "dsvae", "aae", "jointvae")
    },
    "cascadevae": {"method": "cascadevae", "preset": "demo"},
}


def measured(case: dict[str, Any], rows: int, rounds: int, device: torch.device) -> dict[str, Any]:
    options = {"data": case.get("data", {}), "train": {"device": str(device)}}
    trainer = build(resolve(case["method"], preset=case.get("preset"), options=options), device, Ranks())
    model, dataset = trainer.model.eval(), trainer.dataset
    index = dataset.rows_of("all")[:rows]

    @torch.no_grad()
    def bare() -> None:
        for part in index.split(items_at_once(dataset)):
            model.encode_batch(dataset.items(part))

    def table() -> None:
        encode_table(model, dataset, rows=len(index))

    bare(), table()
    pairs = [(busy_seconds(table, 1, device), busy_seconds(bare, 1, device)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return {
        "rows": len(index),
        "rows_per_second": round(len(index) / statistics.median(a for a, _ in pairs)),
        "of_bare": {"min": round(min(ratios), 3), "median": round(statistics.median(ratios), 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="registered methods, by their demo preset; default: a choice")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device(arguments.device)
    cases = {name: {"method": name, "preset": _demo(name)} for name in arguments.methods} or CASES
    found = {}
    for name, case in cases.items():
        found[name] = row = measured(case, arguments.rows, arguments.rounds, device)
        print(f"{name:16} {row['rows_per_second']:8,} rows a second, {row['of_bare']['median']:.2f} of a bare loop")
        if arguments.json:
            about = {"device": describe(device), "torch": torch.__version__, "cases": found}
            arguments.json.write_text(json.dumps(about, indent=1) + "\n")


def _demo(method: str) -> str | None:
    return "demo" if "demo" in registry().find("method", method).load().presets else None


if __name__ == "__main__":
    main()
