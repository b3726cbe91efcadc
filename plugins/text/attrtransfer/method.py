"""Text attribute transfer (Melnyk, dos Santos, Wadhawan, Padhi & Kumar, NIPS workshop 2017).

One encoder E and one attention decoder G for all labels, and a classifier C that helps them instead of fighting them.
For x of label i and another label j, x_ij = G(E(x, i), j) and x_iji = G(E(x_ij, j), i) are written by sampling; six
losses, one step on all of E, G and C (equation 7):

    rec        -log p_G(x | E(x, i), i)
    cnt_rec    -log p_G(w_r at r' | E(x, i), j), for each noun w_r of x and the step r' that attends to it
    back_rec   -log p_G(x | E(x_ij, j), i)
    class_od   -log p_C(i | x)
    class_td   -log p_C(j | x_ij)
    class_btd  -log p_C(i | x_iji)

The paper prints neither sizes nor rates: they are ours. It conditions cnt_rec on the label of x; the words are those of
the sentence that is written with label j, so j is meant. Sampled words are one-hot forward and have the gradient of
their softmax (straight-through Gumbel softmax), and so has the mark that ends a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from distk import Code, DataSpec, Latent, LatentSpace, Objective, Source, Step, UsageError, adam, one_hot, option
from distk.method import eval_mode
from distk.nn.relaxed import relaxed_decode
from distk.plugins.text.attrtransfer.networks import Decoder, Encoder, LabelClassifier, Memory, Sentence, State
from distk.plugins.text.common import decode as search
from distk.plugins.text.common.model import SentenceMethod
from distk.plugins.text.common.networks import full
from distk.plugins.text.common.vocab import BOS, EOS, PAD, UNK, lengths, shifted


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the paper gives none but that the weights are positive."""

    embedding: int = option(128, "size of a word's embedding", min=1, max=8192)
    hidden: int = option(512, "units of the decoder; each direction of the encoder has half of them", min=2, max=8192)
    filters: int = option(128, "filters of each height in the classifier", min=1, max=8192)
    dropout: float = option(0.5, "share dropped of the classifier's features", min=0)
    lambda_rec: float = option(1.0, "weight of rec", min=0)
    lambda_cnt: float = option(1.0, "weight of cnt_rec", min=0)
    lambda_back: float = option(1.0, "weight of back_rec", min=0)
    lambda_od: float = option(1.0, "weight of class_od", min=0)
    lambda_td: float = option(1.0, "weight of class_td", min=0)
    lambda_btd: float = option(1.0, "weight of class_btd", min=0)
    align: Literal["noun", "step"] = option(
        "noun", "cnt_rec: for each noun the step that attends to it most, or for each step the noun it attends to most"
    )
    noun_stoplist: tuple[str, ...] = option((), "nouns that cnt_rec leaves alone, such as disappointment")
    classifier_td_scale: float = option(1.0, "share of class_td's and class_btd's gradient that C takes", min=0, max=1)
    warmup: int = option(2000, "steps with rec and class_od alone", min=0)
    ramp: int = option(2000, "steps after the warm-up over which lambda_td and lambda_btd grow from 0", min=0)
    soft: bool = option(False, "soft words instead of straight-through ones")
    gumbel: bool = option(True, "sample the words; without, the most probable ones")
    tau_first: float = option(1.0, "temperature at the first step", above=0)
    tau_last: float = option(0.5, "temperature at the last step", above=0)
    lr: float = option(5e-4, "learning rate of Adam", above=0)
    clip_norm: float = option(5.0, "largest gradient norm", above=0)

    def __post_init__(self) -> None:
        if self.dropout >= 1:
            raise ValueError(f"dropout {self.dropout} must be below 1")
        if self.hidden % 2:
            raise ValueError(f"hidden {self.hidden} must be even: each direction of the encoder has half of it")


@dataclass
class Written:
    """What the decoder wrote freely. sentence: its words as rows of weights; logits `[n, L, V]` of each step; attention
    `[n, L, T]` over the source."""

    sentence: Sentence
    logits: Tensor
    attention: Tensor


class AttrTransfer(SentenceMethod[Config]):
    """Code: `memory`, a state for each word of the source, and `label`, which the decoder is told."""

    data = "standin-reviews"
    data_defaults: ClassVar[Mapping[str, Any]] = {"tagger": "auto", "balance": False}
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 140_000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        "paper": {
            "model": {"warmup": 14_000, "ramp": 14_000},
            "data": {"name": "yelp", "min_count": 5, "max_len": 20},
            "train": {"steps": 140_000, "batch": 64},
        },
        "demo": {
            "model": {"embedding": 48, "hidden": 80, "filters": 32, "lr": 2e-3, "warmup": 400, "ramp": 0},
            "data": {"name": "standin-reviews", "variant": "tiny"},
            "train": {"steps": 1500, "batch": 32},
        },
    }
    instead: Mapping[str, str] = {"sample": "distk transfer", "traverse": "distk transfer"}
    needs_source = True
    banned: Tensor
    left_out: Tensor

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        vocab, e, h, labels = len(self.vocab), config.embedding, config.hidden, len(data.classes)
        self.latents = LatentSpace.of(
            Latent("memory", "continuous", h, steps=data.shape[0], scored=False, walked=False),
            Latent("label", "categorical", labels),
        )
        self.embedding = nn.Embedding(vocab, e)
        self.encoder = Encoder(e, h, labels)
        self.decoder = Decoder(e, h, labels, vocab)
        self.classifier = LabelClassifier(vocab, e, config.filters, labels, config.dropout)
        self.register_buffer("banned", torch.tensor([PAD, BOS]), persistent=False)
        left_out = [UNK, *(self.vocab.ids[word] for word in config.noun_stoplist if word in self.vocab.ids)]
        self.register_buffer("left_out", torch.tensor(left_out), persistent=False)

    # Training

    def objectives(self) -> list[Objective]:
        config = self.config
        return [Objective("transfer", self.loss, self.parameters(), adam(config.lr), clip=config.clip_norm)]

    def phase(self, step: int) -> str:
        return "warm-up" if step < self.config.warmup else "joint"

    def schedule(self, step: int) -> dict[str, Any]:
        config = self.config
        ramp = min(1.0, (step - config.warmup) / config.ramp) if config.ramp else 1.0
        share = step / self.run_steps if self.run_steps else 0.0
        return {"ramp": max(0.0, ramp), "tau": config.tau_first + share * (config.tau_last - config.tau_first)}

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """A batch with its nouns; of a split dev as many sentences more, `dev_x` and `dev_label`, that nothing learns.

        Raises UsageError for data that know no nouns, where cnt_rec has a weight.
        """
        batch = source.sample()
        if "dev" in source.dataset.splits:
            dev = replace(source, split="dev", bucket=None).sample()
            batch |= {"dev_x": dev["x"], "dev_label": dev["label"]}
        if self.config.lambda_cnt and "noun" not in batch:
            raise UsageError(
                "attrtransfer keeps nouns, and these data mark none: add --tagger auto, or --lambda-cnt 0."
            )
        return batch

    def loss(self, step: Step) -> Tensor:
        """The weighted sum of the six losses: means over words or nouns for sentences, over sentences for C; nats."""
        config, x, label = self.config, step.batch["x"], step.batch["label"]
        source = self.given(x)
        memory = self.encode_words(source, label)
        losses = {"rec": self.nll(x, memory, label), "class_od": self.class_loss(source, label)}
        weights: dict[str, Any] = {"rec": config.lambda_rec, "class_od": config.lambda_od}
        if step.phase != "warm-up":
            losses |= self.transfer_losses(step, source, memory)
            weights |= {"cnt_rec": config.lambda_cnt, "back_rec": config.lambda_back}
            ramp = step.schedule["ramp"]
            weights |= {"class_td": config.lambda_td * ramp, "class_btd": config.lambda_btd * ramp}
        for name, value in losses.items():
            step.log(name, value)
        if "dev_x" in step.batch:
            step.log("dev_accuracy", self.dev_accuracy(step.batch["dev_x"], step.batch["dev_label"]))
        return torch.stack([weights[name] * value for name, value in losses.items()]).sum()

    def transfer_losses(self, step: Step, source: Sentence, memory: Memory) -> dict[str, Tensor]:
        """The four losses of what the model writes itself; x_ij is written once and serves three of them."""
        config, x, label, labels = self.config, step.batch["x"], step.batch["label"], len(self.spec.classes)
        other = (label + 1 + step.randint(labels - 1, len(x))) % labels
        limit = source.size + 1  # one word more than the source and its `<eos>`
        losses = {}
        there = self.free_running(step, memory, other, limit)
        if config.lambda_cnt:
            noun = step.batch["noun"] & ~torch.isin(x, self.left_out)
            losses["cnt_rec"] = self.content_loss(there, x, noun)
        losses["class_td"] = self.class_loss(there.sentence, other, config.classifier_td_scale)
        if config.lambda_back or config.lambda_btd:
            again = self.encode_words(there.sentence, other)
            losses["back_rec"] = self.nll(x, again, label)
            if config.lambda_btd:
                back = self.free_running(step, again, label, limit)
                losses["class_btd"] = self.class_loss(back.sentence, label, config.classifier_td_scale)
        return losses

    def nll(self, x: Tensor, memory: Memory, label: Tensor) -> Tensor:
        """-log p_G(x | memory, label) with the true words as input, mean over words and `<eos>`, nats."""
        logits = self.teacher_forced(x, memory, label)
        return F.cross_entropy(full(logits).flatten(0, 1), x.flatten(), ignore_index=PAD)

    def class_loss(self, sentence: Sentence, label: Tensor, share: float = 1.0) -> Tensor:
        """-log p_C(label | sentence), mean over sentences, nats. share: of its gradient that C's weights take."""
        if share == 1:
            return F.cross_entropy(self.classifier(*sentence), label)
        own = {name: p.detach() + share * (p - p.detach()) for name, p in self.classifier.named_parameters()}
        return F.cross_entropy(functional_call(self.classifier, own, tuple(sentence)), label)

    def content_loss(self, written: Written, x: Tensor, noun: Tensor) -> Tensor:
        """cnt_rec, mean over the nouns of the batch, nats; 0 without any. noun: bool `[n, T]`.

        `align noun`: of noun r the step r' is the one that attends to it most. `align step`: each step stands for the
        place that it attends to most, if that is a noun.
        """
        log_p = full(written.logits).log_softmax(2)
        alive = written.sentence.alive.detach() > 0
        if self.config.align == "noun":
            at = written.attention.masked_fill(~alive[..., None], -1.0).argmax(1)  # [n, T]
            said = log_p.gather(1, at[..., None].expand(-1, -1, log_p.shape[2]))
            value, counts = said.gather(2, x[..., None])[..., 0], noun
        else:
            at = written.attention.argmax(2)  # [n, L]
            value = log_p.gather(2, x.gather(1, at)[..., None])[..., 0]
            counts = noun.gather(1, at) & alive
        return -value.masked_fill(~counts, 0.0).sum() / counts.sum().clamp_min(1)

    @torch.no_grad()
    def dev_accuracy(self, x: Tensor, label: Tensor) -> Tensor:
        """Share of true sentences `[n, T]` whose label `[n]` C reads. Where it falls after the warm-up, in which C has
        learnt from true sentences alone, C and the decoder have agreed on a sign that no true sentence has."""
        with eval_mode(self.classifier):
            return (self.label_logits(x).argmax(1) == label).float().mean()

    # Networks

    def given(self, x: Tensor) -> Sentence:
        """Token ids `[n, T]` with their `<eos>`."""
        return Sentence(x, (x != PAD).to(self.embedding.weight.dtype), lengths(x))

    def encode_words(self, sentence: Sentence, label: Tensor) -> Memory:
        """What the decoder attends to, of a sentence read under its label int64 `[n]`."""
        return self.encoder(sentence.embedded(self.embedding), sentence, label)

    def teacher_forced(self, x: Tensor, memory: Memory, label: Tensor) -> Tensor:
        """Logits `[n, T, V]` of each word of x, the true words before it as input."""
        return torch.stack([state[3] for state in self.reading(x, memory, label)], 1)

    def reading(self, x: Tensor, memory: Memory, label: Tensor) -> list[State]:
        """The decoder's state at each word of x `[n, T]`, the words before it as input."""
        read, states = self.embedding(shifted(x)), [self.decoder.start(memory, label)]
        for t in range(x.shape[1]):
            states.append(self.decoder.step(read[:, t], states[-1], memory, self.banned)[1])
        return states[1:]

    def free_running(self, step: Step, memory: Memory, label: Tensor, limit: Tensor) -> Written:
        """The decoder on its own words, at most `limit` `[n]` tokens with `<eos>`, and one more than memory is long.

        A place is alive while no `<eos>` stands before it: the product of 1 - row[<eos>], which has the gradient of the
        rows, so that a sentence can be made to end earlier or later.
        """
        length = memory.there.shape[1] + 1

        def advance(word: Tensor, state: State) -> tuple[Tensor, State]:
            return self.decoder.step(word, state, memory, self.banned)

        noise = step.rand(len(label), length, len(self.vocab)) if self.config.gumbel else None
        first = self.embedding.weight[BOS].expand(len(label), -1)
        rows, states = relaxed_decode(
            advance,
            self.decoder.start(memory, label),
            first,
            self.embedding.weight,
            length,
            temperature=step.schedule["tau"],
            uniform=noise,
            hard=not self.config.soft,
        )
        going = [torch.ones_like(rows[:, 0, EOS])]
        for t in range(length - 1):  # `cumprod` asks the host, on its way back, whether a factor is zero
            going.append(going[-1] * (1 - rows[:, t, EOS]))
        alive = torch.stack(going, 1) * (torch.arange(length, device=rows.device) < limit[:, None])
        size = (alive.detach() > 0.5).sum(1)
        sentence = Sentence(rows, alive, size)
        return Written(sentence, torch.stack([s[3] for s in states], 1), torch.stack([s[2] for s in states], 1))

    # The trained model

    def label_logits(self, x: Tensor) -> Tensor:
        """What C reads from token ids: `[n, K]`."""
        return self.classifier(*self.given(x))

    def encode(self, x: Tensor) -> Code:
        """`label` by the classifier; `memory`, read under its most probable label: zero behind the sentence."""
        label = self.label_logits(x).softmax(1)
        states = self.encode_words(self.given(x), label.argmax(1)).states
        return {"memory": F.pad(states, (0, 0, 0, self.spec.shape[0] - x.shape[1])), "label": label}

    def decode(self, code: Code, beam: int = 1) -> Tensor:
        """Code -> token ids `[n, max_len + 1]`, with its most probable label."""
        states = code["memory"]
        there = states.abs().sum(2) > 0
        there[:, 0] = True  # an empty memory is one of zeros
        summary = states.sum(1) / there.sum(1, keepdim=True)
        return self.write(Memory(states, there, summary), code["label"].argmax(1), beam)

    def write(self, memory: Memory, label: Tensor, beam: int = 1) -> Tensor:
        """The most probable words, token ids `[n, max_len + 1]`."""

        def step(token: Tensor, state: Any) -> tuple[Tensor, Any]:
            own, held = state
            logits, own = self.decoder.step(self.embedding(token), own, Memory(*held), self.banned)
            return logits, (own, held)

        start = (self.decoder.start(memory, label), tuple(memory))
        return search.best(step, start, len(label), self.spec.shape[0], beam, label.device)

    def rewrite_ids(self, x: Tensor, source: Tensor | None, to: int, beam: int) -> Tensor:
        label = self.label_logits(x).argmax(1) if source is None else source
        return self.write(self.encode_words(self.given(x), label), torch.full_like(label, to), beam)

    @torch.no_grad()
    def looked(self, x: Tensor, source: Tensor | None, to: int) -> tuple[Tensor, Tensor]:
        """A greedy rewrite: token ids `[n, max_len + 1]`, and at each the attention over x, `[n, max_len + 1, T]`."""
        label = self.label_logits(x).argmax(1) if source is None else source
        memory = self.encode_words(self.given(x), label)
        target = torch.full_like(label, to)
        words = self.write(memory, target)
        return words, torch.stack([state[2] for state in self.reading(words, memory, target)], 1)

    def prior(self, n: int, generator: torch.Generator) -> Code:
        """An empty memory and a label, each equally probable: there is no prior of sentences."""
        memory = torch.zeros(n, *self.latents["memory"].shape, device=generator.device)
        label = torch.randint(len(self.spec.classes), (n,), generator=generator, device=generator.device)
        return {"memory": memory, "label": one_hot(label, len(self.spec.classes))}
