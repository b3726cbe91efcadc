"""InfoGAN: a generator whose codes can be read from its images (Chen et al., NIPS 2016), here also as an encoder.

The generator's input is split into noise n and codes c; a recognition network Q, on the critic's features, is trained
to recover c from G(n, c), which bounds the mutual information of codes and images from below:

    I(c; G(n, c)) >= H(c) + E[log q(c | G(n, c))]                                       (Chen et al., equation 5)

`infogan` is the model of Eastwood & Williams (NIPS 2017 workshop): the residual networks and losses of improved
Wasserstein GAN (Gulrajani et al. 2017), with lambda times the bound added for critic and generator alike. A picture's
code is the mean of Q. `infogan-mnist` is that of the first InfoGAN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from distk import (
    Code,
    DataSpec,
    Latent,
    LatentSpace,
    Method,
    Objective,
    Step,
    adam,
    one_hot,
    option,
)
from distk.nn import GAMES, gradient_penalty, interpolated, log_normal
from distk.plugins.gan_family.infogan.networks import (
    NORMS,
    PlainGenerator,
    PlainTrunk,
    ResidualGenerator,
    ResidualTrunk,
    glorot_,
    start_plain,
    unaveraged,
    vector_norm,
)

LOG_VARIANCE = (-6.0, 4.0)
"""Where Q's log variances are kept: the likelihood has no upper bound as a deviation goes to 0."""


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the defaults are those of Eastwood & Williams, as far as they give any."""

    codes: int = option(6, "continuous codes", paper="6 (also 10)", min=0, max=1024)
    categories: tuple[int, ...] = option((), "classes of each categorical code, as 10 or 10,3; empty: none", min=2)
    noise: int = option(128, "inputs of the generator that nothing has to recover", paper="128", min=0, max=65536)
    game: Literal["wasserstein", "logistic"] = option("wasserstein", "what critic and generator play for")
    network: Literal["residual", "plain"] = option("residual", "residual blocks, or the convolutions of the first one")
    dim: int = option(64, "channels at the full resolution", paper="64", min=1, max=1024)
    hidden: int = option(1024, "units of the dense layers, of --network plain", paper="1024", min=1, max=65536)
    q_hidden: int = option(0, "units of a hidden layer of Q's own; 0: none", paper="0", min=0, max=65536)
    slope: float = option(0.01, "of the leaky ReLUs, of --network plain", min=0, max=1)
    mi_coeff: float = option(8.0, "lambda, weight of the information; 0 is the ablation", paper="8", min=0)
    continuous_coeff: float = option(1.0, "weight of the continuous codes within the information", min=0)
    info_cadence: Literal["both", "generator-only", "critic-only"] = option(
        "both",
        "who learns by the information: both; the generator, with Q's own layers; or, an ablation, only critic and Q",
        paper="both",
    )
    q_std: Literal["learned", "fixed"] = option("learned", "Q's deviations: learned, or fixed at 1", paper="learned")
    code_prior: Literal["uniform", "normal"] = option("uniform", "of the continuous codes: U(-1, 1), or N(0, 1)")
    noise_prior: Literal["normal", "uniform"] = option("normal", "of the noise: N(0, 1), or U(-1, 1)")
    gp_coeff: float = option(10.0, "weight of the gradient penalty, of --game wasserstein", paper="10", min=0)
    critic_updates: int = option(5, "updates of the critic per step", paper="5", min=1, max=1000)
    lr: float = option(1e-4, "learning rate of the generator's Adam", paper="1e-4", above=0)
    critic_lr: float = option(1e-4, "learning rate of the critic's and Q's Adam", paper="1e-4", above=0)
    beta1: float = option(0.0, "Adam's decay of the mean, of both", paper="0", min=0, max=0.9999)
    beta2: float = option(0.9, "Adam's decay of the square, of both", paper="0.9", min=0, max=0.9999)

    def __post_init__(self) -> None:
        if not self.codes and not self.categories:
            raise ValueError("there is no code to learn: set --codes or --categories")


AConfig = TypeVar("AConfig", bound=Config, default=Config)


class InfoGAN(Method[AConfig]):
    """Codes: `c`, continuous, and `d` (or `d1`, `d2`, ...), categorical; `noise` is drawn and never encoded."""

    data = "teapots"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 25_000, "batch": 64}
    least_batch = 2  # the generator is normalised over the batch
    presets: ClassVar[Mapping[str, Any]] = {
        # The paper's weight of the information, 8, leaves networks of this width no teapots: they write the codes into
        # patches of colour, which only Q can read.
        "demo": {
            "model": {
                "codes": 6,
                "noise": 8,
                "dim": 8,
                "critic_updates": 2,
                "lr": 5e-4,
                "critic_lr": 5e-4,
                "mi_coeff": 0.1,
            },
            "data": {"name": "teapots", "size": 16, "poses": 1024, "items": 8192, "gap": "paper"},
            "train": {"steps": 1500, "batch": 32, "log_every": 50},
        },
        # The number of steps is that of the authors' later program: 50 epochs of 160,000 pictures, 5 batches a step.
        "paper": {
            "data": {"name": "teapots", "items": 200_000, "poses": 0, "size": 64, "supersample": 2, "gap": "paper"},
            "train": {"steps": 25_000, "batch": 64},
        },
        # That of improved Wasserstein GAN, all of whose settings the paper says it keeps.
        "full": {
            "data": {"name": "teapots", "items": 200_000, "poses": 0, "size": 64, "supersample": 2, "gap": "paper"},
            "train": {"steps": 200_000, "batch": 64},
        },
        "iclr": {
            "model": {"codes": 10, "noise": 0, "mi_coeff": 6.0, "q_std": "fixed"},
            "data": {"name": "teapots", "items": 200_000, "poses": 0, "size": 64, "supersample": 2, "gap": "paper"},
            "train": {"steps": 25_000, "batch": 64},
        },
    }

    def __init__(self, config: AConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        c = config
        groups = []
        if c.codes:
            reach = 1.0 if c.code_prior == "uniform" else 2.0
            groups.append(Latent("c", "continuous", c.codes, low=-reach, high=reach, prior=c.code_prior))
        names = ["d"] if len(c.categories) == 1 else [f"d{i + 1}" for i in range(len(c.categories))]
        groups += [Latent(name, "categorical", size) for name, size in zip(names, c.categories, strict=True)]
        if c.noise:
            reach = 1.0 if c.noise_prior == "uniform" else 2.0
            settings: dict[str, Any] = {"low": -reach, "high": reach, "prior": c.noise_prior}
            groups.append(Latent("noise", "continuous", c.noise, encoded=False, walked=False, **settings))
        self.latents = LatentSpace.of(*groups)
        self.game = GAMES[c.game]
        # A critic whose slope is penalised item by item must not let the items of a batch see each other.
        self.norm = "layer" if c.game == "wasserstein" else "batch"
        self._build(c, data.shape)

    def _build(self, c: Config, shape: tuple[int, ...]) -> None:
        """Generator, trunk, head `critic` and head `recognition`: K means, K log variances, logits of each class."""
        if min(shape[1:]) < 8:
            raise ValueError(f"the networks take images of 8x8 pixels or more, not {shape[1]}x{shape[2]}")
        width = sum(group.size for group in self.latents)
        self.outputs = [c.codes, c.codes if c.q_std == "learned" else 0, *c.categories]
        if c.network == "residual":
            self.drawn_range = (-1.0, 1.0)
            self.generator: nn.Module = ResidualGenerator(width, shape, c.dim)
            self.trunk: ResidualTrunk | PlainTrunk = ResidualTrunk(shape, c.dim, NORMS[self.norm])
        else:
            self.drawn_range = (0.0, 1.0)
            self.generator = PlainGenerator(width, shape, c.dim, c.hidden)
            self.trunk = PlainTrunk(shape, c.dim, c.hidden, self.norm, c.slope)
        self.critic = nn.Linear(self.trunk.features, 1)
        between = []
        if c.q_hidden:
            norm = vector_norm(self.norm, c.q_hidden)
            between = [nn.Linear(self.trunk.features, c.q_hidden), norm, nn.LeakyReLU(c.slope)]
        last = nn.Linear(c.q_hidden or self.trunk.features, sum(self.outputs))
        self.recognition = nn.Sequential(*between, last)
        for head in (self.critic, self.recognition):
            for layer in head.modules():
                if c.network == "residual" and isinstance(layer, nn.Linear):
                    glorot_(layer)
            if c.network == "plain":
                start_plain(head)

    # The step: the critic and Q on real and made pictures, several times; then the generator

    def objectives(self) -> list[Objective]:
        c = self.config
        decays = (c.beta1, c.beta2)
        judges = [*self.trunk.parameters(), *self.critic.parameters()]
        reader = list(self.recognition.parameters())
        apart = c.info_cadence == "generator-only"
        return [
            Objective(
                "critic",
                self.criticise,
                judges + ([] if apart else reader),
                adam(c.critic_lr, decays),
                updates=c.critic_updates,
                fresh_batch=c.critic_updates > 1,
                compiles=not (c.game == "wasserstein" and c.gp_coeff),
            ),
            Objective(
                "generator",
                self.generate,
                [*self.generator.parameters(), *(reader if apart else [])],
                adam(c.lr, decays),
            ),
        ]

    def criticise(self, step: Step) -> Tensor:
        """Critic's loss, mean over the batch, plus 10 mean (|gradient| - 1)^2 and lambda L_info on made pictures.

        Wasserstein: mean d(made) - mean d(real); logistic: -mean log D(real) - mean log(1 - D(made)), nats. Made
        pictures are constants here: the information trains the trunk and Q alone.
        """
        c = self.config
        real = self.as_drawn(step.batch["x"])
        code = self.draw(step, len(real))
        with torch.no_grad():
            made = self.generator(self.inputs(code))
        if self.norm == "layer":  # nothing couples the items, so one pass serves both
            on_real, on_made = self.trunk(torch.cat([real, made])).chunk(2)
        else:
            with unaveraged(self.trunk):  # Q is trained on made pictures alone; so are the averages that it keeps
                on_real = self.trunk(real)
            on_made = self.trunk(made)
        score, fooled = self.critic(on_real), self.critic(on_made)
        loss = self.game.real(score).mean() + self.game.fake(fooled).mean()
        step.log("score_gap", score.mean() - fooled.mean())
        if c.game == "wasserstein" and c.gp_coeff:
            penalty = self.penalty(real, made, step.rand(len(real))).mean()
            step.log("gradient_penalty", penalty)
            loss = loss + c.gp_coeff * penalty
        if c.info_cadence != "generator-only" and c.mi_coeff:
            loss = loss + c.mi_coeff * self.information(code, on_made)
        return loss

    def generate(self, step: Step) -> Tensor:
        """-mean d(made) (logistic: -mean log D(made), nats), plus lambda L_info of the same pictures."""
        code = self.draw(step, len(step.batch["x"]))
        features = self.trunk(self.generator(self.inputs(code)))
        loss = self.game.fool(self.critic(features)).mean()
        if self.config.info_cadence != "critic-only" and self.config.mi_coeff:
            loss = loss + self.config.mi_coeff * self.information(code, features)
        with torch.no_grad():
            step.log("mi_bound", self.entropy() + self.log_likelihood(code, features).sum(1).mean())
            if self.config.codes and self.config.q_std == "learned":
                deviation = (0.5 * self.read(features)[1]).exp()
                step.log("smallest_deviation", deviation.amin())
                step.log("largest_deviation", deviation.amax())
        return loss

    def penalty(self, real: Tensor, made: Tensor, share: Tensor) -> Tensor:
        """(|gradient of d| - 1)^2 at a point between each pair, `[n]`, in float32: Q has no part in it."""
        between = interpolated(real, made.to(real.dtype), share)
        with torch.autocast(between.device.type, enabled=False):
            return gradient_penalty(self.critic(self.trunk(between)), between)

    # Codes

    def draw(self, step: Step, n: int) -> Code:
        """`n` codes from the prior, all groups, float `[n, size]` each."""
        code = {}
        for group in self.latents:
            if group.kind == "categorical":
                code[group.name] = one_hot(step.randint(group.size, n), group.size)
            elif group.prior == "normal":
                code[group.name] = step.randn(n, group.size)
            else:
                code[group.name] = 2 * step.rand(n, group.size) - 1
        return code

    def inputs(self, code: Code) -> Tensor:
        """A code of all groups -> what the generator reads, `[n, width]`."""
        return torch.cat([code[group.name] for group in self.latents], 1)

    def read(self, features: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Features `[n, features]` -> Q's means and log variances `[n, codes]`, and logits of each categorical code."""
        mean, raw, *logits = self.recognition(features).float().split(self.outputs, 1)
        return mean, raw.clamp(*LOG_VARIANCE) if self.outputs[1] else torch.zeros_like(mean), logits

    def log_likelihood(self, code: Code, features: Tensor) -> Tensor:
        """log q(c_k | x) of every code that is recovered, nats, `[n, codes + categorical codes]`."""
        mean, log_variance, logits = self.read(features)
        parts = [log_normal(code["c"], mean, log_variance)] if self.config.codes else []
        named = [group.name for group in self.latents if group.kind == "categorical"]
        for name, of in zip(named, logits, strict=True):
            parts.append((code[name] * of.log_softmax(1)).sum(1, keepdim=True))
        return torch.cat(parts, 1)

    def information(self, code: Code, features: Tensor) -> Tensor:
        """L_info = -log q(c | x), sum over codes, mean over the batch, nats. H(c) - L_info is the bound."""
        each = self.log_likelihood(code, features)
        weight = each.new_ones(each.shape[1])
        weight[: self.config.codes] = self.config.continuous_coeff
        return -(each * weight).sum(1).mean()

    def entropy(self) -> float:
        """H(c) of the prior, nats: log 2 of a uniform code, log m of a class, log(2 pi e) / 2 of a normal code."""
        each = math.log(2) if self.config.code_prior == "uniform" else 0.5 * math.log(2 * math.pi * math.e)
        return self.config.codes * each + sum(math.log(m) for m in self.config.categories)

    # What a trained model can do

    def as_drawn(self, x: Tensor) -> Tensor:
        """Images in the data's range -> in the networks'."""
        (low, high), (least, most) = self.spec.range, self.drawn_range
        return (x - low) / (high - low) * (most - least) + least

    def encode(self, x: Tensor) -> Code:
        """Q's means and class probabilities."""
        mean, _, logits = self.read(self.trunk(self.as_drawn(x)))
        named = [group.name for group in self.latents if group.kind == "categorical"]
        code = {name: of.softmax(1) for name, of in zip(named, logits, strict=True)}
        return {"c": mean, **code} if self.config.codes else code

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        mean, log_variance, _ = self.read(self.trunk(self.as_drawn(x)))
        return {"c": (mean, (0.5 * log_variance).exp())} if self.config.codes else {}

    def decode(self, code: Code) -> Tensor:
        """G(n, c) in the data's range; noise that the code lacks is one draw for all items."""
        made = self.generator(self.inputs(self.filled(code)))
        (low, high), (least, most) = self.spec.range, self.drawn_range
        return ((made - least) / (most - least) * (high - low) + low).float()


@dataclass(frozen=True)
class MnistConfig(Config):
    """Hyperparameters of the first InfoGAN on MNIST (Chen et al. 2016, appendix C.1, and their source)."""

    codes: int = option(2, "continuous codes", paper="2", min=0, max=1024)
    categories: tuple[int, ...] = option((10,), "classes of each categorical code, as 10 or 10,3", paper="10", min=2)
    noise: int = option(62, "inputs of the generator that nothing has to recover", paper="62", min=0, max=65536)
    game: Literal["wasserstein", "logistic"] = option("logistic", "what critic and generator play for")
    network: Literal["residual", "plain"] = option("plain", "residual blocks, or the convolutions of the first one")
    q_hidden: int = option(128, "units of a hidden layer of Q's own; 0: none", paper="128", min=0, max=65536)
    mi_coeff: float = option(1.0, "lambda, weight of the information; 0 is the ablation", paper="1", min=0)
    q_std: Literal["learned", "fixed"] = option("fixed", "Q's deviations: learned, or fixed at 1", paper="fixed")
    noise_prior: Literal["normal", "uniform"] = option("uniform", "of the noise: N(0, 1), or U(-1, 1)", paper="uniform")
    critic_updates: int = option(1, "updates of the critic per step", paper="1", min=1, max=1000)
    lr: float = option(1e-3, "learning rate of the generator's Adam", paper="1e-3", above=0)
    critic_lr: float = option(2e-4, "learning rate of the critic's and Q's Adam", paper="2e-4", above=0)
    beta1: float = option(0.5, "Adam's decay of the mean, of both", paper="0.5", min=0, max=0.9999)
    beta2: float = option(0.999, "Adam's decay of the square, of both", paper="0.999", min=0, max=0.9999)


class InfoGANMnist(InfoGAN[MnistConfig]):
    """The first InfoGAN. Codes: `c`, continuous, and `d`, categorical; `noise` is drawn and never encoded."""

    data = "mnist"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 5000, "batch": 128}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"dim": 16, "hidden": 128, "q_hidden": 64, "mi_coeff": 0.2},  # by 1, digits come later
            "data": {"name": "digits28", "size": 16, "margin": 2},
            "train": {"steps": 3000, "batch": 64, "log_every": 50},
        },
        "paper": {"data": {"name": "mnist"}, "train": {"steps": 5000, "batch": 128}},
    }
