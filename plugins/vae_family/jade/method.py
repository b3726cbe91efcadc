"""JADE: Joint Autoencoders for Dis-Entanglement (arXiv 1711.09163, NIPS 2017 workshop), and its two baselines.

A data set with few labels (primary, x) is learnt together with a larger one of the same classes in another style
(secondary, y). Two VAEs split content from style, one shared classifier reads only the content halves, and the content
posteriors of an x and a y of one class are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import TypeVar

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, UsageError, adam, one_hot, option
from distk.console import warn_once
from distk.nn import bernoulli_nll, kl_between, kl_to_prior, reparameterise

PRIMARY, SECONDARY = (3, 32, 32), (1, 28, 28)
"""Shapes that the networks are made for."""
_DEMO_MODEL = {"width": 0.25, "hidden": 100, "dropout": 0.2, "lr": 2e-3}
_DEMO_DATA = {"name": "class-pairs", "difficulty": "easy", "secondary_size": 3000, "test": 1000}


@dataclass(frozen=True)
class BaselineConfig:
    """Hyperparameters of the classifiers."""

    width: float = option(1.0, "multiplies the widths of all convolutions but the last", paper="1", above=0, max=16)
    hidden: int = option(500, "width of the classifier's three hidden layers", paper="500", min=1, max=65536)
    dropout: float = option(0.5, "share of hidden units dropped", paper="0.5", min=0, max=0.95)
    lr: float = option(1e-3, "learning rate of Adam at the beginning", above=0)
    lr_final: float = option(1e-5, "learning rate at the horizon, reached along a cosine", above=0)
    horizon: int | None = option(None, "steps that the schedules are made for; default: those of the run", min=1)


@dataclass(frozen=True)
class Config(BaselineConfig):
    """Hyperparameters of JADE."""

    content: int = option(10, "content dimensions, which the classifier reads", paper="10", min=1, max=1024)
    style: int = option(10, "style dimensions", paper="10", min=1, max=1024)
    alpha_cls: float = option(100.0, "weight a of the classification terms", paper="not given (1)", min=0)
    match_weight: float = option(1.0, "weight m of the matching term", paper="not given (1)", min=0)
    match: Literal["forward", "reverse", "symmetric"] = option(
        "forward", "KL(primary || secondary), KL(secondary || primary), or the mean of both", paper="forward"
    )
    kl_warmup: float = option(
        0.5, "share of the horizon over which KL and matching terms gain their weight", paper="none (0)", min=0, max=1
    )
    logvar_init: float = option(-4.0, "first value of the log variances' bias", paper="none", min=-8, max=6)


# Networks. Convolutions are 3x3, stride 1, padding 1; pooling is 2x2 and rounds up, so that 28 pixels end at 4.


def _conv(fan_in: int, fan_out: int) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, 3, padding=1)


def encoder(channels: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Images of 25 to 32 pixels -> `[n, outputs]`, linear at the end: a pool after each convolution but the last."""
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        layers += [_conv(channels, width), nn.ReLU()]
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if i < 3 else []
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, outputs))


class Decoder(nn.Module):
    """Code `[n, code]` -> logits `[n, channels, size, size]`.

    first: channels of the 4x4 map that the linear layer makes. widths: of the three convolutions. before: whether each
    is preceded (as for y) or followed (as for x) by nearest upsampling. size: what is cut out of the middle of 32x32.
    """

    def __init__(
        self, code: int, first: int, widths: tuple[int, ...], channels: int, size: int, *, before: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(code, first * 16), nn.ReLU(), nn.Unflatten(1, (first, 4, 4))]
        for i, (fan_in, fan_out) in enumerate(zip((first, *widths), (*widths, channels), strict=True)):
            up = [nn.Upsample(scale_factor=2)] if i < 3 else []
            last = i == len(widths)
            layers += [*(up if before else []), _conv(fan_in, fan_out), *([] if last else [nn.ReLU()])]
            layers += [] if before else up
        self.body = nn.Sequential(*layers)
        self.cut = (32 - size) // 2

    def forward(self, code: Tensor) -> Tensor:
        made = self.body(code)
        return made[:, :, self.cut : 32 - self.cut, self.cut : 32 - self.cut]


class Classifier(nn.Module):
    """The shared classifier: content `[n, k]` -> logits `[n, classes]`; three hidden ReLU layers with dropout."""

    def __init__(self, inputs: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs if i == 0 else hidden, hidden) for i in range(3)])
        self.last, self.dropout = nn.Linear(hidden, classes), dropout

    def forward(self, content: Tensor, step: Step | None = None) -> Tensor:
        """step: where dropout's randomness comes from; None drops nothing."""
        for layer in self.layers:
            content = F.relu(layer(content))
            if step is not None and self.dropout:
                kept = (step.rand(*content.shape) >= self.dropout).to(content.dtype)
                content = content * kept / (1 - self.dropout)
        return self.last(content)


def initialise_(module: nn.Module) -> None:
    """He's normal initialisation of all weights, biases 0, in place.

    torch's own start shrinks the signal by about 2.4 per ReLU layer; behind four of them in the classifier the
    gradient is too weak for content to survive the KL terms (see the method's card).
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def cosine(step: int, horizon: int, first: float, last: float) -> float:
    """From `first` at step 0 to `last` at the horizon and after."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(step / horizon, 1.0)))


# The three methods


B = TypeVar("B", bound=BaselineConfig, default=BaselineConfig)


class _Paired(Method[B]):
    """What all three share: the check of the data, the schedule of the rate, and how they classify."""

    classifier: Classifier
    data = "class-pairs"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 30_000, "batch": 100}

    def __init__(self, config: B, data: DataSpec) -> None:
        super().__init__(config, data)
        if "secondary" not in data.extra:
            raise ValueError(
                "it learns from two data sets: leave --data at class-pairs and name them with --primary, --secondary"
            )
        self.secondary_shape = tuple(data.extra["secondary"])
        for role, shape, wanted in (
            ("primary", data.shape, PRIMARY),
            ("secondary", self.secondary_shape, SECONDARY),
        ):
            if shape != wanted:
                found, needed = ("x".join(map(str, s)) for s in (shape, wanted))
                raise ValueError(f"the {role}'s images are {found}, and {needed} is needed: --resize makes it so")
        self.classes = len(data.classes)

    def widths(self, *full: int) -> tuple[int, ...]:
        """Widths of convolutions at the configured scale."""
        return tuple(max(1, round(self.config.width * n)) for n in full)

    def encoders(self, outputs: int, secondary: bool = True) -> None:
        """CNN_x and CNN_y, each with its bottleneck."""
        self.encoder_x = encoder(3, (*self.widths(64, 96, 64), 8), outputs)
        if secondary:
            self.encoder_y = encoder(1, (*self.widths(32, 32), 16), outputs)

    def of(self, x: Tensor) -> Literal["x", "y"]:
        """Which of the two data sets images belong to, by their shape."""
        return "x" if tuple(x.shape[1:]) == PRIMARY else "y"

    @property
    def horizon(self) -> int:
        """Steps over which the schedules run."""
        return self.config.horizon or self.run_steps or 1

    def schedule(self, step: int) -> dict[str, Any]:
        return {"lr": cosine(step, self.horizon, self.config.lr, self.config.lr_final)}

    def classify(self, x: Tensor) -> Tensor:
        """Images of either data set -> logits `[n, classes]`, from posterior means and without dropout."""
        return self.classifier(self.encode(x)["content"])

    def classification(self, step: Step, content: list[Tensor]) -> Tensor:
        """Sum over the data sets of the mean cross-entropy, nats; one pass through the shared classifier."""
        labels = [step.batch["label"], step.batch["y_label"]][: len(content)]
        logits = self.classifier(torch.cat(content), step).float().split([len(c) for c in content])
        total = content[0].new_zeros((), dtype=torch.float32)
        for name, guess, label in zip("xy", logits, labels, strict=False):
            loss = F.cross_entropy(guess, label)
            step.log(f"classification_{name}", loss)
            step.log(f"error_{name}", (guess.argmax(1) != label).float().mean())
            total = total + loss
        return total


class JadeSingle(_Paired[BaselineConfig]):
    """Baseline: a classifier of the primary alone. Code: `content`, its bottleneck of 10."""

    both: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": _DEMO_MODEL,
            "data": _DEMO_DATA,
            "train": {"steps": 1000, "batch": 32, "log_every": 50},
        },
        "paper": {"data": {"name": "class-pairs", "primary": "svhn", "secondary": "mnist"}},
    }

    def __init__(self, config: BaselineConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        self.latents = LatentSpace.of(Latent("content", "continuous", 10))
        self.encoders(10, self.both)
        self.classifier = Classifier(10, config.hidden, self.classes, config.dropout)
        initialise_(self)
        missing = counterparts(data)
        if self.both and missing:
            warn_once(f"{missing}; jade-paired goes on without pairing")

    def objectives(self) -> list[Objective]:
        return [Objective("classification", self.loss, self.parameters(), adam(self.config.lr))]

    def loss(self, step: Step) -> Tensor:
        """Cross-entropy of the primary, and of the secondary where there is one: mean over the batch, nats."""
        content = [self.encoder_x(step.batch["x"])]
        if self.both:
            content.append(self.encoder_y(step.batch["y"]))
        return self.classification(step, content)

    def encode(self, x: Tensor) -> Code:
        if self.of(x) == "y" and not self.both:
            raise UsageError("jade-single reads images of the primary only; jade-paired and jade read both.")
        return {"content": self.encoder_x(x) if self.of(x) == "x" else self.encoder_y(x)}


class JadePaired(JadeSingle):
    """Baseline: both data sets, their encoders apart, one shared classifier; a batch of each per update."""

    both = True


class Jade(_Paired[Config]):
    """JADE. Code: `content` (z2 of the primary, z4 of the secondary) and `style` (z1, z3).

    `encode` takes images of either data set, told apart by their shape; `decode` makes images of the primary,
    `decode_secondary` of the secondary.
    """

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {**JadeSingle.presets["demo"], "model": {**_DEMO_MODEL, "alpha_cls": 1000.0}},
        # Equations 1 and 2: every term with weight one, no warm-up, nothing said of the first variances.
        "paper": {
            "model": {"alpha_cls": 1.0, "kl_warmup": 0.0, "logvar_init": 0.0},
            "data": {"name": "class-pairs", "primary": "svhn", "secondary": "mnist"},
        },
        "weight-100": JadeSingle.presets["paper"],
    }
    class_content: Tensor
    class_seen: Tensor

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        if missing := counterparts(data):
            raise ValueError(f"{missing}; jade-paired trains without pairs")
        k, total = config.content, config.content + config.style
        self.latents = LatentSpace.of(Latent("content", "continuous", k), Latent("style", "continuous", config.style))
        self.encoders(2 * total)
        self.decoder_x = Decoder(total, 8, self.widths(64, 96, 64), 3, 32, before=False)
        self.decoder_y = Decoder(total, 16, self.widths(32, 32), 1, 28, before=True)
        self.classifier = Classifier(k, config.hidden, self.classes, config.dropout)
        initialise_(self)
        with torch.no_grad():
            for net in (self.encoder_x, self.encoder_y):
                last = net[-1]
                assert isinstance(last, nn.Linear)
                last.bias[total:] = config.logvar_init
        # Running mean of each class's content in either data set, for drawing new images of a class.
        self.register_buffer("class_content", torch.zeros(2, self.classes, k))
        self.register_buffer("class_seen", torch.zeros(self.classes))

    def schedule(self, step: int) -> dict[str, Any]:
        warmup = self.config.kl_warmup * self.horizon
        return {**super().schedule(step), "kl_weight": min(step / warmup, 1.0) if warmup else 1.0}

    # One step

    def objectives(self) -> list[Objective]:
        return [Objective("joint", self.joint, self.parameters(), adam(self.config.lr))]

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), content first, each `[n, content + style]`; images of either data set."""
        net = self.encoder_x if self.of(x) == "x" else self.encoder_y
        mean, logvar = net(x).float().chunk(2, dim=1)
        # Also the lower limit matters: the matching term divides by the variance.
        return mean, logvar.clamp(-8, 6)

    def joint(self, step: Step) -> Tensor:
        """L_x + L_y + m M of equation (1): sums over pixels and dimensions, mean over the pairs, nats."""
        k, weight = self.config.content, step.schedule["kl_weight"]
        total: Tensor | float = 0.0
        means, logvars, content = list[Tensor](), list[Tensor](), list[Tensor]()
        for name in ("x", "y"):
            images = step.batch[name]
            mean, logvar = self.infer(images)
            z = reparameterise(mean, (0.5 * logvar).exp(), step.randn(*mean.shape))
            decoder = self.decoder_x if name == "x" else self.decoder_y
            reconstruction = bernoulli_nll(decoder(z).float(), images).mean()
            kl = kl_to_prior(mean, logvar).mean(0)
            step.log(f"reconstruction_{name}", reconstruction)
            step.log(f"kl_content_{name}", kl[:k].sum())
            step.log(f"kl_style_{name}", kl[k:].sum())
            total = total + reconstruction + weight * kl.sum()
            means, logvars, content = [*means, mean[:, :k]], [*logvars, logvar[:, :k]], [*content, z[:, :k]]
        classification = self.classification(step, content)
        matching = self.matching(means, logvars)
        step.log("matching", matching)
        self._remember(means, step.batch["label"])
        return total + self.config.alpha_cls * classification + weight * self.config.match_weight * matching

    def matching(self, mean: list[Tensor], logvar: list[Tensor]) -> Tensor:
        """M: the KL between the content posteriors of a pair, sum over dimensions, mean over the pairs, nats."""
        forward = kl_between(mean[0], logvar[0], mean[1], logvar[1]).sum(1).mean()
        if self.config.match == "forward":
            return forward
        reverse = kl_between(mean[1], logvar[1], mean[0], logvar[0]).sum(1).mean()
        return reverse if self.config.match == "reverse" else (forward + reverse) / 2

    @torch.no_grad()
    def _remember(self, means: list[Tensor], label: Tensor) -> None:
        member = one_hot(label, self.classes)
        count = member.sum(0)
        rate = torch.where(count > 0, (1 / (self.class_seen + 1)).clamp_min(0.01), 0.0).unsqueeze(1)
        for held, mean in zip(self.class_content, means, strict=True):
            batch = (member.t().unsqueeze(2) * mean.float().unsqueeze(0)).sum(1) / count.clamp_min(1).unsqueeze(1)
            held += rate * (batch - held)
        self.class_seen += (count > 0).float()

    # The trained model

    def encode(self, x: Tensor) -> Code:
        mean, _ = self.infer(x)
        return {"content": mean[:, : self.config.content], "style": mean[:, self.config.content :]}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        mean, logvar = self.infer(x)
        k, std = self.config.content, (0.5 * logvar).exp()
        return {"content": (mean[:, :k], std[:, :k]), "style": (mean[:, k:], std[:, k:])}

    def decode(self, code: Code) -> Tensor:
        return self.decoder_x(torch.cat([code["content"], code["style"]], 1)).sigmoid()

    def decode_secondary(self, code: Code) -> Tensor:
        """Code -> images of the secondary `[n, 1, 28, 28]` in [0, 1]."""
        return self.decoder_y(torch.cat([code["content"], code["style"]], 1)).sigmoid()

    def sample(self, n: int, generator: torch.Generator, **given: int) -> Tensor:
        """Images of the primary from the prior; with `label`, their content is the mean posterior of that class."""
        return self.decode(self.drawn(n, generator, given.get("label"), "x"))

    def drawn(self, n: int, generator: torch.Generator, label: int | None, of: Literal["x", "y"]) -> Code:
        """Codes `[n]` from the prior, the content that of a class where one is named."""
        code = self.prior(n, generator)
        if label is not None:
            code["content"] = self.class_content[0 if of == "x" else 1, label].expand(n, -1)
        return code


def counterparts(data: DataSpec) -> str:
    """Which class lacks a counterpart in the other data set, as the beginning of a sentence; empty where none does."""
    first, second = (list(data.extra.get(f"{role}_classes", ())) for role in ("primary", "secondary"))
    alone = [name for name in [*first, *second] if (name in first) != (name in second)]
    if not alone:
        return ""
    sets = (f"{role} has classes {{{', '.join(s)}}}" for role, s in (("primary", first), ("secondary", second)))
    return f"{', '.join(sets)}: class {alone[0]} has no counterpart"
