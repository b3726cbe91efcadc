"""A claim of the paper about two metrics, judged by a code that is made by hand: no run is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from distk import codes, evaluate
from distk.study.claims import FAILS, HOLDS, Claim, Verdict

SIZES = (6, 5, 4)
"""Values of the factors; the code has all but the last, each on a dimension of its own."""
WHOLE, SEEDS = 0.999, 3


def judge(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """The kind `of the metrics: a code without a factor`."""
    if claim.kind != "of the metrics: a code without a factor":
        return None
    found = [lacking(seed) for seed in range(SEEDS)]
    old, new = min(score["betavae"] for score in found), max(score["factorvae"] for score in found)
    told = f"metric of 2017 at least {old:.3f}, the new one at most {new:.3f}, over {SEEDS} seeds"
    return Verdict(HOLDS if old > WHOLE > new else FAILS, n=SEEDS, how="a code made by hand", reason=told)


def lacking(seed: int) -> dict[str, float]:
    """Both metrics' scores of a code that holds every factor but one."""
    factors = torch.cartesian_prod(*(torch.arange(n) for n in SIZES))
    factors = factors[torch.randperm(len(factors), generator=torch.Generator().manual_seed(seed))]
    table = codes(factors[:, :-1].double().numpy(), factors.numpy())
    told = evaluate(table, ["betavae", "factorvae"], seed=seed)["metrics"]
    return {name: float(told[name]["eval"]) for name in ("betavae", "factorvae")}
