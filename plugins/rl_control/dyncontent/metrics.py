"""The four figures of Table 1 for both sets, and the scores of the latent map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import Code, CodeTable, Metric, option, seeded
from distk.config import C
from distk.data import Dataset
from distk.errors import UsageError
from distk.meaning import higher, lower, neither
from distk.nn import bernoulli_nll
from distk.plugins.metrics.functional.solvers import logistic_regression
from distk.plugins.rl_control.dyncontent.data import SETS, Planar, TwoSets, integer_states
from distk.plugins.rl_control.dyncontent.method import LocallyLinear
from distk.plugins.rl_control.dyncontent.planning import HORIZON, Settings, drive

GOALS = {"opposite": ((37.0, 37.0),), "all": ((37.0, 37.0), (37.0, 3.0), (3.0, 37.0))}


class OfPlanar(Metric[C]):
    """What both scores ask: a locally linear model, and its data."""

    needs_model = True
    needs_codes = False

    def looked_at(self, table: CodeTable) -> tuple[LocallyLinear, Dataset]:
        """The model and its data. Raises UsageError for other methods."""
        model, dataset = table.model, table.dataset
        if not isinstance(model, LocallyLinear) or dataset is None:
            raise UsageError(f"this metric scores the methods dyncontent and rce, not {type(model).__name__}.")
        return model, dataset


@dataclass(frozen=True)
class TableConfig:
    """How many runs are steered, and how."""

    runs: int = option(20, "plans that are carried out", paper="20", min=1, max=100_000)
    horizon: int = option(HORIZON, "moves of each", paper="T, not given", min=1, max=1000)
    goals: Literal["opposite", "all"] = option("opposite", "the corner opposite the start, or the three other corners")


class PlanarTable(OfPlanar[TableConfig]):
    """Reconstruction and prediction (nats per frame, test splits, posterior means), cost and success of plans.

    A prediction's content is that of the present frame. `prediction_free`: of places and moves drawn anew from
    everywhere, blocked ones among them, which training on whole-numbered places has not seen.
    `_sd`: over frames or runs.
    """

    headline = "prediction_x"
    numbers = {
        "*_sd": neither(0, what="over frames or runs"),
        "reconstruction_*": lower(unit="nats", source="Banijamali et al. 2017", form="authors"),
        "prediction_*": lower(unit="nats", source="Banijamali et al. 2017", form="authors"),
        "planning_*": lower(0, source="Banijamali et al. 2017", form="authors", what="cost of plans"),
        "success_*": higher(0, 1),
        "goal_fraction_*": higher(0, 1),
    }

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = self.looked_at(table)
        found: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for name, split in zip(SETS, ("test", "y-test"), strict=True):
            if name == "y" and not isinstance(dataset, TwoSets):
                reasons |= {f"{key}_y": "the data have one set" for key in ("reconstruction", "prediction")}
                continue
            rows = dataset.rows(split)
            assert rows is not None  # transitions have splits
            found |= _losses(model, dataset, rows, name)
            if name == "y" and not isinstance(dataset, Planar):
                found = {k: v for k, v in found.items() if not k.startswith("prediction_y")}
                reasons["prediction_y"] = "frames without actions were recorded, so nothing follows them"
            if isinstance(dataset, Planar):
                found |= self.steered(model, dataset, name, seed)
        if not isinstance(dataset, Planar):
            reasons |= {f"planning_{s}": "plans are carried out in planar" for s in SETS}
        return {**found, **({"reasons": reasons} if reasons else {})}

    def steered(self, model: LocallyLinear, world: Planar, name: str, seed: int) -> dict[str, float]:
        """Plans carried out on pictures of one set, and predictions of transitions drawn anew."""
        generator = seeded(seed, world.device)
        start, goal = starts_and_goals(self.config.runs, GOALS[self.config.goals], SETS.index(name), generator)
        noise = world.config.noise
        run = drive(model, world, start, goal, self.config.horizon, Settings(), generator, noise=noise)
        place, u = world.draw(world.config.held_out, seeded(seed + 1, world.device), "free")
        state = torch.cat([place, torch.full_like(place[:, :1], SETS.index(name))], 1)
        free = foretold_nll(model, world.render(state), u, world.render(world.step(state, u)))
        return {
            f"planning_{name}": float(run.cost.mean()),
            f"planning_{name}_sd": float(run.cost.std(correction=0)),
            f"success_{name}": float(run.success.float().mean()),
            f"goal_fraction_{name}": float(run.goal_fraction.mean()),
            f"prediction_free_{name}": float(free.mean()),
        }


def _losses(model: LocallyLinear, dataset: Dataset, rows: Tensor, name: str) -> dict[str, float]:
    parts = []
    for part in rows.split(1024):
        batch = dataset.batch(part)
        x = batch["x"]
        seen = bernoulli_nll(model.logits(model.encode(x)).flatten(1), x.flatten(1))
        parts.append(torch.stack([seen, foretold_nll(model, x, batch["u"], batch["x_next"])]))
    both = torch.cat(parts, 1).double()
    found = {}
    for key, values in zip(("reconstruction", "prediction"), both, strict=True):
        found[f"{key}_{name}"] = float(values.mean())
        found[f"{key}_{name}_sd"] = float(values.std(correction=0))
    return found


def foretold_nll(model: LocallyLinear, x: Tensor, u: Tensor, after: Tensor) -> Tensor:
    """-log p(frame after | code of x moved by u, content of x), nats, `[n]`."""
    code: Code = model.foretell(model.encode(x), u)
    return bernoulli_nll(model.logits(code).flatten(1), after.flatten(1))


def starts_and_goals(
    n: int, goals: tuple[tuple[float, float], ...], which: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Starts uniform in [3, 7]^2 and goals in turn, states `[n, 3]` of set `which`."""
    device = generator.device
    start = 3 + 4 * torch.rand(n, 2, generator=generator, device=device)
    goal = torch.tensor(goals, device=device)[torch.arange(n, device=device) % len(goals)]
    mark = torch.full((n, 1), float(which), device=device)
    return torch.cat([start, mark], 1), torch.cat([goal, mark], 1)


# The map


@dataclass(frozen=True)
class MapConfig:
    """How the classifiers of sets are tested."""

    test: float = option(0.5, "share of the states on which the classifiers are tested", above=0, max=0.9)


class LatentMap(OfPlanar[MapConfig]):
    """Over all whole-numbered states: mean distance of both sets' codes over the spread of X's (`alignment`, 0 is one
    map); R^2 of the place from quadratic features of z, on states that the fit has not seen; share of neighbours on the
    grid among the eight nearest codes (`topology`); accuracy of a logistic classifier of the set from z (`leak_z`, .5:
    apart) and from w (`content_w`), on states that it has not seen; mean content of each set.
    """

    headline = "alignment"
    numbers = {
        "alignment": lower(0, what="distance of both sets' codes over their spread"),
        "r2_*": higher(None, 1, chance=0.0, what="the place, read from z"),
        "topology_*": higher(0, 1, what="neighbours among the nearest codes"),
        "leak_z": lower(0, 1, chance=0.5, what="the set, read from z"),
        "content_w": higher(0, 1, chance=0.5, what="the set, read from w"),
        "content_mean_*": neither(),
    }

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, world = self.looked_at(table)
        if not isinstance(world, Planar):
            raise UsageError(f"metric 'latent-map' looks at every state, which '{world.name}' cannot show; use planar.")
        place = integer_states(world.device)
        codes = [codes_of(model, world, place, which) for which in range(2)]
        sets = range(2) if model.two_sets else range(1)
        order = torch.randperm(len(place), generator=seeded(seed, world.device), device=world.device)
        test, fit = order.split(
            [round(self.config.test * len(place)), len(place) - round(self.config.test * len(place))]
        )
        found: dict[str, Any] = {}
        for which in sets:
            z = codes[which]["dynamics"]
            found[f"r2_{SETS[which]}"] = readout(z, place, fit, test)
            found[f"topology_{SETS[which]}"] = topology(z, place)
            if "content" in codes[which]:
                found[f"content_mean_{SETS[which]}"] = float(codes[which]["content"].mean())
        x, y = codes[0]["dynamics"], codes[1]["dynamics"]
        found["alignment"] = float((x - y).norm(dim=1).mean() / (x - x.mean(0)).norm(dim=1).mean())
        found["leak_z"] = told_apart(x, y, fit, test)
        if model.two_sets:
            found["content_w"] = told_apart(codes[0]["content"], codes[1]["content"], fit, test)
        return found


def codes_of(model: LocallyLinear, world: Planar, place: Tensor, which: int) -> Code:
    """Posterior means of places `[n, 2]` shown as set `which`."""
    state = torch.cat([place, torch.full_like(place[:, :1], float(which))], 1)
    parts = [model.encode(world.render(part)) for part in state.split(1024)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def readout(z: Tensor, place: Tensor, fit: Tensor, test: Tensor) -> float:
    """R^2 of places `[n, 2]` from quadratic features of z, fitted on some rows, scored on others; mean of both axes."""
    z, place = z.double(), place.double()
    z = (z - z[fit].mean(0)) / z[fit].std(0).clamp_min(1e-9)
    products = (z[:, :, None] * z[:, None]).flatten(1)
    features = torch.cat([torch.ones_like(z[:, :1]), z, products], 1)
    # The least norm solution on the CPU, since the products hold each pair twice.
    weights = torch.linalg.lstsq(features[fit].cpu(), place[fit].cpu(), driver="gelsd").solution.to(z.device)
    error = (place[test] - features[test] @ weights).square().sum(0)
    return float((1 - error / (place[test] - place[test].mean(0)).square().sum(0)).mean())


def topology(z: Tensor, place: Tensor) -> float:
    """Share of states' neighbours on the grid (one pixel up, down, left, right) among their 8 nearest codes."""
    nearest = torch.cdist(z.double(), z.double()).fill_diagonal_(torch.inf).topk(8, largest=False).indices
    steps = (place[nearest] - place[:, None]).abs().sum(-1)
    neighbours = ((place[:, None] - place[None]).abs().sum(-1) == 1).sum(1)
    return float((steps == 1).sum() / neighbours.sum())


def told_apart(x: Tensor, y: Tensor, fit: Tensor, test: Tensor) -> float:
    """Accuracy of a logistic classifier of the set, fitted on some states of both and tested on others."""

    def both(rows: Tensor) -> tuple[Tensor, Tensor]:
        label = torch.arange(2, device=x.device).repeat_interleave(len(rows))
        return torch.cat([x[rows], y[rows]]).double(), label

    codes, labels = both(fit)
    mean, spread = codes.mean(0), codes.std(0).clamp_min(1e-9)
    classifier = logistic_regression((codes - mean) / spread, labels, 2)
    codes, labels = both(test)
    return float((classifier.logits((codes - mean) / spread).argmax(1) == labels).double().mean())
