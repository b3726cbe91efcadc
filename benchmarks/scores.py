"""Every score of codes on five codes whose worth is known, what each is worth at chance, and what it costs.

    python benchmarks/scores.py codes --out results/scores-codes-cpu.json
    python benchmarks/scores.py worth --out results/scores-worth-cpu.json
    python benchmarks/scores.py cost --out results/scores-cost-cpu.json [--limit 120] [--size 1000000x50x10]
    python benchmarks/scores.py cost --device cuda --out results/scores-cost-cuda.json
    python benchmarks/scores.py show --out results/scores-codes-cpu.json     # as a table of docs/metrics.md

`codes`: six independent factors (a full grid of 2 x 3 x 6 x 8 x 10 x 7 combinations) under a perfect code (each factor
is one code), a rotated one (each code mixes all factors, nothing is lost), an overcomplete one (each factor is three
codes, in other units, beside three codes of noise) and pure noise; and factors that depend on each other under a
perfect code. Scores of classes and slots have five tables of their own (`score_tables.grouped`). Beside each figure
stands what `scores_expected.toml` leads one to expect.

`worth`: the perfect code and noise with `--baseline 3 --ci 5`: shuffled factors, and an interval over rows.

`cost`: rows x codes x factors as `distk eval --codes` scores them (`score_tables.priced`); each score in a process of
its own, which is stopped after `--limit` seconds that pass. Seconds are those of its processor, on a GPU those that
pass. Memory is what the process held at most, less what it held before the score began; on a GPU what was allocated
there. `table_mib` is the codes' own.

Figures are kept as they come, beside those of other scores, codes, sizes and devices that stand in the file; `--add`
takes in those of other files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from resident import peak
from score_tables import KINDS, grouped, priced, tables

from distk import CodeTable, evaluate
from distk.registry import registry

CLASSES = ("clsacc", "ari", "fg-ari")
"""Scores of discrete codes and slots, for which tables of their own are made."""
APART = {"ksg", "prediction", "reconstruction", "elbo"}
"""Scores of frames and models: they say nothing of a table of codes."""
SETTINGS: dict[str, dict[str, Any]] = {
    "fairness": {"predictor": "lr"},
    "downstream": {"sizes": (10, 100, 1000)},
    "clsacc": {"disc_index": 1},
}
"""What is not the default, to be done in minutes."""
COSTS = ("10000x10x5", "100000x50x10")
START = 600
"""Seconds for a process to start and to score a small table."""
BASELINE, HALVES = 3, 5
Row = dict[str, Any]


def settings(name: str) -> dict[str, Any]:
    """As options of `evaluate`."""
    return {f"{name}.{key}": value for key, value in SETTINGS.get(name, {}).items()}


def scored() -> list[str]:
    """The scores of a table of continuous codes."""
    names = [entry.name for entry in registry().entries("metric") if entry.plugin == "metrics"]
    classes = {name: registry().find("metric", name).load() for name in names}
    return [n for n, c in classes.items() if not (c.needs_model or c.needs or n in APART)]


def suited(table: CodeTable, name: str, kind: str = "") -> CodeTable:
    """The table as a score can take it: recall asks for a label without an order, which the last factor then is, and
    scores of classes and slots for codes of theirs."""
    if kind and name in CLASSES:
        made = grouped(kind)
        few = len(made.extra["slots"]) if name == "fg-ari" else len(made)  # a row for each picture
        return replace(made, codes=made.codes[:few], factors=made.needs_factors()[:few])
    if name != "recall":
        return table
    return replace(table, factor_kinds=(*table.factor_kinds[:-1], "categorical"))


def codes_rows(options: argparse.Namespace) -> Iterator[Row]:
    """A row per score, number and code: its value, and what is expected."""
    expected = tomllib.loads(Path(__file__).with_name("scores_expected.toml").read_text(encoding="utf-8"))
    for kind, table in tables().items():
        for name in options.metric if kind in options.kind else ():
            start = time.perf_counter()
            told = {"repeats": 1, "on_error": "row", **settings(name)}
            values = evaluate(suited(table, name, kind), [name], **told)["metrics"][name]
            seconds = round(time.perf_counter() - start, 2)
            headline = registry().find("metric", name).load().headline
            keys = [headline, *(k.partition(".")[2] for k in expected if k.startswith(f"{name}."))]
            for key in dict.fromkeys(keys):
                value = values.get("error", values.get(key))
                told = expected.get(f"{name}.{key}", {}).get(kind, "")
                yield {"score": name, "key": key, "code": kind, "value": value, "expected": told, "seconds": seconds}


def worth_rows(options: argparse.Namespace) -> Iterator[Row]:
    """A row per score and code: its headline with what shuffled factors give and its interval over rows."""
    for kind, table in tables().items():
        for name in options.metric if kind in options.kind and kind in ("perfect", "noise") else ():
            start = time.perf_counter()
            told = {"baseline": BASELINE, "ci": HALVES, "repeats": 1, "on_error": "row", **settings(name)}
            values = evaluate(suited(table, name, kind), [name], **told)["metrics"][name]
            key = registry().find("metric", name).load().headline
            found = {of: values.get(of, {}) for of in ("baseline", "interval", "meaning", "reasons")}
            yield {
                "score": name,
                "key": key,
                "code": kind,
                "value": values.get("error", values.get(key)),
                "declared_chance": found["meaning"].get(key, {}).get("chance"),
                "shuffled": found["baseline"].get("mean", {}).get(key),
                "interval": found["interval"].get("of", {}).get(key),
                "why_not": {of: why for of, why in found["reasons"].items() if of in ("baseline", "interval")},
                "seconds": round(time.perf_counter() - start, 2),
            }


def cost_rows(options: argparse.Namespace) -> Iterator[Row]:
    """A row per score and size."""
    spawn = multiprocessing.get_context("spawn")
    for size in options.size:
        rows, width, factors = (int(n) for n in size.split("x"))
        for name in options.metric:
            here, there = spawn.Pipe()
            process = spawn.Process(target=_cost, args=(name, rows, width, factors, options.device, there))
            process.start()
            there.close()
            told: Row = {"error": "ended without an answer"}
            with suppress(EOFError):
                ready = here.poll(START) and here.recv()
                told = {"error": f"stopped after {options.limit:g} s" if ready else "did not start"}
                if ready and here.poll(options.limit):
                    told = here.recv()
            process.kill()
            process.join()
            about = {"rows": rows, "codes": width, "factors": factors, "device": options.device}
            yield {"score": name, **about, "table_mib": round(rows * width / 2**17), **told}


def _cost(name: str, rows: int, width: int, factors: int, device: str, line: Any) -> None:
    """In a process of its own: seconds, and MiB above what it held before."""
    torch.set_num_threads(1)
    table = suited(priced(name, rows, width, factors, device), name)
    registry().find("metric", name).load()
    small = suited(priced(name, 1000, 4, 2, device), name)
    evaluate(small, [name], repeats=1, on_error="row", **settings(name))  # imports, kernels
    before = held(device, reset=True)
    line.send(True)
    clock = time.perf_counter if device == "cuda" else time.process_time  # others may be at work on the cores
    start = clock()
    values = evaluate(table, [name], repeats=1, on_error="row", **settings(name))["metrics"][name]
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - start
    mib = round((held(device) - before) / 2**20)
    line.send({"seconds": round(seconds, 2), "mib": mib, "error": values.get("error", "")})


def held(device: str, reset: bool = False) -> int:
    """Bytes that this process, or the GPU for it, has held at most since the last reset; at a reset those of now."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    try:
        return peak(reset)
    except OSError:  # elsewhere the peak of the whole process, which making the table hardly raises
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


PARTS = {"codes": codes_rows, "worth": worth_rows, "cost": cost_rows}
SAME = ("score", "key", "code", "rows", "codes", "factors", "device")
"""What tells one figure from another."""


def kept(path: Path, part: str, rows: list[Row]) -> list[Row]:
    """Put figures into the file in the place of the same ones, and beside the others; returns all."""
    held = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else []
    every = {tuple(row.get(name) for name in SAME): row for row in [*held, *rows]}
    about = {
        "command": f"python benchmarks/scores.py {part}",
        "cores": os.cpu_count(),
        "threads": 1,
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "torch": torch.__version__,
        "not_default": SETTINGS,
        "figures": list(every.values()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return about["figures"]


def shown(figures: list[Row]) -> str:
    """Figures of a file as a table: a line for each score and number, a column for each code or size."""
    if any("why_not" in row for row in figures):
        return _worth_shown(figures)
    codes = any("code" in row for row in figures)
    columns = [k for k in KINDS if any(row.get("code") == k for row in figures)] if codes else []
    columns = columns or list(dict.fromkeys(f"{r['rows']:,} x {r['codes']}".replace(",", " ") for r in figures))
    lines: dict[str, Row] = {}
    for row in figures:
        name = f"`{row['score']}` `{row['key']}`" if codes else f"`{row['score']}`"
        column = row["code"] if codes else f"{row['rows']:,} x {row['codes']}".replace(",", " ")
        lines.setdefault(name, {})[column] = _figure(row["value"]) if codes else _price(row)
    head = [f"| score | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(
        [*head, *(f"| {n} | {' | '.join(cells.get(c, '-') for c in columns)} |" for n, cells in lines.items())]
    )


def _worth_shown(figures: list[Row]) -> str:
    lines: dict[tuple[str, str], Row] = {}
    for row in figures:
        lines.setdefault((row["score"], row["key"]), {})[row["code"]] = row
    head = ["| score | perfect | noise | noise, shuffled |", "|---|---|---|---|"]
    for (score, key), of in lines.items():
        cells = [_figure(of[k]["value"]) + _span(of[k]["interval"]) if k in of else "-" for k in ("perfect", "noise")]
        head.append(f"| `{score}` `{key}` | {' | '.join(cells)} | {_figure(of.get('noise', {}).get('shuffled'))} |")
    return "\n".join(head)


def _span(interval: list[float] | None) -> str:
    return f" ({_figure(interval[0])} to {_figure(interval[1])})" if interval else ""


def _figure(value: Any) -> str:
    if isinstance(value, str):
        return "none" if value else "-"
    return "-" if value is None or value != value else f"{value + 0:.2f}".replace("-0.00", "0.00")


def _price(row: Row) -> str:
    if row["error"]:
        return "longer" if row["error"].startswith("stopped") else "none"
    return f"{row['seconds']:.1f} s, {row['mib']} MiB" if "seconds" in row else f"{row['mib']} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "show", "merge"))
    parser.add_argument("--out", type=Path, required=True, help="the file of the figures, as JSON")
    parser.add_argument("--metric", action="append", default=[], help="this score alone; repeatable")
    parser.add_argument("--not", action="append", default=[], dest="without", help="not this score; repeatable")
    parser.add_argument("--kind", action="append", choices=KINDS, help="this code alone; repeatable")
    parser.add_argument("--size", action="append", help="rows x codes x factors of `cost`; repeatable")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where `cost` has the table")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a score of `cost`")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="files of figures that `merge` takes in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.metric = [name for name in options.metric or scored() if name not in options.without]
    options.kind, options.size = options.kind or KINDS, options.size or COSTS
    if options.part in PARTS:
        for row in PARTS[options.part](options):
            print(json.dumps(row), flush=True)
            kept(options.out, options.part, [row])
        return
    found = [json.loads(path.read_text(encoding="utf-8")) for path in options.add]
    if options.part == "merge":
        for one in found:
            kept(options.out, one["command"].split()[-1], one["figures"])
    print(shown(json.loads(options.out.read_text(encoding="utf-8"))["figures"]))


if __name__ == "__main__":
    main()
