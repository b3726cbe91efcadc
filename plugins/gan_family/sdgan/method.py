"""Semantically decomposed GANs (Donahue, Balsubramani, McAuley & Lipton 2017; ICLR 2018, arXiv 1705.07904).

A code is an identity z_I and an observation z_O. The game is played with pairs: a real one is two different images of
one identity, a made one G(z_I, z_O1), G(z_I, z_O2) of one z_I (their eq. 2). The discriminator sees both images at
once, so that the generator must make them likely, different, and of one identity. `sddcgan` plays it as DCGAN,
`sdbegan` as BEGAN; `dcgan` and `began` are the same without pairs. With --tuple-k a pair is any number of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from distk import (
    Code,
    Dataset,
    DataSpec,
    Latent,
    LatentSpace,
    Method,
    Objective,
    Source,
    Step,
    UsageError,
    adam,
    option,
)
from distk.nn import GAMES, gradient_penalty, interpolated
from distk.plugins.gan_family.sdgan.networks import BEAutoencoder, BEDecoder, DCDiscriminator, DCGenerator
from distk.plugins.gan_family.sdgan.tuples import Identities, identities

Loss = Literal["logistic", "least-squares", "wgan-gp"]


@dataclass(frozen=True)
class DCConfig:
    """What DCGAN is told, with and without pairs."""

    width: int = option(64, "channels of the widest maps; each halving doubles them", paper="64", min=1, max=1024)
    loss: Loss = option("logistic", "the game; wgan-gp has layer instead of batch normalisation", paper="logistic")
    critic_updates: int | None = option(
        None, "discriminator updates per step, each with images of its own; default: 1, of wgan-gp 5", min=1, max=100
    )
    slope_weight: float = option(10.0, "weight of wgan-gp's gradient penalty", min=0)
    lr: float = option(2e-4, "learning rate of Adam, for both sides", paper="2e-4", above=0)


@dataclass(frozen=True)
class BEConfig:
    """What BEGAN is told, with and without pairs."""

    width: int = option(128, "channels of a layer, n in the paper on BEGAN", paper="128", min=1, max=1024)
    gamma: float = option(0.5, "wanted ratio of the losses of made and real images", paper="0.5", min=0, max=1)
    rate: float = option(
        1e-3, "step of k, the weight of made images in the discriminator's loss", paper="1e-3", above=0
    )
    lr: float = option(8e-5, "learning rate of Adam, for both sides", paper="8e-5 in the authors' code", above=0)
    halve_every: int = option(100_000, "steps after which the learning rate is halved; 0 = never", min=0)
    lowest_lr: float = option(2e-5, "where halving ends", paper="2e-5", min=0)


@dataclass(frozen=True)
class Pairs:
    """What semantic decomposition is told."""

    identity: int = option(50, "dimensions of the identity's code", paper="50", min=1, max=4096)
    observation: int = option(50, "dimensions of the observation's code", paper="50", min=1, max=4096)
    tuple_k: int = option(2, "images of one identity that are judged together", paper="2", min=2, max=16)


@dataclass(frozen=True)
class SDDCConfig(DCConfig, Pairs):
    """Hyperparameters of SD-DCGAN."""

    siamese: bool = option(True, "--no-siamese stacks the images before the first convolution (ablation)")


@dataclass(frozen=True)
class SDBEConfig(BEConfig, Pairs):
    """Hyperparameters of SD-BEGAN."""


@dataclass(frozen=True)
class PlainDCConfig(DCConfig):
    """Hyperparameters of DCGAN."""

    z: int = option(100, "dimensions of the code", paper="100", min=1, max=4096)


@dataclass(frozen=True)
class PlainBEConfig(BEConfig):
    """Hyperparameters of BEGAN."""

    z: int = option(100, "dimensions of the code", paper="64 to 128; here as sdbegan", min=1, max=4096)


S = TypeVar("S", bound=DCConfig | BEConfig, default=DCConfig)
D = TypeVar("D", bound=DCConfig, default=DCConfig)
B = TypeVar("B", bound=BEConfig, default=BEConfig)


class PairGAN(Method[S]):
    """What all four share: codes, tuples, pictures. Without pairs the identity has no dimensions and k is 1.

    Codes are uniform in [-1, 1]: groups `identity` and `observation`, or one group `z`. There is no encoder. generator:
    codes `[..., z]` -> images `[..., c, s, s]`, where [-1, 1] stands for the data's range.
    """

    data = "idfaces"
    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, config: S, data: DataSpec) -> None:
        super().__init__(config, data)
        groups: list[tuple[str, int]] = [("z", config.z)] if isinstance(config, (PlainDCConfig, PlainBEConfig)) else []
        self.k, self.identity = 1, 0
        if isinstance(config, Pairs):
            self.k, self.identity = config.tuple_k, config.identity
            groups = [("identity", config.identity), ("observation", config.observation)]
            self.instead = {"reconstruct": "distk sdgan invert"}
        self.z = sum(size for _, size in groups)
        self.latents = LatentSpace.of(
            *(Latent(n, "continuous", size, low=-1, high=1, prior="uniform", encoded=False) for n, size in groups)
        )

    # What a step reads

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """`x` `[batch, k, c, s, s]`: tuples of one identity, uniform over identities; without pairs single images."""
        if self.k == 1:
            return {"x": source.sample()["x"].unsqueeze(1)}
        rows = self.identities(source.dataset).tuples(source.batch * source.world, self.k, source.generator)
        rows = rows[source.rank * source.batch : (source.rank + 1) * source.batch]
        return {"x": source.dataset.batch(rows.flatten())["x"].unflatten(0, tuple(rows.shape))}

    def identities(self, dataset: Dataset) -> Identities:
        """The training identities with at least k images. Raises UsageError where there is none."""
        cached = self.__dict__.get("_identities")
        if cached is None or cached[0] is not dataset:
            cached = self.__dict__["_identities"] = (dataset, identities(dataset, "train", self.k))
        return cached[1]

    def prepare(self) -> None:
        """Tell what is wrong with the labels before a run folder exists."""
        if self.opens is not None and self.k > 1:
            self.identities(self.dataset())

    def signed(self, x: Tensor) -> Tensor:
        """Images in the data's range -> [-1, 1]."""
        low, high = self.spec.range
        return (x - low) * (2 / (high - low)) - 1

    def codes(self, step: Step, n: int) -> Tensor:
        """Codes of n tuples `[n, k, z]`, uniform in [-1, 1]; the first `identity` numbers are the same in a tuple."""
        identity = step.rand(n, 1, self.identity).expand(-1, self.k, -1)
        observation = step.rand(n, self.k, self.z - self.identity)
        return 2 * torch.cat([identity, observation], 2) - 1

    # The trained model

    def images(self, code: Code) -> Tensor:
        """Code -> what the generator makes of it, `[n, c, s, s]`, in the data's range but not cut off there."""
        low, high = self.spec.range
        made = self.generator(torch.cat([code[group.name] for group in self.latents], 1))
        return (made + 1) * ((high - low) / 2) + low

    def decode(self, code: Code) -> Tensor:
        return self.images(self.filled(code)).clamp(*self.spec.range)


# DCGAN: one update of the discriminator, then one of the generator with codes of its own


class DCGame(PairGAN[D]):
    """The game of DCGAN, on tuples."""

    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 500_000, "batch": 16}

    def __init__(self, config: D, data: DataSpec) -> None:
        super().__init__(config, data)
        siamese = config.siamese if isinstance(config, SDDCConfig) else True
        critic = config.loss == "wgan-gp"
        self.generator = DCGenerator(self.z, data.shape, config.width)
        self.discriminator = DCDiscriminator(self.k, data.shape, config.width, siamese, norm=not critic)

    def objectives(self) -> list[Objective]:
        self.prepare()
        config = self.config
        critic = config.loss == "wgan-gp"
        updates = config.critic_updates or (5 if critic else 1)
        adapt = adam(config.lr, betas=(0.5, 0.9 if critic else 0.999))
        return [
            Objective(
                "discriminator",
                self.discriminate,
                self.discriminator.parameters(),
                adapt,
                updates=updates,
                fresh_batch=updates > 1,
                compiles=self.config.loss != "wgan-gp",
            ),
            Objective("generator", self.generate, self.generator.parameters(), adapt),
        ]

    def discriminate(self, step: Step) -> Tensor:
        """0.5 [mean -log D(real) + mean -log(1 - D(made))], nats, mean over tuples; see `--loss` for other games.

        Real and made tuples are normalised apart: in one batch, its statistics would tell which is which.
        """
        real = self.signed(step.batch["x"])
        with torch.no_grad():
            made = self.generator(self.codes(step, len(real)))
        on_real, on_made = self.discriminator(real), self.discriminator(made)
        step.log("score_real", on_real.mean())
        step.log("score_made", on_made.mean())
        if self.config.loss == "wgan-gp":
            # One share per tuple, and one gradient over all of its images: the critic is a function of the tuple.
            between = interpolated(real, made, step.rand(len(real)))
            slope = gradient_penalty(self.discriminator(between), between).mean()
            return on_made.mean() - on_real.mean() + self.config.slope_weight * slope
        game = GAMES[self.config.loss]
        return 0.5 * (game.real(on_real).mean() + game.fake(on_made).mean())

    def generate(self, step: Step) -> Tensor:
        """mean -log D(made), nats, the form that does not saturate; its gradient reaches the generator alone."""
        made = self.generator(self.codes(step, len(step.batch["x"])))
        game = GAMES["wasserstein" if self.config.loss == "wgan-gp" else self.config.loss]
        return game.fool(self.discriminator(made)).mean()


# BEGAN: the discriminator is an autoencoder, and both gradients come from one pass before either side steps


class BEGame(PairGAN[B]):
    """The game of BEGAN, on tuples. balance: k_t, a number on the device in 0..1; it starts at 0."""

    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 500_000, "batch": 16}
    balance: Tensor

    def __init__(self, config: B, data: DataSpec) -> None:
        super().__init__(config, data)
        bottleneck = self.identity + self.k * (self.z - self.identity)
        self.generator = BEDecoder(self.z, data.shape, config.width)
        self.discriminator = BEAutoencoder(self.k, self.z, bottleneck, data.shape, config.width)
        self.register_buffer("balance", torch.zeros(()))

    def objectives(self) -> list[Objective]:
        self.prepare()
        rate, players = adam(self.config.lr), (self.discriminator.parameters(), self.generator.parameters())
        # The second loss writes the balance that the first one has read.
        return [
            Objective("discriminator", self.discriminate, players[0], rate, stage="game", compiles=False),
            Objective("generator", self.generate, players[1], rate, stage="game", compiles=False),
        ]

    def schedule(self, step: int) -> dict[str, Any]:
        """The learning rate of both sides: halved every `halve_every` steps, never below `lowest_lr`."""
        config = self.config
        halved = config.lr * 0.5 ** (step // config.halve_every) if config.halve_every else config.lr
        return {"lr": max(halved, min(config.lr, config.lowest_lr))}

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """As above. Raises UsageError for several processes, whose balances would part."""
        if source.world > 1:
            raise UsageError("began and sdbegan balance both losses by one number: train in one process.")
        return super().collect(source, objective)

    def error(self, x: Tensor) -> Tensor:
        """l(p) = |AE(p) - p|, mean over tuples, images, channels and pixels, of tuples `[n, k, c, s, s]`; scalar."""
        wide = torch.promote_types(x.dtype, torch.float32)  # of bfloat16 the mean would lose what k weighs
        return (self.discriminator(x).to(wide) - x.to(wide)).abs().mean()

    def discriminate(self, step: Step) -> Tensor:
        """l(real) - k_t l(made). The trainer takes its gradient in the discriminator alone."""
        made = self.generator(self.codes(step, len(step.batch["x"])))
        on_real, on_made = self.error(self.signed(step.batch["x"])), self.error(made)
        step.memo["errors"] = on_real, on_made
        return on_real - self.balance.clone() * on_made

    def generate(self, step: Step) -> Tensor:
        """l(made), whose gradient reaches the generator twice: as what is rebuilt, and as what the encoder reads.

        k_{t+1} = k_t + rate (gamma l(real) - l(made)), cut to 0..1; `convergence` is l(real) + |gamma l(real) -
        l(made)|.
        """
        on_real, on_made = step.memo["errors"]
        with torch.no_grad():
            excess = self.config.gamma * on_real - on_made
            self.balance.add_(self.config.rate * excess).clamp_(0, 1)
            step.log("convergence", on_real + excess.abs())
            step.log("balance", self.balance)
        return on_made


# The four methods

SMALL_FACES = {"name": "idfaces", "size": 16, "identities": 400, "observations": 8}
# In so few steps k must grow ten times as fast as the paper's; a narrower autoencoder with a larger learning rate takes
# the mean face for a good one, and every picture becomes it.
BALANCED = {"width": 24, "lr": 3e-4, "rate": 0.01, "gamma": 0.7}


class SDDCGAN(DCGame[SDDCConfig]):
    """SD-DCGAN. Code: `identity` and `observation`, continuous."""

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"identity": 8, "observation": 8, "width": 16},
            "data": SMALL_FACES,
            "train": {"steps": 1500, "log_every": 50},
        },
        "paper": {"data": {"name": "idfaces"}, "train": {"steps": 500_000, "batch": 16}},
        "short": {"data": {"name": "idfaces"}, "train": {"steps": 50_000, "batch": 16}},
    }


class SDBEGAN(BEGame[SDBEConfig]):
    """SD-BEGAN. Code: `identity` and `observation`, continuous."""

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"identity": 8, "observation": 8, **BALANCED},
            "data": SMALL_FACES,
            "train": {"steps": 3000, "log_every": 50},
        },
        "paper": {"data": {"name": "idfaces"}, "train": {"steps": 500_000, "batch": 16}},
        "short": {"data": {"name": "idfaces"}, "train": {"steps": 50_000, "batch": 16}},
    }


class DCGAN(DCGame[PlainDCConfig]):
    """DCGAN. Code: `z`, continuous."""

    presets: ClassVar[Mapping[str, Any]] = {
        **SDDCGAN.presets,
        "demo": {**SDDCGAN.presets["demo"], "model": {"z": 16, "width": 16}},
    }


class BEGAN(BEGame[PlainBEConfig]):
    """BEGAN. Code: `z`, continuous."""

    presets: ClassVar[Mapping[str, Any]] = {
        **SDBEGAN.presets,
        "demo": {**SDBEGAN.presets["demo"], "model": {"z": 16, **BALANCED}},
    }
