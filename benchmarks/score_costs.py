"""Time and memory of our scores beside those of others on the same arrays, each in a process of its own.

    python benchmarks/score_costs.py --dlib disentanglement_lib-1.5 --disent disent-0.8 --infomec infomec.py --out FILE

What these folders and this file are stands in `score_peers.py` and `score_more_peers.py`; a peer that is not named is
left out. Where no package has a score, a plain use of scikit-learn, scipy or numpy stands beside it. The codes are
`score_tables.noisy`, float64, and all arrays are there before the clock starts. Seconds are those of the processor, one
thread; memory is the most that the process held less what it held with the arrays. Each is stopped after `--limit`
seconds that pass. Figures are kept as they come, beside those of other scores and sizes that stand in the file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from score_more_peers import authors_infomec, disent_module
from score_peers import METRICS, stand_ins
from score_tables import noisy
from scores import held

from distk.plugins.metrics import functional as fn

SIZES = ("10000x10x5", "100000x50x10", "737280x10x5")
Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Codes and factors of two thirds of the rows, and of the others."""
Call = Callable[[Parts], float]
Row = dict[str, Any]


def whole(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """All rows, without a copy: both parts are views of one array."""
    return parts[0].base, parts[1].base


OURS: dict[str, Call] = {
    "mig": lambda p: fn.mig(*whole(p))["mig"],
    "modularity": lambda p: fn.modularity(*whole(p))["modularity"],
    "irs": lambda p: fn.irs(*whole(p))["irs"],
    "sap": lambda p: fn.sap(*p)["sap"],
    "explicitness": lambda p: fn.explicitness(*p)["explicitness_test"],
    "unsupervised": lambda p: fn.unsupervised(whole(p)[0])["mutual_info_score"],
    "infomec": lambda p: fn.info_mec(*whole(p))["infom"],
    "mcc": lambda p: fn.mcc(*p)["pearson"],
    "r2": lambda p: fn.r2(*p)["r2"],
    "best-dimension-auc": lambda p: fn.best_dimension_auc(*whole(p))["mean"],
    "recall@1": lambda p: fn.recall_at_k(whole(p)[0], whole(p)[1][:, 0], (1,))["recall@1"],
}


def of_dlib(folder: Path) -> dict[str, Call]:
    """What disentanglement_lib 1.5 calculates of given codes; it takes arrays [codes, rows]."""
    stand_ins()
    sys.path.insert(0, str(folder))

    def module(name: str) -> Any:
        return importlib.import_module(f"{METRICS}.{name}")

    utils = module("utils")

    def information(p: Parts) -> tuple[np.ndarray, np.ndarray]:
        codes, factors = (a.T for a in whole(p))
        return utils.discrete_mutual_info(utils._histogram_discretize(codes, 20), factors), factors

    def mig(p: Parts) -> float:
        found, factors = information(p)
        gaps = np.sort(found, 0)[::-1]
        return float(np.mean((gaps[0] - gaps[1]) / utils.discrete_entropy(factors)))

    def sap(p: Parts) -> float:
        scores = module("sap_score")
        return float(scores.compute_avg_diff_top_two(scores.compute_score_matrix(*(a.T for a in p), False)))

    def explicitness(p: Parts) -> float:
        scores, (c, f, ct, ft) = module("modularity_explicitness"), p
        pairs = [scores.explicitness_per_factor(c.T, f[:, k], ct.T, ft[:, k]) for k in range(f.shape[1])]
        return float(np.mean([test for _, test in pairs]))

    def unsupervised(p: Parts) -> float:
        codes, scores = whole(p)[0].T, module("unsupervised_metrics")
        cov = np.cov(codes)
        scores.gaussian_total_correlation(cov)
        scores.gaussian_wasserstein_correlation(cov)
        binned = utils._histogram_discretize(codes, 20)
        found = utils.discrete_mutual_info(binned, binned)
        np.fill_diagonal(found, 0)
        return float(found.sum() / (len(codes) ** 2 - len(codes)))

    return {
        "mig": mig,
        "modularity": lambda p: float(module("modularity_explicitness").modularity(information(p)[0])),
        "irs": lambda p: float(module("irs").scalable_disentanglement_score(*whole(p)[::-1])["avg_score"]),
        "sap": sap,
        "explicitness": explicitness,
        "unsupervised": unsupervised,
    }


def of_disent(folder: Path) -> dict[str, Call]:
    """What disent 0.8 calculates of given codes."""
    mig, sap = (disent_module(folder, name) for name in ("_mig", "_sap"))
    return {
        "mig": lambda p: mig._compute_mig(*(a.T for a in whole(p)))["mig.discrete_score"],
        "sap": lambda p: sap._compute_sap(*(a.T for a in p), False)["sap.score"],
    }


def of_authors(path: Path) -> dict[str, Call]:
    """The program of InfoMEC's authors."""
    program = authors_infomec(path)
    return {"infomec": lambda p: program.compute_infomec(*whole(p)[::-1], False)["infom"]}


def plain() -> dict[str, Call]:
    """A plain use of scikit-learn, scipy and numpy."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.neighbors import NearestNeighbors

    def mcc(p: Parts) -> float:
        train, test = (abs(np.corrcoef(c, f, rowvar=False)[: c.shape[1], c.shape[1] :]) for c, f in (p[:2], p[2:]))
        return float(test[linear_sum_assignment(-train)].mean())

    def r2(p: Parts) -> float:
        return float(r2_score(p[3], LinearRegression().fit(p[0], p[1]).predict(p[2])))

    def areas(p: Parts) -> float:
        codes, factors = whole(p)
        best = []
        for truth in factors.T:
            for value in np.unique(truth):
                found = [roc_auc_score(truth == value, code) for code in codes.T]
                best.append(max(max(a, 1 - a) for a in found))
        return float(np.mean(best))

    def recall(p: Parts) -> float:
        codes, label = whole(p)[0], whole(p)[1][:, 0]
        nearest = NearestNeighbors(n_neighbors=2).fit(codes).kneighbors(codes, return_distance=False)[:, 1]
        return float((label[nearest] == label).mean())

    return {"mcc": mcc, "r2": r2, "best-dimension-auc": areas, "recall@1": recall}


def _measured(call: Call, size: str, line: Any) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows, width, factors = (int(n) for n in size.split("x"))
    for n in (600, rows):
        table = noisy(n, width, factors)
        codes, truth, cut = table.codes.numpy(), table.needs_factors().numpy(), 2 * n // 3
        parts = codes[:cut], truth[:cut], codes[cut:], truth[cut:]
        if n == 600 and n < rows:
            call(parts)  # imports
    before = held("cpu", reset=True)
    line.send(True)
    start = time.process_time()
    value = call(parts)
    seconds = time.process_time() - start
    line.send(
        {
            "value": value if value == value else None,
            "seconds": round(seconds, 2),
            "mib": round((held("cpu") - before) / 2**20, 1),
        }
    )


def measured(call: Call, size: str, limit: float) -> Row:
    """The figures of one score, or {"error"}."""
    fork = multiprocessing.get_context("fork")  # with all that is imported: a start takes longer than most scores
    here, there = fork.Pipe()
    process = fork.Process(target=_measured, args=(call, size, there))
    process.start()
    there.close()
    told: Row = {"error": "ended without an answer"}
    with suppress(EOFError):
        here.recv()
        told = {"error": f"stopped after {limit:g} s"}
        if here.poll(limit):
            told = here.recv()
    process.kill()
    process.join()
    return told


def kept(path: Path, row: Row) -> list[Row]:
    """Put a figure into the file in the place of the same one; returns all."""
    held_rows = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else []
    every = {tuple(one[key] for key in ("score", "by", "size")): one for one in [*held_rows, row]}
    about = {
        "command": "python benchmarks/score_costs.py --dlib FOLDER --disent FOLDER --infomec FILE",
        "cores": os.cpu_count(),
        "threads": 1,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "figures": list(every.values()),
    }
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return about["figures"]


def shown(figures: list[Row]) -> str:
    """A table of docs/metrics.md: a line for each score and peer, a column for each size, ours / theirs."""

    def pair(ours: Row | None, theirs: Row | None, key: str, unit: str) -> str:
        """Both figures of a cell; a unit behind each where the other one is none."""
        told = []
        for row in (ours, theirs):
            if row is None or key not in row:
                told.append("-" if row is None else "longer")
            else:
                told.append(f"{row[key]:.1f}" if key == "seconds" or row[key] < 10 else f"{row[key]:.0f}")
        figures = [text[0].isdigit() for text in told]
        if all(figures):
            return f"{told[0]} / {told[1]} {unit}"
        return " / ".join(f"{text} {unit}" if own else text for text, own in zip(told, figures, strict=True))

    of = {(r["score"], r["by"], r["size"]): r for r in figures}
    sizes = [size for size in SIZES if any(r["size"] == size for r in figures)]
    head = [" x ".join(f"{int(n):,}".replace(",", " ") for n in size.split("x")[:2]) for size in sizes]
    lines = [f"| score | beside | {' | '.join(head)} |", "|---" * (len(sizes) + 2) + "|"]
    for score, by in dict.fromkeys((r["score"], r["by"]) for r in figures if r["by"] != "distk"):
        cells = []
        for size in sizes:
            ours, theirs = of.get((score, "distk", size)), of.get((score, by, size))
            told = [pair(ours, theirs, *of_what) for of_what in (("seconds", "s"), ("mib", "MiB"))]
            cells.append(told[0] if told[0] == told[1] else ", ".join(told))
        lines.append(f"| `{score}` | {by} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dlib", type=Path, help="the unpacked source of disentanglement_lib 1.5")
    parser.add_argument("--disent", type=Path, help="the unpacked wheel of disent 0.8")
    parser.add_argument("--infomec", type=Path, help="the authors' infomec.py")
    parser.add_argument("--score", action="append", choices=tuple(OURS), help="this score alone; repeatable")
    parser.add_argument("--size", action="append", help="rows x codes x factors; repeatable")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a score")
    parser.add_argument("--out", type=Path, required=True, help="the file of the figures, as JSON")
    parser.add_argument("--show", action="store_true", help="measure nothing, show the file as a table")
    options = parser.parse_args()
    of = {"distk": OURS}
    of |= {"disentanglement_lib": of_dlib(options.dlib)} if options.dlib else {}
    of |= {"disent": of_disent(options.disent)} if options.disent else {}
    of |= {"authors": of_authors(options.infomec)} if options.infomec else {}
    of["plain"] = plain()
    for size in () if options.show else options.size or SIZES:
        for score in options.score or OURS:
            for by, calls in of.items():
                if score in calls:
                    row = {"score": score, "by": by, "size": size, **measured(calls[score], size, options.limit)}
                    print(json.dumps(row), flush=True)
                    kept(options.out, row)
    print(shown(json.loads(options.out.read_text(encoding="utf-8"))["figures"]))


if __name__ == "__main__":
    main()
