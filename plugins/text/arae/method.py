"""ARAE: adversarially regularised autoencoder for unaligned style transfer (Zhao, Kim, Zhang, Rush & LeCun, 2017).

An autoencoder of sentences with one decoder per label. A code classifier drives the label out of the code, so that
another label's decoder can put its own in; a WGAN critic holds the codes against those of a generator, which learns to
write sentences from noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Objective, Source, Step, UsageError, adam, one_hot, option, sgd
from distk.console import warn_once
from distk.nn import gradient_penalty, interpolated
from distk.plugins.text.common import decode as search
from distk.plugins.text.common.model import SentenceMethod
from distk.plugins.text.common.networks import (
    CodeDecoder,
    CodeEncoder,
    Perceptron,
    by_parts,
    full,
    log_likelihood,
    uniform_,
)
from distk.plugins.text.common.vocab import PAD, shifted


@dataclass(frozen=True)
class Config:
    """Hyperparameters of ARAE; where the paper is silent, those of its program (June 2018)."""

    embedding: int = option(128, "size of a word's embedding", min=1, max=8192)
    hidden: int = option(128, "units of the LSTMs, the size of the code", min=1, max=8192)
    z: int = option(32, "size of the generator's noise", min=1, max=8192)
    generator_widths: tuple[int, ...] = option((128, 128), "hidden layers of the generator", min=1, max=8192)
    critic_widths: tuple[int, ...] = option((128, 128), "hidden layers of the critic", min=1, max=8192)
    classifier_widths: tuple[int, ...] = option((128, 128), "hidden layers of the code classifier", min=1, max=8192)
    share_output: bool = option(True, "the decoders share the layer onto the vocabulary")
    init: Literal["torch", "uniform"] = option(
        "torch",
        "first weights of autoencoder: torch's own (learns in a third of the steps), or U(-0.1, 0.1)",
        paper="uniform (code)",
    )
    critic_bn: bool = option(False, "batch norm in the second layer of critic and classifier, as the program has it")
    noise: float = option(
        0.1, "standard deviation of the noise on the code in reconstruction", paper="0.1 (code)", min=0
    )
    noise_anneal: float = option(0.9995, "its factor per 100 steps", paper="0.9995 (code)", above=0, max=1)
    lambda1: float = option(1.0, "weight of the critic in the encoder; 0 trains no critic and no generator", min=0)
    lambda2: float = option(1.0, "weight of the classifier in the encoder; 0 trains none", paper="1", min=0)
    warmup: int = option(
        0, "steps over which lambda1 and lambda2 rise from 0; keeps an encoder from hiding everything at first", min=0
    )
    critic: Literal["clip", "gp"] = option(
        "clip", "what bounds the critic: clipping or a gradient penalty", paper="clip"
    )
    clip_eps: float = option(0.01, "largest critic weight; lambda1 means nothing without it", paper="0.01", above=0)
    gp_weight: float = option(0.1, "weight of the gradient penalty", paper="0.1 (code)", min=0)
    critic_updates: int = option(5, "critic steps per step", paper="5 (code)", min=1, max=100)
    classifier_updates: int = option(5, "code classifier steps per step", paper="1", min=1, max=100)
    adv_form: Literal["flip", "negate", "uniform"] = option(
        "flip",
        "encoder against classifier: flipped labels (uniform beyond two), minus its loss, or uniform",
        paper="flip",
    )
    normalize_adv_grad: float = option(
        0.0, "rescale the critic's gradient on the codes to this share of the reconstruction's; 0: off", min=0
    )
    ae_optimizer: Literal["adam-joint", "sgd"] = option(
        "adam-joint", "one Adam step on the summed gradient, or a step of SGD for each loss", paper="sgd"
    )
    lr_ae: float | None = option(None, "learning rate of the autoencoder; default 1e-3, with sgd 1", paper="1", above=0)
    clip_norm: float = option(1.0, "largest gradient norm of the autoencoder", paper="1 (code)", above=0)
    lr_generator: float = option(1e-4, "learning rate of the generator", paper="1e-4 (code)", above=0)
    lr_critic: float = option(1e-4, "learning rate of the critic", paper="1e-4 (code)", above=0)
    lr_classifier: float = option(3e-3, "learning rate of the code classifier", paper="1e-4 (code)", above=0)


def _paper(**weights: float) -> dict[str, Any]:
    """The paper's settings with these weights of the adversarial (lambda1) and the classifier's term (lambda2)."""
    known = {"init": "uniform", "ae_optimizer": "sgd", "classifier_updates": 1, "lr_classifier": 1e-4}
    return {"model": {**known, **weights}, "data": {"name": "yelp"}}


class ARAE(SentenceMethod[Config]):
    """Code: `code`, a unit vector without the label, and `label`, which chooses the decoder."""

    data = "standin-reviews"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 69_000, "batch": 128}
    least_batch = 2  # the generator's layers are normalised over the batch
    presets: ClassVar[Mapping[str, Any]] = {
        "ae": {"model": {"lambda1": 0.0, "lambda2": 0.0}},
        "ae+cls": {"model": {"lambda1": 0.0, "lambda2": 1.0}},
        "lambda-a": {"model": {"lambda1": 1.0}},
        "lambda-b": {"model": {"lambda1": 10.0}},
        "large": {"model": {"embedding": 500, "hidden": 500, "z": 64}, "train": {"batch": 512}},
        "paper": _paper(lambda1=1.0),
        # The rows of Table 1 with its settings; the values of lambda_a and lambda_b are not printed and are ours.
        "paper-ae": _paper(lambda1=0.0, lambda2=0.0),
        "paper-ae+cls": _paper(lambda1=0.0, lambda2=1.0),
        "paper-lambda-a": _paper(lambda1=1.0),
        "paper-lambda-b": _paper(lambda1=10.0),
        "demo": {
            "model": {
                "embedding": 32,
                "hidden": 64,
                "z": 16,
                "lambda2": 3.0,
                "warmup": 1000,
                "lr_ae": 4e-3,
                "noise": 0.02,
            },
            "data": {"name": "standin-reviews", "variant": "tiny"},
            "train": {"steps": 1000, "batch": 64},
        },
    }
    instead: Mapping[str, str] = {"traverse": "distk text interpolate"}

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        vocab, e, h = len(self.vocab), config.embedding, config.hidden
        self.labels = len(data.classes)
        self.latents = LatentSpace.of(Latent("code", "continuous", h), Latent("label", "categorical", self.labels))
        self.encoder = CodeEncoder(vocab, e, h)
        self.decoders = nn.ModuleList(CodeDecoder(vocab, e, h) for _ in range(self.labels))
        self.outputs = nn.ModuleList(nn.Linear(h, vocab) for _ in range(1 if config.share_output else self.labels))
        if config.init == "uniform":
            for part in (self.encoder, self.decoders, self.outputs):
                uniform_(part)
        second: Literal["second", ""] = "second" if config.critic_bn else ""
        self.generator = Perceptron([config.z, *config.generator_widths, h], nn.ReLU(), "all")
        self.critic = Perceptron([h, *config.critic_widths, 1], nn.LeakyReLU(0.2), second)
        scores = 1 if self.labels == 2 else self.labels
        self.classifier = Perceptron([h, *config.classifier_widths, scores], nn.ReLU(), second)

    # Networks

    def output(self, label: int) -> nn.Module:
        """The layer onto the vocabulary of one label's decoder."""
        return self.outputs[0 if self.config.share_output else label]

    def f(self, code: Tensor) -> Tensor:
        """The critic: codes `[n, h]` -> `[n]`; never in bf16, which its weights of 0.01 would not survive."""
        with torch.autocast(code.device.type, enabled=False):
            return self.critic(code.to(next(self.critic.parameters()).dtype)).squeeze(1)

    def label_logits(self, code: Tensor) -> Tensor:
        """The code classifier p_u: codes `[n, h]` -> `[n, K]`. With two labels one score s stands for (0, s)."""
        score = self.classifier(code)
        return torch.cat([torch.zeros_like(score), score], 1) if self.labels == 2 else score

    # Algorithm 1

    def objectives(self) -> list[Objective]:
        config, joint = self.config, self.config.ae_optimizer == "adam-joint"
        phi, w, u = (list(part.parameters()) for part in (self.encoder, self.critic, self.classifier))
        psi = [*self.decoders.parameters(), *self.outputs.parameters()]
        rate = config.lr_ae or (1e-3 if joint else 1.0)
        step = adam(rate) if joint else sgd(rate)
        # Separate Adam steps would make lambda1 and lambda2 meaningless: Adam undoes the scale of each loss.
        clip, stage = config.clip_norm, "autoencoder" if joint else None
        own, alone = (None, None) if joint else (step, clip)  # joint: added to the reconstruction's gradient
        betas = (0.5, 0.999)
        rebuild = Objective("reconstruction", self.reconstruction, [*phi, *psi], step, stage, clip=clip)
        learn, fool, last = [], [], []
        if config.lambda1:
            after = self.clamp if config.critic == "clip" else None
            rounds = config.critic_updates
            learn += [
                Objective(
                    "critic",
                    self.critic_loss,
                    w,
                    adam(config.lr_critic, betas),
                    updates=rounds,
                    after=after,
                    compiles=config.critic == "clip",
                )
            ]
            fool += [Objective("critic_adv", self.critic_adv, phi, own, stage, clip=alone)]
            theta = self.generator.parameters()
            last = [Objective("generator", self.generator_loss, theta, adam(config.lr_generator, betas))]
        if config.lambda2:
            rounds, rate = config.classifier_updates, config.lr_classifier
            learn += [Objective("code_classifier", self.classifier_loss, u, adam(rate), None, rounds)]
            fool += [Objective("classifier_adv", self.classifier_adv, phi, own, stage, clip=alone)]
        # Joint, the adversaries learn first: the cycle is the same, and the encoder passes the batch once.
        return [*learn, rebuild, *fool, *last] if joint else [rebuild, *learn, *fool, *last]

    def schedule(self, step: int) -> dict[str, Any]:
        ramp = min(1.0, step / self.config.warmup) if self.config.warmup else 1.0
        return {"noise": self.config.noise * self.config.noise_anneal ** (step // 100), "ramp": ramp}

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """The autoencoder's batch (one length bucket), and `fresh`, all sentences that the adversaries will see.

        The critic gets sentences of all lengths: those of one bucket against the generator's would differ by length.
        """
        self.balanced(source)
        batch = source.sample()
        fewest = min(getattr(source.dataset, "counts", (source.batch,)))
        if fewest < 2 * source.batch / self.labels:
            warn_once(f"a label has only {fewest} training sentences, less than two batches: use a smaller --batch")
        config = self.config
        rounds = max(config.critic_updates * (config.lambda1 > 0), config.classifier_updates * (config.lambda2 > 0))
        if config.ae_optimizer == "sgd":
            rounds += 1 if config.lambda1 or config.lambda2 else 0  # algorithm 1 draws a new batch for its step 3
        if rounds:
            fresh = dataclasses.replace(source, bucket=None).sample(source.batch * rounds)
            batch |= {"fresh": fresh["x"], "fresh_label": fresh["label"]}
        return batch

    def codes(self, step: Step) -> Tensor:
        """The adversaries' codes of this step `[rounds, n, h]`, in one pass, without a gradient: phi stands still."""
        if "codes" not in step.memo:
            with torch.no_grad():
                step.memo["codes"] = self.encoder(step.batch["fresh"]).unflatten(0, (-1, len(step.batch["x"])))
        return step.memo["codes"]

    def turn(self, step: Step, who: str) -> int:
        """0, 1, 2, ... as an adversary asks again within one step."""
        step.memo[who] = step.memo.get(who, -1) + 1
        return step.memo[who]

    def reconstruction(self, step: Step) -> Tensor:
        """1: -log p(x | c + noise, y), mean over the tokens of all labels, nats."""
        x, label = step.batch["x"], step.batch["label"]
        code = self.encoder(x)
        step.memo["code"], step.memo["label"] = code, label
        code = _watched(code, step.memo, "reconstruction")
        noisy = code + step.schedule["noise"] * step.randn(*code.shape)
        return self.nll(x, noisy)

    def nll(self, x: Tensor, code: Tensor) -> Tensor:
        """Mean negative log-likelihood per token of rows of which row i goes to decoder i mod K, nats."""
        inputs, k = shifted(x), self.labels
        states = [self.decoders[y](inputs[y::k], code[y::k])[0] for y in range(k)]
        if self.config.share_output:
            logits = self.output(0)(torch.cat(states))
        else:
            logits = torch.cat([self.output(y)(s) for y, s in enumerate(states)])
        target = torch.cat([x[y::k] for y in range(k)])
        return F.cross_entropy(full(logits).flatten(0, 1), target.flatten(), ignore_index=PAD)

    def fake(self, step: Step, n: int) -> Tensor:
        """Codes of the generator `[n, h]`."""
        return self.generator(step.randn(n, self.config.z))

    def critic_loss(self, step: Step) -> Tensor:
        """2: minus W = E f(c) - E f(c~); the critic maximises W."""
        real = self.codes(step)[self.turn(step, "critic")]
        with torch.no_grad():
            fake = self.fake(step, len(real))
        w = self.f(real).mean() - self.f(fake).mean()
        step.log("W", w)
        if self.config.critic == "clip":
            return -w
        return -w + self.config.gp_weight * self.gradient_penalty(real, fake, step.rand(len(real), 1))

    def gradient_penalty(self, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        """mean (|grad f(c^)| - 1)^2 at c^ = share real + (1 - share) fake, row by row.

        The sum over rows is differentiated: the program's batch mean would divide each row's gradient by n.
        """
        between = interpolated(real, fake, share)
        return gradient_penalty(self.f(between), between).mean()

    @torch.no_grad()
    def clamp(self) -> None:
        """Every weight of the critic into [-eps, eps]."""
        weights: list[Tensor] = list(self.critic.parameters())
        torch._foreach_clamp_min_(weights, -self.config.clip_eps)
        torch._foreach_clamp_max_(weights, self.config.clip_eps)

    def classifier_loss(self, step: Step) -> Tensor:
        """2b: -log p_u(y | c), the code held fixed."""
        turn = self.turn(step, "classifier")
        code, label = self.codes(step)[turn], step.batch["fresh_label"].view(-1, len(step.batch["x"]))[turn]
        logits = self.label_logits(code)
        step.log("code_accuracy", (logits.argmax(1) == label).float().mean())
        return F.cross_entropy(logits, label)

    def against(self, step: Step) -> tuple[Tensor, Tensor]:
        """Codes, with gradient, and labels for step 3: the autoencoder's own (joint), or a new batch (algorithm 1)."""
        if self.config.ae_optimizer == "sgd":
            n = len(step.batch["x"])
            return self.encoder(step.batch["fresh"][-n:]), step.batch["fresh_label"][-n:]
        return step.memo["code"], step.memo["label"]

    def critic_adv(self, step: Step) -> Tensor:
        """3, phi: lambda1 E f(c), so that real codes come to look like the generator's."""
        code = _rescaled(self.against(step)[0], step, self.config.normalize_adv_grad)
        return self.config.lambda1 * step.schedule["ramp"] * self.f(code).mean()

    def classifier_adv(self, step: Step) -> Tensor:
        """3b, phi: lambda2 times -log p_u(1 - y | c); other forms see `adv_form`."""
        code, label = self.against(step)
        return self.config.lambda2 * step.schedule["ramp"] * self.confusion(self.label_logits(code), label)

    def confusion(self, logits: Tensor, label: Tensor) -> Tensor:
        """What the encoder minimises against classifier logits `[n, K]`, mean over rows, nats."""
        if self.config.adv_form == "negate":
            return -F.cross_entropy(logits, label)
        if self.config.adv_form == "uniform" or self.labels > 2:
            return -logits.log_softmax(1).mean()
        return F.cross_entropy(logits, 1 - label)

    def generator_loss(self, step: Step) -> Tensor:
        """3, theta: -E f(c~)."""
        return -self.f(self.fake(step, len(step.batch["x"]))).mean()

    # The trained model

    def encode(self, x: Tensor) -> Code:
        """`label` is Bayes' rule over the decoders: p(y | x, c) with equal priors and p(x | c, y) of decoder y."""
        code = self.encoder(x)
        return {"code": code, "label": by_parts(self.fit, len(self.vocab), x, code).softmax(1)}

    def fit(self, x: Tensor, code: Tensor) -> Tensor:
        """log p(x | c, y) of every label, sum over tokens, nats: `[n, K]`."""
        inputs, found = shifted(x), []
        for y, decoder in enumerate(self.decoders):
            found.append(log_likelihood(self.output(y)(decoder(inputs, code)[0]), x))
        return torch.stack(found, 1)

    def decode(self, code: Code, beam: int = 1) -> Tensor:
        """Code -> token ids `[n, max_len + 1]`, by the decoder of the most probable label."""
        label = code["label"].argmax(1)
        out = torch.full((len(label), self.spec.shape[0]), PAD, device=label.device)
        for y in range(self.labels):
            rows = (label == y).nonzero()[:, 0]
            if len(rows):
                out[rows] = self.write(code["code"][rows], y, beam)
        return out

    def write(self, code: Tensor, label: int, beam: int = 1) -> Tensor:
        """Codes `[n, h]` as sentences of one label's decoder: token ids `[n, max_len + 1]`."""
        decoder, output, n = self.decoders[label], self.output(label), len(code)

        def step(token: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Any]:
            own, h, c = state
            states, (h, c) = decoder(
                token[:, None], own, (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous())
            )
            return output(states[:, 0]), (own, h.transpose(0, 1), c.transpose(0, 1))

        zero = code.new_zeros(n, 1, self.config.hidden)
        return search.best(step, (code, zero, zero), n, self.spec.shape[0], beam, code.device)

    def rewrite_ids(self, x: Tensor, source: Tensor | None, to: int, beam: int) -> Tensor:
        return self.write(self.encoder(x), to, beam)

    def generate(self, z: Tensor) -> Tensor:
        """Noise `[n, z]` -> codes `[n, h]`. Raises UsageError for a model without a trained generator."""
        if not self.config.lambda1:
            raise UsageError(
                "this model was trained with lambda1 = 0, so its generator was not trained: it cannot sample."
            )
        return self.generator(z)

    def prior(self, n: int, generator: torch.Generator) -> Code:
        """`n` codes g(z) and labels, each equally probable."""
        code = self.generate(torch.randn(n, self.config.z, generator=generator, device=generator.device))
        label = torch.randint(self.labels, (n,), generator=generator, device=generator.device)
        return {"code": code, "label": one_hot(label, self.labels)}


def _watched(code: Tensor, memo: dict[str, Any], name: str) -> Tensor:
    """The same code; the norm of the gradient that comes back through it is kept as `memo[name + "_norm"]`."""
    if not code.requires_grad:
        return code
    code = code.view_as(code)
    code.register_hook(lambda g: memo.__setitem__(f"{name}_norm", g.detach().norm()))
    return code


def _rescaled(code: Tensor, step: Step, share: float) -> Tensor:
    """The same code; the critic's gradient through it is logged against the reconstruction's, and with `share` > 0
    brought to `share` times its norm."""
    if not code.requires_grad or "reconstruction_norm" not in step.memo:
        return code
    target, code = step.memo["reconstruction_norm"], code.view_as(code)

    def hook(gradient: Tensor) -> Tensor | None:
        norm = gradient.norm()
        step.log("adversary_ratio", norm / target.clamp_min(1e-12))
        return gradient * (share * target / norm.clamp_min(1e-12)) if share else None

    code.register_hook(hook)
    return code
