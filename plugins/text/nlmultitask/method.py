"""Multi-task autoencoders of sentences (Brunner, Wang, Wattenhofer & Weigelt 2018, "Natural Language Multitasking").

One encoder reads an English sentence character by character; a dense layer makes its last state the representation r;
from r alone each decoder writes its own sequence: REP the sentence again, DE and FR its translation, POS a tag for each
word (section 3, Figure 1). The loss is the sum over the decoders of

    -1/|y_d| sum_t log p_d(y_dt | y_d1 ... y_d,t-1, r)

so that whatever helps a task must be in r; nothing else is asked of it. The paper asks whether tasks of syntax make r a
code of syntax. It names no optimizer, no rate, no batch and no activation of the dense layer: these are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, UsageError, adam, option
from distk.console import counted, warn
from distk.data import names_of
from distk.plugins.text.common.networks import full
from distk.plugins.text.common.vocab import PAD, UNK, Vocab
from distk.plugins.text.nlmultitask.networks import Decoder, Encoder

TASKS = ("rep", "de", "fr", "pos")
"""The decoders of the paper: REP reads its targets from `x`, the others from the column of their name."""
MANY_UNKNOWN = 0.02
"""Share of unknown characters in what a user types from which on a warning says so."""


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the paper gives the units, the sizes of the representation and the decoders."""

    decoders: tuple[str, ...] = option(("rep", "de", "pos"), "the tasks: rep always, with any of de, fr, pos")
    rep: int = option(256, "size of the representation", paper="256 or 1024", min=1, max=65_536)
    rep_act: Literal["tanh", "none"] = option("tanh", "activation of the representation")
    state: Literal["h", "hc"] = option("h", "what of the encoder's state is read: hidden state, or the cell's with it")
    hidden: int = option(512, "units of the encoder and of each decoder", paper="512", min=1, max=8192)
    embedding: int = option(64, "size of a symbol's embedding, in the encoder and in each decoder", min=1, max=8192)
    one_hot: bool = option(False, "one-hot symbols instead of embeddings")
    lr: float = option(1e-3, "learning rate of Adam at the first step", above=0)
    lr_last: float = option(1e-4, "learning rate at the last step; half a cosine lies between", above=0)
    clip_norm: float = option(1.0, "largest gradient norm", above=0)
    shuffled: tuple[str, ...] = option((), "decoders that learn other sentences' targets, to see what a task is for")
    blind: bool = option(False, "decoders get zeros for the representation: language models to compare with")

    def __post_init__(self) -> None:
        for name in (*self.decoders, *self.shuffled):
            if name not in TASKS:
                raise ValueError(f"there is no decoder '{name}'; decoders are {names_of(TASKS)}")
        if "rep" not in self.decoders or len(set(self.decoders)) < len(self.decoders):
            raise ValueError("decoders must name rep, which writes the sentence again, and each one once")
        if missing := [name for name in self.shuffled if name not in self.decoders]:
            raise ValueError(f"shuffled names the decoder '{missing[0]}', which decoders does not")


def _paper(decoders: str, rep: int) -> dict[str, Any]:
    """A model of Table 1: ten passes over 1.5 million sentences, which is ours."""
    return {
        "model": {"decoders": tuple(decoders.split(",")), "rep": rep, "hidden": 512},
        "data": {"name": "europarl", "tagger": "auto" if "pos" in decoders else "none"},
        "train": {"steps": 58_600, "batch": 256},
    }


class NlMultitask(Method[Config]):
    """Code: `code`, the representation r. Its latents carry no class and have no prior."""

    kinds: ClassVar[tuple[str, ...]] = ("sentence",)
    data = "standin-trilingual"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 20_000, "batch": 256}
    presets: ClassVar[Mapping[str, Any]] = {
        "paper": _paper("rep,de,pos", 256),
        "REP-1024": _paper("rep", 1024),
        "REP-DE-1024": _paper("rep,de", 1024),
        "REP-DE-FR-1024": _paper("rep,de,fr", 1024),
        "REP-DE-256": _paper("rep,de", 256),
        "REP-DE-POS-256": _paper("rep,de,pos", 256),
        "multi30k": {"model": {"decoders": ("rep", "de", "fr")}, "data": {"name": "multi30k"}},
        "small": {
            "model": {"hidden": 128, "rep": 64, "embedding": 32, "lr": 3e-3, "lr_last": 3e-4},
            "train": {"steps": 3000, "batch": 64},
        },
        "demo": {
            "model": {
                "decoders": ("rep", "pos"),
                "hidden": 128,
                "rep": 64,
                "embedding": 32,
                "lr": 3e-3,
                "lr_last": 3e-4,
            },
            "data": {"name": "standin-trilingual", "variant": "short"},
            "train": {"steps": 2500, "batch": 64},
        },
    }
    taps: ClassVar[tuple[str, ...]] = ("code",)
    instead: Mapping[str, str] = {
        "sample": "distk nlmultitask interpolate",
        "transfer": "distk nlmultitask translate",
        "swap": "distk nlmultitask arithmetic",
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.vocab = Vocab.from_spec(data)
        if data.shape != (self.vocab.max_len + 1,):
            raise ValueError(f"rows of {data.shape} symbols do not fit sentences of {self.vocab.max_len}")
        self.alphabets = {name: self._alphabet(name) for name in config.decoders}
        embedding = 0 if config.one_hot else config.embedding
        self.encoder = Encoder(len(self.vocab), embedding, config.hidden, config.state)
        self.representation = nn.Linear(self.encoder.width, config.rep)
        self.decoders = nn.ModuleDict(
            {name: Decoder(len(held), embedding, config.hidden, config.rep) for name, held in self.alphabets.items()}
        )
        bounded = config.rep_act == "tanh"
        self.latents = LatentSpace.of(
            Latent("code", "continuous", config.rep, prior="uniform" if bounded else "normal", low=-1.0, high=1.0)
        )

    def _alphabet(self, name: str) -> Vocab:
        """The symbols of a decoder. Raises UsageError, saying how to get them, for data that have none."""
        columns = self.spec.extra.get("columns", {})
        if name == "rep":
            return self.vocab
        if isinstance(columns, Mapping) and isinstance(columns.get(name), Mapping) and "vocab" in columns[name]:
            return Vocab.from_dict(columns[name])
        has = f"has only {names_of(list(columns))}" if columns else "has English alone"
        if name == "pos":
            raise UsageError(
                f"decoder 'pos' needs tags, and the data {has}: give a file of tags (train.pos, or the last column of "
                "train.tsv), or add --tagger auto (textblob where it is installed, else built-in rules) or "
                "--tagger-file FILE (made by `distk text train-tagger`); or leave pos out of --decoders."
            )
        raise UsageError(
            f"decoder '{name}' needs a column '{name}', and the data {has}: leave it out of --decoders, or take data "
            "with that language."
        )

    # Training

    def objectives(self) -> list[Objective]:
        config = self.config
        return [Objective("multitask", self.loss, self.parameters(), adam(config.lr), clip=config.clip_norm)]

    def schedule(self, step: int) -> dict[str, Any]:
        first, last = self.config.lr, self.config.lr_last
        share = min(1.0, step / self.run_steps) if self.run_steps else 0.0
        return {"lr": last + (first - last) * (1 + math.cos(math.pi * share)) / 2}

    def loss(self, step: Step) -> Tensor:
        """Sum over the decoders of their mean cross-entropy per symbol, nats; each one is logged under its name."""
        code = self.represent(step.batch["x"])
        step.tap("code", code)
        losses = []
        for name in self.config.decoders:
            target = self.target(step.batch, name)
            if name in self.config.shuffled:
                target = target.roll(1, 0)
            total, count = self.nll(name, target, code)
            losses.append(total / count.clamp_min(1))
            step.log(name, losses[-1])
        return torch.stack(losses).sum()

    def target(self, batch: Mapping[str, Tensor], name: str) -> Tensor:
        """What a decoder shall write, ids int64 `[n, T]` with `<eos>`; padding alone for a sentence without it."""
        return batch["x" if name == "rep" else name]

    def nll(self, name: str, target: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(target | code) with the true symbols as input, summed over symbols and sentences, nats; and the number
        of these symbols, `<eos>` counted, padding not."""
        logits = full(self.decoders[name](target, self.told(code)))
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum")
        return loss, (target != PAD).sum()

    # Networks

    def represent(self, x: Tensor) -> Tensor:
        """Ids int64 `[n, T]` -> r, float `[n, rep]`."""
        r = self.representation(self.encoder(x))
        return r.tanh() if self.config.rep_act == "tanh" else r

    def told(self, code: Tensor) -> Tensor:
        """What decoders get to know of the code: all of it, or with `blind` nothing."""
        return code * 0.0 if self.config.blind else code

    # The trained model

    def encode(self, x: Tensor) -> Code:
        """Ids int64 `[n, T]` -> `code`."""
        return {"code": self.represent(x)}

    def decode(self, code: Code) -> Tensor:
        """What the REP decoder writes, ids int64 `[n, max_len + 1]`."""
        return self.write(code["code"], "rep")

    def write(self, code: Tensor, decoder: str) -> Tensor:
        """What a decoder writes from codes `[n, rep]`, greedily: ids int64 `[n, its longest + 1]`.

        Raises UsageError, naming those that there are, for a decoder that the model has not.
        """
        if decoder not in self.decoders:
            raise UsageError(f"this model has no decoder '{decoder}'; it has {names_of(self.config.decoders)}.")
        chosen = cast(Decoder, self.decoders[decoder])
        return chosen.write(self.told(code), self.alphabets[decoder].max_len + 1)

    def text(self, items: Tensor) -> list[str]:
        """Ids int64 `[n, T]` of sentences as lines."""
        return self.vocab.lines(items)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.representation.weight.device

    def tokens(self, sentences: list[str]) -> Tensor:
        """As `read`."""
        return self.read(sentences)

    def read(self, sentences: Sequence[str]) -> Tensor:
        """Lines as ids int64 `[n, max_len + 1]`, on the model's device; an empty line is `<eos>` alone.

        Warns about sentences that are cut, and about characters that the model does not know where they are many.
        """
        split = [self.vocab.words(line) for line in sentences]
        if long := sum(len(line) > self.vocab.max_len for line in split):
            warn(f"cut after {self.vocab.max_len} {self.unit}: {counted(long, 'longer sentence')}")
        x = self.vocab.pad(split, self.device, self.vocab.max_len + 1)
        unknown, every = int((x == UNK).sum()), max(1, int((x > UNK).sum() + (x == UNK).sum()))
        if unknown > MANY_UNKNOWN * every:
            warn(f"{unknown:,} of {every:,} {self.unit} are unknown to the model ({unknown / every:.0%})")
        return x

    @property
    def unit(self) -> str:
        """What a symbol of a sentence is called."""
        return "characters" if self.vocab.unit == "char" else "words"

    @torch.no_grad()
    def codes(self, sentences: Sequence[str], batch: int = 512) -> Tensor:
        """Representations of sentences, float `[n, rep]`."""
        parts = [self.represent(x) for x in self.read(sentences).split(batch) if len(x)]
        return torch.cat(parts) if parts else torch.zeros(0, self.config.rep, device=self.device)

    @torch.no_grad()
    def lines(self, code: Tensor, decoder: str = "rep", batch: int = 512) -> list[str]:
        """What a decoder writes from codes `[n, rep]`, as lines."""
        if decoder not in self.decoders:
            self.write(code, decoder)  # says which decoders there are
        alphabet = self.alphabets[decoder]
        return [line for part in code.split(batch) for line in alphabet.lines(self.write(part, decoder))]
