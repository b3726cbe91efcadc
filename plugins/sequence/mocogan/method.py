"""MoCoGAN: motion and content decomposed GAN for video (Tulyakov, Liu, Yang & Kautz; workshop version 2017, arXiv
1707.04993; categories as in the CVPR 2018 version).

A clip has one content code, and a path of motion codes that a GRU makes from noise. One network draws every frame
from the pair. Two critics look on: one at single frames, one at whole clips, and only the latter can teach motion.

    z_C ~ N(0, I)    eps_k ~ N(0, I)    z_M,k = h_k = GRU(eps_k, h_{k-1}), h_0 ~ N(0, I)    x_k = G(z_C, z_A, z_M,k)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Source, Step, adam, one_hot, option
from distk.console import counted
from distk.nn import call_fake, call_real
from distk.plugins.sequence.mocogan.networks import (
    Critic,
    FrameGenerator,
    as_volume,
    dcgan_start,
    image_critic,
    video_critic,
)


@dataclass(frozen=True)
class Config:
    """Hyperparameters. The defaults are those of the authors' program; preset `paper` has the text's critics."""

    dim_content: int = option(50, "dimensions of the content code, one per clip", paper="50 (program)", min=1)
    dim_motion: int = option(10, "dimensions of the motion code, one per frame", paper="10 (program)", min=1)
    dim_noise: int = option(10, "dimensions of the noise that drives the motion", paper="10 (program)", min=1)
    categories: int = option(0, "classes of a clip's action; 0: no such code", paper="0", min=0, max=1000)
    use_labels: bool = option(False, "teach the categories by the data's labels instead of finding them")
    category_weight: float = option(1.0, "weight of the categories' cross-entropy of made clips", min=0)
    length: int | None = option(
        None, "frames of a made clip in training, of which the critic sees a window; default: as the data's", min=1
    )
    image_disc: Literal["patch", "image", "none"] = option(
        "patch", "critic of frames: a logit per patch or per frame; none leaves it out", paper="image; patch (program)"
    )
    video_disc: Literal["video", "patch", "none"] = option(
        "video", "critic of clips: a logit per clip or per patch; none leaves it out", paper="video"
    )
    instance_noise: float = option(0.1, "deviation of the noise before the critics' convolutions", min=0)
    image_batch: int | None = option(None, "frames per batch; default: as many as --batch has clips", min=1)
    ngf: int = option(64, "channels of the generator's last hidden layer", min=1, max=4096)
    ndf: int = option(64, "channels of the critics' first layer", min=1, max=4096)
    halvings: int = option(4, "how often the networks halve the frame's sides", min=2, max=6)
    lr: float = option(2e-4, "learning rate of Adam, for all three", paper="2e-4 (program)", above=0)
    weight_decay: float = option(1e-5, "L2 penalty of Adam, for all three", paper="1e-5 (program)", min=0)
    start: Literal["torch", "dcgan"] = option("torch", "how weights start: torch's own way, or N(0, 0.02)")

    def __post_init__(self) -> None:
        if self.image_disc == self.video_disc == "none":
            raise ValueError("without --image-disc and --video-disc nothing teaches the generator; keep one of them")
        if self.categories and self.video_disc != "video":
            raise ValueError(
                f"the critic that names the {counted(self.categories, 'category', 'categories')} is --video-disc video,"
                f" not {self.video_disc}; leave the categories out with it"
            )
        if self.categories == 1:
            raise ValueError("one category says nothing; take 0 or at least 2")
        if self.use_labels and not self.categories:
            raise ValueError("--use-labels teaches categories: say how many by --categories")


class Draw(Protocol):
    """What draws codes: a training step, or `Seeded`."""

    def randn(self, rows: int, *shape: int) -> Tensor:
        """Standard normal `[rows, *shape]`."""

    def randint(self, high: int, rows: int, *shape: int) -> Tensor:
        """Uniform integers 0..high-1, int64 `[rows, *shape]`."""


class Seeded:
    """Draws from a generator, on its device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def randn(self, rows: int, *shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=self.generator, device=self.generator.device)

    def randint(self, high: int, rows: int, *shape: int) -> Tensor:
        return torch.randint(high, (rows, *shape), generator=self.generator, device=self.generator.device)


class MoCoGAN(Method[Config]):
    """Code: `content` and, with categories, `category`, one per clip; `motion`, one per frame."""

    data = "shape-motion"
    kinds = ("video",)
    data_defaults: ClassVar[Mapping[str, Any]] = {"every": 2}
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 100_000, "batch": 32}
    presets: ClassVar[Mapping[str, Any]] = {
        "paper": {
            "model": {"image_disc": "image", "video_disc": "video"},
            "data": {"name": "shape-motion", "clips": 4000, "direction": "paper"},
            "train": {"steps": 100_000, "batch": 32},
        },
        "demo": {
            "model": {"halvings": 2, "ndf": 32, "image_disc": "image", "lr": 5e-4},
            "data": {"name": "shape-motion", "size": 16, "clips": 1500},
            "train": {"steps": 300, "batch": 16, "log_every": 50},
        },
    }
    any_length = True

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.frames, channels, height, side = data.shape
        self.length = config.length or self.frames
        if height != side:
            raise ValueError(f"frames must be square, not {height}x{side} pixels: name one side with --size")
        if self.length < self.frames:
            raise ValueError(
                f"--length {self.length} is less than the {counted(self.frames, 'frame')} that the critic sees"
            )
        if config.use_labels and config.categories != len(data.classes):
            raise ValueError(
                f"--use-labels with {counted(config.categories, 'category', 'categories')}, but the data have"
                f" {counted(len(data.classes), 'class', 'classes')}"
                + (f": {', '.join(data.classes[:20])}" if data.classes else "")
            )
        self.latents = LatentSpace.of(
            Latent("content", "continuous", config.dim_content, encoded=False),
            *([Latent("category", "categorical", config.categories, encoded=False)] if config.categories else []),
            Latent(
                "motion",
                "continuous",
                config.dim_motion,
                steps=self.frames,
                low=-1,
                high=1,
                encoded=False,
                shifted=True,
            ),
        )
        code = config.dim_content + config.categories + config.dim_motion
        self.path = nn.GRU(config.dim_noise, config.dim_motion, batch_first=True)
        self.generator = FrameGenerator(code, channels, side, config.ngf, config.halvings)
        shape, sigma = (side, config.ndf, config.halvings), config.instance_noise
        self.image_critic: Critic | None = None
        self.video_critic: Critic | None = None
        if config.image_disc != "none":
            self.image_critic = image_critic(config.image_disc, channels, *shape, sigma)
        if config.video_disc != "none":
            self.video_critic = video_critic(config.video_disc, channels, self.frames, *shape, config.categories, sigma)
        if config.start == "dcgan":
            dcgan_start(self)

    # What a step reads

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """For `d_image` frames `x` `[n, c, h, w]`, uniform over all frames of all clips (S_1); for `d_video` clips `x`
        `[n, t, c, h, w]` (S_T) and their `label` where there is one; for `gen` nothing."""
        if objective == "gen":
            return {}
        if objective != "d_image":
            return source.sample()
        wanted = self.config.image_batch
        return {"x": frames_of(source, max(1, wanted // source.world) if wanted else source.batch)}

    # Objectives

    def objectives(self) -> list[Objective]:
        c = self.config
        optimizer = adam(c.lr, betas=(0.5, 0.999), weight_decay=c.weight_decay)
        made: list[tuple[str, Callable[[Step], Tensor], list[nn.Parameter]]] = []
        if self.image_critic is not None:
            made.append(("d_image", self.d_image, list(self.image_critic.parameters())))
        if self.video_critic is not None:
            made.append(("d_video", self.d_video, list(self.video_critic.parameters())))
        made.append(("gen", self.gen, [*self.generator.parameters(), *self.path.parameters()]))
        return [Objective(name, loss, weights, optimizer, fresh_batch=True) for name, loss, weights in made]

    def d_image(self, step: Step) -> Tensor:
        """-log D_I(x) - log(1 - D_I(x~)), each a mean over frames (and patches), nats. Real and made frames pass
        apart: batch norm must not see them together."""
        real = self.to_model(step.batch["x"])
        n = step.memo["images"] = len(real)
        with torch.no_grad():
            made = self.fake_frames(n, step)
        return call_real(self.judge_frames(real, step)).mean() + call_fake(self.judge_frames(made, step)).mean()

    def d_video(self, step: Step) -> Tensor:
        """-log D_V(v) - log(1 - D_V(v~)), each a mean over clips (and patches), nats.

        With categories also their cross-entropy: of real clips against their labels, with `use_labels`; else of made
        ones against the category that they were made with, without which nothing would teach this output.
        """
        real = self.to_model(step.batch["x"])
        n = step.memo["clips"] = len(real)
        with torch.no_grad():
            code = self.codes(n, self.length, step)
            made = self.window(code, step)
        of_real, real_class = self.judge_clips(real, step)
        of_made, made_class = self.judge_clips(made, step)
        loss = call_real(of_real).mean() + call_fake(of_made).mean()
        if self.config.use_labels:
            return loss + F.cross_entropy(real_class, step.batch["label"])
        if "category" in code:
            return loss + self.config.category_weight * F.cross_entropy(made_class, code["category"])
        return loss

    def gen(self, step: Step) -> Tensor:
        """-log D_I(x~) - log D_V(v~) + category_weight * CE(D_V's category of v~, z_A): the non-saturating loss, means
        as in the critics'. Frames and clips are made afresh."""
        terms = []
        if self.image_critic is not None:
            frames = self.fake_frames(step.memo["images"], step)
            terms.append(call_real(self.judge_frames(frames, step)).mean())
        if self.video_critic is not None:
            code = self.codes(step.memo["clips"], self.length, step)
            score, classes = self.judge_clips(self.window(code, step), step)
            terms.append(call_real(score).mean())
            if "category" in code:
                named = F.cross_entropy(classes, code["category"])
                step.log("category", named)
                terms.append(self.config.category_weight * named)
        return torch.stack(terms).sum()

    def judge_frames(self, frames: Tensor, draw: Draw) -> Tensor:
        """D_I: frames `[n, c, h, w]` in [-1, 1] -> logits of "real", one per frame or per patch, float32."""
        assert self.image_critic is not None
        logits: Tensor = self.image_critic(frames, draw.randn)
        return logits

    def judge_clips(self, clips: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """D_V: clips `[n, t, c, h, w]` in [-1, 1] -> logits of "real", one per clip or per patch, and of the categories
        `[n, categories]`, float32."""
        assert self.video_critic is not None
        logits: Tensor = self.video_critic(as_volume(clips), draw.randn)
        return logits[:, :1], logits[:, 1:].flatten(1)

    # Making clips

    def paths(self, n: int, frames: int, draw: Draw) -> Tensor:
        """R_M: motion codes `[n, frames, motion]`, the states of the GRU itself. h_0 is drawn, too: with a fixed one
        the first frames would be all alike."""
        start = draw.randn(n, self.config.dim_motion).unsqueeze(0)
        states, _ = self.path(draw.randn(n, frames, self.config.dim_noise), start)
        return states.float()

    def codes(self, n: int, frames: int, draw: Draw) -> Code:
        """`n` codes over so many frames."""
        code = {"content": draw.randn(n, self.config.dim_content)}
        if self.config.categories:
            code["category"] = one_hot(draw.randint(self.config.categories, n), self.config.categories)
        return {**code, "motion": self.paths(n, frames, draw)}

    def render(self, code: Code) -> Tensor:
        """Codes over k frames -> clips float32 `[n, k, c, h, w]` in [-1, 1]; all frames of all clips in one pass."""
        motion = code["motion"]
        n, k = motion.shape[:2]
        still = [code[name].unsqueeze(1).expand(n, k, -1) for name in ("content", "category") if name in code]
        frames = self.generator(torch.cat([*still, motion], 2).flatten(0, 1))
        return frames.float().unflatten(0, (n, k))

    def fake_frames(self, n: int, draw: Draw) -> Tensor:
        """S_1: one frame, drawn uniformly, of each of `n` made clips, `[n, c, h, w]` in [-1, 1]; the others are never
        drawn."""
        code = self.codes(n, self.length, draw)
        return self.render(taken(code, draw.randint(self.length, n, 1)))[:, 0]

    def window(self, code: Code, draw: Draw) -> Tensor:
        """S_T: as many consecutive frames of each clip as the critic takes, from a start drawn uniformly; `[n, t, c, h,
        w]` in [-1, 1]."""
        spare = code["motion"].shape[1] - self.frames
        if spare:
            start = draw.randint(spare + 1, len(code["motion"]), 1)
            code = taken(code, start + torch.arange(self.frames, device=start.device))
        return self.render(code)

    def to_model(self, x: Tensor) -> Tensor:
        """From the data's range to [-1, 1]."""
        low, high = self.spec.range
        return (x - low) * (2 / (high - low)) - 1

    # The trained model

    def decode(self, code: Code) -> Tensor:
        """Codes over any number k of frames -> clips `[n, k, c, h, w]` in the data's range."""
        low, high = self.spec.range
        return (self.render(code) + 1) * ((high - low) / 2) + low

    def prior(self, n: int, generator: torch.Generator, frames: int | None = None) -> Code:
        """`n` codes over `frames` (default: as trained): content and noise normal, every category alike."""
        return self.codes(n, frames or self.frames, Seeded(generator))


def taken(code: Code, index: Tensor) -> Code:
    """The frames at `index` int64 `[n, k]` of each code."""
    motion = code["motion"]
    return {**code, "motion": motion.gather(1, index.unsqueeze(2).expand(-1, -1, motion.shape[2]))}


def frames_of(source: Source, n: int) -> Tensor:
    """`n` frames `[n, c, h, w]`, uniform over all frames of the split's clips where the data can say that
    (`sample_frames`), else one frame of each of `n` items; this rank's share of them."""
    total, data = n * source.world, source.dataset
    if hasattr(data, "sample_frames"):
        frames: Tensor = data.sample_frames(total, source.generator, source.split)
    else:
        clips = data.sample(total, source.generator, source.split, source.bucket)["x"]
        at = torch.randint(clips.shape[1], (total,), generator=source.generator, device=clips.device)
        frames = clips[torch.arange(total, device=clips.device), at]
    return frames[source.rank * n : (source.rank + 1) * n]
