"""Time every array score of distk.plugins.metrics.functional on a dSprites-size code table.

    python benchmarks/metrics.py [--device cuda] [--threads 2] [--loop] [--gbt] [--exact] [--out FILE]

The table holds 10 codes for every one of the 737 280 combinations of the factors 3 x 6 x 40 x 32 x 32: five
follow one factor each through a nonlinearity, two mix factors, two are noise and one is dead. Scores of given
arrays read the published 10 000 training and 5 000 test rows.

`--loop` times the FactorVAE score the usual way, too: a Python loop over votes that draws a batch and
computes its variances, (a) reading codes from the table, (b) encoding 64 x 64 images anew for each vote with
the field's four-layer convolutional encoder, as the published implementations do. (b) is measured on a few
votes and scaled up; beside it stands the single encoding pass over all images that the table costs once for
all scores. `--out results/metrics-cpu.json` keeps the figures, with the machine and how busy it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distk.plugins.metrics import functional as fn

SIZES = (3, 6, 40, 32, 32)


def code_table(device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes float32 [737280, 10] and factors int64 [737280, 5] in grid order."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.cartesian_prod(*[torch.arange(s) for s in SIZES])
    unit = factors / (torch.tensor(SIZES) - 1) * 2 - 1
    noise = torch.randn(len(factors), 10, generator=generator)
    mixed = unit @ torch.randn(5, 2, generator=generator)
    clean = torch.cat([torch.tanh(1.5 * unit), mixed, torch.zeros(len(factors), 2)], 1)
    level = torch.tensor([0.1] * 5 + [0.3] * 2 + [1.0] * 2)
    codes = torch.cat([clean + level * noise[:, :9], torch.full((len(factors), 1), 0.25)], 1)
    return codes.to(device), factors.to(device)


def factor_vae_loop(codes: Tensor, votes: int = 15_000, rows: int = 64, seed: int = 0) -> float:
    """The FactorVAE score (dlib protocol), one vote after another."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(SIZES)
    strides = torch.tensor([math.prod(SIZES[k + 1 :]) for k in range(len(SIZES))])
    variance = codes[torch.randint(len(codes), (10_000,), generator=generator)].double().var(0)
    dead = variance.sqrt() < 0.05
    table = torch.zeros(codes.shape[1], len(SIZES))
    hits = 0
    for vote in range(votes):
        k = int(torch.randint(len(SIZES), (1,), generator=generator))
        factor = (torch.rand(rows, len(SIZES), generator=generator) * sizes).long()
        factor[:, k] = factor[0, k]
        ratio = codes[(factor * strides).sum(1)].double().var(0) / variance
        winner = int(ratio.masked_fill(dead, torch.inf).argmin())
        if vote < 10_000:
            table[winner, k] += 1
        else:
            hits += int(table[winner].argmax()) == k
    return hits / (votes - 10_000)


def encoder() -> torch.nn.Module:
    """The dSprites encoder of Burgess et al. 2018 and disentanglement_lib: 64 x 64 image -> 10 means."""
    channels = (1, 32, 32, 64, 64)
    layers: list[torch.nn.Module] = []
    for i in range(4):
        layers += [torch.nn.Conv2d(channels[i], channels[i + 1], 4, stride=2, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(1024, 256), torch.nn.Linear(256, 10))


@torch.no_grad()
def encoding_seconds(device: torch.device, rows: int, batches: int) -> float:
    """Seconds per image of encoding `rows` images at a time."""
    model, images = encoder().to(device), torch.rand(rows, 1, 64, 64, device=device)
    model(images)
    seconds, _ = timed(lambda: [model(images).sum() for _ in range(batches)], device)
    return seconds / (rows * batches)


def timed(call: Callable[[], object], device: torch.device) -> tuple[float, object]:
    """Seconds of one call, device work included, and what it returned."""
    start = time.perf_counter()
    value = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, value


def scores(codes: Tensor, factors: Tensor, gbt: bool, exact: bool) -> dict[str, tuple[str, Callable[[], object]]]:
    """Name -> (headline key, call)."""
    rows = torch.randperm(len(codes), generator=torch.Generator().manual_seed(1))[:15_000].to(codes.device)
    train, test = rows[:10_000], rows[10_000:]
    c, f, ct, ft = codes[train], factors[train], codes[test], factors[test]
    logvar = torch.full_like(c, -4.0)
    four = [codes[train[:1000]] + 0.1 * i for i in range(4)]
    kl = [torch.ones(10)] * 4
    table: dict[str, tuple[str, Callable[[], object]]] = {
        "factor_vae (dlib)": ("eval", lambda: fn.factor_vae(codes, SIZES, 0)),
        "factor_vae (cascadevae)": (
            "eval",
            lambda: fn.factor_vae(codes, SIZES, 0, protocol="cascadevae", kl=torch.ones(10), discrete=factors[:, 0]),
        ),
        "beta_vae": ("eval", lambda: fn.beta_vae(codes, SIZES, 0)),
        "higgins_change": ("eval", lambda: fn.higgins_change(codes, SIZES, 0)),
        "mig": ("mig", lambda: fn.mig(c, f)),
        "mig, all 737280 rows": ("mig", lambda: fn.mig(codes, factors)),
        "mig_aggregate, 10000 rows": ("mig", lambda: fn.mig_aggregate(c, logvar, f)),
        "sap": ("sap", lambda: fn.sap(c, f, ct, ft)),
        "sap continuous": ("sap", lambda: fn.sap(c, f, continuous=True)),
        "modularity": ("modularity", lambda: fn.modularity(c, f)),
        "explicitness": ("explicitness_test", lambda: fn.explicitness(c, f, ct, ft)),
        "irs": ("irs", lambda: fn.irs(c, f)),
        "unsupervised": ("gaussian_total_correlation", lambda: fn.unsupervised(c)),
        "linear_correlation": ("mapc", lambda: fn.linear_correlation(c)),
        "info_mec": ("infom", lambda: fn.info_mec(c, f)),
        "udr, 4 models": ("", lambda: fn.udr(four, kl)),
        "ksg, 5000 pairs": ("", lambda: fn.ksg(c[:5000, :3], c[:5000, 3:6])),
        "recall_at_k, 5000 rows": ("recall@1", lambda: fn.recall_at_k(ct, ft[:, 0])),
        "best_dimension_auc": ("mean", lambda: fn.best_dimension_auc(c, f)),
        "unsupervised_accuracy": (
            "hungarian",
            lambda: fn.unsupervised_accuracy(factors[:, 0], factors[:, 1]),
        ),
        "active_units": ("active_units", lambda: fn.active_units(codes)),
        "dci lasso": ("disentanglement", lambda: fn.dci(c, f, ct, ft, predictor="lasso")),
        "dci rf": ("disentanglement", lambda: fn.dci(c, f, ct, ft, predictor="rf")),
        "downstream lr, N <= 1000": ("mean_1000", lambda: fn.downstream(c, f, ct, ft, sizes=(10, 100, 1000))),
    }
    if gbt:
        table["dci gbt"] = ("disentanglement", lambda: fn.dci(c, f, ct, ft))
    if exact:
        table["dci gbt, scikit-learn"] = ("disentanglement", lambda: fn.dci(c, f, ct, ft, exact=True))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--loop", action="store_true", help="time the per-vote loop of the FactorVAE score, too")
    parser.add_argument("--gbt", action="store_true", help="time the fast dci gbt, too")
    parser.add_argument("--exact", action="store_true", help="time scikit-learn's dci gbt, too (minutes)")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    print(f"{name}, {options.threads} threads, torch {torch.__version__}")
    codes, factors = code_table(device)
    print(f"table {tuple(codes.shape)}, {codes.numel() * codes.element_size() / 1e6:.0f} MB")
    print(f"{'score':28}{'seconds':>10}{'CPU s':>10}  value")
    rows: list[dict[str, Any]] = []
    for label, (key, call) in scores(codes, factors, options.gbt, options.exact).items():
        before = time.process_time()
        seconds, value = timed(call, device)
        rows.append({"score": label, "seconds": seconds, "cpu_seconds": time.process_time() - before})
        if key:
            rows[-1]["value"] = value[key]
        print(f"{label:28}{seconds:10.3f}{rows[-1]['cpu_seconds']:10.3f}  {rows[-1].get('value', '')}", flush=True)
        if options.out:  # so that what is ended in the middle leaves what came before
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"device": name, "torch": torch.__version__, "scores": rows}) + "\n")
    plain = [row for row in rows if "gbt" not in row["score"]]
    total = {key: sum(row[key] for row in plain) for key in ("seconds", "cpu_seconds")}
    print(f"{'sum without dci gbt':28}{total['seconds']:10.3f}{total['cpu_seconds']:10.3f}")
    if options.loop:
        rows += loops(codes, device, rows[0])
    if options.out:
        about = {
            "device": name,
            "cores": os.cpu_count(),
            "threads": options.threads,
            "load_average": list(os.getloadavg()),
            "torch": torch.__version__,
            "table": list(codes.shape),
            "sum_without_dci_gbt": total,
            "scores": rows,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(about, indent=2) + "\n")


def processor() -> str:
    """The name of the CPU, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def loops(codes: Tensor, device: torch.device, first: dict[str, Any]) -> list[dict[str, Any]]:
    """Time the FactorVAE score vote by vote; `first`: the row of the fast path. Ratios are of CPU seconds there."""
    before = time.process_time()
    loop, value = timed(lambda: factor_vae_loop(codes.cpu()), torch.device("cpu"))
    spent = time.process_time() - before
    ratio = spent / first["cpu_seconds"] if device.type == "cpu" else loop / first["seconds"]
    print(f"{'factor_vae, loop over votes':28}{loop:10.3f}{spent:10.3f}  {value:.4f}  {ratio:.1f} x the fast path")
    again = loop + 15_000 * 64 * encoding_seconds(device, 64, 50)
    once = len(codes) * encoding_seconds(device, 1024, 5)
    print(f"{'the same, re-encoding':28}{again:10.3f}  scaled from 50 votes")
    print(f"{'one encoding pass':28}{once:10.3f}  paid once for all scores")
    rows: list[dict[str, Any]] = [{"score": "factor_vae, loop over votes", "seconds": loop, "cpu_seconds": spent}]
    rows.append({"score": "factor_vae, re-encoding", "seconds": again})
    return [*rows, {"score": "one encoding pass", "seconds": once}]


if __name__ == "__main__":
    main()
