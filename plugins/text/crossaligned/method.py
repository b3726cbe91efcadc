"""Cross-aligned autoencoder (Shen, Lei, Barzilay & Jaakkola, NIPS 2017, arXiv 1705.09655).

One encoder and one generator for both labels y. Content is z = E(x, y); the generator begins with the state [w(y); z].
Two discriminators align populations, not sentences: D_k looks at the sequence of hidden states of real sentences of
label k, read with teacher forcing, and of sentences of the other label that the generator rewrites into k, letting its
own soft words be its input. Where the article and its program differ, the program's settings are the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Objective, Source, Step, adam, option
from distk.nn import call_fake, call_real
from distk.nn.relaxed import relaxed_decode
from distk.plugins.text.common import decode as search
from distk.plugins.text.common.model import SentenceMethod
from distk.plugins.text.common.networks import by_parts, full, log_likelihood
from distk.plugins.text.common.vocab import BOS, PAD, lengths, shifted
from distk.plugins.text.crossaligned.networks import StateCritic, glorot_, reversed_words, shuffled


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the defaults are the program's."""

    embedding: int = option(100, "size of a word's embedding", paper="100", min=1, max=8192)
    style: int = option(200, "units that the label fills", paper="200", min=1, max=8192)
    content: int = option(500, "units of z, the content", paper="500", min=1, max=8192)
    filters: int = option(128, "filters of each height in a discriminator", paper="128", min=1, max=8192)
    heights: int = option(5, "filters look at 1 to so many states", paper="5", min=1, max=32)
    dropout: float = option(
        0.5, "share dropped of recurrent inputs, outputs and pooled features", paper="0.5 (code)", min=0
    )
    rho: float = option(1.0, "weight of the discriminators in encoder and generator; 0 trains none", paper="1", min=0)
    gamma: float = option(0.1, "temperature of the soft words", paper="0.001; 0.1 (code)", above=0)
    gate: float = option(
        1.2, "encoder and generator hear the discriminators while both losses are below", paper="1.2 (code)", min=0
    )
    saturating: bool = option(
        False,
        "encoder and generator lower log(1 - D), as the article has it, instead of -log D",
        paper="yes; no (code)",
    )
    shuffle: int = option(
        3, "words of the encoder's input move by up to so many places; 0: none", paper="3 (code)", min=0
    )
    lr: float = option(5e-4, "learning rate of Adam", paper="5e-4 (code)", above=0)
    clip_norm: float = option(30.0, "largest gradient norm of encoder and generator", paper="30 (code)", above=0)

    def __post_init__(self) -> None:
        if self.dropout >= 1:
            raise ValueError(f"dropout {self.dropout} must be below 1")


class CrossAligned(SentenceMethod[Config]):
    """Code: `code`, the content z of a sentence read under its label, and `label`, which the generator is told."""

    data = "standin-reviews"
    data_defaults: ClassVar[Mapping[str, Any]] = {"exact_lengths": True}
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 83_500, "batch": 128}
    least_batch = 2  # a sentence of either label
    presets: ClassVar[Mapping[str, Any]] = {
        "paper": {"data": {"name": "yelp", "min_count": 5, "max_len": 20}, "train": {"steps": 83_500, "batch": 128}},
        "demo": {
            "model": {
                "embedding": 32,
                "style": 16,
                "content": 64,
                "filters": 16,
                "heights": 3,
                "dropout": 0.0,
                "lr": 4e-3,
                "shuffle": 0,
            },
            "data": {"name": "standin-reviews", "variant": "tiny"},
            "train": {"steps": 2000, "batch": 64},
        },
    }
    instead: Mapping[str, str] = {"sample": "distk transfer", "traverse": "distk interpolate"}
    needs_source = True

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        if len(data.classes) != 2:
            raise ValueError(f"the two populations are those of two labels, and these data have {len(data.classes)}")
        vocab, hidden = len(self.vocab), config.style + config.content
        self.latents = LatentSpace.of(Latent("code", "continuous", config.content), Latent("label", "categorical", 2))
        self.embedding = nn.Embedding(vocab, config.embedding)
        self.label_in, self.label_out = nn.Linear(1, config.style), nn.Linear(1, config.style)
        self.encoder = nn.GRU(config.embedding, hidden, batch_first=True)
        self.generator = nn.GRU(config.embedding, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocab)
        self.drop = nn.Dropout(config.dropout)
        self.critics = nn.ModuleList(
            StateCritic(hidden, config.filters, config.heights, config.dropout) for _ in range(2)
        )
        glorot_(self)
        with torch.no_grad():
            nn.init.uniform_(self.embedding.weight, -0.5, 0.5)
            self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=1))

    # Training

    def objectives(self) -> list[Objective]:
        config, betas = self.config, (0.5, 0.999)
        learn = []
        if config.rho:
            critics = self.critics.parameters()
            learn = [Objective("discriminators", self.discriminate, critics, adam(config.lr, betas))]
        own = [p for name, p in self.named_parameters() if not name.startswith("critics.")]
        return [*learn, Objective("autoencoder", self.rebuild, own, adam(config.lr, betas), clip=config.clip_norm)]

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """A batch of one length whose even rows have label 0 and whose odd rows have label 1."""
        self.balanced(source)
        return source.sample()

    def forward_pass(self, step: Step) -> dict[str, Tensor]:
        """What all objectives of a step share: logits `[n, T, V]` and states of the true sentences, states of the
        rewritten ones, each `[n, 1 + T, h]`. T: words and `<eos>`."""
        if "states" not in step.memo:
            x, y = step.batch["x"], self.told(step.batch["label"])
            order = step.rand(*x.shape) if self.config.shuffle else None
            z = self.content(x, y, order)
            logits, real = self.teacher_forced(x, self.start(y, z))
            step.memo.update(logits=logits, real=real)
            if self.config.rho:
                noise = step.rand(*x.shape, len(self.vocab))
                step.memo["made"] = self.free_running(self.start(1 - y, z), x.shape[1], noise)
            step.memo["states"] = True
        return step.memo

    def discriminate(self, step: Step) -> Tensor:
        """sum over k of -log D_k(states of real sentences of label k) - log(1 - D_k(states of those made for k)).

        Row i has label i mod 2, so D_k reads real states of rows k mod 2 and made ones of the others. Means over rows.
        """
        held = self.forward_pass(step)
        size = lengths(step.batch["x"]) + 1
        losses = []
        for k, critic in enumerate(self.critics):
            real, made = held["real"][k::2].detach(), held["made"][1 - k :: 2].detach()
            loss = call_real(critic(real, size[k::2])).mean() + call_fake(critic(made, size[1 - k :: 2])).mean()
            step.log(f"d{k}", loss)
            losses.append(loss)
        step.memo["open"] = (torch.stack(losses).detach() < self.config.gate).all().float()
        return losses[0] + losses[1]

    def rebuild(self, step: Step) -> Tensor:
        """-log p(x | y, z), sum over words and `<eos>`, mean over sentences, nats; plus, while the gate is open, rho
        times -log D_k of what was made for k, which the program has, or with `saturating` log(1 - D_k)."""
        held, x = self.forward_pass(step), step.batch["x"]
        loss = F.cross_entropy(full(held["logits"]).flatten(0, 1), x.flatten(), ignore_index=PAD, reduction="sum")
        reconstruction = loss / len(x)
        step.log("reconstruction", reconstruction)
        if not self.config.rho:
            return reconstruction
        size = lengths(x) + 1
        seen = [c(held["made"][1 - k :: 2], size[1 - k :: 2]) for k, c in enumerate(self.critics)]
        fooled = [(-call_fake(s) if self.config.saturating else call_real(s)).mean() for s in seen]
        step.log("adversary", fooled[0] + fooled[1])
        step.log("open", step.memo["open"])
        return reconstruction + step.memo["open"] * self.config.rho * (fooled[0] + fooled[1])

    # Networks

    def content(self, x: Tensor, y: Tensor, noise: Tensor | None = None) -> Tensor:
        """z `[n, content]`: the last units of the encoder's state after the words of x in reverse, whatever padding
        follows. y float `[n]`, 0 or 1. noise: uniform `[n, T]`, by which the words are moved first."""
        words = lengths(x) - 1
        if noise is not None:
            x = shuffled(x, words, noise, self.config.shuffle)
        first = torch.cat([self.label_in(y[:, None]), y.new_zeros(len(y), self.config.content)], 1)
        read = self.drop(self.embedding(reversed_words(x, words)))
        states = self.encoder(read, first[None].contiguous())[0]
        last = (words - 1).clamp_min(0)[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, last)[:, 0, self.config.style :]

    def told(self, label: Tensor) -> Tensor:
        """Labels int64 `[n]` as the networks read them: 0.0 or 1.0."""
        return label.to(self.output.weight.dtype)

    def start(self, y: Tensor, z: Tensor) -> Tensor:
        """The generator's first state [w(y); z], `[n, h]`. y float `[n]`."""
        return torch.cat([self.label_out(y[:, None]), z], 1)

    def teacher_forced(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Reading the true words: logits `[n, T, V]`, and states h_0 .. h_T before the dropout, `[n, 1 + T, h]`."""
        states = self.generator(self.drop(self.embedding(shifted(x))), start[None].contiguous())[0]
        return self.output(self.drop(states)), torch.cat([start[:, None], states], 1)

    def free_running(self, start: Tensor, length: int, noise: Tensor) -> Tensor:
        """Reading its own soft words: states h_0 .. h_T, `[n, 1 + T, h]`. noise: uniform `[n, T, V]`."""
        first = self.embedding.weight[BOS].expand(len(start), -1)
        table = self.embedding.weight
        states = relaxed_decode(
            self._advance, start, first, table, length, temperature=self.config.gamma, uniform=noise
        )[1]
        return torch.stack([start, *states], 1)

    def _advance(self, word: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding `[n, E]` of the word before, state `[n, h]` -> logits `[n, V]`, new state."""
        out = self.generator(self.drop(word)[:, None], state[None].contiguous())[0][:, 0]
        return self.output(self.drop(out)), out

    # The trained model

    def encode(self, x: Tensor) -> Code:
        """`label` by Bayes' rule with equal priors: which label explains the sentence best, read under that label;
        `code` is z read under the more probable one."""
        z = [self.content(x, self.told(x.new_full((x.shape[0],), k))) for k in (0, 1)]
        fit = [by_parts(partial(self._fit, label=k), len(self.vocab), x, z[k]) for k in (0, 1)]
        label = torch.stack(fit, 1).softmax(1)
        return {"code": torch.where(label[:, 1:] > 0.5, z[1], z[0]), "label": label}

    def _fit(self, x: Tensor, z: Tensor, label: int) -> Tensor:
        """log p(x | y, z), sum over words, nats `[n]`."""
        return log_likelihood(self.teacher_forced(x, self.start(z.new_full((len(z),), label), z))[0], x)

    def decode(self, code: Code, beam: int = 1) -> Tensor:
        """Code -> token ids `[n, max_len + 1]`, under its more probable label."""
        return self.write(code["code"], code["label"].argmax(1), beam)

    def write(self, z: Tensor, label: Tensor, beam: int = 1) -> Tensor:
        """Contents `[n, content]` as sentences of labels int64 `[n]`: token ids `[n, max_len + 1]`."""

        def step(token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return self._advance(self.embedding(token), state)

        return search.best(step, self.start(self.told(label), z), len(z), self.spec.shape[0], beam, z.device)

    def rewrite_ids(self, x: Tensor, source: Tensor | None, to: int, beam: int) -> Tensor:
        z = self.encode(x)["code"] if source is None else self.content(x, self.told(source))
        return self.write(z, torch.full((len(x),), to, device=x.device), beam)
