"""Every score of codes on five codes whose worth is known, and what each costs in time and memory.

    python benchmarks/scores.py codes --out results/scores-codes-cpu.json
    python benchmarks/scores.py cost --out results/scores-cost-cpu.json [--limit 120]

`codes`: six independent factors (a full grid of 2 x 3 x 6 x 8 x 10 x 7 combinations) under a perfect code (each factor
is one code), a rotated one (each code mixes all factors, nothing is lost), an overcomplete one (each factor is three
codes, in other units, beside three codes of noise) and pure noise; and factors that depend on each other under a
perfect code. Beside each figure stands what the score's authors, or its definition where they do not say it, lead one
to expect.

`cost`: 10,000 rows of 10 codes with 5 factors, and 100,000 of 50 with 10, as `distk eval --codes` scores them; each
score in a process of its own, which is stopped after `--limit` seconds. Memory is what the process held at most, less
what it held before the score began.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distk import CodeTable, evaluate
from distk.registry import registry

SIZES = (2, 3, 6, 8, 10, 7)
KINDS = ("perfect", "rotated", "overcomplete", "dependent", "noise")
APART = {"clsacc", "ari", "fg-ari", "ksg", "prediction", "reconstruction", "elbo"}
"""Scores of discrete codes, slots, frames and models: they say nothing of a table of continuous codes."""

EXPECTED: dict[str, dict[str, str]] = {
    "mig.mig": {
        "perfect": "1",
        "rotated": "low: several codes know a factor (Chen et al. 2018)",
        "overcomplete": "0: the second code knows as much",
        "dependent": "below 1: the other factor's code knows it, too (Watcharasupat & Lerch 2021)",
        "noise": "0",
    },
    "dci.disentanglement": {
        "perfect": "1",
        "rotated": "low",
        "overcomplete": "1: a code may share its factor (Eastwood & Williams 2018)",
        "dependent": "about 1: trees take the code that is best",
        "noise": "anything: read informativeness_test",
    },
    "dci.completeness": {
        "perfect": "1",
        "rotated": "low",
        "overcomplete": "below 1: a factor's importance is spread (Eastwood & Williams 2018)",
        "dependent": "about 1",
        "noise": "anything",
    },
    "dci-es.explicitness": {
        "perfect": "1: linear readers read all (Eastwood et al. 2023)",
        "rotated": "1: still linear",
        "overcomplete": "1",
        "dependent": "1",
        "noise": "1: nothing is quickly read; see informativeness (Eastwood et al. 2023)",
    },
    "dci-es.size": {
        "perfect": "1",
        "rotated": "1",
        "overcomplete": "6/21",
        "dependent": "1",
        "noise": "1",
    },
    "sap.sap": {
        "perfect": "well below 1: linear one-code classifiers of ordered values",
        "rotated": "low",
        "overcomplete": "0",
        "dependent": "lower",
        "noise": "0",
    },
    "modularity.modularity": {
        "perfect": "1",
        "rotated": "lower",
        "overcomplete": "6/7 x 1 + what noise gets: blind to copies (Ridgeway & Mozer 2018)",
        "dependent": "below 1: a code tells of two factors",
        "noise": "far above 0: see docs",
    },
    "explicitness.explicitness_test": {
        "perfect": "1",
        "rotated": "1: linear readers do not mind (Ridgeway & Mozer 2018)",
        "overcomplete": "1",
        "dependent": "1",
        "noise": "0.5",
    },
    "irs.irs": {
        "perfect": "1",
        "rotated": "lower",
        "overcomplete": "lower: codes of noise count",
        "dependent": "below 1",
        "noise": "low, not 0",
    },
    "infomec.infom": {"perfect": "1", "rotated": "low", "overcomplete": "high", "dependent": "below 1", "noise": "low"},
    "infomec.infoc": {
        "perfect": "1",
        "rotated": "low",
        "overcomplete": "low: three codes a factor (Hsu et al. 2023)",
        "dependent": "below 1",
        "noise": "low",
    },
    "infomec.infoe": {
        "perfect": "high; 1 only where values are parted without error",
        "rotated": "as perfect: linear readers (Hsu et al. 2023)",
        "overcomplete": "as perfect",
        "dependent": "high",
        "noise": "0",
    },
    "mcc.pearson": {
        "perfect": "1",
        "rotated": "below 1",
        "overcomplete": "1: the best code of each factor",
        "dependent": "1",
        "noise": "0",
    },
    "mcc.weak": {
        "perfect": "1",
        "rotated": "1: up to a linear map (Khemakhem et al. 2020)",
        "overcomplete": "1",
        "dependent": "1",
        "noise": "0",
    },
    "r2.r2": {"perfect": "1", "rotated": "1: block identified", "overcomplete": "1", "dependent": "1", "noise": "0"},
    "jemmig.jemmig": {
        "perfect": "high, 1 where a bin is a value (Do & Tran 2020)",
        "rotated": "low",
        "overcomplete": "lower: the gap is 0",
        "dependent": "below perfect",
        "noise": "about 0",
    },
    "dcimig.dcimig": {
        "perfect": "1",
        "rotated": "low",
        "overcomplete": "1: a factor keeps its best code alone (Sepliarskaia et al. 2019)",
        "dependent": "below 1",
        "noise": "0",
    },
    "mig-sup.mig_sup": {
        "perfect": "1",
        "rotated": "low",
        "overcomplete": "near 18/21: blind to copies, noise codes count (Li et al. 2020)",
        "dependent": "below 1",
        "noise": "0",
    },
    "dependent-gaps.dmig": {
        "perfect": "1",
        "rotated": "low",
        "overcomplete": "0: nobody's copy knows as much",
        "dependent": "1: what the factors share does not count (Watcharasupat & Lerch 2021)",
        "noise": "0",
    },
    "tad.tad": {
        "perfect": "0.5: one yes-or-no attribute, AUC 1 against 0.5",
        "rotated": "lower",
        "overcomplete": "0: a second code detects it as well (Yeats et al. 2022)",
        "dependent": "lower where another code detects it",
        "noise": "0: nothing is captured",
    },
    "z-max.eval": {
        "perfect": "1",
        "rotated": "above chance: some codes move most with one factor",
        "overcomplete": "below 1: a code of noise varies as much as the factor's own",
        "dependent": "needs rows that differ in one factor",
        "noise": "1/6",
    },
    "factorvae.eval": {
        "perfect": "1",
        "rotated": "below 1",
        "overcomplete": "1 (Kim & Mnih 2018: copies are free)",
        "dependent": "1",
        "noise": "1/6",
    },
    "betavae.eval": {
        "perfect": "1",
        "rotated": "high: blind to rotation (Kim & Mnih 2018)",
        "overcomplete": "1",
        "dependent": "1",
        "noise": "1/6",
    },
    "higgins-change.eval": {"perfect": "1", "rotated": "1", "overcomplete": "1", "dependent": "1", "noise": "1/6"},
    "fairness.unfairness": {
        "perfect": "0 (Locatello et al. 2019)",
        "rotated": "above 0 where readers err",
        "overcomplete": "0",
        "dependent": "above 0: true predictions differ by group",
        "noise": "what few items give",
    },
    "reasoning.accuracy": {
        "perfect": "far above 1/6 (van Steenkiste et al. 2019)",
        "rotated": "above 1/6, learnt later",
        "overcomplete": "far above 1/6",
        "dependent": "needs every combination",
        "noise": "1/6, more where a network learns single items by heart",
    },
    "combinations.unseen": {
        "perfect": "1",
        "rotated": "1 where readers are linear",
        "overcomplete": "1",
        "dependent": "1",
        "noise": "chance",
    },
    "unsupervised.gaussian_total_correlation": {
        "perfect": "0",
        "rotated": "0: blind to rotation",
        "overcomplete": "large: copies",
        "dependent": "above 0",
        "noise": "0",
    },
    "separability.wsepin": {
        "perfect": "high",
        "rotated": "lower",
        "overcomplete": "low: a copy says what another says (Do & Tran 2020)",
        "dependent": "lower",
        "noise": "high: it knows no factors, only that codes are apart",
    },
    "downstream.mean_largest": {
        "perfect": "1",
        "rotated": "1",
        "overcomplete": "1",
        "dependent": "1",
        "noise": "share of the commonest value",
    },
}


def tables(seed: int = 0) -> dict[str, CodeTable]:
    """The five codes, as tables that every score takes."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(size) for size in SIZES])
    unit = _standard(grid)
    k = len(SIZES)

    def noise(rows: int, width: int) -> Tensor:
        return torch.randn(rows, width, generator=generator, dtype=torch.float64)

    rotation = torch.linalg.qr(noise(k, k)).Q
    copies = torch.cat([unit, -2 * unit, unit**3 / 3], 1)
    made = {
        "perfect": unit + 0.01 * noise(len(grid), k),
        "rotated": unit @ rotation + 0.01 * noise(len(grid), k),
        "overcomplete": torch.cat([copies + 0.01 * noise(len(grid), 3 * k), noise(len(grid), 3)], 1),
        "noise": noise(len(grid), k),
    }
    found = {name: _table(codes, grid, True) for name, codes in made.items()}
    # The second factor follows the first, the fourth the third, with some freedom.
    rows = torch.stack([torch.randint(size, (15_000,), generator=generator) for size in SIZES], 1)
    free = torch.rand(15_000, generator=generator)
    rows[:, 1] = torch.where(free < 0.6, rows[:, 0] * 2, rows[:, 1])
    rows[:, 3] = torch.where(free < 0.5, rows[:, 2] + 1, rows[:, 3])
    found["dependent"] = _table(_standard(rows) + 0.01 * noise(15_000, k), rows, False)
    return {name: found[name] for name in KINDS}


def _standard(factors: Tensor) -> Tensor:
    values = factors.double()
    return (values - values.mean(0)) / values.std(0)


def _table(codes: Tensor, factors: Tensor, grid: bool) -> CodeTable:
    d, sizes = codes.shape[1], tuple(int(n) + 1 for n in factors.amax(0))
    names = tuple(f"f{i + 1}" for i in range(factors.shape[1]))
    return CodeTable(
        codes,
        [f"c{i + 1}" for i in range(d)],
        ["continuous"] * d,
        factors,
        names,
        sizes,
        ("ordinal",) * len(names),
        grid=grid,
        std=torch.full_like(codes, 0.1),
        source="these codes",
    )


SETTINGS = {"fairness": {"predictor": "lr"}, "downstream": {"sizes": (10, 100, 1000)}}
"""What is not the default, to be done in minutes."""


def settings(name: str) -> dict[str, Any]:
    """As options of `evaluate`."""
    return {f"{name}.{key}": value for key, value in SETTINGS.get(name, {}).items()}


def scored() -> list[str]:
    """The scores of a table of continuous codes."""
    names = [entry.name for entry in registry().entries("metric") if entry.plugin == "metrics"]
    classes = {name: registry().find("metric", name).load() for name in names}
    return [n for n, c in classes.items() if not (c.needs_model or c.needs or n in APART)]


def codes_table(only: list[str]) -> list[dict[str, Any]]:
    """A row per score and key: its value for each code, and what is expected."""
    rows: dict[str, dict[str, Any]] = {}
    for kind, table in tables().items():
        for name in only or scored():
            start = time.perf_counter()
            values = evaluate(table, [name], repeats=1, on_error="row", **settings(name))["metrics"][name]
            seconds = time.perf_counter() - start
            headline = registry().find("metric", name).load().headline
            keys = [headline, *(k.partition(".")[2] for k in EXPECTED if k.startswith(f"{name}."))]
            for key in dict.fromkeys(keys):
                row = rows.setdefault(f"{name}.{key}", {"score": name, "key": key, "values": {}, "seconds": {}})
                row["values"][kind] = values["error"] if "error" in values else values.get(key)
                row["seconds"][kind] = round(seconds, 2)
                row["expected"] = EXPECTED.get(f"{name}.{key}", {})
            print(f"{kind:13}{name:20}{seconds:8.1f} s  {values.get('error', values.get(headline))}", flush=True)
    return list(rows.values())


def _cost(name: str, rows: int, width: int, factors: int, line: Any) -> None:
    """In a process of its own: seconds, and MiB above what it held before."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(6, (rows, factors), generator=generator)
    if name == "tad":
        truth = truth % 2
    noise = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    codes = torch.cat([_standard(truth), torch.zeros(rows, width - factors, dtype=torch.float64)], 1) + 0.5 * noise
    table = _table(codes, truth, False)
    registry().find("metric", name).load()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    values = evaluate(table, [name], repeats=1, on_error="row", **settings(name))["metrics"][name]
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line.send({"seconds": round(seconds, 2), "mib": round((peak - before) / 1024), "error": values.get("error", "")})


def cost_table(only: list[str], limit: float) -> list[dict[str, Any]]:
    """A row per score and size."""
    found = []
    spawn = multiprocessing.get_context("spawn")
    for rows, width, factors in ((10_000, 10, 5), (100_000, 50, 10)):
        for name in only or scored():
            here, there = spawn.Pipe()
            process = spawn.Process(target=_cost, args=(name, rows, width, factors, there))
            process.start()
            there.close()
            told: dict[str, Any] = {"error": f"stopped after {limit:g} s"}
            try:
                if here.poll(limit + 20):  # 20 s to start
                    told = here.recv()
            except EOFError:
                told = {"error": "ended without an answer"}
            process.kill()
            process.join()
            found.append({"score": name, "rows": rows, "codes": width, "factors": factors, **told})
            print(f"{rows:8} x {width:3} {name:20} {told}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("codes", "cost"))
    parser.add_argument(
        "--out", type=Path, help="keep the figures here, as JSON, beside those of other scores that stand there"
    )
    parser.add_argument("--metric", action="append", default=[], help="this score alone; repeatable")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a score of `cost`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "codes": lambda: codes_table(options.metric),
        "cost": lambda: cost_table(options.metric, options.limit),
    }
    rows = parts[options.part]()
    if options.out:
        if options.out.exists():  # the figures of other scores stay
            ours = {row["score"] for row in rows}
            earlier = json.loads(options.out.read_text(encoding="utf-8"))["scores"]
            rows = [*(row for row in earlier if row["score"] not in ours), *rows]
        about = {
            "command": f"python benchmarks/scores.py {options.part}",
            "cores": os.cpu_count(),
            "threads": 1,
            "load_average": list(os.getloadavg()),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "not_default": SETTINGS,
            "scores": rows,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
