"""Accuracy by category and elevation (Tables 1 and 2), success of planning (Table 3), and the quality of the shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distk import CodeTable, Metric, option, seeded
from distk.config import C
from distk.errors import UsageError
from distk.meaning import count, higher, lower, neither
from distk.method import eval_mode
from distk.plugins.rl_control.grasping.data import SAME_ELEVATION, Grasps
from distk.plugins.rl_control.grasping.method import Grasping, Scene, turned_grid
from distk.plugins.rl_control.grasping.planning import POINTS, Settings, planned, starts


class OfGrasps(Metric[C]):
    """What these scores ask: a model of grasping, and grasps that the same engine labelled."""

    needs_model = True
    needs_codes = False

    def looked_at(self, table: CodeTable) -> tuple[Grasping, Grasps]:
        """The model and its data. Raises UsageError for other methods, other data and other labels."""
        model, dataset = table.model, table.dataset
        if not isinstance(model, Grasping) or not isinstance(dataset, Grasps):
            raise UsageError(
                f"this metric scores grasping and graspcnn on data set grasps, not {type(model).__name__}."
            )
        own = model.spec.extra.get("labels")
        if own != dataset.labels:
            raise UsageError(
                f"the model learnt labels of {own}, and these grasps are labelled by {dataset.labels}: scores across "
                "engines say nothing of either."
            )
        return model, dataset

    def views(self, table: CodeTable, dataset: Grasps, part: str) -> Tensor:
        """Rows of a split that are among those of the table, or all of the table's where none is: a score by which a
        model is chosen sees the validation's views alone."""
        own = dataset.rows_of(part)
        both = own if table.rows is None else own[torch.isin(own, table.rows)]
        return both if len(both) or table.rows is None else table.rows


def points_of(model: Grasping) -> int:
    """At how many points one grasp reads the grid; 1 for the baseline, which has none."""
    return model.config.local_size**2 * model.config.local_samples if model.config.shape else 1


@torch.no_grad()
def predicted(model: Grasping, dataset: Grasps, rows: Tensor) -> dict[str, Tensor]:
    """Every grasp of every view's scene: `right` (is the outcome foretold?), `outcome`, and `row`, one for each
    pair."""
    found: dict[str, list[Tensor]] = {"right": [], "outcome": [], "row": []}
    for scene in dataset.scene[rows].unique().tolist():
        own = rows[dataset.scene[rows] == scene]
        grasps = dataset.grasps_of(scene)
        views = dataset.viewed(own)
        known = model.look(views["x"], views["T_wc"])
        step = max(1, POINTS // (points_of(model) * len(own)))
        parts = [model.score(known, dataset.pose[part].expand(len(own), -1, 4, 4)) for part in grasps.split(step)]
        outcome = dataset.outcome[grasps].expand(len(own), -1)
        found["right"].append(((torch.cat(parts, 1) > 0) == (outcome > 0.5)).flatten())
        found["outcome"].append(outcome.flatten())
        found["row"].append(own.repeat_interleave(len(grasps)))
    return {name: torch.cat(values) for name, values in found.items()}


def balanced(right: Tensor, outcome: Tensor) -> float:
    """Accuracy in which successes and failures count alike; of balanced grasps, the accuracy. NaN for none."""
    sides = [right[outcome > 0.5].double(), right[outcome < 0.5].double()]
    sides = [side for side in sides if len(side)]
    return float(torch.stack([side.mean() for side in sides]).mean()) if sides else float("nan")


@dataclass(frozen=True)
class AccuracyConfig:
    """Which views are scored."""

    part: str = option("test", "split whose views and grasps are scored, as far as they are asked for")


class GraspAccuracy(OfGrasps[AccuracyConfig]):
    """Share of grasps whose outcome is foretold (logit above 0), over all views of the split and all grasps of their
    scenes; successes and failures count alike, so that guessing gives 1/2.

    `all_15`, `bottle_15`, ...: by category and elevation in whole degrees; `seen`, `novel`: elevations that were
    trained on, and others; `n`: pairs of a view and a grasp.
    """

    headline = "accuracy"
    numbers = {
        "accuracy": higher(0, 1, chance=0.5, source="Yan et al. 2017, Tables 1 and 2", form="balanced"),
        "seen": higher(0, 1, chance=0.5, what="elevations that were trained on"),
        "novel": higher(0, 1, chance=0.5, what="other elevations"),
        "n": count("pairs"),
        "*_*": higher(0, 1, chance=0.5, what="of a category at an elevation"),
    }

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = self.looked_at(table)
        with eval_mode(model):
            found = predicted(model, dataset, self.views(table, dataset, self.config.part))
        right, outcome, row = found["right"], found["outcome"], found["row"]
        elevation = dataset.elevation[row]
        category = dataset.category_of[dataset.scene[row]]
        scores: dict[str, Any] = {"accuracy": balanced(right, outcome), "n": len(right)}
        trained = model.spec.extra.get("train_elevations") or sorted({float(v) for v in elevation})
        seen = torch.zeros_like(right)
        for value in trained:
            seen |= (elevation - float(value)).abs() <= SAME_ELEVATION
        for name, chosen in (("seen", seen), ("novel", ~seen)):
            if bool(chosen.any()):
                scores[name] = balanced(right[chosen], outcome[chosen])
        for degrees in sorted({round(float(v)) for v in elevation}):
            at = elevation.round() == degrees
            scores[f"all_{degrees}"] = balanced(right[at], outcome[at])
            for number, name in enumerate(dataset.spec.classes):
                own = at & (category == number)
                if bool(own.any()):
                    scores[f"{name}_{degrees}"] = balanced(right[own], outcome[own])
        return scores


@dataclass(frozen=True)
class PlanningConfig:
    """How the searches go."""

    part: str = option("test", "split whose grasps are planned, as far as they are asked for")
    demos: int = option(200, "demonstrations that are drawn, at most", paper="all", min=1, max=1_000_000)
    starts: int = option(8, "starts near each of them", paper="8", min=1, max=1000)
    planner: Literal["directions", "cem"] = option("directions", "best of random directions, or cross-entropy method")
    steps: int = option(20, "steps of each search", paper="20", min=1, max=1000)
    directions: int = option(10, "directions tried in each step", paper="10", min=1, max=10_000)


class GraspPlanning(OfGrasps[PlanningConfig]):
    """Share of searches that find a grasp that holds, from one that fails, within the steps: all, and by category.

    `aimless`: the same for a walk that takes any direction instead of the best, so that
    what chance alone finds can be seen.
    """

    headline = "all"
    numbers = {
        "all": higher(0, 1, source="Yan et al. 2017, Table 3"),
        "aimless": neither(0, 1, what="of a walk in any direction"),
        "n": count("searches"),
        "*": higher(0, 1, what="of a category"),
    }

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = self.looked_at(table)
        settings = Settings(self.config.planner, self.config.steps, self.config.directions)
        generator = seeded(seed, dataset.device)
        views = self.views(table, dataset, self.config.part)
        begin = starts(dataset, views, self.config.demos, self.config.starts, generator)
        with eval_mode(model):
            found = planned(model, dataset, begin, settings, generator, points_of(model)).success
            aimless = Settings(steps=self.config.steps, directions=1)
            chance = planned(model, dataset, begin, aimless, generator, points_of(model)).success
        scores: dict[str, Any] = {
            "all": float(found.double().mean()),
            "aimless": float(chance.double().mean()),
            "n": len(found),
        }
        for number, name in enumerate(dataset.spec.classes):
            own = begin.category == number
            if bool(own.any()):
                scores[name] = float(found[own].double().mean())
        return scores


@dataclass(frozen=True)
class ShapeConfig:
    """Which views are scored."""

    part: str = option("test", "split whose views are scored, as far as they are asked for")


class GraspShape(OfGrasps[ShapeConfig]):
    """The grid that one view gives, against the truth: mean over views of intersection over union of occupancy at 1/2
    (`iou`), of the silhouette in that view (`mask_iou`), of what is between the fingers of the first grasp that holds
    (`local_iou`), and the error of the projected depth on the object, metres (`depth_l1`).
    """

    headline = "iou"
    numbers = {
        "iou": higher(0, 1),
        "mask_iou": higher(0, 1, what="of the silhouette"),
        "local_iou": higher(0, 1, what="between the fingers"),
        "depth_l1": lower(0, unit="metres"),
    }

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, dataset = self.looked_at(table)
        if not model.config.shape:
            raise UsageError("the baseline has no shape to score.")
        parts = []
        with eval_mode(model):
            for rows in self.views(table, dataset, self.config.part).split(32):
                batch = dataset.batch(rows)
                scene = model.look(batch["x"], batch["T_wc"])
                parts.append(shape_scores(model, scene, batch))
        reasons = {} if dataset.occupancy is not None else {"iou": "the data hold no occupancy"}
        found = {name: float(torch.cat([p[name] for p in parts]).double().mean()) for name in parts[0]}
        return {**({"iou": float("nan")} if reasons else {}), **found, **({"reasons": reasons} if reasons else {})}


def shape_scores(model: Grasping, scene: Scene, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores of `GraspShape` for each view, `[n]`; those of the grid only where the batch has `occupancy`."""
    assert scene.grid is not None
    depth, mask = model.seen_from(scene, batch)
    # The middle of a small pixel is the corner between four large ones.
    share = torch.nn.functional.avg_pool2d(batch["mask"].float().unsqueeze(1), 2).squeeze(1)
    known = (batch["mask"] & (batch["depth"] > 0)).float()
    summed, weight = (
        torch.nn.functional.avg_pool2d(v.unsqueeze(1), 2).squeeze(1) for v in (batch["depth"] * known, known)
    )
    off = (depth - summed / weight.clamp_min(1e-6)).abs() * weight
    found = {
        "mask_iou": overlap(mask > 0.5, share > 0.5),
        "depth_l1": off.sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-6),
    }
    if "occupancy" in batch:
        true = turned_grid(batch["occupancy"], scene.turn, model.cube)
        found["iou"] = overlap(scene.grid > 0.5, true > 0.5)
        last = batch["pose"][:, -1:]  # the grasps of a batch stand failures first
        seen = model.fingers(scene, last)[1]
        wanted = model.fingers(Scene(scene.state, scene.turn, scene.shape, true), last)[1]
        found["local_iou"] = overlap(seen.squeeze(1) > 0.5, wanted.squeeze(1) > 0.5)
    return found


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of bool `[n, ...]`, `[n]`; 1 where both are empty."""
    both, either = ((a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)
