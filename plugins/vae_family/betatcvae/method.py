"""beta-TCVAE: the KL term split in three, of which only the total correlation is pressed.

Chen et al., NeurIPS 2018, "Isolating Sources of Disentanglement in VAEs" (arXiv 1802.04942), equation (4):
the mean of KL(q(z|x) || p(z)) over the data = I(z; x) + TC(z) + sum_j KL(q(z_j) || p(z_j)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from distk import Objective, Step, UsageError, option
from distk.console import counted
from distk.nn import log_normal
from distk.plugins.vae_family.gaussian import GaussianVAE, VAEConfig, optimizer

LARGEST = 1 << 26
"""Elements of the tensor of densities that are held at once; larger batches are taken in parts, twice computed."""


@dataclass(frozen=True)
class Config(VAEConfig):
    """Hyperparameters of beta-TCVAE."""

    beta: float = option(6.0, "weight of the total correlation", paper="6", min=0)
    alpha: float = option(1.0, "weight of the index-code mutual information", paper="1", min=0)
    gamma: float = option(1.0, "weight of the dimension-wise KL", paper="1", min=0)
    estimator: Literal["mws", "mss"] = option("mws", "of q(z): minibatch weighted or stratified sampling")
    dataset_size: int | None = option(None, "items N of the training data; default: counted", min=2)
    lr: float = option(1e-3, "learning rate of Adam", paper="1e-3 (code)", above=0)


class BetaTCVAE(GaussianVAE[Config]):
    """beta-TCVAE: reconstruction + alpha MI + beta TC + gamma DWKL."""

    taps = ("code",)
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 150_000, "batch": 256}
    least_batch = 2  # an item's density is held against those of the others
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"z": 4, "arch": "mlp", "lr": 3e-3, "beta": 30.0},
            "data": {"name": "blobs", "size": 32},
            "train": {"steps": 1000, "batch": 64, "log_every": 50},
        },
        # 50 passes over dSprites in batches of 2048, as in the published program.
        "paper": {"train": {"steps": 18_000, "batch": 2048}},
    }

    def objectives(self) -> list[Objective]:
        self.items = self.config.dataset_size or self._count()
        return [Objective("loss", self.elbo, self.parameters(), optimizer(self.config))]

    def _count(self) -> int:
        """Items of the training split. Raises UsageError for data that have no number of items."""
        try:
            dataset = self.dataset()
            rows = dataset.rows("train")
            return len(dataset) if rows is None else len(rows)
        except (KeyError, NotImplementedError, TypeError, UsageError):
            raise UsageError(
                "betatcvae weighs densities by the number of training items, which this data does not tell: "
                "give --dataset-size N."
            ) from None

    def elbo(self, step: Step) -> Tensor:
        """Sum over pixels, mean over the batch, nats."""
        config, bound = self.config, self.batch_bound(step)
        # The density of z is that of what `draw` drew from, limits included.
        mi, tc, dwkl = decompose(bound.z, bound.mean, bound.logvar.clamp(-20, 10), config.estimator, self.items)
        for name, value in (("mi", mi), ("tc", tc), ("dwkl", dwkl)):
            step.log(name, value)
        return bound.reconstruction + config.alpha * mi + config.beta * tc + config.gamma * dwkl


def decompose(
    z: Tensor, mean: Tensor, logvar: Tensor, estimator: str, items: int, largest: int = LARGEST
) -> tuple[Tensor, Tensor, Tensor]:
    """Mutual information, total correlation and dimension-wise KL of a batch: scalars, nats, means over the batch.

    z: a sample of each posterior, `[n, d]`. mean, logvar: of the posteriors, `[n, d]`. items: N of the training data.
    Whatever the estimator, their sum is the mean of log q(z|x) - log p(z).
    Raises UsageError for a batch of one item, or one of more items than MSS allows.
    """
    n = len(z)
    if n < 2:
        raise UsageError("betatcvae holds each item against the others of its batch: give --batch 2 or more.")
    own = log_normal(z, mean, logvar).sum(1)
    prior = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    weights = None if estimator == "mws" else stratified_weights(n, items, z).log()
    chunk = max(1, largest // (n * z.shape[1]))
    parts = []
    for start in range(0, n, chunk):
        rows = slice(start, start + chunk)
        part = None if weights is None else weights[rows]
        arguments = (z[rows], mean, logvar, part, items)
        # In parts the densities are not kept for the backward pass but computed again.
        parts.append(
            _marginals(*arguments)
            if chunk >= n
            else checkpoint(_marginals, *arguments, use_reentrant=False, preserve_rng_state=False)
        )
    joint, product = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return (own - joint).mean(), (joint - product).mean(), (product - prior).mean()


def _marginals(z: Tensor, mean: Tensor, logvar: Tensor, weights: Tensor | None, items: int) -> tuple[Tensor, Tensor]:
    """log q(z) and sum_j log q(z_j) of rows `[r, d]` against the posteriors `[n, d]`, each `[r]`.

    weights: log importance weights `[r, n]`; None is minibatch weighted sampling, 1 / (n N) each.
    """
    density = log_normal(z.unsqueeze(1), mean.unsqueeze(0), logvar.unsqueeze(0))
    if weights is None:
        constant = math.log(len(mean) * items)
        joint = density.sum(2).logsumexp(1) - constant
        return joint, (density.logsumexp(1) - constant).sum(1)
    joint = (density.sum(2) + weights).logsumexp(1)
    return joint, (density + weights.unsqueeze(2)).logsumexp(1).sum(1)


def stratified_weights(n: int, items: int, like: Tensor) -> Tensor:
    """Importance weights of minibatch stratified sampling `[n, n]` (appendix C.2); every row sums to 1.

    Row i weighs the posteriors of the batch as a sample of all N: its own by 1/N, another one by (N - M) / (N M) and
    the rest by 1/M, M = n - 1. Which other one is of no matter, because the batch is drawn at random.
    Raises UsageError when the batch has more items than the data and one.
    """
    others = n - 1
    if items < others:
        raise UsageError(
            f"--estimator mss takes batches of at most {counted(items + 1, 'item')} from {items}: lower --batch."
        )
    place = torch.arange(n, device=like.device)
    behind = (place.unsqueeze(0) - place.unsqueeze(1)) % n
    weights = torch.full((n, n), 1 / others, dtype=like.dtype, device=like.device)
    weights = weights.masked_fill(behind == 1, (items - others) / (items * others))
    return weights.masked_fill(behind == 0, 1 / items)
