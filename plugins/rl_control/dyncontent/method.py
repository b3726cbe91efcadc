"""dyncontent: disentangling dynamics and content for control and planning (Banijamali, Khajenezhad, Ghodsi and
Ghavamzadeh 2017), and its ancestor rce: robust locally linear controllable embedding (Banijamali et al. 2018).

Set X holds frames x, actions u and the frames after them; set Y frames of another look, without actions. Both share one
encoder and one decoder. z is the dynamics: z_next = A z + B u + c, linear around a point zbar that is inferred from the
next code and the present picture. w is the content, whose prior has another mean for each set.

The bound of X (equation 5, put right): z is no draw of its own but A^-1 (zhat - B u - c), so that the change of
variables adds log |det A| to the loss. Without it (`logdet` off, as printed) the expression can exceed the likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.config import C
from distk.console import warn_once
from distk.nn import bernoulli_nll, kl_between, mlp
from distk.plugins.rl_control.dyncontent import planning
from distk.plugins.rl_control.dyncontent.data import second_set
from distk.plugins.rl_control.dyncontent.networks import Backward, Encoder, Gaussian, Local, Transition, he_
from distk.source import Source
from distk.transitions import Actions

CONTENT_MEANS = (-1.0, 1.0)
"""Mean of p(w) in every coordinate, for X and Y (the paper: two Gaussians of different means; the values are ours)."""
CLIP = 10.0
MIXTURE = 256
"""Most frames of X whose posteriors make the prior of an unpaired frame of Y."""


@dataclass(frozen=True)
class RceConfig:
    """Hyperparameters of the locally linear model. The papers print no sizes and no optimiser."""

    z: int = option(2, "dimensions of the dynamics", min=1, max=64)
    hidden: int = option(300, "units of the two hidden layers of encoder and decoder", min=1, max=65536)
    transition_hidden: int = option(100, "units of the two hidden layers of the transition", min=1, max=65536)
    lin_point: Literal["zu", "z"] = option(
        "zu", "the transition is linearised at a point and an action, or a point alone"
    )
    backward_u: bool = option(False, "the backward network sees the action, too")
    transition: Literal["learnt", "identity"] = option("learnt", "identity: z stays where it is, for an ablation")
    logdet: bool = option(True, "log |det A| in the bound", paper="off (as printed)")
    aid: float = option(
        1.0, "weight of the forward prediction's loss, as it is used in planning; 0: the pure bound", min=0
    )
    lr: float = option(1e-3, "learning rate of Adam at the start", above=0)
    lr_end: float = option(5e-5, "and at the end; it falls as a cosine", above=0)


@dataclass(frozen=True)
class Config(RceConfig):
    """Hyperparameters of dyncontent."""

    w: int = option(2, "dimensions of the content", min=1, max=64)
    content_from: Literal["shuffled", "x1"] = option(
        "shuffled", "w is read from another frame of the same set, or from the frame that is decoded", paper="x1"
    )
    pairing: Literal["paired", "unpaired", "none"] = option(
        "paired",
        "prior of Y's dynamics: the code of the frame of X with the same state; the mixture of X's codes; N(0, 1)",
        paper="paired",
    )
    prior_grad: Literal["both", "y_only"] = option("both", "whether that prior learns from Y, too")


class LocallyLinear(Method[C]):
    """What both methods are: networks, the bound, the code, and what planning asks. rce has w = 0 and no set Y."""

    config: Any
    kinds: ClassVar[tuple[str, ...]] = ("transition",)
    data = "planar"
    own_commands: ClassVar[Mapping[str, str]] = {"predict": "dyncontent predict"}
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 60_000, "batch": 256}
    two_sets: ClassVar[bool] = False
    middle: Tensor
    extent: Tensor

    def __init__(self, config: C, data: DataSpec) -> None:
        super().__init__(config, data)
        self.actions = Actions.of(data)
        if not self.actions.continuous:
            raise ValueError("its dynamics are linear in the action, which must be numbers, not a choice")
        if data.range != (0.0, 1.0) or len(data.shape) != 3:
            raise ValueError("it needs pictures with values from 0 to 1")
        low, high = torch.tensor(self.actions.low), torch.tensor(self.actions.high)
        # Kept, since a captured step cannot copy from the host.
        self.register_buffer("middle", (low + high) / 2, persistent=False)
        self.register_buffer("extent", (high - low) / 2, persistent=False)
        settings = self.config
        self.w = settings.w if self.two_sets else 0
        groups = [Latent("dynamics", "continuous", settings.z, low=-3, high=3)]
        groups += [Latent("content", "continuous", self.w)] if self.w else []
        self.latents = LatentSpace.of(*groups)
        pixels, size = math.prod(data.shape), self.actions.size
        self.encoder = Encoder(pixels, settings.z, self.w, settings.hidden)
        self.decoder = he_(mlp([settings.z + self.w, settings.hidden, settings.hidden, pixels]))
        self.transition = Transition(
            settings.z, size, settings.transition_hidden, settings.lin_point, settings.transition == "identity"
        )
        self.backward_net = Backward(pixels, settings.z, size if settings.backward_u else 0)

    # The bound

    def bound_loss(self, step: Step) -> Tensor:
        """The negative bounds of X and Y and the aid, nats, sums over pixels and dimensions, means over the batch."""
        batch, u = step.batch, self.scaled(step.batch["u"])
        frames = [batch[name] for name in ("x", "x_next", "y", "x_pair") if name in batch]
        z, w = self.encoder(torch.cat(frames))
        codes = list(zip(*(_pieces(g, len(frames)) for g in (z, w)), strict=True))
        (now, _), (after, w_after) = codes[:2]
        n, k = now.mean.shape
        noise = step.randn(n, 3 * k + self.w).split([k, k, k, self.w], 1)
        zhat, zbar_of = after.draw(noise[0]), self.backward_net
        content = self.content(w_after).draw(noise[3])
        zbar = zbar_of(zhat, batch["x"], u)
        local = self.transition(zbar.draw(noise[1]), u)
        forward = now.draw(noise[2])
        foretold = self.transition(forward, u).forward(forward, u)
        decoded = [torch.cat([zhat, content], 1)]
        decoded += [torch.cat([foretold, content], 1)] if self.config.aid else []
        shown = [batch["x_next"]] * len(decoded)
        if self.two_sets:
            (v, w_y), others = codes[2], step.randn(n, k + self.w).split([k, self.w], 1)
            drawn = v.draw(others[0])
            decoded.append(torch.cat([drawn, self.content(w_y).draw(others[1])], 1))
            shown.append(batch["y"])
        nll = bernoulli_nll(self.decoder(torch.cat(decoded)), torch.cat(shown).flatten(1)).view(len(decoded), n).mean(1)
        x_bound = nll[0] + (transition_terms(now, after, zbar, zhat, local, u, self.config.logdet)).mean()
        x_bound = x_bound + content_kl(w_after, CONTENT_MEANS[0]).mean()
        total = x_bound
        step.log("x_bound", x_bound)
        step.log("x_next", nll[0])
        step.log("least_slope", local.slope.abs().min())
        if self.config.aid:
            step.log("foretold", nll[1])
            total = total + self.config.aid * nll[1]
        if self.two_sets:
            prior = codes[3][0] if len(codes) > 3 else None
            y_bound = nll[-1] + (self.y_prior(v, drawn, now, prior) + content_kl(w_y, CONTENT_MEANS[1])).mean()
            step.log("y_bound", y_bound)
            total = total + y_bound
        return total

    def content(self, w: Gaussian) -> Gaussian:
        """The content of each row of one set: that of the row before it, or its own (the printed form)."""
        return w.rolled() if self.w and self.config.content_from == "shuffled" else w

    def y_prior(self, v: Gaussian, drawn: Tensor, x: Gaussian, partner: Gaussian | None) -> Tensor:
        """KL(q(v|y) || p(v)) in nats, `[n]`; of a mixture one draw's estimate. drawn: samples of v `[n, z]`."""
        if self.config.pairing == "none":
            zero = torch.zeros_like(v.mean)
            return kl_between(v.mean, v.logvar, zero, zero).sum(1)
        prior = partner if partner is not None else Gaussian(x.mean[:MIXTURE], x.logvar[:MIXTURE])
        prior = prior.detach() if self.config.prior_grad == "y_only" else prior
        if partner is not None:
            return kl_between(v.mean, v.logvar, prior.mean, prior.logvar).sum(1)
        return v.log_density(drawn) - mixture_log_density(drawn, prior)

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """Transitions of X, and of a second set frames `y` and the frames `x_pair` of the same states."""
        batch = source.sample()
        if not self.two_sets:
            return batch
        dataset, n = second_set(source.dataset), source.batch
        rows = dataset.sample_rows(n * source.world, source.generator, "y")[source.rank * n : (source.rank + 1) * n]
        batch["y"] = dataset.batch(rows)["x"]
        if self.config.pairing == "paired":
            batch["x_pair"] = dataset.batch(dataset.partner[rows])["x"]
        return batch

    def objectives(self) -> list[Objective]:
        # One loss and one backward pass: the frames of both sets go through the encoder and the decoder together.
        return [Objective("loss", self.bound_loss, self.parameters(), adam(self.config.lr), clip=CLIP)]

    def schedule(self, step: int) -> dict[str, Any]:
        """The learning rate falls as a cosine over the run."""
        share = min(step / max(self.run_steps, 1), 1.0) if self.run_steps else 0.0
        fall = (1 + math.cos(math.pi * share)) / 2
        return {"lr": self.config.lr_end + (self.config.lr - self.config.lr_end) * fall}

    # The trained model

    def encode(self, x: Tensor) -> Code:
        z, w = self.encoder(x)
        return {"dynamics": z.mean, **({"content": w.mean} if self.w else {})}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        z, w = self.encoder(x)
        return {"dynamics": (z.mean, z.std), **({"content": (w.mean, w.std)} if self.w else {})}

    def logits(self, code: Code) -> Tensor:
        """Bernoulli logits of the pixels, `[n, *spec.shape]`."""
        parts = [code[group.name] for group in self.latents]
        return self.decoder(torch.cat(parts, 1)).view(-1, *self.spec.shape)

    def decode(self, code: Code) -> Tensor:
        return self.logits(code).sigmoid()

    def scaled(self, u: Tensor) -> Tensor:
        """Actions in the data's units -> in [-1, 1], as the transition and the planner have them."""
        return (u - self.middle) / self.extent

    def natural(self, u: Tensor) -> Tensor:
        """Actions in [-1, 1] -> in the data's units."""
        return self.middle + u * self.extent

    def local(self, z: Tensor, u: Tensor) -> Local:
        """The linear map around codes `[n, z]` and scaled actions `[n, m]`."""
        return self.transition(z, u)

    def foretell(self, code: Code, u: Tensor) -> Code:
        """The code after actions u `[n, m]` in the data's units; the content stays as it is."""
        scaled = self.scaled(u)
        z = code["dynamics"]
        return {**code, "dynamics": self.local(z, scaled).forward(z, scaled)}

    def plan(self, start: Tensor, goal: Tensor, horizon: int, generator: torch.Generator) -> Tensor:
        """Actions `[n, horizon, m]`, in the data's units, from iLQR in the latent space."""
        return planning.open_loop(self, start, goal, horizon, planning.Settings(), generator)


def _pieces(g: Gaussian, count: int) -> list[Gaussian]:
    return [Gaussian(m, s) for m, s in zip(g.mean.chunk(count), g.logvar.chunk(count), strict=True)]


def transition_terms(
    now: Gaussian, after: Gaussian, zbar: Gaussian, zhat: Tensor, local: Local, u: Tensor, logdet: bool
) -> Tensor:
    """What of X's negative bound does not look at pixels or content, nats, `[n]`.

    now, after: codes of x and x_next. zbar: q(zbar | zhat, x). zhat: a draw of `after`. local: map at a draw of zbar.
    KL(q(zbar) || p(zbar|x)) - H(q(zhat|x_next)) - log p(z|x) + log |det A| with z = A^-1 (zhat - B u - c).
    """
    kl = kl_between(zbar.mean, zbar.logvar, now.mean, now.logvar).sum(1)
    entropy = 0.5 * (1 + math.log(2 * math.pi) + after.logvar).sum(1)
    terms = kl - entropy - now.log_density(local.backward(zhat, u))
    return terms + local.log_abs_det() if logdet else terms


def content_kl(w: Gaussian, mean: float) -> Tensor:
    """KL(q(w) || N(mean, I)), nats, `[n]`; 0 where there is no content."""
    return kl_between(w.mean, w.logvar, torch.full_like(w.mean, mean), torch.zeros_like(w.mean)).sum(1)


def mixture_log_density(value: Tensor, parts: Gaussian) -> Tensor:
    """log of the mean density of M Gaussians at values `[n, d]`, nats, `[n]`."""
    every = Gaussian(parts.mean[None], parts.logvar[None]).log_density(value[:, None])
    return every.logsumexp(1) - math.log(len(parts.mean))


SMALL: Mapping[str, Any] = {
    "model": {"hidden": 128, "transition_hidden": 50, "lr": 3e-3},
    "train": {"steps": 3000, "batch": 64},
}


class RCE(LocallyLinear[RceConfig]):
    """Code: `dynamics`. Learns from any transitions with continuous actions."""

    config: RceConfig
    presets: ClassVar[Mapping[str, Any]] = {"demo": SMALL, "paper": {"train": {"steps": 60_000, "batch": 256}}}


class DynContent(LocallyLinear[Config]):
    """Code: `dynamics` and `content`. Needs data of two sets, such as planar."""

    config: Config
    two_sets: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": SMALL,
        "paper": {"data": {"name": "planar", "count": 8000, "second": 2000}, "train": {"steps": 60_000, "batch": 256}},
        "printed": {"model": {"logdet": False, "content_from": "x1", "aid": 0.0}},
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        if len(data.classes) != 2:
            raise ValueError("it needs a second set of frames: --data planar or observations; for one set there is rce")
        if config.pairing == "paired" and not data.extra.get("paired"):
            raise ValueError("set Y has no y_pair; use --pairing unpaired")
        if config.pairing == "unpaired":
            warn_once(
                "unpaired: only the distributions of both sets are brought together; Y's map may come out mirrored"
            )
