"""Networks of the independently controllable factors (A.1 and the authors' reference code)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import DataSpec
from distk.nn import down, mlp, up
from distk.plugins.rl_control.icf.selectivity import Whitening

Form = Literal["conv", "mlp"]
OutputMap = Literal["hypercube", "hypersphere", "simplex", "simplex-tanh"]


def init_(module: nn.Module) -> nn.Module:
    """Weights N(0, 2 / (fan in + fan out)), biases 0, in place (reference)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def halvings(spec: DataSpec) -> tuple[int, int]:
    """How often a square picture is halved, down to at most 4 pixels, and the side that is left."""
    size, count = spec.shape[1], 0
    while size % 2 == 0 and size > 4:
        size, count = size // 2, count + 1
    return count, size


def form_for(spec: DataSpec, wanted: Form | None) -> Form:
    """Convolutions where the picture allows them (32, 48, 64 pixels ...), else fully connected layers.

    Raises ValueError where convolutions are wanted and do not fit.
    """
    _, height, width = spec.shape
    count, left = halvings(spec)
    fits = height == width and count >= 3 and left <= 6
    if wanted == "conv" and not fits:
        raise ValueError(f"pictures of {height}x{width} pixels cannot be halved down to 4; use --encoder mlp")
    return wanted or ("conv" if fits else "mlp")


class Encoder(nn.Module):
    """f: pictures `[N, c, s, s]` -> h `[N, K]`, whitened over the batch or in (-1, 1) by tanh.

    blur: standard deviation in pixels of a Gaussian in front of it, 0 for none. Encode h and h' in ONE call: batch
    statistics differ from call to call, which would bias h' - h.
    """

    def __init__(self, spec: DataSpec, k: int, form: Form, width: int, whiten: bool, blur: float) -> None:
        super().__init__()
        channels, height, breadth = spec.shape
        layers: list[nn.Module] = []
        if form == "conv":
            count, left = halvings(spec)
            widths = [channels, *(64 << i for i in range(count))]
            layers = down(widths, activation=lambda: nn.LeakyReLU(0.2), norm=nn.BatchNorm2d, bias=False)
            layers += [nn.Conv2d(widths[-1], k, left, bias=False), nn.Flatten()]
        else:
            layers = [nn.Flatten(), *mlp([channels * height * breadth, width, width, k])]
        self.front = Front(spec, init_(nn.Sequential(*layers)), blur, centre=whiten)
        self.head = Whitening(k) if whiten else nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.front(x))


class Front(nn.Module):
    """A net behind a Gaussian blur of the pictures, and, if `centre`, relative to the mean picture.

    Centred features are net(x) - net(mean picture): whatever moves all features alike cancels. Without it the features'
    mean drifts by up to two standard deviations within the few steps over which the whitening tracks it.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, spec: DataSpec, net: nn.Module, blur: float, centre: bool) -> None:
        super().__init__()
        self.net, self.blur = net, blur
        if blur:
            self.register_buffer("rows", blur_matrix(spec.shape[1], blur), persistent=False)
            self.register_buffer("columns", blur_matrix(spec.shape[2], blur), persistent=False)
        self.pixels = Standardise(math.prod(spec.shape)) if centre else None

    def forward(self, x: Tensor) -> Tensor:
        """Pictures `[N, c, h, w]` -> features `[N, K]`."""
        if self.blur:
            x = self.rows @ x @ self.columns.t()
        if self.pixels is None:
            return self.net(x)
        x = self.pixels(x)
        features = self.net(torch.cat([x, torch.full_like(x[:1], OFFSET)]))
        return features[:-1] - features[-1:]


OFFSET = 10.0


class Standardise(nn.Module):
    """Pictures minus the mean picture, over ONE standard deviation for all pixels, plus 10; tracked as in `Whitening`.

    Blurred pictures differ by a few percent per pixel, which leaves the codes' spread near the ridge of the whitening.
    A scale per pixel would undo the smoothing.
    The constant plays the part of a bright ground: it keeps most rectifiers on one side, so that the encoder starts out
    nearly linear in the blurred picture (5x5 maze, seed 0: readout R^2 0.52 without it, 0.77 with 3, 0.96).
    """

    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """`[N, c, h, w]` -> the same shape."""
        flat = x.flatten(1).float()
        mean, variance = self.mean, self.variance
        if self.training:
            mean = flat.mean(0)
            variance = (flat - mean).pow(2).mean()
            self.seen.add_(1).clamp_(max=4)
            self.mean.lerp_(mean, 1 / self.seen)
            self.variance.lerp_(variance, 1 / self.seen)
        return ((flat - mean) * (variance + 1e-8).rsqrt() + OFFSET).view_as(x)


def blur_matrix(n: int, sigma: float) -> Tensor:
    """Gaussian smoothing of a line of n pixels as a matrix `[n, n]`; rows sum to 1 (renormalised at the border)."""
    place = torch.arange(n, dtype=torch.float32)
    return (-((place[:, None] - place[None, :]) ** 2) / (2 * sigma**2)).softmax(1)


class Decoder(nn.Module):
    """g: h `[N, K]` -> pictures `[N, c, s, s]` in (0, 1); the encoder mirrored, with ReLU."""

    def __init__(self, spec: DataSpec, k: int, form: Form, width: int) -> None:
        super().__init__()
        channels, height, breadth = spec.shape
        if form == "conv":
            count, left = halvings(spec)
            widths = [*(64 << i for i in reversed(range(count))), channels]
            first = nn.ConvTranspose2d(k, widths[0], left, bias=False)
            layers: list[nn.Module] = [nn.Unflatten(1, (k, 1, 1)), first, nn.BatchNorm2d(widths[0]), nn.ReLU()]
            layers += up(widths, norm=nn.BatchNorm2d, bias=False)
        else:
            layers = [*mlp([k, width, width, channels * height * breadth]), nn.Unflatten(1, spec.shape)]
        self.net = init_(nn.Sequential(*layers, nn.Sigmoid()))

    def forward(self, h: Tensor) -> Tensor:
        return self.net(h)


def bil(a: Tensor, b: Tensor) -> Tensor:
    """Flattened outer product of (a, 1) and (b, 1): `[..., p]`, `[..., q]` -> `[..., (p + 1) (q + 1)]`.

    The published product of a and b alone vanishes, and with it all dependence on b, where a = 0.
    """
    a, b = F.pad(a, (0, 1), value=1.0), F.pad(b, (0, 1), value=1.0)
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)


class _Body(nn.Module):
    """Linear - batch norm - leaky ReLU over the last dimension of inputs with any leading shape."""

    def __init__(self, fan_in: int, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(fan_in, width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear(x)
        return F.leaky_relu(self.norm(hidden.flatten(0, -2)), 0.1).view_as(hidden)


class Generator(nn.Module):
    """Phi(h, z): states `[E, K]`, noise `[E, n, m]` -> factors `[E, n, K]` in the set of the output map."""

    def __init__(self, k: int, m: int, output: OutputMap) -> None:
        super().__init__()
        self.output = output
        self.body = _Body((k + 1) * (m + 1), 128)
        self.last = nn.Linear(128, k + (output == "simplex-tanh"))
        init_(self)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        p = self.last(self.body(bil(h.unsqueeze(1).expand(-1, z.shape[1], -1), z)))
        return output_map(p, self.output)


def output_map(p: Tensor, kind: OutputMap) -> Tensor:
    """Where factors live: the cube [-1, 1]^K, the sphere, the simplex, or the simplex times tanh of one more scalar."""
    if kind == "hypercube":
        return p.tanh()
    if kind == "hypersphere":
        return F.normalize(p, dim=-1)
    if kind == "simplex":
        return p.softmax(-1)
    return p[..., :-1].softmax(-1) * p[..., -1:].tanh()


class Policy(nn.Module):
    """pi(a | h_t, phi) and the baseline V: from bil(h_t, h_0 + phi), where h_0 is the state that phi was made for."""

    def __init__(self, k: int, actions: int) -> None:
        super().__init__()
        self.body = _Body((k + 1) ** 2, 64)
        self.logits, self.value = nn.Linear(64, actions), nn.Linear(64, 1)
        init_(self)

    def forward(self, h: Tensor, h0: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """h `[E, P, K]`, h0 `[E, K]`, phi `[E, n, K]` -> logits `[E, P, n, A]`, values `[E, P, n]`."""
        goal = (h0.unsqueeze(1) + phi).unsqueeze(1).expand(-1, h.shape[1], -1, -1)
        here = h.unsqueeze(2).expand(-1, -1, phi.shape[1], -1)
        hidden = self.body(bil(here, goal))
        return self.logits(hidden), self.value(hidden).squeeze(-1)


class Transition(nn.Module):
    """T(h, phi): where the policy of phi will have taken h; in (-1, 1) if codes are."""

    def __init__(self, k: int, bounded: bool) -> None:
        super().__init__()
        self.bounded = bounded
        self.net = mlp([(k + 1) ** 2, 64, k], nn.LeakyReLU, negative_slope=0.1)
        init_(self)

    def forward(self, h: Tensor, phi: Tensor) -> Tensor:
        """h `[E, K]`, phi `[E, n, K]` -> `[E, n, K]`."""
        out = self.net(bil(h.unsqueeze(1).expand_as(phi), phi))
        return out.tanh() if self.bounded else out
