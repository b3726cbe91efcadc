"""`grasps`: views of objects on a table, and grasps of them with their outcomes; made here, or the user's own.

A row is a view: one picture of one scene. Its batch carries grasps of that scene beside it. Objects are split into
training and test; scenes of training objects that are kept apart are the split `val`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distk import DataSpec, Files, UsageError, option
from distk.console import counted, warn
from distk.data import Dataset, Split, names_of
from distk.plugins.rl_control.grasping import shards
from distk.plugins.rl_control.grasping.bodies import CATEGORIES, bodies, inverse
from distk.plugins.rl_control.grasping.engines import engine
from distk.plugins.rl_control.grasping.generator import Plan, make
from distk.plugins.rl_control.grasping.projection import Cube, composed
from distk.plugins.rl_control.grasping.shards import Recorded

SAME_ELEVATION = 0.5
"""Degrees within which views count as of one elevation."""
TABLE_OFF = 0.01
"""Metres by which the table may be off before the user is warned."""


@dataclass(frozen=True)
class Config:
    """What is made where no files are read, and how grasps are drawn. Files bring their own numbers of everything but
    the last three."""

    objects: int = option(14, "objects, shared out among the categories", paper="101", min=2, max=100_000)
    categories: tuple[str, ...] = option(CATEGORIES, "kinds of objects")
    scenes: int = option(2, "placings of each object on the table", min=1, max=1000)
    azimuths: int = option(1, "views of each elevation and scene", min=1, max=100)
    size: int = option(64, "rows and columns of the pictures", min=16, max=1024)
    voxels: int = option(16, "voxels along each side of the grid", min=4, max=128)
    demos: int = option(
        4, "grasps of each object that hold, near which others are drawn", paper="10-20", min=1, max=10_000
    )
    kept: int = option(16, "grasps near each of them, half successes", paper="100", min=2, max=10_000)
    elevations: tuple[float, ...] = option(
        (15.0, 30.0, 45.0, 60.0), "degrees from which test objects are seen", min=0, max=90
    )
    noise: bool = option(False, "noise of 1 mm + 0.5 per cent on the depth")
    data_seed: int = option(0, "seed of objects, scenes, views and grasps", min=0, max=2**31)
    train_elevations: tuple[float, ...] = option(
        (15.0, 45.0), "degrees of the views that are trained on; empty: all", paper="15,45", min=0, max=90
    )
    per_view: int = option(16, "grasps that come with each view of a batch", min=2, max=4096)
    balanced: bool = option(True, "training draws as many successes as failures", paper="yes")

    def __post_init__(self) -> None:
        strange = [name for name in self.categories if name not in CATEGORIES]
        if strange or not self.categories or len(set(self.categories)) < len(self.categories):
            raise ValueError(
                f"categories are some of {', '.join(CATEGORIES)}, each once, not {', '.join(self.categories)}"
            )
        if self.objects < 2 * len(self.categories):
            raise ValueError(
                f"{counted(self.objects, 'object')} are too few for"
                f" {counted(len(self.categories), 'category', 'categories')} with two each; raise --objects or name"
                " fewer --categories"
            )

    def names(self) -> list[str]:
        """The category of each object, in order: as equal in number as may be, the first ones more."""
        share, more = divmod(self.objects, len(self.categories))
        counts = [share + (i < more) for i in range(len(self.categories))]
        return [name for name, count in zip(self.categories, counts, strict=True) for _ in range(count)]


class Grasps(Dataset[Config]):
    """Rows are views, scene by scene.

    recorded: arrays by the names of the format. `spec.kind` is `grasp`, an item float32 `[4, h, w]`: colour in [0, 1],
    and depth divided by `far`.
    """

    reads = shards.HOLDS

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        path = files.find(shards.META)
        if path is None:
            recorded = made(config, device)
            count = len(recorded.grasps["outcome"])
            self.origin = (
                f"{counted(count, 'grasp')} of {counted(config.objects, 'object')}, made here; labels: quasistatic"
            )
        else:
            recorded = shards.read(path)
            count = len(recorded.grasps["outcome"])
            self.origin = f"{counted(count, 'grasp')} from {path.parent}; labels: {recorded.meta['labels']}"
        self.meta, self.labels = recorded.meta, str(recorded.meta["labels"])
        voxel = self.meta["voxel"]
        x, y, z = voxel["centre"]
        self.cube, self.shapes = Cube((x, y, z), voxel["side"]), recorded.shapes
        if self.shapes is not None:
            self.shapes = self.shapes.to(device)
        self._take(recorded)
        self.near, self.far = self._span()
        if path is not None:
            self._check_table()
        self._index()
        self.spec = DataSpec(
            "grasp",
            (4, *self.depth.shape[1:]),
            classes=tuple(self.meta["categories"]),
            extra={
                "labels": self.labels,
                "voxel": voxel,
                "near": self.near,
                "far": self.far,
                "train_elevations": list(config.train_elevations),
            },
        )

    # Taking over what was made or read

    def _take(self, recorded: Recorded) -> None:
        """Arrays onto the device, views side by side; the grasps sorted by scene and outcome."""
        scenes, device = recorded.scenes, self.device
        self.scenes, self.views = scenes["rgb"].shape[:2]
        self.rgb = scenes["rgb"].flatten(0, 1).to(device)
        # Half precision keeps a quarter of a millimetre at these distances.
        self.depth = scenes["depth"].flatten(0, 1).half().to(device)
        self.k, self.camera = (scenes[name].flatten(0, 1).float().to(device) for name in ("K", "T_wc"))
        self.elevation = scenes["elevation"].flatten().float().to(device)
        self.scene = torch.arange(self.scenes, device=device).repeat_interleave(self.views)
        self.object_of = scenes["object_id"].long().to(device)
        self.category_of = scenes["category"].long().to(device)
        self.placed = scenes["object_T"].float().to(device) if "object_T" in scenes else None
        self.occupancy = scenes["occupancy"].to(device) if "occupancy" in scenes else None
        self.mask = scenes["mask"].flatten(0, 1).bool().to(device) if "mask" in scenes else self._above_table()
        grasps = recorded.grasps
        order = torch.argsort(grasps["grasp_scene"].long() * 2 + grasps["outcome"].long(), stable=True)
        held = {name: value[order.to(value.device)].to(device) for name, value in grasps.items()}
        self.pose, self.outcome = held["grasp_T"].float(), held["outcome"].float()
        self.grasp_scene = held["grasp_scene"].long()
        alone = torch.arange(len(self.pose), device=device)
        self.demo = alone
        if "demo_id" in held:
            demo = held["demo_id"].long()
            # Below 0: drawn near none, so that each is a demonstration of its own.
            self.demo = torch.where(demo < 0, demo.max().clamp_min(-1) + 1 + alone, demo)

    def _points(self) -> Tensor:
        """What every pixel shows, in the world: `[views, h, w, 3]`, metres."""
        height, width = self.depth.shape[1:]
        k, depth = self.k, self.depth.float()
        x = (torch.arange(width, device=self.device) + 0.5 - k[:, 0, 2, None]) / k[:, 0, 0, None]
        y = (torch.arange(height, device=self.device) + 0.5 - k[:, 1, 2, None]) / k[:, 1, 1, None]
        points = torch.stack([x[:, None] * depth, y[:, :, None] * depth, depth], -1)
        turned = torch.einsum("nij,nhwj->nhwi", self.camera[:, :3, :3], points)
        return turned + self.camera[:, None, None, :3, 3]

    def _above_table(self) -> Tensor:
        """Where no mask was recorded: what lies in the cube and more than 8 mm above the table."""
        points = self._points()
        inside = (self.cube.normal(points).abs() < 1).all(-1)
        return inside & (points[..., 2] > 0.008) & (self.depth > 0)

    def _span(self) -> tuple[float, float]:
        """Depths between which every camera sees the whole cube: as recorded, else from the cameras' distances."""
        if "near" in self.meta and "far" in self.meta:
            return self.meta["near"], self.meta["far"]
        centre = torch.tensor(self.cube.centre, device=self.device)
        away, half = (self.camera[:, :3, 3] - centre).norm(dim=1), self.cube.side * math.sqrt(3) / 2
        return max(0.05, float(away.min()) - half), float(away.max()) + half

    def _check_table(self) -> None:
        """Warn where what is no object does not lie on z = 0, as with lengths of rays taken for depths."""
        points = self._points()
        beside = (points[..., :2] - points.new_tensor(self.cube.centre[:2])).norm(dim=-1) < self.cube.side
        heights = points[..., 2].abs()[beside & ~self.mask & (self.depth > 0)]
        if len(heights) and float(heights.median()) > TABLE_OFF:
            warn(
                f"the table lies {1000 * float(heights.median()):.0f} mm off z = 0 in these pictures: depth must be "
                "along the camera's axis, not along the ray, and T_wc must be camera to world"
            )

    def _index(self) -> None:
        """Where each scene's failures and successes stand, and the rows of the splits."""
        key = self.grasp_scene * 2 + self.outcome.long()
        self.count = torch.bincount(key, minlength=2 * self.scenes).view(-1, 2)
        self.first = (self.count.flatten().cumsum(0) - self.count.flatten()).view(-1, 2)
        usable = (self.count.sum(1) > 0)[self.scene]
        testing = torch.tensor([o["split"] == "test" for o in self.meta["objects"]], device=self.device)
        test = testing[self.object_of][self.scene]
        wanted = self.config.train_elevations
        present = sorted({round(v, 1) for v in self.elevation.tolist()})
        at = torch.zeros_like(usable) if wanted else torch.ones_like(usable)
        for value in wanted:
            at |= (self.elevation - value).abs() <= SAME_ELEVATION
        kept = self._kept_scenes()[self.scene]
        parts = {"train": usable & ~test & at & ~kept, "val": usable & ~test & kept, "test": usable & test}
        rows = {name: chosen.nonzero().squeeze(1) for name, chosen in parts.items()}
        if not len(rows["train"]):
            raise UsageError(
                f"no view of a training object has an elevation of {names_of([f'{v:g}' for v in wanted])} degrees; "
                f"there are {names_of([f'{v:g}' for v in present])}: name some by --train-elevations."
            )
        self.parts = {name: value for name, value in rows.items() if len(value)}

    def _kept_scenes(self) -> Tensor:
        """Of each training object with several scenes that have grasps, the last one; bool `[scenes]`."""
        kept = torch.zeros(self.scenes, dtype=torch.bool, device=self.device)
        with_grasps = self.count.sum(1) > 0
        for number in range(len(self.meta["objects"])):
            own = ((self.object_of == number) & with_grasps).nonzero().squeeze(1)
            if len(own) > 1:
                kept[own[-1]] = True
        return kept

    # Batches

    def __len__(self) -> int:
        return len(self.rgb)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Views, and grasps of their scenes taken at even steps over failures and successes.

        `x` float32 `[n, 4, h, w]`; `depth` float32 metres, 0 where missing, and `mask` bool, `[n, h, w]`; `K` `[n,
        3, 3]` in pixels; `T_wc` `[n, 4, 4]`, camera to world; `elevation` degrees, `label` (the category), `object`,
        `scene` and `row`, `[n]`; `pose` `[n, g, 4, 4]`, gripper to world; `outcome` `[n, g]`, 1 where the grasp
        holds; `occupancy` float32 `[n, V, V, V]` in the world's frame where it is known.
        """
        scene = self.scene[rows]
        total = self.count.sum(1)[scene]
        steps = (torch.arange(self.config.per_view, device=self.device) + 0.5) / self.config.per_view
        at = (steps * total.unsqueeze(1)).long()
        picked = self.first[scene, 0].unsqueeze(1) + torch.minimum(at, (total - 1).clamp_min(0).unsqueeze(1))
        return self.viewed(rows) | self._picked(picked.clamp(max=len(self.pose) - 1))

    def viewed(self, rows: Tensor) -> dict[str, Tensor]:
        """As `batch`, without grasps."""
        scene, depth = self.scene[rows], self.depth[rows].float()
        known = torch.where(depth > 0, depth, self.far).clamp(self.near, self.far) / self.far
        found = {
            "x": torch.cat([self.rgb[rows].permute(0, 3, 1, 2).float() / 255, known.unsqueeze(1)], 1),
            "depth": depth,
            "mask": self.mask[rows],
            "K": self.k[rows],
            "T_wc": self.camera[rows],
            "elevation": self.elevation[rows],
            "label": self.category_of[scene],
            "object": self.object_of[scene],
            "scene": scene,
            "row": rows,
        }
        if self.occupancy is not None:
            found["occupancy"] = self.occupancy[scene].float()
        return found

    def _picked(self, picked: Tensor) -> dict[str, Tensor]:
        return {"pose": self.pose[picked], "outcome": self.outcome[picked]}

    def sample(
        self, n: int, generator: torch.Generator, split: Split = "train", bucket: Any = None
    ) -> dict[str, Tensor]:
        """`n` views of a split, each with grasps drawn from its scene; half of them successes where both are there."""
        rows = self.sample_rows(n, generator, split)
        scene, g = self.scene[rows], self.config.per_view
        drawn = torch.rand(n, g, 2, generator=generator, device=self.device)
        count, first = self.count[scene], self.first[scene]
        total = count.sum(1, keepdim=True)
        if self.config.balanced:
            success = (torch.arange(g, device=self.device) % 2).expand(n, g)
            success = torch.where(count.gather(1, success) > 0, success, 1 - success)
        else:
            success = (drawn[..., 1] * total >= count[:, :1]).long()
        size = count.gather(1, success)
        picked = first.gather(1, success) + (drawn[..., 0] * size).long().minimum(size - 1)
        return self.viewed(rows) | self._picked(picked)

    def drawn_views(self, n: int, count: int, generator: torch.Generator) -> Tensor:
        """Numbers of views within a scene, int64 `[n, count]`."""
        return torch.randint(self.views, (n, count), generator=generator, device=self.device)

    def other_views(self, rows: Tensor, drawn: Tensor) -> Tensor:
        """Rows of the views of these numbers `[n, count]` of the same scenes, int64 `[n, count]`."""
        return self.scene[rows].unsqueeze(1) * self.views + drawn

    # Trying grasps

    def grasps_of(self, scene: int) -> Tensor:
        """Numbers of a scene's grasps, int64."""
        start = int(self.first[scene, 0])
        return torch.arange(start, start + int(self.count[scene].sum()), device=self.device)

    def label(self, scene: Tensor, pose: Tensor, labels: str = "") -> Tensor:
        """Whether grasps hold: scenes int64 `[n]`, gripper to world `[n, 4, 4]` -> bool `[n]`.

        labels: what says so; by default what labelled these data. Raises UsageError for data whose objects are not
        known, and for an engine that is not theirs.
        """
        if self.shapes is None or self.placed is None:
            raise UsageError(
                f"'{self.name}' knows pictures and grasps but not the objects ({shards.SHAPES} and object_T), so no "
                "other grasp of them can be tried."
            )
        if (labels or self.labels) != self.labels:
            raise UsageError(
                f"these grasps are labelled by {self.labels}; scores by {labels} would not belong to them."
            )
        own = composed(inverse(self.placed[scene]), pose)
        return engine(self.labels)(self.shapes, self.object_of[scene], own)


@functools.lru_cache(maxsize=2)
def made(config: Config, device: torch.device) -> Recorded:
    """The built-in grasps of a config. Kept, since a command may open its data twice."""
    categories = config.names()
    names = [f"{name}-{categories[:i].count(name):03d}" for i, name in enumerate(categories)]
    plan = Plan(
        config.scenes, config.azimuths, config.size, config.voxels, config.demos, config.kept, config.elevations,
        config.train_elevations or config.elevations, config.noise, config.data_seed,
    )  # fmt: skip
    shapes = bodies(categories, config.data_seed).to(device)
    return make(shapes, names, categories, plan, device)
