"""iVAE (Khemakhem et al. 2020): prior and posterior depend on an observed label."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distk import Code, Dataset, DataSpec, Step, UsageError, one_hot
from distk.nn import bernoulli_nll, gaussian_kl_between, mlp
from distk_outside.vae import VAE, Config


class IVAE(VAE[Config]):
    """The posterior of `x` and its label; the prior of the label."""

    data = "digits"
    reads = ("x", "label")

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.classes = len(data.classes)
        self.conditions = {"label": self.classes}
        self.told = mlp((max(1, self.classes), config.hidden, 2 * config.z))
        self.spread = nn.Parameter(torch.zeros(max(1, self.classes), 2, config.z))

    def accepts(self, dataset: Dataset) -> None:
        if not dataset.spec.classes:
            raise UsageError(f"iVAE learns from labels, and data set '{dataset.name}' has none.")

    def gaussians(self, x: Tensor, label: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Posterior and prior, each mean and standard deviation `[n, z]`."""
        (mean, std), label = self.gaussian(x), one_hot(label, self.classes)
        shift, scale = self.told(label).chunk(2, 1)
        prior = torch.einsum("nk,kpz->pnz", label, self.spread)
        return (mean + shift, std * scale.tanh().exp()), (prior[0], prior[1].clamp(-5, 5).exp())

    def elbo(self, step: Step) -> Tensor:
        x = step.batch["x"]
        (mean, std), (prior_mean, prior_std) = self.gaussians(x, step.batch["label"])
        z = mean + std * step.randn(len(mean), self.config.z)
        nll = bernoulli_nll(self.decoder(z), x.flatten(1)).mean()
        return nll + gaussian_kl_between(mean, std, prior_mean, prior_std).sum(1).mean()

    def encode_batch(self, batch: Mapping[str, Tensor]) -> Code:
        return {"z": self.gaussians(batch["x"], batch["label"])[0][0]}

    def posterior_batch(self, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        return {"z": self.gaussians(batch["x"], batch["label"])[0]}

    def sample(self, n: int, generator: torch.Generator, **given: int) -> Tensor:
        label = (torch.rand(n, generator=generator, device=generator.device) * self.classes).long()
        if "label" in given:
            label = torch.full_like(label, given["label"])
        prior = self.spread[label]
        noise = torch.randn(n, self.config.z, generator=generator, device=generator.device)
        return self.decode({"z": prior[:, 0] + prior[:, 1].clamp(-5, 5).exp() * noise})
