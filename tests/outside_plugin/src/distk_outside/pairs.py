"""Ada-GVAE (Locatello et al. 2020) makes its own pairs, SlowVAE (Klindt et al. 2021) is given them."""

from __future__ import annotations

import torch
from torch import Tensor

from distk import Dataset, FactorDataset, Source, Step, UsageError
from distk.nn import bernoulli_nll, gaussian_kl
from distk_outside.vae import VAE, Config


class AdaGVAE(VAE[Config]):
    """Where the two posteriors of a pair are close, both get their mean."""

    data = "blobs"

    def accepts(self, dataset: Dataset) -> None:
        if not isinstance(dataset, FactorDataset) or not dataset.is_grid:
            raise UsageError(f"pairs need every combination of factors, which '{dataset.name}' does not hold.")

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """Pairs that differ in one factor, drawn at random."""
        data = source.dataset
        assert isinstance(data, FactorDataset)

        def make(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            factors, others = (data.sample_factors(n, generator) for _ in range(2))
            which = torch.rand(factors.shape, generator=generator, device=data.device)
            moves = which == which.amax(1, keepdim=True)
            other = torch.where(moves, others, factors)
            return {"x": data.batch(data.index(factors))["x"], "x2": data.batch(data.index(other))["x"]}

        return source.draw(make)

    def elbo(self, step: Step) -> Tensor:
        (m1, s1), (m2, s2) = self.gaussian(step.batch["x"]), self.gaussian(step.batch["x2"])
        apart = gaussian_kl((m1 - m2) / s2, s1 / s2)
        shared = apart < 0.5 * (apart.amax(1, keepdim=True) + apart.amin(1, keepdim=True))
        mean, std = 0.5 * (m1 + m2), (0.5 * (s1.square() + s2.square())).sqrt()
        loss = torch.zeros((), device=mean.device)
        for x, m, s in ((step.batch["x"], m1, s1), (step.batch["x2"], m2, s2)):
            m, s = torch.where(shared, mean, m), torch.where(shared, std, s)
            z = m + s * step.randn(len(m), self.config.z)
            nll = bernoulli_nll(self.decoder(z), x.flatten(1)).mean()
            loss = loss + nll + gaussian_kl(m, s).sum(1).mean()
        return loss


class SlowVAE(VAE[Config]):
    """A Laplace prior on how the code moves from one frame to the next."""

    data = "pairs"
    data_defaults = {"of": "blobs", "near": True}
    reads = ("x", "x2")

    def elbo(self, step: Step) -> Tensor:
        loss = torch.zeros((), device=step.index.device)
        codes = []
        for x in (step.batch["x"], step.batch["x2"]):
            mean, std = self.gaussian(x)
            z = mean + std * step.randn(len(mean), self.config.z)
            loss = loss + bernoulli_nll(self.decoder(z), x.flatten(1)).mean() + gaussian_kl(mean, std).sum(1).mean()
            codes.append(mean)
        return loss + 5 * (codes[0] - codes[1]).abs().sum(1).mean()
