"""Encoder, decoder, transition and backward network of the locally linear models, and the linear map itself.

Sizes follow the planar model of PCC-pytorch (VinAI Research, 2020), the transition's those of E2C (Watter et al. 2015);
the paper prints none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distk.nn import log_normal, mlp, reparameterise

LOGVAR = (-8.0, 4.0)
"""Log variances are cut to this range."""
SHARP = -4.0
"""Log variance of codes before training. From unit variance the decoder sees nothing but noise at first, learns the
mean picture and stays with it: 1,800 steps of batch 64 ended with no place in z."""
SPREAD = 10.0
"""What the means of z are multiplied by before training, so that places lie further apart than a code is wide."""
LEAST_SLOPE = 0.05
"""Least |1 + r.v|: nearer to zero A has no inverse worth having."""


@dataclass(frozen=True)
class Gaussian:
    """Diagonal Gaussians: mean and log variance, `[n, d]` each."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of(cls, output: Tensor) -> Gaussian:
        """From a network's output `[n, 2 d]`."""
        mean, logvar = output.chunk(2, -1)
        return cls(mean, logvar.clamp(*LOGVAR))

    @property
    def std(self) -> Tensor:
        return (0.5 * self.logvar).exp()

    def draw(self, noise: Tensor) -> Tensor:
        """Samples `[n, d]` from standard normal noise `[n, d]`."""
        return reparameterise(self.mean, self.std, noise)

    def log_density(self, value: Tensor) -> Tensor:
        """log N(value), nats, sum over dimensions, `[n]`."""
        return log_normal(value, self.mean, self.logvar).sum(-1)

    def detach(self) -> Gaussian:
        return Gaussian(self.mean.detach(), self.logvar.detach())

    def rolled(self) -> Gaussian:
        """Each row takes the place of the next one."""
        return Gaussian(self.mean.roll(1, 0), self.logvar.roll(1, 0))


def he_(net: nn.Sequential) -> nn.Sequential:
    """Weights N(0, 2 / fan in), biases 0, in place: a place is 9 of 1600 pixels, and torch's own start, six times
    smaller in variance at each layer, leaves it below the noise of the code."""
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return net


class Encoder(nn.Module):
    """Pictures `[n, c, h, w]` -> Gaussians of dynamics (z) and content (w)."""

    def __init__(self, pixels: int, z: int, w: int, hidden: int) -> None:
        super().__init__()
        self.sizes = (2 * z, 2 * w)
        self.net = he_(mlp([pixels, hidden, hidden, sum(self.sizes)]))
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            for start, size in zip((0, 2 * z), (z, w), strict=True):
                last.bias[start + size : start + 2 * size] = SHARP
            last.weight[:z] *= SPREAD

    def forward(self, x: Tensor) -> tuple[Gaussian, Gaussian]:
        z, w = self.net(x.flatten(1)).split(self.sizes, -1)
        return Gaussian.of(z), Gaussian.of(w)


@dataclass(frozen=True)
class Local:
    """A locally linear map of rows: A = I + v r^T, B, c. v, r, c `[..., k]`, B `[..., k, m]`.

    z_next = A z + B u + c. 1 + r.v, the determinant of A, is kept 0.05 or more away from zero, with its sign.
    """

    v: Tensor
    r: Tensor
    b: Tensor
    c: Tensor

    @property
    def matrix(self) -> Tensor:
        """A, `[..., k, k]`."""
        eye = torch.eye(self.v.shape[-1], dtype=self.v.dtype, device=self.v.device)
        return eye + self.v.unsqueeze(-1) * self.r.unsqueeze(-2)

    @property
    def slope(self) -> Tensor:
        """det A = 1 + r.v by the matrix determinant lemma, kept from zero, `[...]`."""
        raw = 1 + (self.r * self.v).sum(-1)
        return torch.where(raw < 0, -1.0, 1.0) * raw.abs().clamp_min(LEAST_SLOPE)

    def log_abs_det(self) -> Tensor:
        """log |det A|, nats, `[...]`."""
        return self.slope.abs().log()

    def driven(self, u: Tensor) -> Tensor:
        """B u + c, `[..., k]`."""
        return (self.b * u.unsqueeze(-2)).sum(-1) + self.c

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """A z + B u + c."""
        return z + self.v * (self.r * z).sum(-1, keepdim=True) + self.driven(u)

    def backward(self, after: Tensor, u: Tensor) -> Tensor:
        """A^-1 (after - B u - c) by Sherman and Morrison."""
        q = after - self.driven(u)
        return q - self.v * ((self.r * q).sum(-1) / self.slope).unsqueeze(-1)


class Transition(nn.Module):
    """Where to linearise (zbar, u) -> the local map. Its last layer starts near zero, so that A starts at I.

    at: "zu" linearises at a point and an action (a blocked move depends on the action), "z" at the point alone (E2C).
    identity: no network, A = I, B = 0, c = 0; for an ablation.
    """

    def __init__(self, z: int, actions: int, hidden: int, at: str, identity: bool) -> None:
        super().__init__()
        self.z, self.actions, self.at = z, actions, at
        outputs = [z, z, z * actions, z]
        self.sizes = outputs
        self.net: nn.Sequential | None = None
        if not identity:
            self.net = mlp([z + (actions if at == "zu" else 0), hidden, hidden, sum(outputs)])
            last = self.net[-1]
            nn.init.normal_(last.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.normal_(last.bias, std=0.01)  # type: ignore[arg-type]

    def forward(self, zbar: Tensor, u: Tensor) -> Local:
        """zbar `[..., z]`, u `[..., actions]` scaled to [-1, 1]."""
        if self.net is None:
            zero = torch.zeros_like(zbar)
            return Local(zero, zero, zero.unsqueeze(-1).expand(*zbar.shape, self.actions), zero)
        point = torch.cat([zbar, u], -1) if self.at == "zu" else zbar
        v, r, b, c = self.net(point).split(self.sizes, -1)
        return Local(v, r, b.unflatten(-1, (self.z, self.actions)), c)


class Backward(nn.Module):
    """q(zbar | zhat, x): the point of linearisation, from the next code, the present picture and, if asked, u."""

    def __init__(self, pixels: int, z: int, actions: int) -> None:
        super().__init__()
        self.code, self.picture = nn.Linear(z, 5), nn.Linear(pixels, 100)
        self.action = nn.Linear(actions, 5) if actions else None
        self.last = nn.Sequential(
            nn.ReLU(), nn.Linear(105 + (5 if actions else 0), 100), nn.ReLU(), nn.Linear(100, 2 * z)
        )

    def forward(self, zhat: Tensor, x: Tensor, u: Tensor) -> Gaussian:
        parts = [self.code(zhat), self.picture(x.flatten(1))]
        parts += [] if self.action is None else [self.action(u)]
        return Gaussian.of(self.last(torch.cat(parts, 1)))
