"""Generators and Siamese discriminators of DCGAN (Radford et al. 2016) and BEGAN (Berthelot et al. 2017).

Images are float `[..., channels, height, width]` in [-1, 1]. A tuple is the k images of one identity,
`[n, k, c, h, w]`; its images always pass a network together, as one batch of n * k. Nothing here sees more than one
side of the game: real and made tuples never share a batch normalisation.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from distk.nn import Canvas, canvas, down

SLOPE = 0.2
"""Of the leaky ReLUs of DCGAN's discriminator."""


def placed(shape: tuple[int, ...], smallest: int) -> tuple[int, Canvas]:
    """Channels of images `(c, h, w)`, and the canvas on which they are halved down to maps of `smallest` to
    `2 smallest - 1`. Raises ValueError for other data, and for images that are too small."""
    if len(shape) != 3 or min(shape[1:]) < 8:
        raise ValueError(f"the networks take images of 8x8 pixels or more, not {'x'.join(map(str, shape[1:]))}")
    return shape[0], canvas(shape[1], shape[2], smallest)


# DCGAN


class DCGenerator(nn.Module):
    """Codes `[..., z]` -> images `[..., c, h, w]` in [-1, 1]: a linear layer, transposed convolutions 5/2, tanh.

    At side 64 and width 64: 512x4x4, 256x8x8, 128x16x16, 64x32x32, each with batch normalisation and ReLU.
    """

    def __init__(self, z: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, place = placed(shape, 4)
        steps = place.halvings
        widths = [width << i for i in reversed(range(steps))]
        self.map = (widths[0], *place.map)
        self.first = nn.Sequential(
            nn.Linear(z, math.prod(self.map), bias=False),
            nn.Unflatten(1, self.map),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        for i, fan_in in enumerate(widths):
            last = i == steps - 1
            # Padding 2 and output padding 1: TensorFlow's SAME at an even side, up to a shift of half a pixel.
            layers.append(
                nn.ConvTranspose2d(fan_in, channels if last else widths[i + 1], 5, 2, 2, output_padding=1, bias=last)
            )
            layers += [nn.Tanh()] if last else [nn.BatchNorm2d(widths[i + 1]), nn.ReLU()]
        self.body = nn.Sequential(*layers, *place.off())
        dc_start(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(self.first(z.flatten(0, -2))).unflatten(0, z.shape[:-1])


class DCDiscriminator(nn.Module):
    """Tuples `[n, k, c, h, w]` -> logits of "real" `[n]`.

    Every image goes through the same convolutions 5/2; the k maps are stacked on their channels, a convolution 3/2
    compares them, and a linear layer decides. k = 1 has no such convolution (plain DCGAN). siamese=False: the images
    are stacked before the first convolution instead. norm=False: layer normalisation in place of batch normalisation,
    so that no row looks at another, as a gradient penalty needs it.
    """

    def __init__(self, k: int, shape: tuple[int, ...], width: int, siamese: bool = True, norm: bool = True) -> None:
        super().__init__()
        channels, place = placed(shape, 4)
        steps = place.halvings
        self.k, self.siamese = k, siamese

        def normed(features: int) -> nn.Module:
            # Statistics are always the batch's: the discriminator is never used in any other way.
            return nn.BatchNorm2d(features, track_running_stats=False) if norm else nn.GroupNorm(1, features)

        widths = [channels if siamese else k * channels, *(width << i for i in range(steps))]
        self.encoder = nn.Sequential(
            *place.onto(), *down(widths, 5, activation=lambda: nn.LeakyReLU(SLOPE), norm=normed)
        )
        top, corner = widths[-1], place.map
        self.compare: nn.Module = nn.Identity()
        if k > 1 and siamese:
            self.compare = nn.Sequential(nn.Conv2d(k * top, top, 3, 2, 1, bias=False), normed(top), nn.LeakyReLU(SLOPE))
            corner = ((corner[0] + 1) // 2, (corner[1] + 1) // 2)
        self.decide = nn.Linear(top * math.prod(corner), 1)
        dc_start(self)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        maps = self.encoder(x.flatten(0, 1) if self.siamese else x.flatten(1, 2))
        # [n * k, w, h, h] -> [n, k * w, h, h]: the maps of a tuple on top of each other.
        return self.decide(self.compare(maps.reshape(n, -1, *maps.shape[2:])).flatten(1)).squeeze(1)


def dc_start(network: nn.Module) -> None:
    """Weights uniform with standard deviation 0.02, biases 0, normalisations 1 and 0, in place."""
    limit = 0.02 * math.sqrt(3)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.uniform_(layer.weight, -limit, limit)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# BEGAN


class BEDecoder(nn.Module):
    """Codes `[..., z]` -> images `[..., c, h, w]`, linear at the end, so that values may leave [-1, 1].

    A linear layer to width x 8 x 8, blocks of two convolutions 3 with ELU, the sides doubled by nearest neighbour after
    each block but the last. It is generator and decoder alike.
    """

    def __init__(self, z: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, place = placed(shape, 8)
        steps = place.halvings
        self.map = (width, *place.map)
        layers: list[nn.Module] = [nn.Linear(z, math.prod(self.map)), nn.Unflatten(1, self.map)]
        for block in range(steps + 1):
            layers += [*_conv(width, width), *_conv(width, width)]
            if block < steps:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.body = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1), *place.off())
        be_start(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z.flatten(0, -2)).unflatten(0, z.shape[:-1])


class BEEncoder(nn.Module):
    """Images `[n, c, h, w]` -> hidden codes `[n, z]`: block i has i * width channels and ends, but for the last, in a
    convolution of stride 2."""

    def __init__(self, z: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, place = placed(shape, 8)
        steps = place.halvings
        layers, fan_in = [*place.onto(), *_conv(channels, width)], width
        for block in range(1, steps + 2):
            layers += [*_conv(fan_in, block * width), *_conv(block * width, block * width)]
            if block <= steps:
                layers += _conv(block * width, block * width, 2)
            fan_in = block * width
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(fan_in * math.prod(place.map), z))
        be_start(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class BEAutoencoder(nn.Module):
    """Tuples `[n, k, c, h, w]` -> their reconstructions: the discriminator of BEGAN, made Siamese.

    One encoder for all images; the k hidden codes together pass a linear bottleneck of `bottleneck` numbers and are
    widened again, so that what the images of a tuple share need be told once; one decoder. k = 1 has no bottleneck.
    """

    def __init__(self, k: int, z: int, bottleneck: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.encoder, self.decoder = BEEncoder(z, shape, width), BEDecoder(z, shape, width)
        self.shared: nn.Module = nn.Identity()
        if k > 1:
            self.shared = nn.Sequential(nn.Linear(k * z, bottleneck), nn.Linear(bottleneck, k * z))
            be_start(self.shared)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(x.flatten(0, 1)).reshape(x.shape[0], -1)
        return self.decoder(self.shared(hidden).unflatten(1, (x.shape[1], -1)))


def _conv(fan_in: int, fan_out: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(fan_in, fan_out, 3, stride, 1), nn.ELU()]


def be_start(network: nn.Module) -> None:
    """Xavier's uniform weights, biases 0, in place (the authors' code leaves its layers at this default)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
