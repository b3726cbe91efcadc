"""covreg's experiments as ensembles: every weight, penalty and seed is a member, and all are trained at once.

The members' parameters are stacked. Linear layers take stacked weights as they are (one batched product), convolutions
are mapped over them (torch.func.vmap). One Adam serves all: it works elementwise, so that the members do not see each
other in the sum of their losses.
"""

from __future__ import annotations

import itertools
import math
import statistics as statistics_of
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from distk import Dataset, UsageError, adam, open_dataset, seeded
from distk.console import progress
from distk.covariance import statistics
from distk.device import initialised
from distk.plugins.vae_family.covreg.method import ConvNet, LinearNet, XorNet, to_signed
from distk.plugins.vae_family.covreg.penalty import covariance, l_sigma
from distk.training.capture import Captured

PENALTIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "covreg": l_sigma,
    "covreg-drop": lambda h: l_sigma(h, drop=True),
    "l1act": lambda h: h.abs().flatten(1).mean(1),
}
"""Activations `[M, N, p]` -> `[M]`. covreg-drop is covreg without the diagonal."""
SHARE = 0.05
"""XOR: a unit is active whose variance exceeds this share of its layer's largest."""
KEPT_BACK = 0.1
"""CIFAR: share of the training images on which the stopping point is chosen."""


@dataclass(frozen=True)
class Member:
    """One network of an ensemble."""

    penalty: str
    weight: float
    seed: int


def members(penalties: Sequence[str], weights: Sequence[float], seeds: Sequence[int]) -> list[Member]:
    """Every combination; weight 0, at which penalties do not differ, only under the first of them.

    Raises UsageError for an unknown penalty.
    """
    for name in penalties:
        if name not in PENALTIES:
            raise UsageError(f"--penalties: '{name}' is none of {', '.join(PENALTIES)}.")
    kept = [(p, w) for i, p in enumerate(penalties) for w in weights if w or not i]
    return [Member(p, w, s) for p, w in kept for s in seeds]


class Ensemble:
    """Networks of one shape in training. They return (output, {layer: activations}) and start from their seeds."""

    def __init__(
        self, chosen: Sequence[Member], build: Callable[[], nn.Module], lr: float, device: torch.device
    ) -> None:
        nets = []
        for member in chosen:
            with initialised(member.seed, device):
                nets.append(build().to(device))
        stacked, _ = stack_module_state(nets)
        self.parameters = {name: nn.Parameter(value.detach()) for name, value in stacked.items()}
        self.mapped = any(isinstance(layer, nn.Conv2d) for layer in nets[0].modules())
        self.network = deepcopy(nets[0])
        for name, value in self.parameters.items() if not self.mapped else ():
            owner, _, own = name.rpartition(".")
            setattr(self.network.get_submodule(owner), own, value)
        self.weight = torch.tensor([m.weight for m in chosen], device=device)
        names = [m.penalty for m in chosen]
        ends = [i + 1 for i, name in enumerate(names) if names[i + 1 : i + 2] != [name]]
        self.parts = [(PENALTIES[names[a]], slice(a, b)) for a, b in zip([0, *ends], ends, strict=False)]
        self.penalised = any(m.weight for m in chosen)
        self.optimizer = adam(lr)(list(self.parameters.values()))
        self.captured: Captured | None = None  # on CUDA the step is one graph, which reads its batch from `held`

    def __call__(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """x `[M, n, ...]`, or `[1, n, ...]` for all members -> output `[M, n, ...]`, activations `[M, n, p]`."""
        if not self.mapped:
            return self.network(x)
        own = None if len(x) == 1 else 0
        run = vmap(lambda p, items: functional_call(self.network, p, (items,)), in_dims=(0, own))
        return run(self.parameters, x[0] if own is None else x)

    def penalties(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Each member's penalty, summed over layers, without its weight: `[M]`."""
        return torch.cat([sum(of(h[part]) for h in layers.values()) for of, part in self.parts])  # type: ignore[misc]

    def step(self, x: Tensor, error: Callable[[Tensor, Tensor], Tensor]) -> None:
        """One step of every member; error: (output, x) -> `[M]`, the same function in every step."""
        if not x.is_cuda:
            self._update(x, error)
            return
        if self.captured is None:
            held = self.held = x.clone()
            self.captured = Captured(lambda key: self._update(held, error), seeded(0, x.device), x.device)
        self.held.copy_(x)
        self.captured(None)

    def _update(self, x: Tensor, error: Callable[[Tensor, Tensor], Tensor]) -> None:
        output, layers = self(x)
        loss = error(output, x)
        if self.penalised:
            loss = loss + self.weight * self.penalties(layers)
        self.optimizer.zero_grad()
        loss.sum().backward()
        self.optimizer.step()


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each member: `[M]`; target `[M or 1, n, ...]`."""
    return (output - target).square().flatten(1).mean(1)


# The experiments: each trains the members it is given and returns a row of figures for each of them


def dimred(chosen: Sequence[Member], device: torch.device, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Linear autoencoders 10-10-10, full batch; each seed has data of its own. Figures on its test split."""
    seeds = sorted({m.seed for m in chosen})
    sets = [open_dataset("dimred", {"items": settings["items"], "projection": s}, device=device) for s in seeds]
    d = sets[0].config.factors
    dims = sets[0].spec.shape[0]
    place = torch.tensor([seeds.index(m.seed) for m in chosen], device=device)
    train, test = (torch.stack([s.batch(s.rows(split))["x"] for s in sets]) for split in ("train", "test"))
    x = train[place]
    ensemble = Ensemble(chosen, lambda: LinearNet(dims, 10), settings["lr"], device)
    with progress(f"{len(chosen)} linear autoencoders", settings["steps"]) as advance:
        for _ in range(settings["steps"]):
            ensemble.step(x, squared)
            advance(1)
    with torch.no_grad():
        output, layers = ensemble(test[place])
        mse = squared(output, test[place])
        found = statistics(covariance(layers["code"].double()), d)
    return _rows(chosen, {**found, "mse": mse})


def xor(chosen: Sequence[Member], device: torch.device, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Networks 2-4-4-1 on the four patterns, cross-entropy, the penalty on both hidden layers.

    active1, active2: active units. minimal: whether they are exactly 2 and 1. solved: all four patterns right.
    """
    data = open_dataset("xor", device=device)
    batch = data.batch(torch.arange(len(data), device=device))
    x, target = batch["x"].unsqueeze(0), batch["label"].float().expand(len(chosen), -1)

    def error(logit: Tensor, _: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logit, target, reduction="none").mean(1)

    ensemble = Ensemble(chosen, lambda: XorNet(2), settings["lr"], device)
    with progress(f"{len(chosen)} networks", settings["steps"]) as advance:
        for _ in range(settings["steps"]):
            ensemble.step(x, error)
            advance(1)
    with torch.no_grad():
        logit, layers = ensemble(x)
        variance = [covariance(h.double()).diagonal(dim1=1, dim2=2) for h in layers.values()]
        one, two = ((v > SHARE * v.amax(1, keepdim=True)).sum(1) for v in variance)
        found = {
            "active1": one,
            "active2": two,
            "minimal": (one == 2) & (two == 1),
            "solved": ((logit > 0) == (target > 0.5)).all(1),
            "error": error(logit, x),
            "trace": sum(v.sum(1) for v in variance),
        }
    return _rows(chosen, found)


def cifar(chosen: Sequence[Member], device: torch.device, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Convolutional autoencoders; all members read the same batches. After every epoch each member keeps its state if
    its squared error on images kept back is its best so far; the best state is scored on the test split."""
    data: Dataset = settings["dataset"]
    train, held, test = _splits(data, settings["items"])
    batch = min(settings["batch"], len(train))
    ensemble = Ensemble(chosen, lambda: ConvNet(data.spec.shape, settings["code"]), settings["lr"], device)
    generator = seeded(0, device)
    best = {name: value.detach().clone() for name, value in ensemble.parameters.items()}
    lowest = torch.full((len(chosen),), torch.inf, device=device)
    epoch_of = torch.zeros(len(chosen), device=device)
    rounds = len(train) // batch
    with progress(f"{len(chosen)} convolutional autoencoders", settings["epochs"] * rounds) as advance:
        for epoch in range(settings["epochs"]):
            order = train[torch.randperm(len(train), generator=generator, device=device)]
            for rows in order[: rounds * batch].view(rounds, batch):
                ensemble.step(_pictures(data, rows), squared)
                advance(1)
            now = _error(ensemble, data, held)
            better = now < lowest
            lowest = torch.where(better, now, lowest)
            epoch_of = torch.where(better, epoch + 1.0, epoch_of)
            for name, value in ensemble.parameters.items():
                best[name] = torch.where(better.view(-1, *[1] * (value.dim() - 1)), value.detach(), best[name])
    with torch.no_grad():
        for name, value in ensemble.parameters.items():
            value.copy_(best[name])
    codes: list[Tensor] = []
    mse = _error(ensemble, data, test, codes)
    found = statistics(covariance(torch.cat(codes, 1)), settings["d"])
    return _rows(chosen, {**found, "mse": mse, "epoch": epoch_of})


def _splits(data: Dataset, items: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Rows to train on, rows kept back, rows to test on; `items` limits the first two together."""
    train, test = data.rows("train"), data.rows("test")
    if train is None or test is None:
        raise UsageError(f"data set '{data.name}' has no test split.")
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:items].to(train.device)]
    cut = round(len(train) * (1 - KEPT_BACK))
    if cut < 2 or cut == len(train):
        raise UsageError(f"{len(train)} training images are too few.")
    return train[:cut], train[cut:], test


def _pictures(data: Dataset, rows: Tensor) -> Tensor:
    """Images on [-1, 1], `[1, n, c, h, w]`."""
    return to_signed(data.batch(rows)["x"], data.spec.range).unsqueeze(0)


@torch.no_grad()
def _error(ensemble: Ensemble, data: Dataset, rows: Tensor, codes: list[Tensor] | None = None) -> Tensor:
    """Squared error of each member over `rows`, `[M]`; appends the codes, float64 `[M, n, p]`, to `codes`."""
    total = torch.zeros(len(ensemble.weight), device=rows.device)
    for part in rows.split(250):
        x = _pictures(data, part)
        output, layers = ensemble(x)
        total += squared(output, x) * len(part)
        if codes is not None:
            codes.append(layers["code"].double())
    return total / len(rows)


def linear_floor(data: Dataset, code: int, items: int = 10_000) -> tuple[float, float]:
    """What the best linear code of so many units leaves, as squared error on [-1, 1] and as share of the variance.

    From the principal components of at most `items` training images (randomised SVD).
    """
    train, _, _ = _splits(data, items)
    x = torch.cat([_pictures(data, part)[0].flatten(1) for part in train.split(500)])
    x = x - x.mean(0)
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(0)
        _, singular, _ = torch.svd_lowrank(x, q=min(code + 16, *x.shape), niter=3)
    whole = float(x.square().sum())
    left = whole - float(singular[:code].square().sum())
    return left / x.numel(), left / whole


def at_equal_error(rows: Sequence[Mapping[str, Any]], key: str, one: str, other: str) -> list[tuple[float, ...]]:
    """Means over seeds of `key` for the weights of penalty `one`, beside that of `other` at the same squared error:
    (mse, key of `one`, key of `other`), where the curve of `other` reaches so far; linear in log mse between points."""
    curve = {p: sorted((mean(r, "mse"), mean(r, key)) for r in by_weight(rows, p).values()) for p in (one, other)}
    found: list[tuple[float, ...]] = []
    for error, value in curve[one]:
        for (a, first), (b, second) in itertools.pairwise(curve[other]):
            if 0 < a <= error <= b and a < b:
                share = math.log(error / a) / math.log(b / a)
                found.append((error, value, first + share * (second - first)))
                break
    return found


def by_weight(rows: Sequence[Mapping[str, Any]], penalty: str) -> dict[float, list[Mapping[str, Any]]]:
    """The rows of one penalty by weight, those of weight 0 being everybody's."""
    mine = [row for row in rows if row["penalty"] == penalty or row["weight"] == 0]
    return {w: [row for row in mine if row["weight"] == w] for w in sorted({row["weight"] for row in mine})}


def mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Mean of a figure over rows."""
    return statistics_of.fmean(row[key] for row in rows)


def _rows(chosen: Sequence[Member], found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """A row for each member; one reading of the device for all."""
    columns = {name: value.double().cpu().tolist() for name, value in found.items()}
    return [
        {"penalty": m.penalty, "weight": m.weight, "seed": m.seed, **{k: v[i] for k, v in columns.items()}}
        for i, m in enumerate(chosen)
    ]
