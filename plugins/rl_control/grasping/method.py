"""grasping: will a gripper that closes here hold the object? Yan, Khansari, Bai, Hsu, Pathak, Gupta, Davidson and Lee
2017, "Learning grasping interaction with geometry-aware 3D representations".

A shape encoder and a voxel decoder turn one RGBD picture into an occupancy grid; nobody shows them a grid: what the
grid would look like from cameras must agree with the depth and the masks that they saw. The outcome of a grasp is
predicted from the picture (a state encoder of its own), the shape unit, the gripper's pose, and what the grid has
between the fingers, projected into the gripper. The baseline has the state encoder and the pose alone.

Two stages: the shape first, then everything, with the shape's losses kept on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.plugins.rl_control.grasping.data import Grasps
from distk.plugins.rl_control.grasping.networks import (
    Voxels,
    local_encoder,
    pose_encoder,
    pose_numbers,
    predictor,
    trunk,
)
from distk.plugins.rl_control.grasping.projection import (
    BOX_DEPTH,
    Cube,
    composed,
    global_view,
    halved,
    local_view,
    view_frame,
)
from distk.source import Source

CLIP = 5.0
FLOOR = 1e-6


@dataclass(frozen=True)
class Config:
    """Hyperparameters. The paper prints the 768 units, the residual connections and the two networks; the rest is
    ours."""

    shape: bool = option(True, "shape encoder, voxel decoder and local view; without them, the baseline")
    units: int = option(768, "units of the shape and of the state", paper="768", min=4, max=65536)
    width: float = option(1.0, "factor of all numbers of channels", above=0, max=16)
    match_params: bool = option(
        False, "widen the baseline's encoder until it has as many parameters as the model with shape"
    )
    shape_share: float = option(
        0.667, "share of the steps in which the shape is learnt alone (no grasps)", min=0, max=0.99
    )
    keep_shape: float = option(0.1, "weight of the shape's losses in the second stage", min=0)
    depth: float = option(1.0, "weight of the projected depth's error", min=0)
    mask: float = option(1.0, "weight of the silhouette's cross-entropy", min=0)
    views: int = option(2, "further views of the scene that the grid must agree with", min=0, max=64)
    supervise_3d: float = option(
        0.0, "weight of the true occupancy's cross-entropy", paper="0 (no 3D supervision)", min=0
    )
    silhouette: Literal["ray", "max"] = option(
        "ray", "by ray consistency, or the largest voxel on the ray", paper="max"
    )
    frame: Literal["view", "world"] = option(
        "view", "grid and poses as seen from the camera's side of the table, or as the world has them"
    )
    local_camera: Literal["orthographic", "perspective"] = option(
        "orthographic", "how the gripper's own view projects what is between the fingers"
    )
    local_size: int = option(48, "rows and columns of the gripper's own view", min=8, max=256)
    local_samples: int = option(32, "depths at which it reads the grid", min=2, max=512)
    samples: int = option(64, "depths at which a camera's ray reads the grid", min=2, max=1024)
    lr: float = option(1e-4, "learning rate of Adam", above=0)


@dataclass(frozen=True)
class BaselineConfig(Config):
    """The same, without the shape."""

    shape: bool = option(False, "shape encoder, voxel decoder and local view; without them, the baseline")


@dataclass
class Scene:
    """What the networks know of n views: state `[n, units]`; shape `[n, units]` and grid `[n, V, V, V]`, occupancy in
    [0, 1] in the frame of `turn`, or None for the baseline; turn: world to that frame `[n, 4, 4]`."""

    state: Tensor
    turn: Tensor
    shape: Tensor | None = None
    grid: Tensor | None = None
    logits: Tensor | None = None


class Grasping(Method[Config]):
    """Code: `state`, and `shape` where there is one. Logits of outcomes: `score`."""

    kinds: ClassVar[tuple[str, ...]] = ("grasp",)
    data = "grasps"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 150_000, "batch": 16}
    least_batch = 2  # normalised over the batch
    own_commands: ClassVar[Mapping[str, str]] = {"reconstruct": "grasping reconstruct"}
    instead: Mapping[str, str] = {
        "traverse": "distk grasping reconstruct",
        "sample": "distk grasping plan",
    }
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {
                "units": 96, "width": 0.25, "local_size": 16, "local_samples": 12, "samples": 24, "lr": 1e-3,
                "shape_share": 0.5,
            },
            # Of few demonstrations nothing general can be learnt: they, not their neighbours, are the examples.
            "data": {"scenes": 3, "demos": 24, "kept": 24},
            "train": {"steps": 1000, "batch": 8},
        },
        # A few minutes on one GPU: seven objects of each category, grids of 12 mm.
        "medium": {
            "model": {
                "units": 256, "width": 0.5, "local_size": 24, "local_samples": 16, "samples": 32, "lr": 5e-4,
                "shape_share": 0.5,
            },
            "data": {"objects": 49, "scenes": 6, "azimuths": 2, "demos": 24, "kept": 48, "voxels": 32, "per_view": 32},
            "train": {"steps": 10_000, "batch": 16},
        },
        "paper": {
            "data": {"objects": 101, "scenes": 8, "azimuths": 4, "size": 128, "voxels": 32, "demos": 15, "kept": 100,
                     "per_view": 64},
            "train": {"steps": 150_000, "batch": 16},
        },
    }  # fmt: skip

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        voxel = data.extra["voxel"]
        x, y, z = (float(v) for v in voxel["centre"])
        self.cube = Cube((x, y, z), float(voxel["side"]))
        self.voxels, self.near, self.far = int(voxel["n"]), float(data.extra["near"]), float(data.extra["far"])
        if data.shape[0] != 4 or min(data.shape[1:]) < 16 or any(side % 2 for side in data.shape[1:]):
            raise ValueError(
                "it needs pictures of four channels, colour and depth, with an even number of rows, 16 or more"
            )
        if config.shape and (self.voxels & (self.voxels - 1) or not 8 <= self.voxels <= 256):
            raise ValueError(f"its decoder makes 8, 16, 32, 64, 128 or 256 voxels a side, not {self.voxels}")
        units = config.units
        groups = [Latent("state", "continuous", units)]
        self.state_encoder = trunk(data.shape, units, self._width(config, data))
        self.pose_encoder = pose_encoder()
        known = units + 128
        if config.shape:
            groups.append(Latent("shape", "continuous", units))
            self.shape_encoder = trunk(data.shape, units, config.width)
            self.decoder = Voxels(units, self.voxels, config.width)
            self.local_encoder = local_encoder(config.local_size, config.width)
            known += units + 256
        self.predictor = predictor(known)
        self.latents = LatentSpace.of(*groups)

    def _width(self, config: Config, data: DataSpec) -> float:
        """Width of the state encoder: as set, or, for a baseline that is to match, the one with about as many
        parameters as the whole model with shape has."""
        if config.shape or not config.match_params:
            return config.width

        def counted(*modules: nn.Module) -> int:
            return sum(p.numel() for module in modules for p in module.parameters())

        with torch.device("meta"):
            surplus = config.units + 256
            wanted = counted(
                trunk(data.shape, config.units, config.width),
                trunk(data.shape, config.units, config.width),
                Voxels(config.units, self.voxels, config.width),
                local_encoder(config.local_size, config.width),
            ) + 512 * surplus  # fmt: skip
            low, high = config.width, 8 * config.width
            for _ in range(12):
                middle = (low + high) / 2
                few = counted(trunk(data.shape, config.units, middle)) < wanted
                low, high = (middle, high) if few else (low, middle)
        return high

    # Looking at a view, and at grasps in it

    def look(self, x: Tensor, camera: Tensor) -> Scene:
        """Views `[n, 4, h, w]` of cameras (to world) `[n, 4, 4]`."""
        turn = self.turn(camera)
        if not self.config.shape:
            return Scene(self.state_encoder(x), turn)
        shape = self.shape_encoder(x)
        logits = self.decoder(shape).float()
        return Scene(self.state_encoder(x), turn, shape, logits.sigmoid(), logits)

    def turn(self, camera: Tensor) -> Tensor:
        """World to the frame in which grid and poses are told, `[n, 4, 4]`."""
        if self.config.frame == "view":
            return view_frame(camera, self.cube.centre)
        return torch.eye(4, device=camera.device, dtype=camera.dtype).expand(len(camera), 4, 4)

    def fingers(self, scene: Scene, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (metres) and silhouette between the fingers, of grippers (to world) `[n, g, 4, 4]`: `[n, g, s, s]`."""
        assert scene.grid is not None
        settings = self.config
        own = composed(scene.turn.unsqueeze(1), pose)
        with torch.autocast(own.device.type, enabled=False):
            return local_view(
                scene.grid, own, settings.local_size, self.cube, settings.local_samples, settings.local_camera
            )

    def score(self, scene: Scene, pose: Tensor) -> Tensor:
        """Logits that grasps hold: grippers (to world) `[n, g, 4, 4]` -> float32 `[n, g]`."""
        n, g = pose.shape[:2]
        own = composed(scene.turn.unsqueeze(1), pose)
        known = [scene.state.unsqueeze(1).expand(n, g, -1), self.pose_encoder(pose_numbers(own, self.cube))]
        if self.config.shape:
            assert scene.shape is not None
            depth, mask = self.fingers(scene, pose)
            seen = torch.stack([depth / BOX_DEPTH, mask], 2).flatten(0, 1)
            known += [scene.shape.unsqueeze(1).expand(n, g, -1), self.local_encoder(seen).view(n, g, -1)]
        return self.predictor(torch.cat(known, -1)).squeeze(-1).float()

    def seen_from(self, scene: Scene, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The grid's depth (metres) and silhouette from the cameras of a batch, in half as many rows: `[n, h/2,
        w/2]`."""
        assert scene.grid is not None
        height, width = (side // 2 for side in self.spec.shape[1:])
        with torch.autocast(scene.grid.device.type, enabled=False):
            return global_view(
                scene.grid, halved(batch["K"]), composed(scene.turn, batch["T_wc"]), (height, width), self.cube,
                self.near, self.far, self.config.samples, self.config.silhouette,
            )  # fmt: skip

    # The losses

    def shape_terms(self, scene: Scene, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Error of the projected depth over the cube's side, mean over the pixels of the object and over views; and
        cross-entropy of the silhouette, nats, mean over pixels: scalars."""
        depth, mask = self.seen_from(scene, batch)
        true_depth, known, true_mask = pooled(batch["depth"], batch["mask"])
        off = (depth - true_depth).abs() * known / self.cube.side
        # Each view counts alike, however large the object is in it.
        by_view = off.sum((1, 2)) / known.sum((1, 2)).clamp_min(FLOOR)
        return by_view.mean(), cross_entropy(mask, true_mask).mean()

    def shape_loss(self, step: Step, scene: Scene) -> Tensor:
        """The shape's losses of the view itself and of the others, weighted; means over all views."""
        batch, settings = step.batch, self.config
        terms = [self.shape_terms(scene, batch)]
        for i in range(settings.views):
            other = {name: batch[f"{name}_others"][:, i] for name in ("K", "T_wc", "depth", "mask")}
            terms.append(self.shape_terms(scene, other))
        depth, mask = (torch.stack(column).mean() for column in zip(*terms, strict=True))
        step.log("shape.depth", depth)
        step.log("shape.mask", mask)
        loss = settings.depth * depth + settings.mask * mask
        if settings.supervise_3d:
            solid = self.occupancy_loss(scene, batch["occupancy"])
            step.log("shape.occupancy", solid)
            loss = loss + settings.supervise_3d * solid
        return loss

    def occupancy_loss(self, scene: Scene, occupancy: Tensor) -> Tensor:
        """Cross-entropy of the voxels `[n, V, V, V]` (true ones in the world's frame), nats, mean over voxels."""
        assert scene.logits is not None
        true = turned_grid(occupancy, scene.turn, self.cube)
        return F.binary_cross_entropy_with_logits(scene.logits, true)

    def shape_objective(self, step: Step) -> Tensor:
        """First stage: the shape alone, from views."""
        batch = step.batch
        shape = self.shape_encoder(batch["x"])
        logits = self.decoder(shape).float()
        scene = Scene(shape, self.turn(batch["T_wc"]), shape, logits.sigmoid(), logits)
        return self.shape_loss(step, scene)

    def outcome_objective(self, step: Step) -> Tensor:
        """Second stage: cross-entropy of the outcomes, nats, mean over views and grasps; and the shape's losses."""
        batch = step.batch
        scene = self.look(batch["x"], batch["T_wc"])
        logits = self.score(scene, batch["pose"])
        outcome = F.binary_cross_entropy_with_logits(logits, batch["outcome"])
        step.log("outcome", outcome)
        step.log("accuracy", ((logits > 0) == (batch["outcome"] > 0.5)).float().mean())
        if not self.config.shape or not self.config.keep_shape:
            return outcome
        return outcome + self.config.keep_shape * self.shape_loss(step, scene)

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """Views with grasps, and of each scene `views` further views: their K, T_wc, depth and mask as `K_others`,
        ..."""
        batch = source.sample()
        dataset, count = source.dataset, self.config.views
        if not self.config.shape or not count or not isinstance(dataset, Grasps):
            return batch
        drawn = source.draw(lambda n, generator: {"view": dataset.drawn_views(n, count, generator)})["view"]
        others = dataset.other_views(batch["row"], drawn)
        views = dataset.viewed(others.flatten())
        for name in ("K", "T_wc", "depth", "mask"):
            batch[f"{name}_others"] = views[name].view(*others.shape, *views[name].shape[1:])
        return batch

    def objectives(self) -> list[Objective]:
        outcome = Objective("loss", self.outcome_objective, self.parameters(), adam(self.config.lr), clip=CLIP)
        first = round(self.run_steps * self.config.shape_share) if self.config.shape else 0
        if not first:
            return [outcome]
        outcome.window = (first, None)
        own = [*self.shape_encoder.parameters(), *self.decoder.parameters()]
        shape = Objective("shape", self.shape_objective, own, adam(self.config.lr), clip=CLIP, window=(0, first))
        return [shape, outcome]

    # The trained model

    def encode(self, x: Tensor) -> Code:
        code = {"state": self.state_encoder(x)}
        return {**code, "shape": self.shape_encoder(x)} if self.config.shape else code


def pooled(depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures `[n, h, w]` in half as many rows: mean depth over the object's pixels where it is known, the share of
    such pixels, and the object's share, float32 `[n, h/2, w/2]`."""
    known = (mask & (depth > 0)).float()
    summed, share, object_share = (
        F.avg_pool2d(value.unsqueeze(1), 2).squeeze(1) for value in (depth * known, known, mask.float())
    )
    return summed / share.clamp_min(FLOOR), share, object_share


def cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """Of Bernoulli probabilities, nats, each element; probabilities are kept 1e-6 away from 0 and 1."""
    p = probability.clamp(FLOOR, 1 - FLOOR)
    return -(target * p.log() + (1 - target) * torch.log1p(-p))


def turned_grid(grid: Tensor, turn: Tensor, cube: Cube) -> Tensor:
    """Grids in the world's frame `[n, V, V, V]` -> in the frames that `turn` `[n, 4, 4]` leads to: nearest voxels, 0
    where they come from outside of the cube."""
    count = grid.shape[-1]
    steps = (torch.arange(count, device=grid.device) + 0.5) / count - 0.5
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    points = torch.stack(
        [x * cube.side + cube.centre[0], y * cube.side + cube.centre[1], z * cube.side + cube.centre[2]], -1
    )
    rotation = turn[:, None, None, None, :3, :3].transpose(-1, -2)
    shifted = points - turn[:, None, None, None, :3, 3]
    back = (rotation * shifted.unsqueeze(-2)).sum(-1)
    return F.grid_sample(
        grid.unsqueeze(1), cube.normal(back), mode="nearest", padding_mode="zeros", align_corners=False
    ).squeeze(1)


class GraspCNN(Grasping):
    """The baseline: state and pose alone."""

    Config = BaselineConfig
    own_commands: ClassVar[Mapping[str, str]] = {}
    instead: Mapping[str, str] = {"sample": "distk grasping plan"}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": Grasping.presets["demo"]["model"],
            "data": Grasping.presets["demo"]["data"],
            "train": {"steps": 500, "batch": 8},
        },
        "medium": {**Grasping.presets["medium"], "train": {"steps": 5000, "batch": 16}},
        "paper": {**Grasping.presets["paper"], "train": {"steps": 50_000, "batch": 16}},
    }
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 50_000, "batch": 16}
    least_batch = 2  # normalised over the batch
