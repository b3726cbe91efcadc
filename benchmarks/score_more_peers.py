"""Our scores beside those of disent and of the authors of InfoMEC on the same rows: figures, seconds, memory.

    pip download --no-deps disent && unzip disent-0.8.0-py3-none-any.whl -d disent-0.8
    python benchmarks/score_more_peers.py --disent disent-0.8 --infomec infomec.py [--rows 2000] [--out FILE]

`infomec.py` is `disentangle/metrics/infomec.py` of github.com/kylehkhsu/latent_quantization. Neither package is
installed: the functions that calculate need numpy and scikit-learn alone; data sets and frameworks that their modules
import are replaced by stand-ins. Codes and factors are drawn here: noisy, rotated, overcomplete, noise, with factors of
3, 4 and 6 values; two thirds of the rows train.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression

from distk.plugins.metrics import functional as fn

SIZES = (3, 4, 6)


def rows_of(kind: str, n: int, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n, D] and factors [n, 3]; `width` codes for the overcomplete kind and for noise."""
    rng = np.random.default_rng(0)
    f = np.stack([rng.integers(0, size, n) for size in SIZES], 1)
    unit = (f - f.mean(0)) / f.std(0)
    if kind == "noisy":
        return unit + 0.6 * rng.normal(size=unit.shape), f
    if kind == "rotated":
        return unit @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 0.2 * rng.normal(size=unit.shape), f
    if kind == "overcomplete":
        return unit @ rng.normal(size=(3, width)) + 0.6 * rng.normal(size=(n, width)), f
    return rng.normal(size=(n, width)), f


def disent_module(folder: Path, name: str) -> Any:
    """A module of `disent.metrics` without what the package imports beside it: data sets, pictures, frameworks."""
    for package in ("disent", "disent.metrics", "disent.util"):
        if package not in sys.modules:
            made = types.ModuleType(package)
            made.__path__ = [str(folder.joinpath(*package.split(".")))]  # type: ignore[attr-defined]
            sys.modules[package] = made
    data = types.ModuleType("disent.dataset")
    data.DisentDataset = object  # type: ignore[attr-defined]
    sys.modules["disent.util"].to_numpy = np.asarray  # type: ignore[attr-defined]
    sys.modules.setdefault("disent.dataset", data)
    return importlib.import_module(f"disent.metrics.{name}")


def authors_infomec(path: Path) -> Any:
    """The authors' module; newer releases of scikit-learn know no `multi_class` any more, which is what they do."""
    spec = importlib.util.spec_from_file_location("authors_infomec", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def regression(multi_class: str, n_jobs: int, **settings: Any) -> LogisticRegression:
        return LogisticRegression(**settings)

    def information(*arrays: np.ndarray, **settings: Any) -> float:
        return float(
            mutual_info_classif(*arrays, **settings)[0]
        )  # one code at a time; numpy takes no array for a number

    module.linear_model = types.SimpleNamespace(LogisticRegression=regression)
    module.feature_selection = types.SimpleNamespace(mutual_info_classif=information)
    return module


def timed(call: Callable[[], dict[str, float]]) -> tuple[dict[str, float], float]:
    """What a call gives, and its CPU seconds: others may be at work on this machine."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = call()
    return found, time.process_time() - start


def pairs(
    c: np.ndarray, f: np.ndarray, disent: Path | None, infomec: Path | None, only: list[str]
) -> list[dict[str, Any]]:
    """A row for each score: ours, theirs, CPU seconds of both."""
    cut = 2 * len(c) // 3
    parts = c[:cut], f[:cut], c[cut:], f[cut:]
    turned = [a.T for a in parts]
    calls: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = []
    if disent is not None:
        mig, sap, dci = (disent_module(disent, name) for name in ("_mig", "_sap", "_dci"))
        calls += [
            ("disent mig", lambda: {"mig": fn.mig(*parts[:2])["mig"]},
             lambda: {"mig": mig._compute_mig(*turned[:2])["mig.discrete_score"]}),
            ("disent sap", lambda: {"sap": fn.sap(*parts)["sap"]},
             lambda: {"sap": sap._compute_sap(*turned, False)["sap.score"]}),
            ("disent dci", lambda: _dci(parts),
             lambda: {k: dci._compute_dci(*turned)[f"dci.{k}"] for k in ("disentanglement", "completeness")}),
        ]  # fmt: skip
    if infomec is not None:
        theirs = authors_infomec(infomec)
        keys = ("infom", "infoc", "infoe")
        calls.append(
            ("infomec's authors", lambda: _some(fn.info_mec(c, f), keys),
             lambda: _some(theirs.compute_infomec(f, c, False), keys))
        )  # fmt: skip
    rows = []
    for name, ours, others in (call for call in calls if not only or call[0] in only):
        (a, own), (b, other) = timed(ours), timed(others)
        rows += [
            {
                "of": name,
                "score": key,
                "ours": a[key],
                "theirs": None if b[key] != b[key] else b[key],
                "cpu_ours": own,
                "cpu_theirs": other,
            }
            for key in a
        ]
    return rows


def _some(found: dict[str, Any], keys: tuple[str, ...]) -> dict[str, float]:
    return {key: float(found[key]) for key in keys}


def _dci(parts: tuple[np.ndarray, ...]) -> dict[str, float]:
    return _some(fn.dci(*parts), ("disentanglement", "completeness"))


def kept(path: Path, run: dict[str, Any]) -> None:
    """Put a run into the file, in the place of an earlier one of as many rows and codes."""
    held = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    size = ("rows", "codes_wide")
    others = [one for one in held if [one[key] for key in size] != [run[key] for key in size]]
    command = "python benchmarks/score_more_peers.py --disent DISENT --infomec FILE"
    about = {"command": command, "sizes": SIZES, "threads": 1, "runs": [*others, run]}
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disent", type=Path, help="the unpacked wheel of disent 0.8")
    parser.add_argument("--infomec", type=Path, help="the authors' infomec.py")
    parser.add_argument("--rows", type=int, default=2000, help="rows of each kind of codes")
    parser.add_argument("--width", type=int, default=10, help="codes of the overcomplete kind and of noise")
    parser.add_argument(
        "--only", action="append", default=[], help="'disent mig', \"infomec's authors\" ...; repeatable"
    )
    parser.add_argument("--kind", action="append", help="noisy, rotated, overcomplete or noise; default: all")
    parser.add_argument("--out", type=Path, help="keep the figures here, as JSON, beside other sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    peers = options.disent, options.infomec
    for kind in options.kind or ("noisy", "rotated", "overcomplete", "noise"):
        found[kind] = pairs(*rows_of(kind, options.rows, options.width), *peers, options.only)
        for row in found[kind]:
            theirs = np.nan if row["theirs"] is None else row["theirs"]
            told = f"{row['ours']:9.4f}{theirs:9.4f}{row['cpu_ours']:9.2f} s{row['cpu_theirs']:9.2f} s"
            print(f"{kind:14}{row['of']:20}{row['score']:16}{told}", flush=True)
        if options.out:
            kept(options.out, {"rows": options.rows, "codes_wide": options.width, "codes": found})


if __name__ == "__main__":
    main()
