"""indepvideo: disentangling video with independent prediction (Whitney & Fergus, NIPS workshop 2017).

A video VAE whose state falls into k factors, each with a transition of its own. A factor's future must be told from
its own past, so that what moves together has to lie in one factor, and what moves independently may lie in another.

    p(x, z) = prod_t N(x_t; decoder(z_t), sigma2 I) prod_i p(z_t^i | z_{t-1}^i),   z_1^i ~ N(0, I)

The posterior filters: q(z_t | z_{t-1}, x_t) reads the frame and what the transitions foretell from the sampled z_{t-1}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.console import counted, warn_once
from distk.nn import kl_between, log_normal, reparameterise
from distk.plugins.sequence.indepvideo.networks import Combination, Transitions, frame_decoder, frame_encoder

DECAY_EVERY = 3200
"""Steps after which the learning rate is multiplied by `lr_decay`: 320,000 clips in batches of 100."""
SPAN = 15.0
"""How far `interpolate` moves a factor to either side."""


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the defaults are the paper's for moving MNIST, where it states them."""

    transition: Literal["factored", "entangled"] = option(
        "factored", "a transition per factor, or one over the whole state: the baseline", paper="factored"
    )
    latents: int = option(2, "factors k", paper="2 for moving MNIST, 8 for 5th Avenue", min=1, max=1024)
    latent_dim: int = option(25, "dimensions d of a factor", paper="not stated; 25 in the code", min=1, max=65536)
    markov: Literal[1, 2] = option(1, "states that a transition reads", paper="1; 2 in the code")
    combine: Literal["paper", "raw"] = option(
        "paper", "how a prediction enters the posterior: through a layer of its own, or as it is", paper="paper; raw"
    )
    trans_layers: int = option(5, "linear layers of a transition", paper="5; 2 for Figure 2", min=1, max=64)
    trans_hidden: int = option(128, "width of a transition", paper="128", min=1, max=65536)
    combine_dim: int = option(0, "width of the combination; 0: as wide as the state", paper="0", min=0, max=65536)
    channels: int = option(64, "channels of the first convolution, doubled by each further one", paper="64", min=1)
    features: int = option(32, "features of a frame", paper="32", min=1, max=65536)
    sigma2: float = option(0.25, "variance of a pixel", paper="0.25 for moving MNIST, 0.05 for 5th Avenue", above=0)
    kl_weight: float = option(1.0, "weight of all KL terms", paper="1", min=0)
    kl_warmup: int = option(0, "steps over which that weight grows from 0", paper="0", min=0)
    logvar_limit: float = option(0.0, "largest absolute log variance of a transition; 0: free", paper="0", min=0)
    lr: float = option(3e-4, "learning rate of Adam", paper="3e-4", above=0)
    lr_decay: float = option(1.0, f"factor of the rate every {DECAY_EVERY:,} steps", paper="1; 0.985", above=0, max=1)


class Path(NamedTuple):
    """A walk through time. z: the states; q, p: mean and log variance of posterior and prior; all `[b, t, k * d]`."""

    z: Tensor
    q: tuple[Tensor, Tensor]
    p: tuple[Tensor, Tensor]


class IndepVideo(Method[Config]):
    """Independent prediction. Code: `factor0` ... per frame, or `state` where the transition is entangled."""

    data = "moving-mnist-rg"
    kinds = ("video", "vector-clip")
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 200_000, "batch": 100}
    presets: ClassVar[Mapping[str, Any]] = {
        "paper": {"train": {"steps": 200_000, "batch": 100}},
        "reference": {
            "model": {"markov": 2, "combine": "raw", "trans_layers": 6, "lr_decay": 0.985},
            "train": {"steps": 200_000, "batch": 100},
        },
        "street": {
            "model": {"latents": 8, "sigma2": 0.05},
            "data": {"name": "street"},
            "train": {"steps": 200_000, "batch": 100},
        },
        "demo": {
            "model": {
                "latent_dim": 2,
                "combine_dim": 32,
                "trans_layers": 3,
                "trans_hidden": 32,
                "logvar_limit": 8.0,
                "sigma2": 0.01,
                "lr": 3e-3,
            },
            "data": {"name": "two-oscillators"},
            "train": {"steps": 3000, "batch": 128, "log_every": 100},
        },
    }
    any_length = True

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.frames, self.pixels = data.shape[0], math.prod(data.shape[1:])
        if self.frames < 2:
            raise ValueError("a clip needs at least 2 frames: with one, there is no transition to learn")
        if data.kind == "video" and data.range != (0.0, 1.0):
            raise ValueError(f"pixels must lie in [0, 1], not in {list(data.range)}")
        k, d = config.latents, config.latent_dim
        self.parts, self.size = k, k * d
        factored = config.transition == "factored"
        groups = [(f"factor{i}", d) for i in range(k)] if factored else [("state", k * d)]
        self.latents = LatentSpace.of(*(Latent(name, "continuous", n, steps=self.frames) for name, n in groups))
        self.encoder: nn.Module
        self.decoder: nn.Module
        if data.kind == "video":
            features = config.features
            self.encoder = frame_encoder(data, config.channels, features)
            self.decoder = frame_decoder(data, config.channels, self.size)
        else:  # vectors: a linear model but for the combination and the transitions
            features = self.pixels
            self.encoder, self.decoder = nn.Identity(), nn.Linear(self.size, self.pixels)
        self.combination = Combination(features, self.size, config.combine_dim or self.size, config.combine)
        self.transitions = Transitions(
            k if factored else 1,
            d if factored else k * d,
            config.markov,
            config.trans_layers,
            config.trans_hidden,
            config.logvar_limit,
        )

    # The bound

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), adam(self.config.lr))]

    def schedule(self, step: int) -> dict[str, Any]:
        config = self.config
        share = min(1.0, step / config.kl_warmup) if config.kl_warmup else 1.0
        return {"kl": config.kl_weight * share, "lr": config.lr * config.lr_decay ** (step // DECAY_EVERY)}

    def elbo(self, step: Step) -> Tensor:
        """Negative bound per frame, with its constant: sums over pixels and dimensions, means over frames and batch,
        nats. Table 2's figure is its negative at KL weight 1."""
        x = step.batch["x"]
        squares, kl, _ = self.terms(x, step.randn(len(x), x.shape[1], self.size))
        kl_frame = kl.sum(2).mean(0)
        step.log("mse", squares.mean() / self.pixels)
        step.log("kl_first", kl_frame[0])
        step.log("kl_next", kl_frame[1:].mean())
        return self.nll(squares).mean() + step.schedule["kl"] * kl_frame.mean()

    def terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Path]:
        """One draw from q for clips `[b, t, ...]`, from standard normal noise `[b, t, k * d]`.

        Returns the squared error of each frame, summed over pixels, `[b, t]`; KL(q(z_t | z_{t-1}, x_t) || p(z_t |
        z_{t-1})) in closed form, given the sampled z_{t-1}, nats `[b, t, k * d]`; and the path. Each of the KLs is
        given a draw of the whole past, so that their mean over draws is the KL of the two joint distributions.
        """
        path = self.infer(x, noise)
        squares = (x - self.render(path.z)).pow(2).flatten(2).sum(2)
        return squares, kl_between(*path.q, *path.p), path

    def nll(self, squares: Tensor) -> Tensor:
        """-log p(x_t | z_t) with its constant, nats, of each squared error."""
        s2 = self.config.sigma2
        return squares / (2 * s2) + self.pixels / 2 * math.log(2 * math.pi * s2)

    def bound(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`elbo` of each clip and `elbo_per_frame` (Table 2), nats; their parts: `log_likelihood` and `kl` of the clip,
        `nll_per_frame`, `kl_first` and `kl_next`, the KL of frame 1 and the mean of later ones; the mean squared error
        of a pixel; the KL of each dimension, summed over time, `[n, k * d]`."""
        n, t = x.shape[:2]
        squares, kl, path = self.terms(x, torch.randn(n, t, self.size, generator=generator, device=x.device))
        nll, nats = self.nll(squares.double()), kl.double()
        elbo = -nll.sum(1) - nats.sum((1, 2))
        weight = log_normal(path.z, *path.p) - log_normal(path.z, *path.q)
        return {
            "elbo": elbo,
            "elbo_per_frame": elbo / t,
            "log_likelihood": -nll.sum(1),
            "kl": nats.sum((1, 2)),
            "nll_per_frame": nll.mean(1),
            "kl_first": nats[:, 0].sum(1),
            "kl_next": nats[:, 1:].sum(2).mean(1),
            "mse": squares.double().mean(1) / self.pixels,
            "kl_by_dimension": nats.sum(1),
            "log_weight": weight.double().sum((1, 2)) - nll.sum(1),
        }

    # Walks through time

    def infer(self, x: Tensor, noise: Tensor | None) -> Path:
        """The filter over clips `[b, t, ...]`; noise `[b, t, k * d]`, None: every state is its mean.

        The prediction enters q detached, "the transition parameters are not updated here" (Appendix A): transitions
        learn from the KL alone. The state before keeps its gradient in the KL. Of frame 1 the prior is N(0, I), which
        as mean and log variance are the "all-zero vectors" that q is told.
        """
        frame = self.combination.frame(self.features(x))
        past = self._nothing(frame)
        mean_p = logvar_p = past[:, -1]
        columns: list[list[Tensor]] = [[], [], [], [], []]
        for t in range(x.shape[1]):
            if t:
                mean_p, logvar_p = self.transitions(past)
            mean, logvar = self.combination(frame[:, t], mean_p.detach(), logvar_p.detach())
            z = mean if noise is None else reparameterise(mean, (0.5 * logvar).exp(), noise[:, t])
            past = torch.cat([past[:, 1:], z.unsqueeze(1)], 1)
            for column, value in zip(columns, (z, mean, logvar, mean_p, logvar_p), strict=True):
                column.append(value)
        z, mean, logvar, mean_p, logvar_p = (torch.stack(column, 1) for column in columns)
        return Path(z, (mean, logvar), (mean_p, logvar_p))

    def rollout(self, past: Tensor, noise: Tensor) -> Tensor:
        """What the transitions make of the last states `[b, m, k * d]`, any m: noise `[b, s, k * d]` (zeros: means)
        -> the next s states. With one state and memory 2, the state before it is 0, as at a clip's start."""
        past = torch.cat([self._nothing(past), past], 1)[:, -self.config.markov :]
        states = []
        for t in range(noise.shape[1]):
            mean, logvar = self.transitions(past)
            states.append(reparameterise(mean, (0.5 * logvar).exp(), noise[:, t]))
            past = torch.cat([past[:, 1:], states[-1].unsqueeze(1)], 1)
        return torch.stack(states, 1)

    def _nothing(self, like: Tensor) -> Tensor:
        """States before the first one: zeros `[b, markov, k * d]`, in float32 under autocast."""
        dtype = torch.float32 if like.dtype in (torch.bfloat16, torch.float16) else like.dtype
        return torch.zeros(like.shape[0], self.config.markov, self.size, dtype=dtype, device=like.device)

    def features(self, x: Tensor) -> Tensor:
        """Clips `[b, t, ...]` -> what the encoder sees in each frame `[b, t, features]`, all frames in one pass."""
        frames = x.flatten(0, 1)
        if frames.dim() == 4 and frames.is_cuda:
            frames = frames.contiguous(memory_format=torch.channels_last)
        return self.encoder(frames).unflatten(0, x.shape[:2])

    def render(self, z: Tensor) -> Tensor:
        """States `[b, t, k * d]` -> means of the pixels `[b, t, ...]`, float32 under autocast."""
        return self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2]).to(z.dtype)

    # The trained model

    def encode(self, x: Tensor) -> Code:
        """Posterior means, each given the mean of the state before, `[b, t, d]` per factor."""
        return self.split(self._filtered(x).q[0])

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of q(z_t | z_{t-1}, x_t), the states before at their means."""
        mean, logvar = (self.split(value) for value in self._filtered(x).q)
        return {name: (mean[name], (0.5 * logvar[name]).exp()) for name in mean}

    def _filtered(self, x: Tensor) -> Path:
        if x.shape[1] != self.frames:
            warn_once(f"the model was trained on clips of {counted(self.frames, 'frame')} and now reads {x.shape[1]}")
        return self.infer(x, None)

    def paths(self, x: Tensor, generator: torch.Generator) -> Code:
        """Draws from the posterior of whole clips, each state given the drawn one before, as code."""
        noise = torch.randn(*x.shape[:2], self.size, generator=generator, device=x.device)
        return self.split(self.infer(x, noise).z)

    def split(self, z: Tensor) -> Code:
        """States `[..., k * d]` -> code by group."""
        return dict(zip((g.name for g in self.latents), z.split([g.size for g in self.latents], -1), strict=True))

    def state(self, code: Code) -> Tensor:
        """Code -> states `[..., k * d]`, the inverse of `split`."""
        return torch.cat([code[group.name] for group in self.latents], -1)

    def decode(self, code: Code) -> Tensor:
        """Code of any number of frames t -> clips `[b, t, ...]`, means of the pixels."""
        return self.render(self.state(code))

    def prior(self, n: int, generator: torch.Generator, frames: int | None = None) -> Code:
        """`n` codes: z_1 ~ N(0, I), then the transitions, over `frames` (default: as trained)."""
        length = frames or self.frames
        noise = torch.randn(n, length, self.size, generator=generator, device=generator.device)
        first = noise[:, :1]
        later = [self.rollout(first, noise[:, 1:])] if length > 1 else []
        return self.split(torch.cat([first, *later], 1))

    def predict(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Clips `[b, t, ...]` of any length t -> the next `steps` frames: states filtered from these frames (means),
        then rolled on by the transitions, drawn."""
        z = self.infer(x, None).z
        noise = torch.randn(len(x), steps, self.size, generator=generator, device=x.device)
        return self.render(self.rollout(z, noise))

    def independent(
        self,
        x: Tensor,
        parts: Sequence[Tensor],
        generator: torch.Generator,
        source: Literal["posterior", "prior", "prior-mean", "interpolate"] = "posterior",
    ) -> Tensor:
        """Each part of the state moving alone, all others frozen at frame 2 (Figure 3).

        x: clips `[b, t, ...]` with t >= 3. parts: units of the state, int64 `[m]` each. source: where a part's states
        come from: the posterior's draw; its transition, drawn or at its mean, from the state at frame 2; a straight
        line through that state, 15 to either side, in a random direction. One draw serves all parts.
        Returns `[b, 1 + parts, t - 1, ...]`, frames 2 to t: first the reconstruction, then a row per part. Frame 1 is
        left out, for a state that has seen one frame knows no velocity.
        """
        n, t = x.shape[:2]
        if t < 3:
            raise ValueError(
                f"clips of {counted(t, 'frame')} are too short: a part is frozen at frame 2 and must move after it"
            )
        noise = torch.randn(n, t, self.size, generator=generator, device=x.device)
        z = self.infer(x, noise).z
        frozen, moved = z[:, 1:2], z[:, 1:]
        if source in ("prior", "prior-mean"):
            drawn = torch.randn(n, t - 2, self.size, generator=generator, device=x.device)
            moved = self.rollout(z[:, :2], drawn if source == "prior" else torch.zeros_like(drawn))
            moved = torch.cat([frozen, moved], 1)
        rows = [self.render(z[:, 1:])]
        for units in parts:
            path = frozen.expand_as(moved).clone()
            if source == "interpolate":
                way = torch.randn(len(units), generator=generator, device=x.device)
                place = torch.linspace(-SPAN, SPAN, t - 1, device=x.device)
                path[..., units] += place[:, None] * (way / way.norm())
            else:
                path[..., units] = moved[..., units]
            rows.append(self.render(path))
        return torch.stack(rows, 1)
