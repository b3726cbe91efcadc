"""AAE and AAE-S: adversarial autoencoders (Makhzani et al. 2015, arXiv 1511.05644), without and with a given class.

No KL term: a critic pulls the distribution of all codes, q(z), to the standard normal prior. In `aae-s` the decoder is
also told the item's class y, so that z need not carry it; the encoder sees the item alone. Jeong & Song (2019) name
this model as the one that knows the discrete factor; they state no settings, so most values here are choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import TypeVar

from distk import Code, DataSpec, Latent, Method, Objective, Step, UsageError, adam, one_hot, option
from distk.nn import call_fake, call_real, he_truncated_, mlp, reparameterise, squared_slope
from distk.plugins.vae_family.gaussian import GaussianConfig, GaussianVAE
from distk.plugins.vae_family.networks import Architecture

R1_EVERY = 16
"""Steps between two gradient penalties."""


@dataclass(frozen=True)
class Given:
    """Where the class of an item comes from.

    size: number of classes. names: of the classes. column: of the batch's `factors`, None for its `label`.
    """

    size: int
    names: tuple[str, ...]
    column: int | None = None


def given_class(spec: DataSpec, factor: str) -> Given:
    """The categorical factor `factor` of the data, or its label where none is named.

    Raises ValueError where there is none, where it has an order, and where it has a single value.
    """
    sizes, kinds = spec.extra.get("factors") or {}, spec.extra.get("factor_kinds") or {}
    if not isinstance(sizes, dict) or not isinstance(kinds, dict):
        raise ValueError("the description of the data's factors is damaged")
    there = ", ".join([*(f"{name}({size})" for name, size in sizes.items())]) or "no factors"
    if factor in ("", "label") and factor not in sizes and spec.classes:
        found = Given(len(spec.classes), spec.classes)
    else:
        suited = [name for name in sizes if kinds.get(name) == "categorical" and factor in ("", name)]
        if not suited:
            label = ", and a label" if spec.classes else ", and no label"
            raise ValueError(f"aae-s needs a categorical factor; the data has {there}{label}")
        name = suited[0]
        size = sizes[name]
        if not isinstance(size, int) or not 0 <= size <= 1 << 16:
            raise ValueError(f"the data's factor '{name}' has an impossible number of values")
        # The label of data with factors is their first categorical one; only it has names.
        first = next(n for n in sizes if kinds.get(n) == "categorical")
        names = spec.classes if name == first and len(spec.classes) == size else tuple(map(str, range(size)))
        found = Given(size, names, list(sizes).index(name))
    if found.size < 2:
        raise ValueError(f"factor '{factor or 'label'}' has one value, which says nothing; the data has {there}")
    return found


def listed(names: tuple[str, ...]) -> str:
    """`0 (square), 1 (ellipse), 2 (heart)`; just the numbers where the names are these."""
    return ", ".join(str(k) if name == str(k) else f"{k} ({name})" for k, name in enumerate(names))


@dataclass(frozen=True)
class Config(GaussianConfig):
    """Hyperparameters of the adversarial autoencoder."""

    z: int = option(6, "continuous dimensions", min=1, max=1024)
    arch: Architecture = option("snu", "networks, named after their papers; mlp is small and takes vectors")
    lr: float = option(1e-4, "learning rate of Adam for the reconstruction", above=0)
    lr_critic: float = option(1e-4, "learning rate of the critic's Adam, betas 0.5, 0.9", above=0)
    lr_regularise: float = option(1e-4, "learning rate of the encoder's second Adam, betas 0.5, 0.9", above=0)
    posterior: Literal["deterministic", "gaussian"] = option(
        "deterministic", "the encoder gives z, or the mean and spread of a Gaussian from which z is drawn"
    )
    adv_weight: float = option(10.0, "weight of the critic's gradient on the encoder, against nats per item", min=0)
    disc_width: int = option(512, "width of the critic's two layers", paper="1000", min=1, max=65536)
    merge_ac: bool = option(False, "reconstruct and regularise in one backward pass from one encoding: cheaper")
    r1: float = option(0.0, "weight of the critic's gradient penalty at prior samples, taken every 16 steps", min=0)
    labels: bool = option(False, "give the item's class to the decoder: this is aae-s")
    label_factor: str = option("", "factor that is the class; default: the data's label (dSprites: shape)")
    label_dropout: float = option(0.0, "share of items whose class is replaced by zeros while training", min=0, max=1)
    disc_sees_label: bool = option(False, "give the class to the critic, too: q(z|y) is matched for every class")

    def __post_init__(self) -> None:
        if not self.labels and (self.label_factor or self.label_dropout or self.disc_sees_label):
            raise ValueError("label-factor, label-dropout and disc-sees-label belong to aae-s, or to aae with --labels")


@dataclass(frozen=True)
class SupervisedConfig(Config):
    """Hyperparameters of AAE-S."""

    labels: bool = option(True, "give the item's class to the decoder; without it this is aae")


A = TypeVar("A", bound=Config, default=Config)


class AAE(GaussianVAE[A]):
    """Adversarial autoencoder. Code: `z`, continuous; with labels also `y`, the given class."""

    bound = Method.bound  # a critic pulls the codes to the prior: there is no density whose bound this would be

    presets: ClassVar[Mapping[str, Any]] = {
        # Three shapes of one size on a grid of positions: a minute on two cores.
        "demo": {
            "model": {"z": 2, "lr": 1e-3, "lr_critic": 1e-3, "lr_regularise": 3e-4, "disc_width": 128},
            "data": {"name": "dsprites", "size": 32, "scales": [5], "orientations": 1, "positions": 16},
            "train": {"steps": 1500, "log_every": 50},
        },
        # No paper trained it on dSprites: networks, rates and steps are ours.
        "dsprites": {"train": {"steps": 300_000}},
    }

    def __init__(self, config: A, data: DataSpec) -> None:
        # Before the networks are built: their sizes depend on the number of classes.
        self.given = given_class(data, config.label_factor) if config.labels else None
        super().__init__(config, data)
        if config.arch == "snu":
            he_truncated_(self.encoder)
            he_truncated_(self.decoder)
        seen = self.classes if config.disc_sees_label else 0
        sizes = [config.z + seen, config.disc_width, config.disc_width, 1]
        self.critic = mlp(sizes, nn.LeakyReLU, negative_slope=0.2)
        if self.classes:
            told = "aae-s is given the class; it does not infer one"
            self.unscored = {"clsacc": told, "reconstruction": f"{told}, and decoding needs it"}
            self.instead = {"reconstruct": "distk transfer --image ROW"}

    @property
    def classes(self) -> int:
        """How many classes the decoder is told apart; 0 without labels."""
        return self.given.size if self.given else 0

    def groups(self) -> list[Latent]:
        return [*super().groups(), *([Latent("y", "categorical", self.classes)] if self.classes else [])]

    def encoder_outputs(self) -> int:
        return self.config.z * (1 if self.config.posterior == "deterministic" else 2)

    # One step: reconstruct, teach the critic, regularise the encoder

    def objectives(self) -> list[Objective]:
        config, both = self.config, [*self.encoder.parameters(), *self.decoder.parameters()]
        critic = [
            Objective(
                "critic", self.tell_apart, self.critic.parameters(), adam(config.lr_critic, (0.5, 0.9)), stage="critic"
            )
        ]
        if config.r1:
            critic += [
                Objective("r1", self.penalty, self.critic.parameters(), stage="critic", every=R1_EVERY, compiles=False)
            ]
        if config.merge_ac:
            return [Objective("autoencoder", self.autoencoder, both, adam(config.lr)), *critic]
        again = adam(config.lr_regularise, (0.5, 0.9))
        return [
            Objective("recon", self.reconstruct, both, adam(config.lr)),
            *critic,
            Objective("regularise", self.regularise, self.encoder.parameters(), again),
        ]

    def reconstruct(self, step: Step) -> Tensor:
        """-log p(x | z, y), sum over pixels, mean over the batch, nats."""
        x = step.batch["x"]
        step.memo["z"] = z = self.draw_code(x, step)
        step.memo["y"] = y = self.told(step)
        reconstruction = self.nll(self.decoder(torch.cat([z, y], 1)), x).mean()
        step.log("reconstruction", reconstruction)
        return reconstruction

    def tell_apart(self, step: Step) -> Tensor:
        """The critic's cross-entropy between prior samples and codes; at its optimum for q(z) = p(z) it is ln 2."""
        z = step.memo["z"].detach()
        real, fake = self.judge(step.randn(*z.shape), step), self.judge(z, step)
        step.log("critic_accuracy", 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean()))
        return 0.5 * (call_real(real).mean() + call_fake(fake).mean())

    def penalty(self, step: Step) -> Tensor:
        """R1 (Mescheder et al. 2018): half the squared gradient of the critic at prior samples, mean over the batch."""
        z = step.randn(*step.memo["z"].shape).requires_grad_()
        # Times the interval, so that the weight means the same however seldom it is taken.
        return 0.5 * self.config.r1 * R1_EVERY * squared_slope(self.judge(z, step), z).mean()

    def regularise(self, step: Step) -> Tensor:
        """adv_weight * softplus(-D(z)) of the encoder as the reconstruction left it, mean over the batch."""
        return self._fool(self.draw_code(step.batch["x"], step), step)

    def autoencoder(self, step: Step) -> Tensor:
        """Reconstruction and regularisation from one encoding."""
        reconstruction = self.reconstruct(step)
        return reconstruction + self._fool(step.memo["z"], step)

    def _fool(self, z: Tensor, step: Step) -> Tensor:
        loss = call_real(self.judge(z, step)).mean()
        step.log("adversarial", loss)
        return self.config.adv_weight * loss

    def judge(self, z: Tensor, step: Step) -> Tensor:
        """The critic's logit that z `[n, z]` is from the prior, `[n, 1]`; it may also see the class."""
        return self.critic(torch.cat([z, step.memo["y"]], 1) if self.config.disc_sees_label else z)

    def told(self, step: Step) -> Tensor:
        """The class as the decoder is told it, one-hot `[n, S]`, with zeros where it is dropped; `[n, 0]` for aae."""
        x, given = step.batch["x"], self.given
        if given is None:
            return x.new_zeros(x.shape[0], 0)
        index = step.batch["label"] if given.column is None else step.batch["factors"][:, given.column]
        y = one_hot(index, given.size)
        if self.config.label_dropout:
            y = y * (step.rand(len(x), 1) >= self.config.label_dropout)
        return y

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean of z and its standard deviation, each `[n, z]`; None for the deterministic encoder."""
        if self.config.posterior == "deterministic":
            return self.encoder(x), None
        mean, raw = self.encoder(x).chunk(2, dim=1)
        return mean, F.softplus(raw)

    def draw_code(self, x: Tensor, step: Step) -> Tensor:
        """z of the items `[n, z]`: the encoder's output, or one sample of its Gaussian."""
        mean, std = self.moments(x)
        return mean if std is None else reparameterise(mean, std, step.randn(*mean.shape))

    # The trained model

    def encode(self, x: Tensor) -> Code:
        """z, and zeros for y: the class is not read from the item."""
        mean = self.moments(x)[0]
        return {"z": mean, **({"y": mean.new_zeros(x.shape[0], self.classes)} if self.classes else {})}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Empty for the deterministic encoder."""
        mean, std = self.moments(x)
        return {} if std is None else {"z": (mean, std)}

    def decode(self, code: Code) -> Tensor:
        """Items of a code. Where y is zero, the class is unknown: the mean of the items of all classes.

        With label dropout the decoder has learned what to make of an unknown class.
        """
        if not self.classes or self.config.label_dropout or bool((code["y"].sum(1) > 0).all()):
            return super().decode(code)
        z, y = code["z"], code["y"]
        every = torch.eye(self.classes, device=z.device, dtype=z.dtype)
        mean = torch.stack([super(AAE, self).decode({"z": z, "y": one.expand(z.shape[0], -1)}) for one in every]).mean(
            0
        )
        known = (y.sum(1) > 0).view(-1, *[1] * (mean.dim() - 1))
        return torch.where(known, super().decode(code), mean)

    def sample(self, n: int, generator: torch.Generator, **given: int) -> Tensor:
        """As `Method.sample`; the message about a class out of range names the classes."""
        if "y" in given and not 0 <= given["y"] < self.classes:
            raise UsageError(f"there is no class {given['y']}; the classes are {listed(self.class_names())}.")
        return super().sample(n, generator, **given)

    def class_names(self) -> tuple[str, ...]:
        """What the classes of the group `y` are called."""
        return self.given.names if self.given is not None else ()


class AAES(AAE[SupervisedConfig]):
    """Adversarial autoencoder with a supervised discrete variable. Code: `z`, continuous, and `y`, given."""
