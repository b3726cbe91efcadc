"""icf-discrete: K policies, each tied to one latent coordinate (Thomas et al. 2017, arXiv 1708.01289; Thomas et al.
2018, B.1; Bengio et al. 2017, arXiv 1703.07718).

Policy k shall change coordinate f_k and no other: its reward is the share of f_k in the total change of the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distk import DataSpec, Latent, LatentSpace, option
from distk.nn import mlp
from distk.plugins.rl_control.icf.networks import Decoder, Front, form_for, init_
from distk.plugins.rl_control.icf.selective import SelectiveMethod
from distk.plugins.rl_control.icf.selectivity import Whitening


@dataclass(frozen=True)
class Config:
    """Hyperparameters."""

    k: int | None = option(None, "coordinates and policies; default half as many as actions", min=2, max=1024)
    form: Literal["linear", "log"] = option(
        "linear", "reward: the share itself, or its logarithm", paper="linear (code)"
    )
    direction: Literal["signed", "undirected"] = option(
        "signed", "signed: policy k shall increase f_k; undirected: change it either way", paper="signed"
    )
    eps: float = option(1e-4, "added to the total change", paper="1e-4 (code)", above=0)
    estimator: Literal["all-actions", "reinforce"] | None = option(
        None, "gradient of the objective; default all-actions where the environment allows it"
    )
    steps_per_policy: int = option(1, "actions that a policy takes", paper="1", min=1, max=16)
    encoder: Literal["conv", "mlp"] | None = option(None, "default conv where the picture can be halved", paper="conv")
    blur: float | None = option(
        None, "Gaussian blur in front of the encoder, pixels; default half a cell; 0: raw pixels", paper="0", min=0
    )
    whiten: bool = option(True, "whiten the features over the batch instead of a tanh", paper="no (code)")
    hidden: int = option(32, "width of the layer before the features, and of each policy", paper="32 (code)", min=1)
    lr: float = option(5e-4, "learning rate of Adam", paper="5e-4 (code)", above=0)
    selectivity: float = option(1.0, "weight of the sum over policies", paper="1", min=0)
    reconstruction: float = option(
        0.0,
        "weight of the squared error, mean over pixels; with 0 only the decoder learns it",
        paper="0; 0.1 (code)",
        min=0,
    )
    value: float = option(1.0, "weight of the baseline's error (reinforce)", min=0)
    explore: float = option(0.1, "share of random actions (reinforce)", paper="0.1 (code)", min=0, max=1)
    importance: Literal["balance", "normalised"] = option(
        "balance", "weights of the other policies (reinforce); balance is unbiased", paper="normalised"
    )
    entropy: float = option(0.05, "entropy bonus at the start", min=0)
    entropy_end: float = option(0.0, "and at the end", min=0)
    entropy_steps: int = option(10_000, "steps over which it falls, linearly", min=1)


class Features(nn.Module):
    """f: pictures `[N, c, s, s]` -> K features `[N, K]`: two 3x3 convolutions of 16 channels, or an MLP.

    Whitened over the batch or in (-1, 1) by tanh. The reward does not depend on the scale of a change, so that a tanh
    may saturate in most states without any loss; whitened features cannot.
    """

    def __init__(self, spec: DataSpec, k: int, conv: bool, hidden: int, blur: float, whiten: bool) -> None:
        super().__init__()
        channels, height, width = spec.shape
        if conv:
            sides = ((height + 3) // 4) * ((width + 3) // 4)
            layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1)]
            layers += [nn.ReLU(), nn.Flatten(), *mlp([16 * sides, hidden, k])]
        else:
            layers = [nn.Flatten(), *mlp([channels * height * width, 128, hidden, k])]
        self.front = Front(spec, init_(nn.Sequential(*layers)), blur, centre=whiten)
        self.head = Whitening(k) if whiten else nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.front(x))


class Policies(nn.Module):
    """K separately parametrised policies pi_k(a | h) and baselines V_k(h), evaluated together."""

    def __init__(self, k: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(k, k, hidden) * (2 / (k + hidden)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(k, hidden))
        self.last = nn.Parameter(torch.randn(k, hidden, actions + 1) * (2 / (hidden + actions)) ** 0.5)
        self.offset = nn.Parameter(torch.zeros(k, actions + 1))

    def forward(self, h: Tensor, h0: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """h `[E, P, K]` -> logits `[E, P, K, A]`, values `[E, P, K]`; h0 and phi are not read."""
        hidden = (torch.einsum("epi,kih->epkh", h, self.first) + self.bias).relu()
        out = torch.einsum("epkh,kha->epka", hidden, self.last) + self.offset
        return out[..., :-1], out[..., -1]


def share(dh: Tensor, direction: str, eps: float) -> Tensor:
    """sel_k = dh_k / (eps + sum_j |dh_j|), or with |dh_k|; changes `[..., K]` -> `[..., K]` in (-1, 1)."""
    amount = dh.abs() if direction == "undirected" else dh
    return amount / (eps + dh.abs().sum(-1, keepdim=True))


class ICFDiscrete(SelectiveMethod[Config]):
    """Discrete factors. Code: `h`, continuous; coordinate k is what policy k controls."""

    config: Config
    data = "mnistgrid"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 20_000, "batch": 64}
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"entropy_steps": 800, "lr": 1e-3, "blur": 12.0},
            "data": {"name": "maze", "grid": 5, "size": 15, "actions": "basic4"},
            "train": {"steps": 1500, "batch": 24},
        },
        "paper": {"model": {"entropy": 0.0, "whiten": False, "blur": 0.0}, "train": {"steps": 100_000, "batch": 64}},
    }

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(config, data)
        k = config.k or max(2, self.actions // 2)
        self.n, self.noise, self.k = k, 0, k
        self.scale = float(k)
        reach = 2.0 if config.whiten else 1.0
        self.latents = LatentSpace.of(Latent("h", "continuous", k, low=-reach, high=reach))
        form = form_for(data, config.encoder)
        blur = 0.5 * data.extra.get("cell", 0) if config.blur is None else config.blur
        self.encoder = Features(data, k, form == "conv", config.hidden, blur, config.whiten)
        self.decoder = Decoder(data, k, form, 128)
        self.policy = Policies(k, self.actions, config.hidden)

    def factors(self, h: Tensor, z: Tensor) -> Tensor:
        """The K unit vectors, for every state."""
        return torch.eye(self.k, device=h.device).expand(h.shape[0], -1, -1)

    def reward(self, h0: Tensor, last: Tensor, phi: Tensor) -> Tensor:
        """sel_k of each sequence's change `[E, P, K]`, or log(eps + max(0, sel_k))."""
        selected = share(last - h0.unsqueeze(1), self.config.direction, self.config.eps)
        return selected if self.config.form == "linear" else (selected.clamp_min(0) + self.config.eps).log()
