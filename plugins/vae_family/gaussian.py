"""What the Gaussian VAEs of the family share: one encoder, one decoder, the two terms of the bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from distk import Code, DataSpec, Latent, LatentSpace, Method, Step, UsageError, adam, option
from distk.nn import bernoulli_nll, kl_to_prior, reparameterise
from distk.optimizers import light
from distk.plugins.vae_family.networks import Architecture, decoder, encoder


@dataclass(frozen=True)
class GaussianConfig:
    """Hyperparameters of every Gaussian VAE."""

    z: int = option(10, "latent dimensions", paper="10", min=1, max=1024)
    arch: Architecture = option("burgess", "networks, named after their papers; mlp is small and takes vectors")
    likelihood: Literal["bernoulli", "gaussian"] = option(
        "bernoulli", "bernoulli: cross-entropy of pixels in [0, 1]; gaussian: sum of squared errors"
    )
    lr: float = option(5e-4, "learning rate of Adam", paper="5e-4", above=0)


@dataclass(frozen=True)
class VAEConfig(GaussianConfig):
    """Hyperparameters of a VAE whose optimizer can be chosen."""

    optimizer: Literal["adam", "adagrad"] = option("adam", "adagrad: that of the first beta-VAE, with --lr 1e-2")


def optimizer(config: Any) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """The optimizer factory that `optimizer` and `lr` of a config name. Adagrad's learning rate is constant."""
    if config.optimizer == "adam":
        return adam(config.lr)
    # Of what Adagrad keeps only its step counter lies on the host, and without decay nothing depends on it.
    return lambda parameters: light(torch.optim.Adagrad, parameters, lr=config.lr, foreach=parameters[0].is_cuda)


@dataclass
class Bound:
    """One batch seen by a Gaussian VAE.

    mean, logvar: of q(z|x), `[n, z]`. z: one sample of it. output: the decoder's, `[n, *shape]`.
    reconstruction: -log p(x|z), sum over pixels, mean over the batch, nats, scalar.
    kl: KL(q(z_j|x) || N(0, 1)) of each dimension, mean over the batch, nats, `[z]`.
    """

    mean: Tensor
    logvar: Tensor
    z: Tensor
    output: Tensor
    reconstruction: Tensor
    kl: Tensor


G = TypeVar("G", bound=GaussianConfig, default=GaussianConfig)


class GaussianVAE(Method[G]):
    """Base of the VAEs with one continuous group `z` and a diagonal Gaussian posterior. It has no objective."""

    data = "dsprites"
    kinds = ("image", "vector")
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 300_000, "batch": 64}

    def __init__(self, config: G, data: DataSpec) -> None:
        super().__init__(config, data)
        check_likelihood(config.likelihood, data)
        self.latents = LatentSpace.of(*self.groups())
        self.encoder = encoder(config.arch, data, self.encoder_outputs())
        self.decoder = decoder(config.arch, data, sum(group.size for group in self.latents))

    def groups(self) -> list[Latent]:
        """The latent groups; a subclass may add to `z`."""
        return [Latent("z", "continuous", self.config.z)]

    def encoder_outputs(self) -> int:
        """Width of the encoder's last layer: a mean and a log variance per dimension, first of all."""
        return 2 * self.config.z

    # The bound

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each `[n, z]`."""
        heads = self.encoder(x)[:, : 2 * self.config.z]
        if heads.dtype == torch.bfloat16:  # under autocast; what follows sums many small terms
            heads = heads.float()
        mean, logvar = heads.chunk(2, dim=1)
        return mean, logvar

    def draw(self, mean: Tensor, logvar: Tensor, step: Step) -> Tensor:
        """One sample of q(z|x), `[n, z]`. The log variance is limited here, and only here, against overflow."""
        return reparameterise(mean, (0.5 * logvar.clamp(-20, 10)).exp(), step.randn(*mean.shape))

    def nll(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x | output) of each item, sum over pixels, `[n]`: nats, or the sum of squared errors."""
        return negative_log_likelihood(self.config.likelihood, output, x, self.spec)

    def values(self, output: Tensor) -> Tensor:
        """The decoder's output as values in the data's range: sigmoid for [0, 1], unchanged for other data."""
        return values(output, self.spec)

    def batch_bound(self, step: Step) -> Bound:
        """Both terms of the bound on the step's batch, logged as `reconstruction` and `kl`.

        A subclass whose loss calls this may declare `taps = ("code",)`.
        """
        x = step.batch["x"]
        mean, logvar = self.infer(x)
        z = self.draw(mean, logvar, step)
        output = self.decoder(z)
        reconstruction, kl = self.nll(output, x).mean(), kl_to_prior(mean, logvar).mean(0)
        step.log("reconstruction", reconstruction)
        step.log("kl", kl)
        if "code" in self.taps:
            step.tap("code", mean)
        return Bound(mean, logvar, z, output, reconstruction, kl)

    # The trained model

    def encode(self, x: Tensor) -> Code:
        return {"z": self.infer(x)[0]}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        mean, logvar = self.infer(x)
        return {"z": (mean, (0.5 * logvar).exp())}

    def bound(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`elbo` = -(reconstruction + kl) of each item, nats, and both: `[n]` and `[n, z]`.

        Raises UsageError with the likelihood `gaussian`, whose reconstruction is no number of nats.
        """
        require_nats(self.config.likelihood)
        mean, logvar = self.infer(x)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = reparameterise(mean, (0.5 * logvar.clamp(-20, 10)).exp(), noise)
        reconstruction, kl = self.nll(self.decoder(z), x), kl_to_prior(mean, logvar)
        return {"elbo": -(reconstruction + kl.sum(1)), "reconstruction": reconstruction, "kl": kl}

    def decode(self, code: Code) -> Tensor:
        return self.values(self.decoder(torch.cat([code[group.name] for group in self.latents], 1)))


def require_nats(likelihood: str) -> None:
    """Raise UsageError for the likelihood `gaussian`, a sum of squared errors without its constant and variance."""
    if likelihood != "bernoulli":
        raise UsageError("with --likelihood gaussian the reconstruction is a sum of squared errors: there is no bound.")


def check_likelihood(likelihood: str, data: DataSpec) -> None:
    """Raise ValueError for a Bernoulli likelihood of data that do not lie in [0, 1]."""
    low, high = data.range
    if likelihood == "bernoulli" and (low < 0 or high > 1):
        raise ValueError(
            f"values must lie in [0, 1] for the Bernoulli likelihood, and this data goes from {low:g} to {high:g}: "
            "use --likelihood gaussian or rescale"
        )


def negative_log_likelihood(likelihood: str, output: Tensor, x: Tensor, data: DataSpec) -> Tensor:
    """-log p(x | output) of each item, sum over pixels, `[n]`: cross-entropy in nats, or the sum of squared errors."""
    if likelihood == "bernoulli":
        return bernoulli_nll(output, x)
    return (values(output, data) - x).pow(2).flatten(1).sum(1)


def values(output: Tensor, data: DataSpec) -> Tensor:
    """A decoder's output as values in the data's range: sigmoid for [0, 1], unchanged for other data."""
    return output.sigmoid() if data.range == (0.0, 1.0) else output
