"""icf: independently controllable factors (Thomas, Pondard, Bengio et al. 2018; arXiv 1708.01289).

Without reward or labels: a generator draws factors phi for a state, each names a policy, and the change h' - h that the
policy causes shall tell phi from the other factors that could have been drawn (selectivity).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distk import DataSpec, Latent, LatentSpace, Objective, Step, adam, option
from distk.console import warn_once
from distk.plugins.rl_control.icf import selectivity as s
from distk.plugins.rl_control.icf.networks import Decoder, Encoder, Form, Generator, Policy, Transition, form_for
from distk.plugins.rl_control.icf.selective import CLIP, SelectiveMethod

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "stable": {
        "k": (2, 8),
        "factors": 64,
        "sigma": "relative",
        "whiten": True,
        "importance": "balance",
        "even": 0.0,
        "lr": 3e-4,
        "selectivity": 1.0,
        "reconstruction": 10.0,
        "entropy": 0.3,
        "entropy_end": 0.015,
    },
    "paper": {
        "k": (2, 20),
        "factors": 256,
        "estimator": "reinforce",
        "sigma": "paper",
        "whiten": False,
        "blur": 0.0,
        "importance": "normalised",
        "even": 0.0,
        "lr": 1e-4,
        "selectivity": 20.0,
        "reconstruction": 1e4,
        "entropy": 1e-4,
        "entropy_end": 1e-4,
    },
}
"""What settings without a value become; a pair is (one step, several steps) per policy."""


@dataclass(frozen=True)
class Config:
    """Hyperparameters. Those without a value follow the recipe; the environment settles the rest."""

    recipe: Literal["stable", "paper"] = option("stable", "stable: the repaired choices; paper: the published ones")
    steps_per_policy: int = option(1, "actions that one factor's policy takes", paper="1; 3", min=1, max=16)
    k: int | None = option(None, "dimensions of h and of phi; default 2, or 8 for several steps", paper="2; 20", min=1)
    z: int = option(2, "dimensions of the generator's noise", paper="2", min=1)
    factors: int | None = option(None, "factors phi drawn per state; default 64", paper="256 or 1024", min=2)
    kernel: Literal["gauss", "inner"] | None = option(
        None, "score A; default gauss for one step, inner for several", paper="gauss; inner"
    )
    estimator: Literal["all-actions", "reinforce"] | None = option(
        None, "gradient of S; default all-actions where the environment allows it", paper="reinforce"
    )
    output_map: Literal["hypercube", "hypersphere", "simplex", "simplex-tanh"] = option(
        "hypercube", "where factors live", paper="hypercube"
    )
    sigma: str | None = option(
        None, "width of the Gaussian: relative, paper (square root of k) or a number", paper="paper"
    )
    sigma_scale: float = option(0.6, "relative sigma in units of the median one-step |h' - h|", above=0)
    sigma_every: int = option(500, "steps between new estimates of a relative sigma", min=1)
    whiten: bool | None = option(None, "whiten h over the batch instead of a tanh; default yes", paper="no")
    blur: float | None = option(
        None, "Gaussian blur in front of the encoder, pixels; default 1.3 cells of a grid world", paper="0", min=0
    )
    encoder: Literal["conv", "mlp"] | None = option(None, "default conv where the picture can be halved", paper="conv")
    width: int = option(128, "hidden units of an mlp encoder", min=1, max=65536)
    explore: float = option(0.1, "share of random actions (reinforce)", paper="0.1 (code)", min=0, max=1)
    importance: Literal["balance", "normalised"] | None = option(
        None, "weights of the other factors (reinforce); balance is unbiased", paper="normalised"
    )
    even: float | None = option(
        None, "weight of how much an action's change varies from state to state; default 0, demo 1", paper="0", min=0
    )
    lr: float | None = option(None, "learning rate of Adam; default 3e-4", paper="1e-4 (code)", above=0)
    selectivity: float | None = option(None, "weight of S; default 1", paper="20 (code)", min=0)
    reconstruction: float | None = option(
        None, "weight of the squared error, mean over pixels; default 10", paper="1e4 (code)", min=0
    )
    value: float = option(1.0, "weight of the baseline's error (reinforce)", paper="1 (code)", min=0)
    model_based: float = option(0.1, "weight of |h_T - T(h, phi)|^2, several steps only", paper="0.1 (code)", min=0)
    mb_grad: Literal["transition", "all"] = option(
        "transition", "what that error trains; all: encoder and generator too", paper="all"
    )
    entropy: float | None = option(None, "entropy bonus at the start; default 0.3", paper="1e-4 (code)", min=0)
    entropy_end: float | None = option(None, "and at the end; default 0.015", min=0)
    entropy_steps: int = option(16_000, "steps over which it falls, linearly; 80 % of the run", min=1)

    def __post_init__(self) -> None:
        for name, value in RECIPES[self.recipe].items():
            if getattr(self, name) is None:
                value = value[self.steps_per_policy > 1] if isinstance(value, tuple) else value
                object.__setattr__(self, name, value)
        if self.kernel is None:
            object.__setattr__(self, "kernel", "gauss" if self.steps_per_policy == 1 else "inner")
        if self.sigma not in ("relative", "paper"):
            try:
                sound = 0 < float(self.sigma or "") < math.inf
            except ValueError:
                sound = False
            if not sound:
                raise ValueError(f"sigma must be relative, paper or a positive number, not '{self.sigma}'")
        if self.kernel == "inner" and self.output_map == "simplex":
            warn_once("kernel inner with the simplex: phi has no negative entries, so only increases of h are selected")


class ICF(SelectiveMethod[Config]):
    """Continuous factors. Code: `h`, continuous, whose changes the policies cause."""

    config: Config
    data = "maze"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 20_000, "batch": 256}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"encoder": "mlp", "factors": 48, "lr": 1e-3, "entropy_steps": 1600, "even": 1.0},
            "data": {"name": "maze", "grid": 5, "size": 15},
            "train": {"steps": 2000, "batch": 24},
        },
        "multistep": {
            "model": {"steps_per_policy": 3},
            "data": {"name": "maze:switches"},
            "train": {"steps": 20_000, "batch": 128},
        },
        "paper": {"model": {"recipe": "paper"}, "train": {"steps": 500_000, "batch": 1}},
    }
    sigma: Tensor

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        k, self.n, self.noise = config.k or 0, config.factors or 0, config.z
        whiten = bool(config.whiten)
        reach = 2.0 if whiten else 1.0
        self.latents = LatentSpace.of(Latent("h", "continuous", k, low=-reach, high=reach))
        blur = 1.3 * data.extra.get("cell", 0) if config.blur is None else config.blur
        form: Form = form_for(data, config.encoder)
        self.encoder = Encoder(data, k, form, config.width, whiten, blur)
        self.decoder = Decoder(data, k, form, config.width)
        self.generator = Generator(k, config.z, config.output_map)
        self.policy = Policy(k, self.actions)
        self.transition = Transition(k, bounded=not whiten) if config.steps_per_policy > 1 else None
        fixed = {"relative": 1.0, "paper": math.sqrt(k)}
        start = fixed[config.sigma] if config.sigma in fixed else float(config.sigma or "")
        self.register_buffer("sigma", torch.tensor(start))

    def factors(self, h: Tensor, z: Tensor) -> Tensor:
        return self.generator(h, z)

    def reward(self, h0: Tensor, last: Tensor, phi: Tensor) -> Tensor:
        """R_i = log A(h', h, phi_i) - log mean_j A(h', h, phi_j) (equation 1), nats."""
        assert self.config.kernel is not None  # filled by the configuration itself
        return s.contrast(s.log_kernel(last - h0.unsqueeze(1), phi, self.config.kernel, self.sigma))

    # Relative sigma

    def phase(self, step: int) -> Hashable:
        """Whether sigma is estimated in this step."""
        return self.config.sigma == "relative" and step % self.config.sigma_every == 0

    @torch.no_grad()
    def watch(self, step: Step, change: Tensor) -> None:
        """sigma <- mean of itself and sigma_scale * median |h' - h| over transitions that changed something."""
        if step.phase:
            length = change.norm(dim=-1).flatten()
            median = torch.where(length > 1e-6, length, torch.nan).nanmedian()
            fresh = torch.where(median.isnan(), self.sigma, self.config.sigma_scale * median).clamp_min(1e-3)
            self.sigma.copy_(torch.where(step.index == 0, fresh, (self.sigma + fresh) / 2))
        step.log("sigma", self.sigma)

    # The other objectives

    def acting(self) -> list[nn.Parameter]:
        return [*super().acting(), *self.generator.parameters()]

    def objectives(self) -> list[Objective]:
        found = super().objectives()
        if self.config.even and self.config.steps_per_policy == 1 and self.estimator == "all-actions":
            found.append(Objective("even", self.evenness, self.encoder.parameters(), None, "step"))
        if self.transition is not None:
            parts = [*self.transition.parameters()]
            assert self.config.lr is not None  # filled by the configuration itself
            build = adam(self.config.lr)
            found.append(Objective("model_based", self.model_based, parts, build, "step", clip=CLIP))
            if self.config.mb_grad == "all":
                rest = [*self.encoder.parameters(), *self.generator.parameters()]
                found.append(Objective("model_based_latent", self.model_based, rest, None, "step"))
        return found

    def evenness(self, step: Step) -> Tensor:
        """Variance over states of the change h' - h that an action causes, mean over actions, times its coefficient.

        Selectivity compares the factors of one state and does not mind when "up" points elsewhere in the next, so that
        it settles on folded maps. h is whitened, so that this cannot be had by shrinking. Changes of nothing are left
        out. All actions, one step.
        """
        r = self.rollout(step)
        change = r.last - r.h0.unsqueeze(1)  # [states, actions, k]
        moved = ((change.detach().norm(dim=-1) > 1e-6) & step.batch["mask0"][:, 0]).float().unsqueeze(-1)
        count = moved.sum(0).clamp_min(1)
        mean = (moved * change).sum(0) / count
        variance = (moved * (change - mean).square()).sum(0) / count
        step.log("dh_variance", variance.sum(-1).mean())
        assert self.config.even is not None  # filled by the configuration itself
        return self.config.even * variance.sum(-1).mean()

    def model_based(self, step: Step) -> Tensor:
        """|h_T - T(h_0, phi)|^2 in the latent space, the target detached, under each factor's own policy (4.2)."""
        if "model_based" not in step.memo:
            r = self.rollout(step)
            assert self.transition is not None
            error = (self.transition(r.h0, r.phi).unsqueeze(1) - r.last.detach().unsqueeze(2)).pow(2).sum(-1)
            if r.weights is None or r.valid is None:
                loss = (r.log_p.detach().exp() * error).sum(1).mean()
            else:
                loss = ((r.weights * error[:, 0]).sum(1) * r.valid).sum() / r.valid.sum().clamp_min(1)
            step.memo["model_based"] = self.config.model_based * loss
        return step.memo["model_based"]
