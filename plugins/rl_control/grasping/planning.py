"""Better grasps by the model's own score: from a grasp that fails, step by step to where it says that one holds.

All searches are one batch on the device: of every view the encoders run once, and each step scores every candidate of
every search. What the paper calls CEM takes the best of ten random directions and refits no distribution
(`directions`); the cross-entropy method proper is `cem`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from distk.errors import UsageError
from distk.plugins.rl_control.grasping.bodies import rigid, rotations
from distk.plugins.rl_control.grasping.data import Grasps
from distk.plugins.rl_control.grasping.method import Scene
from distk.plugins.rl_control.grasping.projection import composed

POINTS = 1 << 25
"""Most points at which the grids are read at once."""
SPREAD = (0.02, math.radians(20))
"""First standard deviations of the cross-entropy method: metres, radians."""
LEAST = (0.001, math.radians(1))
"""And what is added to the fitted ones: six elites span less than six dimensions."""

Try = Callable[[Tensor], Tensor]
"""Gripper poses of all searches `[n, 4, 4]` -> whether they hold, bool `[n]`."""


class Scoring(Protocol):
    """What is planned with: `method.Grasping`."""

    def look(self, x: Tensor, camera: Tensor) -> Scene:
        """Views -> what the networks know of them."""

    def score(self, scene: Scene, pose: Tensor) -> Tensor:
        """Logits of grasps `[n, g, 4, 4]`."""


@dataclass(frozen=True)
class Settings:
    """How one searches. directions: candidates of a step. shift, turn: metres and degrees that each is away.

    keep: stay where no candidate scores higher. samples, elites: of the cross-entropy method.
    """

    planner: Literal["directions", "cem"] = "directions"
    steps: int = 20
    directions: int = 10
    shift: float = 0.01
    turn: float = 10.0
    keep: bool = False
    samples: int = 64
    elites: int = 6

    @property
    def candidates(self) -> int:
        """Grasps that are scored in a step of one search."""
        return self.directions if self.planner == "directions" else self.samples


@dataclass
class Search:
    """N searches of T steps. poses, gripper to world `[N, T + 1, 4, 4]`, scores, logits `[N, T + 1]`, and outcomes,
    bool `[N, T + 1]` or None where nobody can say. A search stays where it first succeeds."""

    poses: Tensor
    scores: Tensor
    outcomes: Tensor | None

    @property
    def success(self) -> Tensor:
        """Whether a search found a grasp that holds, bool `[N]`; none did where nobody can say."""
        return torch.zeros_like(self.scores[:, 0], dtype=torch.bool) if self.outcomes is None else self.outcomes.any(1)


def gathered(scene: Scene, index: Tensor) -> Scene:
    """Views by number: what is known of each search's view."""
    pick = lambda value: None if value is None else value[index]  # noqa: E731
    return Scene(scene.state[index], scene.turn[index], pick(scene.shape), pick(scene.grid))


def scores(model: Scoring, scene: Scene, which: Tensor, pose: Tensor, points: int) -> Tensor:
    """Logits of poses `[n, c, 4, 4]` in the views `which` `[n]`, `[n, c]`, in parts that fit.

    points: at how many points a grasp reads its grid.
    """
    step = max(1, POINTS // max(1, points * pose.shape[1]))
    parts = [model.score(gathered(scene, w), p) for w, p in zip(which.split(step), pose.split(step), strict=True)]
    return torch.cat(parts)


@torch.no_grad()
def search(
    model: Scoring, views: dict[str, Tensor], which: Tensor, start: Tensor, settings: Settings,
    generator: torch.Generator, holds: Try | None, points: int = 1,
) -> Search:  # fmt: skip
    """Search from gripper poses `[N, 4, 4]`.

    views: `x` and `T_wc` of the different views. which: view of each search, int64 `[N]`. holds: what says whether a
    grasp holds, so that a search ends there; None: all take every step. points: at how many points a grasp reads its
    grid. Raises UsageError for numbers that make no search.
    """
    if settings.steps < 1 or settings.candidates < 1 or not 1 < settings.elites <= settings.samples:
        raise UsageError("a search takes one step and one direction at least, and 2 elites among its samples.")
    parts = [model.look(x, t) for x, t in zip(views["x"].split(64), views["T_wc"].split(64), strict=True)]
    scene = Scene(
        torch.cat([p.state for p in parts]),
        torch.cat([p.turn for p in parts]),
        None if parts[0].shape is None else torch.cat([p.shape for p in parts if p.shape is not None]),
        None if parts[0].grid is None else torch.cat([p.grid for p in parts if p.grid is not None]),
    )

    def score(pose: Tensor) -> Tensor:
        return scores(model, scene, which, pose, points)

    propose = _Directions(settings) if settings.planner == "directions" else _Fitted(settings, start)
    now, best = start, score(start.unsqueeze(1)).squeeze(1)
    good = torch.zeros_like(best, dtype=torch.bool) if holds is None else holds(now)
    poses, logits, outcomes = [now], [best], [good]
    rows = torch.arange(len(start), device=start.device)
    for _ in range(settings.steps):
        candidates = propose.draw(now, generator)
        found = score(candidates)
        propose.learn(found)
        top = found.argmax(1)
        moved, value = candidates[rows, top], found[rows, top]
        stay = good | (value <= best) if settings.keep else good
        now = torch.where(stay[:, None, None], now, moved)
        best = torch.where(stay, best, value)
        if holds is not None:
            good = good | holds(now)
        poses.append(now)
        logits.append(best)
        outcomes.append(good)
    return Search(
        torch.stack(poses, 1), torch.stack(logits, 1), torch.stack(outcomes, 1) if holds is not None else None
    )


class _Directions:
    """Random steps of one length from where the gripper is, in its own frame."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def draw(self, now: Tensor, generator: torch.Generator) -> Tensor:
        count = self.settings.directions
        drawn = torch.randn(len(now), count, 6, generator=generator, device=now.device, dtype=now.dtype)
        shift = self.settings.shift * F.normalize(drawn[..., :3], dim=-1)
        turn = math.radians(self.settings.turn) * F.normalize(drawn[..., 3:], dim=-1)
        return composed(now.unsqueeze(1), rigid(rotations(turn), shift))

    def learn(self, found: Tensor) -> None:
        """Nothing is kept from step to step."""


class _Fitted:
    """The cross-entropy method on shift and rotation vector from the start, a normal distribution for each search."""

    def __init__(self, settings: Settings, start: Tensor) -> None:
        self.settings, self.start = settings, start
        self.mean = torch.zeros(len(start), 6, device=start.device, dtype=start.dtype)
        spread = torch.tensor([*[SPREAD[0]] * 3, *[SPREAD[1]] * 3], device=start.device, dtype=start.dtype)
        self.least = torch.tensor([*[LEAST[0]] * 3, *[LEAST[1]] * 3], device=start.device, dtype=start.dtype)
        self.root = torch.diag(spread).expand(len(start), 6, 6)
        self.drawn = self.mean.unsqueeze(1)

    def draw(self, now: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(now), self.settings.samples, 6)
        noise = torch.randn(shape, generator=generator, device=now.device, dtype=now.dtype)
        self.drawn = self.mean.unsqueeze(1) + noise @ self.root.transpose(1, 2)
        return composed(self.start.unsqueeze(1), rigid(rotations(self.drawn[..., 3:]), self.drawn[..., :3]))

    def learn(self, found: Tensor) -> None:
        elite = found.topk(self.settings.elites, dim=1).indices
        chosen = self.drawn.gather(1, elite.unsqueeze(-1).expand(-1, -1, 6))
        self.mean = chosen.mean(1)
        away = chosen - self.mean.unsqueeze(1)
        covariance = away.transpose(1, 2) @ away / (self.settings.elites - 1) + torch.diag(self.least.square())
        self.root = torch.linalg.cholesky(covariance)


@dataclass
class Starts:
    """Where N searches begin: row of the data set, demonstration and category of each, int64 `[N]`, and gripper poses
    `[N, 4, 4]` that fail."""

    row: Tensor
    demo: Tensor
    category: Tensor
    pose: Tensor


def starts(dataset: Grasps, rows: Tensor, demos: int | None, repeats: int, generator: torch.Generator) -> Starts:
    """For each demonstration in the scenes of views int64 `[n]`, `repeats` failures near it, each with a view of its
    scene.

    demos: at most so many, drawn; None: all. Raises UsageError where no grasp of these scenes fails.
    """
    scenes = dataset.scene[rows]
    inside = torch.zeros(dataset.scenes, dtype=torch.bool, device=dataset.device)
    inside[scenes] = True
    fails = (inside[dataset.grasp_scene] & (dataset.outcome < 0.5)).nonzero().squeeze(1)
    if not len(fails):
        raise UsageError("no grasp of these scenes fails, so there is nowhere to start from.")
    # By demonstration, so that those of one stand together.
    fails = fails[torch.argsort(dataset.demo[fails], stable=True)]
    names, counts = torch.unique_consecutive(dataset.demo[fails], return_counts=True)
    first = counts.cumsum(0) - counts
    order = torch.randperm(len(names), generator=generator, device=dataset.device)
    chosen = order[: demos or len(order)].sort().values.repeat_interleave(repeats)
    drawn = torch.rand(len(chosen), 2, generator=generator, device=dataset.device)
    grasp = fails[first[chosen] + (drawn[:, 0] * counts[chosen]).long()]
    scene = dataset.grasp_scene[grasp]
    row = scene * dataset.views + (drawn[:, 1] * dataset.views).long().clamp(max=dataset.views - 1)
    return Starts(row, names[chosen], dataset.category_of[scene], dataset.pose[grasp])


def planned(
    model: Scoring, dataset: Grasps, begin: Starts, settings: Settings, generator: torch.Generator, points: int = 1
) -> Search:
    """Search from all starts at once, each step tried by the engine that labelled the data."""
    rows, which = begin.row.unique(return_inverse=True)
    views = dataset.viewed(rows)
    scene = dataset.scene[begin.row]
    return search(model, views, which, begin.pose, settings, generator, lambda pose: dataset.label(scene, pose), points)
