"""Manipulation of sentiment by traversal (Larsson, Nilsson & Kågebäck, NIPS workshop 2017).

A convolutional network reads a sentence as a code z, a recurrent one writes it out of z again, and a linear classifier
reads the label from z. Training has two phases: writing text without labels, then writing and classifying together:

    1   -log p(x | z)                        mean over words
    2   -log p(x | z) - log p(label | z)     unweighted

So the codes of two labels come to lie in two clouds. A trained code is moved from the one to the other by the witness
function of the maximum mean discrepancy under a budget (`solver.py`), and what it has become is written out.

The paper names neither optimizer, rate nor length of the phases, nor the kernel's variance: they are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Objective, Source, Step, adam, option
from distk.console import counted, note, warn
from distk.plugins.text.common import decode as search
from distk.plugins.text.common.model import SentenceMethod
from distk.plugins.text.common.networks import Windows, full
from distk.plugins.text.common.vectors import read_vectors
from distk.plugins.text.common.vocab import PAD, UNK, lengths, shifted
from distk.plugins.text.mmdtraverse.examples import draw_examples
from distk.plugins.text.mmdtraverse.solver import Moved, Witness, bandwidth, move, witness


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the code has filters times heights numbers, and so many units has the GRU."""

    embedding: int = option(300, "size of a word's vector", paper="300", min=1, max=8192)
    filters: int = option(75, "filters of each height", paper="75", min=1, max=8192)
    heights: tuple[int, ...] = option((1, 2, 3, 4), "words that a filter sees", paper="1,2,3,4", min=1, max=100)
    z_every_step: bool = option(False, "the decoder reads z beside every word, not only as its first state")
    vectors: str = option(
        "", "word2vec file, text or binary, that the words' vectors begin with", paper="word2vec", place=True
    )
    word_dropout: float = option(
        0.0, "share of the decoder's input words that are hidden while it trains", min=0, max=1
    )
    phase1: int = option(4300, "steps of the first phase, on text without labels", min=0)
    generation: float = option(1.0, "weight of writing in the second phase", paper="1", min=0)
    classification: float = option(
        1.0, "weight of the labels in the second phase; 0: the classifier learns from codes that it cannot change",
        paper="1", min=0,
    )  # fmt: skip
    lr: float = option(1e-3, "learning rate of Adam", above=0)
    clip_norm: float = option(5.0, "largest gradient norm", above=0)
    examples: int = option(90, "training sentences of each label that make its cloud", paper="90", min=2, max=100_000)
    filter_words: tuple[str, ...] = option((), "as many of them with each of these words", paper="movie,phone")
    lambda_move: float = option(7e-5, "lambda: what a squared move costs", paper="7e-5", min=0)
    lambda_rel: float = option(0.0, "lambda as a multiple of 1/(2 sigma); 0: --lambda-move counts", min=0)
    sigma: float = option(0.0, "variance of the kernel; 0: half the median squared distance of the examples", min=0)
    clamp_z: bool = option(False, "moved codes stay at 0 or above, as codes of sentences are")

    def __post_init__(self) -> None:
        if not self.heights or len(set(self.heights)) != len(self.heights):
            raise ValueError("heights must be different numbers, at least one")

    @property
    def width(self) -> int:
        """Numbers of a code."""
        return self.filters * len(self.heights)


class Examples(NamedTuple):
    """The clouds. ids: int64 `[p, T]`. label, place: int64 `[p]`, whose example, and which of that label's. code:
    float64 `[p, h]`."""

    ids: Tensor
    label: Tensor
    place: Tensor
    code: Tensor


class MMDTraverse(SentenceMethod[Config]):
    """Code: `code`, the z of a sentence, and `label`, which is read from it and not told to the decoder."""

    data = "standin-reviews"
    data_defaults: ClassVar[Mapping[str, Any]] = {"balance": False}
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 8000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        "paper": {
            "model": {"filter_words": ("movie", "phone"), "phase1": 156_000},
            "data": {"name": "sentiment3", "uci_per_domain": 500},
            "train": {"steps": 159_600, "batch": 64},
        },
        "demo": {
            "model": {
                "embedding": 32,
                "filters": 16,
                "phase1": 50,
                "lr": 5e-3,
                "filter_words": ("movie", "phone"),
                "lambda_rel": 0.15,
            },
            "data": {"name": "standin-reviews", "variant": "tiny"},
            "train": {"steps": 800, "batch": 32},
        },
    }
    instead: Mapping[str, str] = {
        "sample": "distk transfer",
        "swap": "distk transfer",
        "traverse": "distk mmdtraverse move",
    }
    examples: Tensor

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        vocab, e, h, labels = len(self.vocab), config.embedding, config.width, len(data.classes)
        self.latents = LatentSpace.of(
            Latent("code", "continuous", h), Latent("label", "categorical", labels, walked=False)
        )
        self.embedding = nn.Embedding(vocab, e)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.windows = Windows(e, config.filters, config.heights, nn.ReLU())
        self.classifier = nn.Linear(h, labels)
        self.gru = nn.GRU(e + h * config.z_every_step, h, batch_first=True)
        self.output = nn.Linear(h, vocab)
        # Their words, not their codes: codes would be those of an encoder that has learnt on since.
        self.register_buffer("examples", torch.zeros(labels, config.examples, data.shape[0], dtype=torch.long))

    # Training

    def objectives(self) -> list[Objective]:
        config, step = self.config, adam(self.config.lr)
        own = [p for name, p in self.named_parameters() if not name.startswith("classifier.")]
        first, then = (0, config.phase1), (config.phase1, None)
        return [
            Objective("autoencode", self.autoencode, own, step, fresh_batch=True, window=first, clip=config.clip_norm),
            Objective(
                "joint", self.joint, self.parameters(), step, fresh_batch=True, window=then, clip=config.clip_norm
            ),
        ]

    def before_step(self, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Before the first step: the clouds' sentences are drawn, by the run's seed, and words get their vectors."""
        if step > 0:
            return
        config = self.config
        if 0 < self.run_steps <= config.phase1:
            warn(
                f"the whole run, {counted(self.run_steps, 'step')}, lies in the first phase (--phase1 "
                f"{config.phase1:,}): the"
                " classifier learns nothing, and there will be no two clouds to move codes between"
            )
        self.examples.copy_(self.drawn(None))
        if config.vectors:
            drawn = int(torch.randint(1 << 31, ()))  # words without one start at random, by the run's seed
            found = read_vectors(Path(config.vectors), self.vocab, config.embedding, seed=drawn)
            note(
                f"vectors of {counted(found.found, 'word')} from '{config.vectors}', {counted(found.missing, 'word')}"
                " have none there"
            )
            with torch.no_grad():
                self.embedding.weight.copy_(found.values)

    def drawn(self, generator: torch.Generator | None) -> Tensor:
        """Sentences of the training data for the clouds, int64 `[K, n, max_len + 1]`; see `draw_examples`."""
        return draw_examples(self.dataset(), self.vocab, self.config.examples, self.config.filter_words, generator)

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """In the first phase text of the split `unsup`, where the data have one."""
        if objective == "autoencode" and "unsup" in source.dataset.splits:
            return dataclasses.replace(source, split="unsup").sample()
        return source.sample()

    def autoencode(self, step: Step) -> Tensor:
        """Phase 1: -log p(x | z), see `generation_loss`."""
        x = step.batch["x"]
        loss = self.generation_loss(step, x, self.read_code(x))
        step.log("generation", loss)
        return loss

    def joint(self, step: Step) -> Tensor:
        """Phase 2: generation and classification together; the latter is a mean over sentences, nats."""
        config, x, label = self.config, step.batch["x"], step.batch["label"]
        z = self.read_code(x)
        logits = full(self.classifier(z if config.classification else z.detach()))
        classification = F.cross_entropy(logits, label)
        step.log("classification", classification)
        step.log("accuracy", (logits.argmax(1) == label).float().mean())
        total = (config.classification or 1.0) * classification
        if config.generation:
            generation = self.generation_loss(step, x, z)
            step.log("generation", generation)
            total = total + config.generation * generation
        return total

    def generation_loss(self, step: Step, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x | z) with the true words as input, mean over words and `<eos>` of the batch, nats."""
        given = shifted(x)
        if self.config.word_dropout:
            hidden = step.rand(*x.shape) < self.config.word_dropout
            given = given.masked_fill(hidden & (given > UNK), UNK)
        logits = self.output(self.states(given, z))
        return F.cross_entropy(full(logits).flatten(0, 1), x.flatten(), ignore_index=PAD)

    # Networks

    def read_code(self, x: Tensor) -> Tensor:
        """Token ids `[n, T]` -> z `[n, h]`, 0 or above: filters over the words, without `<eos>`, the largest of each.

        Whatever padding follows, z is the same.
        """
        return self.windows(self.embedding(x), (lengths(x) - 1).clamp_min(0))

    def states(self, given: Tensor, z: Tensor) -> Tensor:
        """The decoder's states `[n, T, h]` from input words `[n, T]`; its first state is z."""
        read = self.embedding(given)
        if self.config.z_every_step:
            read = torch.cat([read, z[:, None].expand(-1, given.shape[1], -1)], 2)
        return self.gru(read, z[None].contiguous())[0]

    def write(self, z: Tensor, beam: int = 1) -> Tensor:
        """Codes `[n, h]` as sentences: token ids `[n, max_len + 1]`."""

        def step(token: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            own, h = state
            read = self.embedding(token)
            if self.config.z_every_step:
                read = torch.cat([read, own], 1)
            h = self.gru(read[:, None], h[None].contiguous())[0][:, 0]
            return self.output(h), (own, h)

        return search.best(step, (z, z), len(z), self.spec.shape[0], beam, z.device)

    # The trained model

    def encode(self, x: Tensor) -> Code:
        z = self.read_code(x)
        return {"code": z, "label": full(self.classifier(z)).softmax(1)}

    def decode(self, code: Code, beam: int = 1) -> Tensor:
        """Code -> token ids `[n, max_len + 1]`; the label stands in `code` itself."""
        return self.write(code["code"], beam)

    @torch.no_grad()
    def restore(self, sentences: list[str], beam: int = 1, batch: int = 512) -> list[str]:
        """Sentences read and written again, their codes unmoved, one for one."""
        parts = [sentences[i : i + batch] for i in range(0, len(sentences), batch)]
        return [line for part in parts for line in self.text(self.write(self.read_code(self.read(part, False)), beam))]

    @torch.no_grad()
    def clouds(self, examples: Tensor | None = None) -> Examples:
        """The codes of the examples as the encoder now reads them. examples: other ones, int64 `[K, n, T]`.

        A model that has not begun to train draws some of its data.
        """
        ids = self.examples if examples is None else examples
        if not bool(ids.any()):
            ids = self.drawn(torch.Generator().manual_seed(0))
        there = (ids != PAD).any(2)
        label, place = (at for at in there.nonzero().T)
        ids = ids[there]
        code = torch.cat([self.read_code(part) for part in ids.split(512)])
        return Examples(ids, label, place, code.double())

    def witness(
        self,
        x: Tensor,
        present: Tensor,
        to: Tensor,
        clouds: Examples,
        sigma: float | None = None,
        sizes: tuple[int, int] | None = None,
    ) -> Witness:
        """f* of sentences x `[n, T]` from the cloud of labels `present` int64 `[n]` to that of `to` int64 `[n]`.

        Where both are the same, the source is all other labels. A sentence that is an example itself is no part of its
        source, where it would be held fast. sigma: None is as the model was set, 0 follows from the examples. sizes:
        examples of a label in a source and in a target; default: all.
        """
        ids = F.pad(x, (0, clouds.ids.shape[1] - x.shape[1]))
        same = torch.cat([(part[:, None] == clouds.ids).all(2) for part in ids.split(64)])
        at = (present == to)[:, None]
        own = (clouds.label == present[:, None]) ^ at  # the label itself, or all others
        target = clouds.label == to[:, None]
        if sizes is not None:
            own, target = own & (clouds.place < sizes[0]), target & (clouds.place < sizes[1])
        variance = self.config.sigma if sigma is None else sigma
        return witness(clouds.code, own & ~same, target, self.widths(own | target, clouds, variance))

    @staticmethod
    def widths(chosen: Tensor, clouds: Examples, sigma: float) -> Tensor:
        """The kernel's variance for rows whose sets are `chosen`, bool `[n, p]`: float64 `[n]`."""
        if sigma or not len(chosen):
            return clouds.code.new_full((len(chosen),), sigma)
        kinds, which = chosen.unique(dim=0, return_inverse=True)
        return torch.stack([bandwidth(clouds.code[kind]) for kind in kinds])[which]

    def cost(self, f: Witness, weight: float | None = None, relative: float | None = None) -> Tensor:
        """lambda of every row, float64 `[n]`, as given or as the model was set; relative: times 1/(2 sigma)."""
        if weight is None and relative is None:
            weight, relative = self.config.lambda_move, self.config.lambda_rel or None
        return torch.full_like(f.sigma, weight or 0.0) if relative is None else relative / (2 * f.sigma)

    def moved(self, z: Tensor, f: Witness, cost: Tensor, start: Tensor | None = None) -> tuple[Tensor, Moved]:
        """Codes z* `[n, h]` that the decoder takes, and how they came about."""
        found = move(f, z.double(), cost, start)
        return self.landed(z, found), found

    def landed(self, z: Tensor, found: Moved) -> Tensor:
        """z* = z + u of codes z `[n, h]`, in their dtype."""
        end = z.double() + found.u
        return (end.clamp_min(0) if self.config.clamp_z else end).to(z.dtype)

    def rewrite_ids(self, x: Tensor, source: Tensor | None, to: int, beam: int) -> Tensor:
        code = self.encode(x)
        present = code["label"].argmax(1) if source is None else source
        f = self.witness(x, present, torch.full_like(present, to), self.clouds())
        return self.write(self.moved(code["code"], f, self.cost(f))[0], beam)
