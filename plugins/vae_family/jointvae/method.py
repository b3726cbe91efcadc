"""JointVAE: continuous and discrete codes from one encoder (Dupont, NeurIPS 2018, arXiv 1804.00104).

Code: `z`, continuous, and one or more categorical variables whose posterior the encoder gives. A Gumbel-softmax sample
lets gradients through the categorical ones while training; the rates of both channels are each pulled to a capacity of
their own that grows with the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distk import Code, DataSpec, Latent, Objective, Step, adam, one_hot, option
from distk.console import warn_once
from distk.nn import kl_to_prior, relaxed_one_hot, reparameterise
from distk.plugins.vae_family.gaussian import GaussianConfig, GaussianVAE, require_nats
from distk.plugins.vae_family.networks import Architecture


@dataclass(frozen=True)
class Config(GaussianConfig):
    """Hyperparameters; the defaults are those of the author's dSprites model."""

    z: int = option(6, "continuous dimensions", paper="6; 10 (MNIST)", min=1, max=1024)
    arch: Architecture = option("snu", "networks, named after their papers; mlp is small and takes vectors")
    disc: tuple[int, ...] = option((3,), "values of each discrete variable", paper="3; 10 (MNIST)", min=1, max=1024)
    c_cont: tuple[float, ...] = option(
        (0.0, 40.0, 300_000.0, 150.0),
        "capacity of z: LOW,HIGH,STEPS,WEIGHT - nats at first and at last, steps between them, weight of the distance",
        paper="0,40,300000,150",
        min=0,
    )
    c_disc: tuple[float, ...] = option(
        (0.0, 1.1, 300_000.0, 150.0),
        "capacity of the discrete variables together, likewise; at most the sum of the logs of their sizes",
        paper="0,1.1,300000,150",
        min=0,
    )
    temperature: float = option(0.67, "temperature of the Gumbel-softmax, constant", paper="0.67", above=0)
    bce: Literal["sum", "channel-mean"] = option(
        "sum", "sum over the channels of a pixel; or, as the published program does, their mean"
    )

    def __post_init__(self) -> None:
        if not self.disc:
            raise ValueError("without a discrete variable this is the method annealedvae: distk train annealedvae")
        if 1 in self.disc:
            raise ValueError("disc: a categorical with 1 value carries nothing")
        for name in ("c_cont", "c_disc"):
            given = getattr(self, name)
            shown = f"{name.replace('_', '-')} {','.join(f'{v:g}' for v in given)}"
            if len(given) != 4:
                raise ValueError(f"{shown}: four numbers LOW,HIGH,STEPS,WEIGHT are needed, not {len(given)}")
            if given[1] < given[0]:
                raise ValueError(f"{shown}: the last capacity is below the first")
            if given[2] < 1:
                raise ValueError(f"{shown}: the capacity needs at least 1 step to grow")

    @property
    def most(self) -> float:
        """The largest possible rate of the discrete variables: sum of log S, nats."""
        return sum(math.log(size) for size in self.disc)


class JointVAE(GaussianVAE[Config]):
    """JointVAE. Code: `z`, continuous; `c`, one of S classes, or `c1`, `c2`, ... where there are several variables."""

    taps = ("code",)
    presets: ClassVar[Mapping[str, Any]] = {
        # The digits of scikit-learn and small dense networks: half a minute on one core.
        "demo": {
            "model": {
                "arch": "mlp",
                "z": 4,
                "disc": [10],
                "c_cont": [0, 2, 2500, 30],
                "c_disc": [0, 1.6, 2500, 30],
                "lr": 2e-3,
            },
            "data": {"name": "digits", "size": 32},
            "train": {"steps": 3000, "log_every": 100},
        },
        "paper": {"train": {"steps": 300_000, "eval_every": 10_000, "keep": "best:factorvae"}},
        "mnist": {
            "model": {
                "arch": "dupont",
                "z": 10,
                "disc": [10],
                "c_cont": [0, 5, 25_000, 30],
                "c_disc": [0, 5, 25_000, 30],
            },
            "data": {"name": "mnist", "size": 32, "fit": "scale"},
            "train": {"steps": 93_750},
        },
        "fashion": {
            "model": {
                "arch": "dupont",
                "z": 10,
                "disc": [10],
                "c_cont": [0, 5, 50_000, 100],
                "c_disc": [0, 10, 50_000, 100],
            },
            "data": {"name": "fashion-mnist", "size": 32, "fit": "scale"},
            "train": {"steps": 93_750},
        },
        "chairs": {
            "model": {
                "z": 32,
                "disc": [2, 2, 2],
                "lr": 1e-4,
                "c_cont": [0, 30, 100_000, 300],
                "c_disc": [0, 5, 100_000, 300],
            },
            "data": {"name": "folder", "size": 64, "channels": 1},
            "train": {"steps": 135_000},
        },
        "celeba": {
            "model": {"z": 32, "disc": [10], "c_cont": [0, 50, 100_000, 100], "c_disc": [0, 10, 100_000, 100]},
            "data": {"name": "folder", "size": 64, "channels": 3},
            "train": {"steps": 317_000},
        },
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.discrete = [group for group in self.latents if group.kind == "categorical"]

    def groups(self) -> list[Latent]:
        names = ["c"] if len(self.config.disc) == 1 else [f"c{v + 1}" for v in range(len(self.config.disc))]
        return [*super().groups(), *(Latent(n, "categorical", s) for n, s in zip(names, self.config.disc, strict=True))]

    def encoder_outputs(self) -> int:
        return 2 * self.config.z + sum(self.config.disc)

    # The two capacities

    def schedule(self, step: int) -> dict[str, Any]:
        """C(t) of both channels in nats; t counts from 1, as in the published program."""
        discrete = min(capacity(self.config.c_disc, step + 1), self.config.most)
        return {"c_cont": capacity(self.config.c_cont, step + 1), "c_disc": discrete}

    def objectives(self) -> list[Objective]:
        wanted, most = self.config.c_disc[1], self.config.most
        if wanted > 1.01 * most:  # the published 1.1 for 3 classes is ln 3, rounded
            warn_once(f"c-disc: {wanted:g} nats are more than the discrete variables can carry; clamped to {most:.4f}")
        return [Objective("joint", self.joint, self.parameters(), adam(self.config.lr))]

    # One step

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Mean and log variance of q(z|x), each `[n, z]`, and log q(c_v|x) of every variable, `[n, S_v]`."""
        mean, logvar, *logits = self.encoder(x).split([self.config.z, self.config.z, *self.config.disc], dim=1)
        # The relaxation divides by the temperature: never in half precision.
        wide = torch.promote_types(mean.dtype, torch.float32)
        return mean, logvar, [part.to(wide).log_softmax(1) for part in logits]

    def joint(self, step: Step) -> Tensor:
        """-log p(x|z, c) + weight_z |KL_z - C_z(t)| + weight_c |KL_c - C_c(t)|, nats (eq. 7).

        The rates are means over the batch before the distance is taken. KL_c is that of the categorical posterior, not
        of the relaxed density.
        """
        x = step.batch["x"]
        mean, logvar, log_alpha = self.heads(x)
        step.tap("code", mean)
        z = self.draw(mean, logvar, step)
        c = [relaxed_one_hot(part, self.config.temperature, step.rand(*part.shape)) for part in log_alpha]
        reconstruction = self.nll(self.decoder(torch.cat([z, *c], 1)), x).mean()
        kl = kl_to_prior(mean, logvar).mean(0)
        kl_discrete = torch.stack([kl_to_uniform(part).mean() for part in log_alpha])
        step.log("reconstruction", reconstruction)
        step.log("kl", kl)
        step.log("kl_disc", kl_discrete)
        # A rate of log S says that the posteriors are certain, not that the classes are balanced; this says it.
        step.log("marginal_entropy", torch.stack([entropy(part.exp().mean(0)) for part in log_alpha]))
        cont, disc = self.config.c_cont[3], self.config.c_disc[3]
        distance = cont * (kl.sum() - step.schedule["c_cont"]).abs()
        return reconstruction + distance + disc * (kl_discrete.sum() - step.schedule["c_disc"]).abs()

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        total = super().nll(output, x)
        mean = self.config.bce == "channel-mean" and len(self.spec.shape) == 3
        return total / self.spec.shape[0] if mean else total

    # The trained model

    def encode(self, x: Tensor) -> Code:
        """z = posterior mean; every discrete variable as the one-hot of its most probable class."""
        mean, _, log_alpha = self.heads(x)
        codes = {g.name: one_hot(part.argmax(1), g.size) for g, part in zip(self.discrete, log_alpha, strict=True)}
        return {"z": mean, **codes}

    def bound(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """As of a Gaussian VAE, with every discrete variable drawn from q(c|x) itself, not from its relaxation, and
        `kl_discrete` `[n, variables]` against the uniform prior."""
        require_nats(self.config.likelihood)
        mean, logvar, log_alpha = self.heads(x)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = reparameterise(mean, (0.5 * logvar.clamp(-20, 10)).exp(), noise)
        drawn = [torch.multinomial(part.exp(), 1, generator=generator)[:, 0] for part in log_alpha]
        classes = [one_hot(index, part.shape[1]) for index, part in zip(drawn, log_alpha, strict=True)]
        reconstruction = self.nll(self.decoder(torch.cat([z, *classes], 1)), x)
        kl, kl_discrete = kl_to_prior(mean, logvar), torch.stack([kl_to_uniform(part) for part in log_alpha], 1)
        elbo = -(reconstruction + kl.sum(1) + kl_discrete.sum(1))
        return {"elbo": elbo, "reconstruction": reconstruction, "kl": kl, "kl_discrete": kl_discrete}


def capacity(setting: tuple[float, ...], t: int) -> float:
    """C(t) = min(low + (high - low) t / T, high), nats, of a setting (low, high, T, weight)."""
    low, high, steps, _ = setting
    return min(low + (high - low) * t / steps, high)


def kl_to_uniform(log_alpha: Tensor) -> Tensor:
    """KL(Categorical(alpha) || uniform) of log probabilities `[n, S]`, nats, `[n]`; between 0 and log S."""
    return math.log(log_alpha.shape[1]) + (log_alpha.exp() * log_alpha).sum(1)


def entropy(p: Tensor) -> Tensor:
    """Entropy of probabilities `[S]`, nats, scalar."""
    return -torch.special.xlogy(p, p).sum()
