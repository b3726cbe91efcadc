"""VGAN: generating videos with scene dynamics (Vondrick, Pirsiavash & Torralba, NIPS 2016), mocogan's baseline.

A whole clip is one point z. One stream of three-dimensional convolutions makes what moves and a mask, another of two
dimensions a background that stands still; one critic looks at clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Source, Step, adam, option
from distk.nn import call_fake, call_real
from distk.plugins.sequence.mocogan.networks import SceneGenerator, as_volume, dcgan_start, scene_critic


@dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    z: int = option(100, "dimensions of the code", paper="100", min=1)
    mask_weight: float = option(0.1, "weight of the mean mask, which keeps the background in use", paper="0.1", min=0)
    ngf: int = option(64, "channels of the generator's last hidden layer", paper="64", min=1, max=4096)
    ndf: int = option(64, "channels of the critic's first layer", paper="64", min=1, max=4096)
    halvings: int = option(4, "how often the networks halve the frame's sides and the clip's length", min=2, max=6)
    lr: float = option(2e-4, "learning rate of Adam, for both", paper="2e-4", above=0)
    start: Literal["torch", "dcgan"] = option("torch", "how weights start: torch's own way, or N(0, 0.02)")


class VGAN(Method[Config]):
    """Code: `z`, one per clip; the length of a clip is that of training."""

    data = "shape-motion"
    kinds = ("video",)
    data_defaults: ClassVar[Mapping[str, Any]] = {"every": 2}
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 100_000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        "paper": {
            "data": {"name": "shape-motion", "clips": 4000, "direction": "paper"},
            "train": {"steps": 100_000, "batch": 64},
        },
        "demo": {
            "model": {"halvings": 2, "ndf": 32, "lr": 5e-4},
            "data": {"name": "shape-motion", "size": 16, "clips": 1500},
            "train": {"steps": 300, "batch": 16, "log_every": 50},
        },
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        frames, channels, height, side = data.shape
        if height != side:
            raise ValueError(f"frames must be square, not {height}x{side} pixels: name one side with --size")
        shape = (channels, frames, side)
        self.latents = LatentSpace.of(Latent("z", "continuous", config.z, encoded=False))
        self.generator = SceneGenerator(config.z, *shape, config.ngf, config.halvings)
        self.critic = scene_critic(*shape, config.ndf, config.halvings)
        if config.start == "dcgan":
            dcgan_start(self)

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """Clips `x` `[n, t, c, h, w]` for the critic; the generator needs none."""
        return {} if objective == "gen" else source.sample()

    def objectives(self) -> list[Objective]:
        optimizer = adam(self.config.lr, betas=(0.5, 0.999))
        return [
            Objective("d_video", self.d_video, self.critic.parameters(), optimizer, fresh_batch=True),
            Objective("gen", self.gen, self.generator.parameters(), optimizer, fresh_batch=True),
        ]

    def d_video(self, step: Step) -> Tensor:
        """-log D(v) - log(1 - D(v~)), each a mean over clips, nats."""
        real = self.to_model(step.batch["x"])
        n = step.memo["clips"] = len(real)
        with torch.no_grad():
            made, _ = self.generator(step.randn(n, self.config.z))
        return call_real(self.judge(real)).mean() + call_fake(self.judge(made.float())).mean()

    def gen(self, step: Step) -> Tensor:
        """-log D(v~), a mean over clips, nats, + mask_weight * mean of the mask over pixels, frames and clips."""
        made, mask = self.generator(step.randn(step.memo["clips"], self.config.z))
        share = mask.float().mean()
        step.log("mask", share)
        return call_real(self.judge(made.float())).mean() + self.config.mask_weight * share

    def judge(self, clips: Tensor) -> Tensor:
        """D: clips `[n, t, c, h, w]` in [-1, 1] -> logits of "real" `[n, 1, 1, 1, 1]`, float32."""
        logits: Tensor = self.critic(as_volume(clips))
        return logits

    def to_model(self, x: Tensor) -> Tensor:
        """From the data's range to [-1, 1]."""
        low, high = self.spec.range
        return (x - low) * (2 / (high - low)) - 1

    def decode(self, code: Code) -> Tensor:
        """`z` `[n, z]` -> clips `[n, t, c, h, w]` in the data's range."""
        low, high = self.spec.range
        clips: Tensor = self.generator(code["z"])[0].float()
        return (clips + 1) * ((high - low) / 2) + low
