"""Embeddings from class labels: the F-statistic loss (Ridgeway & Mozer 2017; 2018, arXiv 1802.05312) and its rivals.

Every pair of classes shall be separable on a few dimensions of the embedding, with "separable" measured as the
probability that the pair's ANOVA F statistic stays below the observed one when both classes are one. Because the
statistic is taken dimension by dimension, the axes matter, and single dimensions tend to take up single attributes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import TypeVar

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.console import counted, warn_once
from distk.errors import UsageError
from distk.plugins.vae_family.fstat.batches import Labelling, labellings
from distk.plugins.vae_family.fstat.incbeta import log_tails
from distk.plugins.vae_family.fstat.networks import ENCODERS
from distk.source import Source

EPSILON = 1e-12
"""Added to both sums of squares: a collapsed embedding has B = W = 0."""


# Losses. Embeddings z are float [C, n, K]: C classes of n places each, mask float [C, n] with 0 in empty places.


def separation_logits(z: Tensor, mask: Tensor, grand_mean: str = "weighted") -> tuple[Tensor, Tensor]:
    """r = ln B - ln W for every unordered pair of classes and dimension, `[pairs, K]`, and nu `[pairs]`.

    B: sum of squares between the two classes, W within them; x = B / (B + W) = sigmoid(r), and nu B / W is a draw from
    F(1, nu), nu = n_a + n_b - 2, if the classes are one. grand_mean: `weighted` by the sample sizes (exact analysis of
    variance) or `unweighted`, the mean of the class means as in the paper; they agree for classes of one size.
    """
    count = mask.sum(1)
    mean = (z * mask[..., None]).sum(1) / count[:, None]
    within = ((z - mean[:, None]).square() * mask[..., None]).sum(1)
    a, b = torch.triu_indices(len(z), len(z), 1, device=z.device)
    size = count[a] * count[b] / (count[a] + count[b]) if grand_mean == "weighted" else (count[a] + count[b]) / 4
    between = size[:, None] * (mean[a] - mean[b]).square()
    r = (between + EPSILON).log() - (within[a] + within[b] + EPSILON).log()
    return r, count[a] + count[b] - 2


def f_statistic_loss(z: Tensor, mask: Tensor, d: int, grand_mean: str = "weighted") -> tuple[Tensor, Tensor]:
    """-sum over pairs and over their d best separated dimensions of ln P, nats (section 1.1); and ln P `[pairs, d]`.

    The d largest P of a pair are the d largest r: P itself rounds to 1 and would break ties by position.
    """
    r, nu = separation_logits(z, mask, grand_mean)
    if d < r.shape[1]:
        r = r.topk(d, dim=1).values
    log_p, _ = log_tails(r, (nu / 2)[:, None])
    return -log_p.sum(), log_p


def triplet_loss(z: Tensor, mask: Tensor, margin: float) -> Tensor:
    """Mean over all triplets of max(0, D(anchor, positive) + margin - D(anchor, negative)), D squared Euclidean."""
    classes, n, _ = z.shape
    flat, weight = z.flatten(0, 1), mask.flatten()
    total = classes * n
    distance = (flat[:, None] - flat).square().sum(-1)
    item = torch.arange(total, device=z.device)[:, None]
    start = item - item % n
    positive = start + (item - start + torch.arange(1, n, device=z.device)) % n
    negative = (start + n + torch.arange(total - n, device=z.device)) % total
    gap = distance.gather(1, positive)[:, :, None] + margin - distance.gather(1, negative)[:, None]
    counts = weight[item] * weight[positive]
    counts = counts[:, :, None] * weight[negative][:, None]
    return (gap.relu() * counts).sum() / counts.sum()


def pair_similarities(z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of all unordered pairs of items `[pairs]`, and their weights as positive and as negative pairs."""
    classes, n, _ = z.shape
    flat, weight = F.normalize(z.flatten(0, 1), dim=1), mask.flatten()
    i, j = torch.triu_indices(classes * n, classes * n, 1, device=z.device)
    cosine = (flat @ flat.T)[i, j].clamp(-1, 1)
    both, same = weight[i] * weight[j], (i // n == j // n).to(z.dtype)
    return cosine, both * same, both * (1 - same)


def histogram_loss(z: Tensor, mask: Tensor, spacing: float) -> Tensor:
    """P(a negative pair is at least as similar as a positive one), from histograms with linear weights.

    Ustinova & Lempitsky 2016, eq. 2-5. spacing: between the histogram's nodes on [-1, 1].
    """
    cosine, positive, negative = pair_similarities(z, mask)
    nodes = round(2 / spacing) + 1
    place = (cosine + 1) * ((nodes - 1) / 2)
    left = place.detach().floor().long().clamp(0, nodes - 2)  # a cosine of exactly 1 belongs to the last cell
    share = place - left
    held = []
    for weight in (positive, negative):
        weight = weight / weight.sum()
        empty = cosine.new_zeros(nodes)
        held.append(empty.index_add(0, left, weight * (1 - share)).index_add(0, left + 1, weight * share))
    return (held[1] * held[0].cumsum(0)).sum()


def binomial_deviance_loss(z: Tensor, mask: Tensor, alpha: float, beta: float, c: float) -> Tensor:
    """Mean over positive pairs of softplus(-alpha (s - beta)) + mean over negative of softplus(alpha c (s - beta)).

    s: cosine. Yi et al. 2014.
    """
    cosine, positive, negative = pair_similarities(z, mask)
    pulled = (F.softplus(-alpha * (cosine - beta)) * positive).sum() / positive.sum()
    return pulled + (F.softplus(alpha * c * (cosine - beta)) * negative).sum() / negative.sum()


# Methods


@dataclass(frozen=True)
class EmbeddingConfig:
    """Hyperparameters of every embedding."""

    k: int = option(22, "dimensions of the embedding", paper="22 sprites, 500 persons", min=1, max=4096)
    classes_per_batch: int = option(
        12, "classes in a batch (as many as there are, if fewer)", paper="12", min=2, max=4096
    )
    samples_per_class: int = option(10, "images of each class in a batch, at most", paper="10", min=2, max=4096)
    label: Literal["identity", "factors"] = option(
        "identity", "identity: the data's own label; factors: the attributes take turns, a class is a value of one"
    )
    encoder: Literal["auto", "sprite", "person", "mlp"] = option(
        "auto", "network: sprite for images, mlp for vectors; person cuts a picture into three heights"
    )
    hidden: int | None = option(
        None, "width of the hidden layer; default 2048 (sprite), 256 (mlp)", paper="2048", min=1, max=65536
    )
    lr: float = option(1e-4, "learning rate of Adam", paper="1e-4", above=0)
    strict: bool = option(False, "stop at a class with a single image instead of leaving it out")


@dataclass(frozen=True)
class FStatConfig(EmbeddingConfig):
    """Hyperparameters of the F-statistic loss."""

    d: int = option(2, "dimensions on which each pair of classes is to be separated", paper="2 (Fig. 3)")
    grand_mean: Literal["weighted", "unweighted"] = option(
        "weighted",
        "mean of both classes: by sample sizes (exact F statistic) or of the class means",
        paper="unweighted",
    )

    def __post_init__(self) -> None:
        if not 1 <= self.d <= self.k:
            raise ValueError(f"d ({self.d}) must be between 1 and the embedding size ({self.k})")


@dataclass(frozen=True)
class TripletConfig(EmbeddingConfig):
    """Hyperparameters of the triplet loss."""

    margin: float = option(0.1, "by how much a negative is to be farther than a positive, squared distance", min=0)


@dataclass(frozen=True)
class HistogramConfig(EmbeddingConfig):
    """Hyperparameters of the histogram loss."""

    spacing: float = option(0.01, "distance of the histogram's nodes on [-1, 1]", above=0, max=1)


@dataclass(frozen=True)
class BinomialConfig(EmbeddingConfig):
    """Hyperparameters of the binomial deviance loss."""

    alpha: float = option(2.0, "steepness", above=0)
    beta: float = option(0.5, "cosine that parts positive from negative pairs", min=-1, max=1)
    c: float = option(10.0, "how much steeper negative pairs are punished", above=0)


E = TypeVar("E", bound=EmbeddingConfig, default=EmbeddingConfig)


class Embedding(Method[E]):
    """What the four losses share: the encoder, class-balanced batches, one Adam. Code: `z`, continuous.

    distance: how `recall` compares embeddings of this loss, "l2" or "cosine" (paper section 2).
    """

    data = "sprites"
    kinds = ("image", "vector")
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 30_000, "batch": 120}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"hidden": 128, "lr": 5e-4, "classes_per_batch": 8, "samples_per_class": 6},
            "data": {"name": "puppets", "size": 30, "poses": 8},
            "train": {"steps": 600, "batch": 48, "log_every": 50},
        },
        # Section 3: stopped by Recall@1 on a reserved part. How large it is, how often it is looked at and the patience
        # are ours: a fifth of the identities, every 250 steps, 20 times.
        "paper": {
            "data": {"name": "sprites"},
            "train": {
                "steps": 30_000,
                "validation": 0.2,
                "keep": "best:recall:ks=1",
                "eval_every": 250,
                "patience": 20,
            },
        },
    }
    taps = ("code",)
    instead = dict.fromkeys(("sample", "reconstruct", "traverse", "swap", "transfer"), "distk embed")
    distance: ClassVar[str] = "l2"
    name: ClassVar[str] = "fstat"

    def __init__(self, config: E, data: DataSpec) -> None:
        super().__init__(config, data)
        kind = config.encoder if config.encoder != "auto" else "mlp" if data.kind == "vector" else "sprite"
        if (kind == "mlp") != (data.kind == "vector"):
            raise ValueError(f"encoder '{kind}' does not take {data.kind} data")
        self.latents = LatentSpace.of(Latent("z", "continuous", config.k))
        self.encoder = ENCODERS[kind](data, config.k, config.hidden or (256 if kind == "mlp" else 2048))
        self._labellings: list[Labelling] = []
        self._turn = 0

    def objectives(self) -> list[Objective]:
        if self.opens is not None:  # found wanting here, unsuitable labels are told before a run folder exists
            self._prepare(self.dataset())
        return [Objective(self.name, self.loss, self.parameters(), adam(self.config.lr))]

    # Class-balanced batches

    def _prepare(self, dataset: Any, split: Any = "train") -> list[Labelling]:
        if not self._labellings:
            config = self.config
            self._labellings = labellings(dataset, split, config.label, config.strict)
        return self._labellings

    def phase(self, step: int) -> Hashable:
        """Whose turn it is: 0 for identities, the number of an attribute with `--label factors`."""
        return step % max(1, len(self._labellings))

    def before_step(self, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._turn = step

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """Images of several classes, class after class: `x` `[C * n, ...]`; `mask` `[C, n]`, 0 where a class ends."""
        if source.world > 1:
            raise UsageError("a batch of class pairs cannot be split over processes: train in one process.")
        config = self.config
        chosen = self._prepare(source.dataset, source.split)
        labelling = chosen[self._turn % len(chosen)]
        rows, mask = labelling.draw(config.classes_per_batch, config.samples_per_class, source.generator)
        if source.batch not in (len(rows.flatten()), type(self).train_defaults["batch"]):
            warn_once(
                f"--batch {source.batch} has no effect: a batch is {counted(rows.shape[0], 'class', 'classes')} of"
                f" {counted(rows.shape[1], 'image')} (--classes-per-batch, --samples-per-class)"
            )
        return {"x": source.dataset.batch(rows.flatten())["x"], "mask": mask}

    # One step

    def loss(self, step: Step) -> Tensor:
        mask = step.batch["mask"]
        code = self.encoder(step.batch["x"]).float()
        step.tap("code", code)
        z = code.unflatten(0, tuple(mask.shape))
        with torch.no_grad():
            step.log("spread", code.std(0).mean())
        with torch.autocast(z.device.type, enabled=False):
            return self.embedding_loss(z, mask, step)

    def embedding_loss(self, z: Tensor, mask: Tensor, step: Step) -> Tensor:
        """Embeddings `[C, n, K]` and which of them are there `[C, n]` -> what is minimised, a scalar."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> Code:
        return {"z": self.encoder(x)}


class FStat(Embedding[FStatConfig]):
    """F-statistic loss."""

    def embedding_loss(self, z: Tensor, mask: Tensor, step: Step) -> Tensor:
        loss, log_p = f_statistic_loss(z, mask, self.config.d, self.config.grand_mean)
        with torch.no_grad():
            step.log("separated", (log_p.amin(1) > -0.01).float().mean())  # on all of its d dimensions
        return loss


class Triplet(Embedding[TripletConfig]):
    """Triplet loss over all triplets of a batch."""

    name = "triplet"

    def embedding_loss(self, z: Tensor, mask: Tensor, step: Step) -> Tensor:
        return triplet_loss(z, mask, self.config.margin)


class Histogram(Embedding[HistogramConfig]):
    """Histogram loss on the unit sphere."""

    name, distance = "histloss", "cosine"

    def embedding_loss(self, z: Tensor, mask: Tensor, step: Step) -> Tensor:
        return histogram_loss(z, mask, self.config.spacing)


class BinomialDeviance(Embedding[BinomialConfig]):
    """Binomial deviance on the unit sphere."""

    name, distance = "bindev", "cosine"

    def embedding_loss(self, z: Tensor, mask: Tensor, step: Step) -> Tensor:
        return binomial_deviance_loss(z, mask, self.config.alpha, self.config.beta, self.config.c)
