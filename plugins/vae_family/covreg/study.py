"""covreg's experiments, `covreg-dimred`, `covreg-xor` and `covreg-conv`, as ensembles: every weight, penalty and seed
is a member, and all are trained at once.

The members' parameters are stacked. Linear layers take stacked weights as they are (one batched product), convolutions
are mapped over them (torch.func.vmap). One Adam serves all: it works elementwise, so that the members do not see each
other in the sum of their losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from distk import Dataset, DistkError, UsageError, adam, choose_device, open_dataset, option, seeded
from distk.console import counted, note, progress
from distk.covariance import statistics
from distk.device import initialised
from distk.plugins.vae_family.covreg.method import ConvNet, LinearNet, XorNet, to_signed
from distk.plugins.vae_family.covreg.metrics import COLLAPSED
from distk.plugins.vae_family.covreg.penalty import covariance, l_sigma
from distk.study.protocol import Row, StudyRun, runner
from distk.study.recipe import Variant
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
class Penalised:
    """What all three studies set, of a variant."""

    penalty: Literal["covreg", "covreg-drop", "l1act"] = option(
        "covreg", "which penalty; covreg-drop is covreg without the diagonal"
    )
    weight: float = option(0.0, "its weight", min=0)
    at_once: int = option(1000, "networks that train at once", min=1, max=100_000)


@dataclass(frozen=True)
class DimredConfig(Penalised):
    """Settings of `covreg-dimred`."""

    steps: int = option(10_000, "steps, each on all items", paper="10,000 epochs", min=1)
    items: int = option(10_000, "training items", paper="10,000", min=10)
    lr: float = option(1e-3, "learning rate of Adam", above=0)


@dataclass(frozen=True)
class XorConfig(Penalised):
    """Settings of `covreg-xor`."""

    steps: int = option(8000, "steps, each on the four patterns", min=1)
    lr: float = option(1e-2, "learning rate of Adam", above=0)


@dataclass(frozen=True)
class ImagesConfig(Penalised):
    """Settings of `covreg-conv`; the data set, the batch, the code and the learning rate are those of its method."""

    epochs: int = option(100, "passes over the images", min=1)
    items: int | None = option(None, "training images, a tenth of them kept back; none: all", min=10)
    d: int = option(4, "units that TdV counts", min=1, max=4096)


@dataclass(frozen=True)
class Member:
    """One network of an ensemble. label: the variant that it is of."""

    penalty: str
    weight: float
    seed: int
    label: str = ""


Config = TypeVar("Config", DimredConfig, XorConfig, ImagesConfig)
Experiment = Callable[[Sequence[Member], torch.device, Config], list[Row]]


def _shared(config: Penalised) -> str:
    """What networks that train at once have in common: everything but their penalty and its weight."""
    return repr(replace(config, penalty="covreg", weight=0.0))


def _in_groups(study: StudyRun, jobs: Sequence[tuple[Variant, int]], experiment: Experiment[Config]) -> Iterator[Row]:
    """The rows of an experiment, `at_once` networks at a time, those of one penalty side by side."""
    device = choose_device(study.device)
    groups: dict[str, list[tuple[Variant, int]]] = {}
    for variant, seed in jobs:
        groups.setdefault(_shared(study.settings[variant.label]), []).append((variant, seed))
    for group in groups.values():
        config = study.settings[group[0][0].label]
        for first in range(0, len(group), config.at_once):
            members = [_member(study, *job) for job in group[first : first + config.at_once]]
            rows = experiment(sorted(members, key=lambda m: list(PENALTIES).index(m.penalty)), device, config)
            yield from rows
            _refuse_collapsed(rows)
            if study.stop.signal:
                return


def _member(study: StudyRun, variant: Variant, seed: int) -> Member:
    settings = study.settings[variant.label]
    return Member(settings.penalty, settings.weight, seed, variant.label)


def _refuse_collapsed(rows: Sequence[Row]) -> None:
    """Raise DistkError where a network's coding layer is constant: its figures mean nothing."""
    dead = [row for row in rows if not row["trace"] > 0]
    if dead:
        where = f"{dead[0]['variant']}, seed {dead[0]['seed']}"
        raise DistkError(f"{COLLAPSED} in {len(dead)} of {counted(len(rows), 'network')}, the first of them {where}.")


@runner(DimredConfig)
def dimred_study(study: StudyRun) -> Iterator[Row]:
    """Linear autoencoders on data of four dimensions (Figures 1 and 2)."""
    return _in_groups(study, study.todo(), dimred)


@runner(XorConfig)
def xor_study(study: StudyRun) -> Iterator[Row]:
    """Networks that learn XOR (Figure 3)."""
    return _in_groups(study, study.todo(), xor)


@runner(ImagesConfig)
def conv_study(study: StudyRun) -> Iterator[Row]:
    """Convolutional autoencoders of images (Table 1, Figure 4)."""
    groups: dict[str, list[tuple[Variant, int]]] = {}
    for variant, seed in study.todo():
        settings = study.resolve(variant, seed)
        mark = repr((settings.model, settings.data, settings.data_dir, settings.data_options, settings.train.batch))
        groups.setdefault(mark, []).append((variant, seed))
    for jobs in groups.values():
        settings = study.resolve(*jobs[0])
        data = open_dataset(
            settings.data, settings.data_options, device=choose_device(study.device), folder=settings.data_dir
        )
        code = settings.model.code
        config: ImagesConfig = study.settings[jobs[0][0].label]
        if config.d > code:
            raise UsageError(f"settings.d = {config.d} is more than the {counted(code, 'unit')} of the layer.")
        error, share = linear_floor(data, code, min(config.items or 10_000, 10_000))
        note(f"data {data.name}: {data.origin}")
        note(f"{code} principal components leave a squared error of {error:.4f}, {100 * share:.1f} % of the variance")
        yield from _in_groups(study, jobs, Images(data, settings.train.batch, code, settings.model.lr).train)


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


def dimred(chosen: Sequence[Member], device: torch.device, settings: DimredConfig) -> list[Row]:
    """Linear autoencoders 10-10-10, full batch; each seed has data of its own. Figures on its test split."""
    seeds = sorted({m.seed for m in chosen})
    sets = [open_dataset("dimred", {"items": settings.items, "projection": s}, device=device) for s in seeds]
    d = sets[0].config.factors
    dims = sets[0].spec.shape[0]
    place = torch.tensor([seeds.index(m.seed) for m in chosen], device=device)
    train, test = (torch.stack([s.batch(_rows_of(s, split))["x"] for s in sets]) for split in ("train", "test"))
    x = train[place]
    ensemble = Ensemble(chosen, lambda: LinearNet(dims, 10), settings.lr, device)
    with progress(f"{len(chosen)} linear autoencoders", settings.steps) as advance:
        for _ in range(settings.steps):
            ensemble.step(x, squared)
            advance(1)
    with torch.no_grad():
        output, layers = ensemble(test[place])
        mse = squared(output, test[place])
        found = statistics(covariance(layers["code"].double()), d)
    return _rows(chosen, {**found, "mse": mse})


def xor(chosen: Sequence[Member], device: torch.device, settings: XorConfig) -> list[Row]:
    """Networks 2-4-4-1 on the four patterns, cross-entropy, the penalty on both hidden layers.

    solved: all four patterns right; for the others see `pruned`.
    """
    data = open_dataset("xor", device=device)
    batch = data.batch(torch.arange(len(data), device=device))
    x, target = batch["x"].unsqueeze(0), batch["label"].float().expand(len(chosen), -1)

    def error(logit: Tensor, _: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logit, target, reduction="none").mean(1)

    ensemble = Ensemble(chosen, lambda: XorNet(2), settings.lr, device)
    with progress(f"{counted(len(chosen), 'network')}", settings.steps) as advance:
        for _ in range(settings.steps):
            ensemble.step(x, error)
            advance(1)
    with torch.no_grad():
        logit, layers = ensemble(x)
        found = {
            "solved": ((logit > 0) == (target > 0.5)).all(1),
            "error": error(logit, x),
            **pruned(*layers.values()),
        }
    return _rows(chosen, found)


def pruned(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """What is left of two hidden layers: numbers `[R]` from what their units say, `[R, n, units]`.

    active1, active2: active units. minimal: whether they are exactly 2 and 1. trace: sum of all variances.
    correlation1: of the two units of the first layer that vary most. cvr2: the second layer's covariances without sign,
    summed, as a share of its variances.
    """
    covariances = [covariance(layer.double()) for layer in (first, second)]
    variance = [c.diagonal(dim1=1, dim2=2) for c in covariances]
    one, two = ((v > SHARE * v.amax(1, keepdim=True)).sum(1) for v in variance)
    most = variance[0].topk(2, dim=1)
    row = torch.arange(len(first), device=first.device)
    pair = covariances[0][row, most.indices[:, 0], most.indices[:, 1]]
    total = variance[1].sum(1)
    return {
        "active1": one,
        "active2": two,
        "minimal": (one == 2) & (two == 1),
        "trace": variance[0].sum(1) + total,
        "correlation1": pair / most.values.prod(1).sqrt().clamp_min(1e-12),
        "cvr2": (covariances[1].abs().sum((1, 2)) - total) / total.clamp_min(1e-12),
    }


@dataclass(frozen=True)
class Images:
    """The convolutional experiment on a data set. code: units of the coding layer."""

    data: Dataset
    batch: int
    code: int
    lr: float

    def train(self, chosen: Sequence[Member], device: torch.device, settings: ImagesConfig) -> list[Row]:
        """Convolutional autoencoders; all members read the same batches. After every epoch each member keeps its state
        if its squared error on images kept back is its best so far; the best state is scored on the test split."""
        data = self.data
        train, held, test = _splits(data, settings.items)
        batch = min(self.batch, len(train))
        ensemble = Ensemble(chosen, lambda: ConvNet(data.spec.shape, self.code), self.lr, device)
        generator = seeded(0, device)
        best = {name: value.detach().clone() for name, value in ensemble.parameters.items()}
        lowest = torch.full((len(chosen),), torch.inf, device=device)
        epoch_of = torch.zeros(len(chosen), device=device)
        rounds = len(train) // batch
        with progress(f"{len(chosen)} convolutional autoencoders", settings.epochs * rounds) as advance:
            for epoch in range(settings.epochs):
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
        found = statistics(covariance(torch.cat(codes, 1)), settings.d)
        return _rows(chosen, {**found, "mse": mse, "epoch": epoch_of})


def _rows_of(data: Dataset, split: str) -> Tensor:
    rows = data.rows(split)
    assert rows is not None
    return rows


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


def _rows(chosen: Sequence[Member], found: Mapping[str, Tensor]) -> list[Row]:
    """A row for each member; one reading of the device for all."""
    columns = {name: value.double().cpu().tolist() for name, value in found.items()}
    return [
        {
            "variant": m.label,
            "seed": m.seed,
            **{k: v[i] for k, v in columns.items()},
            "penalty": m.penalty if m.weight else "none",
            "weight": m.weight,
        }
        for i, m in enumerate(chosen)
    ]
