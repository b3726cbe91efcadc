"""DSVAE: disentangled sequential autoencoder (Li & Mandt, ICML 2018, arXiv 1803.02991; Das & Dandi's version of it).

One static code f per clip and one code z_t per frame. Nothing but the graphical model separates them: f is the same
at every t, so that what changes has to go through z, and KL(z) makes it dear to send through z what f can say once.

    p(x, z, f) = p(f) prod_t p(z_t | z_{<t}) N(x_t; decoder(z_t, f), sigma2 I)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from distk import Code, DataSpec, Latent, LatentSpace, Method, Objective, Step, adam, option
from distk.console import counted, warn_once
from distk.nn import kl_between, kl_to_prior, log_normal, reparameterise
from distk.plugins.sequence.dsvae.networks import (
    DynamicPosterior,
    LearnedPrior,
    StandardPrior,
    StaticPosterior,
    frame_decoder,
    frame_encoder,
)


@dataclass(frozen=True)
class Config:
    """Hyperparameters; the defaults are Das & Dandi's."""

    posterior: Literal["full", "factorized", "factorized-rnn", "factorized-ar", "full-ar"] = option(
        "full", "how q(z) is factored: see docs/methods/dsvae.md", paper="full; factorized-rnn (code)"
    )
    prior: Literal["standard", "learned"] = option(
        "standard", "prior of z: N(0, I), or an LSTM over the z before, teacher-forced", paper="standard; learned"
    )
    arch: Literal["auto", "das-dandi", "li-mandt", "mlp"] = option(
        "auto", "frame encoder and decoder; auto: das-dandi for video, mlp for vector clips"
    )
    f_dim: int = option(64, "dimensions of f, the static code", paper="64; 256", min=1, max=65536)
    z_dim: int = option(32, "dimensions of each z_t", paper="32; 32", min=1, max=65536)
    hidden: int = option(256, "width H of every recurrent layer", paper="256; 512", min=1, max=65536)
    frame_dim: int = option(1024, "features of a frame, v_t", paper="1024; 2048", min=1, max=1 << 20)
    channels: int = option(256, "channels of every convolution", paper="256", min=1, max=65536)
    sigma2: float = option(0.5, "variance of the decoder's Gaussian, on pixels in [-1, 1]", paper="0.5", above=0)
    beta_f: float = option(1.0, "weight of KL(f)", paper="1", min=0)
    beta_z: float = option(1.0, "weight of the sum over t of KL(z_t)", paper="1", min=0)
    kl_warmup: int = option(0, "steps over which both KL weights grow from 0", paper="0", min=0)
    dropout: float = option(0.0, "dropout after convolutions and before the heads", paper="0.5 in the code", min=0)
    lr: float = option(1e-3, "learning rate of Adam, constant", paper="1e-3; 2e-4", above=0)

    def __post_init__(self) -> None:
        if self.dropout >= 1:
            raise ValueError(f"dropout {self.dropout} must be below 1")


class Terms(NamedTuple):
    """One draw from q for a batch of clips.

    squares: squared error summed over time and pixels, `[b]`. kl_f: nats `[b, f]`. kl_z: nats `[b, t, z]`, each given
    the sampled f and z before it. f, z: the draw. q_f, q_z, p_z: (mean, log variance) of its distributions.
    """

    squares: Tensor
    kl_f: Tensor
    kl_z: Tensor
    f: Tensor
    z: Tensor
    q_f: tuple[Tensor, Tensor]
    q_z: tuple[Tensor, Tensor]
    p_z: tuple[Tensor, Tensor]


class DSVAE(Method[Config]):
    """Disentangled sequential autoencoder. Code: `f`, one per clip, and `z`, one per frame."""

    data = "sprites-sim"
    kinds = ("video", "vector-clip")
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 7_000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        # Section III: the sprites of Li & Mandt, 50 epochs (of 9,000 clips).
        "paper": {"data": {"name": "lpc-sprites"}, "train": {"steps": 7_000, "batch": 64}},
        "das-dandi": {"train": {"steps": 7_000, "batch": 64}},
        "li-mandt": {
            "model": {
                "arch": "li-mandt",
                "prior": "learned",
                "f_dim": 256,
                "hidden": 512,
                "frame_dim": 2048,
                "lr": 2e-4,
            },
            "data": {"name": "lpc-sprites"},
            "train": {"steps": 72_000, "batch": 25},
        },
        "demo": {
            "model": {
                "prior": "learned",
                "f_dim": 6,
                "z_dim": 6,
                "hidden": 32,
                "frame_dim": 32,
                "sigma2": 0.02,
                "lr": 3e-3,
            },
            "data": {"name": "vector-clips"},
            "train": {"steps": 1200, "batch": 64, "log_every": 100},
        },
    }
    own_commands: ClassVar[Mapping[str, str]] = {"transfer": "dsvae transfer-clips"}
    any_length = True

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        self.frames = data.shape[0]
        self.pixels = math.prod(data.shape[1:])
        if self.frames < 2:
            raise ValueError("a clip needs at least 2 frames: with one, f and z cannot be told apart")
        arch = _architecture(config.arch, data)
        self.scaled = arch != "mlp"  # pixels go to [-1, 1]; vectors stay as they are
        f, z, h, v = config.f_dim, config.z_dim, config.hidden, config.frame_dim
        self.latents = LatentSpace.of(Latent("f", "continuous", f), Latent("z", "continuous", z, steps=self.frames))
        self.encoder = frame_encoder(arch, data, config.channels, v, config.dropout)
        self.q_f = StaticPosterior(v, h, f, config.dropout)
        self.q_z = DynamicPosterior(config.posterior, v, h, f, z, config.dropout)
        self.p_z = LearnedPrior(z, h) if config.prior == "learned" else StandardPrior()
        self.decoder = frame_decoder(arch, data, config.channels, f + z, v)

    # The bound

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.elbo, self.parameters(), adam(self.config.lr))]

    def schedule(self, step: int) -> dict[str, Any]:
        warmup = self.config.kl_warmup
        return {"kl": min(1.0, step / warmup) if warmup else 1.0}

    def elbo(self, step: Step) -> Tensor:
        """Negative bound without its constant: sums over time, pixels and dimensions, mean over batch, nats."""
        x, config = step.batch["x"], self.config
        noise_f = step.randn(len(x), config.f_dim)
        terms = self.terms(x, noise_f, step.randn(len(x), x.shape[1], config.z_dim))
        squares, kl_f, kl_z = terms.squares.mean(), terms.kl_f.sum(1).mean(), terms.kl_z.sum((1, 2)).mean()
        step.log("mse", squares / (x.shape[1] * self.pixels))
        step.log("kl_f", kl_f)
        step.log("kl_z", kl_z)
        return squares / (2 * config.sigma2) + step.schedule["kl"] * (config.beta_f * kl_f + config.beta_z * kl_z)

    def terms(self, x: Tensor, noise_f: Tensor, noise_z: Tensor) -> Terms:
        """The bound's terms for one draw of f and z.

        x: clips `[b, t, ...]` in the data's range. noise_f `[b, f]`, noise_z `[b, t, z]`: standard normal.
        The prior's moments at t are read off the *posterior samples* before t (teacher forcing): only so is
        sum_t E_q KL(q(z_t|.) || p(z_t|z_{<t})) the KL between the two joint distributions. A prior that rolls out on
        its own samples compares two unrelated trajectories and gives no bound.
        """
        v = self.features(x)
        q_f = self.q_f(v)
        f = reparameterise(q_f[0], (0.5 * q_f[1]).exp(), noise_f)
        mean, logvar, z = self.q_z(v, f, noise_z)
        p_z = self.p_z(z)
        squares = (self.to_model(x) - self.render(f, z)).pow(2).flatten(1).sum(1)
        return Terms(
            squares,
            kl_to_prior(*q_f),
            kl_between(mean, logvar, *p_z),
            f,
            z,
            q_f,
            (mean, logvar),
            p_z,
        )

    def log_likelihood(self, squares: Tensor, frames: int) -> Tensor:
        """log p(x | z, f) `[b]` in nats with its constant, of pixels in [-1, 1], from the squared error `[b]`."""
        s2 = self.config.sigma2
        return -squares / (2 * s2) - frames * self.pixels / 2 * math.log(2 * math.pi * s2)

    def log_weight(self, x: Tensor, noise_f: Tensor, noise_z: Tensor) -> Tensor:
        """log p(x, z, f) - log q(z, f | x) of one draw per clip, nats `[b]`.

        Its mean over draws is the ELBO; the log of the mean of its exponential approaches log p(x) from below.
        """
        t = self.terms(x, noise_f, noise_z)
        zero = torch.zeros_like(t.f)
        log_f = log_normal(t.f, zero, zero) - log_normal(t.f, *t.q_f)
        log_z = log_normal(t.z, *t.p_z) - log_normal(t.z, *t.q_z)
        return self.log_likelihood(t.squares, x.shape[1]) + log_f.sum(1) + log_z.sum((1, 2))

    def bound(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`elbo` = log_likelihood - kl_f - kl_z of each clip, nats, with the Gaussian's constant on the model's scale;
        the KL of each dimension `[n, f]` and, summed over time, `[n, z]`; the mean squared error of a pixel."""
        n, t = x.shape[:2]
        noise_f = torch.randn(n, self.config.f_dim, generator=generator, device=x.device)
        noise_z = torch.randn(n, t, self.config.z_dim, generator=generator, device=x.device)
        terms = self.terms(x, noise_f, noise_z)
        likelihood = self.log_likelihood(terms.squares.double(), t)
        kl_f, kl_z = terms.kl_f.double(), terms.kl_z.double().sum(1)
        elbo = likelihood - kl_f.sum(1) - kl_z.sum(1)
        return {
            "elbo": elbo,
            "elbo_per_frame": elbo / t,
            "log_likelihood": likelihood,
            "kl_f": kl_f.sum(1),
            "kl_z": kl_z.sum(1),
            "mse": terms.squares.double() / (t * self.pixels),
            "kl_f_by_dimension": kl_f,
            "kl_z_by_dimension": kl_z,
            "log_weight": self.log_weight(x, noise_f, noise_z).double(),
        }

    # Networks over a whole clip: frames are folded into the batch

    def features(self, x: Tensor) -> Tensor:
        """Clips `[b, t, ...]` in the data's range -> frame features `[b, t, v]`."""
        frames = self.to_model(x).flatten(0, 1)
        if frames.dim() == 4 and frames.is_cuda:
            frames = frames.contiguous(memory_format=torch.channels_last)
        return self.encoder(frames).unflatten(0, x.shape[:2])

    def render(self, f: Tensor, z: Tensor) -> Tensor:
        """f `[b, f]`, z `[b, t, z]` -> clips `[b, t, ...]` on the model's own scale, float32 under autocast."""
        code = torch.cat([z, f.unsqueeze(1).expand(-1, z.shape[1], -1)], 2)
        out = self.decoder(code.flatten(0, 1)).unflatten(0, z.shape[:2])
        return out.to(f.dtype)

    def to_model(self, x: Tensor) -> Tensor:
        """From the data's range to [-1, 1]; vectors stay."""
        low, high = self.spec.range
        return (x - low) * (2 / (high - low)) - 1 if self.scaled else x

    # The trained model

    def encode(self, x: Tensor) -> Code:
        """Posterior means: f `[b, f]` and, given that f, z `[b, t, z]`."""
        return {name: mean for name, (mean, _) in self._posterior(x).items()}

    def posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of f and, with f (and the z before) at their means, of z."""
        return {name: (mean, (0.5 * logvar).exp()) for name, (mean, logvar) in self._posterior(x).items()}

    def _posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        if x.shape[1] != self.frames:
            warn_once(f"the model was trained on clips of {counted(self.frames, 'frame')} and now reads {x.shape[1]}")
        v = self.features(x)
        q_f = self.q_f(v)
        mean, logvar, _ = self.q_z(v, q_f[0], None)
        return {"f": q_f, "z": (mean, logvar)}

    def decode(self, code: Code) -> Tensor:
        """f `[b, f]` and z `[b, k, z]`, any number of frames k -> clips `[b, k, ...]` in the data's range."""
        out = self.render(code["f"], code["z"])
        low, high = self.spec.range
        return (out + 1) * ((high - low) / 2) + low if self.scaled else out

    def prior(self, n: int, generator: torch.Generator, frames: int | None = None) -> Code:
        """`n` codes: f ~ N(0, I), z from its prior, each fed back, over `frames` (default: as trained)."""
        device = generator.device
        f = torch.randn(n, self.config.f_dim, generator=generator, device=device)
        noise = torch.randn(n, frames or self.frames, self.config.z_dim, generator=generator, device=device)
        return {"f": f, "z": self.p_z.rollout(noise)}

    def predict(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Clips `[b, k, ...]` of any length k -> the next `steps` frames: f and z_1 .. z_k encoded (means) from these
        frames alone, then z rolled on by its prior with f kept. A prior without memory (`standard`) knows no motion."""
        v = self.features(x)
        f = self.q_f(v)[0]
        z = self.q_z(v, f, None)[0]
        noise = torch.randn(len(x), steps, self.config.z_dim, generator=generator, device=x.device)
        return self.decode({"f": f, "z": self.p_z.rollout(noise, z)})


def _architecture(name: str, data: DataSpec) -> str:
    """Resolve `auto`. Raises ValueError for an architecture that does not read this kind of data."""
    fits = "mlp" if data.kind == "vector-clip" else "das-dandi"
    if name == "auto":
        return fits
    if (name == "mlp") != (fits == "mlp"):
        raise ValueError(f"--arch {name} does not read {data.kind} data; use --arch {fits}")
    return name
