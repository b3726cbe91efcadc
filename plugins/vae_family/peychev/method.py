"""The autoencoders of Peychev, Veličković & Liò, "Quantifying the Effects of Enforcing Disentanglement on Variational
Autoencoders" (NIPS 2017 workshop, arXiv 1711.09159): a beta-VAE with batch normalisation, fully connected or
convolutional, optionally denoising. The paper is silent on the networks; they are those of its published program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import DataSpec, LatentSpace, Method, Objective, Step, adam, option
from distk.nn import canvas, kl_to_prior, reparameterise
from distk.plugins.vae_family.gaussian import GaussianVAE

NO_KL = 1e-3
"""Below this beta the KL term is left out altogether, as in the published program."""


@dataclass(frozen=True)
class PeychevConfig:
    """Hyperparameters of both variants."""

    z: int = option(10, "latent dimensions", paper="10 (shapes), 16 (MNIST)", min=1, max=1024)
    beta: float = option(1.0, "weight of the KL term; below 0.001 there is none", paper="0 to 5", min=0)
    denoise: bool = option(False, "corrupt the input, reconstruct the clean image")
    noise_amount: float = option(
        0.2, "share of the pixels that salt and pepper replaces by 0 or 1", paper="0.2", min=0, max=1
    )
    noise_portion: float = option(0.9, "share of each batch that is corrupted", paper="0.9 (code)", min=0, max=1)
    hidden: int | None = option(
        None, "width of the fully connected layers; default: by image size", paper="1200, 1024, 512", min=1, max=65536
    )
    bn_momentum: float = option(
        0.001, "weight of a batch in the running averages; 0.01 for short runs", paper="0.001 (code)", above=0, max=1
    )
    lr: float = option(1e-3, "learning rate of Adam", paper="1e-3 (code)", above=0)
    likelihood: ClassVar[str] = "bernoulli"


class PeychevVAE(GaussianVAE[PeychevConfig]):  # type: ignore[type-var]  # its networks are not those of --arch
    """What both variants share. `forward` is one batch's bound, so that `ensemble.py` can run many models at once."""

    data = "shapes2d"
    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 20_000, "batch": 1000}
    least_batch = 2  # fully connected layers are normalised over the batch

    def __init__(self, config: PeychevConfig, data: DataSpec) -> None:
        Method.__init__(self, config, data)  # not GaussianVAE's, which builds the networks of --arch
        if data.range[0] < 0 or data.range[1] > 1:
            raise ValueError(f"values must lie in [0, 1], and this data goes from {data.range[0]:g} to {data.range[1]}")
        self.latents = LatentSpace.of(*self.groups())
        self.encoder, self.decoder = self.networks(large=math.prod(data.shape[1:]) >= 1024)
        initialise(self.encoder, self.decoder)

    def networks(self, large: bool) -> tuple[nn.Sequential, nn.Sequential]:
        """Encoder to `[n, 2 z]` and decoder from `[n, z]`. large: the plan for 64x64 images, not that for 28x28."""
        raise NotImplementedError

    def _full(self, inputs: int, width: int, activation: type[nn.Module]) -> list[nn.Module]:
        return hidden(nn.Linear(inputs, width, bias=False), nn.BatchNorm1d, width, self.config.bn_momentum, activation)

    def forward(self, seen: Tensor, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The bound's two terms: images seen and to be reconstructed `[n, *shape]`, standard normal noise `[n, z]` ->
        reconstruction (sum over pixels, nats) and KL (sum over dimensions, nats), both mean over the batch, scalars."""
        mean, logvar = self.infer(seen)
        z = reparameterise(mean, (0.5 * logvar.clamp(-20, 10)).exp(), noise)
        return self.nll(self.decoder(z), clean).mean(), kl_to_prior(mean, logvar).sum(1).mean()

    def objectives(self) -> list[Objective]:
        return [Objective("loss", self.loss, self.parameters(), adam(self.config.lr))]

    def loss(self, step: Step) -> Tensor:
        """Reconstruction + beta KL, mean over the batch, nats."""
        x, config = step.batch["x"], self.config
        seen = x
        if config.denoise:
            draw = step.rand(*x.shape)
            seen = salt_and_pepper(x, draw, config.noise_amount, round(config.noise_portion * len(x)))
        reconstruction, kl = self(seen, x, step.randn(len(x), config.z))
        step.log("reconstruction", reconstruction)
        step.log("kl", kl)
        return reconstruction if config.beta < NO_KL else reconstruction + config.beta * kl


class PeychevFC(PeychevVAE):
    """Fully connected: 1200-1200 and 1200-1200-1200 for 64x64 images, 512-512 both ways for 28x28."""

    kinds = ("image", "vector")
    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"hidden": 200, "beta": 4.0, "bn_momentum": 0.01},
            "data": {"name": "shapes2d", "size": 32, "shapes": ("square",), "scales": (0, 5), "rotations": 30},
            "train": {"steps": 800, "batch": 128},
        },
        "paper": {"train": {"steps": 20_000, "batch": 1000}},
    }

    def networks(self, large: bool) -> tuple[nn.Sequential, nn.Sequential]:
        config, shape = self.config, self.spec.shape
        pixels = math.prod(shape)
        width = config.hidden or (1200 if large else 512)
        encoder = [nn.Flatten(), *self._full(pixels, width, nn.ReLU), *self._full(width, width, nn.ReLU)]
        decoder = [*self._full(config.z, width, nn.Tanh), *self._full(width, width, nn.Tanh)]
        if large:
            decoder += self._full(width, width, nn.Tanh)
        head, output = nn.Linear(width, 2 * config.z), nn.Linear(width, pixels)
        return nn.Sequential(*encoder, head), nn.Sequential(*decoder, output, nn.Unflatten(1, shape))


class PeychevConv(PeychevVAE):
    """Convolutional: two 3x3 convolutions of stride 2 and one full layer; other images stand on a canvas.

    Large images (32x32 and more, on sides divisible by 8) have three transposed convolutions of stride 2, smaller ones
    (on sides divisible by 4) two of stride 2 and one of stride 1.
    """

    presets: ClassVar[Mapping[str, Any]] = {
        "demo": {
            "model": {"hidden": 128, "beta": 4.0, "bn_momentum": 0.01},
            "data": {"name": "shapes2d", "size": 32, "shapes": ("square",), "scales": (0, 5), "rotations": 30},
            "train": {"steps": 800, "batch": 128},
        },
        "paper": {"model": {"beta": 4.0, "denoise": True}, "train": {"steps": 20_000, "batch": 1000}},
    }

    def networks(self, large: bool) -> tuple[nn.Sequential, nn.Sequential]:
        config, (channels, height, width) = self.config, self.spec.shape
        place = canvas(height, width, halvings=3 if large else 2)
        divisor = 8 if large else 4
        height, width = place.map[0] * divisor, place.map[1] * divisor
        first, second = (16, 32) if large else (8, 16)
        full = config.hidden or (1024 if large else 512)
        corner = second * (height // 4) * (width // 4)
        encoder = [*place.onto(), *self._down(channels, first), *self._down(first, second), nn.Flatten()]
        encoder += [*self._full(corner, full, nn.ReLU), nn.Linear(full, 2 * config.z)]
        start = (64 if large else 16, height // divisor, width // divisor)
        decoder = [*self._full(config.z, full, nn.Tanh), *self._full(full, math.prod(start), nn.Tanh)]
        decoder += [nn.Unflatten(1, start), *self._up(start[0], first), *self._up(first, 4)]
        decoder += [Upwards(4, channels, bias=True) if large else nn.Conv2d(4, channels, 3, 1, 1), *place.off()]
        return nn.Sequential(*encoder), nn.Sequential(*decoder)

    def _down(self, inputs: int, outputs: int) -> list[nn.Module]:
        return hidden(Downwards(inputs, outputs), nn.BatchNorm2d, outputs, self.config.bn_momentum, nn.ReLU)

    def _up(self, inputs: int, outputs: int) -> list[nn.Module]:
        return hidden(Upwards(inputs, outputs), nn.BatchNorm2d, outputs, self.config.bn_momentum, nn.Tanh)


# Layers


def hidden(
    layer: nn.Module, norm: type[nn.Module], width: int, momentum: float, activation: type[nn.Module]
) -> list[nn.Module]:
    """A layer without bias, batch normalisation of the published constants, an activation."""
    return [layer, norm(width, eps=1e-4, momentum=momentum), activation()]


class Downwards(nn.Conv2d):
    """3x3 convolution of stride 2 with TensorFlow's SAME padding, no bias: an even side is padded at its end only."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Upwards(nn.ConvTranspose2d):
    """The adjoint of `Downwards`: doubles both sides."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, 3, stride=2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[..., :-1, :-1]


def initialise(encoder: nn.Module, decoder: nn.Module) -> None:
    """He-normal by fan-in for the encoder (ReLU and the heads), Glorot-uniform for the decoder, biases 0, in place."""
    for part in (encoder, decoder):
        for layer in part.modules():
            if not isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                continue
            if part is encoder:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def salt_and_pepper(x: Tensor, draw: Tensor, amount: float, rows: int) -> Tensor:
    """Images with pixels replaced by 0 or 1 with equal odds, each with probability `amount`, in the first `rows` rows.

    draw: uniform on [0, 1), as x: below amount / 2 a pixel becomes 0, from there to amount it becomes 1.
    """
    first = (torch.arange(len(x), device=x.device) < rows).view(-1, *[1] * (x.dim() - 1))
    replaced = torch.where(draw < amount / 2, torch.zeros_like(x), torch.ones_like(x))
    return torch.where((draw < amount) & first, replaced, x)


def variant(name: str) -> tuple[str, bool]:
    """`fc`, `conv`, `fc-dn`, `conv-dn` -> (registered method, whether it denoises)."""
    network, _, noise = name.partition("-")
    return f"peychev-{network}", noise == "dn"


VARIANTS: Sequence[str] = ("fc", "conv", "fc-dn", "conv-dn")
