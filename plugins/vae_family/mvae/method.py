"""The Multi-Entity VAE (Nash, Eslami, Burgess, Higgins, Zoran, Weber, Battaglia; NIPS 2017 workshop).

The latent is a set of objects. An encoder gives every cell of a grid the posterior of an object; the N cells with the
largest KL are kept ("maximal information attention", section 3.2). A network shared by all objects decodes each to a
map of features, the maps are pooled element by element, and what comes out is rendered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from distk import Code, DataSpec, DistkError, Latent, LatentSpace, Method, Objective, Step, adam, option, seeded
from distk.console import counted, warn_once
from distk.nn import Canvas, bernoulli_nll, kl_to_prior, reparameterise

WIDTH = 32
CANDIDATE = 24
"""Channels of the encoder's map: mean and log variance of 12 dimensions in every cell."""
LOGVAR = (-12.0, 8.0)


@dataclass(frozen=True)
class BaselineConfig:
    """Hyperparameters that both methods have."""

    grid: Literal[8, 4] = option(8, "side of the grid of candidate cells", paper="not given")
    beta: float = option(1.0, "weight of the KL term", paper="1", min=0)
    lr: float = option(1e-3, "learning rate of Adam at the first step", paper="1e-3", above=0)
    lr_last: float = option(1e-5, "learning rate after `anneal` steps, reached exponentially", paper="1e-5", above=0)
    anneal: int = option(3_000_000, "steps over which the learning rate falls", paper="3,000,000", min=1)
    z: int = option(60, "latent dimensions", paper="60", min=1, max=4096)


@dataclass(frozen=True)
class Config:
    """Hyperparameters of the multi-entity VAE."""

    slots: int = option(5, "objects N that are kept; 10 for up to 8 sprites", paper="5", min=1, max=256)
    agg: Literal["max", "sum"] = option("max", "how the objects' features are pooled", paper="max")
    grid: Literal[8, 4] = option(8, "side of the grid of candidate cells", paper="not given")
    beta: float = option(1.0, "weight of the KL term", paper="1", min=0)
    lr: float = option(1e-3, "learning rate of Adam at the first step", paper="1e-3", above=0)
    lr_last: float = option(1e-5, "learning rate after `anneal` steps, reached exponentially", paper="1e-5", above=0)
    anneal: int = option(3_000_000, "steps over which the learning rate falls", paper="3,000,000", min=1)
    select: Literal["kl", "random"] = option("kl", "cells kept in training; random is the ablation")

    def __post_init__(self) -> None:
        cells = self.grid**2
        if self.slots > cells:
            raise ValueError(f"slots ({self.slots}) exceeds the {cells} candidate cells of grid {self.grid}")


class GridEncoder(nn.Module):
    """Images `[n, c, s, s]` -> a map `[n, 24, grid, grid]` of candidate objects, linear at the end.

    Four 3x3 convolutions, or as many as it needs, of which the first log2(s / grid) are followed by max pooling; two
    channels with the place of each cell in [-1, 1]; two more convolutions. ELU in between. Without the place a kept
    cell could not tell where it was, since choosing cells forgets it.
    """

    place: Tensor

    def __init__(self, channels: int, size: int, grid: int, place: Canvas) -> None:
        super().__init__()
        pools = int(math.log2(size // grid))
        layers = place.onto()
        for i, width in enumerate((WIDTH, WIDTH, *(2 * WIDTH,) * max(2, pools - 2))):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ELU()]
            layers += [nn.MaxPool2d(2)] if i < pools else []
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Conv2d(channels + 2, 2 * WIDTH, 3, padding=1), nn.ELU(), nn.Conv2d(2 * WIDTH, CANDIDATE, 1)
        )
        axis = torch.linspace(-1, 1, grid)
        x, y = axis.expand(grid, grid), axis.unsqueeze(1).expand(grid, grid)
        self.register_buffer("place", torch.stack([x, y]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.head(torch.cat([features, self.place.expand(x.shape[0], -1, -1, -1)], 1))


def object_network(code: int, size: int) -> nn.Sequential:
    """g: code `[n, code]` -> features `[n, 32, s / 2, s / 2]` of one object, linear at the end.

    No activation before the pooling: one with a floor would let an object that adds nothing collide with real zeros.
    """
    doublings = int(math.log2(size // 8)) - 1
    layers: list[nn.Module] = [
        nn.Linear(code, 128),
        nn.ELU(),
        nn.Linear(128, 1024),
        nn.ELU(),
        nn.Unflatten(1, (16, 8, 8)),
    ]
    layers += [*_doubled(doublings > 0), nn.Conv2d(16, WIDTH, 3, padding=1), nn.ELU()]
    layers += [*_doubled(doublings > 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)]
    for _ in range(2, doublings):  # images of more than 64 pixels
        layers += [nn.ELU(), *_doubled(True), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)]
    return nn.Sequential(*layers)


def side_of(height: int, width: int) -> int:
    """Side of the square on which images stand, since cells and doublings want a power of two from 16."""
    return max(16, 1 << (max(height, width) - 1).bit_length())


def render_network(channels: int) -> nn.Sequential:
    """h: pooled features `[n, 32, s / 2, s / 2]` -> Bernoulli logits `[n, channels, s, s]`."""
    return nn.Sequential(
        *(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ELU(), *_doubled(True)),
        *(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ELU(), nn.Conv2d(WIDTH, channels, 3, padding=1)),
    )


def _doubled(wanted: bool) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)] if wanted else []


def entropy(x: Tensor) -> Tensor:
    """Entropy of Bernoulli pixels with means x in [0, 1], sum over all but the first dimension, nats, `[n]`.

    The least that the cross-entropy to grey values can be.
    """
    return (torch.special.entr(x) + torch.special.entr(1 - x)).flatten(1).sum(1)


def checked(x: Tensor, where: str) -> Tensor:
    """x itself. Raises DistkError for values outside [0, 1] or NaN, which cross-entropy would accept."""
    if bool(x.isnan().any()):
        raise DistkError(f"{where} holds NaN: pixels must lie in [0, 1].")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise DistkError(f"{where} holds values from {low:.4g} to {high:.4g}: pixels must lie in [0, 1].")
    return x


class Noise(Protocol):
    """What a bound needs of a `Step`."""

    def randn(self, rows: int, *shape: int) -> Tensor: ...

    def rand(self, rows: int, *shape: int) -> Tensor: ...


class Draws:
    """Noise from a generator, drawn as a `Step` does."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def randn(self, rows: int, *shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=self.generator, device=self.generator.device)

    def rand(self, rows: int, *shape: int) -> Tensor:
        return torch.rand(rows, *shape, generator=self.generator, device=self.generator.device)


M = TypeVar("M", bound="BaselineConfig | Config", default=BaselineConfig)


class MVAEBaseline(Method[M]):
    """The matched VAE without objects: the same encoder and decoder around one code `z` of 60 dimensions."""

    data = "sprites-scenes"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 3_000_000, "batch": 32}
    instead: Mapping[str, str] = {"swap": "distk traverse"}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"anneal": 600, "lr_last": 3e-4},
            "data": {"name": "sprites-scenes", "size": 32, "max_sprites": 2, "fixed": 1000, "test": 1000},
            "train": {"steps": 600, "batch": 32, "log_every": 50},
        },
        "fast": {"model": {"anneal": 300_000}, "train": {"steps": 300_000, "batch": 128}},
        "paper": {"train": {"steps": 3_000_000, "batch": 32}},
    }

    def __init__(self, config: M, data: DataSpec) -> None:
        super().__init__(config, data)
        channels, height, width = data.shape
        side = side_of(height, width)
        place = Canvas(height, width, 0, (side, side))
        if data.range[0] < 0 or data.range[1] > 1:
            raise ValueError(f"pixels must lie in [0, 1], and these go from {data.range[0]:g} to {data.range[1]:g}")
        self.encoder = GridEncoder(channels, side, config.grid, place)
        self.render = nn.Sequential(*render_network(channels), *place.off())
        self._looked = False
        self._build(side)

    def _build(self, size: int) -> None:
        assert isinstance(self.config, BaselineConfig)  # a subclass with other settings builds otherwise
        z = self.config.z
        self.latents = LatentSpace.of(Latent("z", "continuous", z, low=-2.25, high=2.25))
        self.posterior_of = nn.Linear(CANDIDATE * self.config.grid**2, 2 * z)
        self.object = object_network(z, size)

    # One step

    def before_step(self, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Look at the data once, on the host, before the first step of a process."""
        if not self._looked and self.opens is not None:
            dataset = self.dataset()
            checked(dataset.sample(64, seeded(0, dataset.device))["x"], f"data set '{dataset.name}'")
        self._looked = True

    def schedule(self, step: int) -> dict[str, Any]:
        """The learning rate falls by one factor per step: lr (lr_last / lr)^(step / anneal)."""
        done = min(step / self.config.anneal, 1.0)
        return {"lr": self.config.lr * (self.config.lr_last / self.config.lr) ** done}

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), adam(self.config.lr))]

    def elbo(self, step: Step) -> Tensor:
        """Negative bound: sum over pixels and latent dimensions, mean over the batch, nats."""
        x = step.batch["x"]
        reconstruction, kl = self.terms(x, step)
        loss, nats = reconstruction.mean(), kl.mean(0)
        step.log("reconstruction", loss)
        step.log("excess", loss - entropy(x).mean())
        step.log("kl", nats.sum())
        if len(nats) > 1:
            step.log("object", nats)
        return loss + self.config.beta * nats.sum()

    def terms(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each image `[n]` and KL of each object `[n, objects]` (here one), nats."""
        mean, logvar = self.infer(x)
        z = reparameterise(mean, (0.5 * logvar).exp(), noise.randn(*mean.shape))
        return bernoulli_nll(self.render(self.object(z)), x), kl_to_prior(mean, logvar).sum(1, keepdim=True)

    def bound(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`elbo` = -(reconstruction + kl) of each image, nats; `kl` `[n, objects]`."""
        reconstruction, kl = self.terms(x, Draws(generator))
        return {"elbo": -(reconstruction + kl.sum(1)), "reconstruction": reconstruction, "kl": kl}

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), each `[n, z]`."""
        mean, logvar = self.posterior_of(self.encoder(x).flatten(1)).float().chunk(2, 1)
        return mean, logvar.clamp(*LOGVAR)

    # The trained model

    def encode(self, x: Tensor) -> Code:
        return {"z": self.infer(x)[0]}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        mean, logvar = self.infer(x)
        return {"z": (mean, (0.5 * logvar).exp())}

    def decode(self, code: Code) -> Tensor:
        return self.render(self.object(code["z"])).sigmoid()


class Objects(NamedTuple):
    """What the encoder makes of a batch.

    mean, logvar: of the kept objects, largest KL first, float32 `[n, N, 12]`. kl: theirs, nats, `[n, N]`.
    cells: where they were, row by row, int64 `[n, N]`. map: KL of every candidate, nats, `[n, grid * grid]`.
    """

    mean: Tensor
    logvar: Tensor
    kl: Tensor
    cells: Tensor
    map: Tensor


class MVAE(MVAEBaseline[Config]):
    """The multi-entity VAE. Code: `object1` ... `objectN`, 12 continuous dimensions each, largest KL first."""

    instead: Mapping[str, str] = {}
    presets: ClassVar[Mapping[str, Any]] = {
        **MVAEBaseline.presets,
        "demo": {
            **MVAEBaseline.presets["demo"],
            "model": {**MVAEBaseline.presets["demo"]["model"], "slots": 3},
        },
        "eight": {
            "model": {"anneal": 300_000, "slots": 10},
            "data": {"name": "sprites-scenes", "max_sprites": 8},
            "train": {"steps": 300_000, "batch": 128},
        },
    }

    def _build(self, size: int) -> None:
        slots, most = self.config.slots, self.spec.extra.get("max_sprites", 0)
        self.slots = slots
        if isinstance(most, int) and slots < most:
            warn_once(f"{counted(slots, 'slot')} cannot hold {counted(most, 'sprite')}")
        self.dims = CANDIDATE // 2
        groups = [Latent(f"object{i + 1}", "continuous", self.dims, low=-2.25, high=2.25) for i in range(slots)]
        self.latents = LatentSpace.of(*groups)
        self.object = object_network(self.dims, size)

    # Inference

    def objects(self, x: Tensor, score: Tensor | None = None) -> Objects:
        """The N candidates with the largest KL, or with the largest `score` `[n, grid * grid]`.

        The choice itself has no gradient; it flows through what is gathered, hence into the kept cells only. The bound
        is proper: the choice is a function of x, so q(z_1 .. z_N | x) is a product of Gaussians.
        """
        mean, logvar = self.encoder(x).float().flatten(2).transpose(1, 2).chunk(2, 2)
        logvar = logvar.clamp(*LOGVAR)
        kl = kl_to_prior(mean, logvar).sum(2)
        cells = (kl.detach() if score is None else score).topk(self.config.slots, 1).indices
        places = cells.unsqueeze(2).expand(-1, -1, self.dims)
        return Objects(mean.gather(1, places), logvar.gather(1, places), kl.gather(1, cells), cells, kl)

    def terms(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        score = noise.rand(len(x), self.config.grid**2) if self.config.select == "random" else None
        found = self.objects(x, score)
        z = reparameterise(found.mean, (0.5 * found.logvar).exp(), noise.randn(*found.mean.shape))
        return bernoulli_nll(self.logits(z), x), found.kl

    # Generation

    def features(self, z: Tensor) -> Tensor:
        """Objects `[n, k, 12]` -> their maps `[n, k, 32, s / 2, s / 2]`, each decoded alone by the shared network."""
        return self.object(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def pool(self, features: Tensor) -> Tensor:
        """Maps of k objects -> one map `[n, 32, s / 2, s / 2]`, whatever their number and order."""
        # amax splits the gradient evenly among equal maxima; max would give it all to one of them.
        return features.amax(1) if self.config.agg == "max" else features.sum(1)

    def logits(self, z: Tensor) -> Tensor:
        """Objects `[n, k, 12]`, any k > 0 -> logits `[n, c, s, s]`."""
        return self.render(self.pool(self.features(z)))

    # The trained model

    def encode(self, x: Tensor) -> Code:
        return self.as_code(self.objects(x).mean)

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        found = self.objects(x)
        means, stds = self.as_code(found.mean), self.as_code((0.5 * found.logvar).exp())
        return {name: (means[name], stds[name]) for name in means}

    def decode(self, code: Code) -> Tensor:
        return self.logits(self.as_objects(code)).sigmoid()

    def as_code(self, z: Tensor) -> Code:
        """Objects `[n, N, 12]` -> one group each."""
        return {group.name: value for group, value in zip(self.latents, z.unbind(1), strict=True)}

    def as_objects(self, code: Code) -> Tensor:
        """Inverse of `as_code`."""
        return torch.stack([code[group.name] for group in self.latents], 1)
