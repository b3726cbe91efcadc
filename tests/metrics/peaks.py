"""What each score holds at most beside its table, measured in a process of its own: a line of JSON for each.

    python tests/metrics/peaks.py [NAME ...]

Codes float32 [120 000, 32], of which the first are noisy copies of five factors of six values, int64.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distk import CodeTable, evaluate
from distk.registry import registry

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from resident import peak

ROWS, WIDTH, FACTORS, VALUES = 120_000, 32, 5, 6
APART = {"ksg", "prediction", "reconstruction", "elbo"}
"""Scores of frames and of models' own pictures."""
LESS: dict[str, dict[str, Any]] = {
    "change-one-factor": {"epochs": 50},
    "dci": {"predictor": "lasso"},
    "downstream": {"sizes": (10,)},
    "fairness": {"predictor": "lr"},
    "reasoning": {"steps": 10},
    "recall": {"sample": 10_000},
    "separability": {"samples": 10},
}
"""Settings that take less time and no less memory."""
FEW = {"infomec": 30_000}
"""Rows of scores that take long and have no such setting."""


def scored() -> list[str]:
    """The registered scores of tables of codes."""
    entries = [entry for entry in registry().entries("metric") if entry.plugin == "metrics"]
    classes = {entry.name: entry.load() for entry in entries}
    return [name for name, cls in classes.items() if not (cls.needs_model or cls.needs or name in APART)]


def table(name: str, rows: int, width: int = WIDTH) -> CodeTable:
    """As a score can take it: classes for scores of classes, slots for those of slots, all combinations of three
    factors of ten values for reasoning."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(2 if name == "tad" else VALUES, (rows, FACTORS), generator=generator)
    if name == "reasoning":
        truth = torch.cartesian_prod(*[torch.arange(10)] * 3).repeat(-(-rows // 1000), 1)
        rows = len(truth)
    codes = torch.randn(rows, width, generator=generator)
    codes[:, : truth.shape[1]] += 2 * truth[:, :width]
    kinds = ["continuous"] * width
    if name in ("clsacc", "ari"):
        codes, kinds = truth[:, :1].float().repeat(1, width), ["continuous"] * (width - 1) + ["categorical"]
    made = CodeTable(
        codes,
        [f"c{d}" for d in range(width)],
        kinds,
        truth,
        tuple(f"f{k}" for k in range(truth.shape[1])),
        tuple(int(size) + 1 for size in truth.amax(0)),
        ("ordinal",) * (truth.shape[1] - 1) + ("categorical",),
        std=torch.full((1, 1), 0.1).expand(codes.shape),
        source="these codes",
    )
    if name == "fg-ari":
        slots, objects = torch.randint(4, (2, rows // 8, 16, 16), generator=generator).byte()
        cut = [values[: rows // 8] for values in (made.codes, truth, made.std) if values is not None]
        made = replace(made, codes=cut[0], factors=cut[1], std=cut[2], extra={"slots": slots, "objects": objects})
    return made


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or scored():
        told = {f"{name}.{key}": value for key, value in LESS.get(name, {}).items()}
        evaluate(table(name, 2000, 8), [name], repeats=1, **told)  # what is imported and loaded at first
        large = table(name, FEW.get(name, ROWS))
        before = peak(reset=True)
        found = evaluate(large, [name], repeats=1, **told)["metrics"][name]
        size = large.codes.nbytes + sum(values.nbytes for values in large.extra.values())
        row = {"score": name, "peak": peak() - before, "table": size, "error": found.get("error", "")}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
